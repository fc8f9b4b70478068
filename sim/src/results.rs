//! Results of many runs: files of JSON lines, one [`Report`] a line, and what they come to together.

use std::{
    collections::BTreeMap,
    fmt, fs,
    io::{self, BufRead, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{
    run::{Report, quantile},
    shrink::Kind,
    words,
};

/// Seeds that are named for each kind of finding.
const MAX_SEEDS: usize = 8;

/// A results' file can't be read.
#[derive(Debug, thiserror::Error)]
#[error("{}{}: {problem}", file.display(), line.map(|line| format!(", line {line}")).unwrap_or_default())]
pub struct ResultsError {
    /// Which file.
    pub file: PathBuf,
    /// In which line, from 1 on.
    pub line: Option<usize>,
    /// What is wrong.
    pub problem: String,
}

/// Reads a results' file. A last line that is cut off, as a killed run leaves it, is left out.
///
/// # Errors
/// When it can't be read, or a line in it is no report.
pub fn read(file: &Path) -> Result<Vec<Report>, ResultsError> {
    let fail = |line, problem: String| ResultsError { file: file.to_path_buf(), line, problem };
    let mut reader = io::BufReader::new(fs::File::open(file).map_err(|error| fail(None, error.to_string()))?);
    let mut reports = vec![];
    let mut text = String::new();
    for line in 1.. {
        text.clear();
        if reader.read_line(&mut text).map_err(|error| fail(Some(line), error.to_string()))? == 0 {
            break;
        }
        match serde_json::from_str(&text) {
            Ok(report) => reports.push(report),
            Err(_) if text.trim().is_empty() || !text.ends_with('\n') => {}
            Err(error) => return Err(fail(Some(line), error.to_string())),
        }
    }
    Ok(reports)
}

/// Writes reports, one a line.
///
/// # Errors
/// When they can't be written.
pub fn write(reports: &[Report], out: &mut dyn Write) -> io::Result<()> {
    reports.iter().try_for_each(|report| writeln!(out, "{}", serde_json::to_string(report)?))
}

/// Puts results together: ordered by scenario and seed, each run once. Runs of the same scenario, seed and version with
/// different hashes are returned, too: they must not be.
pub fn merge(all: impl IntoIterator<Item = Report>) -> (Vec<Report>, Vec<[Report; 2]>) {
    let mut by_run: BTreeMap<(String, bool, u64), Report> = BTreeMap::new();
    let mut torn = vec![];
    for report in all {
        let key = (report.file.clone(), report.varied, report.seed);
        match by_run.get(&key) {
            // A run that was ended by hand says less.
            Some(known) if !report.complete && known.complete => {}
            Some(known) => {
                let whole = report.complete == known.complete && report.version == known.version;
                if whole && report.hash != known.hash {
                    torn.push([known.clone(), report]);
                } else if report.complete {
                    by_run.insert(key, report);
                }
            }
            None => drop(by_run.insert(key, report)),
        }
    }
    (by_run.into_values().collect(), torn)
}

/// What many runs come to.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Summary {
    /// How many runs.
    pub runs: u64,
    /// How many of them did not come to their end.
    pub incomplete: u64,
    /// How many of them have findings.
    pub failed: u64,
    /// What was found.
    pub findings: Vec<Findings>,
    /// The outcome in figures.
    pub figures: Figures,
}

/// A kind of finding in many runs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Findings {
    /// Which invariant.
    pub invariant: u8,
    /// What was said, without names and numbers.
    pub words: String,
    /// In how many runs.
    pub runs: u64,
    /// The first ones' scenarios and seeds.
    pub seeds: Vec<(String, u64)>,
}

/// Outcome figures over many runs.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Figures {
    /// Of a thousand pairs so many met.
    pub met: Option<f64>,
    /// Of a thousand pairs that may be direct, so many were.
    pub were_direct: Option<f64>,
    /// Time to the first connection, median, in milliseconds.
    pub first: Option<f64>,
    /// The same, the 95th of a hundred.
    pub first_95: Option<f64>,
    /// Time to the first direct connection, median, in milliseconds.
    pub direct: Option<f64>,
    /// The same, the 95th of a hundred.
    pub direct_95: Option<f64>,
    /// Minutes through relays only, for each hour of a pair.
    pub relay_minutes: Option<f64>,
    /// Dials for each one that led to a connection.
    pub dials_per_success: Option<f64>,
    /// Of a thousand tries to punch so many worked.
    pub punched: Option<f64>,
    /// Of a thousand direct connections by punching, seen from each side, so many came by the first try.
    pub at_first: Option<f64>,
    /// Bytes of a node in an hour.
    pub bytes_per_node_hour: Option<f64>,
    /// Seconds of isolation of a node in a day.
    pub isolation_seconds: Option<f64>,
    /// Events of a core in an hour.
    pub events_per_node_hour: Option<f64>,
}

