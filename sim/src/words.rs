//! Events and commands in words, and by kind and peer.

mod kinds;
mod time;

use std::fmt::{self, Write};

use kinfolk_core::{
    Action, Address, Answer, Ask, Asker, CircuitLimit, Command, Event, Interfaces, Mapping, Origin, PeerId, PingError,
    Prefix, Query, Role, SignalPeer, SignalServices, StoredMapping, StoredPeer, Told, ValidConfig,
};

pub use kinds::{COMMANDS, EVENTS, NOTICES, command_kind, dial_error_kind, event_kind, notice_kind};
pub use time::{Utc, parse_span, span};

/// Longer lists are cut in words; JSON has them whole.
const LIST: usize = 4;

/// An event, told as a sentence without a stop.
pub fn event(event: &Event) -> String {
    text(|w| tell_event(w, event))
}

/// A command with its number and its reason.
pub fn command(command: &Command) -> String {
    text(|w| {
        write!(w, "{} ", command.id)?;
        if let Some(peer) = command.peer() {
            write!(w, "{peer}: ")?;
        }
        write!(w, "{}", command.action)?;
        match &command.action {
            Action::Answer { answer: Ok(answer), .. } => match answer {
                Answer::Connected { peer, connection, address } => {
                    write!(w, ": {peer} is connected ({connection}, {address})")?;
                }
                Answer::Done => w.write_str(": done")?,
                Answer::NothingToDo => w.write_str(": it was so already")?,
            },
            Action::Query(Query::LookUpRandom { place }) => write!(w, " ({place:#x})")?,
            Action::Route { addresses, .. } => list(w, " at ", addresses)?,
            Action::SignalPublish { services, lifetime, .. } => {
                write!(w, " ({} for {} s)", doing(*services), lifetime.as_secs())?;
            }
            Action::Dial { .. }
            | Action::Close { .. }
            | Action::Release { .. }
            | Action::Refuse { .. }
            | Action::Deny { .. }
            | Action::Admit { .. }
            | Action::Listen { .. }
            | Action::Advertise { .. }
            | Action::Withdraw { .. }
            | Action::PushIdentity
            | Action::Probe { .. }
            | Action::CancelProbe { .. }
            | Action::Reserve { .. }
            | Action::Unreserve { .. }
            | Action::Punch { .. }
            | Action::AnswerPunch { .. }
            | Action::RefusePunch { .. }
            | Action::CancelPunch { .. }
            | Action::MapPort { .. }
            | Action::UnmapPort { .. }
            | Action::SetServices { .. }
            | Action::SetMember { .. }
            | Action::SetKademliaServer { .. }
            | Action::Unroute { .. }
            | Action::Query(_)
            | Action::CancelQuery { .. }
            | Action::SignalQuery { .. }
            | Action::SignalCancel { .. }
            | Action::SetSync { .. }
            | Action::SyncExchange { .. }
            | Action::SyncAnnounce { .. }
            | Action::SyncFetch { .. }
            | Action::SyncCancel { .. }
            | Action::Remember(_)
            | Action::RememberNat(_)
            | Action::Forget { .. }
            | Action::Answer { .. }
            | Action::Tell(_) => {}
        }
        write!(w, ", because {}", command.reason)
    })
}

