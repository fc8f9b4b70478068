//! What is in a trace, counted.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use kinfolk_core::{
    Action, Event, Origin, PeerId, Time,
    trace::{Header, SegmentReason},
};
use serde::{Serialize, de::IgnoredAny};
use serde_json::{Value, json};

use crate::{
    trace::{Entry, ReadError, Reader},
    words::{self, Utc},
};

/// Distinct peers are counted up to here.
const MAX_PEERS: usize = 1_000_000;

/// What was counted. Shown as text by `Display`, as JSON by [`Stat::to_json`].
#[derive(Debug, Default)]
pub struct Stat {
    /// The trace, as it was named.
    pub file: String,
    /// Whose trace it is; more than one in a file that was put together by hand.
    pub nodes: BTreeSet<PeerId>,
    /// The core versions that recorded.
    pub cores: BTreeSet<String>,
    /// Segments by why they begin.
    pub segments: BTreeMap<&'static str, u64>,
    /// Places where something is missing between two segments, each with the segment after it.
    pub gaps: Vec<Gap>,
    /// Inputs.
    pub inputs: u64,
    /// Inputs by kind.
    pub events: BTreeMap<&'static str, u64>,
    /// Commands by kind.
    pub commands: BTreeMap<&'static str, u64>,
    /// Notices by kind.
    pub notices: BTreeMap<&'static str, u64>,
    /// What became of dials.
    pub dials: Dials,
    /// Distinct peers that inputs are about.
    pub peers: BTreeSet<PeerId>,
    /// Node time that the segments span, gaps not counted.
    pub node_time: Duration,
    /// The wall clock at the first moment that knows it, seconds since 1970.
    pub first: Option<u64>,
    /// The wall clock at the end: the last that was told, plus the node time since.
    pub last: Option<u64>,
    /// What ended the reading too early.
    pub problem: Option<ReadError>,
}

/// Something that is missing.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Gap {
    /// The line of the header after it.
    pub line: u64,
    /// The segment after it.
    pub segment: u64,
    /// Segments that are missing.
    pub segments: u64,
    /// Inputs that the recorder says it lost.
    pub lost: u64,
}

/// What became of dials.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Dials {
    /// Commanded by the core.
    pub commanded: u64,
    /// Of these, that led to a connection.
    pub connected: u64,
    /// Of these, that failed, by what ended them.
    pub failed: BTreeMap<&'static str, u64>,
    /// Wished by some behaviour and released.
    pub released: u64,
    /// Wished by some behaviour and refused.
    pub refused: u64,
    /// Connections from outside.
    pub inbound: u64,
}

/// Counts a trace up to its end or first error.
pub fn stat(reader: &mut Reader<IgnoredAny>) -> Stat {
    let mut stat = Stat { file: reader.file().to_string(), ..Stat::default() };
    let mut before: Option<Header<IgnoredAny>> = None;
    let (mut last, mut clock) = (Time::ZERO, None);
    for item in reader {
        let (line, entry) = match item {
            Ok(item) => (item.line, item.entry),
            Err(error) => {
                stat.problem = Some(error);
                break;
            }
        };
        match entry {
            Entry::Header(header) => {
                if stat.header(line, &header, before.as_ref()) {
                    last = header.t;
                }
                clock = Some((header.t, header.unix_time));
                stat.first = stat.first.or(Some(header.unix_time));
                before = Some(header);
            }
            Entry::Frame(frame) => {
                stat.node_time += frame.t.since(last);
                last = last.max(frame.t);
                if let Event::WallClock { unix_time, .. } = frame.r#in {
                    clock = Some((frame.t, unix_time));
                }
                stat.input(&frame.r#in);
                for command in &frame.out {
                    stat.command(&command.action);
                }
            }
        }
    }
    stat.last = clock.map(|(at, unix_time)| unix_time.saturating_add(last.since(at).as_secs()));
    stat
}

