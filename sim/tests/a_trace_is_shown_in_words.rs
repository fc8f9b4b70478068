//! A timeline that people can read, with what they ask for in it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{collections::BTreeSet, io::Cursor};

use kinfolk_core::{Action, Command, CommandId, ConnectionId, Event, Notice, Reason, Time};
use kinfolk_sim::{
    show::{Filter, Form, show},
    stat::{Stat, stat},
    trace::{ReadError, Reader},
    words,
};
use serde::de::IgnoredAny;
use serde_json::Value;

fn shown(text: &[u8], filter: &Filter, form: Form) -> (String, Option<ReadError>) {
    let mut reader = Reader::<IgnoredAny>::new("t.jsonl", Cursor::new(text.to_vec())).unwrap();
    let mut out = vec![];
    let error = show(&mut reader, filter, form, &mut out).unwrap();
    (String::from_utf8(out).unwrap(), error)
}

fn counted(text: &[u8]) -> Stat {
    stat(&mut Reader::<IgnoredAny>::new("t.jsonl", Cursor::new(text.to_vec())).unwrap())
}

fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Names that serde writes for a value of an enum.
fn name_in_json(value: &Value) -> String {
    let alone = value.as_str().map(str::to_string);
    alone.unwrap_or_else(|| value.as_object().unwrap().keys().next().unwrap().clone())
}

