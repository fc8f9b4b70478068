//! The event grammar holds for real nodes' traces, and for simulated nodes: every one of many runs.
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a test")]

use std::{collections::BTreeSet, path::Path, sync::atomic::AtomicBool};

use kinfolk_core::{Event, Origin};
use kinfolk_sim::{
    bless::traces,
    check::Grammar,
    run, scenario,
    trace::{Entry, Reader},
};

/// What the others lack: somebody sleeps, is unplugged, goes without a word; the server is killed.
const EVENTFUL: &str = r#"
name = "eventful"
duration = "40m"

[[isp]]
name = "north"

[[server]]
name = "server"
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

[[fault]]
at = "5m"
what = "power-off"
who = "carol"
for = "5m"

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

/// Reads a trace through the grammar. What is wrong, and which kinds of events it has.
fn read(file: &Path, kinds: &mut BTreeSet<&'static str>) -> Vec<String> {
    let mut grammar = Grammar::default();
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

fn kind(event: &Event) -> &'static str {
    match event {
        Event::Connected { origin: Origin::Dial(_), .. } => "connected by a dial",
        Event::Connected { origin: Origin::Inbound, .. } => "connected from outside",
        Event::Connected { origin: Origin::Held(_), .. } => "connected by a look-up",
        Event::Connected { origin: Origin::Probe(_), .. } => "connected by a probe",
        Event::Connected { origin: Origin::Punch(_), .. } => "connected by a punch",
        Event::Disconnected { .. } => "disconnected",
        Event::DialFailed { .. } => "dial failed",
        Event::DialHeld { .. } => "dial held",
        Event::HeldFailed { .. } => "held failed",
        Event::Identified { .. } => "identified",
        Event::Pinged { result: Ok(_), .. } => "pinged",
        Event::Pinged { result: Err(_), .. } => "ping lost",
        Event::Candidate { .. } => "candidate",
        Event::Found { .. } => "found",
        Event::Lost { .. } => "lost",
        Event::Routed { .. } => "routed",
        Event::QueryFound { .. } => "query found",
        Event::QueryEnded { .. } => "query ended",
        Event::Listening { .. } => "listening",
        Event::ListenAddressGone { .. } => "listen address gone",
        Event::Reserved { .. } => "reserved",
        Event::ReservedAt { .. } => "reserved at",
        Event::ReservationEnded { .. } => "reservation ended",
        Event::CircuitLimited { .. } => "circuit limited",
        Event::Serving { .. } => "serving",
        Event::Probed { .. } => "probed",
        Event::Gateway { .. } => "gateway",
        Event::PortMapped { .. } => "port mapped",
        Event::SignalFound { .. } => "signal found",
        Event::SignalPublished { .. } => "signal published",
        Event::SignalFailed { .. } => "signal failed",
        Event::Interfaces(_) => "interfaces",
        Event::Resumed { .. } => "resumed",
        Event::WallClock { .. } => "wall clock",
        Event::StoreLoaded { .. } => "store loaded",
        _ => "other",
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
    let others = ["lan-of-five", "family-of-eight"].map(|name| scenario::load(name).unwrap());
    for scenario in others.into_iter().chain([eventful]) {
        let folder = folder.path().join(&scenario.name);
        run::run_recorded(&scenario, 1, &AtomicBool::new(false), &folder, None).unwrap();
        for entry in std::fs::read_dir(folder).unwrap() {
            wrong.extend(read(&entry.unwrap().path(), &mut kinds));
        }
    }
    assert!(wrong.is_empty(), "{} wrong, such as {:#?}", wrong.len(), &wrong[..wrong.len().min(10)]);
    for wanted in [
        "connected by a dial",
        "connected from outside",
        "connected by a look-up",
        "connected by a probe",
        "disconnected",
        "dial failed",
        "held failed",
        "ping lost",
        "lost",
        "listen address gone",
        "reservation ended",
        "circuit limited",
        "serving",
        "probed",
        "port mapped",
        "resumed",
        "signal found",
        "signal published",
        "signal failed",
    ] {
        assert!(kinds.contains(wanted), "'{wanted}' never came; {kinds:?}");
    }
}
