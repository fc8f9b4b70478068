//! Sequences that a review found to break something. Each is named by what went wrong, and was red before it was mended.
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "tests")]

mod common;
use common::*;
use kinfolk_core::view::State;
use kinfolk_core::*;
use std::time::Duration;

fn ask(rig: &mut Rig, n: u64, ask: Ask) {
    rig.tell(Event::Asked { request: RequestId(n), ask });
}
fn answers(rig: &Rig) -> Vec<Result<Answer, AskError>> {
    rig.commands
        .iter()
        .filter_map(|c| match &c.action {
            Action::Answer { answer, .. } => Some(answer.clone()),
            _ => None,
        })
        .collect()
}
fn fail(rig: &mut Rig, error: DialError) {
    for (dial, _, addresses) in rig.dials() {
        let failures = addresses.into_iter().map(|a| (a, error.clone())).collect();
        rig.tell(Event::DialFailed { dial, failures, error: error.clone() });
    }
}
fn drop_conn(rig: &mut Rig, c: ConnectionId, n: u64) {
    rig.tell(Event::Disconnected { connection: c, peer: peer(n), cause: CloseCause::Remote });
}
fn boot(list: &[u64]) -> Config {
    Config { bootstrap: list.iter().map(|n| PeerAddress::new(peer(*n), global(*n))).collect(), ..Config::desktop() }
}
fn queries(rig: &Rig) -> Vec<(CommandId, Query)> {
    rig.commands
        .iter()
        .filter_map(|c| match &c.action {
            Action::Query(q) => Some((c.id, q.clone())),
            _ => None,
        })
        .collect()
}
fn meets_server(rig: &mut Rig, n: u64) -> ConnectionId {
    let c = rig.dial_succeeds(n);
    rig.identified_as(c, n, server_at(n));
    rig.tell(Event::Routed { peer: peer(n), present: true });
    c
}

#[test]
fn ping_overflow() {
    let mut rig = Rig::quiet(Config::desktop());
    let c = rig.inbound(1, near(1));
    for _ in 0..300 {
        rig.tell(Event::Pinged { connection: c, peer: peer(1), result: Err(PingError::TimedOut) });
    }
}

#[test]
fn bootstrap_that_drops_is_stormed() {
    let mut rig = Rig::new(boot(&[1]));
    let start = rig.now;
    let mut dials = 0;
    while rig.now < start + secs(600) {
        if !rig.dials().is_empty() {
            dials += 1;
            let c = rig.dial_succeeds(1);
            rig.take();
            drop_conn(&mut rig, c, 1);
            rig.take();
        }
        rig.pass(Duration::from_millis(100));
    }
    assert!(dials < 100, "{dials} dials in 10 minutes");
}

#[test]
fn pinned_that_drops_backoff_never_grows_too() {
    let mut config = Config::desktop();
    config.pinned = vec![PinnedPeer { peer: peer(1), addresses: vec![global(1)] }];
    let mut rig = Rig::new(config);
    let start = rig.now;
    let mut dials = vec![];
    while rig.now < start + secs(3600) {
        if !rig.dials().is_empty() {
            dials.push((rig.now - start).as_secs());
            let c = rig.dial_succeeds(1);
            rig.take();
            drop_conn(&mut rig, c, 1);
            rig.take();
        }
        rig.pass(Duration::from_millis(200));
    }
    assert!(dials.len() < 120, "{} dials in 1 h", dials.len());
}

#[test]
fn full_table_with_64_connections_refuses_newcomers() {
    let mut config = Config::server();
    config.lifecycle.max_peers = 300;
    let mut rig = Rig::quiet(config);
    for n in 1..=80 {
        let c = rig.inbound(n, global(n));
        rig.identified(c, n);
    }
    for n in 1000..1400 {
        rig.found(Source::Kademlia, n, &[global(n)]);
    }
    rig.take();
    rig.inbound(400, global(400));
    assert_eq!(rig.closes(), [], "a newcomer is turned away while 220 never-met peers fill the table");
}

