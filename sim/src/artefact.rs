//! What a failing run leaves behind: one folder with everything that it takes to see the failure again.
//!
//! | file | what |
//! |---|---|
//! | `scenario.toml` | the scenario with all its settings |
//! | `failure.json` | the seed, the versions, what was found, and the run's outcome ([`Failure`]) |
//! | `traces/NAME.jsonl.zst` | what each node was told and commanded, for `kinfolk-sim replay` and `trace show` |
//!
//! `kinfolk-sim run FOLDER` runs it again, `shrink FOLDER` makes it smaller, `explain FOLDER NODE` tells it in words.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

use kinfolk_core::trace::{CORE_VERSION, FORMAT};
use serde::{Deserialize, Serialize};

use crate::{
    run::{self, Report},
    scenario::{self, Scenario, ScenarioError},
};

/// The version of the folder's form.
pub const FORM: u32 = 1;
/// Nodes whose traces are kept; of more, those that the findings name and then the first ones.
pub const MAX_TRACED: usize = 64;

const SCENARIO: &str = "scenario.toml";
const FAILURE: &str = "failure.json";
const TRACES: &str = "traces";

/// What `failure.json` says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Failure {
    /// The version of the folder's form.
    pub form: u32,
    /// The seed.
    pub seed: u64,
    /// Who wrote it.
    pub versions: Versions,
    /// How the failure is seen again.
    pub again: String,
    /// What the run came to.
    pub report: Report,
    /// From what it was shrunk, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shrunk: Option<Shrunk>,
}

/// Versions of all that a run depends on.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Versions {
    /// Of this program.
    pub sim: String,
    /// Of the core.
    pub core: String,
    /// Of the traces' format.
    pub trace: u32,
}

/// From what a failure was shrunk.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Shrunk {
    /// The scenario's name, before.
    pub scenario: String,
    /// The seed, before.
    pub seed: u64,
    /// Nodes, faults and simulated seconds, before and now.
    pub nodes: [u64; 2],
    /// Faults, those at random counted as often as they came.
    pub faults: [u64; 2],
    /// Simulated seconds.
    pub seconds: [u64; 2],
    /// How many runs it took.
    pub runs: u64,
}

/// An artefact can't be read.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file is missing, or is no `failure.json`.
    #[error("{}: {error}", file.display())]
    File {
        /// Which one.
        file: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// Its scenario can't be run.
    #[error("{0}")]
    Scenario(#[from] ScenarioError),
}

/// Whether this is an artefact's folder.
pub fn is_one(place: &Path) -> bool {
    place.join(FAILURE).is_file()
}

/// Reads an artefact.
///
/// # Errors
/// When it is none, or is damaged.
pub fn open(folder: &Path) -> Result<(Scenario, Failure), OpenError> {
    let file = folder.join(FAILURE);
    let fail = |error| OpenError::File { file: file.clone(), error };
    let text = fs::read_to_string(&file).map_err(fail)?;
    let failure: Failure = serde_json::from_str(&text).map_err(|error| fail(error.into()))?;
    if failure.form != FORM {
        return Err(fail(io::Error::other(format!("of form {}, and this program knows form {FORM}", failure.form))));
    }
    let scenario = scenario::load(&folder.join(SCENARIO).to_string_lossy())?;
    Ok((scenario, failure))
}

/// Runs a scenario again and writes its artefact. The report says whether it failed.
///
/// # Errors
/// When the folder can't be written.
pub fn write(
    scenario: &Scenario,
    report: &Report,
    shrunk: Option<Shrunk>,
    stop: &AtomicBool,
    folder: &Path,
) -> io::Result<Report> {
    fs::create_dir_all(folder)?;
    let traces = folder.join(TRACES);
    if traces.is_dir() {
        fs::remove_dir_all(&traces)?;
    }
    let nodes = traced(scenario, report);
    let mut again = run::run_recorded(scenario, report.seed, stop, &traces, Some(&nodes))?;
    again.varied = report.varied;
    fs::write(folder.join(SCENARIO), &scenario.text)?;
    let failure = Failure {
        form: FORM,
        seed: report.seed,
        versions: Versions { sim: run::VERSION.to_owned(), core: CORE_VERSION.to_owned(), trace: FORMAT },
        again: format!("kinfolk-sim run {}", folder.display()),
        report: again.clone(),
        shrunk,
    };
    fs::write(folder.join(FAILURE), serde_json::to_vec_pretty(&failure)?)?;
    Ok(again)
}

/// Whose traces are kept.
fn traced(scenario: &Scenario, report: &Report) -> Vec<u32> {
    let mut nodes: Vec<u32> = report.findings.iter().filter_map(|found| found.finding.node).collect();
    let plan = scenario::Plan::new(scenario, report.seed);
    let all = 0..scenario.nodes() as u32;
    let named = |node: &u32| {
        let name = plan.node_name(*node);
        report.findings.iter().any(|found| found.finding.what.split(' ').any(|word| word == name))
    };
    nodes.extend(all.clone().filter(named));
    nodes.extend(all);
    let mut seen = std::collections::BTreeSet::new();
    nodes.retain(|node| seen.insert(*node));
    nodes.truncate(MAX_TRACED);
    nodes
}
