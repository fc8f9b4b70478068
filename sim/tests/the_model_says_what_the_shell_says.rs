//! The event grammar holds for real nodes' traces, and for simulated nodes: every one of many runs.
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a test")]

use std::{collections::BTreeSet, path::Path, sync::atomic::AtomicBool};

use kinfolk_core::{Event, Origin};
use kinfolk_sim::{
    bless::traces,
    check::Grammar,
    run, scenario,
    sweep::varied,
    trace::{Entry, Reader},
    words::{EVENTS, event_kind},
};

/// What the others lack: somebody sleeps, is unplugged, goes without a word, changes the settings, asks for a stranger; the
/// server is killed, and its circuits are short; logs are kept.
const EVENTFUL: &str = r#"
name = "eventful"
duration = "40m"

[[isp]]
name = "north"

[[server]]
name = "server"
circuits = { bytes = 65536 }
doorways = ["doorway"]

[[doorway]]
name = "doorway"

[[home]]
name = "alice"
isp = "north"
nodes = 3
family = "family"
bootstrap = ["server"]
relays = ["server"]
doorways = ["doorway"]

[[home]]
name = "bob"
isp = "north"
ports-taken = true
nat = "symmetric"
family = "family"
bootstrap = ["server"]
relays = ["server"]
doorways = ["doorway"]

[[home]]
name = "carol"
isp = "north"
nat = "udp-blocked"
family = "family"
bootstrap = ["server"]
relays = ["server"]
doorways = ["doorway"]

[logs]
every = "1m"
entries = 50

[[ask]]
at = "4m"
who = "alice/1"

[[fault]]
at = "5m"
what = "power-off"
who = "carol"
for = "5m"

[[fault]]
at = "12m"
what = "thrift"
who = "alice/3"
for = "3m"

[[fault]]
at = "12m"
what = "slow-disk"
who = "alice/3"
for = "3m"

[[fault]]
at = "5m"
what = "power-off"
who = "alice/1"
for = "20m"

[[fault]]
at = "10m"
what = "sleep"
who = "alice/2"
for = "5m"

[[fault]]
at = "20m"
what = "unplug"
who = "bob"
for = "1m"

[[fault]]
at = "20m"
what = "kill"
who = "doorway"
for = "10m"

[[fault]]
at = "25m"
what = "kill"
who = "server"
for = "1m"
"#;

/// What the model leaves out (docs/scenarios.md).
const NEVER: [&str; 3] = ["own_identity_seen", "confirmed", "unconfirmed"];

/// Reads a trace through the grammar. What is wrong, and which kinds of events it has.
fn read(file: &Path, kinds: &mut BTreeSet<&'static str>) -> Vec<String> {
    let mut grammar = Grammar::in_the_middle();
    let mut wrong = vec![];
    for item in Reader::<serde_json::Value>::open(file).unwrap() {
        let Entry::Frame(frame) = item.unwrap().entry else { continue };
        kinds.insert(kind(&frame.r#in));
        if let Err(error) = grammar.event(&frame.r#in) {
            wrong.push(format!("{} at {}: {error}", file.display(), frame.t));
        }
        frame.out.iter().for_each(|command| grammar.command(command));
    }
    wrong
}

/// An event's kind in a trace; of connections, how they came to be.
fn kind(event: &Event) -> &'static str {
    match event {
        Event::Connected { origin: Origin::Dial(_), .. } => "connected by a dial",
        Event::Connected { origin: Origin::Inbound, .. } => "connected from outside",
        Event::Connected { origin: Origin::Held(_), .. } => "connected by a look-up",
        Event::Connected { origin: Origin::Probe(_), .. } => "connected by a probe",
        Event::Connected { origin: Origin::Punch(_), .. } => "connected by a punch",
        Event::Pinged { result: Err(_), .. } => "ping lost",
        other => event_kind(other),
    }
}

#[test]
fn real_nodes_keep_to_the_grammar() {
    let golden = traces(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/traces")).unwrap();
    assert!(golden.len() > 10);
    let mut kinds = BTreeSet::new();
    let wrong: Vec<String> = golden.iter().flat_map(|file| read(file, &mut kinds)).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn simulated_nodes_keep_to_the_grammar_and_use_all_its_words() {
    let folder = tempfile::tempdir().unwrap();
    let (mut kinds, mut wrong) = (BTreeSet::new(), vec![]);
    let eventful = scenario::parse("eventful.toml", EVENTFUL).unwrap();
    let [lan, family] = ["lan-of-five", "family-of-eight"].map(|name| scenario::load(name).unwrap());
    // There a connection ends in the very moment in which it began.
    let brief = varied(&family, 7048);
    for (scenario, seed) in [(lan, 1), (family, 1), (eventful, 1), (brief, 7048)] {
        let folder = folder.path().join(format!("{} {seed}", scenario.name));
        run::run_recorded(&scenario, seed, &AtomicBool::new(false), &folder, None).unwrap();
        for entry in std::fs::read_dir(folder).unwrap() {
            wrong.extend(read(&entry.unwrap().path(), &mut kinds));
        }
    }
    assert!(wrong.is_empty(), "{} wrong, such as {:#?}", wrong.len(), &wrong[..wrong.len().min(10)]);
    let connected = ["a dial", "outside", "a look-up", "a probe", "a punch"];
    let connected = connected.map(|by| format!("connected {} {by}", if by == "outside" { "from" } else { "by" }));
    let all = EVENTS.iter().copied().filter(|kind| *kind != "connected" && !NEVER.contains(kind));
    let missing: Vec<&str> = all
        .chain(connected.iter().map(String::as_str))
        .chain(["ping lost"])
        .filter(|kind| !kinds.contains(kind))
        .collect();
    assert!(missing.is_empty(), "never came: {missing:?}");
}
