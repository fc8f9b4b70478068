//! What the core did once it does again; where it does not, the first difference is found and shown.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::io::Cursor;

use kinfolk_core::{
    Event,
    trace::{CORE_VERSION, Frame, SegmentReason},
};
use kinfolk_sim::{
    replay::{Options, Report, What, replay},
    trace::Reader,
};
use serde_json::{Value, json};

fn replayed(text: impl Into<Vec<u8>>) -> Report {
    let mut reader = Reader::new("family.jsonl", Cursor::new(text.into())).unwrap();
    replay(&mut reader, Options::default())
}

fn lines(text: &[u8]) -> Vec<String> {
    String::from_utf8(text.to_vec()).unwrap().lines().map(str::to_string).collect()
}

fn joined(lines: &[String]) -> String {
    lines.join("\n") + "\n"
}

fn edit(line: &mut String, change: impl FnOnce(&mut Value)) {
    let mut value = serde_json::from_str(line).unwrap();
    change(&mut value);
    *line = value.to_string();
    // Headers must begin with their version; maps of values are sorted.
    if let Some(object) = value.as_object_mut().filter(|object| object.contains_key("kinfolk_trace")) {
        let version = object.remove("kinfolk_trace").unwrap();
        *line = format!("{{\"kinfolk_trace\":{version},{}", &value.to_string()[1..]);
    }
}

/// The line of the n-th segment's header.
fn header(lines: &[String], segment: usize) -> usize {
    lines.iter().enumerate().filter(|(_, line)| line.starts_with("{\"kinfolk_trace\"")).nth(segment).unwrap().0
}

/// The line of the first frame from `from` on that is followed by commands.
fn with_commands(lines: &[String], from: usize) -> usize {
    let has = |line: &String| serde_json::from_str::<Frame>(line).is_ok_and(|frame| !frame.out.is_empty());
    from + lines[from..].iter().position(has).unwrap()
}

/// The report without what a clock measured.
fn shown(mut report: Report) -> String {
    report.took = std::time::Duration::ZERO;
    report.to_string()
}

#[test]
fn a_recorded_run_comes_out_the_same() {
    let report = replayed(common::family().text().unwrap());
    assert!(report.is_good(), "{report}");
    assert_eq!((report.segments, report.gaps, report.node_time.as_secs()), (3, 0, 3_610));
    assert!(report.inputs > 50 && report.commands > 30, "{report}");
    assert_eq!(report.to_json()["equal"], json!(true));
}

#[test]
fn each_segment_can_be_replayed_alone() {
    let lines = lines(&common::family().text().unwrap());
    for segment in 0..3 {
        let from = header(&lines, segment);
        let to = if segment == 2 { lines.len() } else { header(&lines, segment + 1) };
        let report = replayed(joined(&lines[from..to]));
        assert!(report.is_good(), "segment {segment}: {report}");
        assert_eq!((report.segments, report.inputs), (1, (to - from - 1) as u64));
    }
}

