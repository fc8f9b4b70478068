//! Ranges: which are fetched from whom, and what comes of it.

use alloc::vec::Vec;
use core::{cmp::Reverse, time::Duration};

use super::{Claim, Log, LogSync, Open, Partner, What};
use crate::{
    cx::Cx,
    lifecycle::PeerLifecycle,
    peers::{Connection, Peer},
    vocabulary::{Action, CommandId, ConnectionId, Head, LogId, Notice, PeerId, Reason, SyncConfig, SyncError, Time},
};

/// Relayed connections that may stand for less carry no entries.
const LASTING: Duration = Duration::from_secs(600);
/// A slow partner is asked for fewer entries at once, and never for fewer than this.
const SMALLEST: u32 = 16;

/// From whom a range is fetched, and over which connection.
struct Choice {
    peer: PeerId,
    connection: ConnectionId,
    claim: Claim,
    limit: u32,
}

impl LogSync {
    /// Asks for what is missing, as far as there is room, and says when somebody who rests may be asked again.
    pub(super) fn fetch(&mut self, cx: &mut Cx<'_>, lifecycle: &PeerLifecycle) -> Option<Time> {
        let under_way: u32 = self.partners.values().map(|partner| partner.fetching).sum();
        let room = cx.config.sync.max_fetches.saturating_sub(under_way);
        if room == 0 {
            return None;
        }
        let mut waiting: Vec<(u64, Reverse<u64>, LogId)> = Vec::new();
        let mut rested: Option<Time> = None;
        let mut idle = Vec::new();
        for log in &self.wanted {
            let Some(known) = self.logs.get(log).filter(|known| known.fetch.is_none()) else { continue };
            if known.full_until > cx.now {
                rested = rested.into_iter().chain([known.full_until]).min();
                continue;
            }
            let here = known.head.position;
            let claims = self.partners.values().filter_map(|partner| Some((partner, partner.claims.get(log)?)));
            let (mut most, mut rests) = (None, false);
            for (partner, claim) in claims.filter(|(_, claim)| claim.is_wanted(here)) {
                if partner.rest_until > cx.now {
                    rests = true;
                    rested = rested.into_iter().chain([partner.rest_until]).min();
                } else {
                    most = most.max(Some(claim.lag(here).0));
                }
            }
            match most {
                Some(lag) => waiting.push((known.turn, Reverse(lag), *log)),
                None if rests => {}
                None => idle.push(*log),
            }
        }
        for log in idle {
            self.wanted.remove(&log);
        }
        if self.paused_until > cx.now {
            let over = (!waiting.is_empty()).then_some(self.paused_until);
            return over.into_iter().chain(rested).min();
        }
        // Who waited longest first; of those, the smallest lag last.
        waiting.sort_unstable();
        let mut room = room;
        for (_, _, log) in waiting {
            if room == 0 {
                break;
            }
            if let Some(choice) = self.choose(cx, lifecycle, &log) {
                self.ask(cx, log, &choice);
                room -= 1;
            }
        }
        rested
    }

    fn choose(&self, cx: &Cx<'_>, lifecycle: &PeerLifecycle, log: &LogId) -> Option<Choice> {
        let here = self.logs.get(log)?.head.position;
        let config = &cx.config.sync;
        let able = |partner: &Partner| partner.rest_until <= cx.now && partner.fetching < config.max_fetches_per_peer;
        let wanted = self.partners.iter().filter(|(_, partner)| able(partner)).filter_map(|(peer, partner)| {
            let claim = partner.claims.get(log).filter(|claim| claim.is_wanted(here))?;
            let connection = bulk_connection(lifecycle.peers.by_id(peer)?, config)?;
            let relayed = connection.address.is_relayed();
            let order = (relayed, partner.failures, partner.fetching, Reverse(claim.position), partner.turn, *peer);
            let limit = partner.limit.min(config.range);
            Some((order, Choice { peer: *peer, connection: connection.id, claim: claim.clone(), limit }))
        });
        wanted.min_by_key(|(order, _)| *order).map(|(_, choice)| choice)
    }

    fn ask(&mut self, cx: &mut Cx<'_>, log: LogId, choice: &Choice) {
        let Choice { peer, connection, claim, limit } = choice;
        let (Some(known), Some(partner)) = (self.logs.get_mut(&log), self.partners.get_mut(peer)) else { return };
        let from = known.head.position;
        let check = claim.position <= from;
        let (since, limit, reason) = if check {
            (from.saturating_sub(1), 1, Reason::ForkClaimed)
        } else {
            (from, *limit, Reason::Missing { entries: claim.lag(from).0 })
        };
        let action = Action::SyncFetch { peer: *peer, connection: *connection, log, since, limit };
        let id = cx.command(action, reason);
        self.turns += 1;
        known.turn = self.turns;
        known.fetch = Some(id);
        partner.turn = self.turns;
        partner.fetching += 1;
        let what = What::Fetch { log, begun: cx.now, from, check };
        self.open.insert(id, Open { peer: *peer, until: cx.now + cx.config.sync.fetch_timeout, what });
    }

