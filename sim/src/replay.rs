//! Telling the core again what a trace says it was told, and comparing what it commands.

mod report;

use std::{
    collections::{BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use kinfolk_core::{
    Command, Time,
    trace::{Frame, Header, SegmentReason},
};
use serde_json::Value;

use crate::{
    check::{Grammar, Wrong},
    player::{Began, Fault, Mismatch, Player},
    trace::{Entry, Item, Problem, ReadError, Reader},
};

/// Events outside the grammar that are told one by one.
const MAX_UNGRAMMATICAL: usize = 8;

/// How to replay.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// How many inputs before and after the first difference are kept for showing.
    pub context: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { context: 3 }
    }
}

/// How a replay went. Shown as text for people by `Display`; as JSON by [`Report::to_json`].
#[derive(Debug)]
pub struct Report {
    /// The trace, as it was named.
    pub file: String,
    /// Segments that were replayed, the last one perhaps in part.
    pub segments: u64,
    /// Inputs that were replayed.
    pub inputs: u64,
    /// Commands that came out the same.
    pub commands: u64,
    /// Places where something is missing between two segments.
    pub gaps: u64,
    /// Inputs that the recorder says it lost there.
    pub lost: u64,
    /// Node time that the replayed segments span.
    pub node_time: Duration,
    /// How long the replay took, reading included.
    pub took: Duration,
    /// The core versions that recorded.
    pub recorded_by: BTreeSet<String>,
    /// Events that no sentence of the event grammar allows: faults of whoever recorded them.
    pub ungrammatical: u64,
    /// The first of them.
    pub first_ungrammatical: Vec<Ungrammatical>,
    /// The first difference; the replay ends there.
    pub difference: Option<Difference>,
    /// What could not be read: checkpoints that are of no use, and what ended the reading. Everything that stands
    /// before was replayed.
    pub problems: Vec<ReadError>,
}

/// An event that nothing before it allows ([`Grammar`]).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ungrammatical {
    /// The line of the frame.
    pub line: u64,
    /// Node time.
    pub t: Time,
    /// What is wrong with it.
    pub what: Wrong,
}

/// Where the core did not do again what the trace says.
#[derive(Clone, PartialEq, Debug)]
pub struct Difference {
    /// The line of the frame, or of the header whose checkpoint differs.
    pub line: u64,
    /// The segment's number.
    pub segment: u64,
    /// Which input of the whole trace, from 1 on; how many came before, when a checkpoint differs.
    pub input: u64,
    /// Node time.
    pub t: Time,
    /// What differs.
    pub what: What,
    /// The inputs before, with their lines.
    pub before: Vec<(u64, Frame)>,
    /// The inputs after, with their lines; as recorded.
    pub after: Vec<(u64, Frame)>,
}

/// What differs.
#[derive(Clone, PartialEq, Debug)]
pub enum What {
    /// The commands that followed an input.
    Commands {
        /// The input, and the commands as recorded.
        frame: Box<Frame>,
        /// The commands of the replay.
        got: Vec<Command>,
    },
    /// The core panicked at an input.
    Panicked {
        /// The input, and the commands as recorded.
        frame: Box<Frame>,
        /// The panic's words.
        message: String,
    },
    /// The replayed node is not the one of the checkpoint, although nothing is missing in between.
    State {
        /// Where in the checkpoint: `/peers/3/state`.
        at: String,
        /// What the checkpoint has there.
        expected: Option<Value>,
        /// What the replayed node has there.
        got: Option<Value>,
    },
}

/// Replays a trace up to its end, its first difference or its first error.
pub fn replay(reader: &mut Reader, options: Options) -> Report {
    let started = Instant::now();
    let mut run = Run {
        report: Report {
            file: reader.file().to_string(),
            segments: 0,
            inputs: 0,
            commands: 0,
            gaps: 0,
            lost: 0,
            node_time: Duration::ZERO,
            took: Duration::ZERO,
            recorded_by: BTreeSet::new(),
            ungrammatical: 0,
            first_ungrammatical: vec![],
            difference: None,
            problems: vec![],
        },
        player: Player::default(),
        grammar: Grammar::in_the_middle(),
        segment: 0,
        last: Time::ZERO,
        before: VecDeque::new(),
        options,
    };
    while let Some(item) = reader.next() {
        match item {
            Ok(item) => {
                if !run.take(reader, item) {
                    break;
                }
            }
            Err(error) => run.report.problems.push(error),
        }
    }
    if let Some(difference) = &mut run.report.difference {
        difference.after = following(reader, options.context);
    }
    run.report.took = started.elapsed();
    run.report
}