impl Figures {
    /// Of many runs.
    pub fn of(reports: &[Report]) -> Self {
        let sum = |of: &dyn Fn(&Report) -> u64| reports.iter().map(of).sum::<u64>() as f64;
        let ratio = |a: f64, b: f64| (b > 0.0).then(|| a / b);
        let pooled = |of: &dyn Fn(&Report) -> &Vec<u64>| {
            let mut all: Vec<u64> = reports.iter().flat_map(|report| of(report).iter().copied()).collect();
            all.sort_unstable();
            [50, 95].map(|hundredths| quantile(&all, hundredths).map(|value| value as f64))
        };
        let [first, first_95] = pooled(&|report| &report.pairs.firsts);
        let [direct, direct_95] = pooled(&|report| &report.pairs.directs);
        let node_hours = sum(&|report| report.nodes * report.seconds) / 3_600.0;
        let pair_hours = sum(&|report| report.pairs.all * report.seconds) / 3_600.0;
        Self {
            met: ratio(1_000.0 * sum(&|report| report.pairs.met), sum(&|report| report.pairs.all)),
            were_direct: ratio(
                1_000.0 * sum(&|report| report.pairs.were_direct),
                sum(&|report| report.pairs.may_be_direct),
            ),
            first,
            first_95,
            direct,
            direct_95,
            relay_minutes: ratio(sum(&|report| report.pairs.relayed_minutes), pair_hours),
            dials_per_success: ratio(sum(&|report| report.counts.dials), sum(&|report| report.counts.dials_won)),
            punched: ratio(1_000.0 * sum(&|report| report.counts.punched), sum(&|report| report.counts.punches)),
            at_first: ratio(1_000.0 * sum(&|report| report.counts.holes_at_first), sum(&|report| report.counts.holes)),
            bytes_per_node_hour: ratio(sum(&|report| report.counts.bytes), node_hours),
            isolation_seconds: ratio(24.0 * sum(&|report| report.isolated_seconds), node_hours),
            events_per_node_hour: ratio(sum(&|report| report.counts.events), node_hours),
        }
    }

    /// Each figure with its name, its value, and whether less of it is better.
    pub fn rows(&self) -> [(&'static str, Option<f64>, bool); 13] {
        [
            ("pairs that met, of 1 000", self.met, false),
            ("pairs direct, of 1 000 that may be", self.were_direct, false),
            ("time to first connection, median, ms", self.first, true),
            ("time to first connection, 95 %, ms", self.first_95, true),
            ("time to direct, median, ms", self.direct, true),
            ("time to direct, 95 %, ms", self.direct_95, true),
            ("relay minutes per pair-hour", self.relay_minutes, true),
            ("dials per success", self.dials_per_success, true),
            ("punches that worked, of 1 000", self.punched, false),
            ("holes by the first try, of 1 000", self.at_first, false),
            ("bytes per node-hour", self.bytes_per_node_hour, true),
            ("isolation seconds per node-day", self.isolation_seconds, true),
            ("events per node-hour", self.events_per_node_hour, true),
        ]
    }
}

impl Summary {
    /// Of many runs.
    pub fn of(reports: &[Report]) -> Self {
        let mut kinds: BTreeMap<Kind, Findings> = BTreeMap::new();
        for report in reports {
            let Some(found) = report.findings.first() else { continue };
            let kind = Kind::of(&found.finding);
            let findings = kinds.entry(kind.clone()).or_insert_with(|| Findings {
                invariant: kind.invariant,
                words: kind.words,
                runs: 0,
                seeds: vec![],
            });
            findings.runs += 1;
            if findings.seeds.len() < MAX_SEEDS {
                findings.seeds.push((report.file.clone(), report.seed));
            }
        }
        let count = |wanted: &dyn Fn(&Report) -> bool| reports.iter().filter(|report| wanted(report)).count() as u64;
        Self {
            runs: reports.len() as u64,
            incomplete: count(&|report| !report.complete && report.is_good()),
            failed: count(&|report| !report.is_good()),
            findings: kinds.into_values().collect(),
            figures: Figures::of(reports),
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { runs, incomplete, failed, findings, figures } = self;
        writeln!(f, "{runs} runs, {failed} with findings, {incomplete} not to their end")?;
        for found in findings {
            let seeds: Vec<String> = found.seeds.iter().map(|(file, seed)| format!("{file} {seed}")).collect();
            let more = if found.runs as usize > seeds.len() { ", …" } else { "" };
            let Findings { invariant, words, runs, .. } = found;
            writeln!(f, "  invariant {invariant}, {runs} runs: {words} ({}{more})", seeds.join(", "))?;
        }
        for (name, value, _) in figures.rows() {
            if let Some(value) = value {
                writeln!(f, "  {name:<38} {}", shown(value))?;
            }
        }
        Ok(())
    }
}

/// A figure with as many digits as say something.
pub(crate) fn shown(value: f64) -> String {
    if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

/// What a sweep says of itself while it runs.
pub fn progress(done: u64, all: u64, failed: u64, took: Duration) -> String {
    let left = took.mul_f64((all - done.min(all)) as f64 / done.max(1) as f64);
    format!("{done} of {all} runs, {failed} with findings; about {} to go", words::span(left))
}
