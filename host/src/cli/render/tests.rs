//! What a person sees, from samples of what the API says.

use kinfolk_core::{
    CloseCause, Direction, Health, Impasse, ListenError, Notice, Path, PeerId, Reachability, Source, Transport,
};
use kinfolk_shell::api::types::{Peer, Peers, Status, WhyEntry};
use serde_json::json;

use super::*;

const ADA: &str = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";
const BOB: &str = "12D3KooWQYhTNQdmr3ArTeUHRYzFg94BKyTkoWBDWez9kSCVe2Xo";
const EVE: &str = "12D3KooWLJtG8fd2hkQzTn96MrLvThmnNQjTUFZwGEsLRz5EmSzc";

fn sample(text: serde_json::Value) -> Peer {
    serde_json::from_value(text).unwrap()
}

fn family() -> Vec<Peer> {
    let local = json!({ "kind": "local", "transport": "quic", "relay": null });
    let relayed = json!({ "kind": "relayed", "transport": null, "relay": BOB });
    let never = json!({ "pinned": false, "blocked": false, "path": null, "rtt_us": null, "agent": null,
        "capabilities": [], "last_seen_s": null, "sync_position": null, "pending_requests": 0, "next_dial_in_s": null,
        "connections": [], "addresses": [] });
    let with = |more: serde_json::Value| {
        let mut all = never.clone();
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        sample(all)
    };
    vec![
        with(
            json!({ "peer": EVE, "state": "disconnected", "state_for_s": 240, "last_seen_s": 240, "next_dial_in_s": 21,
            "agent": "evil\u{1b}[2J\n/1", "addresses": [{ "address": "/ip4/203.0.113.9/tcp/4001", "sources": ["mdns", "kademlia"],
            "last_success_s": 240, "last_error": "no answer in time", "retry_in_s": 21 }] }),
        ),
        with(json!({ "peer": BOB, "state": "connected", "state_for_s": 3, "path": relayed, "rtt_us": 84_000 })),
        with(
            json!({ "peer": ADA, "state": "syncing", "state_for_s": 7_500, "pinned": true, "path": local, "rtt_us": 412,
            "agent": "kinfolk/0.1.0", "capabilities": ["kademlia", "ping", "network"], "last_seen_s": 0,
            "sync_position": 1_234, "pending_requests": 2, "connections": [
                { "connection": 3, "path": local, "direction": "outbound",
                  "address": "/ip4/192.168.1.7/udp/4001/quic-v1", "age_s": 7_500, "rtt_us": 412 },
                { "connection": 9, "path": relayed, "direction": "inbound",
                  "address": format!("/ip4/192.168.1.8/tcp/4001/p2p/{BOB}/p2p-circuit"), "age_s": 5, "rtt_us": null }],
            "addresses": [{ "address": "/ip4/192.168.1.7/udp/4001/quic-v1", "sources": ["mdns"],
                "last_success_s": 7_500, "last_error": null, "retry_in_s": null }] }),
        ),
    ]
}