impl Stat {
    /// Whether node time begins anew here.
    fn header(&mut self, line: u64, header: &Header<IgnoredAny>, before: Option<&Header<IgnoredAny>>) -> bool {
        self.nodes.insert(header.node);
        self.cores.insert(header.core.clone());
        *self.segments.entry(header.reason.name()).or_default() += 1;
        let Some(before) = before else { return true };
        let segments = header.segment.saturating_sub(before.segment).saturating_sub(1);
        let missing = match header.reason {
            SegmentReason::Start => segments > 0,
            SegmentReason::Rotation => segments > 0 || header.lost > 0,
            SegmentReason::Gap | SegmentReason::Asked => true,
        };
        if missing {
            self.gaps.push(Gap { line, segment: header.segment, segments, lost: header.lost });
        }
        missing || header.reason == SegmentReason::Start
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "all are counted by kind, these once more")]
    fn input(&mut self, event: &Event) {
        self.inputs += 1;
        *self.events.entry(words::event_kind(event)).or_default() += 1;
        for peer in words::peers(event) {
            if self.peers.len() < MAX_PEERS {
                self.peers.insert(peer);
            }
        }
        match event {
            Event::DialFailed { error, .. } => {
                *self.dials.failed.entry(words::dial_error_kind(error)).or_default() += 1;
            }
            Event::Connected { origin: Origin::Dial(_), .. } => self.dials.connected += 1,
            Event::Connected { origin: Origin::Inbound, .. } => self.dials.inbound += 1,
            _ => {}
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "all are counted by kind, these once more")]
    fn command(&mut self, action: &Action) {
        *self.commands.entry(words::command_kind(action)).or_default() += 1;
        match action {
            Action::Dial { .. } => self.dials.commanded += 1,
            Action::Release { .. } => self.dials.released += 1,
            Action::Refuse { .. } => self.dials.refused += 1,
            Action::Tell(notice) => *self.notices.entry(words::notice_kind(notice)).or_default() += 1,
            _ => {}
        }
    }

    /// The counts as they are documented in `docs/traces.md`.
    pub fn to_json(&self) -> Value {
        json!({
            "file": self.file,
            "nodes": self.nodes,
            "cores": self.cores,
            "segments": self.segments,
            "gaps": self.gaps,
            "inputs": self.inputs,
            "events": self.events,
            "commands": self.commands,
            "notices": self.notices,
            "dials": self.dials,
            "peers": self.peers.len(),
            "node_seconds": self.node_time.as_secs_f64(),
            "first_unix_time": self.first,
            "last_unix_time": self.last,
            "error": self.problem.as_ref().map(|problem| json!(problem.to_json())),
        })
    }
}

impl fmt::Display for Stat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes: Vec<String> = self.nodes.iter().map(PeerId::to_string).collect();
        let cores: Vec<String> = self.cores.iter().cloned().map(words::fit).collect();
        writeln!(f, "{}: node {}, core {}", self.file, nodes.join(", "), cores.join(", "))?;
        if let (Some(first), Some(last)) = (self.first, self.last) {
            writeln!(f, "  {} to {}, {} of node time", Utc(first), Utc(last), words::span(self.node_time))?;
        }
        let segments: Vec<String> = self.segments.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        writeln!(f, "  segments: {} ({})", self.segments.values().sum::<u64>(), segments.join(", "))?;
        for gap in &self.gaps {
            let Gap { line, segment, segments, lost } = gap;
            writeln!(
                f,
                "  gap before segment {segment} (line {line}): {segments} segments missing, {lost} inputs lost"
            )?;
        }
        writeln!(f, "  peers: {}", self.peers.len())?;
        let Dials { commanded, connected, failed, released, refused, inbound } = &self.dials;
        let failures: u64 = failed.values().sum();
        let open = commanded.saturating_sub(connected + failures);
        writeln!(f, "  dials: {commanded}; {connected} connected, {failures} failed, {open} without an answer")?;
        table(f, "    ", failed)?;
        writeln!(
            f,
            "  dials of behaviours: {released} released, {refused} refused; connections from outside: {inbound}"
        )?;
        for (title, counts) in [("inputs", &self.events), ("commands", &self.commands), ("notices", &self.notices)] {
            writeln!(f, "\n  {title}: {}", counts.values().sum::<u64>())?;
            table(f, "    ", counts)?;
        }
        Ok(())
    }
}

fn table(f: &mut fmt::Formatter<'_>, indent: &str, counts: &BTreeMap<&'static str, u64>) -> fmt::Result {
    let mut rows: Vec<_> = counts.iter().collect();
    rows.sort_by_key(|(kind, count)| (std::cmp::Reverse(**count), **kind));
    for (kind, count) in rows {
        writeln!(f, "{indent}{count:>9}  {kind}")?;
    }
    Ok(())
}
