//! One peer, one dial; and strangers who have no room for us, or of whom there are too many, are left alone.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "tests")]

mod common;

use common::*;
use kinfolk_core::{
    Action, Address, Ask, Asker, CloseCause, CommandId, Config, ConnectionId, DialError, Direction, Event, HeldId,
    Origin, PeerAddress, Query, Reason, RequestId, Role, Source, view::State,
};

fn with_bootstrap(n: u64) -> Config {
    Config { bootstrap: vec![PeerAddress::new(peer(n), global(n))], mdns: false, ..Config::desktop() }
}

fn dials_to(rig: &Rig, n: u64) -> usize {
    let at = |addresses: &[kinfolk_core::Address]| addresses.iter().any(|address| *address == global(n));
    rig.dials().iter().filter(|(_, to, addresses)| *to == Some(peer(n)) || at(addresses)).count()
}

#[test]
fn a_bootstrap_peer_that_is_wanted_otherwise_too_is_dialled_once() {
    // Whether the target's dial is first, or the peer's own.
    for target_first in [true, false] {
        let mut config = with_bootstrap(1);
        if !target_first {
            config.bootstrap.clear();
        }
        let mut rig = Rig::new(config);
        let pin = |rig: &mut Rig| {
            rig.tell(Event::Asked { request: RequestId(1), ask: Ask::Pin(PeerAddress::new(peer(1), global(1))) });
        };
        if target_first {
            pin(&mut rig);
        } else {
            pin(&mut rig);
            let ask = Ask::AddBootstrap(PeerAddress::new(peer(1), global(1)));
            rig.tell(Event::Asked { request: RequestId(2), ask });
        }
        rig.pass(secs(8));
        assert_eq!(dials_to(&rig, 1), 1, "the target's first: {target_first}");

        // Whoever dials, from now on each try is one dial.
        for _ in 0..20 {
            for (dial, ..) in rig.dials() {
                rig.tell(Event::DialFailed { dial, failures: vec![], error: DialError::TimedOut });
            }
            rig.take();
            rig.pass(secs(3));
            assert!(dials_to(&rig, 1) <= 1, "two dials to one peer at {}", rig.now);
        }
    }
}

#[test]
fn a_bootstrap_peer_that_came_and_went_while_there_was_no_slot_is_dialled_once() {
    let mut config = with_bootstrap(1);
    config.lifecycle.dial_slots = 8;
    let mut rig = Rig::new(config);
    rig.dial_succeeds(1);
    rig.take();
    // Half of the slots are for those who are missed.
    for n in 10..14 {
        rig.found(Source::Mdns, n, &[near(n)]);
    }
    assert_eq!(rig.dials().len(), 4);
    let came = rig.node.view().unwrap().peer(&peer(1)).unwrap().connections[0].connection;
    rig.tell(Event::Disconnected { connection: came, peer: peer(1), cause: CloseCause::Remote });
    rig.pass(secs(3));
    let again = rig.connected(1, Direction::Inbound, global(1), Origin::Inbound);
    rig.tell(Event::Disconnected { connection: again, peer: peer(1), cause: CloseCause::Remote });
    rig.pass(secs(4));
    assert_eq!(dials_to(&rig, 1), 0);
    for (dial, ..) in rig.dials() {
        rig.tell(Event::DialFailed { dial, failures: vec![], error: DialError::TimedOut });
    }
    assert_eq!(dials_to(&rig, 1), 1);
}

#[test]
fn a_bootstrap_peer_is_also_dialled_where_it_once_was() {
    let mut config = with_bootstrap(1);
    config.bootstrap = vec![PeerAddress::new(peer(1), address("/dns4/server.example/tcp/4001"))];
    let mut rig = Rig::new(config);
    let connection = rig.dial_succeeds(1);
    rig.identified_as(connection, 1, server_at(1));
    rig.take();
    rig.tell(Event::Asked { request: RequestId(1), ask: Ask::Connect(PeerAddress::new(peer(1), global(1))) });
    rig.live(secs(90));
    rig.take();
    rig.tell(Event::Disconnected { connection, peer: peer(1), cause: CloseCause::Remote });
    rig.pass(secs(2));
    let dials = rig.dials();
    assert_eq!(dials.len(), 1, "{dials:?}");
    assert!(dials[0].2.contains(&global(1)) && dials[0].2.len() == 2, "{dials:?}");
}

