//! What the store remembers of an earlier run is used first, and gives way to whatever is known better.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "tests")]

mod common;

use common::*;
use kinfolk_core::{
    Action, Address, CloseCause, CommandId, Config, Direction, Event, Identity, Interfaces, Mapping, Origin,
    PeerAddress, Prefix, Query, Reachability, SignalPeer, SignalServices, Source, StoredAddress, StoredMapping,
    StoredNat, StoredPeer, Transport,
};

/// A home with IPv6: without an address of its own on the internet, a node asks for relays anyway.
fn home_with_ipv6() -> Interfaces {
    let mut interfaces = home();
    interfaces.addresses.push(Prefix { ip: "2a02:8100::1".parse().unwrap(), len: 64 });
    interfaces
}

fn nat(interfaces: Interfaces, reachability: Reachability, mapping: Mapping) -> StoredNat {
    let mappings = vec![StoredMapping { ipv6: false, transport: Transport::Quic, mapping }];
    StoredNat { addresses: interfaces.addresses, reachability, mappings }
}

/// A node at home that listens by QUIC, and an earlier run of which has found this out.
fn recalls(nat: StoredNat) -> Rig {
    let mut rig = Rig::at(Config { mdns: false, ..Config::desktop() }, home_with_ipv6());
    rig.listening("/ip4/192.168.1.2/udp/4001/quic-v1");
    rig.tell(Event::StoreLoaded { peers: vec![], nat: Some(nat), last: true });
    rig
}

/// Server n sees us there, over a connection that we have dialled.
fn sees(rig: &mut Rig, n: u64, port: u16) {
    let connection = rig.connected(n, Direction::Outbound, global(n), Origin::Dial(CommandId(0)));
    let observed = Some(address(&format!("/ip4/91.1.1.1/udp/{port}/quic-v1")));
    rig.identified_as(connection, n, Identity { observed, ..relay_at(n) });
}

fn mapping(rig: &Rig) -> Mapping {
    let all = rig.node.view().unwrap().node().mappings;
    all.iter().find(|view| !view.ipv6 && view.transport == Transport::Quic).unwrap().mapping
}

fn remembered(rig: &Rig) -> Vec<StoredNat> {
    let nats = rig.commands.iter().filter_map(|command| match &command.action {
        Action::RememberNat(nat) => Some(nat.clone()),
        _ => None,
    });
    nats.collect()
}

#[test]
fn who_could_not_be_reached_asks_for_relays_at_once_on_the_same_network() {
    use Reachability::{Private, Public, Unknown};
    let mut moved = home_with_ipv6();
    moved.addresses[1].ip = "192.168.7.2".parse().unwrap();
    let mut more = home_with_ipv6();
    more.addresses.pop();
    for (what, then, reachability, at_once) in [
        ("private", home_with_ipv6(), Private, true),
        ("an interface more is the same place", more, Private, true),
        ("private, elsewhere", moved, Private, false),
        ("public", home_with_ipv6(), Public, false),
        ("not known", home_with_ipv6(), Unknown, false),
    ] {
        let mut rig = recalls(nat(then, reachability, Mapping::Unknown));
        sees(&mut rig, 1, 7);
        assert_eq!(!rig.reserves().is_empty(), at_once, "{what}");
        let node = rig.node.view().unwrap().node();
        assert_eq!((node.reachability, node.advertised.len()), (Unknown, 0), "nobody is told a guess: {what}");
    }
}

#[test]
fn what_a_nat_did_with_ports_counts_until_it_is_seen() {
    let mut rig = recalls(nat(home_with_ipv6(), Reachability::Unknown, Mapping::PerDestination));
    assert_eq!(mapping(&rig), Mapping::PerDestination);
    sees(&mut rig, 1, 7);
    assert_eq!(mapping(&rig), Mapping::PerDestination, "one that sees us tells nothing about it");
    sees(&mut rig, 2, 7);
    assert_eq!(mapping(&rig), Mapping::Independent);
    // A late frame does not bring it back.
    let late = nat(home_with_ipv6(), Reachability::Unknown, Mapping::PerDestination);
    rig.tell(Event::StoreLoaded { peers: vec![], nat: Some(late), last: true });
    assert_eq!(mapping(&rig), Mapping::Independent);

    let mut elsewhere = home_with_ipv6();
    elsewhere.addresses[1].ip = "10.0.0.2".parse().unwrap();
    let mut rig = recalls(nat(home_with_ipv6(), Reachability::Private, Mapping::PerDestination));
    rig.tell(Event::Interfaces(elsewhere));
    assert_eq!(mapping(&rig), Mapping::Unknown, "another network, another NAT");
}