#[test]
fn gossip_pushes_out_a_near_peer() {
    let mut config = Config::desktop();
    config.lifecycle.max_peers = 16;
    let mut rig = Rig::quiet(config);
    let other = rig.inbound(9, near(9));
    rig.identified(other, 9);
    rig.found(Source::Mdns, 1, &[near(1)]);
    fail(&mut rig, DialError::ConnectionRefused);
    for n in 1000..1030 {
        rig.found(Source::Kademlia, n, &[global(n)]);
    }
    assert!(rig.view(1).is_some(), "the near peer is forgotten for gossip");
}

#[test]
fn stays_above_high_water() {
    let mut config = Config::desktop();
    config.lifecycle.low_water = 3;
    config.lifecycle.high_water = 5;
    let mut rig = Rig::quiet(config);
    let cs: Vec<_> = (1..=12)
        .map(|n| {
            let c = rig.inbound(n, global(n));
            rig.identified(c, n);
            (c, n)
        })
        .collect();
    for _ in 0..240 {
        rig.pass(secs(15));
        for (c, n) in &cs {
            rig.pong(*c, *n);
        }
    }
    assert!(
        rig.node.view().unwrap().node().connected <= 5,
        "{} connected after an hour",
        rig.node.view().unwrap().node().connected
    );
}

#[test]
fn unbounded_connections_of_one_peer() {
    let mut rig = Rig::quiet(Config::desktop());
    let n = LOCAL - 1;
    let cs: Vec<_> = (0..500).map(|_| rig.inbound(n, near(1))).collect();
    rig.identified(cs[0], n);
    for _ in 0..40 {
        rig.pass(secs(15));
        for c in &cs {
            rig.pong(*c, n);
        }
    }
    assert!(
        rig.view(n).unwrap().connections.len() <= 8,
        "{} connections of one peer",
        rig.view(n).unwrap().connections.len()
    );
}

#[test]
fn dead_bootstraps_starve_the_home_network() {
    let mut rig = Rig::new(boot(&(1..=20).collect::<Vec<_>>()));
    rig.pass(secs(5));
    rig.take();
    rig.found(Source::Mdns, 30, &[near(1)]);
    let start = rig.now;
    // dials take 20 s to time out in the shell
    while rig.now < start + secs(1200) {
        for (_, to, _) in rig.dials() {
            if to == Some(peer(30)) {
                if rig.now - start > secs(120) {
                    panic!("dialled after {:?}", rig.now - start)
                }
                return;
            }
        }
        rig.take();
        rig.pass(secs(1));
    }
    panic!("never dialled in 20 min");
}

#[test]
fn pinned_is_forgotten_after_address_ttl() {
    let mut rig = Rig::quiet(Config::desktop());
    rig.tell(Event::StoreLoaded {
        peers: vec![StoredPeer {
            relay: false,
            record: 0,
            peer: peer(1),
            pinned: true,
            blocked: false,
            addresses: vec![StoredAddress { address: global(1), source: Source::Store, proven: true, last_success: 0 }],
        }],
        nat: None,
        last: true,
    });
    for _ in 0..100 {
        fail(&mut rig, DialError::TimedOut);
        rig.take();
        rig.pass(secs(100));
    }
    rig.take();
    rig.pass(secs(3600));
    assert!(!rig.dials().is_empty(), "the pinned peer is never dialled again: {:?}", rig.view(1).unwrap().addresses);
}

