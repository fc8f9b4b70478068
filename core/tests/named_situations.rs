//! What the node does in situations that have a name: the commands, in words, with their reasons.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "tests")]

mod common;

use common::*;
use kinfolk_core::{
    Action, Answer, Ask, AskError, CircuitLimit, CloseCause, CommandId, Config, ConnectionId, DialError, Direction,
    Event, Health, HeldId, Identity, Interfaces, ListenError, ListenerId, Notice, Origin, PeerAddress, PinnedPeer,
    Query, Reachability, Reason, RequestId, Role, Source, StoredAddress, StoredPeer, view::State,
};

fn desktop() -> Config {
    Config::desktop()
}

fn with_pinned(n: u64) -> Config {
    let pinned = vec![PinnedPeer { peer: peer(n), addresses: vec![global(n)] }];
    Config { pinned, ..desktop() }
}

fn with_bootstrap(n: u64) -> Config {
    Config { bootstrap: vec![PeerAddress::new(peer(n), global(n))], ..desktop() }
}

fn fail_all(rig: &mut Rig, error: &DialError) {
    for (dial, _, addresses) in rig.dials() {
        let failures = addresses.into_iter().map(|address| (address, error.clone())).collect();
        rig.tell(Event::DialFailed { dial, failures, error: error.clone() });
    }
}

fn queries(rig: &Rig) -> Vec<(CommandId, Query)> {
    rig.commands
        .iter()
        .filter_map(|command| match &command.action {
            Action::Query(query) => Some((command.id, query.clone())),
            _ => None,
        })
        .collect()
}

fn query_ends(rig: &mut Rig, query: CommandId, found: &[(u64, Vec<kinfolk_core::Address>)]) {
    let peers = found.iter().map(|(n, addresses)| (peer(*n), addresses.clone())).collect();
    rig.tell(Event::QueryFound { query, peers, cut: 0, record: None });
    rig.tell(Event::QueryEnded { query, successes: 1, failures: 0 });
}

/// Server n is connected, identified and in the routing table.
fn meets_server(rig: &mut Rig, n: u64) {
    let connection = rig.dial_succeeds(n);
    rig.identified_as(connection, n, server_at(n));
    rig.tell(Event::Routed { peer: peer(n), present: true });
}

#[test]
fn a_node_starts_alone() {
    let mut rig = Rig::new(desktop());
    insta::assert_snapshot!("starts", rig.words());
    rig.pass(secs(3_600));
    insta::assert_snapshot!("alone_for_an_hour", rig.words());
}

#[test]
fn a_machine_without_network_is_offline_and_comes_back() {
    let mut rig = Rig::at(with_bootstrap(1), Interfaces::default());
    rig.pass(secs(60));
    assert_eq!(rig.dials(), []);
    assert!(rig.notices().contains(&Notice::HealthChanged { health: Health::Offline }));
    rig.take();
    rig.tell(Event::Interfaces(home()));
    assert_eq!(rig.dials().len(), 1, "dials at once when the network is there");
}

#[test]
fn a_peer_found_on_the_home_network_is_dialled_and_its_expiry_is_only_a_hint() {
    let mut rig = Rig::quiet(desktop());
    let tcp = address("/ip4/192.168.1.11/tcp/4001");
    rig.found(Source::Mdns, 1, &[near(1), tcp.clone()]);
    let connection = rig.dial_succeeds(1);
    rig.identified(connection, 1);
    rig.tell(Event::Lost { source: Source::Mdns, peer: peer(1), addresses: vec![near(1), tcp] });
    rig.pass(secs(5));
    assert_eq!(rig.state(1), State::Identified);
    insta::assert_snapshot!(rig.words());
}

#[test]
fn the_home_network_speaks_only_of_itself() {
    let mut rig = Rig::quiet(desktop());
    for told in ["/ip4/10.0.0.1/tcp/80", "/ip4/45.10.1.1/tcp/4001", "/ip4/127.0.0.1/tcp/22", "/ip6/fe80::1/tcp/1"] {
        rig.found(Source::Mdns, 1, &[address(told)]);
    }
    for told in ["/ip4/192.168.1.1/tcp/80", "/ip4/127.0.0.1/tcp/22", "/dns4/router.lan/tcp/80", "/ip4/10.1.1.1/tcp/80"]
    {
        rig.found(Source::Kademlia, 2, &[address(told)]);
        rig.found(Source::Identify, 2, &[address(told)]);
    }
    assert_eq!(rig.words(), "");
    assert_eq!((rig.state(1), rig.state(2)), (State::Expired, State::Expired));
}

