//! Direct connections to peers that are reached through a relay only: who proposes, by what, with which part, and what
//! follows.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "tests")]

mod common;

use std::time::Duration;

use common::*;
use kinfolk_core::{
    Action, Address, CloseCause, CommandId, Config, ConnectionId, DialError, Direction, Event, Identity, Impasse,
    Interfaces, Mapping, Notice, OfferId, Origin, PinnedPeer, Prefix, PunchError, PunchRole, PunchWire, Reason,
    Transport,
};

const QUIC: &str = "/ip4/45.77.1.1/udp/61000/quic-v1";
const TCP: &str = "/ip4/45.77.1.1/tcp/61001";
const THEIR_QUIC: &str = "/ip4/45.88.1.1/udp/5000/quic-v1";
const THEIR_TCP: &str = "/ip4/45.88.1.1/tcp/5001";

/// A node at home that listens.
fn listening(config: Config) -> Rig {
    let mut rig = Rig::new(config);
    let listens: Vec<(CommandId, Address)> = rig
        .commands
        .iter()
        .filter_map(|command| match &command.action {
            Action::Listen { address } => Some((command.id, address.clone())),
            _ => None,
        })
        .collect();
    for (n, (command, wildcard)) in listens.into_iter().enumerate() {
        let text = wildcard.to_string().replace("0.0.0.0", "192.168.1.2");
        let listener = kinfolk_core::ListenerId(n as u64 + 1);
        rig.tell(Event::Listening { listener, command, address: address(&text) });
    }
    rig.take();
    rig
}

/// Two servers see us, at one address for each transport.
fn node() -> Rig {
    node_of(home_node())
}

fn home_node() -> Config {
    Config { mdns: false, ..Config::desktop() }
}

fn node_of(config: Config) -> Rig {
    let mut rig = listening(config);
    for server in [11, 12] {
        seen(&mut rig, server, Transport::Quic, QUIC);
        seen(&mut rig, server, Transport::Tcp, TCP);
    }
    rig.take();
    rig
}

/// Each server sees us at another port.
fn behind_a_hard_nat() -> Rig {
    let mut rig = listening(home_node());
    for server in [11, 12] {
        seen(&mut rig, server, Transport::Quic, &format!("/ip4/45.77.1.1/udp/610{server}/quic-v1"));
        seen(&mut rig, server, Transport::Tcp, &format!("/ip4/45.77.1.1/tcp/620{server}"));
    }
    rig.take();
    rig
}

/// A server sees us there.
fn seen(rig: &mut Rig, server: u64, transport: Transport, at: &str) {
    let place = match transport {
        Transport::Quic => global(server),
        Transport::Tcp => address(&global(server).to_string().replace("udp/4001/quic-v1", "tcp/4001")),
    };
    let connection = rig.connected(server, Direction::Outbound, place, Origin::Inbound);
    let identity = Identity { observed: Some(address(at)), ..server_at(server) };
    rig.identified_as(connection, server, identity);
}

fn fast() -> Identity {
    let mut identity = kinfolk();
    identity.protocols.push("/elohim/punch/1.0.0".into());
    identity.protocols.push("/libp2p/dcutr".into());
    identity
}

fn stock() -> Identity {
    Identity {
        protocol_version: "/elohim/id/1.0.0".into(),
        agent: "rust-libp2p/0.48.0".into(),
        protocols: vec!["/libp2p/dcutr".into()],
        ..Identity::default()
    }
}

struct Proposal {
    id: CommandId,
    wire: PunchWire,
    transport: Transport,
    candidates: Vec<Address>,
}

fn proposal(rig: &Rig) -> Option<Proposal> {
    let found = rig.last(|action| match action {
        Action::Punch { wire, transport, candidates, .. } => Some((*wire, *transport, candidates.clone())),
        _ => None,
    });
    found.map(|(id, (wire, transport, candidates))| Proposal { id, wire, transport, candidates })
}

fn answer(rig: &Rig) -> Option<(CommandId, Transport, PunchRole, Vec<Address>)> {
    let found = rig.last(|action| match action {
        Action::AnswerPunch { transport, role, targets, .. } => Some((*transport, *role, targets.clone())),
        _ => None,
    });
    found.map(|(id, (transport, role, targets))| (id, transport, role, targets))
}

