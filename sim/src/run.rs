//! Runs of scenarios, and what came of them.

use std::{
    fmt, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::{
    check::Finding,
    engine::{Moment, SECOND},
    internet::Reach,
    scenario::{Plan, Scenario},
    swarm::Counts,
    trace::WriteError,
    words,
};

/// The version of this program and of the core in it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Times that a report keeps of each kind.
const MAX_TIMES: usize = 1_000;

/// What came of one run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// The scenario's name.
    pub scenario: String,
    /// Its file, or its name if it is part of the program.
    pub file: String,
    /// The version of the program that ran it.
    pub version: String,
    /// Whether its settings were drawn from the seed.
    #[serde(default)]
    pub varied: bool,
    /// The seed.
    pub seed: u64,
    /// The hash of everything that happened, in hexadecimal.
    pub hash: String,
    /// Whether it ran to its end.
    pub complete: bool,
    /// How much simulated time has passed, in seconds.
    pub seconds: u64,
    /// How many nodes there were.
    pub nodes: u64,
    /// What was found to be wrong.
    pub findings: Vec<Found>,
    /// What was counted.
    pub counts: Counts,
    /// What became of nodes that belong together.
    pub pairs: Pairs,
    /// Seconds that nodes knew of others and had no connection, in all.
    pub isolated_seconds: u64,
    /// Bytes per node and hour, roughly.
    pub bytes_per_node_hour: u64,
    /// What the run took, in seconds. Not part of the outcome: it differs from run to run.
    pub took: f64,
}

/// A finding, with the node's name.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Found {
    /// Which node.
    pub name: Option<String>,
    /// What, and where it stands in the design.
    #[serde(flatten)]
    pub finding: Finding,
}

/// Figures about nodes that belong together. Times are in milliseconds, from when both ran.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Pairs {
    /// How many pairs there are.
    pub all: u64,
    /// How many of them were ever connected.
    pub met: u64,
    /// How many of them the routers between them allow to be direct.
    pub may_be_direct: u64,
    /// How many of them ever were.
    pub were_direct: u64,
    /// The time to the first connection: median and the 95th of a hundred.
    pub first: [Option<u64>; 2],
    /// The same to the first direct one.
    pub direct: [Option<u64>; 2],
    /// The times to the first connection that these are of, in order; of very many, so many evenly spread ones.
    pub firsts: Vec<u64>,
    /// The same to the first direct one.
    pub directs: Vec<u64>,
    /// Minutes that pairs were connected through relays only, in all.
    pub relayed_minutes: u64,
}

impl Report {
    /// Whether nothing is wrong.
    pub const fn is_good(&self) -> bool {
        self.findings.is_empty()
    }
}

/// Runs a scenario once. `stop` ends it early; what is known by then is told.
pub fn run(scenario: &Scenario, seed: u64, stop: &AtomicBool) -> Report {
    let began = Instant::now();
    let mut plan = Plan::new(scenario, seed);
    let complete = drive(&mut plan, stop);
    report(&plan, scenario, seed, complete, began.elapsed())
}

/// The same, and writes the traces of some nodes, or of all, into a folder: `NAME.jsonl.zst`, and for nodes that were
/// started several times `NAME.jsonl.zst`, `NAME.2.jsonl.zst` and so on.
///
/// # Errors
/// When they can't be written.
pub fn run_recorded(
    scenario: &Scenario,
    seed: u64,
    stop: &AtomicBool,
    folder: &Path,
    only: Option<&[u32]>,
) -> io::Result<Report> {
    let began = Instant::now();
    let mut plan = Plan::new(scenario, seed);
    let all: Vec<u32> = (0..scenario.nodes() as u32).collect();
    let recorded: Vec<u32> = only.unwrap_or(&all).to_vec();
    recorded.iter().for_each(|node| plan.world.record(*node));
    let complete = drive(&mut plan, stop);
    std::fs::create_dir_all(folder)?;
    for node in recorded {
        let name = plan.node_name(node).replace('/', "-");
        for (life, number) in plan.world.lives(node).iter().zip(1..) {
            let name = if number == 1 { name.clone() } else { format!("{name}.{number}") };
            let written: Result<(), WriteError> = life.recording.save(&folder.join(format!("{name}.jsonl.zst")));
            written.map_err(io::Error::other)?;
        }
    }
    Ok(report(&plan, scenario, seed, complete, began.elapsed()))
}

