//! Signal servers: what the shell's client asks them, and what they keep.
//!
//! A question is an HTTPS request: a name that is looked up, a round trip each for TCP and TLS, and the request itself,
//! each through the NATs on the way and each tried again while nothing comes back. A server keeps signed records; so one
//! that lies can withhold them, tell old ones, and tell of addresses in its own name, but not make a peer say anything.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use kinfolk_core::{
    Action, Address, Command, CommandId, Event, PeerId, SignalBacking, SignalError, SignalPeer, SignalServices,
};

use super::{What, World, machine::HIGHEST_NUMBER, malice::invented, nanos, peer_id};
use crate::{
    engine::{Dice, Key, MILLI, Moment, Purpose, SECOND},
    internet::{HostId, Protocol},
};

/// A signal server on a host of its own.
#[derive(Debug)]
pub(super) struct Doorway {
    url: String,
    name: String,
    host: HostId,
    records: BTreeMap<u32, Record>,
    /// The first record that it was ever given by each peer: what it tells when it lies.
    first: BTreeMap<u32, Record>,
    troubles: [u32; 4],
    dice: Dice,
}

/// What is wrong with a signal server. Several troubles of one kind may overlap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trouble {
    /// Its program does not run: its machine refuses connections.
    Down = 0,
    /// Its machine has no power.
    Dark = 1,
    /// It takes long to answer, often longer than anybody waits.
    Slow = 2,
    /// It tells old records and invented addresses, and takes no new records.
    Lying = 3,
}

#[derive(Clone, Debug)]
struct Record {
    seq: u64,
    addresses: Vec<Address>,
    services: SignalServices,
    until: Moment,
}

/// A question under way.
pub(super) struct Question {
    node: u32,
    command: CommandId,
    doorway: usize,
    errand: Errand,
    port: u16,
    began: Moment,
    stage: Stage,
}

enum Errand {
    Query { peer: Option<PeerId>, limit: u32 },
    Publish(Publish),
}

struct Publish {
    seq: u64,
    addresses: Vec<Address>,
    services: SignalServices,
    lifetime: Duration,
}

enum Stage {
    /// The name is looked up; then TCP.
    Connecting,
    /// TLS.
    Securing,
    /// The request leaves.
    Asking,
    /// The request is there.
    Serving,
    /// The answer leaves.
    Answering(Result<Event, SignalError>),
    /// The answer, or what is to be said instead of it, is there.
    Done(Event),
}

/// The shell's `PATIENCE` for a question, and `CONNECT` for its connection.
const PATIENCE: u64 = 15 * SECOND;
const CONNECT: u64 = 4 * SECOND;
/// A name server's answer, and how long the shell waits for one.
const LOOKUP: u64 = 30 * MILLI;
const NO_LOOKUP: u64 = 10 * SECOND;
/// When a lost packet is sent again (RFC 6298).
const AGAIN: u64 = SECOND;
const HTTPS: u16 = 443;
/// The shell's `MAX_PEERS`, and the doorway's longest lifetime.
const MAX_PEERS: usize = 32;
const LIFETIME: Duration = Duration::from_secs(7_200);
/// The number of a record that is over is remembered for a day.
const REMEMBERED: u64 = 86_400 * SECOND;
/// A slow server takes up to this long.
const SLOWEST: u64 = 30 * SECOND;

impl World {
    /// A signal server, at `https://NAME/signal`, on a host without a machine. Its number.
    pub fn add_doorway(&mut self, host: HostId, name: &str) -> usize {
        let dice = Dice::new(self.seed, host, Purpose::Program);
        self.doorways.push(Doorway {
            url: format!("https://{name}/signal"),
            name: name.to_owned(),
            host,
            records: BTreeMap::new(),
            first: BTreeMap::new(),
            troubles: [0; 4],
            dice,
        });
        self.doorways.len() - 1
    }

    /// A trouble of a signal server begins, or ends.
    pub fn trouble(&mut self, doorway: usize, trouble: Trouble, begins: bool) {
        let known = &mut self.doorways[doorway];
        let count = &mut known.troubles[trouble as usize];
        *count = if begins { *count + 1 } else { count.saturating_sub(1) };
        let dark = known.has(Trouble::Dark);
        self.net.set_plugged(known.host, !dark);
    }

    /// A signal server loses all its records.
    pub fn empty_doorway(&mut self, doorway: usize) {
        self.doorways[doorway].records.clear();
    }

    /// Whether a signal server answers, honestly and in time.
    pub fn is_honest(&self, doorway: usize) -> bool {
        self.doorways[doorway].troubles == [0; 4]
    }

