//! What a run comes to for people: when they met, how, and how long they were alone.

use kinfolk_core::{Action, Command, Health, Notice, Path as Way, PeerId, Transport};
use rustc_hash::FxHashMap;

use super::World;
use crate::engine::Moment;

/// What became of two nodes that belong together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pair {
    /// Who.
    pub nodes: (u32, u32),
    /// From when on both ran.
    pub since: Option<Moment>,
    /// So long after that the first connection stood.
    pub first: Option<u64>,
    /// So long after that a direct one stood.
    pub direct: Option<u64>,
    relayed: u64,
    relayed_since: Option<Moment>,
}

impl Pair {
    /// How long they were connected through relays only, in all, in nanoseconds.
    pub fn relayed(&self, now: Moment) -> u64 {
        self.relayed + self.relayed_since.map_or(0, |since| now - since)
    }
}

/// By which path two are connected.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Path {
    /// Directly, by QUIC.
    Quic = 0,
    /// Directly, by TCP.
    Tcp = 1,
    /// Through a relay.
    Relayed = 2,
}

#[derive(Debug, Default)]
pub(super) struct Outcome {
    pairs: Vec<Pair>,
    by_nodes: FxHashMap<(u32, u32), u32>,
    /// By node: since when it is isolated, and how long it was before that.
    isolated: Vec<(Option<Moment>, u64)>,
}

impl World {
    /// Two nodes belong together: what becomes of them is written down.
    pub fn follow(&mut self, a: u32, b: u32) {
        let nodes = (a.min(b), a.max(b));
        let at = self.outcome.pairs.len() as u32;
        if self.outcome.by_nodes.insert(nodes, at).is_none() {
            let pair = Pair { nodes, since: None, first: None, direct: None, relayed: 0, relayed_since: None };
            self.outcome.pairs.push(pair);
        }
    }

    /// What became of those that belong together.
    pub fn pairs(&self) -> &[Pair] {
        &self.outcome.pairs
    }

    /// Who is connected with whom now, as both see it, and by which paths.
    pub fn links(&self) -> impl Iterator<Item = (u32, u32, Path)> {
        self.conns.values().filter(|conn| conn.is_whole()).map(|conn| {
            let [a, b] = [conn.ends[0].node, conn.ends[1].node];
            let path = match (&conn.via, conn.transport) {
                (Some(_), _) => Path::Relayed,
                (None, Transport::Quic) => Path::Quic,
                (None, Transport::Tcp) => Path::Tcp,
            };
            (a.min(b), a.max(b), path)
        })
    }

    /// How long nodes knew of others and had no connection, in all, in nanoseconds.
    pub fn isolated(&self) -> u64 {
        let open = |since: Option<Moment>| since.map_or(0, |since| self.now - since);
        self.outcome.isolated.iter().map(|(since, before)| before + open(*since)).sum()
    }

    pub(super) fn note(&mut self, node: u32, command: &Command) {
        let Action::Tell(notice) = &command.action else { return };
        if let Notice::PeerConnected { peer, path, .. } | Notice::PathChanged { peer, to: path, .. } = notice {
            self.note_path(node, peer, Some(*path));
        } else if let Notice::PeerDisconnected { peer, .. } = notice {
            self.note_path(node, peer, None);
        } else if let Notice::Punched { attempt, .. } = notice {
            self.counts.holes += 1;
            self.counts.holes_at_first += u64::from(*attempt == 1);
        } else if let Notice::HealthChanged { health } = notice {
            self.note_health(node, *health);
        }
    }

    fn note_health(&mut self, node: u32, health: Health) {
        let now = self.now;
        let isolated = &mut self.outcome.isolated;
        if isolated.len() <= node as usize {
            isolated.resize(node as usize + 1, (None, 0));
        }
        let (since, before) = &mut isolated[node as usize];
        if let Some(since) = since.take() {
            *before += now - since;
        }
        *since = (health == Health::Isolated).then_some(now);
    }

    fn note_path(&mut self, node: u32, peer: &PeerId, path: Option<Way>) {
        let Some(other) = self.index(peer) else { return };
        let Some(at) = self.outcome.by_nodes.get(&(node.min(other), node.max(other))) else { return };
        let now = self.now;
        let pair = &mut self.outcome.pairs[*at as usize];
        let since = pair.since.unwrap_or(0);
        if let Some(before) = pair.relayed_since.take() {
            pair.relayed += now - before;
        }
        match path {
            None => {}
            Some(Way::Relayed { .. }) => {
                pair.first.get_or_insert(now - since);
                pair.relayed_since = Some(now);
            }
            Some(Way::Local { .. } | Way::Direct { .. }) => {
                pair.first.get_or_insert(now - since);
                pair.direct.get_or_insert(now - since);
            }
        }
    }

    /// A node runs now: pairs of which both run begin to wait for each other.
    pub(super) fn note_start(&mut self, node: u32) {
        if self.outcome.pairs.is_empty() {
            return;
        }
        let now = self.now;
        let machines = &self.machines;
        for pair in self.outcome.pairs.iter_mut().filter(|pair| pair.nodes.0 == node || pair.nodes.1 == node) {
            let both = machines[pair.nodes.0 as usize].on && machines[pair.nodes.1 as usize].on;
            if both {
                pair.since.get_or_insert(now);
            }
        }
    }
}