#[test]
fn failures_back_off_and_a_new_address_is_tried_at_once() {
    let mut rig = Rig::quiet(desktop());
    let other = rig.inbound(9, near(9));
    rig.identified(other, 9);
    rig.found(Source::Mdns, 1, &[near(1)]);
    let mut waits = vec![];
    for _ in 0..6 {
        let before = rig.now;
        fail_all(&mut rig, &DialError::ConnectionRefused);
        rig.take();
        while rig.dials().is_empty() {
            rig.pass(secs(1));
            rig.pong(other, 9);
        }
        waits.push((rig.now - before).as_secs());
    }
    assert!(waits[1..].is_sorted() && waits[0] >= 4 && waits[5] >= 24, "{waits:?}");
    fail_all(&mut rig, &DialError::ConnectionRefused);
    rig.take();
    rig.found(Source::Mdns, 1, &[near(2)]);
    assert_eq!(rig.dials(), [(rig.commands.last().unwrap().id, Some(peer(1)), vec![near(2)])]);
}

#[test]
fn a_pinned_peer_is_never_given_up() {
    let mut rig = Rig::new(with_pinned(1));
    for _ in 0..40 {
        fail_all(&mut rig, &DialError::TimedOut);
        rig.take();
        rig.pass(secs(361));
        assert!(!rig.dials().is_empty(), "gave up at {}", rig.now);
    }
    assert!(rig.view(1).unwrap().pinned);
}

#[test]
fn one_side_closes_a_duplicate_once_the_better_connection_has_proven_itself() {
    for (n, closes) in [(LOCAL + 1, true), (LOCAL - 1, false)] {
        let mut rig = Rig::quiet(desktop());
        let tcp = rig.inbound(n, address("/ip4/192.168.1.11/tcp/4001"));
        let quic = rig.inbound(n, near(1));
        rig.identified(tcp, n);
        rig.pong(quic, n);
        rig.pass(secs(10));
        assert_eq!(rig.closes(), [], "one ping proves nothing");
        rig.pong(quic, n);
        rig.pong(tcp, n);
        let kept = Reason::Duplicate { kept: quic };
        assert_eq!(rig.closes(), if closes { vec![(tcp, kept)] } else { vec![] });
    }
}

/// By time and by bytes; the smaller id first, so that not both make one.
#[test]
fn a_circuit_is_followed_by_another_before_its_relay_cuts_it() {
    let limit = CircuitLimit { duration: Some(secs(100)), bytes: Some(1_000) };
    for (n, tenths) in [(LOCAL + 1, 8), (LOCAL - 1, 9)] {
        let begin = || {
            let pinned = vec![PinnedPeer { peer: peer(n), addresses: vec![circuit(1)] }];
            let mut rig = Rig::new(Config { pinned, ..desktop() });
            let relay = rig.connected(1, Direction::Outbound, global(1), Origin::Inbound);
            rig.identified_as(relay, 1, relay_at(1));
            let relayed = rig.dial_succeeds(n);
            rig.tell(Event::CircuitLimited { connection: relayed, limit });
            rig.identified(relayed, n);
            rig.live(secs(1));
            rig.take();
            (rig, relayed)
        };
        let renews = |rig: &Rig| {
            let dial = rig.commands.iter().find(|command| command.reason == Reason::CircuitWorn);
            dial.is_some_and(|dial| matches!(&dial.action, Action::Dial { peer: Some(who), .. } if *who == peer(n)))
        };
        let (mut rig, _) = begin();
        rig.live(secs(tenths * 10 - 2));
        assert!(!renews(&rig), "{n}: not yet");
        rig.live(secs(2));
        assert!(renews(&rig), "{n}: {}", rig.words());

        let (mut rig, relayed) = begin();
        rig.tell(Event::CircuitUsed { connection: relayed, bytes: tenths * 100 - 1 });
        rig.live(secs(1));
        assert!(!renews(&rig), "{n}: not yet");
        rig.tell(Event::CircuitUsed { connection: relayed, bytes: tenths * 100 });
        rig.live(secs(1));
        assert!(renews(&rig), "{n}: {}", rig.words());

        // Of two circuits one goes, and not because one were direct.
        let next = rig.connected(n, Direction::Inbound, circuit(2), Origin::Inbound);
        rig.take();
        rig.live(secs(40));
        let closes = rig.closes();
        assert!(closes.is_empty() || closes == [(relayed, Reason::Duplicate { kept: next })], "{closes:?}");
        assert_eq!(closes.is_empty(), n < LOCAL, "the smaller id closes");
    }
}

