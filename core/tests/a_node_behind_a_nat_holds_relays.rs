//! Relays: asked for, held, renewed, doubted, replaced and given back.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "tests")]

mod common;

use common::*;
use kinfolk_core::{
    Action, Address, CloseCause, Config, ConnectionId, DialError, Direction, Event, Interfaces, NatConfig, Notice,
    Origin, PeerAddress, PinnedPeer, Prefix, Reason, ReserveError, Role, Source, StoredPeer, view::State,
};

fn node() -> Rig {
    Rig::quiet(Config { mdns: false, ..Config::desktop() })
}

/// Relay n comes to be connected and says what it is; its round trip is so long.
fn meets(rig: &mut Rig, n: u64, millis: u64) -> ConnectionId {
    let connection = rig.connected(n, Direction::Outbound, global(n), Origin::Inbound);
    rtt(rig, connection, n, millis);
    rig.identified_as(connection, n, relay_at(n));
    connection
}

fn rtt(rig: &mut Rig, connection: ConnectionId, n: u64, millis: u64) {
    let result = Ok(std::time::Duration::from_millis(millis));
    rig.tell(Event::Pinged { connection, peer: peer(n), result });
}

fn ends(rig: &mut Rig, n: u64, error: ReserveError) {
    let (reservation, _) = rig.reserves().into_iter().rfind(|(_, relay)| *relay == n).unwrap();
    rig.tell(Event::ReservationEnded { reservation, error });
}

fn asked(rig: &Rig) -> Vec<u64> {
    rig.reserves().into_iter().map(|(_, relay)| relay).collect()
}

fn unreserved(rig: &Rig) -> usize {
    rig.commands.iter().filter(|command| matches!(command.action, Action::Unreserve { .. })).count()
}

/// A relay keeps a place, and is connected by both transports.
fn holds_by_both(rig: &mut Rig) -> [ConnectionId; 2] {
    let quic = meets(rig, 1, 50);
    let tcp = rig.connected(1, Direction::Outbound, address("/ip4/45.10.1.1/tcp/4001"), Origin::Inbound);
    rig.relay_grants(1);
    [quic, tcp]
}

#[test]
fn two_relays_in_distinct_networks_are_held_and_no_more() {
    let mut rig = node();
    for n in 1..=4 {
        meets(&mut rig, n, 50);
    }
    assert_eq!(asked(&rig), [1, 2], "as soon as they have said that they relay");
    rig.relay_grants(1);
    rig.relay_grants(2);
    rig.pass(secs(20));
    assert_eq!((rig.held(), asked(&rig)), (vec![1, 2], vec![1, 2]));
    let notices = rig.notices();
    assert!(notices.contains(&Notice::RelayHeld { relay: peer(1) }), "{notices:?}");
}

#[test]
fn a_second_relay_of_the_same_network_is_the_last_choice() {
    let mut rig = node();
    let twin = address("/ip4/45.10.1.77/udp/4001/quic-v1");
    let ninth = rig.connected(9, Direction::Outbound, twin, Origin::Inbound);
    rtt(&mut rig, ninth, 9, 1);
    meets(&mut rig, 1, 50);
    assert_eq!(asked(&rig), [1]);
    rig.identified_as(ninth, 9, relay_at(9));
    assert_eq!(asked(&rig), [1, 9], "better than none");
    rig.relay_grants(1);
    rig.relay_grants(9);
    rig.take();
    meets(&mut rig, 2, 60);
    rig.live_until(secs(700), |rig| !asked(rig).is_empty());
    assert_eq!(asked(&rig), [2], "one elsewhere takes its place");
    rig.relay_grants(2);
    assert_eq!((rig.held().len(), unreserved(&rig)), (2, 1));
    assert!(rig.held().contains(&2), "{:?}", rig.held());
}