#[test]
fn the_address_of_a_standing_connection_expires_too() {
    let mut rig = Rig::quiet(Config::desktop());
    rig.tell(Event::StoreLoaded {
        peers: vec![StoredPeer {
            relay: false,
            record: 0,
            peer: peer(1),
            pinned: true,
            blocked: false,
            addresses: vec![StoredAddress { address: global(1), source: Source::Store, proven: true, last_success: 0 }],
        }],
        nat: None,
        last: true,
    });
    let c = rig.dial_succeeds(1);
    rig.identified(c, 1);
    for _ in 0..(3 * 240) {
        rig.pass(secs(15));
        rig.pong(c, 1);
        if rig.now.as_secs() % 300 < 15 {
            rig.identified(c, 1);
        }
    }
    rig.take();
    drop_conn(&mut rig, c, 1);
    rig.pass(secs(3600));
    assert!(!rig.dials().is_empty(), "after 3 h of connection nothing is left to dial");
}

#[test]
fn isolation_tries_the_same_32_for_ever() {
    let mut rig = Rig::quiet(Config::desktop());
    for n in 1..=40 {
        rig.found(Source::Kademlia, n, &[global(n)]);
    }
    let start = rig.now;
    let mut tried = std::collections::BTreeSet::new();
    while rig.now < start + secs(3600) {
        for (_, to, _) in rig.dials() {
            tried.insert(to.unwrap());
        }
        fail(&mut rig, DialError::Unreachable);
        rig.take();
        rig.pass(secs(1));
    }
    assert_eq!(tried.len(), 40, "peers tried in an hour of isolation");
}

#[test]
fn address_change_during_publish_or_join_is_lost() {
    let mut rig = Rig::new(boot(&[1]));
    let listen = rig.commands.iter().find(|c| matches!(c.action, Action::Listen { .. })).unwrap().id;
    rig.tell(Event::Listening {
        listener: ListenerId(1),
        command: listen,
        address: address("/ip4/45.90.90.90/tcp/4001"),
    });
    meets_server(&mut rig, 1);
    rig.pass(secs(2));
    let publish = queries(&rig).into_iter().find(|(_, q)| matches!(q, Query::Publish { .. })).unwrap().0;
    for (q, _) in queries(&rig) {
        if q != publish {
            rig.tell(Event::QueryEnded { query: q, successes: 1, failures: 0 });
        }
    }
    rig.take();
    rig.tell(Event::QueryEnded { query: publish, successes: 1, failures: 0 });
    let join = queries(&rig).into_iter().find(|(_, q)| *q == Query::Join).unwrap().0;
    // The address changes while the membership is announced.
    rig.tell(Event::ListenAddressGone { listener: ListenerId(1), address: address("/ip4/45.90.90.90/tcp/4001") });
    rig.tell(Event::Listening {
        listener: ListenerId(1),
        command: listen,
        address: address("/ip4/45.91.91.91/tcp/4001"),
    });
    rig.pass(secs(2));
    rig.tell(Event::QueryEnded { query: join, successes: 1, failures: 0 });
    rig.take();
    let start = rig.now;
    while rig.now < start + secs(3600) {
        for (q, kind) in queries(&rig) {
            if let Query::Publish { addresses } = kind {
                let after = (rig.now - start).as_secs();
                assert!(after < 100, "published after {after} s: {addresses:?}");
                return;
            }
            rig.tell(Event::QueryEnded { query: q, successes: 1, failures: 0 });
        }
        rig.take();
        rig.pass(secs(1));
    }
    panic!("never");
}

