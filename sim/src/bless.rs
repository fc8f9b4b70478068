//! Golden traces: recorded runs that are replayed at every change of the core, and re-blessed when a change of what it
//! commands is intended.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use kinfolk_core::trace::Header;

use crate::{
    player::{Fault, Player},
    trace::{Entry, Problem, ReadError, Reader, WriteError, Writer},
};

/// What blessing made of a trace.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Blessed {
    /// Inputs in it.
    pub inputs: u64,
    /// Inputs that are followed by other commands now.
    pub changed_inputs: u64,
    /// Commands before.
    pub commands_before: u64,
    /// Commands now.
    pub commands_now: u64,
    /// Headers with another checkpoint or version now.
    pub changed_headers: u64,
}

/// Why a trace can't be blessed. It stays as it was.
#[derive(Debug, thiserror::Error)]
pub enum BlessError {
    /// It can't be read, or begins with a checkpoint that this core can't use: record it anew.
    #[error("{0}")]
    Read(#[from] ReadError),
    /// It can't be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The core panics at an input.
    #[error("{file}, line {line}: the core panicked: {message}")]
    Panicked {
        /// The trace.
        file: String,
        /// The line of the input.
        line: u64,
        /// The panic's words.
        message: String,
    },
}

/// The traces in a folder and those below it (`*.jsonl`, `*.jsonl.zst`), by name; a file is itself.
///
/// # Errors
/// When a folder can't be read.
pub fn traces(place: &Path) -> io::Result<Vec<PathBuf>> {
    if !place.is_dir() {
        return Ok(vec![place.to_path_buf()]);
    }
    let mut found = vec![];
    for entry in fs::read_dir(place)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(traces(&path)?);
        } else if path.to_str().is_some_and(|name| name.ends_with(".jsonl") || name.ends_with(".jsonl.zst")) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Tells the present core a trace's inputs and writes what it commands, and its checkpoints, in place of what stands
/// there. The inputs stay as they are. A trace in which nothing changes is not touched.
///
/// # Errors
/// See [`BlessError`].
pub fn bless(file: &Path) -> Result<Blessed, BlessError> {
    let mut reader = Reader::open(file)?;
    let mut writer = Writer::create(file)?;
    let mut player = Player::default();
    let mut segment = None;
    let mut blessed = Blessed::default();
    while let Some(item) = reader.next() {
        let item = item?;
        let (name, line) = (reader.file().to_string(), item.line);
        let bad = |core, what| reader.error_at(line, segment, Problem::BadCheckpoint { core, what });
        match item.entry {
            Entry::Header(old) => {
                let bad = |what| bad(old.core.clone(), what);
                let checkpoint = player.begin_anew(&old).map_err(bad)?.map(Box::new);
                let Header { node, segment: number, reason, t, unix_time, lost, .. } = old;
                let new = Header { lost, checkpoint, ..Header::new(node, number, reason, t, unix_time) };
                blessed.changed_headers +=
                    u64::from(serde_json::to_value(&new).ok() != serde_json::to_value(&old).ok());
                segment = Some(number);
                writer.header(&new)?;
            }
            Entry::Frame(mut frame) => {
                let out = player.feed(&frame).map_err(|fault| match fault {
                    Fault::Panicked(message) => BlessError::Panicked { file: name, line, message },
                    Fault::NoNode => bad(String::new(), "no node to tell this".to_string()).into(),
                })?;
                blessed.inputs += 1;
                blessed.changed_inputs += u64::from(out != frame.out);
                blessed.commands_before += frame.out.len() as u64;
                blessed.commands_now += out.len() as u64;
                frame.out = out;
                writer.frame(&frame)?;
            }
        }
    }
    if blessed.is_changed() {
        writer.finish()?;
    }
    Ok(blessed)
}

impl Blessed {
    /// Whether the file was rewritten.
    pub const fn is_changed(&self) -> bool {
        self.changed_inputs > 0 || self.changed_headers > 0
    }
}

impl fmt::Display for Blessed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { inputs, changed_inputs, commands_before, commands_now, changed_headers } = self;
        if !self.is_changed() {
            return write!(f, "as it was ({inputs} inputs, {commands_now} commands)");
        }
        write!(
            f,
            "blessed: other commands after {changed_inputs} of {inputs} inputs, {commands_before} commands before, \
             {commands_now} now; {changed_headers} headers changed"
        )
    }
}
