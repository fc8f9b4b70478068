//! Logs: the store of a machine as heads without entries, and what the shell's `sync` says of them to other machines.
//!
//! Every program that keeps logs is honest: ranges are what they are said to be. What a core asks for is held against the
//! store: a range that would leave a gap is a finding.

use std::collections::BTreeMap;

use kinfolk_core::{
    Audience, CommandId, ConnectionId, EntryHash, Event, Head, LogHead, LogId, MAX_EPOCHS, SyncError, Told,
};
use rustc_hash::FxHasher;
use std::hash::{Hash, Hasher};

use super::{
    What, World,
    connections::{Body, MESSAGE},
    peer_id,
};
use crate::engine::{Key, MILLI, Moment};

/// Heads in one event, and entries in one answer.
const FRAME: usize = 64;
const ANSWER: u64 = 1_000;
/// Bytes of a head, and of an entry.
const HEAD: u64 = 90;
const ENTRY: u64 = 250;

/// How the programs of a scenario write.
#[derive(Clone, Copy, Debug)]
pub struct Writing {
    /// The mean time between two entries of a node, in nanoseconds.
    pub every: u64,
    /// None after this.
    pub until: Moment,
    /// How many entries at once.
    pub entries: u32,
}

/// What a machine's program keeps of logs.
#[derive(Debug, Default)]
pub(super) struct Logs {
    /// What survives a restart.
    heads: BTreeMap<LogId, Head>,
    /// How often that was lost: its own entries since then are of this epoch.
    epoch: u64,
    pub(super) with: Audience,
    /// Questions without an answer, and over which connection they went.
    asked: Vec<(CommandId, u64)>,
}

/// A question about logs.
pub(super) enum Question {
    Exchange(u64),
    Announce(Vec<LogHead>),
    Fetch { log: LogId, since: u64, limit: u32 },
}

/// And its answer.
pub(super) enum Reply {
    Same,
    Heads(Vec<LogHead>),
    Range { log: LogId, since: u64, upto: u64, more: bool },
    No(SyncError),
}

impl World {
    /// The programs keep logs, and write into them.
    pub fn keep_logs(&mut self, writing: Writing) {
        self.writing = Some(writing);
        for machine in &mut self.machines {
            machine.keeps_logs = true;
        }
    }

    /// What a machine's store says of logs.
    pub fn heads(&self, node: u32) -> &BTreeMap<LogId, Head> {
        &self.machines[node as usize].logs.heads
    }

    /// The program has started: its store says what it holds.
    pub(super) fn logs_started(&mut self, node: u32, at: Moment) {
        let Some(writing) = self.writing else { return };
        let heads = all_heads(&self.machines[node as usize].logs.heads);
        self.say_heads(at, node, &heads);
        let dice = &mut self.machines[node as usize].dice;
        let first = at + dice.below(writing.every.saturating_mul(2)) + 1;
        self.queue.push(first, node, What::Write(self.machines[node as usize].run));
    }

    fn say_heads(&mut self, at: Moment, node: u32, heads: &[LogHead]) {
        let frames: Vec<&[LogHead]> = if heads.is_empty() { vec![&[]] } else { heads.chunks(FRAME).collect() };
        let last = frames.len() - 1;
        for (number, frame) in frames.iter().enumerate() {
            self.say(at, node, Event::SyncHeads { heads: frame.to_vec(), last: number == last });
        }
    }

    /// The store can't follow, or can again.
    pub fn press_logs(&mut self, node: u32, busy: bool) {
        let machine = &self.machines[node as usize];
        if machine.on && machine.keeps_logs {
            self.say_now(node, Event::SyncPressure { busy });
        }
    }

    /// The program ends; what it has stored stays.
    pub(super) fn logs_stopped(&mut self, node: u32) {
        let logs = &mut self.machines[node as usize].logs;
        logs.asked.clear();
        logs.with = Audience::Nobody;
    }

    /// What was stored is lost; what is written from now on is a beginning anew.
    pub(super) fn logs_lost(&mut self, node: u32) {
        let logs = &mut self.machines[node as usize].logs;
        logs.heads.clear();
        logs.epoch += 1;
    }

