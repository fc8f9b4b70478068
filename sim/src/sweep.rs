//! Sweeps: a scenario with very many seeds, in shares for many machines, and with settings that are drawn from the seed.
//!
//! The results are JSON lines, written as each run ends: what is there when a sweep is ended is whole, and the same sweep
//! goes on from there. `kinfolk-sim merge` puts shares together.

mod vary;

pub use vary::varied;

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{self, Seek, SeekFrom, Write},
    ops::Range,
    path::Path,
    str::FromStr,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use crate::{
    results,
    run::{self, Report},
    scenario::Scenario,
};

/// One machine's part: those seeds whose number leaves this remainder.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shard {
    /// Which one, from 0 on.
    pub index: u64,
    /// Of how many.
    pub of: u64,
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/').and_then(|(index, of)| Some((index.parse().ok()?, of.parse().ok()?)));
        match parts {
            Some((index, of)) if index < of => Ok(Self { index, of }),
            Some(_) | None => Err(format!("'{text}' is no share; 0/8 to 7/8 are eight of them")),
        }
    }
}

/// Which runs.
#[derive(Clone, Debug)]
pub struct Sweep {
    /// The seeds of all shares.
    pub seeds: Range<u64>,
    /// This machine's share.
    pub shard: Shard,
    /// Runs at once.
    pub jobs: usize,
    /// Whether settings are drawn from each seed.
    pub vary: bool,
}

impl Sweep {
    /// The seeds of this share, but for those of which there are results.
    pub fn open_seeds(&self, there: &[Report]) -> Vec<u64> {
        let done: BTreeSet<u64> =
            there.iter().filter(|report| report.complete || !report.is_good()).map(|report| report.seed).collect();
        let mine = self.seeds.clone().filter(|seed| seed % self.shard.of == self.shard.index);
        mine.filter(|seed| !done.contains(seed)).collect()
    }

    /// Runs these seeds; `done` gets each report as it comes.
    pub fn run(
        &self,
        scenario: &Scenario,
        seeds: &[u64],
        stop: &AtomicBool,
        done: &mut (dyn FnMut(&Scenario, &Report) -> io::Result<()> + Send),
    ) -> io::Result<()> {
        let next = AtomicUsize::new(0);
        let sink = Mutex::new((done, Ok(())));
        std::thread::scope(|scope| {
            for _ in 0..self.jobs.clamp(1, seeds.len().max(1)) {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) else { break };
                        let (scenario, report) = self.run_one(scenario, *seed, stop);
                        let mut sink = sink.lock().unwrap_or_else(PoisonError::into_inner);
                        // One that was ended by hand says nothing that the next sweep would not.
                        let told = report.complete || !report.is_good();
                        if told && sink.1.is_ok() {
                            let result = (sink.0)(&scenario, &report);
                            sink.1 = result;
                        }
                        if sink.1.is_err() {
                            break;
                        }
                    }
                });
            }
        });
        sink.into_inner().unwrap_or_else(PoisonError::into_inner).1
    }

    fn run_one(&self, scenario: &Scenario, seed: u64, stop: &AtomicBool) -> (Scenario, Report) {
        let scenario = if self.vary { varied(scenario, seed) } else { scenario.clone() };
        let mut report = run::run(&scenario, seed, stop);
        report.varied = self.vary;
        (scenario, report)
    }
}

/// A results' file that is added to.
#[derive(Debug)]
pub struct Sink(File);

impl Sink {
    /// Opens it, and reads what is there. A last line that is cut off is taken away.
    ///
    /// # Errors
    /// When it is no results' file, or can't be written.
    pub fn open(file: &Path) -> Result<(Self, Vec<Report>), results::ResultsError> {
        let fail = |error: io::Error| results::ResultsError {
            file: file.to_path_buf(),
            line: None,
            problem: error.to_string(),
        };
        let there = if file.exists() { results::read(file)? } else { vec![] };
        let whole = if file.exists() {
            let bytes = fs::read(file).map_err(fail)?;
            bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at as u64 + 1)
        } else {
            0
        };
        let mut open = OpenOptions::new().create(true).truncate(false).write(true).open(file).map_err(fail)?;
        open.set_len(whole).and_then(|()| open.seek(SeekFrom::End(0))).map_err(fail)?;
        Ok((Self(open), there))
    }

    /// Adds a report, in one write.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn add(&mut self, report: &Report) -> io::Result<()> {
        let mut line = serde_json::to_vec(report)?;
        line.push(b'\n');
        self.0.write_all(&line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_apart_and_together_all() {
        let seeds = |index| {
            let shard = Shard { index, of: 3 };
            Sweep { seeds: 5..25, shard, jobs: 1, vary: false }.open_seeds(&[])
        };
        let mut all: Vec<u64> = (0..3).flat_map(seeds).collect();
        all.sort_unstable();
        assert_eq!(all, (5..25).collect::<Vec<_>>());
        assert_eq!("2/3".parse(), Ok(Shard { index: 2, of: 3 }));
        for wrong in ["3/3", "1", "a/b", "0/0", ""] {
            assert!(Shard::from_str(wrong).is_err(), "{wrong}");
        }
    }
}
