//! Which of our addresses are told to others, and whether we hold ourselves reachable, by what probes and visitors show.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "tests")]

mod common;

use common::*;
use kinfolk_core::{
    Action, Address, Ask, CloseCause, CommandId, Config, ConnectionId, Direction, Event, Identity, Interfaces,
    ListenerId, Notice, Origin, PeerAddress, Prefix, ProbeVerdict, Reachability, Reason, RequestId, Role, Time,
    Transport,
};

const SEEN: &str = "/ip4/91.1.1.1/udp/4001/quic-v1";
const V6: &str = "/ip6/2a02:8100:1::7/udp/4001/quic-v1";

/// How a server answers when it is asked to probe.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Server {
    Honest,
    AlwaysNo,
    AlwaysYes,
    Refusing,
    /// Behind the same public address as we are.
    SameHouse,
}

impl Server {
    fn of(word: &str) -> Self {
        match word {
            "honest" => Self::Honest,
            "always-no" => Self::AlwaysNo,
            "always-yes" => Self::AlwaysYes,
            "refusing" => Self::Refusing,
            "same-house" => Self::SameHouse,
            _ => panic!("{word}"),
        }
    }

    fn verdict(self, is_open: bool) -> ProbeVerdict {
        match self {
            Self::Honest | Self::SameHouse if is_open => ProbeVerdict::Reachable,
            Self::Honest | Self::SameHouse | Self::AlwaysNo => ProbeVerdict::DialFailed,
            Self::AlwaysYes if is_open => ProbeVerdict::Reachable,
            Self::AlwaysYes => ProbeVerdict::Unproven,
            Self::Refusing => ProbeVerdict::Refused,
        }
    }
}

fn prober() -> Identity {
    let mut identity = kinfolk();
    identity.protocols.push("/libp2p/autonat/2/dial-request".into());
    identity
}

/// We have dialled server n, and it sees us at `seen`.
fn meet(rig: &mut Rig, n: u64, at: Address, seen: &str) -> ConnectionId {
    let connection = rig.connected(n, Direction::Outbound, at, Origin::Dial(CommandId(0)));
    rig.identified_as(connection, n, Identity { observed: Some(address(seen)), ..prober() });
    connection
}

fn probes(rig: &Rig) -> Vec<(CommandId, u64, Address)> {
    rig.commands
        .iter()
        .filter_map(|command| match &command.action {
            Action::Probe { server, address } => Some((command.id, number(server), address.clone())),
            _ => None,
        })
        .collect()
}

/// Lets time pass; probes are answered a second after they were asked for. Returns what was commanded.
fn run(rig: &mut Rig, span: u64, mut verdict: impl FnMut(u64, &Address) -> ProbeVerdict) -> Vec<Action> {
    let mut all = vec![];
    for second in 0..span {
        if second % 20 == 0 {
            stay_alive(rig);
        }
        let asked = probes(rig);
        all.extend(rig.take().into_iter().map(|command| command.action));
        rig.pass(secs(1));
        for (probe, server, address) in asked {
            rig.tell(Event::Probed { probe, verdict: verdict(server, &address) });
        }
    }
    all
}

/// Everybody who is here answers a ping.
fn stay_alive(rig: &mut Rig) {
    let view = rig.node.view().unwrap();
    let of = |peer: kinfolk_core::view::PeerView<'_>| {
        let n = number(&peer.peer);
        peer.connections.iter().map(|one| (one.connection, n)).collect::<Vec<_>>()
    };
    let all: Vec<_> = view.peers().flat_map(of).collect();
    for (connection, n) in all {
        rig.pong(connection, n);
    }
}

fn reachability(rig: &Rig) -> Reachability {
    rig.node.view().unwrap().node().reachability
}

fn is_told(rig: &Rig, text: &str) -> bool {
    rig.node.view().unwrap().node().advertised.contains(&&address(text))
}

fn confidence(rig: &Rig, text: &str) -> Option<u8> {
    let node = rig.node.view().unwrap().node();
    node.candidates.iter().find(|own| *own.address == address(text)).map(|own| own.confidence)
}

