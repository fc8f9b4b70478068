//! What the tests share: peers, addresses, one event of each kind, hand-made traces.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::{collections::VecDeque, time::Duration};

use kinfolk_core::{
    Action, Address, Ask, Asker, CircuitLimit, CloseCause, Command, CommandId, Config, ConnectionId, DialError,
    Direction, EntryHash, Event, Head, HeldId, Identity, Interfaces, ListenError, ListenerId, LogHead, LogId, Mapping,
    Notice, OfferId, Origin, PeerAddress, PeerId, PingError, Prefix, ProbeVerdict, PunchError, Query, Reason, Refusal,
    RequestId, ReserveError, SignalBacking, SignalError, SignalPeer, SignalServices, Source, Started, StoredAddress,
    StoredPeer, SyncError, Time, Told, Transport,
    trace::{Frame, Header, SegmentReason},
};
use kinfolk_sim::record::Recording;

/// A peer id like those of Ed25519 keys, made of one number.
pub fn peer(number: u8) -> PeerId {
    let mut bytes = vec![0x00, 0x24, 0x08, 0x01, 0x12, 0x20];
    bytes.extend((0..32).map(|at: u8| number.wrapping_mul(37).wrapping_add(at.wrapping_mul(number | 1))));
    PeerId::from_bytes(&bytes).unwrap()
}

pub fn address(text: &str) -> Address {
    text.parse().unwrap()
}

pub fn started() -> Started {
    let mut config = Config::desktop();
    config.bootstrap = vec![PeerAddress::new(peer(9), address("/dns4/boot.smith.example/tcp/4001"))];
    Started {
        config: config.validate().unwrap(),
        local: peer(1),
        seed: 7,
        unix_time: 1_790_000_000,
        interfaces: Interfaces {
            addresses: vec![prefix("192.168.1.7", 24), prefix("2a01:4f8:12:34::7", 64), prefix("fe80::7", 64)],
            default_v4: true,
            default_v6: false,
        },
    }
}

pub fn prefix(ip: &str, len: u8) -> Prefix {
    Prefix { ip: ip.parse().unwrap(), len }
}