fn refusal(rig: &Rig) -> Option<Reason> {
    let refused = |command: &&kinfolk_core::Command| matches!(command.action, Action::RefusePunch { .. });
    rig.commands.iter().rev().find(refused).map(|command| command.reason.clone())
}

fn fails(rig: &mut Rig, punch: CommandId, error: PunchError) {
    rig.take();
    rig.tell(Event::PunchFailed { punch, error });
}

fn offers(rig: &mut Rig, connection: ConnectionId, mapping: Option<Mapping>, candidates: &[&str]) {
    let candidates = candidates.iter().map(|text| address(text)).collect();
    rig.tell(Event::PunchOffered { offer: OfferId(1), connection, peer: peer(1), mapping, candidates });
}

/// Peer 1, reached through relay 11: by our dial, or by its own.
fn relayed(rig: &mut Rig, direction: Direction) -> ConnectionId {
    rig.connected(1, direction, circuit(11), Origin::Inbound)
}

#[test]
fn the_side_that_dialled_the_circuit_proposes_at_once_by_quic() {
    let mut rig = node();
    relayed(&mut rig, Direction::Outbound);
    let proposal = proposal(&rig).unwrap();
    assert_eq!(proposal.transport, Transport::Quic);
    assert_eq!(proposal.wire, PunchWire::Kinfolk { mapping: Mapping::Independent });
    assert_eq!(proposal.candidates, [address(QUIC)]);
}

#[test]
fn the_other_side_waits_for_it_and_then_proposes_itself() {
    let mut rig = node();
    let connection = relayed(&mut rig, Direction::Inbound);
    rig.identified_as(connection, 1, fast());
    rig.pass(secs(3));
    assert!(proposal(&rig).is_none());
    rig.pass(secs(2));
    assert!(matches!(proposal(&rig).unwrap().wire, PunchWire::Kinfolk { .. }));
}

#[test]
fn with_other_programs_the_side_that_the_circuit_came_to_proposes_by_the_standard() {
    let mut rig = node();
    let connection = relayed(&mut rig, Direction::Inbound);
    assert!(proposal(&rig).is_none());
    rig.identified_as(connection, 1, stock());
    assert_eq!(proposal(&rig).unwrap().wire, PunchWire::Dcutr { role: PunchRole::Accept });

    let mut rig = node();
    relayed(&mut rig, Direction::Outbound);
    let tried = proposal(&rig).unwrap();
    fails(&mut rig, tried.id, PunchError::NotSupported);
    rig.pass(secs(60));
    assert!(proposal(&rig).is_none(), "the other side's turn");
    assert!(rig.notices().iter().all(|notice| !matches!(notice, Notice::NotPunched { .. })), "that was no try");
}

#[test]
fn the_harder_nat_dials() {
    use Mapping::{Independent, None as NoNat, PerDestination, Unknown};
    let table = [
        (Independent, Independent, PunchRole::Accept),
        (Independent, Unknown, PunchRole::Accept),
        (Independent, PerDestination, PunchRole::Accept),
        (Independent, NoNat, PunchRole::Dial),
        (PerDestination, Independent, PunchRole::Dial),
        (PerDestination, NoNat, PunchRole::Dial),
    ];
    for (ours, theirs, role) in table {
        let mut rig = if ours == PerDestination { behind_a_hard_nat() } else { node() };
        let connection = relayed(&mut rig, Direction::Inbound);
        offers(&mut rig, connection, Some(theirs), &[THEIR_QUIC]);
        let (_, transport, taken, targets) = answer(&rig).unwrap();
        assert_eq!((transport, taken), (Transport::Quic, role), "{ours:?} against {theirs:?}");
        assert_eq!(targets, [address(THEIR_QUIC)]);
    }
    let mut rig = node();
    let connection = relayed(&mut rig, Direction::Inbound);
    offers(&mut rig, connection, Some(Independent), &[THEIR_TCP]);
    let (_, transport, taken, _) = answer(&rig).unwrap();
    assert_eq!((transport, taken), (Transport::Tcp, PunchRole::Dial), "TCP: whose packet leaves first");
}

