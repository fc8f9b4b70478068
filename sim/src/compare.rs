//! What another revision, build or setting changes, in outcome figures.

use std::{collections::BTreeMap, fmt};

use serde_json::{Value, json};

use crate::{
    results::{Figures, Summary, shown},
    run::Report,
};

/// Two sets of runs, side by side. Only scenarios and seeds that are in both count.
#[derive(Clone, PartialEq, Debug)]
pub struct Comparison {
    /// How many runs are in both.
    pub both: u64,
    /// How many of them are the same to the bit.
    pub same: u64,
    /// How many runs are in one only.
    pub alone: [u64; 2],
    /// Runs with findings.
    pub failed: [u64; 2],
    /// What was found, before and now.
    pub findings: [Vec<String>; 2],
    /// The figures.
    pub rows: Vec<Row>,
}

/// A figure, before and now.
#[derive(Clone, PartialEq, Debug)]
pub struct Row {
    /// Its name and unit.
    pub name: &'static str,
    /// Its values.
    pub values: [Option<f64>; 2],
    /// By how many hundredths it got better (above 0) or worse. `None`: it can't be said.
    pub better: Option<f64>,
}

impl Comparison {
    /// Compares `now` with `base`.
    pub fn of(base: &[Report], now: &[Report]) -> Self {
        let key = |report: &Report| (report.file.clone(), report.varied, report.seed);
        let mut pairs: BTreeMap<(String, bool, u64), [Option<&Report>; 2]> = BTreeMap::new();
        for (side, reports) in [base, now].into_iter().enumerate() {
            for report in reports {
                pairs.entry(key(report)).or_default()[side] = Some(report);
            }
        }
        let both: Vec<[&Report; 2]> = pairs.values().filter_map(|[a, b]| Some([(*a)?, (*b)?])).collect();
        let alone = [0, 1].map(|side: usize| {
            pairs.values().filter(|pair| pair[side].is_some() && pair[1 - side].is_none()).count() as u64
        });
        let sides = [0, 1].map(|side: usize| both.iter().map(|pair| pair[side].clone()).collect::<Vec<_>>());
        let summaries = sides.each_ref().map(|side| Summary::of(side));
        let [before, after] = sides.each_ref().map(|side| Figures::of(side).rows());
        let rows = before.into_iter().zip(after).map(|((name, old, less_is_better), (_, new, _))| {
            let change = old.zip(new).filter(|(old, _)| *old > 0.0).map(|(old, new)| (new - old) / old * 100.0);
            Row { name, values: [old, new], better: change.map(|by| if less_is_better { -by } else { by }) }
        });
        let said = |summary: &Summary| {
            let found = summary.findings.iter();
            found.map(|found| format!("invariant {}, {} runs: {}", found.invariant, found.runs, found.words)).collect()
        };
        Self {
            both: both.len() as u64,
            same: both.iter().filter(|[a, b]| a.hash == b.hash).count() as u64,
            alone,
            failed: summaries.each_ref().map(|summary| summary.failed),
            findings: summaries.each_ref().map(said),
            rows: rows.collect(),
        }
    }

    /// Whether more runs fail, or a figure is worse by more than so many hundredths.
    pub fn is_worse(&self, tolerance: f64) -> bool {
        self.failed[1] > self.failed[0]
            || self.rows.iter().any(|row| row.better.is_some_and(|better| better < -tolerance))
    }

    /// For programs.
    pub fn to_json(&self) -> Value {
        let rows = self.rows.iter().map(
            |row| json!({"name": row.name, "base": row.values[0], "now": row.values[1], "better_percent": row.better}),
        );
        json!({
            "runs": self.both, "same": self.same, "only_base": self.alone[0], "only_now": self.alone[1],
            "failed": self.failed, "findings": self.findings, "figures": rows.collect::<Vec<_>>(),
        })
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { both, same, alone, failed, .. } = self;
        writeln!(f, "{both} runs in both, {same} of them the same to the bit")?;
        if alone != &[0, 0] {
            writeln!(f, "  only in the base: {}; only now: {}", alone[0], alone[1])?;
        }
        writeln!(f, "  {:<38} {:>12} {:>12}", "", "base", "now")?;
        writeln!(f, "  {:<38} {:>12} {:>12}", "runs with findings", failed[0], failed[1])?;
        for row in &self.rows {
            let [old, new] = row.values.map(|value| value.map_or("-".to_owned(), shown));
            let change = match row.better {
                Some(by) if by >= 0.05 => format!("  {by:.1} % better"),
                Some(by) if by <= -0.05 => format!("  {:.1} % worse", -by),
                Some(_) | None => String::new(),
            };
            writeln!(f, "  {:<38} {old:>12} {new:>12}{change}", row.name)?;
        }
        for (side, findings) in ["base", "now"].iter().zip(&self.findings) {
            for said in findings {
                writeln!(f, "  {side}: {said}")?;
            }
        }
        Ok(())
    }
}