#[test]
fn what_has_held_for_two_minutes_is_remembered_once() {
    let mut rig = Rig::at(Config { mdns: false, ..Config::desktop() }, home_with_ipv6());
    rig.listening("/ip4/192.168.1.2/udp/4001/quic-v1");
    for n in [1, 2] {
        sees(&mut rig, n, 7);
    }
    rig.live(secs(100));
    assert_eq!(remembered(&rig), [], "a network that is only visited is not worth it");
    rig.live(secs(30));
    let expected = nat(home_with_ipv6(), Reachability::Unknown, Mapping::Independent);
    assert_eq!(remembered(&rig), std::slice::from_ref(&expected));
    // That nobody can tell any more is nothing new; nor is it that the same is seen again.
    let connections: Vec<_> = [1, 2].map(|n| (n, rig.view(n).unwrap().connections[0].connection)).into();
    for (n, connection) in connections {
        rig.tell(Event::Disconnected { connection, peer: peer(n), cause: CloseCause::Remote });
    }
    rig.live(secs(300));
    for n in [3, 4] {
        sees(&mut rig, n, 9);
    }
    rig.live(secs(300));
    assert_eq!(remembered(&rig).len(), 1);
    // Visitors show that others can reach this node.
    rig.inbound(21, global(21));
    rig.inbound(22, global(22));
    rig.live(secs(300));
    let last = remembered(&rig).pop().unwrap();
    assert_eq!((last.reachability, &last.mappings), (Reachability::Public, &expected.mappings));

    let mut again = recalls(expected);
    for n in [1, 2] {
        sees(&mut again, n, 7);
    }
    again.live(secs(300));
    assert_eq!(remembered(&again), [], "the store has it");
}

#[test]
fn the_store_is_told_who_said_where_a_peer_is_and_when_it_last_was_there() {
    let mut rig = Rig::new(Config { mdns: true, ..Config::desktop() });
    rig.found(Source::Mdns, 1, &[near(1)]);
    rig.tell(Event::WallClock { unix_time: 1_900_000_000, synced: true });
    rig.pass(secs(5));
    let connection = rig.dial_succeeds(1);
    rig.identified(connection, 1);
    let remembered = |rig: &Rig| {
        rig.last(|action| match action {
            Action::Remember(stored) => Some(stored.addresses.clone()),
            _ => None,
        })
    };
    let (_, addresses) = remembered(&rig).unwrap();
    let at = 1_900_000_005;
    assert_eq!(addresses, [StoredAddress { address: near(1), source: Source::Mdns, proven: true, last_success: at }]);

    // Of more than there is room for, the next run takes those that have worked last, and remembers when.
    let room = u64::from(Config::desktop().lifecycle.max_addresses);
    let stored = (1..=room + 3).map(|n| StoredAddress {
        address: global(n),
        source: Source::Kademlia,
        proven: true,
        last_success: u32::try_from(n).unwrap(),
    });
    let stored = StoredPeer {
        peer: peer(1),
        pinned: false,
        blocked: false,
        relay: false,
        record: 0,
        addresses: stored.collect(),
    };
    let mut rig = Rig::new(Config { mdns: false, ..Config::desktop() });
    rig.tell(Event::StoreLoaded { peers: vec![stored], nat: None, last: true });
    assert_eq!(places(&rig, 1).len() as u64, room);
    let expected: Vec<Address> = (4..=room + 3).rev().map(global).collect();
    assert_eq!(places(&rig, 1), expected);
    let pin = kinfolk_core::Ask::Pin(PeerAddress { peer: Some(peer(1)), address: None });
    rig.tell(Event::Asked { request: kinfolk_core::RequestId(1), ask: pin });
    let (_, addresses) = remembered(&rig).unwrap();
    assert!(addresses.iter().all(|known| global(known.last_success.into()) == known.address), "{addresses:?}");
}

const SERVER: &str = "https://a.example/signal";

