//! A replay's outcome, for people and for programs.

use std::fmt;

use kinfolk_core::{
    Command,
    trace::{CORE_VERSION, Frame},
};
use serde::Serialize;
use serde_json::{Value, json};

use super::{Difference, Report, Ungrammatical, What};
use crate::words;

/// Values of a state are shown up to this many characters.
const SHOWN: usize = 300;

impl Report {
    /// Whether everything was read and came out the same.
    pub fn is_equal(&self) -> bool {
        self.difference.is_none() && self.problems.is_empty()
    }

    /// Whether it was also what a node may be told.
    pub fn is_good(&self) -> bool {
        self.is_equal() && self.ungrammatical == 0
    }

    /// Whether another version of the core recorded, so that differences are to be expected.
    pub fn is_of_another_core(&self) -> bool {
        self.recorded_by.iter().any(|version| version != CORE_VERSION)
    }

    /// How much faster than the node's own time the replay was; `None` when it took no time.
    pub fn speed(&self) -> Option<u64> {
        let took = self.took.as_nanos();
        (took > 0).then(|| u64::try_from(self.node_time.as_nanos() / took).unwrap_or(u64::MAX))
    }

    /// The report as it is documented in `docs/traces.md`.
    pub fn to_json(&self) -> Value {
        json!({
            "file": self.file,
            "equal": self.difference.is_none(),
            "segments": self.segments,
            "inputs": self.inputs,
            "commands": self.commands,
            "gaps": self.gaps,
            "lost": self.lost,
            "node_seconds": self.node_time.as_secs_f64(),
            "took_seconds": self.took.as_secs_f64(),
            "speed": self.speed(),
            "recorded_by": self.recorded_by,
            "core": CORE_VERSION,
            "ungrammatical": self.ungrammatical,
            "first_ungrammatical": self.first_ungrammatical.iter().map(|Ungrammatical { line, t, what }| {
                json!({"line": line, "t": t, "what": what.0})
            }).collect::<Vec<_>>(),
            "difference": self.difference.as_ref().map(Difference::to_json),
            "problems": self.problems.iter().map(|problem| json!(problem.to_json())).collect::<Vec<_>>(),
        })
    }
}