#[test]
fn bogus_members_starve_publishing() {
    let mut rig = Rig::new(boot(&[1]));
    let listen = rig.commands.iter().find(|c| matches!(c.action, Action::Listen { .. })).unwrap().id;
    let own = address("/ip4/45.90.90.90/tcp/4001");
    rig.tell(Event::Listening { listener: ListenerId(1), command: listen, address: own });
    let c = meets_server(&mut rig, 1);
    let start = rig.now;
    let mut open: Vec<(Time, CommandId, Query)> = vec![];
    let mut publishes = vec![];
    let mut refreshes = 0;
    let mut records = 0;
    while rig.now < start + secs(4 * 3600) {
        for (q, kind) in queries(&rig) {
            let t = (rig.now - start).as_secs();
            if matches!(kind, Query::Publish { .. }) {
                publishes.push(t);
            }
            if matches!(kind, Query::LookUp { .. }) {
                refreshes += 1;
            }
            if matches!(kind, Query::Record { .. }) {
                records += 1;
            }
            // a look for a record that does not exist takes its time
            let takes = if matches!(kind, Query::Record { .. }) { 59 } else { 3 };
            open.push((rig.now + secs(takes), q, kind));
        }
        rig.take();
        let now = rig.now;
        let (due, rest): (Vec<_>, Vec<_>) = open.into_iter().partition(|(at, _, _)| *at <= now);
        open = rest;
        for (_, q, kind) in due {
            if kind == Query::Members {
                for chunk in 0..8u64 {
                    let peers = (0..32).map(|n| (peer(10_000 + chunk * 32 + n), vec![])).collect();
                    rig.tell(Event::QueryFound { query: q, peers, cut: 0, record: None });
                }
            }
            rig.tell(Event::QueryEnded { query: q, successes: 1, failures: 0 });
        }
        rig.pong(c, 1);
        rig.pass(secs(1));
    }
    let _gaps: Vec<u64> = publishes.windows(2).map(|w| w[1] - w[0]).collect();
    assert!(publishes.len() >= 7, "published at {publishes:?}, {records} records asked, {refreshes} refreshes");
}

#[test]
fn disconnect_of_a_bootstrap_peer_lasts_a_second() {
    let mut rig = Rig::new(boot(&[1]));
    let c = rig.dial_succeeds(1);
    rig.identified(c, 1);
    rig.take();
    ask(&mut rig, 1, Ask::Disconnect(peer(1)));
    rig.tell(Event::Disconnected { connection: c, peer: peer(1), cause: CloseCause::Ours });
    rig.pass(secs(5));
    assert_eq!(rig.dials().len(), 0, "dialled again though the user disconnected it");
}

#[test]
fn disconnect_while_dialling_too() {
    let mut rig = Rig::quiet(Config::desktop());
    rig.found(Source::Mdns, 1, &[near(1)]);
    ask(&mut rig, 1, Ask::Disconnect(peer(1)));
    let _c = rig.dial_succeeds(1);
    assert_eq!(rig.closes().len(), 1, "stays connected though the user disconnected it");
}

#[test]
fn nameless_target_leaks_kept_peers() {
    let mut config = Config::desktop();
    config.lifecycle.max_peers = 16;
    config.bootstrap = vec![PeerAddress { peer: None, address: Some(address("/dns4/node.example/tcp/4001")) }];
    let mut rig = Rig::new(config);
    for n in 1..=16 {
        while !rig.dials().iter().any(|dial| dial.1.is_none()) {
            rig.pass(secs(1));
        }
        let c = rig.dial_succeeds(n);
        rig.take();
        drop_conn(&mut rig, c, n);
    }
    rig.pass(secs(3 * 3600));
    rig.take();
    rig.inbound(100, near(1));
    assert_eq!(rig.closes(), [], "the table is full of former bootstrap peers");
}

#[test]
fn a_failure_of_another_dial_answers_the_users_request() {
    let mut rig = Rig::quiet(Config::desktop());
    rig.found(Source::Mdns, 1, &[near(1)]);
    let (dial, _, _addresses) = rig.dials()[0].clone();
    ask(&mut rig, 1, Ask::Connect(PeerAddress::new(peer(1), global(1))));
    rig.tell(Event::DialFailed {
        dial,
        failures: vec![(near(1), DialError::ConnectionRefused)],
        error: DialError::ConnectionRefused,
    });
    assert_eq!(answers(&rig), [], "told of a failure before the address that was named is tried");
}