#[test]
fn a_stranger_never_closes_duplicates_so_we_do() {
    let n = LOCAL - 1;
    let mut rig = Rig::quiet(desktop());
    let first = rig.inbound(n, near(1));
    let second = rig.inbound(n, near(1));
    rig.identified_as(first, n, Identity { agent: "js-libp2p/3.3.11".into(), ..kinfolk() });
    for _ in 0..2 {
        rig.pong(first, n);
        rig.pong(second, n);
        rig.pass(secs(5));
    }
    assert_eq!(rig.closes(), [(second, Reason::Duplicate { kept: first })]);
}

#[test]
fn above_high_water_the_newest_strangers_go_and_the_pinned_stay() {
    let mut config = with_pinned(1);
    config.lifecycle.low_water = 3;
    config.lifecycle.high_water = 5;
    let mut rig = Rig::new(config);
    let pinned = rig.dial_succeeds(1);
    rig.identified_as(pinned, 1, Identity::default());
    let stranger = rig.inbound(7, global(7));
    rig.identified_as(stranger, 7, Identity::default());
    for n in 2..6 {
        let connection = rig.inbound(n, global(n));
        rig.identified(connection, n);
    }
    assert_eq!(rig.closes(), [], "all of them are new");
    rig.take();
    rig.pass(secs(21));
    insta::assert_snapshot!(rig.words());
    assert_eq!(rig.state(1), State::Identified);
}

#[test]
fn who_has_a_place_at_this_relay_is_not_displaced_by_passers_by() {
    fn come(rig: &mut Rig, who: std::ops::RangeInclusive<u64>, reserved: bool) -> Vec<ConnectionId> {
        who.map(|n| {
            let connection = rig.inbound(n, global(n));
            rig.identified(connection, n);
            rig.tell(Event::Serving { peer: peer(n), reserved, circuits: 0 });
            connection
        })
        .collect()
    }
    fn closed(rig: &mut Rig) -> Vec<ConnectionId> {
        let closed = rig.closes().into_iter().map(|(connection, _)| connection).collect();
        rig.take();
        closed
    }

    let mut config = Config::server();
    config.lifecycle.low_water = 3;
    config.lifecycle.high_water = 10;
    config.lifecycle.dial_slots = 4;
    let mut rig = Rig::new(config);
    let guests = come(&mut rig, 1..=8, true);
    rig.live(secs(60));
    let passing = come(&mut rig, 11..=14, false);
    rig.live(secs(15));
    assert_eq!(closed(&mut rig), [], "the newest have their grace");
    rig.live(secs(10));
    assert_eq!(closed(&mut rig), passing, "whatever the low mark says");

    // A flood is another matter: then only so many stay as the high mark says, and of those who came first all.
    let flood = come(&mut rig, 21..=27, true);
    let went = closed(&mut rig);
    assert!(went.len() == 5 && went.iter().all(|connection| flood.contains(connection)), "{went:?}");

    // Whose place has ended passes by again.
    come(&mut rig, 31..=31, true);
    rig.live(secs(60));
    assert_eq!(closed(&mut rig), []);
    rig.tell(Event::Serving { peer: peer(2), reserved: false, circuits: 0 });
    rig.live(secs(1));
    assert_eq!(closed(&mut rig), [guests[1]]);
}

