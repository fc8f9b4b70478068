//! Hundreds of seeds of the small scenarios, each time the tests run: all checks on, nothing found. With faults, weather
//! and NATs drawn from each seed, too.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::{ops::Range, sync::atomic::AtomicBool};

use kinfolk_sim::{
    results::Summary,
    run::{Report, run_seeds},
    scenario::load,
    sweep::{Shard, Sweep},
};

static NEVER: AtomicBool = AtomicBool::new(false);

fn hold(scenario: &str, seeds: u64) {
    let scenario = load(scenario).unwrap();
    let reports = run_seeds(&scenario, 0..seeds, 2, &NEVER, &|_| {});
    nothing_is_found(&reports, seeds);
}

/// What the same sweep does: `kinfolk-sim sweep SCENARIO --seeds A..B --vary`.
fn hold_whatever_comes(scenario: &str, seeds: Range<u64>) {
    let scenario = load(scenario).unwrap();
    let sweep = Sweep { seeds: seeds.clone(), shard: Shard { index: 0, of: 1 }, jobs: 2, vary: true };
    let mut reports: Vec<Report> = vec![];
    let mut keep = |_: &_, report: &Report| {
        reports.push(report.clone());
        Ok(())
    };
    sweep.run(&scenario, &sweep.open_seeds(&[]), &NEVER, &mut keep).unwrap();
    nothing_is_found(&reports, seeds.end - seeds.start);
}

fn nothing_is_found(reports: &[Report], seeds: u64) {
    let summary = Summary::of(reports);
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
fn two_homes_and_a_server_in_all_weathers() {
    hold_whatever_comes("two-homes-and-a-server", 0..200);
}

#[test]
fn a_family_of_eight() {
    hold("family-of-eight", 40);
}

#[test]
fn a_family_of_eight_in_all_weathers() {
    hold_whatever_comes("family-of-eight", 0..60);
}

#[test]
fn a_day() {
    hold("a-day", 2);
}

#[test]
fn a_cold_start() {
    hold("cold-start", 20);
}
