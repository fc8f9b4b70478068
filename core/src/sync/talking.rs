//! Positions: comparing them, and announcing what has grown.

use alloc::vec::Vec;

use super::{LogSync, Open, What, claims::delay};
use crate::{
    cx::Cx,
    jitter::{self, Purpose},
    lifecycle::PeerLifecycle,
    vocabulary::{Action, CommandId, ConnectionId, LogHead, Notice, PeerId, Reason, SyncError, Time, Told},
};

/// Heads in one announcement.
const MAX_HEADS: usize = 64;

impl LogSync {
    /// Begins what is due, and says when the next is.
    pub(super) fn talk(&mut self, cx: &mut Cx<'_>, lifecycle: &PeerLifecycle) -> Option<Time> {
        let mut due = None;
        for peer in self.partners.keys().copied().collect::<Vec<_>>() {
            let known = lifecycle.peers.by_id(&peer);
            let Some(connection) = known.and_then(|known| known.best_for(|_| true)).map(|one| one.id) else {
                // Nobody said that the last connection is gone.
                if known.is_none_or(|known| !known.is_connected()) {
                    self.part(cx, &peer, false);
                }
                continue;
            };
            self.talk_to(cx, peer, connection);
            let next = self.partners.get(&peer).filter(|partner| partner.talking.is_none());
            let at = next.map(|partner| partner.exchange_at.min(partner.announce_at).max(partner.talk_after));
            due = due.into_iter().chain(at).min();
        }
        due
    }

    fn talk_to(&mut self, cx: &mut Cx<'_>, peer: PeerId, connection: ConnectionId) {
        let Some(partner) = self.partners.get_mut(&peer) else { return };
        if partner.talking.is_some() || partner.talk_after > cx.now {
            return;
        }
        let announces = partner.announce_at <= cx.now && partner.compared.is_some();
        let (action, what, reason) = if announces {
            let (heads, reason) = self.news_for(&peer);
            let Some(partner) = self.partners.get_mut(&peer) else { return };
            partner.announce_at = Time::MAX;
            if heads.is_empty() {
                return self.talk_to(cx, peer, connection);
            }
            let said = heads.iter().map(|head| (head.log, head.head.position)).collect();
            (Action::SyncAnnounce { peer, connection, heads }, What::Announce(said), reason)
        } else if partner.exchange_at <= cx.now || partner.announce_at <= cx.now {
            partner.round = partner.round.wrapping_add(1);
            let reason = match (partner.silences, partner.compared) {
                (0, None) => Reason::Introduced,
                (0, Some(_)) => Reason::Routine,
                (silences, _) => Reason::Retry { attempt: silences.saturating_add(1) },
            };
            (Action::SyncExchange { peer, connection }, What::Exchange { begun: cx.now }, reason)
        } else {
            return;
        };
        let until = cx.now + cx.config.sync.exchange_timeout;
        let id = cx.command(action, reason);
        self.open.insert(id, Open { peer, until, what });
        if let Some(partner) = self.partners.get_mut(&peer) {
            partner.talking = Some(id);
        }
    }

    /// What a partner is to be told, and why.
    fn news_for(&self, peer: &PeerId) -> (Vec<LogHead>, Reason) {
        let Some(partner) = self.partners.get(peer) else { return (Vec::new(), Reason::Grown) };
        let mut reason = Reason::CaughtUp;
        let news = self.logs.iter().filter(|(log, known)| {
            let here = known.head.position;
            let claim = partner.claims.get(log);
            if claim.map_or(here > 0, |claim| here > claim.position) {
                reason = Reason::Grown;
            }
            claim.map_or(here > 0, |claim| claim.is_behind(here))
        });
        let heads = news.take(MAX_HEADS).map(|(log, known)| LogHead { log: *log, head: known.head }).collect();
        (heads, reason)
    }

    /// A partner says how far its logs go.
    pub(super) fn told(&mut self, cx: &mut Cx<'_>, peer: PeerId, sync: Option<CommandId>, told: &Told, last: bool) {
        if !self.partners.contains_key(&peer) {
            return;
        }
        self.stirred = true;
        let asked = sync.filter(|sync| {
            let open = self.open.get(sync);
            open.is_some_and(|open| open.peer == peer && !matches!(open.what, What::Fetch { .. }))
        });
        let begun = match asked.and_then(|sync| self.open.get(&sync)).map(|open| &open.what) {
            Some(What::Exchange { begun }) => Some(*begun),
            Some(What::Announce(_) | What::Fetch { .. }) | None => None,
        };
        self.take(cx, &peer, told, begun);
        if !last {
            return;
        }
        let answered = asked.and_then(|sync| self.open.remove(&sync)).map(|open| open.what);
        let Some(partner) = self.partners.get_mut(&peer) else { return };
        if answered.is_some() {
            partner.talking = None;
            partner.silences = 0;
            partner.talk_after = cx.now;
        }
        if sync.is_none() && partner.last_error == Some(SyncError::Denied) {
            // It asks us: by now we are one of those whom its logs are for.
            partner.last_error = None;
            partner.silences = 0;
            partner.talk_after = cx.now;
            partner.exchange_at = cx.now;
        }
        let draw = jitter::draw(cx.seed, Purpose::Sync, partner.arrival, cx.now.as_nanos());
        let routine = cx.now + jitter::vary(cx.config.sync.every, draw);
        match answered {
            Some(What::Exchange { begun }) => {
                partner.compared = Some(cx.now);
                partner.exchange_at = routine;
                self.close_round(&peer, begun);
                self.announce_to(cx, &peer);
            }
            Some(What::Announce(said)) => {
                for (log, position) in said.into_iter().filter(|(log, _)| self.logs.contains_key(log)) {
                    let claim = partner.claims.entry(log).or_default();
                    claim.announced = claim.announced.max(position);
                    claim.owed = false;
                }
                self.announce_to(cx, &peer);
            }
            Some(What::Fetch { .. }) | None => {
                if *told == Told::Same {
                    partner.compared = Some(cx.now);
                    partner.exchange_at = routine;
                }
            }
        }
        self.tell_lag(cx, &peer);
    }

    /// Has a partner told of what it has not, if there is something.
    fn announce_to(&mut self, cx: &Cx<'_>, peer: &PeerId) {
        let (heads, _) = self.news_for(peer);
        let own = heads.iter().any(|head| head.log.author == cx.local);
        if let Some(partner) = self.partners.get_mut(peer).filter(|_| !heads.is_empty()) {
            partner.announce_at = partner.announce_at.min(cx.now + delay(cx, partner, own));
        }
    }

    /// An exchange or an announcement came to nothing.
    pub(super) fn fell_silent(&mut self, cx: &mut Cx<'_>, peer: PeerId, what: &What, error: &SyncError) {
        let Some(partner) = self.partners.get_mut(&peer) else { return };
        partner.talking = None;
        partner.silences = partner.silences.saturating_add(1);
        let for_long = matches!(error, SyncError::Unsupported | SyncError::Denied | SyncError::Malformed);
        let wait = if for_long { partner.wait(cx, u32::MAX) } else { partner.wait(cx, partner.silences) };
        partner.talk_after = cx.now + wait;
        match what {
            What::Exchange { .. } => partner.exchange_at = partner.talk_after,
            What::Announce(_) | What::Fetch { .. } => partner.announce_at = partner.talk_after,
        }
        let first = partner.silences == 1 && *error != SyncError::ConnectionLost;
        partner.last_error = Some(error.clone());
        if first {
            cx.tell(Notice::SyncFailed { peer, error: error.clone() }, Reason::SyncFault(error.clone()));
        }
    }
}
