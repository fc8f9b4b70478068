//! What can be left out of a scenario's file.

use std::ops::Range;

use toml::{Table, Value};

use crate::scenario::Drawn;

/// One thing that can be left out, or made smaller.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Cut {
    /// A key of the whole, or of one of its tables.
    Key(&'static str, &'static str),
    /// A key of a list's entry.
    EntryKey(&'static str, usize, &'static str),
    /// A number of a list's entry becomes smaller.
    Number(&'static str, usize, &'static str, i64),
    /// Nodes start all at once.
    AtOnce,
}

const LISTS: [(&str, &[&str]); 6] = [
    (
        "home",
        &[
            "clock-offset",
            "clock-drift",
            "gives-ports",
            "ports-taken",
            "open-ipv6",
            "mdns",
            "relays",
            "bootstrap",
            "nat",
            "role",
            "family",
            "isp",
            "malice",
            "doorways",
        ],
    ),
    ("server", &["bootstrap", "ipv6", "region", "circuits", "malice", "doorways"]),
    ("doorway", &["region"]),
    ("isp", &["nat", "ipv6", "access", "region"]),
    ("fault", &["for"]),
    ("ask", &["to"]),
];
const TABLES: [(&str, &[&str]); 2] = [
    ("weather", &["loss", "bursts", "reordered", "duplicated", "jitter", "wake-slack"]),
    ("expect", &["within", "nobody-alone", "families"]),
];

impl Cut {
    /// All that may be tried with this scenario.
    pub(super) fn all(table: &Table) -> Vec<Self> {
        let mut all = vec![];
        for (name, keys) in TABLES {
            let Some(part) = table.get(name).and_then(Value::as_table) else { continue };
            all.push(Self::Key("", name));
            all.extend(keys.iter().filter(|key| part.contains_key(**key)).map(|key| Self::Key(name, key)));
        }
        for (list, keys) in LISTS {
            for (at, entry) in entries(table, list).iter().enumerate() {
                for number in ["count", "nodes"] {
                    if let Some(now) = entry.get(number).and_then(Value::as_integer).filter(|now| *now > 1) {
                        let key = if number == "count" { "count" } else { "nodes" };
                        all.extend([1, now / 2, now - 1].map(|less| Self::Number(list, at, key, less)));
                    }
                }
                let there = keys.iter().filter(|key| entry.contains_key(**key));
                all.extend(there.map(|key| Self::EntryKey(list, at, key)));
            }
        }
        if table.get("start-within").and_then(Value::as_str) != Some("0s") {
            all.push(Self::AtOnce);
        }
        all
    }

    /// The scenario without it. `None`: nothing would change.
    pub(super) fn made(&self, table: &Table) -> Option<Table> {
        let mut table = table.clone();
        match self {
            Self::Key("", key) => drop(table.remove(*key)?),
            Self::Key(part, key) => drop(table.get_mut(*part)?.as_table_mut()?.remove(*key)?),
            Self::EntryKey(list, at, key) => drop(entry(&mut table, list, *at)?.remove(*key)?),
            Self::Number(list, at, key, less) => {
                let entry = entry(&mut table, list, *at)?;
                let before = entry.insert((*key).to_owned(), Value::Integer((*less).max(1)))?;
                if before.as_integer() <= Some((*less).max(1)) {
                    return None;
                }
                let name = entry.get("name").and_then(Value::as_str)?.to_owned();
                forget_numbers(&mut table, &name, *key == "nodes", *less);
            }
            Self::AtOnce => drop(table.insert("start-within".to_owned(), Value::String("0s".to_owned()))),
        }
        Some(table)
    }
}

fn entries<'a>(table: &'a Table, list: &str) -> Vec<&'a Table> {
    let all = table.get(list).and_then(Value::as_array);
    all.map(|all| all.iter().filter_map(Value::as_table).collect()).unwrap_or_default()
}

fn entry<'a>(table: &'a mut Table, list: &str, at: usize) -> Option<&'a mut Table> {
    table.get_mut(list)?.as_array_mut()?.get_mut(at)?.as_table_mut()
}

/// How many entries a list has.
pub(super) fn length(table: &Table, list: &str) -> usize {
    table.get(list).and_then(Value::as_array).map_or(0, Vec::len)
}

/// How many faults are written in it.
pub(super) fn faults_of(table: &Table) -> u64 {
    length(table, "fault") as u64
}

/// Without some entries of a list, and without what names them.
pub(super) fn without(table: &Table, list: &str, gone: Range<usize>) -> Table {
    let mut table = table.clone();
    let mut names = vec![];
    if let Some(all) = table.get_mut(list).and_then(Value::as_array_mut) {
        let gone = gone.start.min(all.len())..gone.end.min(all.len());
        let name = |entry: Value| entry.get("name").and_then(Value::as_str).map(str::to_owned);
        names.extend(all.drain(gone).filter_map(name));
        if all.is_empty() {
            table.remove(list);
        }
    }
    for name in names {
        forget(&mut table, &|other: &str| other.split(['/', '.']).next() == Some(name.as_str()));
    }
    table
}

/// Leaves out what names a third node where there are two now.
fn forget_numbers(table: &mut Table, name: &str, nodes: bool, most: i64) {
    let above = |text: &str| text.parse::<i64>().is_ok_and(|number| number > most);
    forget(table, &|other: &str| {
        let (site, node) = other.split_once('/').unwrap_or((other, ""));
        let (base, number) = site.split_once('.').unwrap_or((site, ""));
        base == name && (if nodes { above(node) } else { above(number) })
    });
}

