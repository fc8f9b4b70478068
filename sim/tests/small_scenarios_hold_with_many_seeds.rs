//! Two hundred seeds of the small scenarios, each time the tests run: all checks on, nothing found.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::sync::atomic::AtomicBool;

use kinfolk_sim::{results::Summary, run::run_seeds, scenario::load};

static NEVER: AtomicBool = AtomicBool::new(false);

fn hold(scenario: &str, seeds: u64) {
    let scenario = load(scenario).unwrap();
    let reports = run_seeds(&scenario, 0..seeds, 2, &NEVER, &|_| {});
    let summary = Summary::of(&reports);
    assert_eq!((summary.runs, summary.failed), (seeds, 0), "{summary}");
}

#[test]
fn a_lan_of_five() {
    hold("lan-of-five", 200);
}

#[test]
fn two_homes_and_a_server() {
    hold("two-homes-and-a-server", 200);
}

#[test]
fn a_family_of_eight() {
    hold("family-of-eight", 40);
}

#[test]
fn a_cold_start() {
    hold("cold-start", 20);
}