    /// An author writes, if the program still is in this run.
    pub(super) fn write(&mut self, node: u32, run: u32) {
        let Some(writing) = self.writing else { return };
        let machine = &mut self.machines[node as usize];
        if !machine.on || machine.run != run || self.now >= writing.until {
            return;
        }
        let next = self.now + machine.dice.below(writing.every.saturating_mul(2)) + 1;
        self.queue.push(next, node, What::Write(run));
        if machine.asleep {
            return;
        }
        let log = LogId { author: machine.id, epoch: machine.logs.epoch };
        let head = head(&log, machine.logs.position(&log) + u64::from(writing.entries));
        machine.logs.set(log, head);
        self.counts.entries_written += u64::from(writing.entries);
        self.say(self.now + MILLI, node, Event::SyncHeads { heads: vec![LogHead { log, head }], last: true });
    }

    /// The core compares positions.
    pub(super) fn compare_logs(&mut self, node: u32, command: CommandId, connection: ConnectionId) {
        let question = Question::Exchange(digest(&self.machines[node as usize].logs.heads));
        self.ask_about_logs(node, command, connection, question);
    }

    /// The core asks another machine about logs.
    pub(super) fn ask_about_logs(
        &mut self,
        node: u32,
        command: CommandId,
        connection: ConnectionId,
        question: Question,
    ) {
        if let Question::Fetch { log, since, .. } = &question {
            let here = self.machines[node as usize].logs.position(log);
            if *since > here {
                let what = format!("a range of {log} from {since} on, with a store up to {here}");
                self.watch.find(self.now, Some(node), 6, what);
            }
        }
        let Some((key, side)) = self.machines[node as usize].conn(connection).and_then(|key| {
            let conn = self.conns.get(key)?;
            Some((key, conn.side_of(node)))
        }) else {
            return self.say_now(node, Event::SyncFailed { sync: command, error: SyncError::ConnectionLost });
        };
        self.machines[node as usize].logs.asked.push((command, connection.0));
        self.counts.log_questions += 1;
        let bytes = match &question {
            Question::Exchange(_) | Question::Fetch { .. } => 0,
            Question::Announce(heads) => heads.len() as u64 * HEAD,
        };
        self.carry_logs(key, bytes);
        self.send(key, side, Body::LogQuestion(command, question));
    }

    fn carry_logs(&mut self, conn: Key, bytes: u64) {
        // The message itself is counted where it is sent.
        self.carry(conn, bytes);
        self.counts.log_bytes += bytes + MESSAGE;
    }

    pub(super) fn cancel_sync(&mut self, node: u32, sync: CommandId) {
        self.machines[node as usize].logs.asked.retain(|(asked, _)| *asked != sync);
    }

    /// A connection has ended here: what was asked over it fails.
    pub(super) fn logs_on(&mut self, node: u32, connection: u64) {
        let asked = &mut self.machines[node as usize].logs.asked;
        let gone: Vec<CommandId> = asked.iter().filter(|(_, over)| *over == connection).map(|(id, _)| *id).collect();
        asked.retain(|(_, over)| *over != connection);
        for sync in gone {
            self.say_now(node, Event::SyncFailed { sync, error: SyncError::ConnectionLost });
        }
    }

    /// A question arrives at one end of a connection.
    pub(super) fn log_question(&mut self, conn: Key, to: u8, command: CommandId, question: Question) {
        let Some(known) = self.conns.get(conn) else { return };
        let (end, asker) = (&known.ends[usize::from(to)], known.ends[usize::from(1 - to)].node);
        let (node, connection) = (end.node, ConnectionId(end.number));
        let machine = &self.machines[node as usize];
        let allowed = match machine.logs.with {
            Audience::Nobody => false,
            Audience::Members => machine.members.contains(&asker),
            Audience::Anyone => true,
        };
        let heads = &machine.logs.heads;
        let (reply, told) = if !allowed {
            (Reply::No(SyncError::Denied), None)
        } else {
            match question {
                Question::Exchange(theirs) if theirs == digest(heads) => (Reply::Same, Some(Told::Same)),
                Question::Exchange(_) => (Reply::Heads(all_heads(heads)), Some(Told::Differs)),
                Question::Announce(theirs) => {
                    let ours = |theirs: &LogHead| LogHead {
                        log: theirs.log,
                        head: heads.get(&theirs.log).copied().unwrap_or_default(),
                    };
                    (Reply::Heads(theirs.iter().map(ours).collect()), Some(Told::Heads(theirs)))
                }
                Question::Fetch { log, since, limit } => {
                    let here = machine.logs.position(&log);
                    let upto = here.min(since.saturating_add(u64::from(limit).min(ANSWER)));
                    let reply = if here > since {
                        Reply::Range { log, since, upto, more: upto < here }
                    } else {
                        Reply::No(SyncError::NotThere)
                    };
                    (reply, None)
                }
            }
        };
        if let Some(told) = told {
            let peer = peer_id(asker);
            self.say_now(node, Event::SyncTold { peer, connection, sync: None, told, last: true });
        }
        let bytes = match &reply {
            Reply::Same | Reply::No(_) => 0,
            Reply::Heads(heads) => heads.len() as u64 * HEAD,
            Reply::Range { since, upto, .. } => (upto - since) * ENTRY,
        };
        self.carry_logs(conn, bytes);
        self.send(conn, to, Body::LogReply(command, reply));
    }

