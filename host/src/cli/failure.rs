//! How a command can end other than well.

use std::{fmt, io, process::ExitCode};

use serde::Serialize;

use crate::plain_text;

/// The program's exit codes; `docs/cli.md` lists them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// Something here went wrong.
    Failed = 1,
    /// The command line, the settings or an address are not right.
    BadInput = 2,
    /// There is no node to ask.
    NoNode = 3,
    /// The node said no, or it came to nothing.
    Declined = 4,
    /// A node is running on this data folder already.
    NodeRunning = 5,
}

/// Why a command did not do what it should.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Failure {
    /// To be told to the user.
    Said(Said),
    /// There is a problem, which was told with everything else that was found.
    Found,
    /// Whoever read our output has gone: `kinfolk peers | head -1`. Nothing to tell, and nobody to tell it to.
    PipeClosed,
}

/// A failure in words; with `--json` this is what the error stream gets, as one object.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Said {
    /// A word for programs.
    pub error: String,
    /// What is wrong, where, and what to do.
    pub detail: String,
    /// The exit code.
    pub exit: u8,
}

impl Failure {
    /// A failure in words; `error` is a word for programs.
    pub fn new(exit: Exit, error: impl Into<String>, detail: impl fmt::Display) -> Self {
        Self::Said(Said { error: error.into(), detail: detail.to_string(), exit: exit as u8 })
    }

    /// Something here went wrong.
    pub fn failed(detail: impl fmt::Display) -> Self {
        Self::new(Exit::Failed, "failed", detail)
    }

    /// What was typed is not right.
    pub fn bad_input(detail: impl fmt::Display) -> Self {
        Self::new(Exit::BadInput, "bad_input", detail)
    }

    /// Tells the user, and gives the exit code.
    pub fn report(&self, json: bool) -> ExitCode {
        match self {
            Self::PipeClosed => ExitCode::SUCCESS,
            Self::Found => ExitCode::from(Exit::Failed as u8),
            Self::Said(said) => {
                let text = if json {
                    serde_json::to_string(said).unwrap_or_else(|_| said.detail.clone())
                } else {
                    let mut lines = said.detail.lines().map(plain_text);
                    let first = format!("error: {}", lines.next().unwrap_or_default());
                    lines.fold(first, |text, line| format!("{text}\n       {line}"))
                };
                super::out::to_stderr(&text);
                ExitCode::from(said.exit)
            }
        }
    }
}

impl From<io::Error> for Failure {
    /// For errors of writing to the standard output stream.
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::PipeClosed;
        }
        Self::failed(format!("can't write to the standard output stream: {error}"))
    }
}