#[test]
fn a_bootstrap_peer_with_several_addresses_is_one_dial_and_is_tried_again_for_ever() {
    let mut config = with_bootstrap(1);
    config.bootstrap.push(PeerAddress::new(peer(1), address("/ip4/45.10.1.1/tcp/4001")));
    let mut rig = Rig::new(config);
    let dials = rig.dials();
    assert_eq!(dials.len(), 1);
    assert_eq!((dials[0].1, dials[0].2.len()), (Some(peer(1)), 2));
    let start = rig.now;
    let mut tries = vec![];
    while rig.now < start + secs(1_800) {
        if !rig.dials().is_empty() {
            tries.push((rig.now - start).as_secs());
            fail_all(&mut rig, &DialError::ConnectionRefused);
            rig.take();
        }
        rig.pass(secs(1));
    }
    let early = tries.iter().filter(|at| **at < 600).count();
    assert!((15..40).contains(&early), "1 s to 30 s for ten minutes: {tries:?}");
    assert!((3..8).contains(&(tries.len() - early)), "then every few minutes: {tries:?}");
}

#[test]
fn a_bootstrap_peer_without_id_is_known_once_it_is_there() {
    let nameless = PeerAddress { peer: None, address: Some(address("/dns4/node.example/tcp/4001")) };
    let mut rig = Rig::new(Config { bootstrap: vec![nameless], ..desktop() });
    let connection = rig.dial_succeeds(7);
    rig.identified(connection, 7);
    assert!(rig.node.view().unwrap().node().bootstrap[0].connected);
    rig.take();
    rig.tell(Event::Disconnected { connection, peer: peer(7), cause: CloseCause::Remote });
    rig.pass(secs(2));
    assert_eq!(rig.dials().len(), 1, "back within two seconds");
}

#[test]
fn a_server_leads_to_the_routing_table_the_records_and_the_members() {
    let mut rig = Rig::new(with_bootstrap(1));
    let own = address("/ip4/45.90.90.90/tcp/4001");
    let listen = rig.commands.iter().find(|command| matches!(command.action, Action::Listen { .. })).unwrap().id;
    rig.tell(Event::Listening { listener: ListenerId(1), command: listen, address: own.clone() });
    meets_server(&mut rig, 1);
    rig.pass(secs(2));
    let all = queries(&rig);
    let id = |wanted: fn(&Query) -> bool| all.iter().find(|(_, query)| wanted(query)).expect("a query").0;
    insta::assert_snapshot!("a_server_is_met", rig.words());

    query_ends(&mut rig, id(|query| matches!(query, Query::Publish { .. })), &[]);
    query_ends(&mut rig, id(|query| matches!(query, Query::LookUp { .. })), &[(1, vec![global(1)])]);
    query_ends(&mut rig, id(|query| matches!(query, Query::Members)), &[(LOCAL, vec![own]), (2, vec![])]);
    insta::assert_snapshot!("a_member_is_found", rig.words());
}

#[test]
fn a_member_without_addresses_is_found_by_its_record() {
    let mut rig = Rig::new(with_bootstrap(1));
    meets_server(&mut rig, 1);
    rig.pass(secs(2));
    let members = queries(&rig).into_iter().find(|(_, query)| *query == Query::Members).expect("members are asked for");
    rig.take();
    query_ends(&mut rig, members.0, &[(2, vec![])]);
    let record = queries(&rig).into_iter().find(|(_, query)| matches!(query, Query::Record { .. })).expect("a record");
    query_ends(&mut rig, record.0, &[(2, vec![global(2)]), (3, vec![global(3)])]);
    assert_eq!(rig.dials().last().map(|dial| (dial.1, dial.2.clone())), Some((Some(peer(2)), vec![global(2)])));
    assert_eq!(rig.state(3), State::Expired, "a record speaks of one peer only");
}