/// The dials to bootstrap peers that wait are answered: who was dialled, and who is there.
fn answered(rig: &mut Rig, alive: impl Fn(u64) -> bool) -> (Vec<u64>, Vec<u64>) {
    let dials = rig.dials();
    rig.take();
    let (mut dialled, mut up) = (vec![], vec![]);
    for (dial, to, at) in dials {
        let n = number(&to.unwrap());
        dialled.push(n);
        if alive(n) {
            let connection = rig.connected(n, Direction::Outbound, at[0].clone(), Origin::Dial(dial));
            rig.identified(connection, n);
            up.push(n);
        } else {
            rig.tell(Event::DialFailed { dial, failures: vec![], error: DialError::TimedOut });
        }
    }
    (dialled, up)
}

fn with_twenty(at: impl Fn(u64) -> Address) -> Config {
    let bootstrap = (1..=20).map(|n| PeerAddress::new(peer(n), at(n))).collect();
    Config { bootstrap, mdns: false, ..Config::desktop() }
}

#[test]
fn of_twenty_bootstrap_peers_a_few_are_kept_up() {
    let mut rig = Rig::new(with_twenty(global));
    let first = rig.dials().len();
    assert!((3..=6).contains(&first), "{first} dialled at once");
    let (mut dialled, mut up) = (vec![], vec![]);
    for _ in 0..60 {
        let (to, there) = answered(&mut rig, |n| n % 6 == 0);
        dialled.extend(to);
        up.extend(there);
        rig.live(secs(1));
    }
    up.sort_unstable();
    assert_eq!(up, [6, 12, 18], "the dead ones keep nobody waiting");
    let mut first = dialled[..20].to_vec();
    first.sort_unstable();
    assert_eq!(first, Vec::from_iter(1..=20), "nobody again as long as others were not tried: {dialled:?}");
    rig.live(secs(600));
    assert_eq!(rig.dials(), []);

    // As those that are there go, others are tried.
    for n in up {
        let connection = rig.view(n).unwrap().connections[0].connection;
        rig.tell(Event::Disconnected { connection, peer: peer(n), cause: CloseCause::Remote });
    }
    rig.pass(secs(5));
    assert!(rig.dials().len() >= 3, "{:?}", rig.dials());
}

#[test]
fn servers_keep_up_all_bootstrap_peers() {
    let mut rig = Rig::new(Config { role: Role::Server, ..with_twenty(global) });
    let mut up = vec![];
    for _ in 0..10 {
        up.extend(answered(&mut rig, |_| true).1);
        rig.live(secs(1));
    }
    assert_eq!(up.len(), 20);
}

#[test]
fn twenty_bootstrap_peers_that_cant_be_dialled_from_here_are_looked_at_now_and_then() {
    let mut rig = Rig::new(with_twenty(|n| address(&format!("/ip6/2a01:4f8::{n:x}/tcp/4001"))));
    rig.pass(secs(60));
    assert_eq!(rig.dials(), []);
}

/// A node that has found so many members in the hash table.
fn among(members: u64) -> Rig {
    let mut rig = Rig::new(with_bootstrap(1));
    let server = rig.dial_succeeds(1);
    rig.identified_as(server, 1, server_at(1));
    rig.tell(Event::Routed { peer: peer(1), present: true });
    let query = rig.last(|action| matches!(action, Action::Query(Query::Members)).then_some(())).unwrap().0;
    let peers = (100..100 + members).map(|n| (peer(n), vec![global(n)])).collect();
    rig.tell(Event::QueryFound { query, peers, cut: 0, record: None });
    rig.tell(Event::QueryEnded { query, successes: 1, failures: 0 });
    rig
}