/// The same, and gives the world as it was at the end, with the traces of these nodes.
pub(crate) fn run_watched(
    scenario: &Scenario,
    seed: u64,
    stop: &AtomicBool,
    watched: &[u32],
    each: &mut dyn FnMut(&Plan),
    interval: u64,
) -> (Report, Plan) {
    let began = Instant::now();
    let mut plan = Plan::new(scenario, seed);
    watched.iter().for_each(|node| plan.world.record(*node));
    let mut until = 0;
    let mut complete = true;
    while complete && until < plan.end {
        until = (until + interval.max(1)).min(plan.end);
        complete = !stop.load(Ordering::Relaxed) && drive_until(&mut plan, until);
        each(&plan);
    }
    if complete {
        complete = drive(&mut plan, stop);
    }
    (report(&plan, scenario, seed, complete, began.elapsed()), plan)
}

/// Runs a scenario with many seeds, several at once; `done` is told of each, in the order in which they end.
pub fn run_seeds(
    scenario: &Scenario,
    seeds: std::ops::Range<u64>,
    jobs: usize,
    stop: &AtomicBool,
    done: &(dyn Fn(&Report) + Sync),
) -> Vec<Report> {
    let seeds: Vec<u64> = seeds.collect();
    let next = AtomicUsize::new(0);
    let reports = std::sync::Mutex::new(vec![]);
    std::thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, seeds.len().max(1)) {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) else { break };
                    let report = run(scenario, *seed, stop);
                    done(&report);
                    reports.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(report);
                }
            });
        }
    });
    let mut reports = reports.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    reports.sort_by_key(|report| report.seed);
    reports
}

/// Minute by minute, so that it can be stopped.
fn drive(plan: &mut Plan, stop: &AtomicBool) -> bool {
    let mut until = plan.world.now();
    while until < plan.end {
        if stop.load(Ordering::Relaxed) {
            return false;
        }
        until = (until + 60 * SECOND).min(plan.end);
        if !drive_until(plan, until) {
            return false;
        }
    }
    plan.run();
    true
}

/// A panic is a finding like any other: invariant 1.
fn drive_until(plan: &mut Plan, until: Moment) -> bool {
    catch_unwind(AssertUnwindSafe(|| plan.run_until(until))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(ToString::to_string);
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        plan.world.panicked(&text);
        false
    })
}

fn report(plan: &Plan, scenario: &Scenario, seed: u64, complete: bool, took: Duration) -> Report {
    let world = &plan.world;
    let seconds = world.now() / SECOND;
    let nodes = scenario.nodes();
    let counts = world.counts().clone();
    let host_hours = (nodes * seconds).max(1);
    let findings = world
        .findings()
        .iter()
        .map(|finding| Found { name: finding.node.map(|node| plan.node_name(node)), finding: finding.clone() });
    Report {
        scenario: scenario.name.clone(),
        file: scenario.file.clone(),
        version: VERSION.to_owned(),
        varied: false,
        seed,
        hash: world.digest().to_string(),
        complete,
        seconds,
        nodes,
        findings: findings.collect(),
        pairs: pairs(plan),
        isolated_seconds: world.isolated() / SECOND,
        bytes_per_node_hour: counts.bytes.saturating_mul(3_600) / host_hours,
        counts,
        took: took.as_secs_f64(),
    }
}

