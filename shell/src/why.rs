//! The bounded log of reasons: why the node did what it did, per peer.

use std::collections::{BTreeMap, VecDeque};

use kinfolk_core::{Command, PeerId, Time};

use crate::api::types::WhyEntry;

/// Entries kept per peer.
pub const PER_PEER: usize = 32;

/// Peers with entries; the one that was decided about longest ago goes.
pub const PEERS: usize = 1_024;

/// Entries kept of what is about no peer.
pub const GENERAL: usize = 256;

/// Why the node did what it did. At most about 8 MiB, when every peer's log is full.
#[derive(Debug, Default)]
pub struct Why {
    peers: BTreeMap<PeerId, Log>,
    /// Peers by the number of their last entry.
    oldest: BTreeMap<u64, PeerId>,
    general: VecDeque<Entry>,
    entries: u64,
}

#[derive(Debug, Default)]
struct Log {
    last: u64,
    entries: VecDeque<Entry>,
}

#[derive(Debug)]
struct Entry {
    at: Time,
    unix: u64,
    command: u64,
    action: Box<str>,
    because: Box<str>,
    times: u32,
}

impl Why {
    /// Takes note of a command.
    pub fn note(&mut self, at: Time, unix: u64, command: &Command) {
        let entry = Entry {
            at,
            unix,
            command: command.id.0,
            action: command.action.to_string().into(),
            because: command.reason.to_string().into(),
            times: 1,
        };
        let Some(peer) = command.peer() else { return push(&mut self.general, entry, GENERAL) };
        self.entries += 1;
        let log = self.peers.entry(*peer).or_default();
        self.oldest.remove(&log.last);
        log.last = self.entries;
        self.oldest.insert(log.last, *peer);
        push(&mut log.entries, entry, PER_PEER);
        if self.peers.len() > PEERS
            && let Some((_, peer)) = self.oldest.pop_first()
        {
            self.peers.remove(&peer);
        }
    }

    /// The last entries about a peer, or about none, oldest first.
    pub fn entries(&self, peer: Option<&PeerId>, now: Time) -> Vec<WhyEntry> {
        let entries = match peer {
            Some(peer) => self.peers.get(peer).map(|log| &log.entries),
            None => Some(&self.general),
        };
        let tell = |entry: &Entry| WhyEntry {
            ago_s: now.since(entry.at).as_secs(),
            at_unix: entry.unix,
            t: entry.at.as_nanos(),
            command: entry.command,
            action: entry.action.to_string(),
            because: entry.because.to_string(),
            times: entry.times,
        };
        entries.into_iter().flatten().map(tell).collect()
    }
}

fn push(log: &mut VecDeque<Entry>, entry: Entry, limit: usize) {
    if let Some(last) = log.back_mut()
        && last.action == entry.action
        && last.because == entry.because
    {
        let times = last.times.saturating_add(1);
        *last = Entry { times, ..entry };
        return;
    }
    if log.len() >= limit {
        log.pop_front();
    }
    log.push_back(entry);
}

#[cfg(test)]
mod tests {
    use kinfolk_core::{Action, CommandId, Reason};

    use super::*;

    fn peer(number: u32) -> PeerId {
        let mut bytes = vec![0x12, 0x20];
        bytes.extend(number.to_be_bytes());
        bytes.resize(34, 0);
        PeerId::from_bytes(&bytes).unwrap()
    }

    fn deny(id: u64, who: u32, attempt: u32) -> Command {
        Command { id: CommandId(id), action: Action::Deny { peer: peer(who) }, reason: Reason::Retry { attempt } }
    }

    #[test]
    fn a_peer_keeps_its_last_entries() {
        let mut why = Why::default();
        for id in 1..=100 {
            why.note(Time::from_secs(id), 1_000 + id, &deny(id, 7, id as u32));
        }
        let entries = why.entries(Some(&peer(7)), Time::from_secs(110));
        assert_eq!(entries.len(), PER_PEER);
        assert_eq!((entries[0].command, entries[31].command), (69, 100));
        assert_eq!(
            entries[31],
            WhyEntry {
                ago_s: 10,
                at_unix: 1_100,
                t: 100_000_000_000,
                command: 100,
                action: "turn it away".into(),
                because: "it is time for try 100".into(),
                times: 1
            }
        );
        assert_eq!(why.entries(None, Time::ZERO), []);
    }

    #[test]
    fn the_same_again_is_counted() {
        let mut why = Why::default();
        for id in 1..=5 {
            why.note(Time::from_secs(id), 0, &deny(id, 7, 1));
        }
        let entries = why.entries(Some(&peer(7)), Time::from_secs(5));
        assert_eq!(entries.iter().map(|entry| (entry.command, entry.times)).collect::<Vec<_>>(), [(5, 5)]);
    }

    #[test]
    fn the_peer_of_longest_ago_makes_room() {
        let mut why = Why::default();
        for who in 0..PEERS as u32 {
            why.note(Time::ZERO, 0, &deny(1, who, 1));
        }
        // Spoken of again, so peer 1 is now the oldest.
        why.note(Time::ZERO, 0, &deny(2, 0, 2));
        why.note(Time::ZERO, 0, &deny(3, 5_000, 1));
        let known = |who| !why.entries(Some(&peer(who)), Time::ZERO).is_empty();
        assert!(known(0) && !known(1) && known(2) && known(5_000));
        assert_eq!((why.peers.len(), why.oldest.len()), (PEERS, PEERS));
    }

    #[test]
    fn what_is_about_no_peer_is_kept_apart() {
        let mut why = Why::default();
        for port in 0..1_000 {
            let address = format!("/ip4/192.0.2.1/tcp/{port}").parse().unwrap();
            let command = Command { id: CommandId(1), action: Action::Listen { address }, reason: Reason::Settings };
            why.note(Time::ZERO, 0, &command);
        }
        assert_eq!(why.entries(None, Time::ZERO).len(), GENERAL);
    }
}
