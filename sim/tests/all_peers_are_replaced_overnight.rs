//! A family whose computers sleep while everybody else is replaced meets again by the doorway that it knows, whatever
//! other doorways do, and by nothing else.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::sync::atomic::AtomicBool;

use kinfolk_sim::{
    results::Summary,
    run::run_seeds,
    scenario::{Plan, load, parse},
};

static NEVER: AtomicBool = AtomicBool::new(false);

#[test]
fn the_family_meets_again() {
    let scenario = load("overnight").unwrap();
    let reports = run_seeds(&scenario, 0..10, 2, &NEVER, &|_| {});
    let summary = Summary::of(&reports);
    assert_eq!((summary.runs, summary.failed), (10, 0), "{summary}");
    assert!(reports.iter().all(|report| report.counts.signal_questions > 0));
}

/// How many pairs of the family are connected in the end.
fn connected(text: &str) -> (usize, usize) {
    let mut plan = Plan::new(&parse("overnight.toml", text).unwrap(), 1);
    plan.run();
    let pairs: Vec<(u32, u32)> = plan.world.pairs().iter().map(|pair| pair.nodes).collect();
    let apart = |(a, b): &&(u32, u32)| plan.world.paths(*a, *b) == (false, false);
    (pairs.len() - pairs.iter().filter(apart).count(), pairs.len())
}

/// Otherwise the scenario would show nothing.
#[test]
fn without_the_honest_doorway_only_a_common_home_is_found() {
    let text = load("overnight").unwrap().text;
    assert_eq!(connected(&text), (6, 6));
    let dead = "[[fault]]\nat = \"1h30m\"\nwhat = \"power-off\"\nwho = \"doorway\"\n";
    let mut without = text.replace("[expect]", &format!("{dead}\n[expect]"));
    without = without.replace("nobody-alone = true", "nobody-alone = false");
    // The parents' two computers hear each other's multicasts.
    assert_eq!(connected(&without), (1, 6));
}
