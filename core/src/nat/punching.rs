//! Getting direct connections to peers that are reached through a relay only.
//!
//! Plain dials to a peer's public addresses are the lifecycle's matter and run beside this. Here both sides agree, over
//! the relayed connection, to try at the same moment: one transport per try, QUIC first. Between Kinfolk nodes the side
//! that dialled the circuit proposes, at once, and the other one deals the roles: the harder NAT dials, because nobody can
//! guess where its packets will come from. With other programs the side that the circuit came to proposes, as the
//! standard (DCUtR) says.
//!
//! A try that fails is followed by one that is different: another transport, another role. After three, single tries with
//! pauses, longer and longer, until the network changes. Both sides count all tries, whoever proposed them, and pause by
//! that count, the one that proposed last a little less: so there is one schedule, and a proposal that crosses another, or
//! gets lost, does not begin a second one. Any direct connection ends it. Whatever happens, the relayed connection stays.

use alloc::{collections::BTreeMap, vec::Vec};
use core::time::Duration;

use super::Own;
use crate::{
    cx::Cx,
    jitter::{self, Purpose},
    lifecycle::PeerLifecycle,
    peers::{Peer, Slot},
    view::{Capabilities, PunchingView},
    vocabulary::{
        Action, Address, CommandId, ConnectionId, Direction, Event, Impasse, Mapping, Notice, OfferId, Origin, PeerId,
        PunchError, PunchRole, PunchWire, Reason, Scope, Time, Transport,
    },
};

#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Punching {
    /// Peers with which a relayed connection stands and no direct one.
    peers: BTreeMap<Slot, Tries>,
}

#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct Tries {
    /// By either side, since the network last changed.
    attempts: u32,
    /// When we propose next; `Time::MAX`: when something happens.
    next: Time,
    open: Option<Open>,
    last_error: Option<PunchError>,
    /// The NAT in front of the peer, by its own word.
    theirs: Option<Mapping>,
    /// The peer has said that it does not know our own protocol.
    only_standard: bool,
    /// The transport by which the peer has just declined this try.
    #[cfg_attr(feature = "serde", serde(default))]
    declined: Option<Transport>,
    impasse: Option<Impasse>,
    /// Proposals that were taken up within the present minute.
    taken_up: u32,
    minute: Time,
}

/// A try under way.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct Open {
    command: CommandId,
    transport: Transport,
    since: Time,
    /// We have proposed it.
    ours: bool,
}

/// The side that the circuit came to waits this long for the other one's proposal.
const LISTEN: Duration = Duration::from_secs(4);
/// Between the tries of one round.
const BREATH: Duration = Duration::from_millis(500);
/// After a change of network others have to see us first.
const SEEN_AGAIN: Duration = Duration::from_secs(1);
/// Tries without a pause between them.
const AT_ONCE: u32 = 3;
/// Proposals of one peer that are taken up within a minute: each makes us dial where it says.
const TAKEN_UP: u32 = 6;
const MINUTE: Duration = Duration::from_secs(60);
/// Addresses that are told, and dialled, in one try.
const ADDRESSES: usize = 8;

impl Tries {
    const fn new(next: Time) -> Self {
        Self {
            attempts: 0,
            next,
            open: None,
            last_error: None,
            theirs: None,
            only_standard: false,
            declined: None,
            impasse: None,
            taken_up: 0,
            minute: Time::ZERO,
        }
    }

    fn start_over(&mut self, next: Time) {
        self.attempts = 0;
        (self.theirs, self.declined, self.impasse) = (None, None, None);
        self.next = next;
    }
}

