//! A trace as a timeline that people can read.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Write},
};

use kinfolk_core::{
    Action, Command, CommandId, Event, HeldId, Origin, PeerId, Query, Time,
    trace::{Frame, Header, SegmentReason},
};
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use crate::{
    trace::{Entry, ReadError, Reader},
    words::{self, Utc},
};

/// Open dials and queries whose peer is remembered; a node has fewer.
const LINKS: usize = 4_096;

/// Which inputs are shown. All of them by default, but for wakes that nothing came of.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Filter {
    /// Only what is about this peer: the input with all its commands, or else the commands that are about it.
    pub peer: Option<PeerId>,
    /// Nothing before this node time.
    pub from: Option<Time>,
    /// Nothing after this node time.
    pub to: Option<Time>,
    /// Only these kinds of events, commands and notices (see [`words::EVENTS`] and its like).
    pub kinds: BTreeSet<String>,
}

/// Which way it is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// In words.
    Text,
    /// A JSON value a line, as documented in `docs/traces.md`.
    Json,
}

/// Shows a trace up to its end or first error, which is returned.
///
/// # Errors
/// When `out` takes no more.
pub fn show(
    reader: &mut Reader<IgnoredAny>,
    filter: &Filter,
    form: Form,
    out: &mut dyn Write,
) -> io::Result<Option<ReadError>> {
    let mut links = Links::default();
    let mut segment = None;
    // A segment's head is held back until something of the segment is shown.
    let mut head: Option<(u64, Header<IgnoredAny>, Option<u64>)> = None;
    for item in reader {
        let (line, entry) = match item {
            Ok(item) => (item.line, item.entry),
            Err(error) => return Ok(Some(error)),
        };
        match entry {
            Entry::Header(header) => {
                let before = segment.replace(header.segment);
                if header.reason == SegmentReason::Start {
                    links = Links::default();
                }
                if filter == &Filter::default() {
                    show_header(line, &header, before, form, out)?;
                } else {
                    head = Some((line, header, before));
                }
            }
            Entry::Frame(frame) => {
                let peers = links.peers(&frame);
                links.learn(&frame);
                let Some(commands) = filter.pick(&frame, &peers) else { continue };
                if let Some((line, header, before)) = head.take() {
                    show_header(line, &header, before, form, out)?;
                }
                let shown = Shown { line, segment: segment.unwrap_or_default(), frame: &frame, peers, commands };
                shown.write(form, out)?;
            }
        }
    }
    Ok(None)
}

impl Filter {
    /// The commands to be shown, or `None` when nothing of this frame is.
    #[expect(clippy::wildcard_enum_match_arm, reason = "only notices have a second kind")]
    pub(crate) fn pick<'a>(&self, frame: &'a Frame, peers: &[PeerId]) -> Option<Vec<&'a Command>> {
        if self.from.is_some_and(|from| frame.t < from) || self.to.is_some_and(|to| frame.t > to) {
            return None;
        }
        let by_peer = self.peer.is_none_or(|peer| peers.contains(&peer));
        if by_peer && self.has_kind(words::event_kind(&frame.r#in)) {
            let silent = frame.r#in.is_wake() && frame.out.is_empty() && self.kinds.is_empty();
            return (!silent).then(|| frame.out.iter().collect());
        }
        let commands: Vec<&Command> = frame
            .out
            .iter()
            .filter(|command| by_peer || self.peer.as_ref() == command.peer())
            .filter(|command| {
                let notice = match &command.action {
                    Action::Tell(notice) => Some(words::notice_kind(notice)),
                    _ => None,
                };
                self.has_kind(words::command_kind(&command.action)) || notice.is_some_and(|kind| self.has_kind(kind))
            })
            .collect();
        if commands.is_empty() { None } else { Some(commands) }
    }

    fn has_kind(&self, kind: &str) -> bool {
        self.kinds.is_empty() || self.kinds.contains(kind)
    }
}

/// Whom an answer is about that names only the number of a dial, of a held dial or of a query.
#[derive(Debug, Default)]
pub(crate) struct Links {
    commands: BTreeMap<CommandId, PeerId>,
    held: BTreeMap<HeldId, PeerId>,
}