fn pairs(plan: &Plan) -> Pairs {
    let world = &plan.world;
    let all = world.pairs();
    let count = |wanted: &dyn Fn(&crate::swarm::Pair) -> bool| all.iter().filter(|pair| wanted(pair)).count() as u64;
    let times = |of: &dyn Fn(&crate::swarm::Pair) -> Option<u64>| {
        let mut times: Vec<u64> = all.iter().filter_map(of).map(|nanos| nanos / 1_000_000).collect();
        times.sort_unstable();
        times
    };
    let (firsts, directs) = (times(&|pair| pair.first), times(&|pair| pair.direct));
    Pairs {
        all: all.len() as u64,
        met: count(&|pair| pair.first.is_some()),
        may_be_direct: count(&|pair| world.net().reach(pair.nodes.0, pair.nodes.1, true) > Reach::Never),
        were_direct: count(&|pair| pair.direct.is_some()),
        first: [50, 95].map(|hundredths| quantile(&firsts, hundredths)),
        direct: [50, 95].map(|hundredths| quantile(&directs, hundredths)),
        firsts: thinned(firsts),
        directs: thinned(directs),
        relayed_minutes: all.iter().map(|pair| pair.relayed(world.now())).sum::<u64>() / (60 * SECOND),
    }
}

/// The value below which so many hundredths of them lie.
pub fn quantile(sorted: &[u64], hundredths: usize) -> Option<u64> {
    sorted.get(sorted.len().saturating_sub(1) * hundredths / 100).copied()
}

fn thinned(sorted: Vec<u64>) -> Vec<u64> {
    let step = sorted.len().div_ceil(MAX_TIMES).max(1);
    sorted.into_iter().step_by(step).collect()
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scenario, seed, nodes, seconds, counts, pairs, .. } = self;
        let span = words::span(Duration::from_secs(*seconds));
        let took = words::span(Duration::from_secs_f64(self.took));
        let end = if self.complete { "" } else { " (not to its end)" };
        writeln!(f, "{scenario}, seed {seed}: {nodes} nodes, {span}{end}, in {took}")?;
        writeln!(f, "  hash {}", self.hash)?;
        let host_seconds = (*nodes * *seconds).max(1) as f64;
        writeln!(
            f,
            "  {} events and {} commands of cores, {} steps; {:.2} µs per node and second",
            counts.events,
            counts.commands,
            counts.steps,
            self.took * 1e6 / host_seconds
        )?;
        let kinds: Vec<String> = counts.connections.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        writeln!(
            f,
            "  {} dials, {} led to a connection; connections: {}",
            counts.dials,
            counts.dials_won,
            if kinds.is_empty() { "none".to_owned() } else { kinds.join(", ") }
        )?;
        if counts.punches > 0 {
            writeln!(f, "  {} tries to punch a hole, {} worked", counts.punches, counts.punched)?;
        }
        if counts.log_questions > 0 {
            writeln!(
                f,
                "  {} entries written, {} received from others; {} questions about logs, {} kB",
                counts.entries_written,
                counts.entries_received,
                counts.log_questions,
                counts.log_bytes / 1_000
            )?;
        }
        if pairs.all > 0 {
            let time = |millis: Option<u64>| {
                millis.map_or("never".to_owned(), |millis| words::span(Duration::from_millis(millis)))
            };
            writeln!(
                f,
                "  {} of {} pairs met, after {} (median) to {} (95 %); {} were direct, {} may be, after {} to {}",
                pairs.met,
                pairs.all,
                time(pairs.first[0]),
                time(pairs.first[1]),
                pairs.were_direct,
                pairs.may_be_direct,
                time(pairs.direct[0]),
                time(pairs.direct[1])
            )?;
        }
        writeln!(
            f,
            "  isolated for {} s in all; about {} kB per node and hour",
            self.isolated_seconds,
            self.bytes_per_node_hour / 1_000
        )?;
        for found in &self.findings {
            let name = found.name.as_deref().map(|name| format!(" [{name}]")).unwrap_or_default();
            writeln!(f, "  {}{name}", found.finding)?;
        }
        Ok(())
    }
}
