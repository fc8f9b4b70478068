//! A trace without the people in it: every peer, address and host gets another name, and the core still decides the
//! same.
//!
//! The new names keep what the core may look at: the order of peer ids and of addresses, which addresses share a
//! network of whatever size, how far an address reaches (private stays private), ports, transports, and whether a name
//! ends in `.local`. They keep nothing else: where order and prefixes leave a choice, a coin decides, and the coins are
//! thrown away. Texts are searched too, so an address in an error's words is renamed with the others.
//!
//! Nobody has to believe that: the redacted trace is replayed before it is put in its place, and is not when the core
//! would have commanded anything else.

mod bits;
mod ip;
mod names;
mod text;

use std::{
    collections::{HashMap, HashSet},
    fmt, fs,
    path::{Path, PathBuf},
};

use kinfolk_core::trace::{Frame, Header};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use self::{
    bits::Coins,
    names::{Names, Seen},
};
use crate::{
    replay::{Options, Report, replay},
    trace::{Entry, Problem, ReadError, Reader, WriteError, Writer},
};

/// How many sets of new names are tried.
const TRIES: u32 = 3;

/// How many texts are remembered so as not to be searched again.
const REMEMBERED: usize = 100_000;

/// What was redacted.
#[derive(Debug)]
pub struct Redacted {
    /// Distinct peers that got other names.
    pub peers: u64,
    /// Distinct IP addresses.
    pub addresses: u64,
    /// Distinct host names, and other names in addresses.
    pub names: u64,
    /// Inputs in the new trace.
    pub inputs: u64,
    /// Commands in the new trace.
    pub commands: u64,
    /// What ended the reading too early; the new trace ends before it.
    pub problem: Option<ReadError>,
}

/// Why nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum RedactError {
    /// The trace can't be read, or has a checkpoint that can't be used.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The new trace can't be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The trace comes from the standard input.
    #[error("a trace is read several times to be redacted: save it in a file first")]
    NoFile,
    /// Both are the same file.
    #[error("{}: the redacted trace must not take the place of the trace itself; name another file", .0.display())]
    SameFile(PathBuf),
    /// The core does not do again what the trace says, so nothing could be said about a redacted one.
    #[error(
        "the trace does not replay, so its redaction can't be checked; use the kinfolk-sim of the recording core\n{0}"
    )]
    DoesNotReplay(Box<Report>),
    /// With the new names the core decides otherwise.
    #[error(
        "nothing was written: with other names the core decides otherwise, so something depends on more than order and prefixes\n{0}"
    )]
    Differs(Box<Report>),
    /// The trace is being written to.
    #[error("{file}, line {line}: the file has changed while it was read; copy it first")]
    Changed {
        /// The trace.
        file: String,
        /// The line with something new.
        line: u64,
    },
    /// A line is no line of a trace any more.
    #[error("{file}, line {line}: can't be redacted: {what}")]
    Broken {
        /// The trace.
        file: String,
        /// The line.
        line: u64,
        /// The parser's words.
        what: String,
    },
}

/// Redacts the trace `from` into the file `to`, which is compressed if its name ends in `.zst`. A trace that is cut off
/// is redacted as far as it goes.
///
/// # Errors
/// See [`RedactError`]; `to` is untouched then.
pub fn redact(from: &Path, to: &Path) -> Result<Redacted, RedactError> {
    if from == Path::new("-") {
        return Err(RedactError::NoFile);
    }
    if is_same(from, to) {
        return Err(RedactError::SameFile(to.to_path_buf()));
    }
    let mut report = replay(&mut Reader::open(from)?, Options::default());
    let unusable = |problem: &ReadError| matches!(problem.problem, Problem::BadCheckpoint { .. });
    if let Some(at) = report.problems.iter().position(unusable) {
        return Err(report.problems.swap_remove(at).into());
    }
    if report.difference.is_some() {
        return Err(RedactError::DoesNotReplay(Box::new(report)));
    }
    let problem = match report.problems.pop() {
        Some(problem) if report.segments == 0 => return Err(problem.into()),
        problem => problem,
    };
    let seen = look(from)?;
    let mut coins = Coins::new();
    let mut check = write_checked(from, to, &seen.rename(&mut coins), &report);
    for _ in 1..TRIES {
        // The order of addresses that are compared as text may have mattered; other names may keep it.
        if !matches!(check, Err(RedactError::Differs(_))) {
            break;
        }
        check = write_checked(from, to, &seen.rename(&mut coins), &report);
    }
    let check = check?;
    let (peers, addresses, names) = seen.counts();
    Ok(Redacted {
        peers: peers as u64,
        addresses: addresses as u64,
        names: names as u64,
        inputs: check.inputs,
        commands: check.commands,
        problem,
    })
}

/// Reads all that names somebody.
fn look(from: &Path) -> Result<Seen, RedactError> {
    let mut seen = Seen::default();
    let mut noted = HashSet::new();
    for item in Reader::<Value>::open(from)?.map_while(Result::ok) {
        let mut line = match item.entry {
            Entry::Header(header) => serde_json::to_value(header),
            Entry::Frame(frame) => serde_json::to_value(frame),
        }
        .map_err(|error| broken(from, item.line, &error))?;
        each_text(&mut line, &mut |text| {
            if !noted.contains(text) {
                seen.note(text);
                if noted.len() < REMEMBERED {
                    noted.insert(text.to_string());
                }
            }
            None
        });
    }
    Ok(seen)
}

/// Writes the trace with new names and replays it, and only then puts it in its place.
fn write_checked(from: &Path, to: &Path, names: &Names, before: &Report) -> Result<Report, RedactError> {
    let written = write(from, to, names)?.close()?;
    let mut check = replay(&mut Reader::open(written.path())?, Options::default());
    check.file = to.display().to_string();
    if !check.is_equal() || (check.inputs, check.commands) != (before.inputs, before.commands) {
        return Err(RedactError::Differs(Box::new(check)));
    }
    written.keep()?;
    Ok(check)
}