#[test]
fn three_tries_that_differ_are_followed_by_single_ones_with_pauses_that_grow() {
    let mut rig = node();
    let connection = relayed(&mut rig, Direction::Outbound);
    rig.identified_as(connection, 1, fast());
    let mut transports = Vec::new();
    let mut pauses = Vec::new();
    for _ in 0..9 {
        let begun = rig.now;
        rig.live_until(secs(5_000), |rig| proposal(rig).is_some());
        let tried = proposal(&rig).unwrap();
        pauses.push(rig.now.since(begun).as_secs());
        transports.push(tried.transport);
        fails(&mut rig, tried.id, PunchError::Dial(DialError::TimedOut));
    }
    use Transport::{Quic, Tcp};
    assert_eq!(transports[..6], [Quic, Tcp, Quic, Tcp, Quic, Tcp]);
    assert!(pauses[1] < 1 && pauses[2] < 1, "{pauses:?}");
    assert!((24..=36).contains(&pauses[3]) && (48..=72).contains(&pauses[4]), "{pauses:?}");
    assert!((96..=144).contains(&pauses[5]) && (768..=1_152).contains(&pauses[8]), "{pauses:?}");
}

#[test]
fn a_peer_that_declines_quic_is_offered_tcp_at_once() {
    let mut rig = node();
    let connection = relayed(&mut rig, Direction::Outbound);
    rig.identified_as(connection, 1, fast());
    let tried = proposal(&rig).unwrap();
    fails(&mut rig, tried.id, PunchError::Declined);
    let next = proposal(&rig).unwrap();
    assert_eq!(next.transport, Transport::Tcp);
    assert_eq!(rig.view(1).unwrap().punching.unwrap().attempts, 0, "nothing was sent: that was no try");
    rig.take();
    fails(&mut rig, next.id, PunchError::Declined);
    assert_eq!(rig.view(1).unwrap().punching.unwrap().attempts, 1, "by either transport: that was one");
}

/// Proposals of either side within half an hour, by two nodes that have dialled a circuit to each other and never get
/// through: what one proposes, the other takes up or declines, and the failure shows to both.
fn hopeless(punch_fails_after: Duration) -> usize {
    let mut sides = [node(), node()];
    let connections = sides.each_mut().map(|rig| {
        let connection = relayed(rig, Direction::Outbound);
        rig.identified_as(connection, 1, fast());
        connection
    });
    let (mut proposals, mut open) = (0, Vec::new());
    for _ in 0..18_000 {
        for at in [0, 1] {
            let commands = sides[at].take();
            for command in &commands {
                match &command.action {
                    Action::Punch { transport, .. } => {
                        proposals += 1;
                        let place = if *transport == Transport::Quic { THEIR_QUIC } else { THEIR_TCP };
                        let due = sides[at].now + punch_fails_after;
                        let other = &mut sides[1 - at];
                        offers(other, connections[1 - at], Some(Mapping::Independent), &[place]);
                        let error = if refusal(other).is_some() { PunchError::Declined } else { timed_out() };
                        open.push((at, command.id, due, error));
                    }
                    Action::AnswerPunch { .. } => {
                        open.push((at, command.id, sides[at].now + punch_fails_after, timed_out()));
                    }
                    _ => {}
                }
            }
        }
        for rig in &mut sides {
            rig.live(Duration::from_millis(100));
        }
        let now = sides[0].now;
        for (at, punch, _, error) in open.extract_if(.., |(_, _, due, _)| *due <= now) {
            sides[at].tell(Event::PunchFailed { punch, error });
        }
    }
    proposals
}

fn timed_out() -> PunchError {
    PunchError::Dial(DialError::TimedOut)
}

#[test]
fn both_sides_of_a_hopeless_pair_share_one_schedule() {
    for seconds in [5, 10] {
        let proposals = hopeless(secs(seconds));
        assert!((6..=14).contains(&proposals), "{proposals} proposals, each fails after {seconds} s");
    }
}

#[test]
fn a_proposal_ends_the_try_before_that_the_other_side_has_given_up() {
    let mut rig = node();
    let connection = relayed(&mut rig, Direction::Inbound);
    rig.identified_as(connection, 1, fast());
    offers(&mut rig, connection, Some(Mapping::Independent), &[THEIR_QUIC]);
    let (first, ..) = answer(&rig).unwrap();
    rig.take();
    rig.pass(secs(5));
    offers(&mut rig, connection, Some(Mapping::Independent), &[THEIR_TCP]);
    assert_eq!((answer(&rig).unwrap().1, refusal(&rig)), (Transport::Tcp, None));
    assert!(rig.commands.iter().any(|command| command.action == Action::CancelPunch { punch: first }));
    assert_eq!(rig.view(1).unwrap().punching.unwrap().attempts, 1, "the first one counts");
}