/// One event of each kind at least, and some more.
pub fn events() -> Vec<Event> {
    let (connection, dial, held) = (ConnectionId(4), CommandId(12), HeldId(3));
    let home = address("/ip4/192.168.1.9/tcp/4001");
    let far = address("/ip6/2a02:810d::9/udp/4001/quic-v1");
    let many: Vec<Address> = (1..8).map(|port| address(&format!("/ip4/45.10.20.30/tcp/{port}"))).collect();
    let ask = |ask| Event::Asked { request: RequestId(5), ask };
    let at_home = || PeerAddress::new(peer(2), home.clone());
    vec![
        Event::Wake,
        Event::Started(Box::new(started())),
        Event::Configured(Box::new(started().config)),
        Event::StoreLoaded { peers: vec![stored(2, true, false), stored(3, false, true)], nat: None, last: false },
        Event::StoreLoaded { peers: vec![], nat: None, last: true },
        ask(Ask::Connect(at_home())),
        ask(Ask::Disconnect(peer(2))),
        ask(Ask::Pin(at_home())),
        ask(Ask::Forget(peer(2))),
        ask(Ask::Block(peer(2))),
        ask(Ask::Allow(peer(2))),
        ask(Ask::AddBootstrap(at_home())),
        ask(Ask::RemoveBootstrap(at_home())),
        ask(Ask::Protect(peer(2))),
        ask(Ask::Unprotect(peer(2))),
        ask(Ask::Sync { peer: peer(2), position: Some(77), pending: 2 }),
        Event::Interfaces(started().interfaces),
        Event::Interfaces(Interfaces::default()),
        Event::WallClock { unix_time: 1_790_000_100, synced: true },
        Event::WallClock { unix_time: 0, synced: false },
        Event::Resumed { asleep: Duration::from_secs(7_260) },
        Event::Listening { listener: ListenerId(1), command: CommandId(2), address: home.clone() },
        Event::ListenAddressGone { listener: ListenerId(1), address: home.clone() },
        Event::ListenFailed { command: CommandId(2), error: ListenError::PortTaken },
        Event::Found { source: Source::Mdns, peer: peer(2), addresses: vec![home.clone()], cut: 0 },
        Event::Found { source: Source::Kademlia, peer: peer(3), addresses: many.clone(), cut: 40 },
        Event::Lost { source: Source::Mdns, peer: peer(2), addresses: vec![home.clone()] },
        Event::OwnIdentitySeen { address: home.clone() },
        Event::Connected {
            connection,
            peer: peer(2),
            direction: Direction::Outbound,
            address: home.clone(),
            origin: Origin::Dial(dial),
            took: Duration::from_millis(23),
        },
        Event::Connected {
            connection,
            peer: peer(2),
            direction: Direction::Inbound,
            address: home.clone(),
            origin: Origin::Inbound,
            took: Duration::ZERO,
        },
        Event::Connected {
            connection,
            peer: peer(2),
            direction: Direction::Outbound,
            address: address(&format!("/ip4/45.10.20.30/tcp/4001/p2p/{}/p2p-circuit", peer(9))),
            origin: Origin::Held(held),
            took: Duration::from_secs(2),
        },
        Event::Disconnected { connection, peer: peer(2), cause: CloseCause::Broken("reset by peer".into()) },
        Event::DialFailed {
            dial,
            failures: vec![(home.clone(), DialError::ConnectionRefused), (far.clone(), DialError::WrongPeer(peer(4)))],
            error: DialError::Other("nothing worked at 45.10.20.30:4001".into()),
        },
        Event::DialFailed { dial, failures: vec![], error: DialError::NoAddresses },
        Event::InboundFailed { address: far.clone(), peer: None, error: DialError::Handshake, count: 1 },
        Event::InboundFailed { address: far.clone(), peer: Some(peer(2)), error: DialError::Denied, count: 60 },
        Event::DialHeld { held, asker: Asker::Kademlia, peer: Some(peer(3)) },
        Event::DialHeld { held, asker: Asker::Application, peer: None },
        Event::HeldFailed { held, error: DialError::TimedOut },
        Event::Identified {
            connection,
            peer: peer(2),
            identity: Box::new(Identity {
                protocol_version: "/elohim/id/1.0.0".into(),
                agent: "kinfolk/0.1.0".into(),
                protocols: vec!["/elohim/kad/1.0.0".into(), "/ipfs/ping/1.0.0".into()],
                addresses: vec![home.clone(), far.clone()],
                observed: Some(address("/ip4/91.64.7.8/tcp/50123")),
                cut: 2,
            }),
        },
        Event::IdentifyFailed { connection, peer: peer(2), error: "stream closed".into() },
        Event::Pinged { connection, peer: peer(2), result: Ok(Duration::from_micros(850)) },
        Event::Pinged { connection, peer: peer(2), result: Err(PingError::TimedOut) },
        Event::Pinged { connection, peer: peer(2), result: Err(PingError::Unsupported) },
        Event::Pinged { connection, peer: peer(2), result: Err(PingError::Other("reset".into())) },
        Event::Candidate { asker: Asker::Identify, address: far.clone() },
        Event::Confirmed { asker: Asker::Autonat, address: far.clone() },
        Event::Unconfirmed { asker: Asker::Relay, address: far.clone() },
        Event::Routed { peer: peer(9), present: true },
        Event::Routed { peer: peer(9), present: false },
        Event::QueryFound {
            query: CommandId(8),
            peers: vec![(peer(2), vec![home]), (peer(3), many)],
            cut: 3,
            record: None,
        },
        Event::QueryEnded { query: CommandId(8), successes: 3, failures: 1 },
        Event::Refused { command: CommandId(8), refusal: Refusal::NobodyToAsk },
    ]
}

