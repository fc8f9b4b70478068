//! Networks as they are met, and what is said of each.

use std::time::Duration;

use kinfolk_core::{Interfaces, Prefix, Role};
use kinfolk_shell::api::types::{Peer, Snapshot, Status};
use serde_json::{Value, json};

use super::{
    facts::{Asked, Clock, Facts, Kind, Reached, Server, Try},
    report::{Report, Verdict},
};

const ADA: &str = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";
const BOB: &str = "12D3KooWQYhTNQdmr3ArTeUHRYzFg94BKyTkoWBDWez9kSCVe2Xo";
const SERVER: &str = "/ip4/45.1.2.9";

/// A status, with this in place of what it says.
fn status(more: Value) -> Status {
    let mut all: Value = serde_json::from_str(include_str!("../render/behind_a_nat.json")).unwrap();
    let plain = json!({ "reachability": "unknown", "reachability_text": "not known", "candidates": [],
        "own_addresses": [], "mappings": [], "nat": null, "nat_text": null, "gateway": null, "port_mappings": [],
        "relays": [], "relays_wanted": 0, "listening": ["/ip4/192.168.1.7/tcp/4001", "/ip4/192.168.1.7/udp/4001/quic-v1"] });
    for part in [plain, more] {
        all.as_object_mut().unwrap().extend(part.as_object().unwrap().clone());
    }
    serde_json::from_value(all).unwrap()
}

/// A home with nothing wrong, and nothing known of the internet.
fn home() -> Facts {
    let prefix = |ip: &str, len| Prefix { ip: ip.parse().unwrap(), len };
    Facts {
        interfaces: Interfaces {
            addresses: vec![prefix("127.0.0.1", 8), prefix("192.168.1.7", 24)],
            default_v4: true,
            default_v6: false,
        },
        settings: Asked { role: Role::Desktop, mdns: true, port_mapping: true },
        temporary: Snapshot { status: status(json!({})), peers: vec![] },
        running: None,
        servers: vec![],
        multicast: vec![("192.168.1.7".parse().unwrap(), Ok(()))],
        clock: Clock { unix: 1_795_000_000, synced: Some(true) },
        took: Duration::from_secs(4),
    }
}

fn tried(address: &str, certain: bool, result: Result<u64, &str>) -> Try {
    let reached = |rtt| Reached { peer: BOB.parse().unwrap(), rtt_us: Some(rtt) };
    Try { address: address.parse().ok(), certain, result: result.map(reached).map_err(str::to_owned) }
}

fn server(tries: Vec<Try>) -> Server {
    Server { given: format!("{SERVER}/tcp/4001"), kind: Kind::Bootstrap, tries }
}

/// What is said under this id: the verdict, then the text, then the advice.
fn told(facts: &Facts, id: &str) -> Vec<String> {
    let report = Report::of(facts);
    let problems = report.findings.iter().any(|finding| finding.verdict == Verdict::Problem);
    assert_eq!(report.ok, !problems);
    let found = report.findings.into_iter().filter(|finding| finding.id == id);
    found
        .map(|finding| {
            let about = finding.about.map(|about| format!("{about}: ")).unwrap_or_default();
            let advice = finding.advice.map(|advice| format!(" -> {advice}")).unwrap_or_default();
            format!("{:?}: {about}{}{advice}", finding.verdict, finding.text)
        })
        .collect()
}

/// The one thing that is said under this id begins so.
#[track_caller]
fn says(facts: &Facts, id: &str, begin: &str) {
    let told = told(facts, id);
    assert!(told.len() == 1 && told[0].starts_with(begin), "{id}: {told:#?}");
}

fn over(status_of: Value) -> Facts {
    let mut facts = home();
    facts.temporary.status = status(status_of);
    facts
}