impl Punching {
    pub(super) fn absorb(&mut self, cx: &mut Cx<'_>, lifecycle: &mut PeerLifecycle, own: &Own, event: &Event) {
        match event {
            Event::Connected { peer, origin, .. } => {
                let Some(slot) = lifecycle.peers.find(peer) else { return };
                if let Origin::Punch(command) = origin {
                    self.punched(cx, lifecycle, slot, *command);
                }
                self.follow(cx, lifecycle, slot);
            }
            Event::Disconnected { peer, .. } => {
                if let Some(slot) = lifecycle.peers.find(peer) {
                    self.follow(cx, lifecycle, slot);
                }
            }
            Event::Identified { peer, .. } => {
                let Some(slot) = lifecycle.peers.find(peer) else { return };
                // Our own addresses, as others see them, come with introductions: whoever waited for some goes on.
                let waiting = |tries: &&mut Tries| tries.open.is_none() && tries.next == Time::MAX;
                self.peers.values_mut().filter(waiting).for_each(|tries| tries.next = cx.now);
                let starts = starts_by_standard(lifecycle.peers.at(slot));
                if let Some(tries) = self.peers.get_mut(&slot).filter(|tries| starts && tries.attempts == 0) {
                    tries.next = tries.next.min(cx.now);
                }
            }
            Event::PunchOffered { offer, peer, mapping, candidates, connection: _ } => {
                self.offered(cx, lifecycle, own, *offer, *peer, *mapping, candidates);
            }
            Event::PunchAnswered { punch, mapping, candidates: _ } => {
                if let Some((_, tries)) = self.by_command(*punch) {
                    tries.theirs = mapping.or(tries.theirs);
                }
            }
            Event::PunchFailed { punch, error } => self.failed(cx, lifecycle, own, *punch, error),
            Event::Refused { command, refusal } => {
                let error = PunchError::Broken(alloc::format!("{refusal}"));
                self.failed(cx, lifecycle, own, *command, &error);
            }
            Event::Interfaces(_) if cx.here.left => self.start_over(cx.now + SEEN_AGAIN),
            Event::Resumed { .. } => self.start_over(cx.now + SEEN_AGAIN),
            Event::PortMapped { .. } => self.start_over(cx.now),
            Event::Wake
            | Event::Started(_)
            | Event::Configured(_)
            | Event::StoreLoaded { .. }
            | Event::Asked { .. }
            | Event::Interfaces(_)
            | Event::WallClock { .. }
            | Event::Listening { .. }
            | Event::ListenAddressGone { .. }
            | Event::ListenFailed { .. }
            | Event::Found { .. }
            | Event::Lost { .. }
            | Event::OwnIdentitySeen { .. }
            | Event::DialFailed { .. }
            | Event::InboundFailed { .. }
            | Event::DialHeld { .. }
            | Event::HeldFailed { .. }
            | Event::IdentifyFailed { .. }
            | Event::Pinged { .. }
            | Event::Candidate { .. }
            | Event::Confirmed { .. }
            | Event::Unconfirmed { .. }
            | Event::Probed { .. }
            | Event::Reserved { .. }
            | Event::ReservedAt { .. }
            | Event::ReservationEnded { .. }
            | Event::CircuitLimited { .. }
            | Event::CircuitUsed { .. }
            | Event::Serving { .. }
            | Event::Gateway { .. }
            | Event::PortUnmapped { .. }
            | Event::Routed { .. }
            | Event::SyncHeads { .. }
            | Event::SyncTold { .. }
            | Event::SyncFetched { .. }
            | Event::SyncFailed { .. }
            | Event::SyncPressure { .. }
            | Event::SignalFound { .. }
            | Event::SignalPublished { .. }
            | Event::SignalFailed { .. }
            | Event::QueryFound { .. }
            | Event::QueryEnded { .. } => {}
        }
    }

    /// Proposes what is due, and gives up what has not come. Bounded by the peers that are relayed.
    pub(super) fn step(&mut self, cx: &mut Cx<'_>, lifecycle: &mut PeerLifecycle, own: &Own) {
        let gone = |slot: &Slot| lifecycle.peers.get(*slot).and_then(circuit).is_none();
        let gone: Vec<Slot> = self.peers.keys().copied().filter(gone).collect();
        for slot in gone {
            self.peers.remove(&slot);
        }
        let patience = cx.config.nat.punch_timeout;
        let open = self.peers.values().filter_map(|tries| tries.open.as_ref());
        let late: Vec<CommandId> =
            open.filter(|open| open.since + patience <= cx.now).map(|open| open.command).collect();
        for punch in late {
            cx.command(Action::CancelPunch { punch }, Reason::TimedOut);
            self.failed(cx, lifecycle, own, punch, &PunchError::TimedOut);
        }
        let due = |tries: &Tries| tries.open.is_none() && tries.next <= cx.now;
        let due: Vec<Slot> = self.peers.iter().filter(|(_, tries)| due(tries)).map(|(slot, _)| *slot).collect();
        for slot in due {
            self.propose(cx, lifecycle, own, slot);
        }
    }

