//! What partners say of their logs, held against what is here.

use alloc::vec::Vec;

use super::{Log, LogSync, Partner};
use crate::{
    cx::Cx,
    jitter::{self, Purpose},
    vocabulary::{Head, LogHead, LogId, MAX_EPOCHS, Notice, PeerId, Reason, SyncError, Time, Told},
};

/// How far a partner says that a log goes there.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct Claim {
    pub(super) position: u64,
    /// When it was last raised.
    pub(super) raised: Time,
    /// In which exchange it was last told of.
    pub(super) round: u32,
    /// How far we have said that the log goes here.
    pub(super) announced: u64,
    /// We fetched from it, and it may know that the entries are here.
    pub(super) owed: bool,
    /// Its entry is said to be another one than ours with the same number.
    pub(super) suspect: bool,
    /// It has another branch.
    pub(super) forked: bool,
}

impl Claim {
    /// Whether entries may be had from it that go beyond `here`, or one that is to be compared.
    pub(super) const fn is_wanted(&self, here: u64) -> bool {
        !self.forked && (self.position > here || self.suspect)
    }

    /// Whether it is to be told that the log goes to `here`.
    pub(super) fn is_behind(&self, here: u64) -> bool {
        let news = here > self.position.max(self.announced);
        let reports = self.owed && here >= self.position;
        here > 0 && !self.forked && (news || reports)
    }

    /// Entries that lie between it and `here`: those missing here, and those missing there.
    pub(super) const fn lag(&self, here: u64) -> (u64, u64) {
        if self.forked {
            return (0, 0);
        }
        (self.position.saturating_sub(here), here.saturating_sub(self.position))
    }
}

impl LogSync {
    /// A log goes so far here now.
    pub(super) fn grown(&mut self, cx: &Cx<'_>, log: LogId, head: Head) {
        if head.position == 0 && !self.logs.contains_key(&log) {
            return;
        }
        // What the store holds is never left out, however much that is.
        self.logs.entry(log).or_default().head = head;
        self.stirred = true;
        for partner in self.partners.values_mut() {
            if let Some(claim) = partner.claims.get_mut(&log) {
                claim.suspect &= claim.position == head.position;
            }
            let behind = partner.claims.get(&log).map_or(head.position > 0, |claim| claim.is_behind(head.position));
            if behind {
                partner.announce_at = partner.announce_at.min(cx.now + delay(cx, partner, log.author == cx.local));
            }
        }
        if let Some(oldest) = self.oldest_held(&log.author) {
            let retired: Vec<LogId> =
                self.logs_of(&log.author).map(|(log, _)| *log).filter(|log| *log < oldest).collect();
            self.drop_logs(&retired);
        }
    }

    fn logs_of(&self, author: &PeerId) -> impl DoubleEndedIterator<Item = (&LogId, &Log)> {
        self.logs.range(LogId::all_of(*author))
    }

    /// The oldest log of an author that is exchanged, once as many as are exchanged at most are held here. What somebody
    /// only claims to have pushes none out.
    fn oldest_held(&self, author: &PeerId) -> Option<LogId> {
        let held = self.logs_of(author).rev().filter(|(_, known)| known.head.position > 0);
        held.map(|(log, _)| *log).nth(MAX_EPOCHS - 1)
    }

    fn drop_logs(&mut self, logs: &[LogId]) {
        for log in logs {
            self.logs.remove(log);
            self.wanted.remove(log);
            for partner in self.partners.values_mut() {
                partner.claims.remove(log);
            }
        }
    }

    /// A partner says how far logs go there; `begun` is when we asked for all of them.
    pub(super) fn take(&mut self, cx: &Cx<'_>, peer: &PeerId, told: &Told, begun: Option<Time>) {
        let Some(partner) = self.partners.get_mut(peer) else { return };
        match told {
            Told::Same => {
                partner.claims.retain(|log, _| self.logs.contains_key(log));
                for (log, known) in &self.logs {
                    let claim = partner.claims.entry(*log).or_default();
                    claim.position = known.head.position;
                    claim.round = partner.round;
                    claim.suspect = false;
                    claim.owed = false;
                }
            }
            Told::Differs => {}
            Told::Heads(heads) => {
                for head in heads {
                    self.take_one(cx, peer, head, begun);
                }
            }
        }
    }

