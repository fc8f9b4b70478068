//! The museum: a bug is planted between each core and its world, and the checks must find it. With `--features museum`.
#![allow(clippy::unwrap_used, reason = "a test")]

use kinfolk_core::{Ask, PeerAddress};
use kinfolk_sim::{
    engine::SECOND,
    scenario::{Plan, load, parse},
    swarm::{Plant, peer_id},
};

/// A home behind a router, another one whose clock is two hours late, and two servers, one of which is killed.
const SCENARIO: &str = r#"
name = "museum"
duration = "3h"

[[isp]]
name = "north"

[[server]]
name = "server"

[[home]]
name = "alice"
isp = "north"
family = "family"
bootstrap = ["server"]
relays = ["server"]

[[home]]
name = "bob"
isp = "north"
nat = "symmetric"
nodes = 2
family = "family"
clock-offset = -7200
bootstrap = ["server"]
relays = ["server"]

[[fault]]
at = "100m"
what = "kill"
who = "server"
for = "1m"

[expect]
families = "connected"
nobody-alone = true
"#;

/// Runs with a bug, or with none, and a user who asks for somebody nobody knows. Which invariants are found broken.
fn found(plant: Option<Plant>) -> Vec<u8> {
    let scenario = parse("museum.toml", SCENARIO).unwrap();
    let mut plan = Plan::new(&scenario, 3);
    if let Some(plant) = plant {
        plan.world.plant(plant);
    }
    if plan.run_until(60 * SECOND) {
        plan.world.ask(1, Ask::Connect(PeerAddress { peer: Some(peer_id(77)), address: None }));
        plan.run();
    }
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
        (Plant::ForgottenDeadline, &[2][..]),
        (Plant::PastDeadline, &[2]),
        (Plant::DoubleDial, &[4]),
        (Plant::SelfDial, &[5]),
        (Plant::NowhereDial, &[5]),
        (Plant::PrivateAddress, &[7]),
        (Plant::LostAnswer, &[13]),
        (Plant::DoubleAnswer, &[13]),
        (Plant::MissedRenewal, &[10, 12]),
        (Plant::EdgeTriggeredRelay, &[10, 12]),
        (Plant::TrimmedPin, &[9]),
        (Plant::Flipping, &[8]),
        (Plant::ManyQueries, &[3]),
    ] {
        let broken = found(Some(plant));
        if !broken.iter().any(|invariant| invariants.contains(invariant)) {
            missed.push((plant, broken));
        }
    }
    assert_eq!(missed, [], "not found");
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