#[test]
fn when_everything_failed_it_is_said_why_once() {
    let mut rig = behind_a_hard_nat();
    relayed(&mut rig, Direction::Outbound);
    let tried = proposal(&rig).unwrap();
    let candidates = vec![address(THEIR_QUIC)];
    rig.tell(Event::PunchAnswered { punch: tried.id, mapping: Some(Mapping::PerDestination), candidates });
    fails(&mut rig, tried.id, PunchError::Dial(DialError::TimedOut));
    let said = Notice::StaysRelayed { peer: peer(1), impasse: Impasse::BothPerDestination };
    assert!(rig.notices().contains(&said), "{:?}", rig.notices());
    assert_eq!(rig.view(1).unwrap().punching.unwrap().impasse, Some(Impasse::BothPerDestination));
    rig.take();
    rig.live(secs(7_200));
    assert!(proposal(&rig).is_none(), "both give each destination another port: hopeless until something changes");
    assert!(!rig.notices().contains(&said));
}

#[test]
fn nothing_is_proposed_until_somebody_sees_us() {
    let mut rig = Rig::quiet(Config { mdns: false, ..Config::desktop() });
    let connection = relayed(&mut rig, Direction::Outbound);
    rig.pass(secs(60));
    assert!(proposal(&rig).is_none());
    rig.tell(Event::Disconnected { connection, peer: peer(1), cause: CloseCause::Remote });
    let mut rig = listening(home_node());
    relayed(&mut rig, Direction::Outbound);
    assert!(proposal(&rig).is_none());
    seen(&mut rig, 11, Transport::Quic, QUIC);
    rig.pass(Duration::from_millis(1));
    assert_eq!(proposal(&rig).unwrap().candidates, [address(QUIC)], "one observer is enough");
}

#[test]
fn success_is_told_and_the_relayed_connection_stays_until_the_direct_one_is_proven() {
    let mut rig = node();
    let relayed = relayed(&mut rig, Direction::Outbound);
    rig.identified_as(relayed, 1, fast());
    let tried = proposal(&rig).unwrap();
    rig.take();
    let direct = rig.connected(1, Direction::Outbound, address(THEIR_QUIC), Origin::Punch(tried.id));
    let notices = rig.notices();
    let punched = Notice::Punched { peer: peer(1), transport: Transport::Quic, attempt: 1 };
    assert!(notices.contains(&punched), "{notices:?}");
    assert_eq!(rig.closes(), []);
    rig.pong(direct, 1);
    rig.pass(secs(2));
    rig.pong(direct, 1);
    rig.pass(secs(2));
    // The smaller id closes: that is peer 1, not us.
    assert_eq!(rig.closes(), []);
    assert!(rig.view(1).unwrap().punching.is_none());
}

#[test]
fn any_direct_connection_ends_the_tries() {
    let mut rig = node();
    relayed(&mut rig, Direction::Outbound);
    let tried = proposal(&rig).unwrap();
    rig.take();
    rig.inbound(1, address(THEIR_TCP));
    let cancelled = rig.last(|action| match action {
        Action::CancelPunch { punch } => Some(*punch),
        _ => None,
    });
    assert_eq!(cancelled.unwrap().1, tried.id);
    rig.pass(secs(600));
    assert!(proposal(&rig).is_none());
}

#[test]
fn a_try_without_an_answer_is_given_up() {
    let mut rig = node();
    relayed(&mut rig, Direction::Outbound);
    let tried = proposal(&rig).unwrap();
    rig.take();
    rig.pass(secs(13));
    let notices = rig.notices();
    let failed = |notice: &Notice| matches!(notice, Notice::NotPunched { error: PunchError::TimedOut, .. });
    assert!(notices.iter().any(failed), "{notices:?}");
    assert_ne!(proposal(&rig).unwrap().id, tried.id);
}