/// Those that are about logs.
pub fn log_events() -> Vec<Event> {
    let head = Head { position: 41, hash: EntryHash([7; 32]) };
    let later = LogId { author: peer(3), epoch: 2 };
    let heads = vec![LogHead { log: LogId { author: peer(2), epoch: 0 }, head }, LogHead { log: later, head }];
    let (connection, command) = (ConnectionId(4), CommandId(9));
    let told = |sync, told, last| Event::SyncTold { peer: peer(2), connection, sync, told, last };
    vec![
        Event::SyncHeads { heads: heads.clone(), last: false },
        told(None, Told::Differs, true),
        told(Some(command), Told::Same, true),
        told(Some(command), Told::Heads(heads), false),
        Event::SyncFetched { fetch: command, log: later, head, entries: 1, has_more: true },
        Event::SyncFailed { sync: command, error: SyncError::Forked { position: 41 } },
        Event::SyncPressure { busy: true },
    ]
}

/// Those that are about signal servers.
pub fn signal_events() -> Vec<Event> {
    let command = CommandId(9);
    let at = |text: &str| vec![address(text)];
    let relay = SignalPeer {
        peer: peer(9),
        seq: Some(1_790_000_000),
        addresses: at("/ip4/45.10.20.30/udp/4001/quic-v1"),
        services: SignalServices { relay: true, bootstrap: true },
    };
    let unsigned = SignalPeer {
        peer: peer(3),
        seq: None,
        addresses: at("/dns4/smith.example/tcp/4001"),
        services: SignalServices::default(),
    };
    let refused =
        |reason: &str| SignalError::Refused { reason: reason.into(), retry_after: Some(Duration::from_secs(30)) };
    vec![
        Event::SignalFound { query: command, peers: vec![], cut: 0, backing: None },
        Event::SignalFound {
            query: command,
            peers: vec![relay, unsigned],
            cut: 2,
            backing: Some(SignalBacking::Redis),
        },
        Event::SignalPublished {
            publish: command,
            expires_in: Duration::from_secs(7_200),
            backing: Some(SignalBacking::Sqlite),
        },
        Event::SignalFailed { command, error: SignalError::Stale { seq: 1_790_000_007 } },
        Event::SignalFailed { command, error: refused("too many requests from 91.64.7.8") },
        Event::SignalFailed { command, error: SignalError::Unsupported },
        Event::SignalFailed { command, error: SignalError::Failed("doorway.example: connection refused".into()) },
    ]
}

/// Those that are about ways through NATs.
pub fn traversal_events() -> Vec<Event> {
    let (far, near) = (address("/ip4/45.10.20.30/udp/4001/quic-v1"), address("/ip4/192.168.1.9/tcp/4001"));
    let circuit = address(&format!("/ip4/45.10.20.30/tcp/4001/p2p/{}/p2p-circuit", peer(9)));
    let (connection, command, offer) = (ConnectionId(4), CommandId(9), OfferId(2));
    let limit = CircuitLimit { duration: Some(Duration::from_secs(7_200)), bytes: Some(1 << 27) };
    vec![
        Event::Probed { probe: command, verdict: ProbeVerdict::Reachable },
        Event::Reserved { reservation: command, limit: Some(limit), lasts: None },
        Event::ReservedAt { reservation: command, address: circuit },
        Event::ReservationEnded { reservation: command, error: ReserveError::Full },
        Event::CircuitLimited { connection, limit },
        Event::CircuitUsed { connection, bytes: 5_000_000 },
        Event::Serving { peer: peer(2), reserved: true, circuits: 1 },
        Event::PunchOffered {
            offer,
            connection,
            peer: peer(2),
            mapping: Some(Mapping::Independent),
            candidates: vec![far.clone(), near.clone()],
        },
        Event::PunchAnswered { punch: command, mapping: None, candidates: vec![far.clone()] },
        Event::PunchFailed { punch: command, error: PunchError::Declined },
        Event::Gateway { upnp: true, nat_pmp: false, pcp: false },
        Event::PortMapped { transport: Transport::Quic, external: far },
        Event::PortUnmapped { transport: Transport::Tcp },
    ]
}

fn stored(number: u8, pinned: bool, blocked: bool) -> StoredPeer {
    let address = StoredAddress {
        address: address(&format!("/ip4/192.168.1.{number}/udp/4001/quic-v1")),
        source: Source::Manual,
        proven: true,
        last_success: 0,
    };
    StoredPeer { peer: peer(number), pinned, blocked, relay: false, record: 0, addresses: vec![address] }
}