#[test]
fn a_relay_that_is_given_back_is_trimmed_at_once_where_there_are_too_many() {
    let mut config = Config { mdns: false, ..Config::desktop() };
    (config.lifecycle.low_water, config.lifecycle.high_water) = (1, 2);
    config.pinned = vec![PinnedPeer { peer: peer(2), addresses: vec![] }];
    let mut rig = Rig::quiet(config);
    let twin = address("/ip4/45.10.1.77/udp/4001/quic-v1");
    let ninth = rig.connected(9, Direction::Outbound, twin, Origin::Inbound);
    rtt(&mut rig, ninth, 9, 1);
    let first = meets(&mut rig, 1, 50);
    rig.identified_as(ninth, 9, relay_at(9));
    rig.relay_grants(1);
    rig.relay_grants(9);
    rig.take();
    meets(&mut rig, 2, 60);
    rig.live_until(secs(700), |rig| !asked(rig).is_empty());
    assert_eq!(rig.closes(), [], "pinned, or a relay in use");
    // The harness sees to it that no deadline is left behind.
    rig.relay_grants(2);
    assert_eq!(unreserved(&rig), 1);
    let closed: Vec<ConnectionId> = rig.closes().into_iter().map(|(connection, _)| connection).collect();
    assert_eq!(closed, [first]);
}

#[test]
fn a_little_nearer_is_no_reason_to_change() {
    let mut rig = node();
    let far = rig.connected(1, Direction::Outbound, global(1), Origin::Inbound);
    rtt(&mut rig, far, 1, 300);
    meets(&mut rig, 2, 20);
    meets(&mut rig, 3, 30);
    rig.identified_as(far, 1, relay_at(1));
    assert_eq!(asked(&rig), [2, 3]);
    rig.relay_grants(2);
    rig.relay_grants(3);
    rig.take();
    meets(&mut rig, 4, 15);
    rig.live(secs(700));
    assert_eq!(asked(&rig), [0; 0], "15 ms saved are not worth it");
}

#[test]
fn a_much_nearer_relay_is_taken_before_the_far_one_is_given_back() {
    let mut rig = node();
    meets(&mut rig, 1, 300);
    meets(&mut rig, 2, 200);
    rig.relay_grants(1);
    rig.relay_grants(2);
    rig.take();
    meets(&mut rig, 3, 20);
    rig.live_until(secs(700), |rig| !asked(rig).is_empty());
    assert_eq!(asked(&rig), [3]);
    assert_eq!(unreserved(&rig), 0, "make before break");
    rig.relay_grants(3);
    assert_eq!((rig.held(), unreserved(&rig)), (vec![2, 3], 1));
}

#[test]
fn a_relay_of_the_settings_is_dialled_and_asked_before_it_has_introduced_itself() {
    let relays = vec![PeerAddress::new(peer(7), global(7))];
    let mut rig = Rig::new(Config { nat: NatConfig { relays, ..NatConfig::default() }, ..Config::desktop() });
    assert_eq!(rig.dials().len(), 1);
    rig.dial_succeeds(7);
    assert_eq!(asked(&rig), [7]);
}

#[test]
fn a_relay_that_was_full_and_is_gone_is_wanted_again_when_it_may_be_asked() {
    let mut config = Config { mdns: false, ..Config::desktop() };
    config.lifecycle.low_water = 1;
    let mut rig = Rig::quiet(config);
    rig.tell(Event::StoreLoaded { peers: vec![relay_of_an_earlier_run(7)], nat: None, last: true });
    let connection = rig.dial_succeeds(7);
    rig.identified_as(connection, 7, relay_at(7));
    ends(&mut rig, 7, ReserveError::Full);
    let rests_until = rig.node.view().unwrap().node().relays[0].retry_at.unwrap();
    rig.tell(Event::Disconnected { connection, peer: peer(7), cause: CloseCause::Ours });
    // Somebody else comes: what is due next is worked out anew.
    let company = rig.connected(1, Direction::Outbound, global(1), Origin::Inbound);
    rig.identified(company, 1);
    while rig.node.next_deadline().is_some_and(|due| due.at < rests_until) {
        rig.live(secs(1));
    }
    assert_eq!(rig.node.next_deadline().unwrap().at, rests_until);
}