#[test]
fn what_is_said_of_logs_is_told() {
    let told: Vec<String> = common::log_events().iter().map(words::event).collect();
    let mut told = told.join("\n");
    for number in 1..10 {
        told = told.replace(&common::peer(number).to_string(), &format!("PEER{number}"));
    }
    insta::assert_snapshot!(told, @"
    own logs: 2 logs: PEER2 up to 41, PEER3/2 up to 41; more follow
    PEER2 (n4) has other logs than we have
    PEER2 (n4, asked by c9) has the same logs as we have
    PEER2 (n4, asked by c9) has 2 logs: PEER2 up to 41, PEER3/2 up to 41; more follow
    range c9 is stored: 1 new entry of PEER3/2, now up to 41; there is more
    c9 came to nothing: its entry 41 is another one than ours, and both are signed
    the store of logs can't follow
    ");
}

#[test]
fn what_signal_servers_say_is_told() {
    let told: Vec<String> = common::signal_events().iter().map(words::event).collect();
    let mut told = told.join("\n");
    for number in 1..10 {
        told = told.replace(&common::peer(number).to_string(), &format!("PEER{number}"));
    }
    insta::assert_snapshot!(told, @"
    a signal server, asked by c9, tells 0 peers
    a signal server, asked by c9, tells 2 peers from redis: PEER9 (1 address, relay, bootstrap, record 1790000000), PEER3 (1 address, no services, unsigned); 2 more were cut off
    a signal server keeps our record (c9) for 7200 s, in sqlite
    question c9 to a signal server failed: it has our record number 1790000007, which ours was not above
    question c9 to a signal server failed: it says: too many requests from 91.64.7.8
    question c9 to a signal server failed: it does not offer that
    question c9 to a signal server failed: doorway.example: connection refused
    ");
}

#[test]
fn every_event_has_words_and_its_name_in_the_trace() {
    let mut kinds = BTreeSet::new();
    let mut told = String::new();
    for event in common::events() {
        let kind = words::event_kind(&event);
        assert_eq!(kind, name_in_json(&serde_json::to_value(&event).unwrap()));
        kinds.insert(kind);
        told += &words::event(&event);
        told.push('\n');
    }
    for number in 1..10 {
        told = told.replace(&common::peer(number).to_string(), &format!("PEER{number}"));
    }
    let others = [common::traversal_events(), common::log_events(), common::signal_events()];
    for event in others.into_iter().flatten() {
        let kind = words::event_kind(&event);
        assert_eq!(kind, name_in_json(&serde_json::to_value(&event).unwrap()));
        kinds.insert(kind);
        // None of them is shown as a bare name.
        assert!(words::event(&event).contains(' '), "{event:?}");
    }
    assert_eq!(kinds, words::EVENTS.iter().copied().collect());
    insta::assert_snapshot!(told, @r#"
    woken: time has passed
    started as PEER1 with role desktop, network "elohim", 1 bootstrap and 0 pinned peers, mDNS on; the wall clock says 2026-09-21 14:13:20 UTC; own addresses: 192.168.1.7/24, 2a01:4f8:12:34::7/64, fe80::7/64; IPv4 to the internet
    told new settings: role desktop, network "elohim", 1 bootstrap and 0 pinned peers, mDNS on
    the store remembers 2 peers: PEER2 (1 address, pinned), PEER3 (1 address, blocked); more follow
    the store remembers 0 peers; that was all
    request r5: connect to /ip4/192.168.1.9/tcp/4001/p2p/PEER2
    request r5: disconnect PEER2
    request r5: pin /ip4/192.168.1.9/tcp/4001/p2p/PEER2
    request r5: forget PEER2
    request r5: block PEER2
    request r5: allow PEER2
    request r5: add bootstrap peer /ip4/192.168.1.9/tcp/4001/p2p/PEER2
    request r5: remove bootstrap peer /ip4/192.168.1.9/tcp/4001/p2p/PEER2
    request r5: protect the connections to PEER2
    request r5: no longer protect the connections to PEER2
    request r5: data flow with PEER2: 2 requests open, position 77
    own addresses: 192.168.1.7/24, 2a01:4f8:12:34::7/64, fe80::7/64; IPv4 to the internet
    own addresses: none; no way to the internet
    the wall clock says 2026-09-21 14:15:00 UTC (synchronised)
    the wall clock says 1970-01-01 00:00:00 UTC (not synchronised, so not believed)
    the machine slept for 2 h 1 min
    listener l1 (asked by c2) has the address /ip4/192.168.1.9/tcp/4001
    listener l1 lost the address /ip4/192.168.1.9/tcp/4001
    the listener asked by c2 is not there: another program has the port
    PEER2 was found on the home network at /ip4/192.168.1.9/tcp/4001
    PEER3 was found in the distributed hash table at /ip4/45.10.20.30/tcp/1, /ip4/45.10.20.30/tcp/2, /ip4/45.10.20.30/tcp/3, /ip4/45.10.20.30/tcp/4 and 3 more; 40 more were cut off
    PEER2 is no longer found on the home network at /ip4/192.168.1.9/tcp/4001
    our own identity was seen at /ip4/192.168.1.9/tcp/4001
    PEER2 connected (outbound, n4, /ip4/192.168.1.9/tcp/4001, in 23 ms, dialled by c12)
    PEER2 connected (inbound, n4, /ip4/192.168.1.9/tcp/4001, in 0 s)
    PEER2 connected (outbound, n4, /ip4/45.10.20.30/tcp/4001/p2p/PEER9/p2p-circuit, in 2 s, dial h3 of a behaviour)
    PEER2 disconnected (n4): it broke (reset by peer)
    dial c12 failed: nothing worked at 45.10.20.30:4001 (/ip4/192.168.1.9/tcp/4001: connection refused: nothing listens there, /ip6/2a02:810d::9/udp/4001/quic-v1: another peer answered: PEER4)
    dial c12 failed: no address to try
    somebody knocked from /ip6/2a02:810d::9/udp/4001/quic-v1 in vain: the handshake failed
    PEER2 knocked from /ip6/2a02:810d::9/udp/4001/quic-v1 in vain: not allowed by this node (60 like this)
    Kademlia wants to dial PEER3 (held as h3)
    the application wants to dial an address (held as h3)
    the released dial h3 failed: no answer in time
    PEER2 introduced itself (n4): "kinfolk/0.1.0", "/elohim/id/1.0.0", 2 protocols, reachable at /ip4/192.168.1.9/tcp/4001, /ip6/2a02:810d::9/udp/4001/quic-v1, sees us at /ip4/91.64.7.8/tcp/50123; 2 more were cut off
    PEER2 did not introduce itself (n4): stream closed
    PEER2 (n4) answered a ping in 850 µs
    PEER2 (n4) did not answer a ping in time
    PEER2 (n4) does not speak ping
    PEER2 (n4) failed a ping: reset
    identify takes /ip6/2a02:810d::9/udp/4001/quic-v1 for an address of ours, without proof
    AutoNAT takes /ip6/2a02:810d::9/udp/4001/quic-v1 for a proven address of ours
    the relay client no longer takes /ip6/2a02:810d::9/udp/4001/quic-v1 for an address of ours
    PEER9 is in the routing table now
    PEER9 is no longer in the routing table
    query c8 found 2 peers: PEER2 (1 address), PEER3 (7 addresses); 3 more were cut off
    query c8 is over: 3 peers answered, 1 did not
    c8 could not be done: nobody to ask is known
    "#);
}

#[test]
fn what_others_wrote_does_not_write_on_the_terminal() {
    let nasty = "a\u{1b}[2Jb\nc\u{202e}d\u{9b}31m ü".to_string();
    let event = Event::IdentifyFailed { connection: ConnectionId(1), peer: common::peer(2), error: nasty.clone() };
    let command = Command {
        id: CommandId(1),
        action: Action::Tell(Notice::PeerIdentified { peer: common::peer(2), agent: nasty, protocols: vec![] }),
        reason: Reason::Introduced,
    };
    for told in [words::event(&event), words::command(&command)] {
        assert!(told.contains(r"a\u{1b}[2Jb\nc\u{202e}d\u{9b}31m ü"), "{told}");
    }
}

#[test]
fn commands_and_notices_have_their_names_in_the_trace() {
    for command in common::commands() {
        assert_eq!(words::command_kind(&command.action), name_in_json(&serde_json::to_value(&command.action).unwrap()));
        if let Action::Tell(notice) = &command.action {
            assert_eq!(words::notice_kind(notice), name_in_json(&serde_json::to_value(notice).unwrap()));
        }
    }
}

#[test]
fn a_timeline() {
    let (text, error) = shown(&common::quiet().text().unwrap(), &Filter::default(), Form::Text);
    assert!(error.is_none());
    insta::assert_snapshot!(text.replace(kinfolk_core::trace::CORE_VERSION, "VERSION"), @r#"
    == segment 1: the node starts at 0.000s (2026-09-21 14:13:20 UTC), core VERSION, node 12D3KooWCKNzjnuRdbY68o5gdnr1BnBdDkFhUg7bdN1YZRjXHf2K
          0.000s  started as 12D3KooWCKNzjnuRdbY68o5gdnr1BnBdDkFhUg7bdN1YZRjXHf2K with role desktop, network "elohim", 0 bootstrap and 0 pinned peers, mDNS off; the wall clock says 2026-09-21 14:13:20 UTC; own addresses: 192.168.1.7/24, 2a01:4f8:12:34::7/64, fe80::7/64; IPv4 to the internet
                  → c1 listen on /ip4/0.0.0.0/tcp/4001, because the settings say so
                  → c2 listen on /ip4/0.0.0.0/udp/4001/quic-v1, because the settings say so
                  → c3 listen on /ip6/::/tcp/4001, because the settings say so
                  → c4 listen on /ip6/::/udp/4001/quic-v1, because the settings say so
                  → c5 only ask the hash table, because this node is not known to be reachable from the internet
          1.000s  the wall clock says 2026-09-21 14:13:21 UTC (synchronised)
          2.000s  the wall clock says 2026-09-21 14:13:22 UTC (synchronised)
          3.000s  the wall clock says 2026-09-21 14:13:23 UTC (synchronised)
    "#);
}

#[test]
fn wakes_that_nothing_came_of_are_noise_unless_asked_for() {
    let text = common::family().text().unwrap();
    let (all, _) = shown(&text, &Filter::default(), Form::Json);
    let silent = |line: &Value| line["kind"] == "wake" && line["out"].as_array().unwrap().is_empty();
    assert!(!json_lines(&all).iter().any(silent));
    let wakes = Filter { kinds: ["wake".to_string()].into(), ..Filter::default() };
    let (wakes, _) = shown(&text, &wakes, Form::Json);
    assert!(json_lines(&wakes).iter().any(silent));
}

#[test]
fn a_peer_is_followed_through_answers_that_name_only_a_number() {
    let text = common::family().text().unwrap();
    let peer = common::peer(5);
    let filter = Filter { peer: Some(peer), ..Filter::default() };
    let (shown_lines, _) = shown(&text, &filter, Form::Json);
    let lines = json_lines(&shown_lines);
    let kinds: BTreeSet<&str> = lines.iter().filter_map(|line| line["kind"].as_str()).collect();
    assert!(kinds.contains("asked") && kinds.contains("dial_failed"), "{kinds:?}");
    for line in lines.iter().filter(|line| line["type"] == "input") {
        let own = line["peers"].as_array().unwrap().iter().any(|of| *of == peer.to_string());
        let commanded = line["out"].as_array().unwrap();
        assert!(own || !commanded.is_empty());
        assert!(own || commanded.iter().all(|command| command.to_string().contains(&peer.to_string())));
    }
    let (text, _) = shown(&text, &filter, Form::Text);
    assert!(text.contains(&format!("[{peer}]")), "{text}");
}

#[test]
fn times_and_kinds_narrow_it_down() {
    let text = common::family().text().unwrap();
    let filter = Filter { from: Some(Time::from_secs(100)), to: Some(Time::from_secs(150)), ..Filter::default() };
    let (lines, _) = shown(&text, &filter, Form::Json);
    let lines = json_lines(&lines);
    let times: Vec<u64> = lines.iter().filter(|l| l["type"] == "input").map(|l| l["t"].as_u64().unwrap()).collect();
    assert!(times.len() >= 4);
    assert!(times.iter().all(|t| (100_000_000_000..=150_000_000_000).contains(t)), "{times:?}");
    assert_eq!(lines.iter().filter(|line| line["type"] == "segment").count(), 1, "only the segment that is looked at");

    let filter = Filter { kinds: ["peer_disconnected".to_string()].into(), ..Filter::default() };
    let (lines, _) = shown(&text, &filter, Form::Json);
    let lines = json_lines(&lines);
    let inputs: Vec<&Value> = lines.iter().filter(|line| line["type"] == "input").collect();
    assert!(!inputs.is_empty());
    for input in inputs {
        assert!(input["out"].as_array().unwrap().iter().all(|command| command["kind"] == "tell"), "{input}");
    }
}

#[test]
fn what_is_missing_is_said() {
    let text = String::from_utf8(common::family().text().unwrap()).unwrap();
    let heads: Vec<usize> = text.match_indices("{\"kinfolk_trace\"").map(|(at, _)| at).collect();
    let holed = text[..heads[1]].to_string() + &text[heads[2]..].replacen("\"lost\":0", "\"lost\":7", 1);
    let (shown, error) = shown(holed.as_bytes(), &Filter::default(), Form::Text);
    assert!(error.is_none());
    assert!(shown.contains("== segments 2 to 2 are missing"), "{shown}");
    assert!(shown.contains("== 7 inputs are missing before it"), "{shown}");
    let stat = counted(holed.as_bytes());
    assert_eq!(stat.gaps.len(), 1);
    assert_eq!((stat.gaps[0].segment, stat.gaps[0].segments, stat.gaps[0].lost), (3, 1, 7));
}

#[test]
fn what_stands_before_the_damage_is_shown_and_counted() {
    let text = common::family().text().unwrap();
    let cut = &text[..text.len() / 2];
    let (shown, error) = shown(cut, &Filter::default(), Form::Text);
    assert_eq!(error.unwrap().problem.kind(), "cut_off");
    assert!(shown.lines().count() > 20);
    let stat = counted(cut);
    assert!(stat.inputs > 20);
    assert_eq!(stat.problem.unwrap().problem.kind(), "cut_off");
}

#[test]
fn counts_add_up() {
    let text = common::family().text().unwrap();
    let stat = counted(&text);
    let lines = String::from_utf8(text).unwrap().lines().count() as u64;
    assert_eq!(stat.inputs + stat.segments.values().sum::<u64>(), lines);
    assert_eq!(stat.events.values().sum::<u64>(), stat.inputs);
    let failed: u64 = stat.dials.failed.values().sum();
    assert_eq!((stat.dials.connected, stat.dials.inbound), (1, 1));
    assert!(stat.dials.commanded > failed && failed > 3);
    assert_eq!((stat.first, stat.node_time.as_secs()), (Some(1_790_000_000), 3_610));
    assert_eq!(stat.last, Some(1_790_000_320 + 3_610 - 320));
    assert_eq!(stat.commands["tell"], stat.notices.values().sum::<u64>());
    let json = stat.to_json();
    assert_eq!(json["dials"]["commanded"], stat.dials.commanded);
    insta::assert_snapshot!(counted(&common::quiet().text().unwrap()).to_string().replace(kinfolk_core::trace::CORE_VERSION, "VERSION"), @r"
    t.jsonl: node 12D3KooWCKNzjnuRdbY68o5gdnr1BnBdDkFhUg7bdN1YZRjXHf2K, core VERSION
      2026-09-21 14:13:20 UTC to 2026-09-21 14:13:23 UTC, 3 s of node time
      segments: 1 (1 start)
      peers: 0
      dials: 0; 0 connected, 0 failed, 0 without an answer
      dials of behaviours: 0 released, 0 refused; connections from outside: 0

      inputs: 4
                3  wall_clock
                1  started

      commands: 5
                4  listen
                1  set_kademlia_server

      notices: 0
    ");
}