/// Writes the trace with new names, as far as it can be read.
fn write(from: &Path, to: &Path, names: &Names) -> Result<Writer, RedactError> {
    let mut writer = Writer::create(to)?;
    let mut renamer = Renamer { names, done: HashMap::new() };
    for item in Reader::<Value>::open(from)?.map_while(Result::ok) {
        match item.entry {
            Entry::Header(header) => {
                let header: Header = renamer.renamed(&header, from, item.line)?;
                writer.header(&header)?;
            }
            Entry::Frame(frame) => {
                let frame: Frame = renamer.renamed(&*frame, from, item.line)?;
                writer.frame(&frame)?;
            }
        }
    }
    Ok(writer)
}

/// Gives new names, and remembers for many texts what became of them: most come again and again.
struct Renamer<'a> {
    names: &'a Names,
    done: HashMap<String, String>,
}

impl Renamer<'_> {
    fn renamed<T: DeserializeOwned>(&mut self, of: &impl Serialize, from: &Path, line: u64) -> Result<T, RedactError> {
        let mut value = serde_json::to_value(of).map_err(|error| broken(from, line, &error))?;
        let mut all_known = true;
        each_text(&mut value, &mut |text| {
            if let Some(done) = self.done.get(text) {
                return Some(done.clone());
            }
            let new = self.names.rewrite(text);
            all_known &= new.is_some();
            if let Some(new) = new.as_ref().filter(|_| self.done.len() < REMEMBERED) {
                self.done.insert(text.to_string(), new.clone());
            }
            new
        });
        if !all_known {
            return Err(RedactError::Changed { file: from.display().to_string(), line });
        }
        serde_json::from_value(value).map_err(|error| broken(from, line, &error))
    }
}

/// Replaces every text in a value, keys of maps too.
fn each_text(value: &mut Value, change: &mut impl FnMut(&str) -> Option<String>) {
    match value {
        Value::String(text) => {
            if let Some(new) = change(text) {
                *text = new;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| each_text(item, change)),
        Value::Object(fields) => {
            let old = std::mem::take(fields);
            for (key, mut value) in old {
                each_text(&mut value, change);
                let key = change(&key).unwrap_or(key);
                fields.insert(key, value);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn broken(from: &Path, line: u64, error: &serde_json::Error) -> RedactError {
    RedactError::Broken { file: from.display().to_string(), line, what: error.to_string() }
}

fn is_same(from: &Path, to: &Path) -> bool {
    let place = |path: &Path| fs::canonicalize(path);
    matches!((place(from), place(to)), (Ok(from), Ok(to)) if from == to)
}

impl fmt::Display for Redacted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { peers, addresses, names, inputs, commands, .. } = self;
        write!(
            f,
            "{inputs} inputs and {commands} commands, replayed equal; renamed: {peers} peers, {addresses} addresses, \
             {names} names"
        )
    }
}

#[cfg(test)]
mod tests {
    use kinfolk_core::{Config, Event, Interfaces, PeerId, Prefix, Source, Started, Time};

    use super::*;
    use crate::record::Recording;

    const LOCAL: &str = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";
    const OTHER: &str = "12D3KooWEpQiRyKUdx5uRFyRW7yLFMpyehtNTHnVHoeJmFEcRkgv";

    /// A node that finds a peer on its home network, and dials it.
    fn recording(peer: &str, address: &str) -> Recording {
        let own = Prefix { ip: "192.168.1.7".parse().unwrap(), len: 24 };
        let (mut node, _) = Recording::start(Started {
            config: Config::desktop().validate().unwrap(),
            local: LOCAL.parse().unwrap(),
            seed: 7,
            unix_time: 1_790_000_000,
            interfaces: Interfaces { addresses: vec![own], default_v4: true, default_v6: false },
        });
        let peer: PeerId = peer.parse().unwrap();
        let found = Event::Found { source: Source::Mdns, peer, addresses: vec![address.parse().unwrap()], cut: 0 };
        assert!(!node.tell(Time::from_secs(1), found).unwrap().is_empty(), "the peer is noticed");
        node.rest_until(Time::from_secs(5)).unwrap();
        node
    }

    #[test]
    fn names_with_which_the_core_decides_otherwise_make_no_trace() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from.jsonl"), folder.path().join("to.jsonl"));
        recording(OTHER, "/ip4/192.168.1.9/tcp/4001").save(&from).unwrap();
        let report = replay(&mut Reader::open(&from).unwrap(), Options::default());
        let seen = look(&from).unwrap();
        let good = seen.rename(&mut Coins::new());
        assert!(write_checked(&from, &to, &good, &report).is_ok());
        fs::remove_file(&to).unwrap();

        // Not in the own interface's network any more, so it would not be dialled.
        let bad = good.with_v4("192.168.1.9".parse().unwrap(), "10.9.9.9".parse().unwrap());
        let error = write_checked(&from, &to, &bad, &report).unwrap_err();
        assert!(matches!(error, RedactError::Differs(_)), "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left behind");
    }

    #[test]
    fn a_file_that_changes_meanwhile_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from.jsonl"), folder.path().join("to.jsonl"));
        recording(OTHER, "/ip4/192.168.1.9/tcp/4001").save(&from).unwrap();
        let names = look(&from).unwrap().rename(&mut Coins::new());
        recording(OTHER, "/ip4/192.168.1.10/tcp/4001").save(&from).unwrap();
        let error = write(&from, &to, &names).unwrap_err();
        assert!(matches!(error, RedactError::Changed { line: 3, .. }), "{error}");
    }
}
