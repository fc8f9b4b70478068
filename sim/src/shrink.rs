//! From a failing run to a small one that fails in the same way.
//!
//! The scenario is taken apart as a file, entry by entry: faults that come at random are written down as those that came,
//! then parts are left out, by halves first (delta debugging), and each time it is run whether it still fails. What is
//! not a scenario any more without a part is not tried. Leaving out a node draws everybody's luck anew, so a candidate
//! may fail with another seed than before.

mod cuts;

use std::{collections::HashSet, sync::atomic::AtomicBool, time::Instant};

use toml::Table;

use crate::{
    artefact::Shrunk,
    check::Finding,
    engine::SECOND,
    run::{self, Report},
    scenario::{Plan, Scenario, parse},
};
use cuts::{Cut, faults_of};

/// How much shrinking may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Runs at most.
    pub runs: u64,
    /// Time at most, in seconds of the wall clock.
    pub seconds: u64,
    /// Seeds that are tried for each candidate.
    pub seeds: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { runs: 3_000, seconds: 600, seeds: 3 }
    }
}

/// A smaller failing run.
#[derive(Debug)]
pub struct Small {
    /// Its scenario.
    pub scenario: Scenario,
    /// What it came to.
    pub report: Report,
    /// From what.
    pub shrunk: Shrunk,
}

/// What makes two failures the same: the invariant, and what was said without names and numbers.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Kind {
    /// Which invariant.
    pub invariant: u8,
    /// What was said: its words without digits, up to what stands in brackets.
    pub words: String,
}

impl Kind {
    /// The kind of a finding.
    pub fn of(finding: &Finding) -> Self {
        let said = finding.what.split(['(', ':']).next().unwrap_or_default();
        let plain = |word: &&str| !word.contains(|c: char| c.is_ascii_digit() || c == '/');
        let words = said.split_whitespace().filter(plain).collect::<Vec<_>>().join(" ");
        Self { invariant: finding.invariant, words }
    }
}

/// The invariant about who can meet.
const MEETING: u8 = 12;
/// Who has not met by then, in seconds, has failed to.
const PATIENCE: u64 = 600;

struct Search<'a> {
    kind: Kind,
    limits: Limits,
    stop: &'a AtomicBool,
    began: Instant,
    tried: HashSet<String>,
    runs: u64,
    best: (Table, Scenario, Report),
    /// For failures to meet: so long after the last fault they were not together, in seconds, and so long a smaller
    /// scenario must wait, too.
    patience: u64,
    progress: &'a dyn Fn(&str),
}

/// Shrinks a failing run. `None`: it does not fail.
pub fn shrink(
    scenario: &Scenario,
    seed: u64,
    limits: Limits,
    stop: &AtomicBool,
    progress: &dyn Fn(&str),
) -> Option<Small> {
    let report = run::run(scenario, seed, stop);
    let kind = Kind::of(&report.findings.first()?.finding);
    let table: Table = scenario.text.parse().ok()?;
    let drawn = Plan::new(scenario, seed).drawn;
    let before = (scenario.nodes(), faults_of(&table) + drawn.len() as u64, report.seconds);
    let pinned = cuts::pinned(&table, &drawn);
    let patience = if kind.invariant == MEETING { before.2.saturating_sub(cuts::healed(&pinned)) } else { 0 };
    let mut search = Search {
        kind,
        limits,
        stop,
        began: Instant::now(),
        tried: HashSet::new(),
        runs: 1,
        best: (table, scenario.clone(), report),
        patience: patience.min(PATIENCE),
        progress,
    };
    // The same run, written down; only then can its end be cut off without drawing other faults.
    search.attempt(&pinned);
    search.shorten();
    loop {
        let size = search.size();
        search.leave_out();
        search.shorten();
        if search.size() == size || search.is_over() {
            break;
        }
    }
    let (table, scenario_now, report) = search.best;
    let shrunk = Shrunk {
        scenario: scenario.name.clone(),
        seed,
        nodes: [before.0, scenario_now.nodes()],
        faults: [before.1, faults_of(&table)],
        seconds: [before.2, report.seconds],
        runs: search.runs,
    };
    Some(Small { scenario: scenario_now, report, shrunk })
}

impl Search<'_> {
    fn size(&self) -> (u64, usize, u64) {
        (self.best.1.nodes(), self.best.1.text.len(), self.best.2.seconds)
    }

    fn is_over(&self) -> bool {
        let asked = self.stop.load(std::sync::atomic::Ordering::Relaxed);
        asked || self.runs >= self.limits.runs || self.began.elapsed().as_secs() >= self.limits.seconds
    }

    /// Runs a candidate. If it fails in the same way, it is the best one from now on.
    fn attempt(&mut self, table: &Table) -> bool {
        let Ok(text) = toml::to_string(table) else { return false };
        if self.is_over() || !self.tried.insert(text.clone()) {
            return false;
        }
        let Ok(scenario) = parse("shrunk", &text) else { return false };
        if self.patience > 0 && scenario.duration.as_secs() < cuts::healed(table) + self.patience {
            return false;
        }
        let first = self.best.2.seed;
        let others = (first.saturating_add(1)..).take(self.limits.seeds.saturating_sub(1) as usize);
        for seed in std::iter::once(first).chain(others) {
            if self.is_over() {
                return false;
            }
            self.runs += 1;
            let report = run::run(&scenario, seed, self.stop);
            if report.findings.iter().any(|found| Kind::of(&found.finding) == self.kind) {
                self.best = (table.clone(), scenario, report);
                let (nodes, faults, seconds) = (self.best.1.nodes(), faults_of(&self.best.0), self.best.2.seconds);
                (self.progress)(&format!("{nodes} nodes, {faults} faults, {seconds} s, after {} runs", self.runs));
                return true;
            }
        }
        false
    }

    /// Ends the scenario when it has failed, and earlier as long as it still fails.
    fn shorten(&mut self) {
        let end = |report: &Report| report.findings.first().map_or(u64::MAX, |found| found.finding.at / SECOND + 1);
        let at = end(&self.best.2);
        if at < self.best.1.duration.as_secs() {
            self.attempt(&cuts::ended(&self.best.0, at));
        }
        // What is wrong at the end may be wrong sooner.
        let mut step = self.best.1.duration.as_secs() / 2;
        while step > 0 && !self.is_over() {
            let now = self.best.1.duration.as_secs();
            if now <= step || !self.attempt(&cuts::ended(&self.best.0, now - step)) {
                step /= 2;
            }
        }
    }

    /// Leaves out what can be left out, once over.
    fn leave_out(&mut self) {
        for list in ["fault", "random-fault", "ask", "home", "server", "doorway", "isp", "distance", "region"] {
            self.minimise(list);
        }
        // Each success changes what can be left out next.
        let mut at = 0;
        loop {
            let all = Cut::all(&self.best.0);
            let Some(cut) = all.get(at) else { break };
            let smaller = cut.made(&self.best.0);
            if !smaller.is_some_and(|table| self.attempt(&table)) {
                at += 1;
            }
            if self.is_over() {
                break;
            }
        }
    }

    /// Delta debugging over one of the scenario's lists: first halves of it are left out, then quarters, and so on.
    fn minimise(&mut self, list: &str) {
        let mut size = cuts::length(&self.best.0, list).div_ceil(2);
        while size > 0 && !self.is_over() {
            let mut from = 0;
            while from < cuts::length(&self.best.0, list) {
                let without = cuts::without(&self.best.0, list, from..from + size);
                if !self.attempt(&without) {
                    from += size;
                }
            }
            size /= 2;
        }
    }
}