    pub(super) fn deadline(&self, patience: Duration) -> Option<Time> {
        let at = |tries: &Tries| tries.open.as_ref().map_or(tries.next, |open| open.since + patience);
        self.peers.values().map(at).min().filter(|at| *at < Time::MAX)
    }

    pub(crate) fn view(&self, slot: Slot) -> Option<PunchingView> {
        let tries = self.peers.get(&slot)?;
        Some(PunchingView {
            trying: tries.open.is_some(),
            attempts: tries.attempts,
            last_error: tries.last_error.clone(),
            next: Some(tries.next).filter(|at| tries.open.is_none() && *at < Time::MAX),
            impasse: tries.impasse,
        })
    }

    fn by_command(&mut self, command: CommandId) -> Option<(Slot, &mut Tries)> {
        let mut of = self.peers.iter_mut();
        of.find(|(_, tries)| tries.open.as_ref().is_some_and(|open| open.command == command))
            .map(|(slot, tries)| (*slot, tries))
    }

    fn start_over(&mut self, next: Time) {
        for tries in self.peers.values_mut() {
            tries.start_over(next);
        }
    }

    /// A peer belongs in here while it is relayed only.
    fn follow(&mut self, cx: &mut Cx<'_>, lifecycle: &mut PeerLifecycle, slot: Slot) {
        let peer = lifecycle.peers.at(slot);
        let Some(circuit) = circuit(peer).filter(|_| cx.config.nat.punching) else {
            if let Some(tries) = self.peers.remove(&slot) {
                if let Some(open) = tries.open {
                    cx.command(Action::CancelPunch { punch: open.command }, Reason::AlreadyDirect);
                }
                lifecycle.set_punching(slot, false);
            }
            return;
        };
        let dialled = circuit.1 == Direction::Outbound;
        let next = if dialled || starts_by_standard(peer) { cx.now } else { cx.now + LISTEN };
        self.peers.entry(slot).or_insert_with(|| Tries::new(next));
    }