    fn take_one(&mut self, cx: &Cx<'_>, peer: &PeerId, LogHead { log, head }: &LogHead, begun: Option<Time>) {
        let retired = self.oldest_held(&log.author).is_some_and(|oldest| *log < oldest);
        let Some(partner) = self.partners.get_mut(peer) else { return };
        if !self.logs.contains_key(log) {
            if head.position == 0 || retired {
                return;
            }
            let max = cx.config.sync.max_logs as usize;
            let only_claimed = |log: &LogId| self.logs.get(log).is_some_and(|known| known.head.position == 0);
            let claimed = partner.claims.keys().filter(|log| only_claimed(log)).count();
            if self.logs.len() >= max || claimed >= max / 4 {
                self.ignored = self.ignored.saturating_add(1);
                return;
            }
            self.logs.insert(*log, Log::default());
        }
        let Some(known) = self.logs.get(log) else { return };
        let claim = partner.claims.entry(*log).or_default();
        claim.round = partner.round;
        let before = claim.position;
        if head.position > before {
            claim.position = head.position;
            claim.raised = cx.now;
        } else if begun.is_some_and(|begun| claim.raised < begun) {
            // Said after all else that it has said: what was said in between may have overtaken the answer.
            claim.position = head.position;
            if head.position < before {
                partner.last_error = Some(SyncError::WentBack);
            }
        }
        let ours = &known.head;
        let same_place = head.position == ours.position && head.position > 0;
        claim.suspect = same_place && head.hash != ours.hash && !claim.forked;
        if claim.is_wanted(ours.position) {
            self.wanted.insert(*log);
        }
    }

    /// The answer to an exchange is whole: what it did not name, the partner does not have.
    pub(super) fn close_round(&mut self, peer: &PeerId, begun: Time) {
        let Some(partner) = self.partners.get_mut(peer) else { return };
        let round = partner.round;
        for claim in partner.claims.values_mut() {
            if claim.round != round && claim.raised < begun {
                claim.position = 0;
                claim.suspect = false;
            }
            // It may have lost what we said.
            claim.announced = 0;
        }
        self.sweep();
    }

    /// Forgets logs that are neither held here nor claimed by anyone.
    pub(super) fn sweep(&mut self) {
        let claimed = |log: &LogId| {
            let by = |partner: &Partner| partner.claims.get(log).is_some_and(|claim| claim.position > 0);
            self.partners.values().any(by)
        };
        let idle = |known: &Log| known.head.position == 0 && known.fetch.is_none();
        let gone: Vec<LogId> =
            self.logs.iter().filter(|(log, known)| idle(known) && !claimed(log)).map(|(log, _)| *log).collect();
        self.drop_logs(&gone);
    }

    /// Sums over all logs: entries that are missing here, and there.
    pub(super) fn lag(&self, partner: &Partner) -> (u64, u64) {
        let nothing = Claim::default();
        self.logs.iter().fold((0, 0), |(ours, theirs): (u64, u64), (log, known)| {
            let claim = partner.claims.get(log).unwrap_or(&nothing);
            let (here, there) = claim.lag(known.head.position);
            (ours.saturating_add(here), theirs.saturating_add(there))
        })
    }

    /// Tells how far a partner and we are apart, if that has changed.
    pub(super) fn tell_lag(&mut self, cx: &mut Cx<'_>, peer: &PeerId) {
        let Some(partner) = self.partners.get(peer) else { return };
        let lag = self.lag(partner);
        let Some(partner) = self.partners.get_mut(peer) else { return };
        if partner.lag_told != Some(lag) {
            partner.lag_told = Some(lag);
            cx.tell(Notice::PeerLag { peer: *peer, ours: lag.0, theirs: lag.1 }, Reason::Sync);
        }
    }
}

/// What others have written waits longer: by then most know it from its author.
pub(super) fn delay(cx: &Cx<'_>, partner: &Partner, own: bool) -> core::time::Duration {
    let after = cx.config.sync.announce_after;
    if own {
        return after;
    }
    let draw = jitter::draw(cx.seed, Purpose::Sync, partner.arrival, cx.now.as_nanos());
    after + jitter::within(after * 9, draw)
}
