//! With whom logs are exchanged.

use alloc::{collections::BTreeMap, vec::Vec};
use core::time::Duration;

use super::{Claim, LogSync, What};
use crate::{
    cx::Cx,
    jitter::{self, Purpose},
    lifecycle::PeerLifecycle,
    peers::Peer,
    view::Capabilities,
    vocabulary::{Action, Audience, CommandId, Direction, LogId, Notice, PeerId, Reason, SyncError, Time},
};

/// Whoever has dialled compares positions at once; the other side waits so long for that.
const ACCEPTED: Duration = Duration::from_secs(2);

/// A peer with which logs are exchanged, while a connection to it stands.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct Partner {
    /// What jitter is keyed by.
    pub(super) arrival: u64,
    pub(super) claims: BTreeMap<LogId, Claim>,
    /// Exchanges so far.
    pub(super) round: u32,
    /// When positions were last compared.
    pub(super) compared: Option<Time>,
    /// When they are next.
    pub(super) exchange_at: Time,
    /// When what has grown is announced; `Time::MAX` for nothing.
    pub(super) announce_at: Time,
    /// The exchange or announcement under way.
    pub(super) talking: Option<CommandId>,
    /// Exchanges and announcements in a row that came to nothing.
    pub(super) silences: u32,
    /// Neither is begun before.
    pub(super) talk_after: Time,
    /// Ranges under way.
    pub(super) fetching: u32,
    /// Which range was its last one.
    pub(super) turn: u64,
    /// Entries it is asked for at once.
    pub(super) limit: u32,
    /// Ranges in a row that came to nothing.
    pub(super) failures: u32,
    /// It is asked for none before.
    pub(super) rest_until: Time,
    pub(super) last_error: Option<SyncError>,
    /// Ranges under way, as the peer table and the application were told.
    pub(super) shown: u32,
    /// What the application was told of its lag.
    pub(super) lag_told: Option<(u64, u64)>,
}

impl LogSync {
    /// Whether logs are exchanged with a peer may have changed.
    pub(super) fn consider(&mut self, cx: &mut Cx<'_>, lifecycle: &PeerLifecycle, peer: PeerId) {
        if !self.ready {
            return;
        }
        let known = lifecycle.peers.by_id(&peer);
        let fits = known.is_some_and(|known| self.is_allowed(known));
        match (known.filter(|_| fits), self.partners.contains_key(&peer)) {
            (Some(known), false) => {
                let dialled = known.best().is_some_and(|best| best.direction == Direction::Outbound);
                let draw = jitter::draw(cx.seed, Purpose::Sync, known.arrival, 0);
                let exchange_at = if dialled { cx.now } else { cx.now + jitter::vary(ACCEPTED, draw) };
                let partner = Partner {
                    arrival: known.arrival,
                    exchange_at,
                    announce_at: Time::MAX,
                    limit: cx.config.sync.range,
                    ..Partner::default()
                };
                self.partners.insert(peer, partner);
            }
            (None, true) => self.part(cx, &peer, known.is_some_and(Peer::is_connected)),
            (Some(_), true) => {}
            (None, false) => return,
        }
        self.stirred = true;
    }

    fn is_allowed(&self, peer: &Peer) -> bool {
        let speaks = peer.capabilities().contains(Capabilities::NETWORK.with(Capabilities::SYNC));
        let meant = match self.with {
            Audience::Nobody => false,
            Audience::Members => peer.pinned,
            Audience::Anyone => true,
        };
        speaks && meant && peer.is_connected() && !peer.blocked
    }

    /// One more connection: it may have started anew.
    pub(super) fn reconnected(&mut self, cx: &Cx<'_>, peer: &PeerId) {
        if let Some(partner) = self.partners.get_mut(peer) {
            let draw = jitter::draw(cx.seed, Purpose::Sync, partner.arrival, cx.now.as_nanos());
            partner.exchange_at = partner.exchange_at.min(cx.now + jitter::vary(ACCEPTED, draw));
            self.stirred = true;
        }
    }

    /// No more exchange with this peer. What it was asked is dropped.
    pub(super) fn part(&mut self, cx: &mut Cx<'_>, peer: &PeerId, connected: bool) {
        let Some(partner) = self.partners.remove(peer) else { return };
        let open: Vec<CommandId> = self.open.iter().filter(|(_, open)| open.peer == *peer).map(|(id, _)| *id).collect();
        for sync in open {
            if let Some(What::Fetch { log, .. }) = self.open.remove(&sync).map(|open| open.what)
                && let Some(log) = self.logs.get_mut(&log)
            {
                log.fetch = None;
            }
            if connected {
                cx.command(Action::SyncCancel { sync, peer: *peer }, Reason::StateChanged);
            }
        }
        if partner.shown > 0 {
            self.parted.push(*peer);
            let notice = Notice::PeerSynced { peer: *peer, position: Some(partner.position()) };
            cx.tell(notice, if connected { Reason::StateChanged } else { Reason::ConnectionLost });
        }
        self.sweep();
        self.stirred = true;
    }

    /// Has the peer table and the application see with whom data is being exchanged.
    pub(super) fn show(&mut self, cx: &mut Cx<'_>, lifecycle: &mut PeerLifecycle) {
        for peer in core::mem::take(&mut self.parted) {
            lifecycle.set_fetching(cx, &peer, 0);
        }
        for (peer, partner) in &mut self.partners {
            let before = core::mem::replace(&mut partner.shown, partner.fetching);
            if before == partner.fetching {
                continue;
            }
            lifecycle.set_fetching(cx, peer, partner.fetching);
            if before > 0 && partner.fetching > 0 {
                continue;
            }
            let notice = if partner.fetching > 0 {
                Notice::PeerSyncing { peer: *peer }
            } else {
                Notice::PeerSynced { peer: *peer, position: Some(partner.position()) }
            };
            cx.tell(notice, Reason::Sync);
        }
    }
}

impl Partner {
    /// Entries that it says it has, of all logs.
    pub(super) fn position(&self) -> u64 {
        self.claims.values().fold(0, |sum, claim| sum.saturating_add(claim.position))
    }

    /// How long to wait after so many failures in a row.
    pub(super) fn wait(&self, cx: &Cx<'_>, failures: u32) -> Duration {
        let config = &cx.config.sync;
        let doubled = config.retry.saturating_mul(1 << failures.saturating_sub(1).min(20));
        let draw = jitter::draw(cx.seed, Purpose::Sync, self.arrival, u64::from(failures) + 1);
        jitter::vary(doubled.min(config.retry_max), draw)
    }
}