#[test]
fn the_table_of_peers_has_the_present_first_and_fits() {
    insta::assert_snapshot!(peers(&family(), false, None), @"
    PEER               STATE         WAY                 RTT       SINCE  SYNC  AGENT          REMARK
    …eQAJU5SA  pinned  syncing       local QUIC       0.4 ms  2 h 05 min  1234  kinfolk/0.1.0  2 connections
    …kSCVe2Xo          connected     relay …kSCVe2Xo   84 ms         3 s                       no direct connection was tried so far
    …Rz5EmSzc          disconnected                                4 min        evil�[2J�/1    dialled in 21 s
    ");
    insta::assert_snapshot!(peers(&family(), false, Some(80)), @"
    PEER               STATE         WAY                 RTT       SINCE  SYNC
    …eQAJU5SA  pinned  syncing       local QUIC       0.4 ms  2 h 05 min  1234
    …kSCVe2Xo          connected     relay …kSCVe2Xo   84 ms         3 s
    …Rz5EmSzc          disconnected                                4 min
    ");
    insta::assert_snapshot!(peers(&family(), false, Some(44)), @"
    PEER       STATE         WAY
    …eQAJU5SA  syncing       local QUIC
    …kSCVe2Xo  connected     relay …kSCVe2Xo
    …Rz5EmSzc  disconnected
    ");
    insta::assert_snapshot!(peers(&family(), true, Some(100)), @"
    PEER                                                          STATE         WAY                 RTT
    12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA  pinned  syncing       local QUIC       0.4 ms
    12D3KooWQYhTNQdmr3ArTeUHRYzFg94BKyTkoWBDWez9kSCVe2Xo          connected     relay …kSCVe2Xo   84 ms
    12D3KooWLJtG8fd2hkQzTn96MrLvThmnNQjTUFZwGEsLRz5EmSzc          disconnected
    ");
    insta::assert_snapshot!(peers(&Peers::default().peers, true, None), @"nobody is known so far; `kinfolk connect MULTIADDR` makes a first acquaintance");
    for width in 40..200 {
        for line in peers(&family(), false, Some(width)).lines() {
            assert!(line.chars().count() <= width, "{width}: {line}");
        }
    }
}

#[test]
fn a_peer_shows_all_that_is_known() {
    insta::assert_snapshot!(peer(&family()[2]), @"
    12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA
      state       syncing for 2 h 05 min, pinned
      agent       kinfolk/0.1.0
      way         connected over the home network by QUIC
      round trip  0.4 ms
      data        up to 1234, 2 open requests
      can         kademlia, ping, network
      connected   n3: local QUIC, outbound, /ip4/192.168.1.7/udp/4001/quic-v1, for 2 h 05 min, 0.4 ms
                  n9: relay …kSCVe2Xo, inbound, /ip4/192.168.1.8/tcp/4001/p2p/12D3KooWQYhTNQdmr3ArTeUHRYzFg94BKyTkoWBDWez9kSCVe2Xo/p2p-circuit, for 5 s
      addresses   /ip4/192.168.1.7/udp/4001/quic-v1 (found on the home network); worked 2 h 05 min ago
    ");
    insta::assert_snapshot!(peer(&family()[0]), @"
    12D3KooWLJtG8fd2hkQzTn96MrLvThmnNQjTUFZwGEsLRz5EmSzc
      state       disconnected for 4 min
      agent       evil�[2J�/1
      seen        4 min ago
      next dial   in 21 s
      addresses   /ip4/203.0.113.9/tcp/4001 (found on the home network, in the distributed hash table); worked 4 min ago; failed: no answer in time; not before 21 s
    ");
}

#[test]
fn the_status_reads_like_an_answer() {
    let all: Status = serde_json::from_value(json!({
        "peer": ADA, "agent": "kinfolk/0.1.0", "role": "family", "network": "elohim", "pid": 4242,
        "data_dir": "/home/ada/.local/share/kinfolk", "uptime_s": 100_000, "health": "partial",
        "health_text": Health::Partial.to_string(), "health_for_s": 75, "reachability": "unknown",
        "reachability_text": Reachability::Unknown.to_string(),
        "listening": ["/ip4/127.0.0.1/tcp/4001", "/ip4/192.168.1.7/tcp/4001"], "advertised": [], "candidates": ["/ip4/45.1.2.3/tcp/4001"],
        "kademlia": "auto", "kademlia_server": false, "routing_table": 1,
        "bootstrap": [
            { "address": "/dns4/a.example/tcp/4001", "peer": BOB, "connected": true, "failures": 0, "retry_in_s": null },
            { "address": "/dns4/b.example/tcp/4001", "peer": null, "connected": false, "failures": 3, "retry_in_s": 14 },
            { "address": "/dns4/c.example/tcp/4001", "peer": null, "connected": false, "failures": 0, "retry_in_s": null }],
        "signal": [
            { "server": "https://a.example/signal", "state": "answered", "answered_s_ago": 130, "peers": 3, "failures": 0,
              "published_for_s": 3_600, "backing": "redis" },
            { "server": "https://b.example/signal", "state": "answered", "answered_s_ago": 5, "peers": 0, "failures": 0,
              "publish_error": "it says: unfit address", "backing": "sqlite" },
            { "server": "https://c.example", "state": "failed", "peers": 0, "failures": 3,
              "error": "HTTP status 502", "retry_in_s": 14 },
            { "server": "https://d.example", "state": "not_asked", "peers": 0, "failures": 0 }],
        "peers": 12, "connected": 3, "dialing": 1,
        "trace": { "recording": true, "segments": 3, "bytes": 1_300_000, "lost": 0, "error": null },
        "counters": { "gate refusals": 2, "nothing": 0 },
    }))
    .unwrap();
    insta::assert_snapshot!(status(&all), @"
    12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA
      program     kinfolk/0.1.0, network elohim, role family
      running     for 1 d 3 h, process 4242, data in /home/ada/.local/share/kinfolk
      health      connected, but pinned peers are missing (for 1 min)
      reachable   not known whether others can reach this node
      relays      none needed
      peers       3 connected of 12 known, 1 being dialled
      listening   /ip4/192.168.1.7/tcp/4001
                  /ip4/127.0.0.1/tcp/4001
      candidates  /ip4/45.1.2.3/tcp/4001
      hash table  asked only, until others are known to reach this node; 1 entry
      bootstrap   /dns4/a.example/tcp/4001: connected, peer …kSCVe2Xo
                  /dns4/b.example/tcp/4001: no answer in 3 tries, next in 14 s
                  /dns4/c.example/tcp/4001: in reserve, enough others are connected
      signal      https://a.example/signal: tells 3 peers (2 min ago); has our record for 1 h 00 min; keeps them in redis
                  https://b.example/signal: knows nobody else (5 s ago); our record is not taken: it says: unfit address; keeps them in sqlite
                  https://c.example: failed in 3 tries (HTTP status 502), next in 14 s
                  https://d.example: not asked so far
      traces      recording; 3 segments, 1.2 MiB
      counted     gate refusals 2
    ");
    insta::assert_snapshot!(bootstrap(&all.bootstrap), @"
    /dns4/a.example/tcp/4001: connected, peer …kSCVe2Xo
    /dns4/b.example/tcp/4001: no answer in 3 tries, next in 14 s
    /dns4/c.example/tcp/4001: in reserve, enough others are connected
    ");
    insta::assert_snapshot!(bootstrap(&[]), @"no bootstrap peers; `kinfolk bootstrap add MULTIADDR` adds one");
}

#[test]
fn the_status_tells_what_stands_in_the_way() {
    let mut behind: serde_json::Value = serde_json::from_str(include_str!("behind_a_nat.json")).unwrap();
    let all: Status = serde_json::from_value(behind.clone()).unwrap();
    insta::assert_snapshot!(status(&all), @"
    12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA
      program     kinfolk/0.1.0, network elohim, role family
      running     for 1 min, process 4242
      health      connected (for 1 min)
      reachable   others can't reach this node from the internet
      NAT         no NAT (IPv6 QUIC)
                  another port for each destination (IPv4 TCP, IPv4 QUIC)
                  the router's address is shared with other customers of the provider (carrier-grade NAT)
      router      offers port mapping (UPnP, PCP)
                  lets /ip4/100.64.1.2/tcp/4001 lead to this node
                  lets no QUIC port lead to this node
      relays      1 of 2 wanted relays keeps a place for this node
                  …kSCVe2Xo: for 5 min, 23 ms; at most 2 h 00 min and 128.0 MiB for each connection
                  …Rz5EmSzc: the relay is full; next try in 4 min
      for others  tries addresses for members
      peers       3 connected of 12 known
      listening   /ip4/192.168.1.7/tcp/4001
      told others /ip4/45.1.2.9/udp/4001/quic-v1/p2p/12D3KooWQYhTNQdmr3ArTeUHRYzFg94BKyTkoWBDWez9kSCVe2Xo/p2p-circuit
      candidates  /ip4/45.1.2.3/udp/4001/quic-v1 (seen from 2 networks)
                  /ip4/100.64.1.2/tcp/4001 (given by the router)
                  /ip6/2a01:4f8::7/tcp/4001 (nobody has seen this node there)
      hash table  asked only, until others are known to reach this node; 1 entry
      traces      not recording; 0 segments, 0 B
    ");
    behind["relays"] = json!([]);
    let all: Status = serde_json::from_value(behind).unwrap();
    let text = status(&all);
    let relays: Vec<&str> = text.lines().skip_while(|line| !line.starts_with("  relays")).take(2).collect();
    insta::assert_snapshot!(relays.join("\n"), @"
    relays      0 of 2 wanted relays keep a place for this node
                no relay is known so far: name one in the settings (nat.relays), or a server as bootstrap peer
    ");
}

/// A peer that is reached through a relay, with this done for a direct connection.
fn relayed(punching: serde_json::Value) -> Peer {
    let mut peer = family().swap_remove(1);
    peer.punching = serde_json::from_value(punching).unwrap();
    peer
}

#[test]
fn a_relayed_peer_says_why() {
    let punching = |trying, attempts, last_error: Option<&str>, next: Option<u64>, impasse: Option<Impasse>| {
        json!({ "trying": trying, "attempts": attempts, "last_error": last_error, "next_in_s": next,
            "impasse": impasse, "impasse_text": impasse.map(|impasse| impasse.to_string()) })
    };
    let timeout = Some("no answer in time");
    let cases = [
        serde_json::Value::Null,
        punching(true, 1, None, None, None),
        punching(false, 0, None, Some(2), None),
        punching(false, 1, timeout, Some(30), None),
        punching(false, 3, timeout, Some(125), None),
        punching(false, 2, timeout, None, Some(Impasse::BothPerDestination)),
        punching(false, 4, timeout, Some(3_600), Some(Impasse::TriedEverything)),
        punching(true, 4, timeout, None, Some(Impasse::TriedEverything)),
    ];
    let told: Vec<String> = cases.into_iter().map(|case| situation(&relayed(case))).collect();
    insta::assert_snapshot!(told.join("\n"), @"
    relayed through …kSCVe2Xo: no direct connection was tried so far
    relayed through …kSCVe2Xo: a direct connection is being tried
    relayed through …kSCVe2Xo: no direct connection so far, next try in 2 s
    relayed through …kSCVe2Xo: a direct connection was tried and failed (no answer in time); next try in 30 s
    relayed through …kSCVe2Xo: 3 tries of a direct connection failed (no answer in time); next try in 2 min
    relayed through …kSCVe2Xo: your NAT gives each destination another port, and so does theirs
    relayed through …kSCVe2Xo: a direct connection was tried in every way, without success; next try in 1 h 00 min
    relayed through …kSCVe2Xo: a direct connection is being tried
    ");
    assert_eq!(situation(&family()[2]), "connected over the home network by QUIC");
    assert_eq!(situation(&family()[0]), "not connected; dialled in 21 s");

    let mut one = relayed(punching(false, 2, timeout, None, Some(Impasse::BothPerDestination)));
    insta::assert_snapshot!(peers(&[one.clone()], false, None), @"
    PEER       STATE      WAY                RTT  SINCE  REMARK
    …kSCVe2Xo  connected  relay …kSCVe2Xo  84 ms    3 s  your NAT gives each destination another port, and so does theirs
    ");
    one.served = true;
    one.connections = serde_json::from_value(json!([{ "connection": 4, "path": one.path, "direction": "outbound",
        "address": format!("/ip4/45.1.2.3/udp/4001/quic-v1/p2p/{BOB}/p2p-circuit"), "age_s": 61, "rtt_us": 84_000,
        "limit": { "duration_s": 7_200, "bytes": 134_217_728 } }]))
    .unwrap();
    insta::assert_snapshot!(peer(&one), @"
    12D3KooWQYhTNQdmr3ArTeUHRYzFg94BKyTkoWBDWez9kSCVe2Xo
      state       connected for 3 s
      way         relayed through …kSCVe2Xo: your NAT gives each destination another port, and so does theirs
      round trip  84 ms
      served      others reach it through this node
      connected   n4: relay …kSCVe2Xo, outbound, /ip4/45.1.2.3/udp/4001/quic-v1/p2p/12D3KooWQYhTNQdmr3ArTeUHRYzFg94BKyTkoWBDWez9kSCVe2Xo/p2p-circuit, for 1 min, 84 ms, at most 2 h 00 min and 128.0 MiB for each connection
    ");
}

#[test]
fn why_is_a_story() {
    let entry = |ago_s, action: &str, because: &str, times| WhyEntry {
        ago_s,
        at_unix: 1_000_000 - ago_s,
        t: 5,
        command: 7,
        action: action.into(),
        because: because.into(),
        times,
    };
    let entries = [
        entry(75, "dial /ip4/192.168.1.7/tcp/4001", "it was found on the home network", 1),
        entry(8, "dial /ip4/192.168.1.7/tcp/4001", "it is time for try 2", 3),
    ];
    insta::assert_snapshot!(why(&entries, None, |unix| format!("at {unix}")), @"
    at 999925       1 min ago  dial /ip4/192.168.1.7/tcp/4001, because it was found on the home network
    at 999992         8 s ago  dial /ip4/192.168.1.7/tcp/4001, because it is time for try 2 (3 times)
    ");
    let told = why(&entries[..1], Some("relayed through …kSCVe2Xo: x\u{1b}"), |_| "then".into());
    insta::assert_snapshot!(told, @"
    then       1 min ago  dial /ip4/192.168.1.7/tcp/4001, because it was found on the home network
    now: relayed through …kSCVe2Xo: x�
    ");
    insta::assert_snapshot!(why(&[], None, |_| String::new()), @"nothing was decided about it so far");
}

fn id(text: &str) -> PeerId {
    text.parse().unwrap()
}

#[test]
fn events_are_told_in_plain_words() {
    let mut narrator = Narrator::new(id(ADA));
    let local = Path::Local { transport: Some(Transport::Quic) };
    let relayed = Path::Relayed { relay: id(EVE) };
    let peer = id(BOB);
    let address = || "/ip4/192.168.1.7/udp/4001/quic-v1".parse().unwrap();
    let story = [
        Notice::PeerDiscovered { peer, source: Source::Mdns },
        Notice::PeerConnected { peer, path: local, direction: Direction::Outbound, address: address() },
        Notice::PeerIdentified { peer, agent: "kinfolk/0.1.0\u{7}".into(), protocols: vec![] },
        Notice::PeerSyncing { peer },
        Notice::PathChanged { peer, from: local, to: relayed },
        Notice::PeerDisconnected { peer, cause: CloseCause::Broken("reset".into()) },
        Notice::PeerDisconnected { peer, cause: CloseCause::Ours },
        Notice::PeerExpired { peer },
        Notice::OwnIdentitySeen { address: address() },
        Notice::NotListening { address: address(), error: ListenError::Forbidden },
        Notice::PortTaken { address: address() },
        Notice::HealthChanged { health: Health::Alone },
    ];
    let told: Vec<String> = story.iter().filter_map(|notice| narrator.tell(notice, "REASON")).collect();
    insta::assert_snapshot!(told.join("\n"), @"
    …kSCVe2Xo  found on the home network
    …kSCVe2Xo  connected over the home network by QUIC (outbound, /ip4/192.168.1.7/udp/4001/quic-v1)
    …kSCVe2Xo  identified as kinfolk/0.1.0�
    …kSCVe2Xo  now connected through relay …Rz5EmSzc (before: over the home network by QUIC), because REASON
    …kSCVe2Xo  disconnected: it broke (reset)
    …kSCVe2Xo  disconnected: closed by this node, because REASON
    …kSCVe2Xo  forgotten, because REASON
    this node's identity is also in use at /ip4/192.168.1.7/udp/4001/quic-v1; a copied data folder or SD card? Delete `identity` in one of them
    can't listen on /ip4/192.168.1.7/udp/4001/quic-v1: not permitted (ports below 1024 need extra rights)
    /ip4/192.168.1.7/udp/4001/quic-v1 is taken by another program; using another port
    this node is alone: nobody else is known, waiting for the first peer
    ");
}

#[test]
fn a_peer_that_stays_away_is_told_of_once() {
    let mut narrator = Narrator::new(id(ADA));
    let peer = id(BOB);
    let deferred = Notice::PeerDeferred { peer, wait: std::time::Duration::from_secs(5) };
    let failed =
        Notice::BootstrapFailed { address: "/dns4/a.example/tcp/1".into(), wait: std::time::Duration::from_secs(1) };
    assert!(narrator.tell(&deferred, "x").is_some() && narrator.tell(&failed, "x").is_some());
    assert!(narrator.tell(&deferred, "x").is_none() && narrator.tell(&failed, "x").is_none());
    let path = Path::Direct { transport: None };
    let address = "/ip4/45.1.2.3/tcp/1".parse().unwrap();
    narrator.tell(&Notice::PeerConnected { peer, path, direction: Direction::Inbound, address }, "x");
    assert!(narrator.tell(&deferred, "x").is_some() && narrator.tell(&failed, "x").is_some());
}

#[test]
fn addresses_of_this_machine_are_told_only_for_want_of_better_ones() {
    let listening = |text: &str| Notice::Listening { address: text.parse().unwrap() };
    let mut narrator = Narrator::new(id(ADA));
    assert_eq!(narrator.tell(&listening("/ip4/127.0.0.1/tcp/4001"), ""), None);
    let told = narrator.tell(&listening("/ip4/192.168.1.7/tcp/4001"), "").unwrap();
    assert_eq!(told, format!("listening on /ip4/192.168.1.7/tcp/4001/p2p/{ADA}"));
    assert!(narrator.settle().is_empty());
    assert_eq!(narrator.tell(&listening("/ip6/::1/tcp/4001"), ""), None);

    let mut narrator = Narrator::new(id(ADA));
    assert_eq!(narrator.tell(&listening("/ip4/127.0.0.1/tcp/4001"), ""), None);
    assert_eq!(narrator.settle(), [format!("listening on /ip4/127.0.0.1/tcp/4001/p2p/{ADA}")]);
    assert!(narrator.tell(&listening("/ip6/::1/tcp/4001"), "").is_some(), "one that comes later is still the best");
}
