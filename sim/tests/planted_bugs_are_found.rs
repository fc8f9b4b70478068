//! The museum: a bug is planted between each core and its world, and the checks must find it. With `--features museum`.
#![allow(clippy::unwrap_used, reason = "a test")]

use kinfolk_sim::{
    engine::SECOND,
    scenario::{Plan, load, parse},
    swarm::Plant,
};

mod common;
use common::museum;

/// Runs with a bug, or with none. Which invariants are found broken.
fn found(plant: Option<&str>) -> Vec<u8> {
    let mut plan = Plan::new(&parse("museum.toml", &museum(plant)).unwrap(), 3);
    plan.run();
    plan.world.findings().iter().map(|finding| finding.invariant).collect()
}

#[test]
fn without_a_bug_nothing_is_found() {
    assert_eq!(found(None), Vec::<u8>::new());
}

#[test]
fn each_bug_is_found_by_the_check_that_it_belongs_to() {
    let mut missed = vec![];
    for (plant, invariants) in [
        ("forgotten-deadline", &[2][..]),
        ("past-deadline", &[2]),
        ("double-dial", &[4]),
        ("self-dial", &[5]),
        ("nowhere-dial", &[5]),
        ("private-address", &[7]),
        ("lost-answer", &[13]),
        ("double-answer", &[13]),
        ("missed-renewal", &[10, 12]),
        ("edge-triggered-relay", &[10, 12]),
        ("trimmed-pin", &[9]),
        ("flipping", &[8]),
        ("many-queries", &[3]),
    ] {
        let broken = found(Some(plant));
        if !broken.iter().any(|invariant| invariants.contains(invariant)) {
            missed.push((plant, broken));
        }
    }
    assert_eq!(missed, [], "not found");
}

/// At the next thing that its node is told, not only when something overdue is looked for.
#[test]
fn a_forgotten_deadline_is_seen_at_the_next_step() {
    let mut plan = Plan::new(&parse("museum.toml", &museum(Some("forgotten-deadline"))).unwrap(), 3);
    plan.run();
    let finding = &plan.world.findings()[0];
    assert!(finding.what.starts_with("a deadline was forgotten"), "{finding}");
    assert!(finding.at < 60 * SECOND, "{finding}");
}

/// The check of the engine itself: a walk in a random order makes the same seed another run.
#[test]
fn a_walk_in_random_order_changes_the_hash() {
    let scenario = load("family-of-eight").unwrap();
    let hash = || {
        let mut plan = Plan::new(&scenario, 3);
        plan.world.plant(Plant::HashOrder);
        plan.run_until(600 * SECOND);
        plan.world.digest().to_string()
    };
    let first = hash();
    assert!((0..20).any(|_| hash() != first), "twenty runs in a random order, and all are the same");
}