fn relay_of_an_earlier_run(n: u64) -> StoredPeer {
    let address =
        kinfolk_core::StoredAddress { address: global(n), source: Source::Store, proven: true, last_success: 0 };
    StoredPeer { peer: peer(n), pinned: false, blocked: false, relay: true, record: 0, addresses: vec![address] }
}

#[test]
fn a_relay_of_an_earlier_run_is_dialled_when_none_is_here() {
    let mut rig = node();
    rig.tell(Event::StoreLoaded { peers: vec![relay_of_an_earlier_run(7)], nat: None, last: true });
    let reason = rig.commands.iter().find(|command| matches!(command.action, Action::Dial { .. })).unwrap();
    assert_eq!(reason.reason, Reason::RelayWanted { have: 0, want: 2 });
    rig.dial_succeeds(7);
    assert_eq!(asked(&rig), [7]);
}

#[test]
fn a_server_and_a_node_with_an_address_of_its_own_wait_until_they_are_known_to_need_one() {
    let mut rig = Rig::quiet(Config { role: Role::Server, ..Config::server() });
    meets(&mut rig, 1, 50);
    rig.pass(secs(60));
    assert_eq!(asked(&rig), [0; 0]);

    let mut interfaces = home();
    interfaces.addresses.push(Prefix { ip: "45.99.1.1".parse().unwrap(), len: 24 });
    let mut rig = Rig::at(Config::desktop(), interfaces);
    meets(&mut rig, 1, 50);
    assert_eq!(asked(&rig), [0; 0]);
    rig.pass(secs(5));
    assert_eq!(asked(&rig), [1], "not known for so long is reason enough");
}

#[test]
fn a_reservation_is_renewed_at_half_of_its_time_by_our_own_clock() {
    let mut rig = node();
    meets(&mut rig, 1, 50);
    rig.relay_grants(1);
    rig.take();
    rig.live(secs(1_400));
    assert_eq!(asked(&rig), [0; 0]);
    rig.live_until(secs(800), |rig| !asked(rig).is_empty());
    assert_eq!(asked(&rig), [1]);
    assert_eq!(unreserved(&rig), 0, "the old place is not given up for the new");
    rig.relay_grants(1);
    assert_eq!(rig.held(), [1]);
}

#[test]
fn a_relays_word_shortens_the_time_to_renewal_within_reason() {
    // Ten minutes; a second, which would keep us busy; what clocks say that are years apart; and nothing.
    for (lasts, earliest, latest) in [
        (Some(secs(600)), 240, 360),
        (Some(secs(1)), 24, 36),
        (Some(secs(56 * 365 * 86_400)), 1_440, 2_160),
        (None, 1_440, 2_160),
    ] {
        let mut rig = node();
        meets(&mut rig, 1, 50);
        let (reservation, _) = rig.reserves()[0];
        rig.tell(Event::Reserved { reservation, limit: None, lasts });
        rig.take();
        rig.live(secs(earliest));
        assert_eq!(asked(&rig), [0; 0], "{lasts:?}");
        rig.live_until(secs(latest - earliest), |rig| !asked(rig).is_empty());
        assert_eq!(asked(&rig), [1], "{lasts:?}");
    }
}

#[test]
fn what_a_relay_answers_decides_when_it_is_asked_again() {
    let table = [
        (ReserveError::Full, 20, 45),
        (ReserveError::TimedOut, 3, 7),
        (ReserveError::Malformed, 3, 7),
        (ReserveError::Forbidden, 60_000, 110_000),
        (ReserveError::Unsupported, 60_000, 110_000),
    ];
    for (error, not_before, by) in table {
        let mut rig = node();
        meets(&mut rig, 1, 50);
        ends(&mut rig, 1, error.clone());
        assert!(rig.notices().contains(&Notice::RelayNotHeld { relay: peer(1), error: error.clone() }), "{error:?}");
        rig.take();
        let begun = rig.now;
        while asked(&rig).is_empty() {
            rig.live(secs(1));
        }
        let waited = rig.now.since(begun).as_secs();
        assert!((not_before..=by).contains(&waited), "{error:?}: {waited} s");
    }
}