/// The peers that an event is about, each once, in the order in which it names them.
pub fn peers(event: &Event) -> Vec<PeerId> {
    let mut peers = vec![];
    match event {
        Event::Wake
        | Event::Started(_)
        | Event::Configured(_)
        | Event::Interfaces(_)
        | Event::WallClock { .. }
        | Event::Resumed { .. }
        | Event::Listening { .. }
        | Event::ListenAddressGone { .. }
        | Event::ListenFailed { .. }
        | Event::OwnIdentitySeen { .. }
        | Event::DialFailed { .. }
        | Event::HeldFailed { .. }
        | Event::Candidate { .. }
        | Event::Confirmed { .. }
        | Event::Unconfirmed { .. }
        | Event::Probed { .. }
        | Event::Reserved { .. }
        | Event::ReservedAt { .. }
        | Event::ReservationEnded { .. }
        | Event::CircuitLimited { .. }
        | Event::CircuitUsed { .. }
        | Event::PunchAnswered { .. }
        | Event::PunchFailed { .. }
        | Event::Gateway { .. }
        | Event::PortMapped { .. }
        | Event::PortUnmapped { .. }
        | Event::QueryEnded { .. }
        | Event::SignalPublished { .. }
        | Event::SignalFailed { .. }
        | Event::SyncFailed { .. }
        | Event::SyncPressure { .. }
        | Event::Refused { .. } => {}
        Event::SyncHeads { heads, .. } => peers.extend(heads.iter().map(|head| head.log.author)),
        Event::SyncFetched { log, .. } => peers.push(log.author),
        Event::SyncTold { peer, told, .. } => {
            peers.push(*peer);
            if let Told::Heads(heads) = told {
                peers.extend(heads.iter().map(|head| head.log.author));
            }
        }
        Event::SignalFound { peers: told, .. } => peers.extend(told.iter().map(|told| told.peer)),
        Event::StoreLoaded { peers: stored, .. } => peers.extend(stored.iter().map(|stored| stored.peer)),
        Event::Asked { ask, .. } => match ask {
            Ask::Connect(at) | Ask::Pin(at) | Ask::AddBootstrap(at) | Ask::RemoveBootstrap(at) => peers.extend(at.peer),
            Ask::Disconnect(peer)
            | Ask::Forget(peer)
            | Ask::Block(peer)
            | Ask::Allow(peer)
            | Ask::Protect(peer)
            | Ask::Unprotect(peer)
            | Ask::Sync { peer, .. } => peers.push(*peer),
        },
        Event::Found { peer, .. }
        | Event::Lost { peer, .. }
        | Event::Connected { peer, .. }
        | Event::Disconnected { peer, .. }
        | Event::Identified { peer, .. }
        | Event::IdentifyFailed { peer, .. }
        | Event::Pinged { peer, .. }
        | Event::Serving { peer, .. }
        | Event::PunchOffered { peer, .. }
        | Event::Routed { peer, .. } => peers.push(*peer),
        Event::InboundFailed { peer, .. } | Event::DialHeld { peer, .. } => peers.extend(*peer),
        Event::QueryFound { peers: found, .. } => peers.extend(found.iter().map(|(peer, _)| *peer)),
    }
    let mut seen = std::collections::BTreeSet::new();
    peers.retain(|peer| seen.insert(*peer));
    peers
}

/// A number of things: `1 input`, `2 inputs`.
pub fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

fn circuit_limit(w: &mut String, limit: CircuitLimit) -> fmt::Result {
    if let Some(duration) = limit.duration {
        write!(w, ", {} a circuit", span(duration))?;
    }
    if let Some(bytes) = limit.bytes {
        write!(w, ", {bytes} bytes a circuit")?;
    }
    Ok(())
}

fn nat(w: &mut String, mapping: Option<Mapping>) -> fmt::Result {
    mapping.map_or(Ok(()), |mapping| write!(w, ", its NAT: {mapping}"))
}

fn text(tell: impl FnOnce(&mut String) -> fmt::Result) -> String {
    let mut text = String::new();
    let told = tell(&mut text);
    debug_assert!(told.is_ok(), "a string takes everything");
    fit(text)
}

/// A text that others wrote, fit for a terminal: nothing in it moves the cursor, ends the line or turns it around.
pub fn fit(text: String) -> String {
    if text.contains(is_unfit) { text.chars().flat_map(shown).collect() } else { text }
}