fn with_record(number: u64) -> Rig {
    let mut config = Config { mdns: false, ..Config::desktop() };
    config.signal.servers = vec![SERVER.to_owned()];
    let mut rig = Rig::new(config);
    let known = StoredAddress { address: global(1), source: Source::Store, proven: true, last_success: 0 };
    let addresses = vec![known];
    let stored = StoredPeer { peer: peer(1), pinned: false, blocked: false, relay: false, record: number, addresses };
    rig.tell(Event::StoreLoaded { peers: vec![stored], nat: None, last: true });
    rig
}

fn signalled(rig: &mut Rig, n: u64, number: u64, at: &Address) {
    let (query, ()) = rig.last(|action| matches!(action, Action::SignalQuery { .. }).then_some(())).unwrap();
    let services = SignalServices::default();
    let told = SignalPeer { peer: peer(n), seq: Some(number), addresses: vec![at.clone()], services };
    rig.tell(Event::SignalFound { query, peers: vec![told], cut: 0, backing: None });
}

fn places(rig: &Rig, n: u64) -> Vec<Address> {
    let view = rig.view(n).unwrap();
    view.addresses.iter().map(|known| known.address.clone()).collect()
}

fn numbers(rig: &Rig, n: u64) -> Vec<u64> {
    let stored = rig.commands.iter().filter_map(|command| match &command.action {
        Action::Remember(stored) if stored.peer == peer(n) => Some(stored.record),
        _ => None,
    });
    stored.collect()
}

#[test]
fn an_older_record_than_an_earlier_run_had_is_not_taken() {
    for (number, taken) in [(6, false), (7, true), (8, true)] {
        let mut rig = with_record(7);
        signalled(&mut rig, 1, number, &global(9));
        assert_eq!(places(&rig, 1).contains(&global(9)), taken, "{number}");
        let expected: &[u64] = if number == 8 { &[8] } else { &[] };
        assert_eq!(numbers(&rig, 1), expected, "the store has what is new, and only that: {number}");
    }
    // Of somebody else's past nothing is known.
    let mut rig = with_record(7);
    signalled(&mut rig, 2, 1, &global(2));
    assert_eq!(places(&rig, 2), [global(2)]);
    assert_eq!(numbers(&rig, 2), [0; 0], "nobody has been there");
}

#[test]
fn records_in_the_hash_table_are_numbered_like_those_of_signal_servers() {
    // A pinned peer of which nothing but a number is known is looked for.
    let finds = |number, at: &Address, known: u64| {
        let mut rig = Rig::new(Config { mdns: false, ..Config::desktop() });
        let connection = rig.connected(9, Direction::Outbound, global(9), Origin::Inbound);
        rig.identified_as(connection, 9, server_at(9));
        rig.tell(Event::Routed { peer: peer(9), present: true });
        let pin = kinfolk_core::Ask::Pin(PeerAddress { peer: Some(peer(1)), address: None });
        rig.tell(Event::Asked { request: kinfolk_core::RequestId(1), ask: pin });
        let (query, ()) =
            rig.last(|action| matches!(action, Action::Query(Query::Record { .. })).then_some(())).unwrap();
        let addresses =
            vec![StoredAddress { address: global(1), source: Source::Store, proven: true, last_success: 0 }];
        let stored = StoredPeer { peer: peer(1), pinned: true, blocked: false, relay: false, record: known, addresses };
        rig.tell(Event::StoreLoaded { peers: vec![stored], nat: None, last: true });
        let peers = vec![(peer(1), vec![at.clone()])];
        rig.tell(Event::QueryFound { query, peers, cut: 0, record: number });
        places(&rig, 1).contains(at)
    };
    assert!(!finds(Some(6), &global(5), 7), "an old one");
    assert!(finds(Some(7), &global(5), 7));
    assert!(finds(Some(8), &global(5), 7));
    assert!(finds(None, &global(5), 7), "how old it is, nobody knows");
}

#[test]
fn an_old_word_is_better_than_none() {
    let mut config = Config { mdns: false, ..Config::desktop() };
    config.signal.servers = vec![SERVER.to_owned()];
    let mut rig = Rig::new(config);
    let stored = StoredPeer { peer: peer(1), pinned: true, blocked: false, relay: false, record: 7, addresses: vec![] };
    rig.tell(Event::StoreLoaded { peers: vec![stored], nat: None, last: true });
    // Its clock was ahead once, and it has lost its memory.
    signalled(&mut rig, 1, 3, &global(3));
    assert_eq!(places(&rig, 1), [global(3)]);
}
