use std::{fmt, io};

use serde::Serialize;

use super::FORMATS;
use crate::words::fit;

/// Why a trace can't be read on, and where. Everything before that place was read well.
#[derive(Debug, thiserror::Error)]
pub struct ReadError {
    /// The file's name, as it was given.
    pub file: String,
    /// The line in the text (decompressed), from 1 on; 0 when not even one line came.
    pub line: u64,
    /// The number of the segment in which the line stands, as its header gives it; `None` before the first header.
    pub segment: Option<u64>,
    /// What is wrong there.
    #[source]
    pub problem: Problem,
}

/// What can be wrong with a trace.
#[derive(Debug)]
pub enum Problem {
    /// The file can't be opened, or the disk fails.
    Io(io::Error),
    /// Nothing in it.
    Empty,
    /// The file ends in the middle of a line or of a compressed block.
    CutOff,
    /// The compressed data is damaged; zstd's words.
    Compression(String),
    /// The line is longer than any of a trace may be ([`MAX_FRAME`](super::MAX_FRAME),
    /// [`MAX_HEADER`](super::MAX_HEADER)).
    TooLong {
        /// The limit in bytes.
        limit: usize,
    },
    /// The line is no JSON.
    NotJson {
        /// The column in bytes, from 1 on; 0 when unknown.
        column: u64,
        /// The parser's words.
        what: String,
    },
    /// The first line is no header, so this is no trace.
    NoHeader,
    /// The header names a format that this program does not know.
    UnknownFormat(u64),
    /// A header that lacks something or has something wrong; the parser's words.
    BadHeader(String),
    /// A frame that lacks something or has something wrong; the parser's words.
    BadFrame(String),
    /// The checkpoint at the head of a segment is none of this core's.
    BadCheckpoint {
        /// The core that wrote it.
        core: String,
        /// The parser's words.
        what: String,
    },
}

impl ReadError {
    /// The file itself can't be read.
    pub fn io(file: impl Into<String>, error: io::Error) -> Self {
        Self { file: file.into(), line: 0, segment: None, problem: Problem::Io(error) }
    }

    /// What stands in JSON output under `error`.
    pub fn to_json(&self) -> impl Serialize + use<> {
        #[derive(Serialize)]
        struct Json {
            file: String,
            line: u64,
            segment: Option<u64>,
            kind: &'static str,
            message: String,
        }
        Json {
            file: self.file.clone(),
            line: self.line,
            segment: self.segment,
            kind: self.problem.kind(),
            message: self.problem.to_string(),
        }
    }
}

impl Problem {
    /// A short name that stays the same, for programs.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Io(_) => "io",
            Self::Empty => "empty",
            Self::CutOff => "cut_off",
            Self::Compression(_) => "compression",
            Self::TooLong { .. } => "too_long",
            Self::NotJson { .. } => "not_json",
            Self::NoHeader => "no_header",
            Self::UnknownFormat(_) => "unknown_format",
            Self::BadHeader(_) => "bad_header",
            Self::BadFrame(_) => "bad_frame",
            Self::BadCheckpoint { .. } => "bad_checkpoint",
        }
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if self.line > 0 {
            write!(f, ", line {}", self.line)?;
        }
        if let Some(segment) = self.segment {
            write!(f, " (segment {segment})")?;
        }
        write!(f, ": {}", fit(self.problem.to_string()))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "can't be read: {error}"),
            Self::Empty => f.write_str("there is nothing in it; a trace begins with a header line"),
            Self::CutOff => f.write_str(
                "the trace is cut off here (the node was killed, the file copied while it was written, or the disk full); what \
                 stands before is good",
            ),
            Self::Compression(what) => {
                write!(
                    f,
                    "the compressed data is damaged ({what}), here or, as it is checked piece by piece, shortly before"
                )
            }
            Self::TooLong { limit } => {
                write!(f, "the line is longer than {} MiB; no trace has such lines", limit >> 20)
            }
            Self::NotJson { column: 0, what } => write!(f, "no JSON: {what}"),
            Self::NotJson { column, what } => write!(f, "no JSON at column {column}: {what}"),
            Self::NoHeader => f.write_str("not a trace: the first line must be a header ({\"kinfolk_trace\":1,…})"),
            Self::UnknownFormat(found) => {
                let (first, last) = (FORMATS.start(), FORMATS.end());
                write!(f, "the trace has format {found}, and this kinfolk-sim reads ")?;
                if first == last { write!(f, "format {last}") } else { write!(f, "formats {first} to {last}") }?;
                let age = if *found > u64::from(*last) { "a newer" } else { "an older" };
                write!(f, "; it comes from {age} Kinfolk: use the kinfolk-sim of that one")
            }
            Self::BadHeader(what) => write!(f, "the segment's header can't be understood: {what}"),
            Self::BadFrame(what) => write!(f, "the frame can't be understood: {what}"),
            Self::BadCheckpoint { core, what } => write!(
                f,
                "the checkpoint was written by core {core} and can't be used by this one ({}): {what}",
                kinfolk_core::trace::CORE_VERSION
            ),
        }
    }
}

impl std::error::Error for Problem {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            Self::Empty
            | Self::CutOff
            | Self::Compression(_)
            | Self::TooLong { .. }
            | Self::NotJson { .. }
            | Self::NoHeader
            | Self::UnknownFormat(_)
            | Self::BadHeader(_)
            | Self::BadFrame(_)
            | Self::BadCheckpoint { .. } => None,
        }
    }
}