fn is_unfit(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn shown(c: char) -> impl Iterator<Item = char> {
    let escaped = is_unfit(c).then(|| c.escape_default());
    let plain = escaped.is_none().then_some(c);
    escaped.into_iter().flatten().chain(plain)
}

fn tell_event(w: &mut String, event: &Event) -> fmt::Result {
    match event {
        Event::Wake => w.write_str("woken: time has passed"),
        Event::Started(started) => {
            write!(w, "started as {} with ", started.local)?;
            settings(w, &started.config)?;
            let clock = Utc(started.unix_time);
            write!(w, "; the wall clock says {clock}; ")?;
            interfaces(w, &started.interfaces)
        }
        Event::Configured(config) => {
            w.write_str("told new settings: ")?;
            settings(w, config)
        }
        Event::StoreLoaded { peers, nat, last } => {
            write!(w, "the store remembers {}", count(peers.len() as u64, "peer", "peers"))?;
            some(w, ": ", peers.iter().map(Stored))?;
            if let Some(nat) = nat {
                write!(w, "; then {}", nat.reachability)?;
                let told = |kind: &StoredMapping| {
                    let family = if kind.ipv6 { "IPv6" } else { "IPv4" };
                    format!("{family} by {}: {}", kind.transport, kind.mapping)
                };
                some(w, ", NAT for ", nat.mappings.iter().map(told))?;
            }
            w.write_str(if *last { "; that was all" } else { "; more follow" })
        }
        Event::Asked { request, ask: asked } => {
            write!(w, "request {request}: ")?;
            ask(w, asked)
        }
        Event::Interfaces(now) => interfaces(w, now),
        Event::WallClock { unix_time, synced } => {
            let trust = if *synced { "synchronised" } else { "not synchronised, so not believed" };
            write!(w, "the wall clock says {} ({trust})", Utc(*unix_time))
        }
        Event::Resumed { asleep } => write!(w, "the machine slept for {}", span(*asleep)),
        Event::Listening { listener, command, address } => {
            write!(w, "listener {listener} (asked by {command}) has the address {address}")
        }
        Event::ListenAddressGone { listener, address } => write!(w, "listener {listener} lost the address {address}"),
        Event::ListenFailed { command, error } => write!(w, "the listener asked by {command} is not there: {error}"),
        Event::Found { source, peer, addresses, cut } => {
            write!(w, "{peer} was found {source}")?;
            list(w, " at ", addresses)?;
            more(w, *cut)
        }
        Event::Lost { source, peer, addresses } => {
            write!(w, "{peer} is no longer found {source}")?;
            list(w, " at ", addresses)
        }
        Event::OwnIdentitySeen { address } => write!(w, "our own identity was seen at {address}"),
        Event::Connected { connection, peer, direction, address, origin, took } => {
            write!(w, "{peer} connected ({direction}, {connection}, {address}, in {}", span(*took))?;
            match origin {
                Origin::Inbound => {}
                Origin::Dial(command) => write!(w, ", dialled by {command}")?,
                Origin::Punch(command) => write!(w, ", by the try {command}")?,
                Origin::Probe(command) => write!(w, ", for the probe {command}")?,
                Origin::Held(held) => write!(w, ", dial {held} of a behaviour")?,
            }
            w.write_str(")")
        }
        Event::Disconnected { connection, peer, cause } => {
            write!(w, "{peer} disconnected ({connection}): {cause}")
        }
        Event::DialFailed { dial, failures, error } => {
            write!(w, "dial {dial} failed: {error}")?;
            some(w, " (", failures.iter().map(|(address, error)| format!("{address}: {error}")))?;
            w.write_str(if failures.is_empty() { "" } else { ")" })
        }
        Event::InboundFailed { address, peer, error, count } => {
            match peer {
                Some(peer) => write!(w, "{peer} knocked from {address} in vain: {error}")?,
                None => write!(w, "somebody knocked from {address} in vain: {error}")?,
            }
            if *count > 1 { write!(w, " ({count} like this)") } else { Ok(()) }
        }
        Event::DialHeld { held, asker: whose, peer } => {
            write!(w, "{} wants to dial ", asker(*whose))?;
            match peer {
                Some(peer) => write!(w, "{peer} (held as {held})"),
                None => write!(w, "an address (held as {held})"),
            }
        }
        Event::HeldFailed { held, error } => write!(w, "the released dial {held} failed: {error}"),
        Event::Identified { connection, peer, identity } => {
            write!(
                w,
                "{peer} introduced itself ({connection}): {:?}, {:?}, {} protocols",
                identity.agent,
                identity.protocol_version,
                identity.protocols.len()
            )?;
            list(w, ", reachable at ", &identity.addresses)?;
            if let Some(observed) = &identity.observed {
                write!(w, ", sees us at {observed}")?;
            }
            more(w, identity.cut)
        }
        Event::IdentifyFailed { connection, peer, error } => {
            write!(w, "{peer} did not introduce itself ({connection}): {error}")
        }
        Event::Pinged { connection, peer, result } => {
            write!(w, "{peer} ({connection}) ")?;
            match result {
                Ok(rtt) => write!(w, "answered a ping in {}", span(*rtt)),
                Err(PingError::TimedOut) => w.write_str("did not answer a ping in time"),
                Err(PingError::Unsupported) => w.write_str("does not speak ping"),
                Err(PingError::Other(text)) => write!(w, "failed a ping: {text}"),
            }
        }
        Event::Candidate { asker: whose, address } => {
            write!(w, "{} takes {address} for an address of ours, without proof", asker(*whose))
        }
        Event::Confirmed { asker: whose, address } => {
            write!(w, "{} takes {address} for a proven address of ours", asker(*whose))
        }
        Event::Unconfirmed { asker: whose, address } => {
            write!(w, "{} no longer takes {address} for an address of ours", asker(*whose))
        }
        Event::Probed { probe, verdict } => write!(w, "probe {probe} has ended: {verdict}"),
        Event::Reserved { reservation, limit, lasts } => {
            write!(w, "reservation {reservation} is granted")?;
            lasts.map_or(Ok(()), |lasts| write!(w, " for {}", span(lasts)))?;
            limit.map_or(Ok(()), |limit| circuit_limit(w, limit))
        }
        Event::ReservedAt { reservation, address } => {
            write!(w, "reservation {reservation} makes us reachable at {address}")
        }
        Event::ReservationEnded { reservation, error } => write!(w, "reservation {reservation} is over: {error}"),
        Event::CircuitLimited { connection, limit } => {
            write!(w, "connection {connection} is limited")?;
            circuit_limit(w, *limit)
        }
        Event::CircuitUsed { connection, bytes } => write!(w, "connection {connection} has carried {bytes} bytes"),
        Event::Serving { peer, reserved, circuits } => {
            let place = if *reserved { "has a reservation here" } else { "has no reservation here" };
            write!(w, "{peer} {place}, and {}", count(u64::from(*circuits), "circuit", "circuits"))
        }
        Event::PunchOffered { offer, connection, peer, mapping, candidates } => {
            write!(w, "{peer} proposes a direct connection ({offer}, over {connection})")?;
            nat(w, *mapping)?;
            list(w, " at ", candidates)
        }
        Event::PunchAnswered { punch, mapping, candidates } => {
            write!(w, "try {punch} is taken up")?;
            nat(w, *mapping)?;
            list(w, " at ", candidates)
        }
        Event::PunchFailed { punch, error } => write!(w, "try {punch} failed: {error}"),
        Event::Gateway { upnp, nat_pmp, pcp } => {
            w.write_str("the router speaks")?;
            let spoken = [(*upnp, "UPnP"), (*nat_pmp, "NAT-PMP"), (*pcp, "PCP")];
            let spoken: Vec<&str> = spoken.into_iter().filter(|(speaks, _)| *speaks).map(|(_, name)| name).collect();
            if spoken.is_empty() { w.write_str(" no port mapping") } else { write!(w, " {}", spoken.join(", ")) }
        }
        Event::PortMapped { transport, external } => {
            write!(w, "the router lets {external} lead to our {transport} port")
        }
        Event::PortUnmapped { transport } => write!(w, "the router lets nothing lead to our {transport} port"),
        Event::Routed { peer, present: true } => write!(w, "{peer} is in the routing table now"),
        Event::Routed { peer, present: false } => write!(w, "{peer} is no longer in the routing table"),
        Event::QueryFound { query, peers, cut, record } => {
            write!(w, "query {query} found {}", count(peers.len() as u64, "peer", "peers"))?;
            some(w, ": ", peers.iter().map(|(peer, found)| format!("{peer} ({})", addresses(found.len()))))?;
            record.map_or(Ok(()), |record| write!(w, ", by its record {record}"))?;
            more(w, *cut)
        }
        Event::QueryEnded { query, successes, failures } => {
            write!(
                w,
                "query {query} is over: {} answered, {failures} did not",
                count((*successes).into(), "peer", "peers")
            )
        }
        Event::SignalFound { query, peers, cut, backing } => {
            write!(w, "a signal server, asked by {query}, tells {}", count(peers.len() as u64, "peer", "peers"))?;
            backing.map_or(Ok(()), |backing| write!(w, " from {backing}"))?;
            some(w, ": ", peers.iter().map(Signalled))?;
            more(w, *cut)
        }
        Event::SignalPublished { publish, expires_in, backing } => {
            write!(w, "a signal server keeps our record ({publish}) for {} s", expires_in.as_secs())?;
            backing.map_or(Ok(()), |backing| write!(w, ", in {backing}"))
        }
        Event::SignalFailed { command, error } => write!(w, "question {command} to a signal server failed: {error}"),
        Event::SyncHeads { heads, last } => {
            write!(w, "own logs: {}", count(heads.len() as u64, "log", "logs"))?;
            some(w, ": ", heads.iter())?;
            w.write_str(if *last { "" } else { "; more follow" })
        }
        Event::SyncTold { peer, connection, sync, told, last } => {
            write!(w, "{peer} ({connection}")?;
            sync.map_or(Ok(()), |sync| write!(w, ", asked by {sync}"))?;
            match told {
                Told::Same => w.write_str(") has the same logs as we have")?,
                Told::Differs => w.write_str(") has other logs than we have")?,
                Told::Heads(heads) => {
                    write!(w, ") has {}", count(heads.len() as u64, "log", "logs"))?;
                    some(w, ": ", heads.iter())?;
                }
            }
            w.write_str(if *last { "" } else { "; more follow" })
        }
        Event::SyncFetched { fetch, log, head, entries, has_more } => {
            write!(w, "range {fetch} is stored: {}", count((*entries).into(), "new entry", "new entries"))?;
            write!(w, " of {log}, now up to {}", head.position)?;
            w.write_str(if *has_more { "; there is more" } else { "" })
        }
        Event::SyncFailed { sync, error } => write!(w, "{sync} came to nothing: {error}"),
        Event::SyncPressure { busy: true } => w.write_str("the store of logs can't follow"),
        Event::SyncPressure { busy: false } => w.write_str("the store of logs can follow"),
        Event::Refused { command, refusal } => write!(w, "{command} could not be done: {refusal}"),
    }
}

fn settings(w: &mut String, config: &ValidConfig) -> fmt::Result {
    let role = match config.role {
        Role::Family => "family",
        Role::Desktop => "desktop",
        Role::Server => "server",
    };
    write!(
        w,
        "role {role}, network {:?}, {} bootstrap and {} pinned peers, mDNS {}",
        config.network,
        config.bootstrap.len(),
        config.pinned.len(),
        if config.mdns { "on" } else { "off" }
    )
}

fn interfaces(w: &mut String, interfaces: &Interfaces) -> fmt::Result {
    w.write_str("own addresses: ")?;
    if interfaces.addresses.is_empty() {
        w.write_str("none")?;
    }
    some(w, "", interfaces.addresses.iter().map(|Prefix { ip, len }| format!("{ip}/{len}")))?;
    w.write_str(match (interfaces.default_v4, interfaces.default_v6) {
        (true, true) => "; IPv4 and IPv6 to the internet",
        (true, false) => "; IPv4 to the internet",
        (false, true) => "; IPv6 to the internet",
        (false, false) => "; no way to the internet",
    })
}

fn ask(w: &mut String, ask: &Ask) -> fmt::Result {
    match ask {
        Ask::Connect(at) => write!(w, "connect to {at}"),
        Ask::Disconnect(peer) => write!(w, "disconnect {peer}"),
        Ask::Pin(at) => write!(w, "pin {at}"),
        Ask::Forget(peer) => write!(w, "forget {peer}"),
        Ask::Block(peer) => write!(w, "block {peer}"),
        Ask::Allow(peer) => write!(w, "allow {peer}"),
        Ask::AddBootstrap(at) => write!(w, "add bootstrap peer {at}"),
        Ask::RemoveBootstrap(at) => write!(w, "remove bootstrap peer {at}"),
        Ask::Protect(peer) => write!(w, "protect the connections to {peer}"),
        Ask::Unprotect(peer) => write!(w, "no longer protect the connections to {peer}"),
        Ask::Sync { peer, position, pending } => {
            write!(w, "data flow with {peer}: {} open", count((*pending).into(), "request", "requests"))?;
            position.map_or(Ok(()), |position| write!(w, ", position {position}"))
        }
    }
}

fn asker(asker: Asker) -> &'static str {
    match asker {
        Asker::Kademlia => "Kademlia",
        Asker::Identify => "identify",
        Asker::Relay => "the relay client",
        Asker::Autonat => "AutoNAT",
        Asker::Application => "the application",
    }
}