#[test]
fn black_hole_although_quic_works() {
    let mut rig = Rig::quiet(Config::desktop());
    // A QUIC connection over the internet stands all the time.
    let works = rig.connected(9, Direction::Inbound, global(9), Origin::Inbound);
    rig.identified(works, 9);
    rig.found(Source::Signal, 1, &[global(1)]);
    let start = rig.now;
    while rig.now < start + secs(3 * 3600) {
        rig.pong(works, 9);
        fail(&mut rig, DialError::TimedOut);
        rig.take();
        rig.found(Source::Signal, 1, &[global(1)]);
        rig.pass(secs(10));
    }
    rig.take();
    rig.found(Source::Signal, 2, &[global(2)]);
    assert_eq!(rig.dials().iter().filter(|d| d.1 == Some(peer(2))).count(), 1, "a new peer is not dialled");
}

#[test]
fn one_peer_pushes_out_candidates() {
    let mut rig = Rig::new(Config::desktop());
    rig.listening("/ip4/192.168.1.2/udp/4001/quic-v1");
    let seen = address("/ip4/91.1.1.1/udp/4001/quic-v1");
    let c = rig.inbound(1, global(1));
    rig.identified_as(c, 1, Identity { observed: Some(seen.clone()), ..kinfolk() });
    let c = rig.inbound(2, global(2));
    for n in 0..40 {
        let lie = address(&format!("/ip4/92.1.1.{n}/udp/4001/quic-v1"));
        rig.identified_as(c, 2, Identity { observed: Some(lie), ..kinfolk() });
    }
    assert!(rig.node.view().unwrap().node().candidates.iter().any(|own| *own.address == seen));
}

#[test]
fn an_interface_more_makes_private() {
    let mut rig = Rig::new(Config::desktop());
    rig.inbound(1, global(1));
    rig.inbound(3, global(3));
    rig.pass(secs(20));
    assert_eq!(rig.node.view().unwrap().node().reachability, Reachability::Public);
    let mut more = home();
    more.addresses.push(Prefix { ip: "172.17.0.1".parse().unwrap(), len: 16 });
    rig.tell(Event::Interfaces(more));
    rig.pass(secs(20));
    assert_eq!(rig.node.view().unwrap().node().reachability, Reachability::Public);
}

#[test]
fn never_identifying_is_never_denied() {
    let mut rig = Rig::quiet(Config::desktop());
    for _ in 0..20 {
        let c = rig.inbound(1, global(1));
        rig.pass(secs(31));
        rig.tell(Event::Disconnected { connection: c, peer: peer(1), cause: CloseCause::Ours });
    }
    assert!(rig.commands.iter().any(|c| matches!(c.action, Action::Deny { .. })), "20 times and never turned away");
}

#[test]
fn pin_by_id_is_looked_up() {
    let mut rig = Rig::new(boot(&[1]));
    let c = meets_server(&mut rig, 1);
    let _start = rig.now;
    let run = |rig: &mut Rig, span: u64| {
        let end = rig.now + secs(span);
        let mut rec = None;
        while rig.now < end {
            for (_q, k) in queries(rig) {
                if matches!(k, Query::Record { .. }) && rec.is_none() {
                    rec = Some(rig.now);
                }
            }
            for (q, _k) in queries(rig) {
                rig.tell(Event::QueryEnded { query: q, successes: 1, failures: 0 });
            }
            let _left = queries(rig).len();
            let ids: Vec<_> = queries(rig).iter().map(|q| q.0).collect();
            rig.commands.retain(|c| !matches!(c.action, Action::Query(_)));
            for q in ids {
                rig.tell(Event::QueryEnded { query: q, successes: 1, failures: 0 });
            }
            rig.pong(c, 1);
            rig.pass(secs(1));
        }
        rec
    };
    run(&mut rig, 700);
    rig.take();
    let at = rig.now;
    ask(&mut rig, 1, Ask::Pin(PeerAddress { peer: Some(peer(9)), address: None }));
    let rec = run(&mut rig, 900);
    let health = rig.node.view().unwrap().node().health;
    let _said: Vec<String> = rig.commands.iter().filter(|c| c.peer() == Some(&peer(9))).map(in_words).collect();
    assert!(rec.is_some_and(|r| r - at < secs(60)) && health == Health::Partial);
}