#[test]
fn a_relay_that_has_just_started_is_asked_again_when_it_says_that_it_relays() {
    let mut rig = node();
    let connection = meets(&mut rig, 1, 50);
    ends(&mut rig, 1, ReserveError::Unsupported);
    rig.take();
    rig.live(secs(60));
    assert_eq!(asked(&rig), [0; 0]);
    rig.identified_as(connection, 1, relay_at(1));
    assert_eq!(asked(&rig), [1]);
}

#[test]
fn a_circuit_waits_for_the_dial_to_its_relay() {
    // The pinned peer's only way leads through the bootstrap peer: at the start nothing stands.
    let pinned = vec![PinnedPeer { peer: peer(5), addresses: vec![circuit(1)] }];
    let bootstrap = vec![PeerAddress::new(peer(1), global(1))];
    let mut rig = Rig::new(Config { pinned, bootstrap, mdns: false, ..Config::desktop() });
    let to = |rig: &Rig| rig.dials().into_iter().map(|(_, to, _)| number(&to.unwrap())).collect::<Vec<_>>();
    assert_eq!(to(&rig), [1], "two dials to the relay at once, and the circuit fails");
    rig.dial_succeeds(1);
    assert_eq!(to(&rig), [1, 5], "at once when the relay is there, before it has introduced itself");

    // A relay that can't be reached is no reason to wait for ever.
    let pinned = vec![PinnedPeer { peer: peer(5), addresses: vec![circuit(1)] }];
    let bootstrap = vec![PeerAddress::new(peer(1), global(1))];
    let mut rig = Rig::new(Config { pinned, bootstrap, mdns: false, ..Config::desktop() });
    let (dial, ..) = rig.dials()[0].clone();
    let failures = vec![(global(1), DialError::TimedOut)];
    rig.tell(Event::DialFailed { dial, failures, error: DialError::TimedOut });
    rig.pass(secs(2));
    assert!(to(&rig).contains(&5), "{:?}", to(&rig));
}

#[test]
fn a_full_relay_rests_for_an_hour_where_there_are_others() {
    let mut rig = node();
    for n in 1..=3 {
        meets(&mut rig, n, 50);
    }
    ends(&mut rig, 1, ReserveError::Full);
    assert_eq!(asked(&rig), [1, 2, 3], "the next one at once");
    rig.take();
    rig.live(secs(2_000));
    assert!(!asked(&rig).contains(&1));
}

#[test]
fn a_relay_that_is_gone_is_dialled_at_once_and_asked_when_it_is_back() {
    let mut rig = node();
    let connection = meets(&mut rig, 1, 50);
    rig.relay_grants(1);
    rig.take();
    rig.tell(Event::Disconnected { connection, peer: peer(1), cause: CloseCause::Remote });
    assert_eq!(rig.held(), [0; 0]);
    // It restarts: nothing answers for a while.
    let mut dials = 0;
    for _ in 0..100 {
        rig.pass(std::time::Duration::from_millis(100));
        for (dial, _, addresses) in rig.dials() {
            dials += 1;
            let failures = vec![(addresses[0].clone(), DialError::ConnectionRefused)];
            rig.take();
            rig.tell(Event::DialFailed { dial, failures, error: DialError::ConnectionRefused });
        }
    }
    assert!((3..=12).contains(&dials), "{dials} in 10 s");
    rig.take();
    rig.pass(secs(4));
    rig.dial_succeeds(1);
    assert_eq!(asked(&rig), [1], "as soon as the connection stands");
}

#[test]
fn a_relay_with_two_connections_that_ends_is_asked_at_once_when_it_is_back() {
    let mut rig = node();
    let [quic, tcp] = holds_by_both(&mut rig);
    rig.live(secs(90));
    for connection in [quic, tcp] {
        rig.tell(Event::Disconnected { connection, peer: peer(1), cause: CloseCause::Remote });
    }
    rig.take();
    rig.pass(secs(2));
    rig.dial_succeeds(1);
    assert_eq!(asked(&rig), [1]);
}