fn doing(services: SignalServices) -> &'static str {
    match (services.relay, services.bootstrap) {
        (true, true) => "relay, bootstrap",
        (true, false) => "relay",
        (false, true) => "bootstrap",
        (false, false) => "no services",
    }
}

struct Signalled<'a>(&'a SignalPeer);

impl fmt::Display for Signalled<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(SignalPeer { peer, seq, addresses: at, services }) = self;
        write!(f, "{peer} ({}, {}", addresses(at.len()), doing(*services))?;
        match seq {
            Some(seq) => write!(f, ", record {seq})"),
            None => f.write_str(", unsigned)"),
        }
    }
}

struct Stored<'a>(&'a StoredPeer);

impl fmt::Display for Stored<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(stored) = self;
        write!(f, "{} ({}", stored.peer, addresses(stored.addresses.len()))?;
        f.write_str(if stored.pinned { ", pinned" } else { "" })?;
        f.write_str(if stored.blocked { ", blocked)" } else { ")" })
    }
}

fn addresses(number: usize) -> String {
    count(number as u64, "address", "addresses")
}

fn list(w: &mut String, before: &str, addresses: &[Address]) -> fmt::Result {
    some(w, before, addresses.iter())
}

/// The first of a list and how many there are more; nothing at all for an empty one.
fn some(w: &mut String, before: &str, items: impl ExactSizeIterator<Item = impl fmt::Display>) -> fmt::Result {
    let count = items.len();
    for (at, item) in items.take(LIST).enumerate() {
        write!(w, "{}{item}", if at == 0 { before } else { ", " })?;
    }
    if count > LIST { write!(w, " and {} more", count - LIST) } else { Ok(()) }
}

fn more(w: &mut String, cut: u32) -> fmt::Result {
    if cut == 0 { Ok(()) } else { write!(w, "; {cut} more were cut off") }
}