/// A node that listens at home.
fn at_home(config: Config) -> Rig {
    let mut rig = Rig::new(config);
    rig.listening("/ip4/192.168.1.2/udp/4001/quic-v1");
    rig.take();
    rig
}

#[test]
fn what_a_near_server_sees_before_the_listener_is_up_counts() {
    let mut rig = Rig::new(Config::desktop());
    meet(&mut rig, 1, global(1), SEEN);
    rig.listening("/ip4/192.168.1.2/udp/4001/quic-v1");
    rig.take();
    rig.pass(secs(5));
    assert_eq!(
        probes(&rig).iter().map(|(_, server, at)| (*server, at.clone())).collect::<Vec<_>>(),
        [(1, address(SEEN))]
    );
}

#[test]
fn servers_and_visitors_decide_and_no_liar_alone() {
    // What is so | who probes for us | visitors' networks | after so many seconds | the verdict | whether it is told.
    let table = "
        open   | honest                       | 0 | 5     | Public  | told
        open   | honest honest                | 0 | 5     | Public  | told
        open   | honest honest                | 0 | 20000 | Public  | told
        closed | honest                       | 0 | 60    | Private | no
        closed | honest honest                | 0 | 60    | Private | no
        closed | honest                       | 0 | 20000 | Private | no
        open   |                              | 0 | 60    | Unknown | no
        open   |                              | 2 | 60    | Public  | no
        open   |                              | 1 | 60    | Unknown | no
        open   | refusing                     | 0 | 600   | Unknown | no
        closed | refusing                     | 0 | 600   | Unknown | no
        open   | refusing honest              | 0 | 60    | Public  | told
        closed | refusing honest              | 0 | 60    | Private | no
        closed | always-yes                   | 0 | 600   | Unknown | no
        closed | always-yes honest            | 0 | 60    | Private | no
        open   | always-no                    | 2 | 60    | Public  | no
        open   | always-no honest             | 0 | 60    | Public  | told
        open   | honest always-no             | 0 | 20000 | Public  | told
        open   | always-no always-no honest   | 0 | 20000 | Public  | told
        open   | always-no                    | 1 | 300   | Unknown | no
        open   | same-house                   | 0 | 60    | Unknown | no
        closed | same-house                   | 0 | 60    | Unknown | no
    ";
    for row in table.trim().lines() {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let servers: Vec<Server> = cells[1].split_whitespace().map(Server::of).collect();
        let mut rig = at_home(Config::desktop());
        for (at, server) in servers.iter().enumerate() {
            let n = at as u64 + 1;
            let from = if *server == Server::SameHouse { address("/ip4/91.1.1.1/tcp/9") } else { global(n) };
            meet(&mut rig, n, from, SEEN);
        }
        for n in 0..cells[2].parse().unwrap() {
            rig.inbound(50 + n, global(50 + n));
        }
        let is_open = cells[0] == "open";
        run(&mut rig, cells[3].parse().unwrap(), |n, _| servers[n as usize - 1].verdict(is_open));
        let told = if is_told(&rig, SEEN) { "told" } else { "no" };
        assert_eq!((format!("{:?}", reachability(&rig)).as_str(), told), (cells[4], cells[5]), "{row}");
    }
}

#[test]
fn an_address_is_probed_a_second_after_it_was_seen_by_two_networks_and_then_hourly() {
    let mut rig = at_home(Config::desktop());
    meet(&mut rig, 1, global(1), SEEN);
    meet(&mut rig, 2, global(2), SEEN);
    let start = rig.now;
    let mut asked = vec![];
    while rig.now < start + secs(3 * 3_600) {
        for (probe, server, _) in probes(&rig) {
            asked.push(((rig.now - start).as_secs(), server));
            rig.tell(Event::Probed { probe, verdict: ProbeVerdict::Reachable });
        }
        rig.take();
        rig.pass(secs(1));
        stay_alive(&mut rig);
    }
    assert_eq!(asked[..2], [(1, 1), (2, 2)]);
    assert!((2..=3).contains(&(asked.len() - 2)), "{asked:?}");
    assert!(asked[2..].iter().all(|(at, _)| *at > 2_880), "{asked:?}");
}

