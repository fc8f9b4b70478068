//! Many runs: sweep, put together, compare.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Write},
    ops::Range,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

use clap::Args;
use kinfolk_sim::{
    compare::Comparison,
    results::{self, Summary},
    run::Report,
    scenario,
    shrink::Kind,
    sweep::{Shard, Sink, Sweep},
};
use serde_json::json;

use super::{
    Outcome, complain,
    simulate::{jobs, keep, named, seeds, stopped_by_ctrl_c, tell},
};

/// Failing runs of each kind whose folders are written.
const KEPT: u64 = 2;

#[derive(Args, Debug)]
pub(super) struct SweepArgs {
    /// A file, or the name of a scenario that is part of the program.
    scenario: String,
    /// The seeds of all machines, A to B without B.
    #[arg(long, value_name = "A..B", value_parser = seeds, default_value = "0..1000")]
    seeds: Range<u64>,
    /// This machine's share: the seeds that leave I when divided by N.
    #[arg(long, value_name = "I/N", default_value = "0/1")]
    shard: Shard,
    /// Runs at once; one for each processor if not said.
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// Draw weather, NATs and faults from each seed: each leaves out some kinds of trouble and has more of others.
    #[arg(long)]
    vary: bool,
    /// Where the results go, a JSON value a line. What is there is not run again. Without it they are
    /// printed at the end.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Write folders of failing runs below this one, two of each kind.
    #[arg(long, value_name = "FOLDER")]
    artefacts: Option<PathBuf>,
    /// Run no more after so many failing runs.
    #[arg(long, value_name = "N")]
    most_failures: Option<u64>,
}