/// Every dial to a member succeeds; returns the connections made.
fn all_succeed(rig: &mut Rig) -> Vec<(ConnectionId, u64)> {
    let dials: Vec<(CommandId, u64, kinfolk_core::Address)> =
        rig.dials().into_iter().filter_map(|(dial, to, at)| Some((dial, number(&to?), at[0].clone()))).collect();
    rig.take();
    let members = dials.into_iter().filter(|(_, n, _)| *n >= 100);
    members.map(|(dial, n, at)| (rig.connected(n, Direction::Outbound, at, Origin::Dial(dial)), n)).collect()
}

#[test]
fn of_a_thousand_members_a_few_are_enough() {
    let mut rig = among(300);
    let mut connections = 0;
    for _ in 0..600 {
        for (connection, n) in all_succeed(&mut rig) {
            rig.identified(connection, n);
            connections += 1;
        }
        rig.live(secs(1));
    }
    let low_water = Config::desktop().lifecycle.low_water;
    // One of them is the server; some dials were under way when it was enough.
    assert!((7..=low_water / 2).contains(&connections), "{connections} members dialled");
}

/// How often the hash table is asked for members and their records in an hour, when it answers with the same ones each time.
fn asked_in_an_hour(rig: &mut Rig, members: u64) -> usize {
    let mut asked = 0;
    for _ in 0..360 {
        all_succeed(rig).into_iter().for_each(|(connection, n)| rig.identified(connection, n));
        rig.live(secs(10));
        let open = rig.commands.iter().filter_map(|command| match command.action {
            Action::Query(Query::Members) => Some((command.id, true)),
            Action::Query(Query::Record { .. }) => Some((command.id, false)),
            _ => None,
        });
        for (query, all) in open.collect::<Vec<_>>() {
            asked += 1;
            let peers = (100..100 + members).filter(|_| all).map(|n| (peer(n), vec![global(n)])).collect();
            rig.tell(Event::QueryFound { query, peers, cut: 0, record: None });
            rig.tell(Event::QueryEnded { query, successes: 1, failures: 0 });
        }
    }
    asked
}

#[test]
fn in_a_crowd_nobody_is_looked_for_who_would_not_be_dialled() {
    let mut rig = among(300);
    let asked = asked_in_an_hour(&mut rig, 300);
    assert!(asked <= 20, "asked {asked} times");

    // In a family everybody is wanted, who is not there too.
    let mut rig = among(4);
    for (dial, ..) in rig.dials().into_iter().filter(|(_, to, _)| *to == Some(peer(100))) {
        rig.tell(Event::DialFailed {
            dial,
            failures: vec![(global(100), DialError::TimedOut)],
            error: DialError::TimedOut,
        });
    }
    let asked = asked_in_an_hour(&mut rig, 4);
    assert!(asked >= 12, "asked {asked} times");
}

/// How often members are asked for in an hour in which each answer names one more who is not there.
fn asked_for_members(one_is_here: bool) -> usize {
    let mut rig = among(2);
    let (mut asked, mut named) = (0, 2);
    for _ in 0..3_600 {
        for (dial, to, at) in rig.dials() {
            let here = to.filter(|to| one_is_here && number(to) == 100);
            if let Some(to) = here {
                let connection = rig.connected(number(&to), Direction::Outbound, at[0].clone(), Origin::Dial(dial));
                rig.identified(connection, number(&to));
            } else {
                let failures = at.into_iter().map(|at| (at, DialError::TimedOut)).collect();
                rig.tell(Event::DialFailed { dial, failures, error: DialError::TimedOut });
            }
        }
        let members = |action: &Action| matches!(action, Action::Query(Query::Members));
        let open: Vec<CommandId> =
            rig.commands.iter().filter(|command| members(&command.action)).map(|command| command.id).collect();
        rig.take();
        for query in open {
            (asked, named) = (asked + 1, named + 1);
            let peers = (100..100 + named).map(|n| (peer(n), vec![global(n)])).collect();
            rig.tell(Event::QueryFound { query, peers, cut: 0, record: None });
            rig.tell(Event::QueryEnded { query, successes: 1, failures: 0 });
        }
        rig.live(secs(1));
    }
    asked
}