impl Difference {
    fn to_json(&self) -> Value {
        let frames = |frames: &[(u64, Frame)]| -> Vec<Value> {
            frames.iter().map(|(line, frame)| json!({"line": line, "frame": frame})).collect()
        };
        let (kind, what) = match &self.what {
            What::Commands { frame, got } => ("commands", json!({"in": frame.r#in, "expected": frame.out, "got": got})),
            What::Panicked { frame, message } => {
                ("panic", json!({"in": frame.r#in, "expected": frame.out, "message": message}))
            }
            What::State { at, expected, got } => ("state", json!({"at": at, "expected": expected, "got": got})),
        };
        json!({
            "kind": kind,
            "line": self.line,
            "segment": self.segment,
            "input": self.input,
            "t": self.t,
            "what": what,
            "before": frames(&self.before),
            "after": frames(&self.after),
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, segments, inputs, commands, .. } = self;
        let (segments, inputs) =
            (words::count(*segments, "segment", "segments"), words::count(*inputs, "input", "inputs"));
        let commands = words::count(*commands, "command", "commands");
        match &self.difference {
            None if self.problems.is_empty() => write!(f, "{file}: replayed, all equal: ")?,
            None => write!(f, "{file}: all equal as far as it can be replayed: ")?,
            Some(_) => write!(f, "{file}: DIFFERS after ")?,
        }
        write!(f, "{segments}, {inputs}, {commands}, {}", words::span(self.node_time))?;
        write!(f, " of node time in {}", words::span(self.took))?;
        if let Some(speed) = self.speed().filter(|speed| *speed > 0) {
            write!(f, " ({speed} times real time)")?;
        }
        writeln!(f)?;
        if self.gaps > 0 {
            let (gaps, lost) = (words::count(self.gaps, "gap", "gaps"), words::count(self.lost, "input", "inputs"));
            writeln!(f, "  {gaps} between segments, {lost} lost")?;
        }
        if self.is_of_another_core() {
            let versions: Vec<String> = self.recorded_by.iter().cloned().map(words::fit).collect();
            writeln!(
                f,
                "  recorded by core {}, replayed by core {CORE_VERSION}: differences are to be expected",
                versions.join(" and ")
            )?;
        }
        if self.ungrammatical > 0 {
            let events = words::count(self.ungrammatical, "event", "events");
            writeln!(f, "  {events} that the event grammar does not allow, a fault of who recorded them:")?;
            for Ungrammatical { line, t, what } in &self.first_ungrammatical {
                writeln!(f, "{line:>7}  {:>12}  {what}", t.to_string())?;
            }
        }
        match &self.difference {
            Some(difference) => write!(f, "\n{difference}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, segment, input, t, .. } = self;
        match &self.what {
            What::Commands { .. } => {
                writeln!(f, "Input {input} (line {line}, segment {segment}, at {t}) is followed by other commands.")?;
            }
            What::Panicked { message, .. } => {
                writeln!(f, "The core panicked at input {input} (line {line}, segment {segment}, at {t}): {message}")?;
            }
            What::State { .. } => writeln!(
                f,
                "After input {input} the replayed node is not the one of the checkpoint (line {line}, segment {segment}, \
                 at {t})."
            )?,
        }
        if !self.before.is_empty() {
            writeln!(f, "\n  before:")?;
            frames(f, &self.before)?;
        }
        match &self.what {
            What::Commands { frame, got } => {
                writeln!(f, "\n  the input:\n{:>7}  {:>12}  {}", line, t.to_string(), words::event(&frame.r#in))?;
                writeln!(f, "  the commands, as recorded (-) and as replayed (+):")?;
                diff(f, &frame.out, got)?;
            }
            What::Panicked { frame, .. } => {
                writeln!(f, "\n  the input:\n{:>7}  {:>12}  {}", line, t.to_string(), words::event(&frame.r#in))?;
                writeln!(f, "  the commands, as recorded:")?;
                diff(f, &frame.out, &frame.out)?;
            }
            What::State { at, expected, got } => {
                let at = words::fit(at.clone());
                writeln!(f, "\n  the first place that differs, as recorded (-) and as replayed (+): {at}")?;
                state(f, '-', expected.as_ref())?;
                state(f, '+', got.as_ref())?;
            }
        }
        if !self.after.is_empty() {
            writeln!(f, "\n  after, as recorded:")?;
            frames(f, &self.after)?;
        }
        Ok(())
    }
}

fn frames(f: &mut fmt::Formatter<'_>, frames: &[(u64, Frame)]) -> fmt::Result {
    for (line, frame) in frames {
        writeln!(f, "{:>7}  {:>12}  {}", line, frame.t.to_string(), words::event(&frame.r#in))?;
        for command in &frame.out {
            writeln!(f, "{:>23}→ {}", "", words::command(command))?;
        }
    }
    Ok(())
}

/// What both have in common at the beginning and at the end, and between these what either has.
fn diff(f: &mut fmt::Formatter<'_>, expected: &[Command], got: &[Command]) -> fmt::Result {
    let head = expected.iter().zip(got).take_while(|(a, b)| a == b).count();
    let (rest, other) = (&expected[head..], &got[head..]);
    let tail = rest.iter().rev().zip(other.iter().rev()).take_while(|(a, b)| a == b).count();
    for command in &expected[..head] {
        command_line(f, ' ', command)?;
    }
    for command in &rest[..rest.len() - tail] {
        command_line(f, '-', command)?;
    }
    for command in &other[..other.len() - tail] {
        command_line(f, '+', command)?;
    }
    for command in &rest[rest.len() - tail..] {
        command_line(f, ' ', command)?;
    }
    if expected.is_empty() && got.is_empty() { writeln!(f, "      none") } else { Ok(()) }
}

/// In words, and below that to the last detail: words may hide what differs.
fn command_line(f: &mut fmt::Formatter<'_>, sign: char, command: &Command) -> fmt::Result {
    writeln!(f, "    {sign} {}", words::command(command))?;
    if sign == ' ' { Ok(()) } else { writeln!(f, "    {sign}   {}", text(command)) }
}

fn state(f: &mut fmt::Formatter<'_>, sign: char, value: Option<&Value>) -> fmt::Result {
    let mut shown = value.map_or_else(|| "nothing".to_string(), text);
    if let Some((end, _)) = shown.char_indices().nth(SHOWN) {
        shown.truncate(end);
        shown.push('…');
    }
    writeln!(f, "    {sign} {shown}")
}

fn text(value: &impl Serialize) -> String {
    words::fit(serde_json::to_string(value).unwrap_or_else(|error| format!("(can't be written as JSON: {error})")))
}