    /// The core asks or tells a signal server.
    pub(super) fn signal(&mut self, node: u32, command: &Command) {
        let id = command.id;
        let (url, errand) = if let Action::SignalQuery { server, peer, limit } = &command.action {
            (server, Errand::Query { peer: *peer, limit: *limit })
        } else if let Action::SignalPublish { server, addresses, services, lifetime } = &command.action {
            let machine = &mut self.machines[node as usize];
            let seq = machine.next_record_number(machine.unix_time(self.now, self.unix_time));
            let (addresses, services, lifetime) = (addresses.clone(), *services, *lifetime);
            (server, Errand::Publish(Publish { seq, addresses, services, lifetime }))
        } else {
            return;
        };
        let port = self.machines[node as usize].free_port();
        let doorway = self.doorways.iter().position(|known| known.url == *url);
        let known = doorway.map(|at| &self.doorways[at].name);
        let (wait, error) = match known.and_then(|name| self.net.resolve(name)) {
            Some([_, ..]) => (LOOKUP, None),
            Some([]) => (LOOKUP, Some("there is no such name")),
            None if known.is_none() => (LOOKUP, Some("there is no such name")),
            None => (NO_LOOKUP, Some("the name can't be looked up")),
        };
        let stage = error.map_or(Stage::Connecting, |error| Stage::Done(failed(id, error)));
        let (doorway, began) = (doorway.unwrap_or(0), self.now);
        let key = self.questions.insert(Question { node, command: id, doorway, errand, port, began, stage });
        self.machines[node as usize].questions.push(key);
        self.counts.signal_questions += 1;
        self.queue.push(self.now + wait, node, What::Question(key));
    }

    /// The core no longer waits for an answer.
    pub(super) fn cancel_signal(&mut self, node: u32, command: CommandId) {
        let keys = &self.machines[node as usize].questions;
        let of = |key: &Key| self.questions.get(*key).is_some_and(|question| question.command == command);
        if let Some(key) = keys.iter().copied().find(of) {
            self.end_question(key);
        }
    }

    fn end_question(&mut self, key: Key) -> Option<Question> {
        let question = self.questions.remove(key)?;
        self.machines[question.node as usize].questions.retain(|other| *other != key);
        Some(question)
    }

    /// A question goes its next step.
    pub(super) fn question_due(&mut self, key: Key) {
        let Some(question) = self.questions.get(key) else { return };
        let (node, command, at) = (question.node, question.command, question.doorway);
        let waited = self.now - question.began;
        if let Stage::Done(_) = question.stage {
            if let Some(Question { stage: Stage::Done(event), .. }) = self.end_question(key) {
                self.tell(node, event);
            }
            return;
        }
        let connecting = matches!(question.stage, Stage::Connecting);
        if waited >= PATIENCE || (connecting && waited >= CONNECT) {
            return self.say_of_question(key, failed(command, "no answer in time"), 0);
        }
        let (port, here) = (question.port, matches!(question.stage, Stage::Connecting | Stage::Securing));
        let Some((there, back)) = self.way_to_doorway(node, at, port) else {
            return self.queue.push(self.now + AGAIN, node, What::Question(key));
        };
        let refuses = self.doorways[at].has(Trouble::Down);
        if refuses {
            return self.say_of_question(key, failed(command, "connection refused"), there + back);
        }
        let slow = self.doorways[at].has(Trouble::Slow);
        let Some(question) = self.questions.get_mut(key) else { return };
        let mut wait = if here { there + back } else { there };
        let stage = std::mem::replace(&mut question.stage, Stage::Asking);
        question.stage = match stage {
            Stage::Connecting => Stage::Securing,
            Stage::Securing => Stage::Asking,
            Stage::Asking => Stage::Serving,
            Stage::Serving => {
                let errand = std::mem::replace(&mut question.errand, Errand::Query { peer: None, limit: 0 });
                let answer = self.serve(at, node, command, errand);
                wait = 2 * MILLI + if slow { self.doorways[at].dice.below(SLOWEST) } else { 0 };
                let Some(question) = self.questions.get_mut(key) else { return };
                question.stage = Stage::Answering(answer);
                return self.queue.push(self.now + wait, node, What::Question(key));
            }
            Stage::Answering(answer) => {
                wait = back;
                Stage::Done(answer.unwrap_or_else(|error| Event::SignalFailed { command, error }))
            }
            Stage::Done(event) => Stage::Done(event),
        };
        self.queue.push(self.now + wait, node, What::Question(key));
    }

    fn say_of_question(&mut self, key: Key, event: Event, wait: u64) {
        let Some(question) = self.questions.get_mut(key) else { return };
        question.stage = Stage::Done(event);
        let node = question.node;
        self.queue.push(self.now + wait, node, What::Question(key));
    }

    /// How long it takes to a signal server and back now. `None`: nothing comes back.
    fn way_to_doorway(&mut self, node: u32, doorway: usize, port: u16) -> Option<(u64, u64)> {
        let host = self.doorways[doorway].host;
        let to = SocketAddr::new(self.net.host(host).v4?.into(), HTTPS);
        let there = self.net.depart(self.now, node, Protocol::Tcp, port, to).ok()?;
        let arrived = self.net.arrive(self.now + there.delay, &there).ok()?;
        let back = self.net.depart(self.now, host, Protocol::Tcp, HTTPS, there.from).ok()?;
        let returned = self.net.arrive(self.now + there.delay + back.delay, &back).ok()?;
        if arrived.host != host || returned.host != node {
            return None;
        }
        self.counts.bytes += 1_000;
        let dice = &mut self.machines[node as usize].dice;
        let late = self.net.luck(self.now, &there, dice)?;
        let later = self.net.luck(self.now, &back, dice)?;
        Some((there.delay + late, back.delay + later))
    }

