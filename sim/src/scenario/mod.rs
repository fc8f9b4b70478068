//! Scenarios: who is there, on which networks, what goes wrong, and what must come of it.
//!
//! A scenario is a TOML file; `sim/scenarios/` holds those that everybody runs, and they are part of the program.
//! `docs/scenarios.md` lists the keys. What a scenario names must exist; an error says in which line.

mod build;
mod faults;
mod file;
mod judge;

pub use build::Plan;
pub use faults::Drawn;
pub use file::{Expect, FaultKind, Meet, Scenario};

use std::{fmt, fs, path::Path};

/// The scenarios that are part of the program: name and text.
pub const BUILT_IN: [(&str, &str); 10] = [
    ("lan-of-five", include_str!("../../scenarios/lan-of-five.toml")),
    ("two-homes-and-a-server", include_str!("../../scenarios/two-homes-and-a-server.toml")),
    ("family-of-eight", include_str!("../../scenarios/family-of-eight.toml")),
    ("a-day", include_str!("../../scenarios/a-day.toml")),
    ("thousand-with-churn", include_str!("../../scenarios/thousand-with-churn.toml")),
    ("logs-of-fifty", include_str!("../../scenarios/logs-of-fifty.toml")),
    ("cold-start", include_str!("../../scenarios/cold-start.toml")),
    ("overnight", include_str!("../../scenarios/overnight.toml")),
    ("flash-crowd", include_str!("../../scenarios/flash-crowd.toml")),
    ("eclipse-attempt", include_str!("../../scenarios/eclipse-attempt.toml")),
];

/// Why a scenario can't be run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScenarioError {
    /// Which file, or built-in scenario.
    pub file: String,
    /// In which line, from 1 on, where it is about one.
    pub line: Option<usize>,
    /// What is wrong with it.
    pub problem: String,
}

impl fmt::Display for ScenarioError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}, line {line}: {}", self.file, self.problem),
            None => write!(f, "{}: {}", self.file, self.problem),
        }
    }
}

impl std::error::Error for ScenarioError {}

/// Reads a scenario: a file, or the name of one that is part of the program.
///
/// # Errors
/// When there is none, or something is wrong with it.
pub fn load(name: &str) -> Result<Scenario, ScenarioError> {
    if let Some((_, text)) = BUILT_IN.iter().find(|(built_in, _)| *built_in == name) {
        return parse(name, text);
    }
    let fail = |problem| ScenarioError { file: name.to_owned(), line: None, problem };
    if !Path::new(name).exists() {
        let names: Vec<&str> = BUILT_IN.iter().map(|(name, _)| *name).collect();
        return Err(fail(format!("no such file, and no scenario of this name; there are {}", names.join(", "))));
    }
    let text = fs::read_to_string(name).map_err(|error| fail(error.to_string()))?;
    parse(name, &text)
}

/// Reads a scenario's text; `file` is what errors call it.
///
/// # Errors
/// When something is wrong with it.
pub fn parse(file: &str, text: &str) -> Result<Scenario, ScenarioError> {
    let fail = |span: Option<std::ops::Range<usize>>, problem: String| ScenarioError {
        file: file.to_owned(),
        line: span.map(|span| 1 + text[..span.start.min(text.len())].matches('\n').count()),
        problem,
    };
    let mut scenario: Scenario =
        toml::from_str(text).map_err(|error| fail(error.span(), error.message().trim().to_owned()))?;
    scenario.check().map_err(|(span, problem)| fail(Some(span), problem))?;
    (scenario.file, scenario.text) = (file.to_owned(), text.to_owned());
    Ok(scenario)
}

#[cfg(test)]
mod tests;