    /// An answer arrives.
    pub(super) fn log_reply(&mut self, conn: Key, to: u8, command: CommandId, reply: Reply) {
        let Some(known) = self.conns.get(conn) else { return };
        let (end, other) = (&known.ends[usize::from(to)], known.ends[usize::from(1 - to)].node);
        let (node, connection, peer) = (end.node, ConnectionId(end.number), peer_id(other));
        let asked = &mut self.machines[node as usize].logs.asked;
        let Some(at) = asked.iter().position(|(asked, _)| *asked == command) else { return };
        asked.remove(at);
        let sync = Some(command);
        match reply {
            Reply::Same => {
                self.say_now(node, Event::SyncTold { peer, connection, sync, told: Told::Same, last: true });
            }
            Reply::No(error) => self.say_now(node, Event::SyncFailed { sync: command, error }),
            Reply::Heads(heads) => {
                let frames: Vec<&[LogHead]> = if heads.is_empty() { vec![&[]] } else { heads.chunks(FRAME).collect() };
                let last = frames.len() - 1;
                for (number, frame) in frames.iter().enumerate() {
                    let (told, last) = (Told::Heads(frame.to_vec()), number == last);
                    self.say_now(node, Event::SyncTold { peer, connection, sync, told, last });
                }
            }
            Reply::Range { log, since, upto, more } => {
                let logs = &mut self.machines[node as usize].logs;
                let before = logs.position(&log);
                let new = if since <= before { upto.saturating_sub(before) } else { 0 };
                let now = head(&log, before + new);
                if new > 0 {
                    logs.set(log, now);
                }
                self.counts.entries_received += new;
                let entries = u32::try_from(new).unwrap_or(u32::MAX);
                let stored = Event::SyncFetched { fetch: command, log, head: now, entries, has_more: more };
                // On disk, after a while.
                self.say(self.now + 2 * MILLI, node, stored);
            }
        }
    }
}

impl Logs {
    fn position(&self, log: &LogId) -> u64 {
        self.heads.get(log).map_or(0, |head| head.position)
    }

    /// Of each author, the newest are exchanged.
    fn set(&mut self, log: LogId, head: Head) {
        self.heads.insert(log, head);
        let retired = self.heads.range(LogId::all_of(log.author)).rev().nth(MAX_EPOCHS).map(|(log, _)| *log);
        if let Some(retired) = retired {
            self.heads.remove(&retired);
        }
    }
}

fn all_heads(heads: &BTreeMap<LogId, Head>) -> Vec<LogHead> {
    heads.iter().map(|(log, head)| LogHead { log: *log, head: *head }).collect()
}

fn digest(heads: &BTreeMap<LogId, Head>) -> u64 {
    let mut hasher = FxHasher::default();
    heads.hash(&mut hasher);
    hasher.finish()
}

/// The head of an honest author's log.
fn head(log: &LogId, position: u64) -> Head {
    if position == 0 {
        return Head::default();
    }
    let mut hash = EntryHash::default();
    let author = super::peer_index(&log.author).unwrap_or(u32::MAX);
    hash.0[..4].copy_from_slice(&author.to_be_bytes());
    hash.0[8..16].copy_from_slice(&log.epoch.to_be_bytes());
    hash.0[16..24].copy_from_slice(&position.to_be_bytes());
    Head { position, hash }
}