#[test]
fn one_failure_changes_nothing_and_three_take_the_address_back() {
    let mut rig = at_home(Config::desktop());
    meet(&mut rig, 1, global(1), SEEN);
    run(&mut rig, 30, |_, _| ProbeVerdict::Reachable);
    assert_eq!((reachability(&rig), confidence(&rig, SEEN)), (Reachability::Public, Some(3)));
    let mut failures = 0;
    while failures < 3 {
        assert_eq!(
            (reachability(&rig), is_told(&rig, SEEN)),
            (Reachability::Public, true),
            "after {failures} failures"
        );
        let before = rig.now;
        while probes(&rig).is_empty() {
            rig.pass(secs(1));
            stay_alive(&mut rig);
            assert!(rig.now < before + secs(2 * 3_600), "no probe more");
        }
        let (probe, ..) = probes(&rig)[0];
        rig.take();
        rig.tell(Event::Probed { probe, verdict: ProbeVerdict::DialFailed });
        failures += 1;
        assert_eq!(confidence(&rig, SEEN).unwrap_or(0), 3 - failures);
    }
    assert!(!is_told(&rig, SEEN));
    rig.pass(secs(16));
    assert_eq!(reachability(&rig), Reachability::Private);
}

#[test]
fn while_visitors_come_failures_cost_nothing() {
    let mut rig = at_home(Config::desktop());
    meet(&mut rig, 1, global(1), SEEN);
    run(&mut rig, 30, |_, _| ProbeVerdict::Reachable);
    for n in 0..120 {
        let visitor = rig.inbound(60 + n % 3, global(60));
        run(&mut rig, 300, |_, _| ProbeVerdict::DialFailed);
        rig.tell(Event::Disconnected { connection: visitor, peer: peer(60 + n % 3), cause: CloseCause::Remote });
    }
    assert_eq!(confidence(&rig, SEEN), Some(3), "ten hours of a server that says no");
    assert_eq!((reachability(&rig), is_told(&rig, SEEN)), (Reachability::Public, true));
}

