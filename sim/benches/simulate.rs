//! What simulating costs: CPU for each second of a node in steady state, with all checks on, memory for each node, events
//! in a second of CPU, and how many seeds of "two homes and a server" a minute holds.
//!
//! CPU time of this process, since the machines that run this are shared. `cargo bench -p kinfolk-sim --bench simulate`
//! measures 1 000 and 10 000 nodes; numbers after `--` are other sizes (`-- 100000`).

#![allow(clippy::print_stdout, clippy::unwrap_used, missing_docs, reason = "a benchmark prints its figures")]

use std::{fs, sync::atomic::AtomicBool, time::Duration};

use kinfolk_sim::{
    engine::SECOND,
    run::run,
    scenario::{Plan, load, parse},
};
use rustix::time::{ClockId, clock_gettime};

/// Simulated seconds until everybody has settled, and that are measured.
const WARM: u64 = 1_200;
const MEASURED: u64 = 600;
/// Seeds of the small scenario.
const SEEDS: u64 = 200;

fn main() {
    let asked: Vec<u32> = std::env::args().skip(1).filter_map(|size| size.parse().ok()).collect();
    let sizes = if asked.is_empty() { vec![1_000, 10_000] } else { asked };
    seeds();
    println!("{:>8} {:>12} {:>14} {:>12} {:>14}", "nodes", "µs/node-s", "events/CPU-s", "KiB/node", "warming, CPU");
    for size in sizes {
        measure(size);
    }
}

fn seeds() {
    let scenario = load("two-homes-and-a-server").unwrap();
    let never = AtomicBool::new(false);
    let began = cpu();
    for seed in 0..SEEDS {
        assert!(run(&scenario, seed, &never).is_good());
    }
    let took = (cpu() - began).as_secs_f64();
    println!("two homes and a server: {:.0} seeds per minute", SEEDS as f64 / took * 60.0);
}

/// Families of four behind two routers each, around one server for each hundred nodes.
fn world(nodes: u32) -> String {
    let servers = (nodes / 100).max(1);
    let mut text = format!(
        "name = \"{nodes} nodes\"\nduration = \"{}s\"\nstart-within = \"5m\"\n[weather]\nloss = 1000\njitter = \"2ms\"\n\
         [[isp]]\nname = \"cable\"\nipv6 = true\n[[isp]]\nname = \"plain\"\n\
         [[server]]\nname = \"server\"\ncount = {servers}\nbootstrap = [\"server\"]\n",
        WARM + MEASURED
    );
    for (name, isp, share) in [("cabled", "cable", 6), ("plainly", "plain", 4)] {
        let count = (nodes - servers) / 2 * share / 10;
        text += &format!(
            "[[home]]\nname = \"{name}\"\ncount = {count}\nisp = \"{isp}\"\nnodes = 2\n\
             nat = {{ port-restricted = 7, full-cone = 2, symmetric = 1 }}\nbootstrap = [\"server\"]\n"
        );
    }
    text
}

fn measure(size: u32) {
    let scenario = parse("bench.toml", &world(size)).unwrap();
    let nodes = scenario.nodes();
    let (memory, began) = (resident(), cpu());
    let mut plan = Plan::new(&scenario, 1);
    plan.run_until(WARM * SECOND);
    let (warm, before) = (cpu(), plan.world.counts().events);
    plan.run_until((WARM + MEASURED) * SECOND);
    let took = (cpu() - warm).as_secs_f64();
    let events = (plan.world.counts().events - before) as f64;
    let host_seconds = (nodes * MEASURED) as f64;
    for finding in plan.world.findings() {
        println!("  {finding}");
    }
    println!(
        "{nodes:>8} {:>12.2} {:>14.0} {:>12.1} {:>12.1} s",
        took * 1e6 / host_seconds,
        events / took,
        (resident() - memory) as f64 / 1_024.0 / nodes as f64,
        (warm - began).as_secs_f64()
    );
}

/// CPU time of this process.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap())
}

/// Bytes of memory that this process holds.
fn resident() -> u64 {
    let text = fs::read_to_string("/proc/self/statm").unwrap();
    text.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 4_096
}
