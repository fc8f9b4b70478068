//! Recording a node that lives in nothing but a script: for golden traces, tests and the simulator.

use std::{
    io::{self, Write},
    path::Path,
};

use kinfolk_core::{
    Command, Event, Node, Started, Time,
    trace::{Frame, Header, SegmentReason},
};

use crate::trace::{WriteError, Writer};

/// Wakes in a row that a rest takes at most; a node that wants more spins.
const MAX_WAKES: u32 = 1_000_000;

/// A node and the trace of everything that it was told. Kept in memory.
#[derive(Debug)]
pub struct Recording {
    node: Node,
    header: Header,
    now: Time,
    lines: Vec<Line>,
}

/// A line of the trace.
#[derive(Debug)]
enum Line {
    Header(Box<Header>),
    Frame(Frame),
}

/// A node that asks to be woken again and again at the same moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the node still wants to be woken after {MAX_WAKES} wakes, now at {at}")]
pub struct Spins {
    /// Where its time stands.
    pub at: Time,
}

impl Recording {
    /// Starts a node and its trace. Its first commands come with it.
    pub fn start(started: Started) -> (Self, Vec<Command>) {
        let header = Header::new(started.local, 1, SegmentReason::Start, Time::ZERO, started.unix_time);
        let lines = vec![Line::Header(Box::new(header.clone()))];
        let mut recording = Self { node: Node::new(), header, now: Time::ZERO, lines };
        let commands = recording.feed(Time::ZERO, Event::Started(Box::new(started)));
        (recording, commands)
    }

    /// A trace without anything in it yet, of a node that is about to be told this.
    pub(crate) fn empty(started: &Started) -> Self {
        let header = Header::new(started.local, 1, SegmentReason::Start, Time::ZERO, started.unix_time);
        let lines = vec![Line::Header(Box::new(header.clone()))];
        Self { node: Node::new(), header, now: Time::ZERO, lines }
    }

    /// Tells the node something, wakes included: its deadlines are somebody else's care.
    pub(crate) fn tell_only(&mut self, t: Time, event: Event) -> Vec<Command> {
        self.feed(t, event)
    }

    /// Tells the node something; it is woken before at each deadline that lies before `t`, as a shell would. What it
    /// commands is returned, that of the wakes included.
    ///
    /// # Errors
    /// When the node wants to be woken without end.
    pub fn tell(&mut self, t: Time, event: Event) -> Result<Vec<Command>, Spins> {
        let mut commands = self.rest_until(t)?;
        commands.extend(self.feed(t, event));
        Ok(commands)
    }

    /// Lets time pass up to `t`: wakes the node at its deadlines.
    ///
    /// # Errors
    /// When the node wants to be woken without end.
    pub fn rest_until(&mut self, t: Time) -> Result<Vec<Command>, Spins> {
        let mut commands = vec![];
        for _ in 0..MAX_WAKES {
            match self.node.next_deadline() {
                Some(deadline) if deadline.at <= t => {
                    commands.extend(self.feed(deadline.at, Event::Wake));
                }
                Some(_) | None => return Ok(commands),
            }
        }
        Err(Spins { at: self.now })
    }

    /// Begins a new segment with a checkpoint.
    pub fn segment(&mut self, reason: SegmentReason, lost: u64) {
        let passed = self.now.since(self.header.t).as_secs();
        let mut header = Header {
            segment: self.header.segment + 1,
            reason,
            t: self.now,
            unix_time: self.header.unix_time + passed,
            lost,
            ..self.header.clone()
        };
        self.header = header.clone();
        header.checkpoint = Some(Box::new(self.node.clone()));
        self.lines.push(Line::Header(Box::new(header)));
    }

    /// Its inputs with what came of each.
    pub fn frames(&self) -> impl Iterator<Item = &Frame> {
        self.lines.iter().filter_map(|line| match line {
            Line::Header(_) => None,
            Line::Frame(frame) => Some(frame),
        })
    }

    /// The node as it stands.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The trace so far, as text.
    ///
    /// # Errors
    /// When a checkpoint can't be written as JSON.
    pub fn text(&self) -> io::Result<Vec<u8>> {
        let mut text = vec![];
        for line in &self.lines {
            match line {
                Line::Header(header) => serde_json::to_writer(&mut text, header)?,
                Line::Frame(frame) => serde_json::to_writer(&mut text, frame)?,
            }
            text.write_all(b"\n")?;
        }
        Ok(text)
    }

    /// Writes the trace so far into a file.
    ///
    /// # Errors
    /// When it can't be written there.
    pub fn save(&self, file: &Path) -> Result<(), WriteError> {
        let mut writer = Writer::create(file)?;
        for line in &self.lines {
            match line {
                Line::Header(header) => writer.header(header)?,
                Line::Frame(frame) => writer.frame(frame)?,
            }
        }
        writer.finish()
    }

    fn feed(&mut self, t: Time, event: Event) -> Vec<Command> {
        self.now = self.now.max(t);
        // First the input: when it makes the node panic, it is in the trace all the same.
        self.lines.push(Line::Frame(Frame { t: self.now, r#in: event.clone(), out: vec![] }));
        self.node.handle(self.now, event);
        let commands: Vec<Command> = std::iter::from_fn(|| self.node.next_command()).collect();
        if let Some(Line::Frame(frame)) = self.lines.last_mut() {
            frame.out.clone_from(&commands);
        }
        commands
    }
}