/// Commands with the things in them that redaction must find.
pub fn commands() -> Vec<Command> {
    let actions = [
        (Action::Listen { address: address("/ip4/0.0.0.0/tcp/4001") }, Reason::Settings),
        (Action::Dial { peer: Some(peer(2)), addresses: vec![address("/ip4/192.168.1.9/tcp/4001")] }, Reason::Pinned),
        (Action::Query(Query::Record { peer: peer(3) }), Reason::PeersMissing { missing: 1 }),
        (Action::Query(Query::LookUpRandom { place: 7 }), Reason::Routine),
        (Action::Tell(Notice::PeerDiscovered { peer: peer(2), source: Source::Mdns }), Reason::FoundBy(Source::Mdns)),
    ];
    let number = |(at, (action, reason))| Command { id: CommandId(at), action, reason };
    (12..).zip(actions).map(number).collect()
}

/// A trace that no core made: all events, each with a command, in segments of 20.
pub fn hand_made() -> Vec<u8> {
    let mut lines = vec![];
    let mut commands = commands().into_iter().cycle();
    for (at, event) in (0_u64..).zip(events()) {
        let t = Time::from_nanos(at * 1_500_000_000);
        if at % 20 == 0 {
            let reason = if at == 0 { SegmentReason::Start } else { SegmentReason::Rotation };
            let mut header = Header::<serde_json::Value>::new(peer(1), at / 20 + 1, reason, t, 1_790_000_000 + at);
            header.checkpoint = (at > 0).then(|| Box::new(serde_json::json!({"hand": "made"})));
            lines.push(serde_json::to_string(&header).unwrap());
        }
        let out = commands.by_ref().take(usize::from(!event.is_wake())).collect();
        lines.push(serde_json::to_string(&Frame { t, r#in: event, out }).unwrap());
    }
    let mut text = lines.join("\n");
    text.push('\n');
    text.into_bytes()
}

/// Three seconds of a node that listens and knows nobody.
pub fn quiet() -> Recording {
    let mut started = started();
    let mut config = Config::clone(&started.config);
    config.bootstrap = vec![];
    config.mdns = false;
    started.config = config.validate().unwrap();
    let (mut node, _) = Recording::start(started);
    for at in 1..4 {
        let event = Event::WallClock { unix_time: 1_790_000_000 + at, synced: true };
        node.tell(Time::from_secs(at), event).unwrap();
    }
    node
}

/// An hour of a small family's node: found by mDNS, connected, lost, dialled again, a bootstrap peer that answers late,
/// requests, a change of network. Three segments, without a gap.
pub fn family() -> Recording {
    let (mut node, _) = Recording::start(started());
    let secs = Time::from_secs;
    let home = address("/ip4/192.168.1.9/tcp/4001");
    let mut commands = vec![];
    let tell = |node: &mut Recording, at: u64, event: Event| node.tell(secs(at), event).unwrap();
    for (listener, port) in (1..).zip(["/ip4/192.168.1.7/tcp/4001", "/ip6/2a01:4f8:12:34::7/udp/4001/quic-v1"]) {
        let event =
            Event::Listening { listener: ListenerId(listener), command: CommandId(listener), address: address(port) };
        commands.extend(tell(&mut node, 1, event));
    }
    tell(
        &mut node,
        1,
        Event::StoreLoaded { peers: vec![stored(3, true, false), stored(4, false, true)], nat: None, last: true },
    );
    let found = Event::Found { source: Source::Mdns, peer: peer(2), addresses: vec![home.clone()], cut: 0 };
    commands.extend(tell(&mut node, 3, found));
    let dial = commands.iter().rev().find(|command| command.peer() == Some(&peer(2)) && is_dial(command));
    let dial = dial.expect("a peer found by mDNS is dialled").id;
    let connected = |connection, origin, address: &Address| Event::Connected {
        connection: ConnectionId(connection),
        peer: peer(2),
        direction: if origin == Origin::Inbound { Direction::Inbound } else { Direction::Outbound },
        address: address.clone(),
        origin,
        took: Duration::from_millis(11),
    };
    tell(&mut node, 4, connected(1, Origin::Dial(dial), &home));
    let identity = |observed: &str| {
        Box::new(Identity {
            protocol_version: "/elohim/id/1.0.0".into(),
            agent: "kinfolk/0.1.0".into(),
            protocols: vec!["/elohim/kad/1.0.0".into(), "/ipfs/ping/1.0.0".into()],
            addresses: vec![home.clone(), address("/ip4/91.64.7.8/tcp/4001"), address("/dns4/smith.example/tcp/4001")],
            observed: Some(address(observed)),
            cut: 0,
        })
    };
    let identified = |connection| Event::Identified {
        connection: ConnectionId(connection),
        peer: peer(2),
        identity: identity("/ip4/192.168.1.7/tcp/4001"),
    };
    tell(&mut node, 5, identified(1));
    for at in 0..10 {
        let ping = Event::Pinged { connection: ConnectionId(1), peer: peer(2), result: Ok(Duration::from_micros(850)) };
        tell(&mut node, 15 + 15 * at, ping);
    }
    node.segment(SegmentReason::Rotation, 0);
    let broken = CloseCause::Broken("connection to 192.168.1.9:4001 (smith.example) reset".into());
    let lost = Event::Disconnected { connection: ConnectionId(1), peer: peer(2), cause: broken };
    fail_dials(&mut node, 200, lost);
    fail_dials(&mut node, 320, Event::WallClock { unix_time: 1_790_000_320, synced: true });
    let ask = Ask::Connect(PeerAddress::new(peer(5), address("/ip4/45.10.20.30/udp/4001/quic-v1")));
    fail_dials(&mut node, 400, Event::Asked { request: RequestId(1), ask });
    node.segment(SegmentReason::Rotation, 0);
    tell(&mut node, 900, connected(2, Origin::Inbound, &address("/ip4/192.168.1.9/tcp/50123")));
    tell(&mut node, 901, identified(2));
    let elsewhere = Interfaces { addresses: vec![prefix("10.11.12.13", 22)], default_v4: true, default_v6: false };
    fail_dials(&mut node, 1_000, Event::Interfaces(elsewhere));
    fail_dials(&mut node, 3_600, Event::Wake);
    node
}

/// Tells the node something, and then for each of its dials that nobody answers.
fn fail_dials(node: &mut Recording, at: u64, event: Event) {
    let mut commands: VecDeque<Command> = node.tell(Time::from_secs(at), event).unwrap().into();
    while let Some(command) = commands.pop_front() {
        if let Action::Dial { addresses, .. } = command.action {
            let failures = addresses.into_iter().map(|address| (address, DialError::TimedOut)).collect();
            let failed = Event::DialFailed { dial: command.id, failures, error: DialError::TimedOut };
            commands.extend(node.tell(Time::from_secs(at + 10), failed).unwrap());
        }
    }
}

fn is_dial(command: &Command) -> bool {
    matches!(command.action, Action::Dial { .. })
}

/// A home behind a router, another one whose clock is two hours late, and a server that is killed; with a bug, or
/// with none, and a user who asks for somebody nobody knows.
pub fn museum(plant: Option<&str>) -> String {
    let plant = plant.map(|plant| format!("plant = \"{plant}\"\n")).unwrap_or_default();
    format!("name = \"museum\"\nduration = \"3h\"\n{plant}{MUSEUM}")
}

const MUSEUM: &str = r#"
[[isp]]
name = "north"

[[server]]
name = "server"

[[home]]
name = "alice"
isp = "north"
family = "family"
bootstrap = ["server"]
relays = ["server"]

[[home]]
name = "bob"
isp = "north"
nat = "symmetric"
nodes = 2
family = "family"
clock-offset = -7200
bootstrap = ["server"]
relays = ["server"]

[[fault]]
at = "100m"
what = "kill"
who = "server"
for = "1m"

[[ask]]
at = "1m"
who = "alice/1"

[expect]
families = "connected"
nobody-alone = true
"#;
