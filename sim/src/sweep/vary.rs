//! Swarm testing: each seed leaves out some kinds of trouble and has more of others. A run with everything at once hides
//! what a run with only one thing shows.

use toml::{Table, Value};

use crate::{
    engine::{Dice, Purpose},
    scenario::{Scenario, parse},
};

/// Faults that may come at random: what, to homes or also to servers, and how long for, in seconds.
const FAULTS: [(&str, bool, u64); 13] = [
    ("router-reboot", false, 30),
    ("new-address", false, 1),
    ("uplink-down", true, 90),
    ("mute", false, 300),
    ("kill", true, 20),
    ("stop", true, 20),
    ("power-off", true, 60),
    ("lose", false, 20),
    ("sleep", false, 900),
    ("unplug", true, 45),
    ("unplug", false, 5),
    ("thrift", true, 300),
    ("slow-disk", true, 120),
];
/// The same for signal servers.
const DOORWAY_FAULTS: [(&str, u64); 6] =
    [("kill", 60), ("power-off", 300), ("uplink-down", 90), ("lose", 60), ("slow", 600), ("lie", 600)];
/// Kinds of NAT that are drawn.
const NATS: [&str; 7] =
    ["full-cone", "address-restricted", "port-restricted", "symmetric", "carrier-grade", "udp-blocked", "hairpin"];
/// In how many seeds of a million each thing is there.
const OFTEN: u32 = 400_000;
const RARELY: u32 = 150_000;

/// The scenario with weather, NATs and random faults that are drawn from the seed. Its own faults and what it expects
/// stay; what is expected to be direct there is expected to be connected, at least, and in time after the last fault.
pub fn varied(scenario: &Scenario, seed: u64) -> Scenario {
    let mut dice = Dice::new(seed, u32::MAX, Purpose::Swarm);
    let changed = scenario.text.parse::<Table>().ok().map(|table| vary(table, scenario, &mut dice));
    let text = changed.and_then(|table| toml::to_string(&table).ok());
    text.and_then(|text| parse(&scenario.file, &text).ok()).unwrap_or_else(|| scenario.clone())
}

fn vary(mut table: Table, scenario: &Scenario, dice: &mut Dice) -> Table {
    let mut weather = Table::new();
    for (key, most) in [("loss", 30_000), ("bursts", 20_000), ("reordered", 20_000), ("duplicated", 20_000)] {
        if dice.happens(OFTEN) {
            weather.insert(key.to_owned(), Value::Integer(dice.below(most) as i64));
        }
    }
    for (key, most) in [("jitter", 30), ("wake-slack", 200)] {
        if dice.happens(OFTEN) {
            weather.insert(key.to_owned(), Value::String(format!("{}ms", 1 + dice.below(most))));
        }
    }
    table.insert("weather".to_owned(), Value::Table(weather));
    let mut names: Vec<(String, bool)> = vec![];
    for (list, is_home) in [("home", true), ("server", false)] {
        let all = table.get_mut(list).and_then(Value::as_array_mut);
        for entry in all.into_iter().flatten().filter_map(Value::as_table_mut) {
            if let Some(name) = entry.get("name").and_then(Value::as_str) {
                names.push((name.to_owned(), is_home));
            }
            if is_home {
                vary_home(entry, dice);
            } else if dice.happens(RARELY) {
                entry.insert("circuits".to_owned(), Value::Table(circuits(dice)));
            }
        }
    }
    let seconds = scenario.duration.as_secs();
    let until = seconds / 2;
    let mut faults = vec![];
    let homes_and_servers = FAULTS.iter().flat_map(|(what, to_servers, lasts)| {
        let fitting = names.iter().filter(move |(_, is_home)| *is_home || *to_servers);
        fitting.map(move |(name, _)| (*what, name.as_str(), *lasts))
    });
    let doorways = scenario.doorways.iter().flat_map(|doorway| {
        DOORWAY_FAULTS.iter().map(move |(what, lasts)| (*what, doorway.name.get_ref().as_str(), *lasts))
    });
    for (what, name, lasts) in homes_and_servers.chain(doorways) {
        if dice.happens(RARELY) {
            let span = |seconds: u64| Value::String(format!("{seconds}s"));
            let every = (seconds / 8 + dice.below(seconds / 2 + 1)).max(30);
            let pairs = [
                ("what", Value::String(what.to_owned())),
                ("who", Value::String(name.to_owned())),
                ("every", span(every)),
                ("for", span(lasts.min(seconds / 8).max(1))),
                ("until", span(until)),
            ];
            let fault = pairs.map(|(key, value)| (key.to_owned(), value)).into_iter().collect();
            faults.push(Value::Table(fault));
        }
    }
    if !faults.is_empty() {
        let all = table.entry("random-fault").or_insert_with(|| Value::Array(vec![]));
        if let Some(all) = all.as_array_mut() {
            all.extend(faults);
        }
    }
    table
}

/// From the library's limits for a circuit, two minutes and 128 KiB, up.
fn circuits(dice: &mut Dice) -> Table {
    let lasts = format!("{}s", 120 + dice.below(1_800));
    let bytes = (131_072 << dice.below(8)) as i64;
    [("for", Value::String(lasts)), ("bytes", Value::Integer(bytes))]
        .map(|(key, value)| (key.to_owned(), value))
        .into_iter()
        .collect()
}

fn vary_home(home: &mut Table, dice: &mut Dice) {
    if dice.happens(OFTEN) {
        let mut shares = Table::new();
        for name in NATS {
            if dice.happens(OFTEN) {
                shares.insert(name.to_owned(), Value::Integer(1 + dice.below(9) as i64));
            }
        }
        if !shares.is_empty() {
            home.insert("nat".to_owned(), Value::Table(shares));
        }
    }
    for key in ["gives-ports", "open-ipv6", "ports-taken"] {
        if dice.happens(RARELY) {
            home.insert(key.to_owned(), Value::Boolean(true));
        }
    }
    if dice.happens(RARELY) {
        home.insert("mdns".to_owned(), Value::Boolean(false));
    }
    if dice.happens(RARELY) {
        home.insert("clock-drift".to_owned(), Value::Integer(dice.below(200) as i64 - 100));
    }
    if dice.happens(RARELY) {
        home.insert("clock-offset".to_owned(), Value::Integer(dice.below(200_000) as i64 - 100_000));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::scenario::load;

    #[test]
    fn every_seed_is_another_scenario_and_a_right_one() {
        for name in ["two-homes-and-a-server", "family-of-eight", "a-day"] {
            let scenario = load(name).unwrap();
            let texts: BTreeSet<String> = (0..100).map(|seed| varied(&scenario, seed).text).collect();
            assert!(texts.len() > 98, "{name}: {} of 100", texts.len());
            assert!(!texts.contains(&scenario.text), "{name}: a variant that can't be read");
            let kinds = |text: &str| FAULTS.iter().filter(|(what, ..)| text.contains(what)).count();
            let counts: BTreeSet<usize> = texts.iter().map(|text| kinds(text)).collect();
            assert!(counts.len() > 3, "{name}: always as many kinds of faults: {counts:?}");
        }
    }
}
