//! A failing run leaves a folder from which it can be seen again, and is made small without becoming another failure.
//! With `--features museum`.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::{fs, path::Path, sync::atomic::AtomicBool};

use kinfolk_sim::{
    artefact,
    replay::{Options, replay},
    run,
    scenario::{Scenario, parse},
    shrink::{Kind, Limits, Small, shrink},
    trace::Reader,
};

mod common;

static NEVER: AtomicBool = AtomicBool::new(false);

/// Twelve nodes, much weather and many faults, of which none has to do with what is planted.
fn crowd(plant: &str) -> Scenario {
    let text = format!(
        r#"
name = "crowd"
duration = "40m"
plant = "{plant}"

[weather]
loss = 2000
jitter = "2ms"

[[isp]]
name = "north"

[[isp]]
name = "south"
ipv6 = true

[[server]]
name = "server"
count = 2
bootstrap = ["server"]

[[home]]
name = "home"
count = 4
isp = "south"
nodes = 2
family = "family"
bootstrap = ["server"]
relays = ["server"]

[[home]]
name = "lone"
count = 2
isp = "north"
bootstrap = ["server"]

[[fault]]
at = "1m"
what = "new-address"
who = "home.2"

[[fault]]
at = "2m"
what = "partition"
who = "home"
to = "lone"
for = "30s"

[[random-fault]]
what = "kill"
who = "home"
every = "8m"
for = "20s"

[[ask]]
at = "30s"
who = "home.1/1"

[expect]
nobody-alone = true
"#
    );
    parse("crowd.toml", &text).unwrap()
}

fn kind(report: &run::Report) -> Kind {
    Kind::of(&report.findings[0].finding)
}

fn shrunk(scenario: &Scenario) -> Small {
    let limits = Limits { runs: 400, seconds: 60, seeds: 2 };
    shrink(scenario, 5, limits, &NEVER, &|_| {}).unwrap()
}

fn traces(folder: &Path) -> usize {
    let mut replayed = 0;
    for entry in fs::read_dir(folder.join("traces")).unwrap() {
        let mut reader = Reader::open(&entry.unwrap().path()).unwrap();
        let result = replay(&mut reader, Options::default());
        assert!(result.is_good(), "{result}");
        replayed += 1;
    }
    replayed
}

#[test]
fn everything_that_it_takes_is_in_one_folder() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("kept");
    let scenario = crowd("double-dial");
    let report = run::run(&scenario, 5, &NEVER);
    assert!(!report.is_good());
    artefact::write(&scenario, &report, None, &NEVER, &folder).unwrap();
    let (again, failure) = artefact::open(&folder).unwrap();
    assert_eq!((failure.seed, &failure.report.hash), (5, &report.hash));
    assert_eq!(again.text, scenario.text);
    let second = run::run(&again, failure.seed, &NEVER);
    assert_eq!((second.hash, second.findings), (report.hash, report.findings));
    let traced = traces(&folder);
    assert!(traced >= 1 && traced <= 12, "those who had started by then: {traced}");
}

#[test]
fn what_is_no_such_folder_is_told_so() {
    let place = tempfile::tempdir().unwrap();
    assert!(!artefact::is_one(place.path()));
    fs::write(place.path().join("failure.json"), "{}").unwrap();
    let error = artefact::open(place.path()).unwrap_err().to_string();
    assert!(error.contains("failure.json: missing field"), "{error}");
}

#[test]
fn each_planted_bug_is_shrunk_to_few_nodes_and_stays_the_same_bug() {
    for (plant, nodes) in [
        ("double-dial", 2),
        ("self-dial", 2),
        ("nowhere-dial", 2),
        ("private-address", 1),
        ("lost-answer", 2),
        ("double-answer", 2),
        ("past-deadline", 1),
    ] {
        let scenario = crowd(plant);
        let before = run::run(&scenario, 5, &NEVER);
        assert!(!before.is_good(), "{plant} is not found");
        let small = shrunk(&scenario);
        assert_eq!(kind(&small.report), kind(&before), "{plant}");
        assert!(small.scenario.nodes() <= nodes, "{plant}: {} nodes\n{}", small.scenario.nodes(), small.scenario.text);
        assert_eq!(small.shrunk.faults[1], 0, "{plant}:\n{}", small.scenario.text);
        assert!(small.shrunk.seconds[1] <= small.shrunk.seconds[0]);
        let again = run::run(&parse("small.toml", &small.scenario.text).unwrap(), small.report.seed, &NEVER);
        assert_eq!(again.hash, small.report.hash, "{plant}: the small one is not the same run again");
    }
}

#[test]
fn who_has_not_met_is_given_as_much_time_in_the_small_run() {
    let scenario = parse("museum.toml", &common::museum(Some("edge-triggered-relay"))).unwrap();
    let before = run::run(&scenario, 3, &NEVER);
    assert_eq!(before.findings.first().map(|found| found.finding.invariant), Some(12));
    let small = shrink(&scenario, 3, Limits { runs: 150, seconds: 60, seeds: 1 }, &NEVER, &|_| {}).unwrap();
    assert_eq!(kind(&small.report), kind(&before));
    assert!(small.scenario.duration.as_secs() >= 600, "{}", small.scenario.text);
}

#[test]
fn a_good_run_is_not_shrunk() {
    let scenario = parse("museum.toml", &common::museum(None)).unwrap();
    assert!(shrink(&scenario, 3, Limits::default(), &NEVER, &|_| {}).is_none());
}