#[test]
fn of_two_that_join_together_the_later_one_finds_the_other_at_once() {
    let mut rig = Rig::new(with_bootstrap(1));
    let listen = rig.commands.iter().find(|command| matches!(command.action, Action::Listen { .. })).unwrap().id;
    let own = address("/ip4/45.90.90.90/tcp/4001");
    rig.tell(Event::Listening { listener: ListenerId(1), command: listen, address: own });
    meets_server(&mut rig, 1);
    rig.pass(secs(1));
    let find = |rig: &Rig, wanted: fn(&Query) -> bool| {
        queries(rig).into_iter().find(|(_, query)| wanted(query)).map(|(id, _)| id)
    };
    let members: fn(&Query) -> bool = |query| *query == Query::Members;
    let early = find(&rig, members).unwrap();
    query_ends(&mut rig, early, &[]);
    let publish = find(&rig, |query| matches!(query, Query::Publish { .. })).unwrap();
    rig.tell(Event::QueryEnded { query: publish, successes: 1, failures: 0 });
    let join = find(&rig, |query| *query == Query::Join).unwrap();
    rig.take();
    rig.tell(Event::QueryEnded { query: join, successes: 1, failures: 0 });
    assert!(find(&rig, members).is_some(), "{}", rig.words());
}

#[test]
fn nobody_reachable_overrides_back_offs_and_then_gets_slower() {
    let mut rig = Rig::quiet(desktop());
    rig.tell(Event::StoreLoaded {
        peers: vec![StoredPeer {
            relay: false,
            record: 0,
            peer: peer(1),
            pinned: false,
            blocked: false,
            addresses: vec![StoredAddress { address: global(1), source: Source::Store, proven: true, last_success: 0 }],
        }],
        nat: None,
        last: true,
    });
    let start = rig.now;
    let mut tries = vec![];
    while rig.now < start + secs(1_200) {
        if !rig.dials().is_empty() {
            tries.push((rig.now - start).as_secs());
            fail_all(&mut rig, &DialError::Unreachable);
            rig.take();
        }
        rig.pass(secs(1));
    }
    let within = |from: u64, to: u64| tries.iter().filter(|at| (from..to).contains(*at)).count();
    assert!(within(10, 40) >= 5, "frequent at first: {tries:?}");
    assert!((15..60).contains(&within(40, 600)), "twice a minute for ten minutes: {tries:?}");
    assert!(within(700, 1_200) <= 8, "seldom after that: {tries:?}");
}

#[test]
fn after_a_long_sleep_connections_are_made_anew() {
    let mut rig = Rig::new(with_pinned(1));
    let connection = rig.dial_succeeds(1);
    rig.identified(connection, 1);
    rig.take();
    rig.now = rig.now + secs(3_600);
    rig.tell(Event::Resumed { asleep: secs(3_590) });
    assert_eq!(rig.closes(), [(connection, Reason::PingsLost)], "silent for an hour");
    rig.tell(Event::Disconnected { connection, peer: peer(1), cause: CloseCause::Ours });
    rig.pass(secs(2));
    assert_eq!(rig.dials().len(), 1);
}

#[test]
fn a_late_wake_does_what_was_missed_once() {
    let mut rig = Rig::new(with_bootstrap(1));
    meets_server(&mut rig, 1);
    rig.pass(secs(5));
    rig.take();
    rig.now = rig.now + secs(8 * 3_600);
    rig.tell(Event::Wake);
    assert!(queries(&rig).len() <= 3, "{}", rig.words());
}

#[test]
fn missing_pinned_peers_are_a_reason_to_act() {
    let mut config = with_bootstrap(1);
    config.pinned = vec![PinnedPeer { peer: peer(2), addresses: vec![] }];
    let mut rig = Rig::new(config);
    meets_server(&mut rig, 1);
    rig.pass(secs(11));
    assert!(rig.notices().contains(&Notice::HealthChanged { health: Health::Partial }));
    let members = queries(&rig).into_iter().find(|(_, query)| *query == Query::Members).unwrap();
    query_ends(&mut rig, members.0, &[]);
    assert!(queries(&rig).iter().any(|(_, query)| *query == Query::Record { peer: peer(2) }), "{}", rig.words());
}