    fn propose(&mut self, cx: &mut Cx<'_>, lifecycle: &mut PeerLifecycle, own: &Own, slot: Slot) {
        let peer = lifecycle.peers.at(slot);
        let Some(tries) = self.peers.get_mut(&slot) else { return };
        let Some((connection, direction)) = circuit(peer) else { return };
        // By the standard, the side that the circuit came to proposes, and only that.
        let fast = speaks_fast(peer, tries);
        if !fast && (direction == Direction::Outbound || !speaks_standard(peer)) {
            tries.next = Time::MAX;
            if !speaks_standard(peer) && peer.profile.is_some() {
                say(cx, peer.id, tries, Impasse::NotSpoken);
            }
            return;
        }
        let Some((transport, candidates)) = choose(cx, own, peer, tries) else {
            // Nothing to offer until somebody sees us, or nothing that could work.
            tries.next = Time::MAX;
            return;
        };
        let ours = nat(cx, own, &candidates, transport);
        let wire = if fast {
            PunchWire::Kinfolk { mapping: ours }
        } else {
            // The harder NAT dials; if that was wrong by both transports, the other way round.
            let dial = (ours == Mapping::PerDestination) != (tries.attempts % 4 >= 2);
            PunchWire::Dcutr { role: if dial { PunchRole::Dial } else { PunchRole::Accept } }
        };
        let (who, near, attempt) = (peer.id, peer.pinned, tries.attempts + 1);
        let punch = Action::Punch { connection, peer: who, wire, transport, candidates, near };
        let command = cx.command(punch, Reason::PunchTry { attempt });
        tries.open = Some(Open { command, transport, since: cx.now, ours: true });
        lifecycle.set_punching(slot, true);
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one event")]
    fn offered(
        &mut self,
        cx: &mut Cx<'_>,
        lifecycle: &mut PeerLifecycle,
        own: &Own,
        offer: OfferId,
        who: PeerId,
        mapping: Option<Mapping>,
        theirs: &[Address],
    ) {
        let answer = self.answer(cx, lifecycle, own, who, mapping, theirs);
        match answer {
            Ok((slot, answer)) => {
                let Answer { transport, role, mapping, candidates, targets } = answer;
                let action = Action::AnswerPunch { offer, peer: who, transport, role, mapping, candidates, targets };
                let command = cx.command(action, Reason::Offered);
                if let Some(tries) = self.peers.get_mut(&slot) {
                    tries.open = Some(Open { command, transport, since: cx.now, ours: false });
                }
                lifecycle.set_punching(slot, true);
            }
            Err(reason) => {
                cx.command(Action::RefusePunch { offer, peer: who }, reason);
                let idle = |slot: &Slot| self.peers.get(slot).is_none_or(|tries| tries.open.is_none());
                if let Some(slot) = lifecycle.peers.find(&who).filter(idle) {
                    lifecycle.set_punching(slot, false);
                }
            }
        }
    }

    /// Whether and how to take up a proposal.
    fn answer(
        &mut self,
        cx: &mut Cx<'_>,
        lifecycle: &mut PeerLifecycle,
        own: &Own,
        who: PeerId,
        mapping: Option<Mapping>,
        theirs: &[Address],
    ) -> Result<(Slot, Answer), Reason> {
        let slot = lifecycle.peers.find(&who).ok_or(Reason::NotNeeded)?;
        let peer = lifecycle.peers.at(slot);
        if !cx.config.nat.punching {
            return Err(Reason::Settings);
        }
        if peer.blocked {
            return Err(Reason::Blocked);
        }
        if peer.is_direct() {
            return Err(Reason::AlreadyDirect);
        }
        let tries = self.peers.get_mut(&slot).ok_or(Reason::NotNeeded)?;
        if tries.minute + MINUTE <= cx.now {
            (tries.minute, tries.taken_up) = (cx.now, 0);
        }
        if tries.taken_up >= TAKEN_UP {
            return Err(Reason::Flapping { closes: tries.taken_up });
        }
        if let Some(Open { command, transport, ours, since: _ }) = tries.open {
            // Both have proposed: the smaller id's proposal holds, on both sides.
            if ours && cx.local < who {
                return Err(Reason::Busy);
            }
            cx.command(Action::CancelPunch { punch: command }, Reason::Offered);
            tries.open = None;
            if !ours {
                // For the other side, the try before is over.
                tries.attempts += 1;
                let attempt = tries.attempts;
                let notice = Notice::NotPunched { peer: who, transport, attempt, error: PunchError::TimedOut };
                cx.tell(notice, Reason::PunchTry { attempt });
            }
        }

        let transport = if mapping.is_some() {
            theirs.first().and_then(Address::transport)
        } else {
            let named = |transport| theirs.iter().any(|address| address.transport() == Some(transport));
            let have = |transport| !own.punch_candidates(cx.here, transport).is_empty();
            order(tries.attempts).into_iter().find(|transport| named(*transport) && have(*transport))
        };
        let transport = transport.ok_or(Reason::NoCandidate)?;
        let agent = peer.profile.as_ref().map_or("", |profile| profile.agent.as_str());
        let candidates = candidates(cx, own, peer, transport);
        let ours = nat(cx, own, &candidates, transport);
        let role = role(transport, ours, mapping, agent);
        if candidates.is_empty() && role == PunchRole::Accept {
            return Err(Reason::NoCandidate);
        }
        let near = peer.pinned;
        let usable = |address: &&Address| {
            let Some(ip) = address.host_ip() else { return false };
            let scope = Scope::of(ip);
            let allowed =
                (scope.is_global() && cx.here.has_route(ip)) || (near && scope.is_dialable() && !scope.is_loopback());
            allowed && address.transport() == Some(transport) && !cx.here.is_own(address)
        };
        let targets: Vec<Address> = theirs.iter().filter(usable).take(ADDRESSES).cloned().collect();
        if targets.is_empty() {
            return Err(Reason::NoUsableAddress);
        }
        for (at, target) in targets.iter().enumerate() {
            let Some(ip) = target.host_ip() else { continue };
            let network = crate::vocabulary::network_of(ip);
            let counted = targets.iter().take(at).filter_map(Address::host_ip);
            if counted.map(crate::vocabulary::network_of).any(|other| other == network) {
                continue;
            }
            let limit = cx.config.lifecycle.dials_per_network;
            lifecycle.dialer.charge(ip, limit, cx.now).map_err(|_| Reason::NetworkLimit)?;
        }
        tries.taken_up += 1;
        tries.theirs = mapping.or(tries.theirs);
        Ok((slot, Answer { transport, role, mapping: ours, candidates, targets }))
    }

    fn punched(&mut self, cx: &mut Cx<'_>, lifecycle: &mut PeerLifecycle, slot: Slot, command: CommandId) {
        let Some(tries) = self.peers.get_mut(&slot) else { return };
        let Some(open) = tries.open.take_if(|open| open.command == command) else { return };
        let peer = lifecycle.peers.at(slot).id;
        let attempt = tries.attempts + 1;
        cx.tell(Notice::Punched { peer, transport: open.transport, attempt }, Reason::PunchTry { attempt });
    }

    fn failed(
        &mut self,
        cx: &mut Cx<'_>,
        lifecycle: &mut PeerLifecycle,
        own: &Own,
        command: CommandId,
        error: &PunchError,
    ) {
        let Some((slot, tries)) = self.by_command(command) else { return };
        let Some(open) = tries.open.take() else { return };
        lifecycle.set_punching(slot, false);
        let peer = lifecycle.peers.at(slot);
        tries.last_error = Some(error.clone());
        if *error == PunchError::NotSupported && open.ours && !tries.only_standard {
            // Not a try, but the answer to a question that a round trip less depends on.
            tries.only_standard = true;
            tries.next = cx.now;
            return;
        }
        if *error == PunchError::Declined && open.ours && tries.declined.is_none() {
            // Nothing was sent, so no NAT has to calm down, and the other side counts no try: a peer without UDP declines
            // QUIC, and TCP is next.
            tries.declined = Some(open.transport);
            if choose(cx, own, peer, tries).is_some() {
                tries.next = cx.now;
                return;
            }
        }
        tries.declined = None;
        tries.attempts += 1;
        let attempt = tries.attempts;
        let notice = Notice::NotPunched { peer: peer.id, transport: open.transport, attempt, error: error.clone() };
        cx.tell(notice, Reason::PunchTry { attempt });

        if attempt < AT_ONCE && choose(cx, own, peer, tries).is_some() {
            tries.next = cx.now + if open.ours { BREATH } else { BREATH + LISTEN };
            return;
        }
        let config = &cx.config.nat;
        let pauses = attempt.saturating_sub(AT_ONCE);
        let wait = config.punch_retry.saturating_mul(1 << pauses.min(12)).min(config.punch_retry_max);
        // The other side proposes again first, if it was the one who did.
        let wait = if open.ours { wait } else { wait * 2 };
        let draw = jitter::draw(cx.seed, Purpose::Punch, peer.arrival, u64::from(attempt));
        tries.next = cx.now + jitter::vary(wait, draw);
        let impasse = impasse(own, cx, tries.theirs);
        say(cx, peer.id, tries, impasse);
    }
}

/// How a proposal is taken up.
struct Answer {
    transport: Transport,
    role: PunchRole,
    mapping: Mapping,
    candidates: Vec<Address>,
    targets: Vec<Address>,
}

/// The relayed connection over which a direct one can be agreed on, where none stands.
fn circuit(peer: &Peer) -> Option<(ConnectionId, Direction)> {
    if peer.is_direct() {
        return None;
    }
    let relayed = peer.standing().filter(|connection| connection.address.is_relayed());
    relayed.min_by_key(|one| (one.is_worn(), one.since, one.id)).map(|one| (one.id, one.direction))
}

/// Until a peer has introduced itself it is taken for one of ours.
fn speaks_fast(peer: &Peer, tries: &Tries) -> bool {
    let known = peer.profile.is_none() || peer.capabilities().contains(Capabilities::FAST_PUNCH);
    known && !tries.only_standard
}

fn speaks_standard(peer: &Peer) -> bool {
    peer.capabilities().contains(Capabilities::PUNCH)
}

/// A peer to which the standard protocol is the only way, and it is on us to begin.
fn starts_by_standard(peer: &Peer) -> bool {
    let incoming = circuit(peer).is_some_and(|(_, direction)| direction == Direction::Inbound);
    incoming && speaks_standard(peer) && !peer.capabilities().contains(Capabilities::FAST_PUNCH)
}

/// The transports in the order of one round of tries, from the given one on.
fn order(from: u32) -> [Transport; 2] {
    if from.is_multiple_of(2) { [Transport::Quic, Transport::Tcp] } else { [Transport::Tcp, Transport::Quic] }
}

/// The next try's transport, and what the peer is told. Where both NATs are known to give each destination another port,
/// a transport is left out.
fn choose(cx: &Cx<'_>, own: &Own, peer: &Peer, tries: &Tries) -> Option<(Transport, Vec<Address>)> {
    let open = |transport: &Transport| tries.declined != Some(*transport);
    order(tries.attempts).into_iter().filter(open).find_map(|transport| {
        let candidates = candidates(cx, own, peer, transport);
        let ours = nat(cx, own, &candidates, transport);
        let hopeless = !ours.is_predictable() && tries.theirs.is_some_and(|theirs| !theirs.is_predictable());
        (!candidates.is_empty() && !hopeless).then_some((transport, candidates))
    })
}

/// Where a peer is told that we can be dialled. Members also hear of the home network: they may be in it.
fn candidates(cx: &Cx<'_>, own: &Own, peer: &Peer, transport: Transport) -> Vec<Address> {
    let mut all = own.punch_candidates(cx.here, transport);
    if peer.pinned {
        let home = |address: &&Address| {
            matches!(address.scope(), Some(Scope::Private | Scope::UniqueLocal))
                && address.transport() == Some(transport)
        };
        all.extend(cx.here.listening.iter().filter(home).cloned());
    }
    all.truncate(ADDRESSES);
    all
}

/// The NAT in front of our candidates.
fn nat(cx: &Cx<'_>, own: &Own, candidates: &[Address], transport: Transport) -> Mapping {
    let ipv6 = candidates.first().and_then(Address::host_ip).is_some_and(|ip| ip.is_ipv6());
    own.mapping(cx.here, ipv6, transport)
}

/// Our part in a try that the other side has proposed.
fn role(transport: Transport, ours: Mapping, theirs: Option<Mapping>, agent: &str) -> PunchRole {
    match (transport, theirs) {
        // By the standard the side that proposes accepts. rust-libp2p dials QUIC from both sides: then we accept, and one
        // connection comes of it.
        (Transport::Quic, None) if agent.starts_with("rust-libp2p") || agent.starts_with("kinfolk") => {
            PunchRole::Accept
        }
        (Transport::Quic | Transport::Tcp, None) => PunchRole::Dial,
        // Whose first TCP packet leaves first dials.
        (Transport::Tcp, Some(_)) => PunchRole::Dial,
        (Transport::Quic, Some(theirs)) => {
            let harder = ours == Mapping::PerDestination && theirs != Mapping::PerDestination;
            if harder || theirs == Mapping::None { PunchRole::Dial } else { PunchRole::Accept }
        }
    }
}

fn impasse(own: &Own, cx: &Cx<'_>, theirs: Option<Mapping>) -> Impasse {
    let quic = own.punch_candidates(cx.here, Transport::Quic);
    if quic.is_empty() {
        return Impasse::NoUdp;
    }
    let ours = nat(cx, own, &quic, Transport::Quic);
    match (ours.is_predictable(), theirs.is_none_or(Mapping::is_predictable)) {
        (false, false) => Impasse::BothPerDestination,
        (false, true) => Impasse::OursPerDestination,
        (true, false) => Impasse::TheirsPerDestination,
        (true, true) => Impasse::TriedEverything,
    }
}

fn say(cx: &mut Cx<'_>, peer: PeerId, tries: &mut Tries, impasse: Impasse) {
    if tries.impasse.replace(impasse) != Some(impasse) {
        cx.tell(Notice::StaysRelayed { peer, impasse }, Reason::StateChanged);
    }
}