#[test]
fn table_full_is_told_as_blocked() {
    let mut config = Config::desktop();
    config.lifecycle.max_peers = 16;
    config.pinned = (1..=16).map(|n| PinnedPeer { peer: peer(n), addresses: vec![] }).collect();
    let mut rig = Rig::quiet(config);
    ask(&mut rig, 1, Ask::Connect(PeerAddress { peer: None, address: Some(global(77)) }));
    rig.dial_succeeds(77);
    assert!(!matches!(answers(&rig)[..], [Err(AskError::Blocked)]), "{:?}", answers(&rig));
}

#[test]
fn bootstrap_and_pinned_two_dials() {
    let mut config = boot(&[1]);
    config.pinned = vec![PinnedPeer { peer: peer(1), addresses: vec![global(1)] }];
    let rig = Rig::new(config);
    assert_eq!(rig.dials().len(), 1, "{:?}", rig.dials());
}

#[test]
fn no_default_route() {
    let mut home = home();
    home.default_v4 = false;
    let rig = Rig::at(boot(&[1]), home);
    assert_eq!(rig.dials(), []);
}

#[test]
fn many_addresses() {
    let mut config = Config::desktop();
    config.bootstrap =
        (0..30).map(|p| PeerAddress::new(peer(1), address(&format!("/ip4/45.1.1.1/tcp/{}", 1000 + p)))).collect();
    let rig = Rig::new(config);
    assert!(rig.dials()[0].2.len() <= 8, "{}", rig.dials()[0].2.len());
}

#[test]
fn blocked_stays_routed() {
    let mut rig = Rig::new(boot(&[1]));
    meets_server(&mut rig, 1);
    ask(&mut rig, 1, Ask::Block(peer(1)));
    assert!(rig.commands.iter().any(|c| matches!(c.action, Action::Unroute { .. })));
}

#[test]
fn private_external() {
    let mut config = Config::desktop();
    config.nat.external = vec![address("/ip4/192.168.1.5/tcp/4001")];
    assert!(config.validate().is_err());
}

#[test]
fn reload_forgets_added_bootstrap() {
    let mut rig = Rig::new(boot(&[1]));
    ask(&mut rig, 1, Ask::AddBootstrap(PeerAddress::new(peer(1), address("/ip4/45.99.1.1/tcp/4001"))));
    rig.tell(Event::Configured(Box::new(boot(&[1]).validate().unwrap())));
    assert_eq!(rig.node.view().unwrap().node().bootstrap.len(), 2);
}

#[test]
fn removed_bootstrap_never_expires() {
    let mut rig = Rig::new(boot(&[1]));
    let c = rig.dial_succeeds(1);
    rig.identified(c, 1);
    ask(&mut rig, 1, Ask::RemoveBootstrap(PeerAddress::new(peer(1), global(1))));
    drop_conn(&mut rig, c, 1);
    rig.pass(secs(24 * 3600));
    assert_eq!(rig.state(1), State::Expired);
}

#[test]
fn stuck_close_keeps_profile() {
    let mut rig = Rig::quiet(Config::desktop());
    let c = rig.inbound(1, near(1));
    rig.identified(c, 1);
    for _ in 0..2 {
        rig.tell(Event::Pinged { connection: c, peer: peer(1), result: Err(PingError::TimedOut) });
    }
    rig.pass(secs(31));
    rig.inbound(1, near(1));
    assert_eq!(rig.state(1), State::Connected);
}