struct Run {
    report: Report,
    player: Player,
    grammar: Grammar,
    segment: u64,
    last: Time,
    before: VecDeque<(u64, Frame)>,
    options: Options,
}

impl Run {
    /// Takes in the next line. `false`: there is nothing to go on with.
    fn take(&mut self, reader: &Reader, item: Item) -> bool {
        match item.entry {
            Entry::Header(header) => self.begin(reader, item.line, &header),
            Entry::Frame(frame) => self.feed(item.line, frame),
        }
    }

    fn begin(&mut self, reader: &Reader, line: u64, header: &Header<Value>) -> bool {
        let continues = self.player.continues(header);
        let report = &mut self.report;
        report.recorded_by.insert(header.core.clone());
        if report.segments > 0 && !continues && header.reason != SegmentReason::Start {
            report.gaps += 1;
            report.lost = report.lost.saturating_add(header.lost);
        }
        self.segment = header.segment;
        if !continues {
            self.last = header.t;
            // A start says so itself.
            self.grammar = Grammar::in_the_middle();
        }
        match self.player.begin(header) {
            Began::Fresh | Began::Restored | Began::Continued(None) => {}
            Began::Continued(Some(Mismatch { at, expected, got })) => {
                let what = What::State { at, expected, got };
                self.report.difference = Some(self.difference(line, header.t, what));
                return false;
            }
            Began::Unusable { what, goes_on } => {
                let problem = Problem::BadCheckpoint { core: header.core.clone(), what };
                report.problems.push(reader.error_at(line, Some(header.segment), problem));
                if !goes_on {
                    return false;
                }
            }
        }
        self.report.segments += 1;
        true
    }

    fn feed(&mut self, line: u64, frame: Box<Frame>) -> bool {
        self.report.inputs += 1;
        self.report.node_time += frame.t.since(self.last);
        self.last = self.last.max(frame.t);
        let t = frame.t;
        if let Err(what) = self.grammar.event(&frame.r#in) {
            self.report.ungrammatical += 1;
            if self.report.first_ungrammatical.len() < MAX_UNGRAMMATICAL {
                self.report.first_ungrammatical.push(Ungrammatical { line, t, what });
            }
        }
        let what = match self.player.feed(&frame) {
            Ok(got) if got == frame.out => {
                frame.out.iter().for_each(|command| self.grammar.command(command));
                self.report.commands += frame.out.len() as u64;
                self.remember(line, *frame);
                return true;
            }
            Ok(got) => What::Commands { frame, got },
            Err(Fault::Panicked(message)) => What::Panicked { frame, message },
            Err(Fault::NoNode) => return false,
        };
        self.report.difference = Some(self.difference(line, t, what));
        false
    }

    fn remember(&mut self, line: u64, frame: Frame) {
        if self.options.context == 0 {
            return;
        }
        if self.before.len() == self.options.context {
            self.before.pop_front();
        }
        self.before.push_back((line, frame));
    }

    fn difference(&mut self, line: u64, t: Time, what: What) -> Difference {
        let before = std::mem::take(&mut self.before).into();
        Difference { line, segment: self.segment, input: self.report.inputs, t, what, before, after: vec![] }
    }
}

/// The next frames, for showing; what can't be read is not shown.
fn following(reader: &mut Reader, count: usize) -> Vec<(u64, Frame)> {
    let frames = reader.map_while(Result::ok).filter_map(|item| match item.entry {
        Entry::Header(_) => None,
        Entry::Frame(frame) => Some((item.line, *frame)),
    });
    frames.take(count).collect()
}