#[test]
fn a_changed_command_is_found_and_shown() {
    let mut lines = lines(&common::quiet().text().unwrap());
    edit(&mut lines[1], |frame| {
        frame["out"][1]["why"] = json!("asked");
        frame["out"].as_array_mut().unwrap().remove(2);
    });
    let report = replayed(joined(&lines));
    let difference = report.difference.as_ref().unwrap();
    assert_eq!((difference.line, difference.segment, difference.input), (2, 1, 1));
    assert!(matches!(difference.what, What::Commands { .. }));
    assert_eq!(report.to_json()["difference"]["kind"], json!("commands"));
    insta::assert_snapshot!(shown(report), @r#"
    family.jsonl: DIFFERS after 1 segment, 1 input, 0 commands, 0 s of node time in 0 s

    Input 1 (line 2, segment 1, at 0.000s) is followed by other commands.

      the input:
          2        0.000s  started as 12D3KooWCKNzjnuRdbY68o5gdnr1BnBdDkFhUg7bdN1YZRjXHf2K with role desktop, network "elohim", 0 bootstrap and 0 pinned peers, mDNS off; the wall clock says 2026-09-21 14:13:20 UTC; own addresses: 192.168.1.7/24, 2a01:4f8:12:34::7/64, fe80::7/64; IPv4 to the internet
      the commands, as recorded (-) and as replayed (+):
          c1 listen on /ip4/0.0.0.0/tcp/4001, because the settings say so
        - c2 listen on /ip4/0.0.0.0/udp/4001/quic-v1, because you asked for it
        -   {"id":2,"do":{"listen":{"address":"/ip4/0.0.0.0/udp/4001/quic-v1"}},"why":"asked"}
        + c2 listen on /ip4/0.0.0.0/udp/4001/quic-v1, because the settings say so
        +   {"id":2,"do":{"listen":{"address":"/ip4/0.0.0.0/udp/4001/quic-v1"}},"why":"settings"}
        + c3 listen on /ip6/::/tcp/4001, because the settings say so
        +   {"id":3,"do":{"listen":{"address":"/ip6/::/tcp/4001"}},"why":"settings"}
          c4 listen on /ip6/::/udp/4001/quic-v1, because the settings say so
          c5 only ask the hash table, because this node is not known to be reachable from the internet

      after, as recorded:
          3        1.000s  the wall clock says 2026-09-21 14:13:21 UTC (synchronised)
          4        2.000s  the wall clock says 2026-09-21 14:13:22 UTC (synchronised)
          5        3.000s  the wall clock says 2026-09-21 14:13:23 UTC (synchronised)
    "#);
}

#[test]
fn what_stands_around_a_difference_is_kept() {
    let mut lines = lines(&common::family().text().unwrap());
    let at = with_commands(&lines, header(&lines, 1));
    edit(&mut lines[at], |frame| frame["out"][0]["why"] = json!("asked"));
    let difference = replayed(joined(&lines)).difference.unwrap();
    assert_eq!((difference.line, difference.segment), (at as u64 + 1, 2));
    assert_eq!((difference.before.len(), difference.after.len()), (3, 3));
    assert!(difference.before.iter().all(|(line, _)| *line < difference.line));
    assert!(difference.after.iter().all(|(line, _)| *line > difference.line));
}

#[test]
fn a_command_too_few_or_too_many_is_found() {
    let lines = lines(&common::family().text().unwrap());
    let at = with_commands(&lines, 1);
    for change in [
        (|frame| frame["out"] = json!([])) as fn(&mut Value),
        |frame| {
            let more = frame["out"][0].clone();
            frame["out"].as_array_mut().unwrap().push(more);
        },
        |frame| frame["out"].as_array_mut().unwrap().reverse(),
    ] {
        let mut lines = lines.clone();
        edit(&mut lines[at], change);
        assert_eq!(replayed(joined(&lines)).difference.unwrap().line, at as u64 + 1);
    }
}

#[test]
fn an_input_that_was_left_out_is_found() {
    let mut lines = lines(&common::family().text().unwrap());
    let is_found = |line: &String| {
        serde_json::from_str::<Frame>(line).is_ok_and(|frame| matches!(frame.r#in, Event::Found { .. }))
    };
    let at = lines.iter().position(is_found).unwrap();
    lines.remove(at);
    let difference = replayed(joined(&lines)).difference.unwrap();
    assert!(difference.line > at as u64);
}

#[test]
fn a_checkpoint_that_is_not_the_replayed_node_is_found() {
    let mut lines = lines(&common::family().text().unwrap());
    let at = header(&lines, 1);
    edit(&mut lines[at], |header| header["checkpoint"]["running"]["seed"] = json!(8));
    let report = replayed(joined(&lines));
    assert_eq!(report.segments, 1);
    let difference = report.difference.unwrap();
    assert_eq!(difference.line, at as u64 + 1);
    let at = "/running/seed".to_string();
    assert_eq!(difference.what, What::State { at, expected: Some(json!(8)), got: Some(json!(7)) });
}

#[test]
fn after_a_gap_the_checkpoint_is_believed() {
    let mut lines = lines(&common::family().text().unwrap());
    let at = header(&lines, 1);
    edit(&mut lines[at], |header| {
        header["reason"] = json!(SegmentReason::Gap);
        header["lost"] = json!(7);
    });
    // What the recorder lost.
    lines.drain(at - 7..at);
    let report = replayed(joined(&lines));
    assert!(report.is_good(), "{report}");
    assert_eq!((report.gaps, report.lost), (1, 7));

    // A ring that dropped a segment: its number is missing.
    let second = header(&lines, 1);
    let third = header(&lines, 2);
    lines.drain(second..third);
    let report = replayed(joined(&lines));
    assert!(report.is_good(), "{report}");
    assert_eq!((report.segments, report.gaps), (2, 1));
}

#[test]
fn a_checkpoint_that_cannot_be_used_stops_only_where_there_is_nothing_to_go_on_with() {
    let mut lines = lines(&common::family().text().unwrap());
    let at = header(&lines, 1);
    edit(&mut lines[at], |header| {
        header["checkpoint"]["running"]["seed"] = json!("seven");
        header["core"] = json!("0.0.9");
    });
    let report = replayed(joined(&lines));
    assert_eq!((report.segments, report.difference.is_none()), (3, true), "{report}");
    assert_eq!(report.problems.len(), 1);
    assert!(report.is_of_another_core());
    let problem = report.problems[0].problem.to_string().replace(CORE_VERSION, "VERSION");
    insta::assert_snapshot!(problem, @r#"the checkpoint was written by core 0.0.9 and can't be used by this one (VERSION): invalid type: string "seven", expected u64"#);
    assert!(
        shown(report)
            .contains(&format!("by core 0.0.9 and {CORE_VERSION}, replayed by core {CORE_VERSION}: differences are"))
    );

    let report = replayed(joined(&lines[at..]));
    assert_eq!((report.segments, report.inputs), (0, 0));
    assert_eq!(report.problems[0].problem.kind(), "bad_checkpoint");
}

#[test]
fn what_stands_before_the_damage_is_replayed() {
    let lines = lines(&common::family().text().unwrap());
    let cut = lines[..40].join("\n") + &lines[40][..lines[40].len() / 2];
    let report = replayed(cut);
    assert!(report.difference.is_none());
    assert_eq!(report.problems.iter().map(|problem| problem.problem.kind()).collect::<Vec<_>>(), ["cut_off"]);
    assert!(report.inputs >= 37, "{report}");
    assert!(!report.is_good());
}

#[test]
fn a_hostile_checkpoint_is_no_more_than_an_error() {
    let lines = lines(&common::family().text().unwrap());
    let at = header(&lines, 2);
    let value: Value = serde_json::from_str(&lines[at]).unwrap();
    let mut places = vec![];
    numbers(&value["checkpoint"], &mut String::from("/checkpoint"), &mut places);
    assert!(places.len() > 100);
    for place in places {
        let mut lines = lines[at..].to_vec();
        edit(&mut lines[0], |header| *header.pointer_mut(&place).unwrap() = json!(4_000_000_000_u32));
        // Ends, in whichever way.
        let report = replayed(joined(&lines));
        assert!(report.segments <= 1);
    }
}

fn numbers(value: &Value, at: &mut String, found: &mut Vec<String>) {
    let len = at.len();
    match value {
        Value::Number(_) => found.push(at.clone()),
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                at.push_str(&format!("/{index}"));
                numbers(item, at, found);
                at.truncate(len);
            }
        }
        Value::Object(fields) => {
            for (key, item) in fields {
                at.push_str(&format!("/{}", key.replace('~', "~0").replace('/', "~1")));
                numbers(item, at, found);
                at.truncate(len);
            }
        }
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}