#[test]
fn own_identity_spam() {
    let mut rig = Rig::quiet(Config::desktop());
    for n in 0..100 {
        rig.tell(Event::OwnIdentitySeen { address: near(n) });
    }
    assert!(rig.notices().len() < 20, "{}", rig.notices().len());
}

#[test]
fn alone_then_known() {
    let mut rig = Rig::quiet(Config::desktop());
    rig.pass(secs(60));
    rig.found(Source::Kademlia, 1, &[global(1)]);
    rig.pass(secs(600));
    assert!(!rig.dials().is_empty(), "{:?}", rig.node.view().unwrap().node().health);
}

#[test]
fn identify_push_with_new_address_is_routed() {
    let mut rig = Rig::new(boot(&[1]));
    let c = meets_server(&mut rig, 1);
    rig.take();
    rig.identified_as(c, 1, server_at(7));
    assert!(rig.commands.iter().any(|c| matches!(c.action, Action::Route { .. })));
}

#[test]
fn routed_false_is_routed_again() {
    let mut rig = Rig::new(boot(&[1]));
    let c = meets_server(&mut rig, 1);
    rig.take();
    rig.tell(Event::Routed { peer: peer(1), present: false });
    rig.identified_as(c, 1, server_at(1));
    assert!(rig.commands.iter().any(|c| matches!(c.action, Action::Route { .. })));
}

#[test]
fn direct_fails_relay_is_tried_for_the_user() {
    let mut rig = Rig::quiet(Config::desktop());
    ask(&mut rig, 1, Ask::Connect(PeerAddress::new(peer(1), Address::relayed(peer(2)))));
    rig.take();
    let mut rig = Rig::quiet(Config::desktop());
    rig.found(Source::Kademlia, 2, &[global(2)]);
    ask(&mut rig, 9, Ask::Pin(PeerAddress::new(peer(1), global(1))));
    ask(&mut rig, 1, Ask::Connect(PeerAddress::new(peer(1), Address::relayed(peer(2)))));
    fail(&mut rig, DialError::TimedOut);
    assert!(answers(&rig).iter().all(|a| a.is_ok()), "{:?}", answers(&rig));
}

#[test]
fn a_pinned_peers_only_connection_stays_though_it_was_made_for_a_probe() {
    let back = |rig: &mut Rig| rig.connected(1, Direction::Inbound, global(1), Origin::Probe(CommandId(9)));
    let mut rig = Rig::quiet(Config { pinned: vec![PinnedPeer { peer: peer(1), addresses: vec![] }], ..boot(&[]) });
    let only = back(&mut rig);
    rig.identified(only, 1);
    rig.live(secs(60));
    assert_eq!((rig.closes(), rig.state(1)), (vec![], State::Identified));
    let own = rig.inbound(1, global(2));
    rig.live(secs(5));
    let second = back(&mut rig);
    rig.live(secs(60));
    let closed: Vec<ConnectionId> = rig.closes().into_iter().map(|(connection, _)| connection).collect();
    assert!(closed.contains(&second) && !(closed.contains(&only) && closed.contains(&own)), "{closed:?}");
}

#[test]
fn a_relay_that_keeps_no_place_for_a_peer_is_not_asked_again_by_its_other_addresses() {
    let mut rig = Rig::quiet(Config { pinned: vec![PinnedPeer { peer: peer(1), addresses: vec![] }], ..boot(&[]) });
    let relay = rig.inbound(7, global(7));
    rig.identified_as(relay, 7, relay_at(7));
    let by_tcp = address(&format!("/ip4/45.10.7.1/tcp/4001/p2p/{}/p2p-circuit", peer(7)));
    rig.take();
    rig.found(Source::Kademlia, 1, &[circuit(7), by_tcp]);
    assert_eq!(rig.dials().len(), 1);
    fail(&mut rig, DialError::Other("the relay keeps no place for the peer".into()));
    rig.take();
    rig.pass(secs(3));
    assert_eq!(rig.dials(), [], "a way that has just failed");
    rig.pass(secs(4));
    assert_eq!(rig.dials().len(), 1, "in its time");
}

