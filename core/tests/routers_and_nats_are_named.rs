//! What the home router is asked for, what kind of NAT stands in front of us, and what the user hears of it.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "tests")]

mod common;

use common::*;
use kinfolk_core::{
    Action, Address, CloseCause, CommandId, Config, ConnectionId, Direction, Event, Identity, Interfaces, ListenerId,
    Mapping, NatFinding, Notice, Origin, Prefix, Refusal, Transport, view::NodeView,
};

fn own(ip: &str, len: u8) -> Interfaces {
    Interfaces { addresses: vec![Prefix { ip: ip.parse().unwrap(), len }], default_v4: true, default_v6: true }
}

/// A node that listens by TCP and QUIC at each of these addresses.
fn listening(config: Config, interfaces: Interfaces, ips: &[&str]) -> Rig {
    let mut rig = Rig::at(config, interfaces);
    for ip in ips {
        let family = if ip.contains(':') { "ip6" } else { "ip4" };
        for part in ["tcp/4001", "udp/4002/quic-v1"] {
            let address = address(&format!("/{family}/{ip}/{part}"));
            rig.tell(Event::Listening { listener: ListenerId(1), command: CommandId(1), address });
        }
    }
    rig
}

fn at_home() -> Rig {
    listening(Config::desktop(), home(), &["192.168.1.2"])
}

fn node(rig: &Rig) -> NodeView<'_> {
    rig.node.view().unwrap().node()
}

fn ports(rig: &Rig) -> Vec<Action> {
    let about_ports = |action: &Action| matches!(action, Action::MapPort { .. } | Action::UnmapPort { .. });
    rig.commands.iter().map(|command| command.action.clone()).filter(about_ports).collect()
}

fn given(rig: &mut Rig, text: &str) {
    let external = address(text);
    rig.tell(Event::PortMapped { transport: external.transport().unwrap(), external });
}

#[test]
fn a_router_is_asked_for_our_ports_where_one_stands_in_between() {
    let tcp = Action::MapPort { transport: Transport::Tcp, port: 4001 };
    let quic = Action::MapPort { transport: Transport::Quic, port: 4002 };
    let both = vec![tcp, quic];
    let off =
        Config { nat: kinfolk_core::NatConfig { port_mapping: false, ..Config::desktop().nat }, ..Config::desktop() };
    let no_route = Interfaces { default_v4: false, ..home() };
    for (what, rig, asked) in [
        ("at home", at_home(), both.clone()),
        ("switched off", listening(off, home(), &["192.168.1.2"]), vec![]),
        ("no route", listening(Config::desktop(), no_route, &["192.168.1.2"]), vec![]),
        ("on the internet", listening(Config::desktop(), own("45.1.1.1", 24), &["45.1.1.1", "192.168.1.2"]), vec![]),
        ("carrier-grade", listening(Config::desktop(), own("100.64.0.9", 24), &["100.64.0.9"]), both),
        ("IPv6 only", listening(Config::desktop(), own("2a02::1", 64), &["2a02:8100::1"]), vec![]),
        ("this machine only", listening(Config::desktop(), home(), &["127.0.0.1"]), vec![]),
        ("a server", listening(Config::server(), home(), &["192.168.1.2"]), vec![]),
    ] {
        assert_eq!(ports(&rig), asked, "{what}");
    }
}