#[test]
fn however_often_a_relay_was_asked_while_it_ended_a_new_connection_to_it_is_asked_at_once() {
    let mut rig = node();
    let [quic, tcp] = holds_by_both(&mut rig);
    rig.tell(Event::Disconnected { connection: quic, peer: peer(1), cause: CloseCause::Remote });
    for _ in 0..3 {
        ends(&mut rig, 1, ReserveError::ConnectionLost);
    }
    rig.tell(Event::Disconnected { connection: tcp, peer: peer(1), cause: CloseCause::Remote });
    rig.take();
    rig.pass(secs(1));
    // Not dialled for this: a look-up needs it.
    meets(&mut rig, 1, 50);
    assert_eq!(asked(&rig), [1]);
}

#[test]
fn a_relay_that_broke_off_because_it_ended_is_asked_at_once_when_it_is_back() {
    let mut rig = node();
    let [quic, tcp] = holds_by_both(&mut rig);
    rig.tell(Event::Disconnected { connection: tcp, peer: peer(1), cause: CloseCause::Remote });
    ends(&mut rig, 1, ReserveError::Other("the relay broke off: closed by peer".to_owned()));
    rig.tell(Event::Disconnected { connection: quic, peer: peer(1), cause: CloseCause::Remote });
    rig.take();
    rig.pass(secs(1));
    meets(&mut rig, 1, 50);
    assert_eq!(asked(&rig), [1]);
}

#[test]
fn a_place_is_doubted_when_one_of_two_connections_breaks_and_silence_ends_the_other() {
    let mut rig = node();
    let [quic, tcp] = holds_by_both(&mut rig);
    rig.take();
    let cause = CloseCause::Broken("reset".into());
    rig.tell(Event::Disconnected { connection: tcp, peer: peer(1), cause: cause.clone() });
    assert_eq!((asked(&rig), rig.held()), (vec![1], vec![1]), "asked, and held until it is known");
    rig.pass(secs(2));
    assert_eq!(rig.closes(), []);
    rig.pass(secs(2));
    assert_eq!((rig.closes(), rig.held()), (vec![(quic, Reason::PingsLost)], vec![]));
}

#[test]
fn an_answer_in_time_ends_the_doubt() {
    let mut rig = node();
    meets(&mut rig, 1, 50);
    rig.relay_grants(1);
    rig.take();
    let failures = vec![(circuit(1), DialError::TimedOut)];
    let dial = kinfolk_core::CommandId(12_345);
    rig.tell(Event::DialFailed { dial, failures, error: DialError::TimedOut });
    assert_eq!(asked(&rig), [1], "the library drops our place when a circuit through it times out");
    rig.relay_grants(1);
    rig.pass(secs(10));
    assert_eq!((rig.closes(), rig.held()), (vec![], vec![1]));
}

#[test]
fn another_network_makes_every_place_doubtful_at_once() {
    let mut rig = node();
    let connection = meets(&mut rig, 1, 50);
    rig.relay_grants(1);
    rig.take();
    let moved = Interfaces {
        addresses: vec![Prefix { ip: "192.168.77.3".parse().unwrap(), len: 24 }],
        default_v4: true,
        default_v6: false,
    };
    rig.tell(Event::Interfaces(moved));
    assert_eq!(asked(&rig), [1]);
    rig.pass(std::time::Duration::from_millis(1_300));
    assert_eq!(rig.closes(), [(connection, Reason::PingsLost)]);
    rig.tell(Event::Disconnected { connection, peer: peer(1), cause: CloseCause::Ours });
    rig.pass(secs(1));
    assert_eq!(rig.dials().len(), 1, "and dialled anew");
}

#[test]
fn a_relay_that_forgot_us_is_asked_again_soon() {
    let mut rig = node();
    meets(&mut rig, 1, 50);
    rig.relay_grants(1);
    ends(&mut rig, 1, ReserveError::Other("the relay closed it".into()));
    rig.take();
    rig.pass(secs(7));
    assert_eq!(asked(&rig), [1]);
}