#[test]
fn signal_servers_are_told_apart() {
    let server = |state: &str, peers: u32, failures: u32| {
        json!({ "server": "https://a.example", "state": state, "peers": peers, "failures": failures,
                "error": (failures > 0).then_some("no answer in time") })
    };
    says(
        &over(json!({ "signal": [server("answered", 3, 0)] })),
        "signal",
        "Ok: https://a.example: the signal server tells 3",
    );
    says(
        &over(json!({ "signal": [server("answered", 0, 0)] })),
        "signal",
        "Ok: https://a.example: the signal server answers",
    );
    says(&over(json!({ "signal": [server("not_asked", 0, 0)] })), "signal", "Unknown: https://a.example: ");
    let failed = over(json!({ "signal": [server("failed", 0, 2)] }));
    says(&failed, "signal", "Problem: https://a.example: the signal server does not tell peers: no answer in time -> ");
    assert_eq!(told(&failed, "bootstrap"), [""; 0], "there is somebody to begin with");
}

#[test]
fn a_whole_report_reads_like_an_answer() {
    let all: Status = serde_json::from_str(include_str!("../render/behind_a_nat.json")).unwrap();
    let mut facts = home();
    facts.running = Some(Snapshot { status: all, peers: vec![] });
    let quic = format!("{SERVER}/udp/4001/quic-v1");
    facts.servers = vec![
        server(vec![tried(&format!("{SERVER}/tcp/4001"), true, Ok(23_400)), tried(&quic, false, Ok(19_000))]),
        Server {
            given: "/dns4/b.example/tcp/1".into(),
            kind: Kind::Relay,
            tries: vec![tried("-", true, Err("the name is not known"))],
        },
    ];
    let report = Report::of(&facts);
    let narrow = report.text(Some(60));
    assert!(narrow.lines().all(|line| line.chars().count() <= 60), "{narrow}");
    insta::assert_snapshot!(report.text(None), @r#"
    ok       node          a node is running here: connected
    ok       network       addresses 192.168.1.7; a way to the internet for IPv4, none for IPv6
    ok       clock         the clock is kept right by a time service
    ok       mdns          others on the home network can be looked for; nobody else was found
                           -> if another node runs there: do both use the same `network` name, and does the wireless router keep its devices apart ("client isolation", "guest network")?
    ok       bootstrap     /ip4/45.1.2.9/tcp/4001: the bootstrap peer answers (IPv4 TCP 23 ms, IPv4 QUIC 19 ms)
    PROBLEM  relay_server  /dns4/b.example/tcp/1: the relay was not reached: the name is not known
                           -> is the name spelt right, and does name resolution (DNS) work on this machine?
    ok       ipv4          the internet can be reached by IPv4
    note     ipv6          this machine has no way to the internet by IPv6
                           -> nothing has to be done; where the provider offers IPv6, switching it on in the router makes direct connections easier, since it needs no NAT
    ok       tcp           connections by TCP work
    ok       udp           connections by UDP (QUIC) work
    note     mapping       IPv4 TCP: the NAT uses another port for each destination: direct connections are possible only with peers whose NAT is easier, others are reached through a relay
                           -> switch on UPnP or PCP in the router, or have it forward this node's port; some routers call the kinder kind "full cone" or "endpoint-independent"
    note     mapping       IPv4 QUIC: the NAT uses another port for each destination: direct connections are possible only with peers whose NAT is easier, others are reached through a relay
                           -> switch on UPnP or PCP in the router, or have it forward this node's port; some routers call the kinder kind "full cone" or "endpoint-independent"
    ok       mapping       IPv6 QUIC: no NAT: this machine is on the internet itself
    ok       filtering     the NAT lets in packets from ports that nothing was sent to
    note     nat           the router's address is shared with other customers of the provider (carrier-grade NAT)
                           -> no setting of yours changes that: ask the provider for a public IPv4 address, or for IPv6
    note     port_mapping  the router lets /ip4/100.64.1.2/tcp/4001 lead here, which is no address on the internet
                           -> see `nat`: there is another NAT behind the router
    note     reachable     others can't reach this node from the internet
                           -> that is usual at home: others come through a relay, and directly where the NATs allow it
    ok       relays        1 of 2 wanted relays keeps a place for this node
    ok       relay         …kSCVe2Xo: keeps a place for this node for 5 min, 23 ms away
    note     relay         …Rz5EmSzc: the relay is full
    note     firewall      others get in only if the router and this machine's firewall let them
                           -> to be reached directly, have the router forward TCP port 4001 to this machine, and allow it in its firewall

    1 problem was found
    "#);
}

#[test]
fn the_shape_of_json_stays() {
    let report = serde_json::to_value(Report::of(&home())).unwrap();
    assert_eq!((&report["ok"], &report["node_running"], &report["took_s"]), (&json!(true), &json!(false), &json!(4)));
    insta::assert_json_snapshot!(report["findings"][0], @r#"
    {
      "about": null,
      "advice": "`kinfolk up` starts one",
      "id": "node",
      "text": "no node is running here; a temporary one has looked around",
      "verdict": "note"
    }
    "#);
    for finding in report["findings"].as_array().unwrap() {
        let keys: Vec<&String> = finding.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["about", "advice", "id", "text", "verdict"]);
    }
}

#[test]
fn the_network_of_this_machine() {
    says(&home(), "network", "Ok: addresses 192.168.1.7; a way to the internet for IPv4, none for IPv6");
    let mut facts = home();
    facts.interfaces.default_v4 = false;
    says(
        &facts,
        "network",
        "Problem: addresses 192.168.1.7, but no way to the internet -> this machine has no default route",
    );
    says(&facts, "ipv4", "Problem: this machine has no way to the internet by IPv4");
    facts.interfaces.default_v6 = true;
    says(&facts, "ipv4", "Note: this machine has no way to the internet by IPv4");
    facts.interfaces.addresses.truncate(1);
    says(&facts, "network", "Problem: this machine is in no network -> plug in the cable");
}

#[test]
fn the_clock() {
    let mut facts = home();
    says(&facts, "clock", "Ok: ");
    facts.clock.synced = Some(false);
    says(&facts, "clock", "Note: no time service keeps the clock right -> switch time synchronisation on");
    facts.clock.synced = None;
    says(&facts, "clock", "Unknown: ");
    for synced in [None, Some(true)] {
        facts.clock = Clock { unix: 3_600, synced };
        says(&facts, "clock", "Problem: the clock stands before 1975: nodes connect by TCP only");
        facts.clock = Clock { unix: 1_600_000_000, synced };
        says(&facts, "clock", "Problem: the clock is years behind");
    }
}

#[test]
fn others_on_the_home_network() {
    let found: Peer = serde_json::from_value(json!({ "peer": BOB, "state": "identified", "state_for_s": 1,
        "pinned": false, "blocked": false, "path": null, "rtt_us": null, "agent": null, "capabilities": [],
        "last_seen_s": null, "sync_position": null, "pending_requests": 0, "next_dial_in_s": null, "connections": [],
        "addresses": [{ "address": "/ip4/192.168.1.9/tcp/4001", "sources": ["mdns"], "last_success_s": null,
            "last_error": null, "retry_in_s": null }] }))
    .unwrap();
    let mut facts = home();
    says(&facts, "mdns", "Ok: others on the home network can be looked for; nobody else was found -> if another node");
    facts.temporary.peers.push(found.clone());
    says(&facts, "mdns", "Ok: 1 other node found on the home network");
    let mut itself = status(json!({}));
    itself.peer = BOB.parse().unwrap();
    facts.running = Some(Snapshot { status: itself, peers: vec![] });
    says(&facts, "mdns", "Ok: others on the home network can be looked for; nobody else");
    facts.multicast[0].1 = Err("not permitted".into());
    says(
        &facts,
        "mdns",
        "Problem: nobody can be found by multicast (mDNS) from 192.168.1.7: not permitted -> allow multicast",
    );
    facts.settings.mdns = false;
    says(&facts, "mdns", "Note: others on the home network are not looked for");
}

#[test]
fn servers_say_what_gets_through() {
    let (tcp, quic) = (format!("{SERVER}/tcp/4001"), format!("{SERVER}/udp/4001/quic-v1"));
    let with = |tries| Facts { servers: vec![server(tries)], ..home() };
    let lost = Err("no answer in time");

    let facts = home();
    says(&facts, "bootstrap", "Note: no server is known");
    says(&facts, "udp", "Unknown: no server is known that speaks UDP");
    says(&facts, "ipv4", "Unknown: ");

    let facts = with(vec![tried(&tcp, true, Ok(1)), tried(&quic, true, lost)]);
    says(
        &facts,
        "udp",
        "Problem: UDP (QUIC) does not get through, while the other transport does -> allow outgoing UDP",
    );
    says(&facts, "tcp", "Ok: connections by TCP work");
    says(&facts, "ipv4", "Ok: the internet can be reached by IPv4");

    let facts = with(vec![tried(&tcp, true, Ok(1)), tried(&quic, false, lost)]);
    says(&facts, "udp", "Unknown: no server is known that speaks UDP");

    let facts = with(vec![tried(&quic, true, Ok(1)), tried(&tcp, true, lost)]);
    says(&facts, "tcp", "Problem: TCP does not get through");

    let facts = with(vec![tried(&tcp, true, lost)]);
    says(&facts, "tcp", "Unknown: no server was reached, by TCP or otherwise");
    says(&facts, "ipv4", "Problem: no server was reached by IPv4 -> is the internet there at all");

    let mut facts = with(vec![tried(&tcp, true, Ok(1)), tried("/ip6/2a01:4f8::9/tcp/4001", true, lost)]);
    facts.interfaces.default_v6 = true;
    says(&facts, "ipv6", "Problem: no server was reached by IPv6, while others were -> IPv6 seems to be broken");
    let facts = with(vec![tried("/ip4/192.168.1.9/tcp/4001", true, Ok(1))]);
    says(&facts, "ipv4", "Unknown: no server on the internet is known");
}

#[test]
fn a_server_that_is_not_reached_has_its_advice() {
    for (error, advice) in [
        ("/ip4/45.1.2.9/tcp/1: connection refused: nothing listens there", "the machine is there, but no node listens"),
        ("no answer in time", "is the server on"),
        ("the name is not known", "is the name spelt right"),
        (&format!("another peer answered: {ADA}"), "the peer id at the end of the address"),
        ("no route there", "there is no route there from here"),
        ("the handshake failed", "something answers there, but no node of this kind"),
        ("words that nobody knows", "is the server on"),
    ] {
        let facts = Facts { servers: vec![server(vec![tried("-", true, Err(error))])], ..home() };
        let told = told(&facts, "bootstrap");
        assert!(told[0].contains(&format!("was not reached: {error} -> {advice}")), "{told:?}");
    }
}

#[test]
fn what_stands_between_here_and_the_internet() {
    let mapping = |kind: &str| json!([{ "family": "ipv4", "transport": "quic", "mapping": kind, "mapping_text": "" }]);
    says(&home(), "mapping", "Unknown: ");
    says(
        &over(json!({ "mappings": mapping("independent") })),
        "mapping",
        "Ok: IPv4 QUIC: the NAT uses one port for all",
    );
    says(
        &over(json!({ "mappings": mapping("per_destination") })),
        "mapping",
        "Note: IPv4 QUIC: the NAT uses another port",
    );
    let open = over(json!({ "mappings": mapping("none"), "reachability": "public" }));
    says(&open, "mapping", "Ok: IPv4 QUIC: no NAT");
    says(&open, "filtering", "Ok: nothing keeps others out");
    says(&open, "port_mapping", "Ok: not needed");
    says(&open, "nat", "Ok: no second NAT");
    assert!(told(&open, "firewall").is_empty());

    let own = json!([{ "address": "/ip4/45.1.2.3/udp/4001/quic-v1", "advertised": true, "observers": 2, "proofs": 1,
        "confidence": 2, "mapped": false }]);
    let cone = over(json!({ "mappings": mapping("independent"), "own_addresses": own, "reachability": "public" }));
    says(&cone, "filtering", "Ok: the NAT lets in packets from ports that nothing was sent to");
    says(&cone, "reachable", "Ok: not known, at /ip4/45.1.2.3/udp/4001/quic-v1");

    let private = json!({ "mappings": mapping("independent"), "reachability": "private" });
    says(&over(private.clone()), "filtering", "Note: the NAT or a firewall lets in only whom something was sent to");
    says(&over(private.clone()), "reachable", "Note: ");
    says(
        &over(private.clone()),
        "firewall",
        "Note: others get in only if the router and this machine's firewall let them -> to be \
        reached directly, have the router forward TCP port 4001 and UDP port 4001 to this machine",
    );
    let mut behind = over(private.clone());
    behind.settings.role = Role::Server;
    says(&behind, "reachable", "Problem: ");
    behind.interfaces.addresses.push(Prefix { ip: "2a01:4f8::7".parse().unwrap(), len: 64 });
    says(&behind, "firewall", "Note: this machine has a public IPv6 address, and a firewall seems to keep others out");

    says(&home(), "nat", "Unknown: ");
    for kind in ["router_behind_carrier_grade", "double_nat", "no_mapping_given", "carrier_grade"] {
        says(&over(json!({ "nat": kind })), "nat", "Note: ");
    }
    let mut shared = home();
    shared.interfaces.addresses.push(Prefix { ip: "100.64.7.7".parse().unwrap(), len: 10 });
    says(&shared, "nat", "Note: this machine's address is shared with other customers");
}

#[test]
fn the_router_and_its_ports() {
    says(&home(), "port_mapping", "Unknown: no router has answered");
    let gateway = |upnp| json!({ "upnp": upnp, "nat_pmp": false, "pcp": upnp });
    says(
        &over(json!({ "gateway": gateway(false) })),
        "port_mapping",
        "Note: the router offers no port mapping -> switch on UPnP",
    );
    let nothing =
        over(json!({ "gateway": gateway(true), "port_mappings": [{ "transport": "tcp", "external": null }] }));
    says(&nothing, "port_mapping", "Note: the router offers port mapping (UPnP, PCP), but gave no port");
    let given = json!([{ "transport": "tcp", "external": "/ip4/45.1.2.3/tcp/4001" }, { "transport": "quic", "external": null }]);
    let given = over(json!({ "gateway": gateway(true), "port_mappings": given }));
    says(&given, "port_mapping", "Ok: the router lets /ip4/45.1.2.3/tcp/4001 lead here");
    says(&given, "nat", "Ok: neither carrier-grade nor double NAT");
    let shared = json!([{ "transport": "tcp", "external": "/ip4/100.64.1.2/tcp/4001" }]);
    let shared = over(json!({ "gateway": gateway(true), "port_mappings": shared }));
    says(
        &shared,
        "port_mapping",
        "Note: the router lets /ip4/100.64.1.2/tcp/4001 lead here, which is no address on the internet",
    );
    says(&shared, "nat", "Unknown: ");
    let mut off = home();
    off.settings.port_mapping = false;
    says(&off, "port_mapping", "Note: the router is not asked");
}

#[test]
fn relays_held_and_wanted() {
    says(&home(), "relays", "Ok: no relay is needed");
    says(&over(json!({ "relays_wanted": 2 })), "relays", "Note: no relay keeps a place");
    says(&over(json!({ "relays_wanted": 2, "reachability": "private" })), "relays", "Problem: no relay keeps a place");
    let relay = |held: Option<u64>, error: Option<&str>| json!({ "relay": BOB, "held_for_s": held, "rtt_us": 23_000, "limit": null, "last_error": error, "retry_in_s": null });
    let relays = [relay(Some(61), None), relay(None, Some("the relay is full")), relay(None, None)];
    let facts = over(json!({ "relays_wanted": 2, "reachability": "private", "relays": relays }));
    says(&facts, "relays", "Ok: 1 of 2 wanted relays keeps a place for this node");
    assert_eq!(
        told(&facts, "relay"),
        [
            "Ok: …kSCVe2Xo: keeps a place for this node for 1 min, 23 ms away",
            "Note: …kSCVe2Xo: the relay is full, 23 ms away",
            "Unknown: …kSCVe2Xo: was not asked so far, 23 ms away"
        ]
    );
}

#[test]
fn a_running_nodes_word_counts() {
    let mut facts = over(json!({ "relays_wanted": 2, "reachability": "private" }));
    says(&facts, "node", "Note: no node is running here");
    let running =
        status(json!({ "reachability": "public", "reachability_text": "everyone can", "health": "connected" }));
    facts.running = Some(Snapshot { status: running, peers: vec![] });
    says(&facts, "node", "Ok: a node is running here: connected");
    says(&facts, "reachable", "Ok: everyone can");
    says(&facts, "relays", "Ok: no relay is needed");
    for (health, verdict) in [("isolated", "Problem"), ("offline", "Problem"), ("partial", "Note"), ("alone", "Ok")] {
        let running = status(json!({ "health": health }));
        facts.running = Some(Snapshot { status: running, peers: vec![] });
        says(&facts, "node", verdict);
    }
}
