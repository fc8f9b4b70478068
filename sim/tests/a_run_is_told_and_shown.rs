//! A run in words, and as a page.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::sync::atomic::AtomicBool;

use kinfolk_sim::{
    explain::{Question, explain},
    report,
    scenario::load,
};
use serde_json::Value;

static NEVER: AtomicBool = AtomicBool::new(false);

fn question(node: &str, peer: Option<&str>) -> Question {
    Question { node: node.to_owned(), peer: peer.map(str::to_owned), from: 0, to: u64::MAX, all: false }
}

#[test]
fn a_pair_is_told_from_both_sides_in_order_and_by_name() {
    let scenario = load("two-homes-and-a-server").unwrap();
    let story = explain(&scenario, 1, &question("alice/1", Some("bob/1")), &NEVER).unwrap();
    let text = story.to_string();
    for side in ["alice/1", "bob/1"] {
        assert!(story.lines.iter().any(|line| line.node.as_deref() == Some(side)), "{text}");
    }
    assert!(story.lines.is_sorted_by_key(|line| line.at));
    assert!(story.summary.iter().any(|said| said.starts_with("they met after")), "{text}");
    assert!(text.contains("alice/1: dial ") || text.contains("bob/1: dial "), "{text}");
    assert!(!text.contains("12D3KooW"), "an id instead of a name: {text}");
}

#[test]
fn what_the_scenario_does_is_part_of_the_story() {
    let scenario = load("a-day").unwrap();
    let story = explain(&scenario, 1, &question("server", None), &NEVER).unwrap();
    assert!(story.lines.iter().any(|line| line.node.is_none()), "{story}");
    let before = story.lines.len();
    let later = Question { from: 3_600_000_000_000, ..question("server", None) };
    let later = explain(&scenario, 1, &later, &NEVER).unwrap();
    assert!(later.lines.len() < before && later.lines.iter().all(|line| line.at >= 3_600_000_000_000));
}

#[test]
fn nobody_of_that_name_is_an_error_that_names_those_who_are_there() {
    let scenario = load("two-homes-and-a-server").unwrap();
    let error = explain(&scenario, 1, &question("carol/1", None), &NEVER).unwrap_err();
    assert_eq!(error, "no node is called 'carol/1'; there are server, alice/1, bob/1");
}

#[test]
fn a_page_holds_everything_itself() {
    let scenario = load("family-of-eight").unwrap();
    let (run, page) = report::page(&scenario, 1, &NEVER);
    for outside in ["http:", "https:", "src=", "@import", "url("] {
        assert!(!page.contains(outside), "{outside}");
    }
    let begin = page.find("application/json\">").unwrap() + "application/json\">".len();
    let end = begin + page[begin..].find("</script>").unwrap();
    let data: Value = serde_json::from_str(&page[begin..end]).unwrap();
    assert_eq!(data["nodes"].as_array().unwrap().len() as u64, run.nodes);
    assert_eq!(data["end"], run.seconds);
    let links = data["links"].as_array().unwrap();
    let paths: std::collections::BTreeSet<u64> = links.iter().map(|link| link[2].as_u64().unwrap()).collect();
    assert!(paths.contains(&0) && paths.contains(&2), "direct and relayed ones: {paths:?}");
    assert!(links.iter().all(|link| link[3].as_u64() < link[4].as_u64()), "each stands for a while");
}
