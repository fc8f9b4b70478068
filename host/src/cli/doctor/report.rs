//! What is told: findings, each with what to do about it.

use serde::Serialize;

use super::{super::render::wrapped, facts::Facts, findings};
use crate::plain_text;

/// `kinfolk doctor --json`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct Report {
    /// Whether there is no problem among the findings.
    pub(super) ok: bool,
    /// Whether a node runs on the data folder; its word counts for what concerns its ports.
    node_running: bool,
    /// How long it took.
    took_s: u64,
    pub(super) findings: Vec<Finding>,
}

/// One thing that was found out.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct Finding {
    /// What it is about: `udp`, `relays`.
    pub(super) id: &'static str,
    /// Which one, where there may be several with one id: an address, `IPv4 QUIC`.
    pub(super) about: Option<String>,
    pub(super) verdict: Verdict,
    /// What was found.
    pub(super) text: String,
    /// What to do about it. `null`: nothing.
    pub(super) advice: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    /// As it should be.
    Ok,
    /// Worth knowing; things work all the same.
    Note,
    /// Something does not work that should.
    Problem,
    /// It could not be found out.
    Unknown,
}

impl Finding {
    pub(super) fn new(id: &'static str, verdict: Verdict, text: impl Into<String>) -> Self {
        Self { id, about: None, verdict, text: text.into(), advice: None }
    }

    pub(super) fn about(self, what: impl Into<String>) -> Self {
        Self { about: Some(what.into()), ..self }
    }

    pub(super) fn advice(self, what: impl Into<String>) -> Self {
        Self { advice: Some(what.into()), ..self }
    }
}

impl Report {
    pub(super) fn of(facts: &Facts) -> Self {
        let findings = findings::findings(facts);
        Self {
            ok: findings.iter().all(|finding| finding.verdict != Verdict::Problem),
            node_running: facts.running.is_some(),
            took_s: facts.took.as_secs(),
            findings,
        }
    }

    /// For people; lines are not longer than `width`.
    pub(super) fn text(&self, width: Option<usize>) -> String {
        const TEXT: usize = 23;
        const ADVICE: usize = TEXT + 3;
        let mut text = String::new();
        for finding in &self.findings {
            let verdict = match finding.verdict {
                Verdict::Ok => "ok",
                Verdict::Note => "note",
                Verdict::Problem => "PROBLEM",
                Verdict::Unknown => "unknown",
            };
            let about = finding.about.as_ref().map(|about| format!("{about}: ")).unwrap_or_default();
            let what = plain_text(&format!("{about}{}", finding.text));
            text.push_str(&wrapped(&format!("{verdict:<8} {:<13} {what}", finding.id), TEXT, width));
            text.push('\n');
            if let Some(advice) = &finding.advice {
                text.push_str(&wrapped(&format!("{:TEXT$}-> {}", "", plain_text(advice)), ADVICE, width));
                text.push('\n');
            }
        }
        let count = |verdict| self.findings.iter().filter(|finding| finding.verdict == verdict).count();
        let sum = match (count(Verdict::Problem), count(Verdict::Unknown)) {
            (0, 0) => "no problem was found".to_owned(),
            (0, unknown) => format!("no problem was found; {unknown} could not be found out"),
            (1, _) => "1 problem was found".to_owned(),
            (problems, _) => format!("{problems} problems were found"),
        };
        text.push_str(&format!("\n{sum}\n"));
        text
    }
}