#[test]
fn a_relay_tells_no_addresses_but_its_own_on_the_internet() {
    let mut rig = node();
    meets(&mut rig, 1, 50);
    let (reservation, _) = rig.reserves()[0];
    rig.tell(Event::Reserved { reservation, limit: None, lasts: None });
    for lie in [
        format!("/ip4/192.168.1.1/tcp/80/p2p/{}/p2p-circuit", peer(1)),
        format!("{}/p2p/{}/p2p-circuit", global(3), peer(2)),
        format!("/ip4/127.0.0.1/tcp/80/p2p/{}/p2p-circuit", peer(1)),
    ] {
        rig.tell(Event::ReservedAt { reservation, address: address(&lie) });
    }
    let told =
        |rig: &Rig| rig.commands.iter().filter(|command| matches!(command.action, Action::Advertise { .. })).count();
    assert_eq!(told(&rig), 0);
    rig.tell(Event::ReservedAt { reservation, address: circuit(1) });
    assert_eq!(told(&rig), 1);
    ends(&mut rig, 1, ReserveError::ConnectionLost);
    let withdrawn = rig.last(|action| match action {
        Action::Withdraw { address } => Some(address.clone()),
        _ => None,
    });
    assert_eq!(withdrawn.unwrap().1, circuit(1), "the address goes with the place");
}

#[test]
fn one_relay_sees_us_by_both_transports() {
    let mut rig = node();
    let quic = meets(&mut rig, 1, 50);
    rig.tell(Event::Found {
        source: Source::Kademlia,
        peer: peer(1),
        addresses: vec![address("/ip4/45.10.1.1/tcp/4001")],
        cut: 0,
    });
    rig.relay_grants(1);
    let dials = rig.dials();
    assert_eq!(dials.last().unwrap().2, [address("/ip4/45.10.1.1/tcp/4001")], "TCP, too: so TCP ports are seen");
    let tcp = rig.dial_succeeds(1);
    for _ in 0..10 {
        rig.pass(secs(5));
        rig.pong(quic, 1);
        rig.pong(tcp, 1);
    }
    assert_eq!((rig.closes(), rig.state(1)), (vec![], State::Identified));
}

/// Relay n's place by TCP.
fn by_tcp(n: u64) -> Address {
    address(&global(n).to_string().replace("udp/4001/quic-v1", "tcp/4001"))
}

fn answers(rig: &mut Rig, connections: &[(ConnectionId, u64)]) {
    for _ in 0..10 {
        rig.pass(secs(5));
        for (connection, n) in connections {
            rig.pong(*connection, *n);
        }
    }
}

#[test]
fn one_connection_is_enough_for_the_other_relay_and_it_is_the_one_with_the_place() {
    for second in [LOCAL - 1, LOCAL + 1] {
        let mut rig = node();
        let first = meets(&mut rig, 1, 50);
        rig.relay_grants(1);
        let place = meets(&mut rig, second, 60);
        rig.relay_grants(second);
        rig.take();
        let tcp = rig.inbound(second, by_tcp(second));
        answers(&mut rig, &[(first, 1), (place, second), (tcp, second)]);
        assert_eq!(rig.closes(), [(tcp, Reason::Duplicate { kept: place })], "whoever has the smaller id");
        assert_eq!(rig.held(), [1, second]);
    }
}

#[test]
fn when_the_relay_that_sees_us_by_both_transports_goes_the_other_one_is_to() {
    let mut rig = node();
    let first = meets(&mut rig, 1, 50);
    rig.relay_grants(1);
    let second = meets(&mut rig, 2, 60);
    rig.relay_grants(2);
    rig.take();
    rig.found(Source::Kademlia, 2, &[by_tcp(2)]);
    answers(&mut rig, &[(first, 1), (second, 2)]);
    let to_second = |rig: &Rig| rig.dials().iter().filter(|dial| dial.1 == Some(peer(2))).count();
    assert_eq!(to_second(&rig), 0, "{:?}", rig.dials());
    rig.tell(Event::Disconnected { connection: first, peer: peer(1), cause: CloseCause::Remote });
    assert_eq!(to_second(&rig), 1, "{:?}", rig.dials());
    assert_eq!(rig.dials().iter().rfind(|dial| dial.1 == Some(peer(2))).unwrap().2, [by_tcp(2)]);
}