#[test]
fn when_both_propose_the_smaller_id_wins() {
    let mut rig = node();
    let connection = relayed(&mut rig, Direction::Outbound);
    offers(&mut rig, connection, Some(Mapping::Independent), &[THEIR_QUIC]);
    assert!(answer(&rig).is_some(), "peer 1 is smaller than we are");

    let mut rig = node();
    let connection = rig.connected(900, Direction::Outbound, circuit(11), Origin::Inbound);
    let candidates = vec![address(THEIR_QUIC)];
    let mapping = Some(Mapping::Independent);
    rig.tell(Event::PunchOffered { offer: OfferId(1), connection, peer: peer(900), mapping, candidates });
    assert_eq!(refusal(&rig), Some(Reason::Busy));
}

#[test]
fn a_proposal_makes_us_dial_only_what_is_worth_it() {
    let mut rig = node();
    let connection = relayed(&mut rig, Direction::Inbound);
    let lan = ["/ip4/192.168.1.1/udp/53/quic-v1", "/ip4/127.0.0.1/udp/53/quic-v1", "/ip4/10.0.0.1/udp/1/quic-v1"];
    offers(&mut rig, connection, Some(Mapping::Independent), &lan);
    assert_eq!((answer(&rig), refusal(&rig)), (None, Some(Reason::NoUsableAddress)));
    rig.take();
    offers(&mut rig, connection, Some(Mapping::Independent), &[]);
    assert_eq!(refusal(&rig), Some(Reason::NoCandidate));

    // A member may be in the same home.
    let pinned = vec![PinnedPeer { peer: peer(1), addresses: vec![] }];
    let mut rig = node_of(Config { pinned, mdns: false, ..Config::desktop() });
    let connection = relayed(&mut rig, Direction::Inbound);
    offers(&mut rig, connection, Some(Mapping::Independent), &[THEIR_QUIC, lan[0], lan[1]]);
    assert_eq!(answer(&rig).unwrap().3, [address(THEIR_QUIC), address(lan[0])]);
}

#[test]
fn a_peer_that_proposes_without_end_is_heard_six_times_a_minute() {
    let mut rig = node();
    let connection = relayed(&mut rig, Direction::Inbound);
    let mut taken = 0;
    for n in 0..50 {
        rig.take();
        let place = format!("/ip4/45.{}.1.1/udp/5000/quic-v1", 100 + n);
        offers(&mut rig, connection, Some(Mapping::Independent), &[&place]);
        if let Some((id, ..)) = answer(&rig) {
            taken += 1;
            fails(&mut rig, id, PunchError::Dial(DialError::TimedOut));
        }
        rig.pass(Duration::from_millis(200));
    }
    assert_eq!(taken, 6);
}

#[test]
fn a_direct_peer_and_a_blocked_one_are_refused() {
    let mut rig = node();
    let connection = relayed(&mut rig, Direction::Inbound);
    rig.inbound(1, address(THEIR_TCP));
    offers(&mut rig, connection, Some(Mapping::Independent), &[THEIR_QUIC]);
    assert_eq!(refusal(&rig), Some(Reason::AlreadyDirect));
}

#[test]
fn another_network_starts_over() {
    let mut rig = node();
    relayed(&mut rig, Direction::Outbound);
    for _ in 0..3 {
        rig.pass(secs(1));
        let tried = proposal(&rig).unwrap();
        fails(&mut rig, tried.id, PunchError::Dial(DialError::TimedOut));
    }
    assert!(rig.view(1).unwrap().punching.unwrap().next.unwrap() > rig.now + secs(20));
    let moved = Interfaces {
        addresses: vec![Prefix { ip: "192.168.77.3".parse().unwrap(), len: 24 }],
        default_v4: true,
        default_v6: false,
    };
    rig.tell(Event::Interfaces(moved));
    let punching = rig.view(1).unwrap().punching.unwrap();
    assert!(punching.attempts == 0 && punching.next.unwrap() <= rig.now + secs(1), "{punching:?}");
}

#[test]
fn plain_dials_to_public_addresses_run_beside_it() {
    let mut rig = node();
    let connection = relayed(&mut rig, Direction::Outbound);
    rig.take();
    let public = address("/ip4/45.88.1.1/udp/4001/quic-v1");
    rig.identified_as(connection, 1, Identity { addresses: vec![public.clone()], ..fast() });
    let dials = rig.dials();
    assert_eq!(dials.last().map(|(_, _, addresses)| addresses.clone()), Some(vec![public]));
    let dial = rig.commands.iter().rev().find(|command| matches!(command.action, Action::Dial { .. })).unwrap();
    assert_eq!(dial.reason, Reason::OnlyRelayed);
}
