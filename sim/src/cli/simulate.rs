//! One scenario: run it, shrink it, explain it, show it.

use std::{
    io::{self, Write},
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use clap::Args;
use kinfolk_sim::{
    artefact, explain, report, run,
    scenario::{self, Scenario},
    shrink, words,
};
use serde_json::json;
use signal_hook::{consts::SIGINT, flag};

use super::{Outcome, complain};

/// Artefacts that one call writes of itself.
const MAX_ARTEFACTS: usize = 3;

#[derive(Args, Debug)]
pub(super) struct RunArgs {
    /// A file, the name of a scenario that is part of the program, or a failing run's folder (its seed goes with it);
    /// without one, the scenarios' names are listed.
    scenario: Option<String>,
    /// The seed; 1 if not said.
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Many seeds, A to B without B.
    #[arg(long, value_name = "A..B", value_parser = seeds)]
    seeds: Option<Range<u64>>,
    /// Runs at once; one for each processor if not said.
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// Write the nodes' traces into this folder. With many seeds, only failing runs are run again and recorded.
    #[arg(long, value_name = "FOLDER")]
    traces: Option<PathBuf>,
    /// Write everything that it takes to see a failing run again into a folder below this one; of many, of the first three.
    #[arg(long, value_name = "FOLDER", default_value = "failures")]
    artefacts: PathBuf,
    /// Write no such folder.
    #[arg(long)]
    no_artefacts: bool,
    /// Print a JSON value for each run.
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
pub(super) struct ShrinkArgs {
    /// A failing run's folder, or a scenario.
    scenario: String,
    /// The seed; a folder's own, or 1, if not said.
    #[arg(long)]
    seed: Option<u64>,
    /// Where the small run goes, as a folder of the same form.
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
    /// Runs at most.
    #[arg(long, value_name = "N", default_value_t = shrink::Limits::default().runs)]
    runs: u64,
    /// Time at most.
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = words::parse_span)]
    time: Duration,
    /// Seeds that are tried for each smaller scenario.
    #[arg(long, value_name = "N", default_value_t = shrink::Limits::default().seeds)]
    seeds: u64,
    /// Print one JSON value.
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
pub(super) struct ExplainArgs {
    /// A scenario, or a failing run's folder.
    scenario: String,
    /// Which node, by its name: `server`, `alice/1`.
    node: String,
    /// What was between it and this one.
    peer: Option<String>,
    /// The seed; a folder's own, or 1, if not said.
    #[arg(long)]
    seed: Option<u64>,
    /// Nothing before this: `90`, `1h30m`.
    #[arg(long, value_name = "TIME", value_parser = words::parse_span, default_value = "0")]
    from: Duration,
    /// Nothing after this.
    #[arg(long, value_name = "TIME", value_parser = words::parse_span)]
    to: Option<Duration>,
    /// Everything, also pings and introductions.
    #[arg(long)]
    all: bool,
    /// Print a JSON value a line.
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
pub(super) struct ReportArgs {
    /// A scenario, or a failing run's folder.
    scenario: String,
    /// The seed; a folder's own, or 1, if not said.
    #[arg(long)]
    seed: Option<u64>,
    /// The page; `report.html` if not said.
    #[arg(long, value_name = "FILE", default_value = "report.html")]
    out: PathBuf,
}

pub(super) fn run(args: &RunArgs, out: &mut dyn Write) -> io::Result<Outcome> {
    let Some(name) = &args.scenario else {
        for (name, text) in scenario::BUILT_IN {
            let about = scenario::parse(name, text).map_or_else(|error| error.to_string(), |known| known.about);
            writeln!(out, "{name:<24} {about}")?;
        }
        return Ok(Outcome::Well);
    };
    let (scenario, seed) = match named(name, args.seed, args.json, out)? {
        Some(found) => found,
        None => return Ok(Outcome::Unreadable),
    };
    let stop = &*stopped_by_ctrl_c();
    let reports = match (&args.seeds, &args.traces) {
        (None, Some(folder)) => vec![run::run_recorded(&scenario, seed, stop, folder, None)?],
        (None, None) => vec![run::run(&scenario, seed, stop)],
        (Some(seeds), folder) => {
            let (all, ended) = (seeds.end - seeds.start, AtomicU64::new(0));
            let progress = |report: &run::Report| {
                let ended = ended.fetch_add(1, Ordering::Relaxed) + 1;
                if !report.is_good() || ended.is_multiple_of(10) {
                    let how = if report.is_good() { "well" } else { "with findings" };
                    tell(&format!("{ended} of {all}: seed {} ended {how}", report.seed));
                }
            };
            let reports = run::run_seeds(&scenario, seeds.clone(), jobs(args.jobs), stop, &progress);
            for bad in reports.iter().filter(|report| !report.is_good()).take(MAX_ARTEFACTS) {
                if let Some(folder) = folder {
                    let folder = folder.join(format!("seed-{}", bad.seed));
                    run::run_recorded(&scenario, bad.seed, stop, &folder, None)?;
                }
            }
            reports
        }
    };
    for report in &reports {
        if args.json {
            writeln!(out, "{}", serde_json::to_string(report)?)?;
        } else if args.seeds.is_none() || !report.is_good() {
            write!(out, "{report}")?;
        }
    }
    out.flush()?;
    let bad: Vec<&run::Report> = reports.iter().filter(|report| !report.is_good()).collect();
    if !args.no_artefacts && !artefact::is_one(Path::new(name)) {
        for report in bad.iter().take(MAX_ARTEFACTS) {
            keep(&scenario, report, stop, &args.artefacts)?;
        }
    }
    if args.seeds.is_some() && !args.json {
        writeln!(out, "{} runs, {} with findings", reports.len(), bad.len())?;
    }
    Ok(if bad.is_empty() { Outcome::Well } else { Outcome::Different })
}

/// Writes a failing run's folder below another one, and says where it is.
pub(super) fn keep(scenario: &Scenario, report: &run::Report, stop: &AtomicBool, below: &Path) -> io::Result<()> {
    let stem = Path::new(&scenario.file).file_stem().map_or("scenario".into(), |stem| stem.to_string_lossy());
    let folder = below.join(format!("{stem}-seed-{}", report.seed));
    artefact::write(scenario, report, None, stop, &folder)?;
    tell(&format!("seed {} is kept in {}", report.seed, folder.display()));
    Ok(())
}

pub(super) fn shrink(args: &ShrinkArgs, out: &mut dyn Write) -> io::Result<Outcome> {
    let (scenario, seed) = match named(&args.scenario, args.seed, args.json, out)? {
        Some(found) => found,
        None => return Ok(Outcome::Unreadable),
    };
    let stop = &*stopped_by_ctrl_c();
    let limits = shrink::Limits { runs: args.runs, seconds: args.time.as_secs(), seeds: args.seeds.max(1) };
    let Some(small) = shrink::shrink(&scenario, seed, limits, stop, &|said| tell(said)) else {
        if args.json {
            writeln!(out, "{}", json!({"type": "error", "error": {"message": "this run has no findings"}}))?;
        }
        out.flush()?;
        complain(&format!("{} with seed {seed} has no findings: there is nothing to shrink", scenario.file));
        return Ok(Outcome::Different);
    };
    // What Ctrl-C has ended is written all the same.
    let never = AtomicBool::new(false);
    let report = artefact::write(&small.scenario, &small.report, Some(small.shrunk.clone()), &never, &args.out)?;
    if args.json {
        writeln!(out, "{}", json!({"folder": args.out, "shrunk": small.shrunk, "report": report}))?;
    } else {
        let [[a, b], [c, d], [e, f]] = [small.shrunk.nodes, small.shrunk.faults, small.shrunk.seconds];
        let seconds = |seconds| words::span(Duration::from_secs(seconds));
        writeln!(out, "{}: {} runs", args.out.display(), small.shrunk.runs)?;
        writeln!(out, "  from {a} nodes, {c} faults, {} to {b} nodes, {d} faults, {}", seconds(e), seconds(f))?;
        for found in &report.findings {
            writeln!(out, "  {}", found.finding)?;
        }
        writeln!(out, "  kinfolk-sim run {}", args.out.display())?;
    }
    Ok(Outcome::Well)
}

pub(super) fn explain(args: &ExplainArgs, out: &mut dyn Write) -> io::Result<Outcome> {
    let (scenario, seed) = match named(&args.scenario, args.seed, args.json, out)? {
        Some(found) => found,
        None => return Ok(Outcome::Unreadable),
    };
    let nanos = |span: Duration| u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
    let question = explain::Question {
        node: args.node.clone(),
        peer: args.peer.clone(),
        from: nanos(args.from),
        to: args.to.map_or(u64::MAX, nanos),
        all: args.all,
    };
    let story = match explain::explain(&scenario, seed, &question, &stopped_by_ctrl_c()) {
        Ok(story) => story,
        Err(error) => {
            if args.json {
                writeln!(out, "{}", json!({"type": "error", "error": {"message": error}}))?;
            }
            out.flush()?;
            complain(&error);
            return Ok(Outcome::Unreadable);
        }
    };
    if args.json {
        for line in &story.lines {
            writeln!(out, "{}", serde_json::to_string(line)?)?;
        }
        writeln!(out, "{}", json!({"type": "summary", "text": story.summary}))?;
    } else {
        write!(out, "{story}")?;
    }
    Ok(Outcome::Well)
}

pub(super) fn report(args: &ReportArgs, out: &mut dyn Write) -> io::Result<Outcome> {
    let (scenario, seed) = match named(&args.scenario, args.seed, false, out)? {
        Some(found) => found,
        None => return Ok(Outcome::Unreadable),
    };
    let (report, page) = report::page(&scenario, seed, &stopped_by_ctrl_c());
    if let Err(error) = std::fs::write(&args.out, page) {
        complain(&format!("{}: {error}", args.out.display()));
        return Ok(Outcome::Unwritable);
    }
    write!(out, "{report}")?;
    writeln!(out, "  the page is {}", args.out.display())?;
    Ok(if report.is_good() { Outcome::Well } else { Outcome::Different })
}

/// A scenario by what it is called on the command line, and its seed. `None`: it can't be read, and that was said.
pub(super) fn named(
    name: &str,
    seed: Option<u64>,
    json: bool,
    out: &mut dyn Write,
) -> io::Result<Option<(Scenario, u64)>> {
    let folder = Path::new(name);
    let (problem, file, line) = if artefact::is_one(folder) {
        match artefact::open(folder) {
            Ok((scenario, failure)) => return Ok(Some((scenario, seed.unwrap_or(failure.seed)))),
            Err(error) => (error.to_string(), name.to_owned(), None),
        }
    } else {
        match scenario::load(name) {
            Ok(scenario) => return Ok(Some((scenario, seed.unwrap_or(1)))),
            Err(error) => (error.problem.clone(), error.file.clone(), error.line),
        }
    };
    if json {
        let value = json!({"type": "error", "error": {"message": problem, "file": file, "line": line}});
        writeln!(out, "{value}")?;
    }
    out.flush()?;
    let place = line.map_or(file.clone(), |line| format!("{file}, line {line}"));
    complain(&format!("{place}: {problem}"));
    Ok(None)
}

/// Set by the first Ctrl-C; the second one ends the program.
pub(super) fn stopped_by_ctrl_c() -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    // Without them Ctrl-C ends the program at once: nothing to do about that.
    let _ = flag::register_conditional_shutdown(SIGINT, 130, Arc::clone(&stop));
    let _ = flag::register(SIGINT, Arc::clone(&stop));
    stop
}

/// How many runs at once.
pub(super) fn jobs(asked: Option<usize>) -> usize {
    asked.or_else(|| std::thread::available_parallelism().ok().map(Into::into)).unwrap_or(1)
}

#[expect(clippy::print_stderr, reason = "progress is not part of the output")]
pub(super) fn tell(text: &str) {
    eprintln!("{text}");
}

pub(super) fn seeds(text: &str) -> Result<Range<u64>, String> {
    let wrong = || format!("'{text}' are no seeds; 0..200 are two hundred of them");
    let (from, to) = text.split_once("..").ok_or_else(wrong)?;
    let range = from.parse().map_err(|_| wrong())?..to.parse().map_err(|_| wrong())?;
    if range.is_empty() { Err(wrong()) } else { Ok(range) }
}