#[test]
fn who_comes_where_we_have_opened_the_way_is_no_visitor() {
    type Case = (&'static str, fn(&mut Rig, u64), Reachability);
    let cases: [Case; 6] = [
        ("a stranger", |rig, n| _ = rig.inbound(n, global(n)), Reachability::Public),
        (
            "connected from here",
            |rig, n| {
                rig.connected(n, Direction::Outbound, global(n), Origin::Dial(CommandId(0)));
                rig.inbound(n, global(n));
            },
            Reachability::Unknown,
        ),
        (
            "relayed",
            |rig, n| {
                rig.inbound(n, Address::relayed(peer(90)));
                rig.inbound(n, global(n));
            },
            Reachability::Unknown,
        ),
        (
            "dialled, whoever is there",
            |rig, n| {
                let connect = Ask::Connect(PeerAddress { peer: None, address: Some(global(n)) });
                rig.tell(Event::Asked { request: RequestId(n), ask: connect });
                assert!(!rig.dials().is_empty());
                rig.inbound(n, global(n));
            },
            Reachability::Unknown,
        ),
        (
            "punched",
            |rig, n| _ = rig.connected(n, Direction::Inbound, global(n), Origin::Punch(CommandId(9))),
            Reachability::Unknown,
        ),
        (
            "asked to probe",
            |rig, n| _ = rig.connected(n, Direction::Inbound, global(n), Origin::Probe(CommandId(9))),
            Reachability::Unknown,
        ),
    ];
    for (what, come, verdict) in cases {
        let mut rig = at_home(Config::desktop());
        for n in 1..=3 {
            come(&mut rig, n);
        }
        rig.pass(secs(20));
        assert_eq!(reachability(&rig), verdict, "{what}");
    }
}

/// Everybody who has come, and will come no more.
fn visited_by_two(rig: &mut Rig) {
    for n in [61, 62] {
        let visitor = rig.inbound(n, global(n));
        rig.pass(secs(20));
        rig.tell(Event::Disconnected { connection: visitor, peer: peer(n), cause: CloseCause::Remote });
    }
}

#[test]
fn a_verdict_does_not_age_while_somebody_can_look_again() {
    let mut rig = at_home(Config::desktop());
    visited_by_two(&mut rig);
    assert_eq!(reachability(&rig), Reachability::Public);
    run(&mut rig, 2_000, |_, _| ProbeVerdict::Reachable);
    // A server that neither proves nor refutes: the probe is lost.
    meet(&mut rig, 1, global(1), SEEN);
    let mut asked = 0;
    for _ in 0..240 {
        asked += probes(&rig).len();
        for (probe, ..) in probes(&rig) {
            rig.take();
            rig.tell(Event::Probed { probe, verdict: ProbeVerdict::DialBackFailed });
        }
        let before = reachability(&rig);
        rig.pass(secs(5));
        stay_alive(&mut rig);
        let rests = probes(&rig).is_empty();
        assert!(reachability(&rig) == before || rests, "it turned while a probe was under way");
    }
    assert!(asked > 3, "{asked} probes");
}

#[test]
fn once_visitors_have_come_old_failures_make_nobody_private() {
    let mut rig = at_home(Config::desktop());
    let server = meet(&mut rig, 1, global(1), SEEN);
    run(&mut rig, 600, |_, _| ProbeVerdict::DialFailed);
    assert_eq!(reachability(&rig), Reachability::Private);
    rig.tell(Event::Disconnected { connection: server, peer: peer(1), cause: CloseCause::Remote });
    visited_by_two(&mut rig);
    run(&mut rig, 120, |_, _| ProbeVerdict::DialFailed);
    assert_eq!(reachability(&rig), Reachability::Public);
    run(&mut rig, 15_000, |_, _| ProbeVerdict::DialFailed);
    assert_eq!(reachability(&rig), Reachability::Unknown, "nobody has looked since");
}

#[test]
fn a_server_that_has_come_to_us_probes_if_we_have_dialled_it_before() {
    for dialled_before in [true, false] {
        let mut rig = at_home(Config::desktop());
        if dialled_before {
            rig.tell(Event::Asked { request: RequestId(1), ask: Ask::Connect(PeerAddress::new(peer(1), global(1))) });
            let connection = rig.dial_succeeds(1);
            rig.tell(Event::Disconnected { connection, peer: peer(1), cause: CloseCause::Remote });
        }
        let from = address("/ip4/45.10.1.1/udp/39389/quic-v1");
        let connection = rig.inbound(1, from);
        rig.identified_as(connection, 1, Identity { observed: Some(address(SEEN)), ..prober() });
        let all = run(&mut rig, 30, |_, _| ProbeVerdict::Reachable);
        let asked = all.iter().any(|action| matches!(action, Action::Probe { .. }));
        assert_eq!(asked, dialled_before, "whoever only comes may be anybody");
        assert_eq!(reachability(&rig) == Reachability::Public, dialled_before);
    }
}

#[test]
fn a_dialable_node_stays_public_when_its_proof_ages_and_its_server_has_come_by_itself() {
    let mut rig = at_home(Config::desktop());
    rig.tell(Event::Asked { request: RequestId(1), ask: Ask::Pin(PeerAddress::new(peer(1), global(1))) });
    let connection = rig.dial_succeeds(1);
    rig.identified_as(connection, 1, Identity { observed: Some(address(SEEN)), ..prober() });
    rig.tell(Event::Disconnected { connection, peer: peer(1), cause: CloseCause::Remote });
    let connection = rig.inbound(1, address("/ip4/45.10.1.1/udp/39389/quic-v1"));
    rig.identified_as(connection, 1, Identity { observed: Some(address(SEEN)), ..prober() });
    visited_by_two(&mut rig);
    assert_eq!(reachability(&rig), Reachability::Public);
    rig.take();
    let all = run(&mut rig, 8 * 3_600, |_, _| ProbeVerdict::Reachable);
    let turned = |action: &&Action| matches!(action, Action::Tell(Notice::ReachabilityChanged { .. }));
    assert_eq!(all.iter().filter(turned).count(), 0);
}

#[test]
fn a_verdict_that_has_just_changed_is_not_changed_back_at_once() {
    let mut rig = at_home(Config::desktop());
    visited_by_two(&mut rig);
    while reachability(&rig) == Reachability::Public {
        rig.pass(secs(1));
        assert!(rig.now < Time::from_secs(4_000), "visits age while nobody can look again");
    }
    let (changed, dwell) = (rig.now, Config::desktop().nat.dwell);
    rig.take();
    meet(&mut rig, 1, global(1), SEEN);
    while reachability(&rig) != Reachability::Public {
        run(&mut rig, 1, |_, _| ProbeVerdict::Reachable);
        assert!(rig.now < changed + secs(60));
    }
    assert!(rig.now.since(changed) >= dwell, "after {:?}", rig.now.since(changed));
}

#[test]
fn an_interface_address_behind_a_firewall_is_told_no_more_but_stays_a_candidate() {
    for (role, told_in_the_end) in [(Role::Family, false), (Role::Server, true)] {
        let mut rig = Rig::new(Config::of(role));
        rig.listening(V6);
        assert!(is_told(&rig, V6), "peers may try it until it is known to be closed");
        for n in [1, 2] {
            meet(&mut rig, n, address(&format!("/ip6/2a01:4f8:{n}::1/udp/4001/quic-v1")), V6);
        }
        let all = run(&mut rig, 30, |_, _| ProbeVerdict::DialFailed);
        assert_eq!(is_told(&rig, V6), told_in_the_end, "{role:?}");
        assert!(confidence(&rig, V6).is_some());
        let withdrawn = all.contains(&Action::Withdraw { address: address(V6) });
        assert_eq!(withdrawn, !told_in_the_end);
        rig.inbound(77, address("/ip6/2a01:4f8:77::1/udp/4001/quic-v1"));
        assert!(is_told(&rig, V6), "somebody came by IPv6 and QUIC after all");
    }
}

#[test]
fn a_server_without_ipv6_says_nothing_about_ipv6() {
    let mut rig = Rig::new(Config::desktop());
    rig.listening(V6);
    rig.tell(Event::Listening { listener: ListenerId(1), command: CommandId(1), address: address(SEEN) });
    meet(&mut rig, 1, global(1), SEEN);
    let asked = |all: &[Action], text: &str| all.contains(&Action::Probe { server: peer(1), address: address(text) });
    let all = run(&mut rig, 60, |_, _| ProbeVerdict::DialFailed);
    assert!(asked(&all, SEEN) && !asked(&all, V6), "{all:?}");
    let identity = Identity { addresses: vec![address("/ip6/2a01:4f8:1::1/tcp/4001")], ..prober() };
    rig.identified_as(ConnectionId(1), 1, identity);
    let all = run(&mut rig, 40, |_, _| ProbeVerdict::DialFailed);
    assert!(asked(&all, V6), "{all:?}");
}

#[test]
fn a_server_that_was_dialled_by_name_counts_by_its_own_addresses() {
    let mut config = Config::desktop();
    config.bootstrap = vec![PeerAddress::new(peer(1), address("/dns4/node.example/tcp/4001"))];
    let mut rig = at_home(config);
    let connection =
        rig.connected(1, Direction::Outbound, address("/dns4/node.example/tcp/4001"), Origin::Dial(CommandId(0)));
    let identity =
        Identity { observed: Some(address(SEEN)), addresses: vec![address("/ip4/45.20.1.1/tcp/4001")], ..prober() };
    rig.identified_as(connection, 1, identity);
    assert_eq!(rig.node.view().unwrap().node().candidates.len(), 1);
    rig.pass(secs(2));
    assert_eq!(probes(&rig).len(), 1);
}

#[test]
fn a_probe_without_an_answer_is_dropped_and_the_server_rests() {
    let mut rig = at_home(Config::desktop());
    meet(&mut rig, 1, global(1), SEEN);
    rig.pass(secs(3));
    let (probe, ..) = probes(&rig)[0];
    rig.take();
    rig.pass(secs(28));
    assert!(rig.commands.iter().any(|command| command.action == Action::CancelProbe { probe }));
    assert_eq!(probes(&rig), [], "it rests for 5 s");
    rig.tell(Event::Probed { probe, verdict: ProbeVerdict::Reachable });
    assert_eq!(confidence(&rig, SEEN), Some(0), "late answers count for nothing");
    rig.pass(secs(6));
    assert_eq!(probes(&rig).len(), 1);
}

#[test]
fn a_liar_is_not_asked_again_for_an_hour_and_a_refusal_waits_longer_each_time() {
    let mut rig = at_home(Config::desktop());
    meet(&mut rig, 1, global(1), SEEN);
    let count = |all: &[Action]| all.iter().filter(|action| matches!(action, Action::Probe { .. })).count();
    let all = run(&mut rig, 3_500, |_, _| ProbeVerdict::Unproven);
    assert_eq!(count(&all), 1);
    // Observations age; the liar is still there an hour later.
    rig.identified_as(ConnectionId(1), 1, Identity { observed: Some(address(SEEN)), ..prober() });
    assert_eq!(count(&run(&mut rig, 200, |_, _| ProbeVerdict::Unproven)), 1);

    let mut rig = at_home(Config::desktop());
    meet(&mut rig, 1, global(1), SEEN);
    let first = count(&run(&mut rig, 600, |_, _| ProbeVerdict::Refused));
    let then = count(&run(&mut rig, 600, |_, _| ProbeVerdict::Refused));
    assert!((5..=8).contains(&first) && then <= 3, "{first} {then}");
}

#[test]
fn liars_that_name_ever_new_addresses_do_not_use_up_the_uplink() {
    let mut rig = at_home(Config::desktop());
    for n in 1..=12 {
        meet(&mut rig, n, global(n), &format!("/ip4/92.1.1.{n}/udp/4001/quic-v1"));
    }
    let mut count = 0;
    for round in 0..60 {
        for n in 1..=12 {
            let lie = address(&format!("/ip4/92.{round}.2.{n}/udp/4001/quic-v1"));
            rig.identified_as(ConnectionId(n), n, Identity { observed: Some(lie), ..prober() });
        }
        let all = run(&mut rig, 10, |_, _| ProbeVerdict::DialFailed);
        count += all.iter().filter(|action| matches!(action, Action::Probe { .. })).count();
    }
    assert!((10..=40).contains(&count), "{count} probes in ten minutes");
}

#[test]
fn two_probes_at_once_and_one_to_each_server() {
    let mut rig = Rig::new(Config::desktop());
    rig.listening("/ip4/45.90.90.90/tcp/4001");
    for (id, own) in [(1, SEEN), (1, "/ip4/45.90.90.90/udp/4001/quic-v1"), (1, "/ip4/45.90.90.91/udp/4001/quic-v1")] {
        rig.tell(Event::Listening { listener: ListenerId(id), command: CommandId(1), address: address(own) });
    }
    meet(&mut rig, 1, global(1), SEEN);
    rig.pass(secs(3));
    assert_eq!(probes(&rig).len(), 1);
    for n in 2..6 {
        meet(&mut rig, n, global(n), SEEN);
    }
    rig.pass(secs(3));
    let asked = probes(&rig);
    assert_eq!(asked.len(), 2);
    assert_ne!(asked[0].1, asked[1].1);
}

#[test]
fn a_server_that_dials_back_goes_on_being_asked() {
    let mut rig = at_home(Config::desktop());
    let dialled = meet(&mut rig, 1, global(1), SEEN);
    rig.pass(secs(1));
    let [(probe, 1, _)] = probes(&rig)[..] else { panic!("{:?}", probes(&rig)) };
    // On the connection by which it comes it offers no probes, and says so.
    let back = rig.connected(1, Direction::Inbound, address("/ip4/45.9.9.9/udp/50123/quic-v1"), Origin::Probe(probe));
    rig.identified(back, 1);
    rig.tell(Event::Probed { probe, verdict: ProbeVerdict::Reachable });
    rig.take();
    rig.pass(secs(2));
    let [(probe, 1, _)] = probes(&rig)[..] else { panic!("{:?}", probes(&rig)) };
    rig.tell(Event::Probed { probe, verdict: ProbeVerdict::Reachable });
    // What it says where it was dialled counts.
    rig.identified(dialled, 1);
    rig.take();
    rig.pass(secs(7_200));
    assert_eq!(probes(&rig), []);
}

#[test]
fn another_wi_fi_is_judged_anew_within_seconds() {
    let mut rig = at_home(Config::desktop());
    let connection = meet(&mut rig, 1, global(1), SEEN);
    run(&mut rig, 60, |_, _| ProbeVerdict::Reachable);
    assert_eq!(reachability(&rig), Reachability::Public);
    let cafe = Interfaces {
        addresses: vec![Prefix { ip: "10.3.0.9".parse().unwrap(), len: 16 }],
        default_v4: true,
        default_v6: false,
    };
    rig.tell(Event::Interfaces(cafe));
    assert_eq!((reachability(&rig), is_told(&rig, SEEN)), (Reachability::Unknown, false));
    let mapped = |rig: &Rig| rig.commands.iter().filter(|one| matches!(one.action, Action::MapPort { .. })).count();
    assert_eq!(mapped(&rig), 1, "the router there is asked");
    rig.tell(Event::Disconnected { connection, peer: peer(1), cause: CloseCause::Remote });
    rig.take();
    let there = "/ip4/93.1.1.1/udp/4001/quic-v1";
    meet(&mut rig, 1, global(1), there);
    run(&mut rig, 5, |_, _| ProbeVerdict::Reachable);
    assert_eq!((reachability(&rig), is_told(&rig, there)), (Reachability::Public, true));
}

#[test]
fn a_router_that_gives_us_another_address_makes_us_doubt_the_old_one_at_once() {
    let mut rig = at_home(Config::desktop());
    let connection = meet(&mut rig, 1, global(1), SEEN);
    run(&mut rig, 60, |_, _| ProbeVerdict::Reachable);
    let new = "/ip4/91.1.1.99/udp/4001/quic-v1";
    rig.identified_as(connection, 1, Identity { observed: Some(address(new)), ..prober() });
    run(
        &mut rig,
        40,
        |_, asked| if *asked == address(new) { ProbeVerdict::Reachable } else { ProbeVerdict::DialFailed },
    );
    assert_eq!((is_told(&rig, SEEN), is_told(&rig, new)), (false, true));
    assert_eq!(reachability(&rig), Reachability::Public);
}

#[test]
fn a_mapped_address_may_have_any_port_and_is_told_once_proven_or_when_nobody_can() {
    let mapped = "/ip4/91.1.1.1/udp/41540/quic-v1";
    let map = |rig: &mut Rig| {
        rig.tell(Event::PortMapped { transport: Transport::Quic, external: address(mapped) });
        assert!(!is_told(rig, mapped));
    };
    let why = |all: &[kinfolk_core::Command]| {
        let told = |command: &&kinfolk_core::Command| command.action == Action::Advertise { address: address(mapped) };
        all.iter().find(told).map(|command| command.reason.clone())
    };

    let mut rig = at_home(Config::desktop());
    map(&mut rig);
    rig.pass(secs(14));
    assert!(!is_told(&rig, mapped), "somebody may still come who can prove it");
    rig.pass(secs(2));
    assert!(is_told(&rig, mapped));
    assert_eq!(why(&rig.take()), Some(Reason::Mapped));
    assert_eq!(reachability(&rig), Reachability::Unknown, "the router's word is no proof");
    meet(&mut rig, 1, global(1), SEEN);
    run(&mut rig, 40, |_, _| ProbeVerdict::DialFailed);
    assert!(!is_told(&rig, mapped));

    let mut rig = at_home(Config::desktop());
    meet(&mut rig, 1, global(1), SEEN);
    meet(&mut rig, 2, global(2), SEEN);
    map(&mut rig);
    run(&mut rig, 10, |n, asked| {
        let yes = *asked == address(mapped) && n == 1;
        if yes { ProbeVerdict::Reachable } else { ProbeVerdict::DialFailed }
    });
    assert!(is_told(&rig, mapped), "one proof will do");
    rig.tell(Event::PortUnmapped { transport: Transport::Quic });
    assert!(!is_told(&rig, mapped));
}

#[test]
fn nothing_private_is_ever_told() {
    let mut rig = at_home(Config::desktop());
    for text in
        ["/ip4/192.168.1.2/udp/4001/quic-v1", "/ip4/100.64.1.1/udp/4001/quic-v1", "/ip4/10.0.0.1/udp/4001/quic-v1"]
    {
        for n in 1..6 {
            let connection = rig.inbound(n, global(n));
            rig.identified_as(connection, n, Identity { observed: Some(address(text)), ..prober() });
        }
        rig.tell(Event::PortMapped { transport: Transport::Quic, external: address(text) });
        rig.tell(Event::Confirmed { asker: kinfolk_core::Asker::Relay, address: address(text) });
    }
    rig.pass(secs(60));
    let node = rig.node.view().unwrap().node();
    assert_eq!((node.advertised.len(), node.candidates.len()), (0, 0));
    assert_eq!(probes(&rig), []);
}

#[test]
fn an_operator_and_a_server_need_no_proof() {
    let mut config = Config::desktop();
    config.nat.external = vec![address(SEEN)];
    let rig = Rig::new(config);
    assert_eq!(reachability(&rig), Reachability::Public);
    let mut rig = Rig::new(Config::server());
    rig.listening("/ip4/45.90.90.90/tcp/4001");
    assert_eq!(reachability(&rig), Reachability::Public);
    assert!(rig.notices().contains(&Notice::ReachabilityChanged { reachability: Reachability::Public }));
    assert!(rig.now < Time::from_secs(2));
}

#[test]
fn a_liar_that_puts_us_where_an_honest_server_is_does_not_keep_it_from_being_asked() {
    let mut rig = at_home(Config::desktop());
    meet(&mut rig, 2, global(2), "/ip4/45.10.1.1/udp/4001/quic-v1");
    meet(&mut rig, 1, global(1), SEEN);
    let all = run(&mut rig, 60, |n, asked| match (n, *asked == address(SEEN)) {
        (1, true) => ProbeVerdict::Reachable,
        _ => ProbeVerdict::DialFailed,
    });
    assert!(all.contains(&Action::Probe { server: peer(1), address: address(SEEN) }), "{all:?}");
    assert_eq!(reachability(&rig), Reachability::Public);
}

#[test]
fn circuits_are_told_while_our_own_addresses_may_not_do() {
    let mut config = Config::desktop();
    config.nat.relays = vec![PeerAddress::new(peer(1), global(1))];
    let mut rig = Rig::new(config);
    rig.listening("/ip4/192.168.1.2/udp/4001/quic-v1");
    let relay = rig.dial_succeeds(1);
    let mut identity = prober();
    identity.protocols.push("/libp2p/circuit/relay/0.2.0/hop".into());
    rig.identified_as(relay, 1, Identity { observed: Some(address(SEEN)), ..identity });
    rig.pass(secs(6));
    let reserve =
        rig.commands.iter().find(|one| matches!(one.action, Action::Reserve { .. })).expect("a reservation").id;
    let circuit = format!("/ip4/45.10.1.1/udp/4001/quic-v1/p2p/{}/p2p-circuit", peer(1));
    rig.tell(Event::Reserved { reservation: reserve, limit: None, lasts: None });
    rig.tell(Event::ReservedAt { reservation: reserve, address: address(&circuit) });
    assert!(is_told(&rig, &circuit), "{}", rig.words());
    run(&mut rig, 40, |_, _| ProbeVerdict::Reachable);
    assert_eq!(reachability(&rig), Reachability::Public);
    assert!(is_told(&rig, SEEN) && !is_told(&rig, &circuit), "who can be reached needs no relay");
}
