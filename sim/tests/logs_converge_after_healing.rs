//! Nodes come and go, an ocean parts them, one loses its store: in the end all have all entries, and then it is quiet.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::sync::atomic::AtomicBool;

use kinfolk_sim::{
    run,
    scenario::{self, Plan},
};

static NEVER: AtomicBool = AtomicBool::new(false);
const MINUTE: u64 = 60_000_000_000;

#[test]
fn fifty_nodes_have_the_same_logs_in_the_end() {
    let scenario = scenario::load("logs-of-fifty").unwrap();
    assert_eq!(scenario.nodes(), 50);
    let report = run::run(&scenario, 1, &NEVER);
    println!("{report}");
    assert!(report.is_good(), "{report}");
    // Each entry is fetched once by each other node, or twice where a store was lost; not again and again.
    let (written, received) = (report.counts.entries_written, report.counts.entries_received);
    assert!(written > 1_000 && received >= written * 49 && received < written * 52, "{written} {received}");
}

#[test]
fn a_partition_parts_logs_until_it_heals() {
    let mut scenario = scenario::load("logs-of-fifty").unwrap();
    scenario.random_faults.clear();
    let mut plan = Plan::new(&scenario, 2);
    assert!(plan.run_until(34 * MINUTE));
    // `east.1` and `west.1`.
    assert_ne!(plan.world.heads(0), plan.world.heads(2), "parted for 19 minutes");
    assert!(plan.run_until(37 * MINUTE));
    let missing = |plan: &Plan, node: u32| {
        let view = plan.world.machines()[node as usize].core.view().unwrap().sync();
        view.logs.iter().map(|log| log.missing).sum::<u64>()
    };
    assert!(missing(&plan, 0) + missing(&plan, 2) < 20, "{} {}", missing(&plan, 0), missing(&plan, 2));
    assert!(plan.run(), "{:?}", plan.world.findings());
}

#[test]
fn an_idle_hour_costs_a_peer_little() {
    let mut scenario = scenario::load("logs-of-fifty").unwrap();
    scenario.random_faults.clear();
    scenario.faults.clear();
    scenario.duration = std::time::Duration::from_secs(2 * 3_600);
    scenario.logs.as_mut().unwrap().until = Some(std::time::Duration::from_secs(30 * 60));
    let mut plan = Plan::new(&scenario, 3);
    assert!(plan.run_until(60 * MINUTE));
    let before = plan.world.counts().log_bytes;
    assert!(plan.run_until(120 * MINUTE));
    let bytes = plan.world.counts().log_bytes - before;
    let pairs: u64 = plan.world.machines().iter().map(|one| u64::from(one.core.view().unwrap().sync().partners)).sum();
    let each = bytes / (pairs / 2);
    println!("{bytes} bytes in an idle hour, {} pairs of peers, {each} bytes each", pairs / 2);
    assert!(each <= 20_000, "{each}");
}
