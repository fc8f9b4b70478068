use std::{
    fmt,
    fs::File,
    io::{self, Read},
    marker::PhantomData,
    ops::RangeInclusive,
    path::Path,
};

use kinfolk_core::trace::{FORMAT, Frame, Header};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use super::{
    Problem, ReadError,
    lines::{End, Lines, is_header},
};

/// The formats that can be read: today's, and as they come the two before it.
pub const FORMATS: RangeInclusive<u32> = 1..=FORMAT;

/// A trace, read line by line: [`Item`]s until the end or the first error, after which nothing more comes.
///
/// `C` is what checkpoints are read as: any JSON by default, `serde::de::IgnoredAny` where they are not needed (a
/// checkpoint of another core version can always be passed over). Memory is bounded by one line.
pub struct Reader<C = Value> {
    file: String,
    lines: Lines,
    line: u64,
    segment: Option<(u64, Format)>,
    done: bool,
    checkpoint: PhantomData<fn() -> C>,
}

/// A line of a trace and its place.
#[derive(Clone, PartialEq, Debug)]
pub struct Item<C = Value> {
    /// The line in the text, from 1 on.
    pub line: u64,
    /// What stands there.
    pub entry: Entry<C>,
}

/// What a line can be.
#[derive(Clone, PartialEq, Debug)]
pub enum Entry<C = Value> {
    /// A segment begins.
    Header(Header<C>),
    /// An input and what came of it; boxed, for it is large.
    Frame(Box<Frame>),
}

/// How the lines of a segment are to be read, picked by its header. A format that comes later gets its own arm in
/// [`Format::header`] and [`Format::frame`], which translate what they read into today's types.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Format {
    V1,
}

impl<C: DeserializeOwned> Reader<C> {
    /// Opens a file; `-` is the standard input.
    ///
    /// # Errors
    /// When it can't be opened, or its first bytes can't be read.
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        let name = path.display().to_string();
        if name == "-" {
            return Self::new("standard input", io::stdin());
        }
        let file = File::open(path).map_err(|error| ReadError::io(&name, error))?;
        Self::new(name, file)
    }

    /// Reads from anywhere. `file` is what errors call it.
    ///
    /// # Errors
    /// When the first bytes can't be read.
    pub fn new(file: impl Into<String>, source: impl Read + Send + 'static) -> Result<Self, ReadError> {
        let file = file.into();
        let lines = Lines::new(source).map_err(|error| ReadError::io(&file, error))?;
        Ok(Self { file, lines, line: 0, segment: None, done: false, checkpoint: PhantomData })
    }

    /// What errors call the file.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// An error at this place of this file, for what only a reader's user can find: a checkpoint that is of no use.
    pub fn error_at(&self, line: u64, segment: Option<u64>, problem: Problem) -> ReadError {
        ReadError { file: self.file.clone(), line, segment, problem }
    }

    fn read(&mut self) -> Result<Option<Entry<C>>, Problem> {
        loop {
            self.line += 1;
            let Some((line, end)) = self.lines.next()? else {
                self.line -= 1;
                return if self.line == 0 { Err(Problem::Empty) } else { Ok(None) };
            };
            if line.trim_ascii().is_empty() {
                continue;
            }
            let entry = if is_header(line) {
                version(line).map(|(format, header)| {
                    self.segment = Some((header.segment, format));
                    Entry::Header(header)
                })
            } else {
                match self.segment {
                    Some((_, format)) => format.frame(line).map(|frame| Entry::Frame(Box::new(frame))),
                    None => Err(json_or(line, || Problem::NoHeader)),
                }
            };
            return match entry {
                Ok(entry) => Ok(Some(entry)),
                Err(Problem::NotJson { .. }) if end == End::File && (self.line > 1 || is_header(line)) => {
                    Err(Problem::CutOff)
                }
                Err(problem) => Err(problem),
            };
        }
    }
}

impl<C: DeserializeOwned> Iterator for Reader<C> {
    type Item = Result<Item<C>, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        match self.read() {
            Ok(Some(entry)) => Some(Ok(Item { line: self.line, entry })),
            Ok(None) => {
                self.done = true;
                None
            }
            Err(problem) => {
                self.done = true;
                let segment = self.segment.map(|(number, _)| number);
                Some(Err(self.error_at(self.line, segment, problem)))
            }
        }
    }
}

impl<C> fmt::Debug for Reader<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("file", &self.file).field("line", &self.line).finish_non_exhaustive()
    }
}

impl Format {
    fn header<C: DeserializeOwned>(self, line: &[u8]) -> Result<Header<C>, Problem> {
        match self {
            Self::V1 => serde_json::from_slice(line).map_err(|error| Problem::BadHeader(words(&error))),
        }
    }

    fn frame(self, line: &[u8]) -> Result<Frame, Problem> {
        match self {
            Self::V1 => {
                serde_json::from_slice(line).map_err(|error| json_or(line, || Problem::BadFrame(words(&error))))
            }
        }
    }
}

fn version<C: DeserializeOwned>(line: &[u8]) -> Result<(Format, Header<C>), Problem> {
    #[derive(Deserialize)]
    struct Version {
        kinfolk_trace: u64,
    }
    let version: Version =
        serde_json::from_slice(line).map_err(|error| json_or(line, || Problem::BadHeader(words(&error))))?;
    let format = match version.kinfolk_trace {
        1 => Format::V1,
        other => return Err(Problem::UnknownFormat(other)),
    };
    Ok((format, format.header(line)?))
}

/// `NotJson` if the line is none, else what the caller makes of it.
fn json_or(line: &[u8], otherwise: impl FnOnce() -> Problem) -> Problem {
    match serde_json::from_slice::<serde::de::IgnoredAny>(line) {
        Ok(_) => otherwise(),
        Err(error) => {
            Problem::NotJson { column: u64::try_from(error.column()).unwrap_or_default(), what: words(&error) }
        }
    }
}

/// The parser's words without its line number, which is always 1 here, and without all the words that would be right.
fn words(error: &serde_json::Error) -> String {
    let mut text = error.to_string();
    for end in [" at line ", ", expected one of "] {
        if let Some(at) = text.rfind(end) {
            text.truncate(at);
        }
    }
    text
}