#[test]
fn requests_are_answered() {
    let mut rig = Rig::quiet(with_bootstrap(1));
    let ask = |rig: &mut Rig, n: u64, ask: Ask| {
        rig.take();
        rig.tell(Event::Asked { request: RequestId(n), ask });
    };
    let answer = |rig: &Rig| {
        rig.commands.iter().rev().find_map(|command| match &command.action {
            Action::Answer { answer, .. } => Some(answer.clone()),
            _ => None,
        })
    };
    let connect = |peer, address| Ask::Connect(PeerAddress { peer, address });

    ask(&mut rig, 1, connect(Some(peer(LOCAL)), None));
    assert_eq!(answer(&rig), Some(Err(AskError::OwnIdentity)));
    ask(&mut rig, 2, connect(None, None));
    assert!(matches!(answer(&rig), Some(Err(AskError::Incomplete(_)))));
    ask(&mut rig, 3, connect(None, Some(address("/ip4/0.0.0.0/tcp/1"))));
    assert_eq!(answer(&rig), Some(Err(AskError::UnusableAddress)));
    ask(&mut rig, 4, connect(Some(peer(9)), None));
    assert_eq!(answer(&rig), Some(Err(AskError::NotFound)), "nobody to ask");
    ask(&mut rig, 5, Ask::Forget(peer(77)));
    assert_eq!(answer(&rig), Some(Err(AskError::UnknownPeer)));

    ask(&mut rig, 6, connect(Some(peer(2)), Some(global(2))));
    assert_eq!(answer(&rig), None);
    fail_all(&mut rig, &DialError::ConnectionRefused);
    let Some(Err(AskError::Failed(words))) = answer(&rig) else { panic!("{:?}", answer(&rig)) };
    insta::assert_snapshot!(words, @"/ip4/45.10.2.1/udp/4001/quic-v1: connection refused: nothing listens there");

    ask(&mut rig, 7, connect(None, Some(global(3))));
    let connection = rig.dial_succeeds(3);
    let done = Answer::Connected { peer: peer(3), connection, address: global(3) };
    assert_eq!(answer(&rig), Some(Ok(done.clone())));
    let stored = |rig: &Rig| {
        rig.commands.iter().any(|command| matches!(&command.action, Action::Remember(told) if told.peer == peer(3)))
    };
    assert!(stored(&rig), "manual peers survive a restart");
    ask(&mut rig, 8, connect(Some(peer(3)), None));
    assert_eq!(answer(&rig), Some(Ok(done)));

    ask(&mut rig, 9, connect(Some(peer(4)), Some(global(4))));
    rig.pass(secs(61));
    assert!(matches!(answer(&rig), Some(Err(AskError::Failed(_)))), "the dial had no answer");

    ask(&mut rig, 10, Ask::Block(peer(3)));
    assert_eq!(answer(&rig), Some(Ok(Answer::Done)));
    insta::assert_snapshot!("blocked", rig.words());
    ask(&mut rig, 11, connect(Some(peer(3)), None));
    assert_eq!(answer(&rig), Some(Err(AskError::Blocked)));
    ask(&mut rig, 12, Ask::Allow(peer(3)));
    insta::assert_snapshot!("allowed", rig.words());
}

#[test]
fn a_peer_that_is_asked_for_by_id_alone_is_looked_up() {
    let mut rig = Rig::new(with_bootstrap(1));
    meets_server(&mut rig, 1);
    rig.pass(secs(2));
    for (query, _) in queries(&rig) {
        rig.tell(Event::QueryEnded { query, successes: 1, failures: 0 });
    }
    rig.take();
    rig.tell(Event::Asked {
        request: RequestId(1),
        ask: Ask::Connect(PeerAddress { peer: Some(peer(9)), address: None }),
    });
    let record = queries(&rig)[0].0;
    rig.tell(Event::QueryEnded { query: record, successes: 1, failures: 0 });
    let near_it = queries(&rig)[1].clone();
    assert_eq!(near_it.1, Query::LookUp { near: peer(9) });
    query_ends(&mut rig, near_it.0, &[(9, vec![global(9)])]);
    assert_eq!(rig.dials().last().unwrap().1, Some(peer(9)));
}

