//! Nodes come and go, an ocean parts them, one loses its store: in the end all have all entries, and then it is quiet.
//!
//! Twelve nodes; `kinfolk-sim run logs-of-fifty` is the same with more of them.
#![allow(clippy::unwrap_used, reason = "a test")]

use kinfolk_sim::scenario::{self, Plan, Scenario};

const MINUTE: u64 = 60_000_000_000;

const TWELVE: &str = r#"
name = "twelve"
duration = "40m"
start-within = "1m"

[weather]
loss = 1000
jitter = "2ms"

[logs]
every = "2m"
entries = 300
until = "25m"

[[region]]
name = "europe"

[[region]]
name = "america"

[[distance]]
between = ["europe", "america"]
one-way = "45ms"

[[isp]]
name = "cable"
region = "europe"

[[isp]]
name = "overseas"
region = "america"

[[server]]
name = "east"
region = "europe"
bootstrap = ["west"]

[[server]]
name = "west"
region = "america"
bootstrap = ["east"]

[[home]]
name = "home"
count = 6
isp = "cable"
bootstrap = ["east", "west"]

[[home]]
name = "far"
count = 4
isp = "overseas"
nat = "full-cone"
role = "desktop"
bootstrap = ["east", "west"]

[[fault]]
at = "5m"
what = "partition"
who = "europe"
to = "america"
for = "8m"

[[fault]]
at = "8m"
what = "lose"
who = "home.1"
for = "1m"

[[random-fault]]
what = "stop"
who = "home"
every = "10m"
for = "2m"
until = "25m"

[expect]
nobody-alone = true
same-logs = true
"#;

fn twelve() -> Scenario {
    scenario::parse("twelve", TWELVE).unwrap()
}

/// What is missing at a node, as its core sees it.
fn missing(plan: &Plan, node: u32) -> u64 {
    let view = plan.world.machines()[node as usize].core.view().unwrap().sync();
    view.logs.iter().map(|log| log.missing).sum()
}

#[test]
fn all_nodes_have_the_same_logs_in_the_end() {
    let mut plan = Plan::new(&twelve(), 1);
    assert!(plan.run(), "{:?}", plan.world.findings());
    // Each entry is fetched once by each other node, and again where a store was lost; not again and again.
    let counts = plan.world.counts();
    let (written, received) = (counts.entries_written, counts.entries_received);
    println!("{written} entries written, {received} received, {} questions", counts.log_questions);
    assert!(written > 10_000 && received >= written * 10 && received < written * 12, "{written} {received}");
    for node in 0..12 {
        assert_eq!(missing(&plan, node), 0);
    }
}

#[test]
fn a_partition_parts_logs_until_it_heals() {
    let mut scenario = twelve();
    scenario.random_faults.clear();
    let mut plan = Plan::new(&scenario, 2);
    assert!(plan.run_until(12 * MINUTE), "{:?}", plan.world.findings());
    // The servers `east` and `west`.
    assert_ne!(plan.world.heads(0), plan.world.heads(1), "parted for 7 minutes");
    assert!(plan.run(), "{:?}", plan.world.findings());
    assert_eq!(plan.world.heads(0), plan.world.heads(1));
}

#[test]
fn an_idle_hour_costs_a_peer_little() {
    let mut scenario = twelve();
    scenario.random_faults.clear();
    scenario.faults.clear();
    scenario.duration = std::time::Duration::from_secs(100 * 60);
    let mut plan = Plan::new(&scenario, 3);
    assert!(plan.run_until(35 * MINUTE), "{:?}", plan.world.findings());
    let before = plan.world.counts().log_bytes;
    assert!(plan.run_until(95 * MINUTE), "{:?}", plan.world.findings());
    let bytes = plan.world.counts().log_bytes - before;
    let sides: u64 = plan.world.machines().iter().map(|one| u64::from(one.core.view().unwrap().sync().partners)).sum();
    let each = bytes / (sides / 2);
    println!("{bytes} bytes in an idle hour, {} pairs of peers, {each} bytes each", sides / 2);
    assert!(sides >= 2 * 11 && each <= 20_000, "{sides} {each}");
}