#[derive(Args, Debug)]
pub(super) struct MergeArgs {
    /// Results' files.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Where all of them go, ordered, each run once.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Print one JSON value.
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
pub(super) struct CompareArgs {
    /// Results of the other revision, build or setting: what `run --json` or `sweep --out` has written.
    base: PathBuf,
    /// Results to compare with it; without them its scenarios and seeds are run by this program.
    now: Option<PathBuf>,
    /// Runs at once; one for each processor if not said.
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// Fail (exit code 1) when a figure is worse by more than so many hundredths, or more runs have findings.
    #[arg(long, value_name = "PERCENT")]
    tolerance: Option<f64>,
    /// Print one JSON value.
    #[arg(long)]
    json: bool,
}

pub(super) fn sweep(args: &SweepArgs, out: &mut dyn Write) -> io::Result<Outcome> {
    let Some((scenario, _)) = named(&args.scenario, None, false, out)? else { return Ok(Outcome::Unreadable) };
    let (mut sink, there) = match args.out.as_deref().map(Sink::open).transpose() {
        Ok(Some((sink, there))) => (Some(sink), there),
        Ok(None) => (None, vec![]),
        Err(error) => return unreadable(&error.to_string(), false, out),
    };
    let sweep = Sweep { seeds: args.seeds.clone(), shard: args.shard, jobs: jobs(args.jobs), vary: args.vary };
    let mine = |report: &&Report| report.file == scenario.file && report.varied == args.vary;
    let mut reports: Vec<Report> = there.iter().filter(mine).cloned().collect();
    let open = sweep.open_seeds(&reports);
    let all = (open.len() + reports.len()) as u64;
    if !reports.is_empty() {
        tell(&format!("{} of {all} runs are there already", reports.len()));
    }
    let stop = stopped_by_ctrl_c();
    let (began, before) = (Instant::now(), reports.len() as u64);
    let (mut said, mut failed) = (0, 0);
    let mut kinds: BTreeMap<Kind, u64> = BTreeMap::new();
    let never = AtomicBool::new(false);
    sweep.run(&scenario, &open, &stop, &mut |scenario, report| {
        sink.as_mut().map_or(Ok(()), |sink| sink.add(report))?;
        if let Some(found) = report.findings.first() {
            failed += 1;
            let kind = kinds.entry(Kind::of(&found.finding)).or_default();
            *kind += 1;
            if let Some(folder) = args.artefacts.as_deref().filter(|_| *kind <= KEPT) {
                keep(scenario, report, &never, folder)?;
            }
            if args.most_failures.is_some_and(|most| failed >= most) {
                stop.store(true, Ordering::Relaxed);
            }
        }
        reports.push(report.clone());
        // Ten times a minute is enough for people.
        let now = began.elapsed().as_secs() / 6;
        if now > said {
            said = now;
            let done = reports.len() as u64 - before;
            tell(&results::progress(done, open.len() as u64, failed, began.elapsed()));
        }
        Ok(())
    })?;
    let summary = Summary::of(&reports);
    if stop.load(Ordering::Relaxed) {
        tell(&format!("ended after {} of {all} runs", reports.len()));
    }
    if sink.is_some() {
        write!(out, "{summary}")?;
    } else {
        results::write(&reports, out)?;
        out.flush()?;
        tell(summary.to_string().trim_end());
    }
    Ok(if summary.failed > 0 { Outcome::Different } else { Outcome::Well })
}

pub(super) fn merge(args: &MergeArgs, out: &mut dyn Write) -> io::Result<Outcome> {
    let mut all = vec![];
    for file in &args.files {
        match results::read(file) {
            Ok(reports) => all.extend(reports),
            Err(error) => return unreadable(&error.to_string(), args.json, out),
        }
    }
    let (reports, torn) = results::merge(all);
    if let Some(file) = &args.out {
        let mut text = vec![];
        results::write(&reports, &mut text)?;
        if let Err(error) = std::fs::write(file, text) {
            complain(&format!("{}: {error}", file.display()));
            return Ok(Outcome::Unwritable);
        }
    }
    let summary = Summary::of(&reports);
    let torn_seeds: BTreeSet<(&str, u64)> = torn.iter().map(|[one, _]| (one.file.as_str(), one.seed)).collect();
    if args.json {
        writeln!(out, "{}", json!({"summary": summary, "different_hashes": torn_seeds}))?;
    } else {
        write!(out, "{summary}")?;
        for (file, seed) in &torn_seeds {
            writeln!(out, "  {file}, seed {seed}, has been two different runs: something is not determined")?;
        }
    }
    Ok(if summary.failed > 0 || !torn.is_empty() { Outcome::Different } else { Outcome::Well })
}

pub(super) fn compare(args: &CompareArgs, out: &mut dyn Write) -> io::Result<Outcome> {
    let base = match results::read(&args.base) {
        Ok(base) => base,
        Err(error) => return unreadable(&error.to_string(), args.json, out),
    };
    let now = match &args.now {
        Some(file) => results::read(file).map_err(|error| error.to_string()),
        None => run_again(&base, args),
    };
    let now = match now {
        Ok(now) => now,
        Err(error) => return unreadable(&error, args.json, out),
    };
    let comparison = Comparison::of(&base, &now);
    if args.json {
        writeln!(out, "{}", comparison.to_json())?;
    } else {
        write!(out, "{comparison}")?;
    }
    let worse = args.tolerance.is_some_and(|tolerance| comparison.is_worse(tolerance));
    Ok(if worse { Outcome::Different } else { Outcome::Well })
}

/// The scenarios and seeds of results, run by this program.
fn run_again(base: &[Report], args: &CompareArgs) -> Result<Vec<Report>, String> {
    let mut groups: BTreeMap<(&str, bool), Vec<u64>> = BTreeMap::new();
    for report in base {
        groups.entry((&report.file, report.varied)).or_default().push(report.seed);
    }
    let stop = stopped_by_ctrl_c();
    let mut now = vec![];
    for ((file, vary), seeds) in groups {
        let scenario = scenario::load(file).map_err(|error| error.to_string())?;
        let sweep = Sweep { seeds: 0..0, shard: Shard { index: 0, of: 1 }, jobs: jobs(args.jobs), vary };
        let mut said = 0;
        let done = sweep.run(&scenario, &seeds, &stop, &mut |_, report| {
            now.push(report.clone());
            if now.len() / 100 > said {
                said = now.len() / 100;
                tell(&format!("{} of {} runs", now.len(), base.len()));
            }
            Ok(())
        });
        done.map_err(|error| error.to_string())?;
    }
    Ok(now)
}

fn unreadable(problem: &str, json: bool, out: &mut dyn Write) -> io::Result<Outcome> {
    if json {
        writeln!(out, "{}", json!({"type": "error", "error": {"message": problem}}))?;
    }
    out.flush()?;
    complain(problem);
    Ok(Outcome::Unreadable)
}