#[test]
fn a_router_that_gives_ports_and_takes_them_back() {
    let mut rig = at_home();
    rig.take();
    rig.tell(Event::Gateway { upnp: true, nat_pmp: false, pcp: false });
    given(&mut rig, "/ip4/91.1.1.1/udp/41540/quic-v1");
    given(&mut rig, "/ip4/91.1.1.1/udp/41540/quic-v1");
    assert_eq!(node(&rig).port_mappings[1].external, Some(&address("/ip4/91.1.1.1/udp/41540/quic-v1")));
    assert!(node(&rig).gateway.unwrap().upnp);
    rig.pass(secs(20));
    rig.tell(Event::PortUnmapped { transport: Transport::Quic });
    rig.tell(Event::PortUnmapped { transport: Transport::Quic });
    insta::assert_snapshot!(rig.words(), @r"
    the router lets /ip4/91.1.1.1/udp/41540/quic-v1 lead to this node, because this node seems to be behind a NAT
    alone: nobody else is known, waiting for the first peer, because nobody speaks of it any more
    the router lets no TCP port of its own lead to this node, because it took too long
    advertise /ip4/91.1.1.1/udp/41540/quic-v1, because the router lets it lead here
    tell peers of our changes, because our addresses have changed
    the router lets no QUIC port of its own lead to this node, because things have changed
    withdraw /ip4/91.1.1.1/udp/41540/quic-v1, because nobody sees this node there any more
    tell peers of our changes, because our addresses have changed
    ");
}

#[test]
fn a_router_that_says_nothing_is_told_of_once_and_one_that_speaks_and_gives_nothing_is_named() {
    let mut rig = at_home();
    rig.take();
    rig.pass(secs(600));
    insta::assert_snapshot!(rig.words(), @r"
    alone: nobody else is known, waiting for the first peer, because nobody speaks of it any more
    the router lets no TCP port of its own lead to this node, because it took too long
    the router lets no QUIC port of its own lead to this node, because it took too long
    ");

    let mut rig = at_home();
    rig.tell(Event::Gateway { upnp: false, nat_pmp: false, pcp: true });
    rig.take();
    rig.pass(secs(600));
    assert_eq!(node(&rig).nat, Some(NatFinding::NoMappingGiven));
    let found = Notice::NatFound { finding: NatFinding::NoMappingGiven };
    assert_eq!(rig.notices().iter().filter(|notice| **notice == found).count(), 1);
    given(&mut rig, "/ip4/91.1.1.1/tcp/4001");
    assert_eq!(node(&rig).nat, None, "late, but given");
}

#[test]
fn a_node_that_cannot_ask_does_not_complain() {
    let mut rig = at_home();
    let asked: Vec<_> =
        rig.take().into_iter().filter(|one| matches!(one.action, Action::MapPort { .. })).map(|one| one.id).collect();
    for command in asked {
        rig.tell(Event::Refused { command, refusal: Refusal::NotBuiltIn });
    }
    rig.pass(secs(60));
    assert_eq!(rig.notices(), [Notice::HealthChanged { health: kinfolk_core::Health::Alone }]);
}

#[test]
fn each_kind_of_nat_in_front_of_us_has_a_name() {
    let found = |rig: &mut Rig, external: &str| {
        given(rig, external);
        given(rig, external);
        let told = rig.notices().into_iter().filter(|notice| matches!(notice, Notice::NatFound { .. })).count();
        (node(rig).nat, told)
    };
    assert_eq!(found(&mut at_home(), "/ip4/91.1.1.1/tcp/4001"), (None, 0));
    let shared = found(&mut at_home(), "/ip4/100.70.1.1/tcp/4001");
    assert_eq!(shared, (Some(NatFinding::RouterBehindCarrierGrade), 1));
    assert_eq!(found(&mut at_home(), "/ip4/192.168.178.20/tcp/4001"), (Some(NatFinding::DoubleNat), 1));
    let nonsense = ["/ip4/0.0.0.0/tcp/4001", "/ip4/91.1.1.1/tcp/0", "/ip6/2a02::1/tcp/4001", "/dns4/router.lan/tcp/1"];
    for external in nonsense {
        assert_eq!(found(&mut at_home(), external), (None, 0), "{external}");
    }

    let mut rig = listening(Config::desktop(), own("100.64.0.9", 24), &["100.64.0.9"]);
    assert_eq!(node(&rig).nat, Some(NatFinding::CarrierGrade));
    rig.tell(Event::Interfaces(home()));
    assert_eq!(node(&rig).nat, None, "another network");
    let mut vpn = home();
    vpn.addresses.push(Prefix { ip: "100.101.102.103".parse().unwrap(), len: 32 });
    assert_eq!(node(&listening(Config::desktop(), vpn, &["192.168.1.2"])).nat, None, "a virtual private network");
}

#[test]
fn a_router_whose_address_is_not_the_one_that_others_see_stands_behind_another_one() {
    let mut rig = at_home();
    given(&mut rig, "/ip4/91.1.1.1/tcp/4001");
    see(&mut rig, 1, Direction::Outbound, "/ip4/92.2.2.2/tcp/4001");
    assert_eq!(node(&rig).nat, None, "one observer may lie");
    see(&mut rig, 2, Direction::Outbound, "/ip4/92.2.2.2/tcp/4077");
    assert_eq!(node(&rig).nat, Some(NatFinding::DoubleNat));
}

#[test]
fn another_network_is_asked_anew() {
    let mut rig = at_home();
    given(&mut rig, "/ip4/91.1.1.1/tcp/4001");
    rig.tell(Event::Gateway { upnp: true, nat_pmp: true, pcp: true });
    rig.take();
    rig.tell(Event::Interfaces(own("10.7.7.7", 8)));
    let unmapped = [Transport::Tcp, Transport::Quic].map(|transport| Action::UnmapPort { transport });
    let mapped = [(Transport::Tcp, 4001), (Transport::Quic, 4002)];
    let mapped = mapped.map(|(transport, port)| Action::MapPort { transport, port });
    assert_eq!(ports(&rig), [&unmapped[..], &mapped[..]].concat());
    assert_eq!((node(&rig).gateway, node(&rig).port_mappings[0].external), (None, None));
}

/// A connection to server n over which it sees us at `seen`.
fn see(rig: &mut Rig, n: u64, direction: Direction, seen: &str) -> ConnectionId {
    let origin = if direction == Direction::Inbound { Origin::Inbound } else { Origin::Dial(CommandId(0)) };
    let connection = rig.connected(n, direction, global(n), origin);
    rig.identified_as(connection, n, Identity { observed: Some(address(seen)), ..kinfolk() });
    connection
}

fn mapping(rig: &Rig, ipv6: bool, transport: Transport) -> Mapping {
    let all = node(rig).mappings;
    all.iter().find(|view| view.ipv6 == ipv6 && view.transport == transport).unwrap().mapping
}

#[test]
fn what_several_servers_see_tells_the_kind_of_mapping() {
    let quic = |port: u16| format!("/ip4/91.1.1.1/udp/{port}/quic-v1");
    // What server 1, 2, … see.
    for (seen, kind) in [
        (vec![], Mapping::Unknown),
        (vec![(1, quic(7))], Mapping::Unknown),
        (vec![(1, quic(7)), (1, quic(7))], Mapping::Unknown),
        (vec![(1, quic(7)), (1, quic(8))], Mapping::Unknown),
        (vec![(1, quic(7)), (2, quic(7))], Mapping::Independent),
        (vec![(1, quic(7)), (2, quic(8))], Mapping::PerDestination),
        (vec![(1, quic(7)), (2, "/ip4/91.1.1.2/udp/7/quic-v1".into())], Mapping::PerDestination),
        (vec![(1, quic(7)), (2, quic(7)), (3, quic(9))], Mapping::Independent),
        (vec![(1, quic(7)), (2, quic(8)), (3, quic(9))], Mapping::PerDestination),
        (vec![(1, quic(7)), (1, quic(8)), (2, quic(7))], Mapping::Independent),
        (vec![(1, quic(7)), (2, "/ip4/91.1.1.1/tcp/9".into())], Mapping::Unknown),
        (vec![(1, quic(7)), (2, "/ip4/192.168.7.7/udp/9/quic-v1".into())], Mapping::Unknown),
    ] {
        let mut rig = at_home();
        for (n, seen) in &seen {
            see(&mut rig, *n, Direction::Outbound, seen);
        }
        assert_eq!(mapping(&rig, false, Transport::Quic), kind, "{seen:?}");
    }
}

#[test]
fn only_connections_that_we_dialled_and_that_stand_tell_it() {
    let mut rig = at_home();
    see(&mut rig, 1, Direction::Outbound, "/ip4/91.1.1.1/tcp/7");
    see(&mut rig, 2, Direction::Inbound, "/ip4/91.1.1.1/tcp/8");
    assert_eq!(mapping(&rig, false, Transport::Tcp), Mapping::Unknown);
    let other = see(&mut rig, 3, Direction::Outbound, "/ip4/91.1.1.1/tcp/9");
    assert_eq!(mapping(&rig, false, Transport::Tcp), Mapping::PerDestination);
    rig.tell(Event::Disconnected { connection: other, peer: peer(3), cause: CloseCause::Remote });
    assert_eq!(mapping(&rig, false, Transport::Tcp), Mapping::Unknown);
    see(&mut rig, 4, Direction::Outbound, "/ip4/91.1.1.1/tcp/7");
    assert_eq!(mapping(&rig, false, Transport::Tcp), Mapping::Independent);
    rig.tell(Event::Interfaces(own("10.7.7.7", 8)));
    assert_eq!(mapping(&rig, false, Transport::Tcp), Mapping::Unknown, "another network");
}

#[test]
fn an_interface_with_the_address_that_others_see_has_no_nat() {
    let mut rig = listening(Config::desktop(), own("45.1.1.1", 24), &["45.1.1.1", "2a02:8100::1"]);
    see(&mut rig, 1, Direction::Outbound, "/ip4/45.1.1.1/tcp/4001");
    assert_eq!(mapping(&rig, false, Transport::Tcp), Mapping::None);
    assert_eq!(mapping(&rig, true, Transport::Tcp), Mapping::Unknown, "each family by itself");
    let kinds: Vec<_> = node(&rig).mappings.iter().map(|view| (view.ipv6, view.transport)).collect();
    assert_eq!(kinds.len(), 4, "{kinds:?}");
}

#[test]
fn an_observer_that_changes_its_mind_leaves_one_candidate() {
    let mut rig = at_home();
    let connection = see(&mut rig, 1, Direction::Outbound, "/ip4/91.1.1.1/tcp/7");
    for port in 1..2_000 {
        let seen: Address = address(&format!("/ip4/91.1.1.1/tcp/{port}"));
        rig.identified_as(connection, 1, Identity { observed: Some(seen), ..kinfolk() });
    }
    let candidates: Vec<_> = node(&rig).candidates.iter().map(|own| own.address.port()).collect();
    assert_eq!(candidates, [Some(1_999)]);
}