/// Leaves out everything that names one of these.
fn forget(table: &mut Table, is_gone: &dyn Fn(&str) -> bool) {
    let named = |value: Option<&Value>| value.and_then(Value::as_str).is_some_and(is_gone);
    for list in ["fault", "random-fault", "ask"] {
        if let Some(all) = table.get_mut(list).and_then(Value::as_array_mut) {
            all.retain(|entry| !named(entry.get("who")) && !named(entry.get("to")));
        }
    }
    if let Some(all) = table.get_mut("distance").and_then(Value::as_array_mut) {
        let between = |entry: &Value| entry.get("between").and_then(Value::as_array).cloned().unwrap_or_default();
        all.retain(|entry| !between(entry).iter().any(|one| named(Some(one))));
    }
    for list in ["home", "server", "isp", "doorway"] {
        let all = table.get_mut(list).and_then(Value::as_array_mut);
        for entry in all.into_iter().flatten().filter_map(Value::as_table_mut) {
            for key in ["bootstrap", "relays", "doorways"] {
                if let Some(all) = entry.get_mut(key).and_then(Value::as_array_mut) {
                    all.retain(|one| !named(Some(one)));
                }
            }
            for key in ["isp", "region"] {
                if named(entry.get(key)) {
                    entry.remove(key);
                }
            }
        }
    }
    let lists = ["fault", "random-fault", "ask", "distance"];
    for list in lists.into_iter().filter(|list| length(table, list) == 0).collect::<Vec<_>>() {
        table.remove(list);
    }
}

/// When the last fault that is written down is over, in seconds; one that lasts is how things are from then on.
pub(super) fn healed(table: &Table) -> u64 {
    let span = |entry: &Table, key: &str| {
        let text = entry.get(key).and_then(Value::as_str);
        text.and_then(|text| crate::words::parse_span(text).ok()).map_or(0, |span| span.as_secs() + 1)
    };
    // A router's reboot takes half a minute when nothing is said.
    entries(table, "fault").iter().map(|fault| span(fault, "at") + span(fault, "for").max(31)).max().unwrap_or(0)
}

/// With an earlier end; what would come after it is left out.
pub(super) fn ended(table: &Table, seconds: u64) -> Table {
    let mut table = table.clone();
    table.insert("duration".to_owned(), Value::String(format!("{seconds}s")));
    for list in ["fault", "ask"] {
        if let Some(all) = table.get_mut(list).and_then(Value::as_array_mut) {
            let at = |entry: &Value| {
                let text = entry.get("at").and_then(Value::as_str);
                text.and_then(|text| crate::words::parse_span(text).ok())
            };
            all.retain(|entry| at(entry).is_none_or(|at| at.as_secs() < seconds));
        }
        if length(&table, list) == 0 {
            table.remove(list);
        }
    }
    table
}

/// With the faults that were drawn at random written down, at the times when they came.
pub(super) fn pinned(table: &Table, drawn: &[Drawn]) -> Table {
    let mut table = table.clone();
    table.remove("random-fault");
    let span = |nanos: u64| Value::String(format!("{}.{:09}s", nanos / 1_000_000_000, nanos % 1_000_000_000));
    let faults = drawn.iter().map(|drawn| {
        let pairs = [
            ("at", span(drawn.at)),
            ("what", Value::String(drawn.kind.name())),
            ("who", Value::String(drawn.who.clone())),
            ("for", span(drawn.lasts)),
        ];
        Value::Table(pairs.map(|(key, value)| (key.to_owned(), value)).into_iter().collect())
    });
    let end = table.get("duration").and_then(Value::as_str).and_then(|text| crate::words::parse_span(text).ok());
    let seconds = end.map_or(u64::MAX, |end| end.as_secs());
    let all = table.entry("fault").or_insert_with(|| Value::Array(vec![]));
    if let Some(all) = all.as_array_mut() {
        all.extend(faults);
    }
    ended(&table, seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
name = "x"
duration = "10m"
[[server]]
name = "server"
[[isp]]
name = "north"
[[home]]
name = "a"
isp = "north"
count = 3
nodes = 2
bootstrap = ["server"]
[[home]]
name = "b"
[[fault]]
at = "1m"
what = "kill"
who = "a.3/2"
[[fault]]
at = "9m"
what = "partition"
who = "a"
to = "b"
"#;

    fn table() -> Table {
        TEXT.parse().unwrap()
    }

    fn is_scenario(table: &Table) -> bool {
        crate::scenario::parse("test", &toml::to_string(table).unwrap()).is_ok()
    }

    #[test]
    fn what_names_what_is_gone_goes_with_it() {
        for (list, at, faults) in [("server", 0, 2), ("isp", 0, 2), ("home", 0, 0), ("home", 1, 1)] {
            let smaller = without(&table(), list, at..at + 1);
            assert!(is_scenario(&smaller), "{list}");
            assert_eq!(faults_of(&smaller), faults, "{list} {at}");
        }
        let smaller = Cut::Number("home", 0, "count", 2).made(&table()).unwrap();
        assert!(is_scenario(&smaller));
        assert_eq!(faults_of(&smaller), 1);
    }

    #[test]
    fn an_earlier_end_leaves_out_what_comes_later() {
        let smaller = ended(&table(), 120);
        assert!(is_scenario(&smaller));
        assert_eq!(faults_of(&smaller), 1);
    }

    #[test]
    fn every_cut_makes_it_smaller_or_is_none() {
        for cut in Cut::all(&table()) {
            if let Some(smaller) = cut.made(&table()) {
                assert_ne!(smaller, table(), "{cut:?}");
            }
        }
    }
}