#[test]
fn a_pinned_peer_whose_relay_does_not_answer_is_missed_in_that_moment() {
    let pinned = [1, 2].map(|n| PinnedPeer { peer: peer(n), addresses: vec![] }).into();
    let mut config = Config { pinned, ..boot(&[]) };
    config.nat.external = vec![address("/ip4/45.9.9.9/udp/4001/quic-v1")];
    let mut rig = Rig::quiet(config);
    let relay = rig.connected(7, Direction::Outbound, global(7), Origin::Inbound);
    rig.identified_as(relay, 7, relay_at(7));
    let tcp = rig.inbound(1, address("/ip4/45.10.1.1/tcp/4001"));
    let quic = rig.inbound(1, global(1));
    rig.identified_as(tcp, 1, relay_at(1));
    rig.live(secs(70));
    let reserves = |rig: &Rig| rig.reserves().into_iter().map(|(_, relay)| relay).collect::<Vec<_>>();
    assert_eq!(reserves(&rig), [1, 7], "the other pinned peer is missing");
    rig.relay_grants(7);
    rig.relay_grants(1);
    let held = HeldId(1);
    rig.tell(Event::DialHeld { held, asker: Asker::Autonat, peer: Some(peer(1)) });
    rig.connected(1, Direction::Outbound, global(1), Origin::Held(held));
    // The relay of theirs may be gone, and is asked; then none is needed.
    rig.tell(Event::Disconnected { connection: quic, peer: peer(1), cause: CloseCause::Remote });
    let other = rig.inbound(2, global(2));
    rig.identified(other, 2);
    rig.take();
    rig.pass(secs(4));
    assert_eq!(reserves(&rig), [7], "what is left of the first one is a connection for a probe");
}

#[test]
fn a_public_node_that_misses_a_pinned_peer_can_be_reached_through_a_relay_too() {
    // Behind one router that leads nothing back, or where probes get in and others don't.
    let mut config = Config { pinned: vec![PinnedPeer { peer: peer(1), addresses: vec![] }], ..boot(&[]) };
    config.nat.external = vec![address("/ip4/45.9.9.9/udp/4001/quic-v1")];
    let mut rig = Rig::quiet(config);
    let relay = rig.connected(7, Direction::Outbound, global(7), Origin::Inbound);
    rig.identified_as(relay, 7, relay_at(7));
    rig.live(secs(50));
    assert_eq!(rig.reserves(), [], "it is public");
    rig.live(secs(15));
    assert_eq!(rig.reserves().len(), 1);
    rig.relay_grants(7);
    let told = |rig: &Rig| rig.last(|action| matches!(action, Action::Advertise { .. }).then(|| action.to_string()));
    assert!(told(&rig).is_some_and(|(_, action)| action.contains("p2p-circuit")), "{:?}", told(&rig));
    // Relayed, it is still needed; directly, no more.
    let relayed = rig.inbound(1, Address::relayed(peer(7)));
    rig.identified(relayed, 1);
    rig.take();
    rig.live(secs(60));
    let given_back = |rig: &Rig| rig.commands.iter().any(|one| matches!(one.action, Action::Unreserve { .. }));
    assert!(!given_back(&rig));
    rig.inbound(1, near(1));
    rig.live(secs(5));
    assert!(given_back(&rig));
}

#[test]
fn a_machine_that_wakes_in_the_middle_of_a_dial_forgets_whom_nobody_speaks_of() {
    let mut rig = Rig::quiet(Config::desktop());
    rig.found(Source::Signal, 1, &[global(1)]);
    assert_eq!(rig.dials().len(), 1);
    let asleep = secs(8 * 86_400);
    rig.now = rig.now + asleep;
    rig.tell(Event::Resumed { asleep });
    assert!(rig.view(1).is_none());
}