#[test]
fn who_has_one_of_the_others_asks_less_and_less_often_for_more() {
    let asked = asked_for_members(true);
    assert!((12..=24).contains(&asked), "asked {asked} times with a member here");
    let asked = asked_for_members(false);
    assert!(asked >= 60, "asked {asked} times with nobody here");
}

#[test]
fn of_many_who_wait_for_room_few_are_looked_at() {
    let mut rig = among(900);
    for _ in 0..60 {
        all_succeed(&mut rig).into_iter().for_each(|(connection, n)| rig.identified(connection, n));
        rig.live(secs(1));
    }
    let mut wakes = 0;
    let until = rig.now + secs(60);
    while let Some(deadline) = rig.node.next_deadline().filter(|deadline| deadline.at < until) {
        rig.now = deadline.at;
        rig.tell(Event::Wake);
        wakes += 1;
    }
    assert!(wakes < 120, "woken {wakes} times in a minute");
}

#[test]
fn a_look_up_does_not_dial_who_is_known_not_to_serve_the_hash_table() {
    let mut rig = Rig::quiet(Config::desktop());
    for (n, identity) in [(2, kinfolk()), (3, server_at(3))] {
        let connection = rig.inbound(n, global(n));
        rig.identified_as(connection, n, identity);
        rig.tell(Event::Disconnected { connection, peer: peer(n), cause: CloseCause::Remote });
    }
    let mut held = 0;
    let mut may = |rig: &mut Rig, n: u64| {
        held += 1;
        rig.take();
        let (held, asker) = (HeldId(held), Asker::Kademlia);
        rig.tell(Event::DialHeld { held, asker, peer: Some(peer(n)) });
        let no = rig.commands.iter().find(|command| matches!(command.action, Action::Refuse { .. }));
        let no = no.map(|command| command.reason.clone());
        rig.tell(Event::HeldFailed { held, error: DialError::TimedOut });
        no
    };
    assert_eq!(may(&mut rig, 2), Some(Reason::NoServer));
    assert_eq!(may(&mut rig, 3), None);
    assert_eq!(may(&mut rig, 4), None, "nothing is known of it");
    // By now it may serve it.
    rig.pass(secs(3_601));
    assert_eq!(may(&mut rig, 2), None);
}

#[test]
fn whoever_turns_us_away_is_left_alone_for_longer_and_longer() {
    let mut rig = among(1);
    let mut waits = vec![];
    for _ in 0..6 {
        let begun = rig.now;
        rig.live_until(secs(5_000), |rig| dials_to(rig, 100) > 0);
        waits.push(rig.now.since(begun).as_secs());
        let (connection, n) = all_succeed(&mut rig)[0];
        rig.identified(connection, n);
        rig.live(secs(70));
        rig.tell(Event::Disconnected { connection, peer: peer(n), cause: CloseCause::Remote });
        // What is said of it again is no news.
        rig.found(Source::Kademlia, 100, &[global(100), global(400 + waits.len() as u64)]);
        assert_eq!(rig.state(100), State::Disconnected);
        rig.take();
    }
    assert!((48..=75).contains(&waits[1]) && (700..=1_200).contains(&waits[5]), "{waits:?}");
    assert!(waits.is_sorted(), "{waits:?}");
}

#[test]
fn a_pinned_peer_that_closes_is_dialled_again_at_once() {
    let mut rig = Rig::quiet(Config { mdns: false, ..Config::desktop() });
    rig.tell(Event::Asked { request: RequestId(1), ask: Ask::Pin(PeerAddress::new(peer(1), global(1))) });
    let connection = rig.dial_succeeds(1);
    rig.live(secs(70));
    rig.take();
    rig.tell(Event::Disconnected { connection, peer: peer(1), cause: CloseCause::Remote });
    rig.pass(secs(2));
    assert_eq!(dials_to(&rig, 1), 1);
}
