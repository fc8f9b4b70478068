//! What partners say of their logs, held against what is here.

use alloc::vec::Vec;

use super::{Log, LogSync, Partner};
use crate::{
    cx::Cx,
    jitter::{self, Purpose},
    vocabulary::{Head, LogHead, Notice, PeerId, Reason, SyncError, Time, Told},
};

/// How far a partner says that a log goes there.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct Claim {
    /// Epoch and position.
    pub(super) reach: (u64, u64),
    /// When it was last raised.
    pub(super) raised: Time,
    /// In which exchange it was last told of.
    pub(super) round: u32,
    /// How far we have said that the log goes here.
    pub(super) announced: (u64, u64),
    /// We fetched from it, and it may know that the entries are here.
    pub(super) owed: bool,
    /// Its entry is said to be another one than ours with the same number.
    pub(super) suspect: bool,
    /// It has another branch of this epoch.
    pub(super) forked: Option<u64>,
}

impl Claim {
    /// Whether entries may be had from it that go beyond `here`, or one that is to be compared.
    pub(super) fn is_wanted(&self, here: (u64, u64)) -> bool {
        self.forked != Some(self.reach.0) && (self.reach > here || self.suspect)
    }

    /// Whether it is to be told that the log goes to `here`.
    pub(super) fn is_behind(&self, here: (u64, u64)) -> bool {
        let news = here > self.reach.max(self.announced);
        let reports = self.owed && here >= self.reach;
        here.1 > 0 && self.forked != Some(here.0) && (news || reports)
    }

    /// Entries that lie between it and `here`: those missing here, and those missing there.
    pub(super) const fn lag(&self, here: (u64, u64)) -> (u64, u64) {
        let ((epoch, position), (own_epoch, own)) = (self.reach, here);
        if matches!(self.forked, Some(forked) if forked == epoch) {
            (0, 0)
        } else if epoch == own_epoch {
            (position.saturating_sub(own), own.saturating_sub(position))
        } else if epoch > own_epoch {
            (position, 0)
        } else {
            (0, own)
        }
    }
}

impl LogSync {
    /// A log goes so far here now.
    pub(super) fn grown(&mut self, cx: &Cx<'_>, log: PeerId, head: Head) {
        if head.position == 0 && !self.logs.contains_key(&log) {
            return;
        }
        // What the store holds is never left out, however much that is.
        self.logs.entry(log).or_default().head = head;
        self.stirred = true;
        for partner in self.partners.values_mut() {
            if let Some(claim) = partner.claims.get_mut(&log) {
                claim.suspect &= claim.reach == head.reach();
            }
            let behind = partner.claims.get(&log).map_or(head.position > 0, |claim| claim.is_behind(head.reach()));
            if behind {
                partner.announce_at = partner.announce_at.min(cx.now + delay(cx, partner, log == cx.local));
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
                    claim.reach = known.head.reach();
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
        let Some(partner) = self.partners.get_mut(peer) else { return };
        if !self.logs.contains_key(log) {
            if head.position == 0 {
                return;
            }
            let max = cx.config.sync.max_logs as usize;
            let only_claimed = |log: &PeerId| self.logs.get(log).is_some_and(|known| known.head.position == 0);
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
        let before = claim.reach;
        if head.reach() > before {
            claim.reach = head.reach();
            claim.raised = cx.now;
        } else if begun.is_some_and(|begun| claim.raised < begun) {
            // Said after all else that it has said: what was said in between may have overtaken the answer.
            claim.reach = head.reach();
            if head.epoch == before.0 && head.position < before.1 {
                partner.last_error = Some(SyncError::WentBack);
            }
        }
        let ours = &known.head;
        let same_place = head.reach() == ours.reach() && head.position > 0;
        claim.suspect = same_place && head.hash != ours.hash && claim.forked != Some(head.epoch);
        if claim.is_wanted(ours.reach()) {
            self.wanted.insert(*log);
        }
    }

    /// The answer to an exchange is whole: what it did not name, the partner does not have.
    pub(super) fn close_round(&mut self, peer: &PeerId, begun: Time) {
        let Some(partner) = self.partners.get_mut(peer) else { return };
        let round = partner.round;
        for claim in partner.claims.values_mut() {
            if claim.round != round && claim.raised < begun {
                claim.reach = (0, 0);
                claim.suspect = false;
            }
            // It may have lost what we said.
            claim.announced = (0, 0);
        }
        self.sweep();
    }

    /// Forgets logs that are neither held here nor claimed by anyone.
    pub(super) fn sweep(&mut self) {
        let claimed = |log: &PeerId| {
            let by = |partner: &Partner| partner.claims.get(log).is_some_and(|claim| claim.reach.1 > 0);
            self.partners.values().any(by)
        };
        let idle = |known: &Log| known.head.position == 0 && known.fetch.is_none();
        let gone: Vec<PeerId> =
            self.logs.iter().filter(|(log, known)| idle(known) && !claimed(log)).map(|(log, _)| *log).collect();
        for log in gone {
            self.logs.remove(&log);
            self.wanted.remove(&log);
            for partner in self.partners.values_mut() {
                partner.claims.remove(&log);
            }
        }
    }

    /// Sums over all logs: entries that are missing here, and there.
    pub(super) fn lag(&self, partner: &Partner) -> (u64, u64) {
        let nothing = Claim::default();
        self.logs.iter().fold((0, 0), |(ours, theirs): (u64, u64), (log, known)| {
            let claim = partner.claims.get(log).unwrap_or(&nothing);
            let (here, there) = claim.lag(known.head.reach());
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