#[test]
fn a_taken_port_is_replaced_by_another_one() {
    let mut rig = Rig::new(desktop());
    let command = rig.commands.iter().find(|command| matches!(command.action, Action::Listen { .. })).unwrap().id;
    rig.take();
    rig.tell(Event::ListenFailed { command, error: ListenError::PortTaken });
    insta::assert_snapshot!(rig.words(), @r"
    /ip4/0.0.0.0/tcp/4001 is taken by another program; using another port, because the port is taken
    listen on /ip4/0.0.0.0/tcp/0, because the port is taken
    ");
}

#[test]
fn a_peer_that_connects_and_drops_in_a_loop_is_turned_away_for_a_while() {
    let mut rig = Rig::quiet(desktop());
    for _ in 0..5 {
        let connection = rig.inbound(1, global(1));
        rig.pass(secs(1));
        rig.tell(Event::Disconnected { connection, peer: peer(1), cause: CloseCause::Remote });
    }
    let denied = |rig: &Rig| rig.commands.iter().any(|command| command.action == Action::Deny { peer: peer(1) });
    let admitted = |rig: &Rig| rig.commands.iter().any(|command| command.action == Action::Admit { peer: peer(1) });
    assert!(denied(&rig));
    rig.pass(secs(599));
    assert!(!admitted(&rig));
    rig.pass(secs(2));
    assert!(admitted(&rig), "{}", rig.words());
}

#[test]
fn a_peer_that_starts_a_few_times_in_a_minute_is_no_loop() {
    let mut rig = Rig::quiet(desktop());
    for _ in 0..3 {
        // It comes through a relay, then directly, by both transports, and needs the circuit no more; then it ends.
        let by = [circuit(9), global(1), address("/ip4/45.10.1.1/tcp/4001")];
        for connection in by.map(|address| rig.inbound(1, address)) {
            rig.pass(secs(2));
            rig.tell(Event::Disconnected { connection, peer: peer(1), cause: CloseCause::Remote });
        }
    }
    assert!(!rig.commands.iter().any(|command| command.action == Action::Deny { peer: peer(1) }), "{}", rig.words());
}

#[test]
fn a_flood_of_addresses_is_cut_and_said_once() {
    let mut rig = Rig::quiet(desktop());
    for n in 0..200 {
        let many: Vec<_> = (0..32).map(|m| address(&format!("/ip4/45.{n}.{m}.1/tcp/4001"))).collect();
        rig.tell(Event::Found { source: Source::Kademlia, peer: peer(1), addresses: many, cut: 968 });
    }
    assert_eq!(rig.view(1).unwrap().addresses.len(), 4);
    insta::assert_snapshot!(rig.words(), @r"
    #1 discovered, because it was found in the distributed hash table
    #1 not believed, because too many addresses were told, 996 are ignored
    ");
}

#[test]
fn a_peer_of_another_network_is_left_alone() {
    let mut rig = Rig::quiet(desktop());
    rig.found(Source::Mdns, 1, &[near(1)]);
    let connection = rig.dial_succeeds(1);
    let other = Identity { protocol_version: "ipfs/0.1.0".into(), agent: "kubo".into(), ..Identity::default() };
    rig.identified_as(connection, 1, other);
    assert_eq!(rig.closes(), [(connection, Reason::OtherNetwork)]);
    rig.tell(Event::Disconnected { connection, peer: peer(1), cause: CloseCause::Ours });
    rig.take();
    rig.pass(secs(1_800));
    assert_eq!(rig.dials(), []);
}

#[test]
fn an_address_that_leads_to_somebody_else_is_dropped() {
    let mut rig = Rig::quiet(desktop());
    rig.found(Source::Mdns, 1, &[near(1)]);
    fail_all(&mut rig, &DialError::WrongPeer(peer(2)));
    assert_eq!(rig.view(1).unwrap().addresses, []);
    assert!(rig.words().contains("is at that address"));
}

#[test]
fn four_independent_observers_make_an_address_worth_telling() {
    let mut rig = Rig::new(desktop());
    rig.listening("/ip4/192.168.1.2/udp/4001/quic-v1");
    rig.take();
    let seen = address("/ip4/91.1.1.1/udp/4001/quic-v1");
    let observe = |rig: &mut Rig, n: u64, from: kinfolk_core::Address| {
        let connection = rig.inbound(n, from);
        rig.identified_as(connection, n, Identity { observed: Some(seen.clone()), ..kinfolk() });
    };
    observe(&mut rig, 1, near(1));
    for n in [1, 2, 3] {
        observe(&mut rig, n + 10, global(n));
        observe(&mut rig, n + 20, global(n));
    }
    let node = rig.node.view().unwrap().node();
    assert_eq!((node.advertised.len(), node.candidates.len()), (0, 1), "three networks are not four");
    observe(&mut rig, 14, global(4));
    assert_eq!(rig.node.view().unwrap().node().advertised, [&seen]);
    rig.pass(secs(2_401));
    assert!(rig.commands.iter().any(|command| command.action == Action::Withdraw { address: seen.clone() }));
}

#[test]
fn visitors_from_two_networks_make_the_node_serve_the_hash_table_and_only_after_a_while() {
    let mut rig = Rig::new(desktop());
    assert!(rig.commands.iter().any(|command| command.action == Action::SetKademliaServer { server: false }));
    rig.inbound(1, global(1));
    rig.inbound(2, global(1));
    rig.pass(secs(20));
    assert_eq!(rig.node.view().unwrap().node().reachability, Reachability::Unknown);
    rig.inbound(3, global(3));
    assert_eq!(rig.node.view().unwrap().node().reachability, Reachability::Unknown);
    rig.pass(secs(16));
    assert_eq!(rig.node.view().unwrap().node().reachability, Reachability::Public);
    assert!(rig.commands.iter().any(|command| command.action == Action::SetKademliaServer { server: true }));
}

#[test]
fn a_server_serves_from_the_start() {
    let rig = Rig::new(Config::of(Role::Server));
    assert!(rig.commands.iter().any(|command| command.action == Action::SetKademliaServer { server: true }));
}

#[test]
fn look_ups_dial_within_a_third_of_the_slots_and_what_waits_too_long_is_refused() {
    let mut rig = Rig::quiet(desktop());
    for n in 1..=20 {
        let asker = kinfolk_core::Asker::Kademlia;
        rig.tell(Event::DialHeld { held: HeldId(n), asker, peer: Some(peer(n)) });
    }
    let count = |rig: &Rig, release: bool| {
        let wanted = |action: &Action| match action {
            Action::Release { .. } => release,
            Action::Refuse { .. } => !release,
            _ => false,
        };
        rig.commands.iter().filter(|command| wanted(&command.action)).count()
    };
    assert_eq!((count(&rig, true), count(&rig, false)), (5, 0));
    rig.tell(Event::HeldFailed { held: HeldId(1), error: DialError::TimedOut });
    assert_eq!(count(&rig, true), 6);
    rig.pass(secs(9));
    assert_eq!((count(&rig, true), count(&rig, false)), (6, 14));
}

#[test]
fn what_a_user_took_back_is_not_dialled() {
    let mut rig = Rig::quiet(desktop());
    rig.tell(Event::Asked { request: RequestId(1), ask: Ask::Pin(PeerAddress::new(peer(1), global(1))) });
    let connection = rig.dial_succeeds(1);
    rig.take();
    rig.tell(Event::Asked { request: RequestId(2), ask: Ask::Disconnect(peer(1)) });
    assert_eq!(rig.closes(), [(connection, Reason::Asked)]);
    rig.tell(Event::Disconnected { connection, peer: peer(1), cause: CloseCause::Ours });
    rig.pass(secs(600));
    assert_eq!(rig.dials(), []);
    rig.tell(Event::Asked { request: RequestId(3), ask: Ask::Forget(peer(1)) });
    assert!(rig.commands.iter().any(|command| command.action == Action::Forget { peer: peer(1) }));
    rig.pass(secs(7_200 + 600));
    assert_eq!(rig.state(1), State::Expired);
}

#[test]
fn the_full_table_drops_whom_nobody_wants() {
    let mut config = with_pinned(1);
    config.lifecycle.max_peers = 16;
    let mut rig = Rig::new(config);
    for n in 2..60 {
        rig.found(Source::Kademlia, n, &[global(n)]);
    }
    assert_eq!(rig.node.view().unwrap().node().peers, 16);
    assert!(rig.view(1).is_some() && rig.view(59).is_some());
}

#[test]
fn a_dial_that_arrives_after_its_time_out_is_a_connection() {
    let mut rig = Rig::new(with_pinned(1));
    let (dial, ..) = rig.dials()[0];
    rig.pass(secs(61));
    assert_eq!(rig.state(1), State::Discovered);
    let connection = rig.connected(1, Direction::Outbound, global(1), Origin::Dial(dial));
    rig.identified(connection, 1);
    assert_eq!(rig.state(1), State::Identified);
}
