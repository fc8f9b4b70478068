//! One scenario and one seed are one run: twice in a process, in two processes, with others beside it, and in debug and
//! release builds.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::{collections::BTreeSet, process::Command, sync::atomic::AtomicBool};

use kinfolk_sim::{run, scenario};

static NEVER: AtomicBool = AtomicBool::new(false);

/// Everything that can happen at random, in ten minutes.
const STORMY: &str = r#"
name = "stormy"
duration = "12m"

[weather]
loss = 20000
bursts = 20000
reordered = 20000
duplicated = 20000
jitter = "10ms"
wake-slack = "50ms"

[[isp]]
name = "north"
nat = "carrier-grade"

[[isp]]
name = "south"
ipv6 = true

[[server]]
name = "server"
count = 3
bootstrap = ["server"]

[[home]]
name = "home"
count = 6
isp = "south"
nodes = 2
nat = { port-restricted = 2, symmetric = 1, full-cone = 1 }
clock-drift = 30
bootstrap = ["server"]
relays = ["server"]
family = "family"

[[home]]
name = "mobile"
count = 3
isp = "north"
bootstrap = ["server"]
relays = ["server"]
family = "family"

[[random-fault]]
what = "kill"
who = "home"
every = "5m"
for = "30s"

[[random-fault]]
what = "router-reboot"
who = "home"
every = "6m"
for = "10s"
"#;

fn hash(text: &str, seed: u64) -> String {
    let scenario = scenario::parse("stormy.toml", text).unwrap();
    run::run(&scenario, seed, &NEVER).hash
}

#[test]
fn twice_in_one_process() {
    for seed in 0..3 {
        assert_eq!(hash(STORMY, seed), hash(STORMY, seed), "seed {seed}");
    }
}

#[test]
fn in_another_process() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("stormy.toml");
    std::fs::write(&file, STORMY).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_kinfolk-sim"))
        .args(["run", file.to_str().unwrap(), "--seed", "5", "--json"])
        .output()
        .unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["hash"], hash(STORMY, 5));
}

/// Of the profile that these tests are not built in. It takes minutes, so it is for those who ask:
/// `cargo test -p kinfolk-sim --test the_same_seed_is_the_same_run -- --ignored`.
#[test]
#[ignore = "builds the program once more"]
fn in_debug_and_release() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("stormy.toml");
    std::fs::write(&file, STORMY).unwrap();
    let other = if cfg!(debug_assertions) { "release" } else { "dev" };
    let output = Command::new(env!("CARGO"))
        .args([
            "run",
            "--quiet",
            "--profile",
            other,
            "--manifest-path",
            concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"),
        ])
        .args(["--", "run", file.to_str().unwrap(), "--seeds", "0..4", "--jobs", "1", "--json"])
        .output()
        .unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    let hashes: Vec<serde_json::Value> = told
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .filter(|report| report["seed"].is_u64())
        .map(|report| report["hash"].clone())
        .collect();
    let here: Vec<String> = (0..4).map(|seed| hash(STORMY, seed)).collect();
    assert_eq!(hashes, here, "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn beside_others_on_other_threads() {
    let scenario = scenario::parse("stormy.toml", STORMY).unwrap();
    let reports = run::run_seeds(&scenario, 0..4, 2, &NEVER, &|_| {});
    for report in &reports {
        assert_eq!(report.hash, hash(STORMY, report.seed));
    }
    let hashes: BTreeSet<&str> = reports.iter().map(|report| report.hash.as_str()).collect();
    assert_eq!(hashes.len(), 4, "another seed is another run");
}

#[test]
fn a_recorded_run_is_no_other_run_and_its_traces_replay() {
    let scenario = scenario::parse("stormy.toml", STORMY).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let report = run::run_recorded(&scenario, 2, &NEVER, folder.path(), None).unwrap();
    assert_eq!(report.hash, hash(STORMY, 2));
    let mut replayed = 0;
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let mut reader = kinfolk_sim::trace::Reader::open(&entry.unwrap().path()).unwrap();
        let result = kinfolk_sim::replay::replay(&mut reader, kinfolk_sim::replay::Options::default());
        assert!(result.is_good(), "{result}");
        replayed += 1;
    }
    assert!(replayed >= 15, "{replayed} traces");
}