    /// What a signal server makes of a request.
    fn serve(&mut self, at: usize, node: u32, command: CommandId, errand: Errand) -> Result<Event, SignalError> {
        let (now, machines) = (self.now, self.machines.len() as u64);
        let doorway = &mut self.doorways[at];
        let backing = Some(SignalBacking::Sqlite);
        match errand {
            Errand::Query { peer, limit } => {
                let limit = (limit as usize).min(MAX_PEERS);
                let wanted = peer.map(|peer| super::peer_index(&peer).unwrap_or(super::NOBODY));
                let peers = if doorway.has(Trouble::Lying) {
                    doorway.lies(wanted, limit, now, machines)
                } else {
                    doorway.sample(wanted, limit, now)
                };
                Ok(Event::SignalFound { query: command, peers, cut: 0, backing })
            }
            Errand::Publish(publish) if doorway.has(Trouble::Lying) => {
                // Numbers that nobody can have used are not believed.
                if doorway.dice.happens(500_000) {
                    return Err(SignalError::Failed("it makes up numbers".to_owned()));
                }
                let seq = (publish.seq + 1 + doorway.dice.below(1_000_000)).min(HIGHEST_NUMBER);
                let machine = &mut self.machines[node as usize];
                machine.record_number = machine.record_number.max(seq);
                Err(SignalError::Stale { seq })
            }
            Errand::Publish(Publish { seq, addresses, services, lifetime }) => {
                if let Some(known) = doorway.records.get(&node).filter(|known| known.seq > seq) {
                    let seq = known.seq;
                    let machine = &mut self.machines[node as usize];
                    machine.record_number = machine.record_number.max(seq);
                    return Err(SignalError::Stale { seq });
                }
                let expires_in = lifetime.min(LIFETIME);
                let record = Record { seq, addresses, services, until: now + nanos(expires_in) };
                doorway.first.entry(node).or_insert_with(|| record.clone());
                doorway.records.insert(node, record);
                doorway.records.retain(|_, record| record.until + REMEMBERED > now);
                Ok(Event::SignalPublished { publish: command, expires_in, backing })
            }
        }
    }

    /// What a node has asked dies with its program.
    pub(super) fn forget_questions(&mut self, node: u32) {
        for key in std::mem::take(&mut self.machines[node as usize].questions) {
            self.questions.remove(key);
        }
    }
}

impl Doorway {
    const fn has(&self, trouble: Trouble) -> bool {
        self.troubles[trouble as usize] > 0
    }

    /// One record, or a fair sample, of which a quarter goes to those who help others first.
    fn sample(&mut self, wanted: Option<u32>, limit: usize, now: Moment) -> Vec<SignalPeer> {
        let live = self.records.iter().filter(|(_, record)| record.until > now);
        if let Some(wanted) = wanted {
            let mut found = live.filter(|(node, _)| **node == wanted);
            return found.next().map(|(node, record)| record.told(*node)).into_iter().collect();
        }
        let mut all: Vec<u32> = live.map(|(node, _)| *node).collect();
        for at in (1..all.len()).rev() {
            all.swap(at, self.dice.below(at as u64 + 1) as usize);
        }
        let helps = |node: &u32| {
            self.records.get(node).is_some_and(|record| record.services.relay || record.services.bootstrap)
        };
        let mut chosen: Vec<u32> = all.iter().copied().filter(helps).take(limit.div_ceil(4)).collect();
        let others: Vec<u32> = all.into_iter().filter(|node| !chosen.contains(node)).collect();
        chosen.extend(others.into_iter().take(limit - chosen.len()));
        chosen.iter().filter_map(|node| Some(self.records.get(node)?.told(*node))).collect()
    }

    /// The oldest records that it has, and addresses in its own name.
    fn lies(&mut self, wanted: Option<u32>, limit: usize, now: Moment, machines: u64) -> Vec<SignalPeer> {
        let old = self.first.iter().filter(|(node, _)| wanted.is_none_or(|wanted| wanted == **node));
        let mut told: Vec<SignalPeer> = old.take(limit / 2).map(|(node, record)| record.told(*node)).collect();
        let mut made_up = Dice::new(now, self.host, Purpose::Malice);
        while told.len() < limit {
            let node = wanted.unwrap_or_else(|| self.dice.below(machines) as u32);
            let addresses = (0..4).map(|_| invented(&mut made_up)).collect();
            let services = SignalServices { relay: true, bootstrap: true };
            told.push(SignalPeer { peer: peer_id(node), seq: None, addresses, services });
        }
        told
    }
}

impl Record {
    fn told(&self, node: u32) -> SignalPeer {
        let (addresses, services) = (self.addresses.clone(), self.services);
        SignalPeer { peer: peer_id(node), seq: Some(self.seq), addresses, services }
    }
}

fn failed(command: CommandId, why: &str) -> Event {
    Event::SignalFailed { command, error: SignalError::Failed(why.to_owned()) }
}
