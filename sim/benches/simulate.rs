//! What simulating costs: CPU for each second of a node in steady state, with all checks on, memory for each node, events
//! in a second of CPU, and how many seeds of "two homes and a server" a minute holds.
//!
//! CPU time of this process, since the machines that run this are shared. `cargo bench -p kinfolk-sim --bench simulate`
//! measures 1 000 and 10 000 nodes; a number after `--` is another size (`-- 100000`).

#![allow(clippy::print_stdout, clippy::unwrap_used, missing_docs, reason = "a benchmark prints its figures")]

use std::{fs, process::Command, sync::atomic::AtomicBool, time::Duration};

use kinfolk_sim::{
    engine::SECOND,
    run::run,
    scenario::{Plan, load, parse},
};
use rustix::time::{ClockId, clock_gettime};

/// Simulated seconds until everybody has settled, and that are measured.
const WARM: u64 = 1_200;
const MEASURED: u64 = 600;
/// Nodes of one network.
const CROWD: u32 = 200;
/// Seeds of the small scenario.
const SEEDS: u64 = 200;

fn main() {
    let mut asked = std::env::args().skip(1).filter(|word| !word.starts_with('-'));
    match (asked.next(), asked.next()) {
        (Some(world), Some(size)) => measure(&world, size.parse().unwrap()),
        (size, _) => all(size.map_or_else(|| vec![1_000, 10_000], |size| vec![size.parse().unwrap()])),
    }
}

/// Each world in a process of its own, with memory of its own.
fn all(sizes: Vec<u32>) {
    seeds();
    println!(
        "{:<14} {:>8} {:>12} {:>14} {:>14} {:>10} {:>14}",
        "", "nodes", "µs/node-s", "events/CPU-s", "events/node-s", "KiB/node", "gathering, µs"
    );
    for (world, size) in sizes.iter().map(|size| ("families", *size)).chain([("crowd", CROWD)]) {
        let program = std::env::current_exe().unwrap();
        assert!(Command::new(program).args([world, &size.to_string()]).status().unwrap().success());
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

/// Families of ten, each with a network, a server and three homes of its own.
fn families(nodes: u32) -> String {
    let mut text = "[[isp]]\nname = \"cable\"\nipv6 = true\n[[isp]]\nname = \"plain\"\n".to_owned();
    for family in 0..nodes / 10 {
        let isp = if family % 5 < 3 { "cable" } else { "plain" };
        text += &format!(
            "[[server]]\nname = \"server-{family}\"\nfamily = \"{family}\"\nnetwork = \"family-{family}\"\n\
             [[home]]\nname = \"home-{family}\"\ncount = 3\nnodes = 3\nisp = \"{isp}\"\n\
             family = \"{family}\"\nnetwork = \"family-{family}\"\nbootstrap = [\"server-{family}\"]\n\
             nat = {{ port-restricted = 7, full-cone = 2, symmetric = 1 }}\n"
        );
    }
    text
}

/// One network: for each 25 nodes a server, and homes of two nodes each that know this one and the next.
fn crowd(nodes: u32) -> String {
    let servers = (nodes / 25).max(1);
    let mut text = "[[isp]]\nname = \"cable\"\nipv6 = true\n[[isp]]\nname = \"plain\"\n".to_owned();
    for at in 0..servers {
        let next = (at + 1) % servers;
        text += &format!("[[server]]\nname = \"server-{at}\"\nbootstrap = [\"server-{next}\"]\n");
        for (name, isp, share) in [("cabled", "cable", 6), ("plainly", "plain", 4)] {
            let count = (nodes / servers - 1) / 2 * share / 10;
            text += &format!(
                "[[home]]\nname = \"{name}-{at}\"\ncount = {count}\nisp = \"{isp}\"\nnodes = 2\n\
                 nat = {{ port-restricted = 7, full-cone = 2, symmetric = 1 }}\n\
                 bootstrap = [\"server-{at}\", \"server-{next}\"]\n"
            );
        }
    }
    text
}

fn measure(world: &str, size: u32) {
    let who = if world == "crowd" { crowd(size) } else { families(size) };
    let text = format!(
        "name = \"{world}\"\nduration = \"{}s\"\nstart-within = \"5m\"\n\
         [weather]\nloss = 1000\njitter = \"2ms\"\n{who}",
        WARM + MEASURED
    );
    let scenario = parse("bench.toml", &text).unwrap();
    let nodes = scenario.nodes();
    let (memory, began) = (resident(), cpu());
    let mut plan = Plan::new(&scenario, 1);
    plan.run_until(WARM * SECOND);
    let (warm, before) = (cpu(), plan.world.counts().events);
    plan.run_until((WARM + MEASURED) * SECOND);
    let took = (cpu() - warm).as_secs_f64();
    let events = (plan.world.counts().events - before) as f64;
    let host_seconds = (nodes * MEASURED) as f64;
    println!(
        "{world:<14} {nodes:>8} {:>12.2} {:>14.0} {:>14.2} {:>10.1} {:>14.2}",
        took * 1e6 / host_seconds,
        events / took,
        events / host_seconds,
        (resident() - memory) as f64 / 1_024.0 / nodes as f64,
        (warm - began).as_secs_f64() * 1e6 / (nodes * WARM) as f64
    );
    assert_eq!(plan.world.findings(), [], "{size} nodes");
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
