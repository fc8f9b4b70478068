//! The standard output stream.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use super::failure::Failure;

/// Where a command prints.
#[derive(Clone, Copy, Debug)]
pub struct Out {
    /// Whether JSON is wanted.
    pub(super) json: bool,
}

impl Out {
    /// Prints text and ends the line.
    ///
    /// # Errors
    /// When nobody reads it.
    pub fn line(self, text: &str) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        writeln!(out, "{}", text.trim_end_matches('\n'))?;
        Ok(out.flush()?)
    }

    /// Prints one JSON value on one line.
    ///
    /// # Errors
    /// When nobody reads it.
    pub fn object(self, value: &impl Serialize) -> Result<(), Failure> {
        self.line(&serde_json::to_string(value).map_err(Failure::failed)?)
    }

    /// Prints the value as JSON if that is wanted, else the text.
    pub(crate) fn either(self, value: &impl Serialize, text: impl FnOnce() -> String) -> Result<(), Failure> {
        if self.json { self.object(value) } else { self.line(&text()) }
    }

    /// Puts the text in the place of what the terminal showed before.
    pub(crate) fn redraw(self, text: &str) -> Result<(), Failure> {
        // Home, then clear to the end: no flicker, and the scroll-back stays as it is.
        let lines: String = text.lines().map(|line| format!("{line}\x1b[K\n")).collect();
        let mut out = io::stdout().lock();
        write!(out, "\x1b[H{lines}\x1b[J")?;
        Ok(out.flush()?)
    }

    /// Whether somebody looks at it.
    pub(crate) fn is_terminal(self) -> bool {
        io::stdout().is_terminal()
    }

    /// The size to print for, columns and rows. `None`: no terminal, so no limit.
    pub(crate) fn size(self) -> Option<(usize, usize)> {
        let (width, height) = terminal_size::terminal_size()?;
        self.is_terminal().then(|| (usize::from(width.0).max(40), usize::from(height.0).max(5)))
    }
}

/// Prints a line to the error stream; that nobody reads it is no reason to fail.
pub(crate) fn to_stderr(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}