    /// A range is stored.
    pub(super) fn fetched(
        &mut self,
        cx: &mut Cx<'_>,
        fetch: CommandId,
        log: LogId,
        head: Head,
        entries: u32,
        has_more: bool,
    ) {
        let here = self.logs.get(&log).map_or(0, |known| known.head.position);
        if head.position > here {
            self.grown(cx, log, head);
        }
        let open = self.open.get(&fetch);
        let Some(Open { peer, what, .. }) = open else { return };
        let (peer, what) = (*peer, what.clone());
        let What::Fetch { log: asked, begun, from, .. } = what else { return };
        self.fetch_over(fetch, &peer, &asked);
        if entries > 0 {
            let notice = Notice::EntriesReceived { peer, log, entries, position: head.position };
            cx.tell(notice, Reason::Sync);
        }
        // By now the author may have begun anew too often for this one to be exchanged.
        let Some(here) = self.logs.get(&asked).map(|known| known.head.position) else { return };
        let Some(partner) = self.partners.get_mut(&peer) else { return };
        if here <= from {
            return self.struck(cx, peer, &what, &SyncError::NothingCame);
        }
        partner.failures = 0;
        partner.limit = partner.limit.saturating_mul(2).min(cx.config.sync.range);
        let claim = partner.claims.entry(asked).or_default();
        claim.owed = true;
        if has_more && claim.position <= here {
            claim.position = here.saturating_add(1);
        } else if !has_more && claim.raised < begun {
            claim.position = here;
        }
        if claim.is_wanted(here) {
            self.wanted.insert(asked);
        }
        if claim.is_behind(here) {
            partner.announce_at = partner.announce_at.min(cx.now + super::claims::delay(cx, partner, false));
            self.tell_lag(cx, &peer);
        }
    }

    /// An exchange, an announcement or a range came to nothing.
    pub(super) fn failed(&mut self, cx: &mut Cx<'_>, sync: CommandId, error: &SyncError) {
        let Some(open) = self.open.get(&sync) else { return };
        let (peer, what) = (open.peer, open.what.clone());
        self.stirred = true;
        if let What::Fetch { log, .. } = &what {
            self.fetch_over(sync, &peer, log);
            self.struck(cx, peer, &what, error);
        } else {
            self.open.remove(&sync);
            self.fell_silent(cx, peer, &what, error);
        }
    }

    fn fetch_over(&mut self, fetch: CommandId, peer: &PeerId, log: &LogId) {
        self.open.remove(&fetch);
        self.stirred = true;
        if let Some(known) = self.logs.get_mut(log) {
            known.fetch = None;
        }
        if let Some(partner) = self.partners.get_mut(peer) {
            partner.fetching = partner.fetching.saturating_sub(1);
        }
    }

    /// What a range that came to nothing means for whom it was asked of.
    fn struck(&mut self, cx: &mut Cx<'_>, peer: PeerId, what: &What, error: &SyncError) {
        let What::Fetch { log, begun, check, .. } = *what else { return };
        let here = self.logs.get(&log).map_or(0, |known| known.head.position);
        let Some(partner) = self.partners.get_mut(&peer) else { return };
        partner.last_error = Some(error.clone());
        let mut blame = 1;
        match error {
            SyncError::StoreBusy | SyncError::StoreFailed => {
                blame = 0;
                let pause = if *error == SyncError::StoreBusy { cx.config.sync.retry } else { super::PRESSURE };
                self.paused_until = self.paused_until.max(cx.now + pause);
            }
            SyncError::LogFull => {
                blame = 0;
                let known: &mut Log = self.logs.entry(log).or_default();
                known.full_until = cx.now + cx.config.sync.retry_max;
            }
            SyncError::Forked { position } => {
                blame = 0;
                let claim = partner.claims.entry(log).or_default();
                claim.forked = true;
                claim.suspect = false;
                let known: &mut Log = self.logs.entry(log).or_default();
                if known.forked.is_none() {
                    known.forked = Some(*position);
                    let notice = Notice::LogForked { log, position: *position, peer };
                    cx.tell(notice, Reason::SyncFault(error.clone()));
                }
            }
            SyncError::NothingCame | SyncError::NotThere if !check => {
                let claim = partner.claims.entry(log).or_default();
                if claim.raised <= begun {
                    claim.position = claim.position.min(here);
                }
            }
            SyncError::Gap | SyncError::Forged | SyncError::Malformed => {
                blame = u32::MAX;
                cx.tell(Notice::PeerDistrusted { peer }, Reason::SyncFault(error.clone()));
            }
            SyncError::Denied | SyncError::Unsupported => blame = u32::MAX,
            SyncError::TimedOut => partner.limit = (partner.limit / 4).max(SMALLEST),
            SyncError::ConnectionLost
            | SyncError::Busy
            | SyncError::NothingCame
            | SyncError::NotThere
            | SyncError::WentBack
            | SyncError::Other(_) => {}
        }
        let Some(partner) = self.partners.get_mut(&peer) else { return };
        if let Some(claim) = partner.claims.get_mut(&log).filter(|_| check) {
            claim.suspect = false;
        }
        if blame > 0 {
            partner.failures = partner.failures.saturating_add(1);
            let failures = if blame == u32::MAX { u32::MAX } else { partner.failures };
            partner.rest_until = partner.rest_until.max(cx.now + partner.wait(cx, failures));
        }
        if partner.failures == 1 || blame == 0 {
            cx.tell(Notice::SyncFailed { peer, error: error.clone() }, Reason::SyncFault(error.clone()));
        }
        self.sweep();
    }
}

/// The connection over which entries may go: direct, or through a relay that allows much.
fn bulk_connection<'a>(peer: &'a Peer, config: &SyncConfig) -> Option<&'a Connection> {
    peer.best_for(|connection| {
        connection.limit.as_ref().is_none_or(|limit| {
            let enough = limit.limit.bytes.is_none_or(|bytes| bytes >= config.relay_bytes);
            enough && !limit.worn && limit.limit.duration.is_none_or(|duration| duration >= LASTING)
        })
    })
}