impl Links {
    /// Whom a frame's input is about, by its own words or by what was said before.
    #[expect(clippy::wildcard_enum_match_arm, reason = "the others name their peer, or are about none")]
    pub(crate) fn peers(&self, frame: &Frame) -> Vec<PeerId> {
        let mut peers = words::peers(&frame.r#in);
        let linked = match &frame.r#in {
            Event::DialFailed { dial: command, .. }
            | Event::QueryEnded { query: command, .. }
            | Event::SignalFound { query: command, .. }
            | Event::SignalFailed { command, .. }
            | Event::Refused { command, .. } => self.commands.get(command),
            Event::HeldFailed { held, .. } => self.held.get(held),
            _ => None,
        };
        peers.extend(linked);
        peers
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "only these begin or end something that is answered by number")]
    pub(crate) fn learn(&mut self, frame: &Frame) {
        match &frame.r#in {
            Event::DialFailed { dial: command, .. }
            | Event::QueryEnded { query: command, .. }
            | Event::SignalFound { query: command, .. }
            | Event::SignalFailed { command, .. }
            | Event::Refused { command, .. }
            | Event::Connected { origin: Origin::Dial(command), .. } => drop(self.commands.remove(command)),
            Event::HeldFailed { held, .. } | Event::Connected { origin: Origin::Held(held), .. } => {
                self.held.remove(held);
            }
            Event::DialHeld { held, peer: Some(peer), .. } => keep(&mut self.held, *held, *peer),
            _ => {}
        }
        for command in &frame.out {
            let asked = matches!(
                &command.action,
                Action::Dial { .. } | Action::Query(Query::Record { .. }) | Action::SignalQuery { .. }
            );
            if let (true, Some(peer)) = (asked, command.peer()) {
                keep(&mut self.commands, command.id, *peer);
            }
        }
    }
}

fn keep<K: Ord>(map: &mut BTreeMap<K, PeerId>, key: K, peer: PeerId) {
    map.insert(key, peer);
    if map.len() > LINKS {
        map.pop_first();
    }
}

fn show_header(
    line: u64,
    header: &Header<IgnoredAny>,
    before: Option<u64>,
    form: Form,
    out: &mut dyn Write,
) -> io::Result<()> {
    let Header { segment, reason, core, node, t, unix_time, lost, .. } = header;
    if form == Form::Json {
        let value = json!({
            "type": "segment", "line": line, "segment": segment, "reason": reason, "core": core, "node": node, "t": t,
            "unix_time": unix_time, "lost": lost, "checkpoint": header.checkpoint.is_some(),
        });
        return writeln!(out, "{value}");
    }
    let why = match reason {
        SegmentReason::Start => "the node starts",
        SegmentReason::Rotation => "goes on",
        SegmentReason::Gap => "after a gap",
        SegmentReason::Asked => "recording is switched on",
    };
    let core = words::fit(core.clone());
    let blank = if line > 1 { "\n" } else { "" };
    writeln!(out, "{blank}== segment {segment}: {why} at {t} ({}), core {core}, node {node}", Utc(*unix_time))?;
    if *lost > 0 {
        writeln!(out, "== {lost} inputs are missing before it")?;
    }
    match before.and_then(|before| before.checked_add(1)) {
        Some(expected) if expected < *segment => writeln!(out, "== segments {expected} to {} are missing", segment - 1),
        Some(_) | None => Ok(()),
    }
}

/// An input with as much of what came of it as is to be seen.
struct Shown<'a> {
    line: u64,
    segment: u64,
    frame: &'a Frame,
    peers: Vec<PeerId>,
    commands: Vec<&'a Command>,
}

impl Shown<'_> {
    fn write(&self, form: Form, out: &mut dyn Write) -> io::Result<()> {
        let Self { line, segment, frame, peers, commands } = self;
        let text = words::event(&frame.r#in);
        if form == Form::Json {
            let commands: Vec<Value> = commands
                .iter()
                .map(|command| {
                    let kind = words::command_kind(&command.action);
                    json!({"kind": kind, "text": words::command(command), "command": command})
                })
                .collect();
            let value = json!({
                "type": "input", "line": line, "segment": segment, "t": frame.t, "kind": words::event_kind(&frame.r#in),
                "peers": peers, "text": text, "in": frame.r#in, "out": commands,
            });
            return writeln!(out, "{value}");
        }
        write!(out, "{:>12}  {text}", frame.t.to_string())?;
        if words::peers(&frame.r#in).is_empty()
            && let [peer] = peers.as_slice()
        {
            write!(out, " [{peer}]")?;
        }
        writeln!(out)?;
        for command in commands {
            writeln!(out, "{:>14}→ {}", "", words::command(command))?;
        }
        Ok(())
    }
}
