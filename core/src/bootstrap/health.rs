//! Whether anybody is there: notices, and what is done when nobody is.

use core::time::Duration;

use crate::{
    cx::Cx,
    jitter::{self, Purpose},
    lifecycle::{PeerLifecycle, SHORT_LIVED},
    vocabulary::{Config, Health, Notice, Reason, Time},
};

/// Watches over the number of connected peers.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct Vigil {
    health: Health,
    since: Time,
    /// Since when nobody is connected.
    lonely_since: Option<Time>,
    /// Since when pinned peers are missing.
    missing_since: Option<Time>,
    /// Isolated: how many rounds of dials there were, and when the next one is.
    rounds: u32,
    next_round: Time,
    stirred: bool,
}

impl Default for Vigil {
    fn default() -> Self {
        Self {
            health: Health::Starting,
            since: Time::ZERO,
            lonely_since: None,
            missing_since: None,
            rounds: 0,
            next_round: Time::MAX,
            stirred: true,
        }
    }
}

/// Peers whose back-offs one round overrides.
const PEERS_PER_ROUND: usize = 32;
/// Rounds are frequent for this long, then seldom.
const PATIENCE: Duration = Duration::from_secs(600);

impl Vigil {
    pub(super) const fn stir(&mut self) {
        self.stirred = true;
    }

    pub(super) const fn health(&self) -> (Health, Time) {
        (self.health, self.since)
    }

    /// The network is another one, or this machine has slept: begin again.
    pub(super) fn rearm(&mut self, now: Time) {
        self.stirred = true;
        self.rounds = 0;
        if self.health == Health::Isolated {
            self.next_round = now;
        }
    }

    pub(super) fn step(&mut self, cx: &mut Cx<'_>, lifecycle: &mut PeerLifecycle, has_targets: bool) {
        if self.stirred || self.deadline(cx.config).is_some_and(|at| at <= cx.now) {
            self.stirred = false;
            self.judge(cx, lifecycle, has_targets);
        }
        if self.health == Health::Isolated && self.next_round <= cx.now {
            self.next_round(cx, lifecycle);
        }
    }

    pub(super) fn deadline(&self, config: &Config) -> Option<Time> {
        let after = config.planner.isolated_after;
        let lonely = self.lonely_since.map(|since| since + after).filter(|_| !self.is_settled_lonely());
        let missing = self.missing_since.map(|since| since + after).filter(|_| self.health != Health::Partial);
        let round = (self.health == Health::Isolated).then_some(self.next_round);
        let missing = missing.filter(|_| self.lonely_since.is_none());
        lonely.into_iter().chain(missing).chain(round).min()
    }

    const fn is_settled_lonely(&self) -> bool {
        matches!(self.health, Health::Alone | Health::Isolated | Health::Offline)
    }

    fn judge(&mut self, cx: &mut Cx<'_>, lifecycle: &mut PeerLifecycle, has_targets: bool) {
        let after = cx.config.planner.isolated_after;
        let missing = lifecycle.missing_pinned();
        // Connections over a pulled cable stand until somebody misses an answer; the cable is pulled all the same.
        let offline = !cx.here.is_online() && !lifecycle.has_loopback();
        let (health, reason) = if offline {
            self.lonely_since = Some(cx.now);
            (Health::Offline, Reason::NetworkChanged)
        } else if lifecycle.connected_count() > 0 {
            self.lonely_since = None;
            self.missing_since = (missing > 0).then(|| self.missing_since.unwrap_or(cx.now));
            // Partial until all are there, connected until some are missing for long.
            let partial = |since| self.health == Health::Partial || since + after <= cx.now;
            if self.missing_since.is_some_and(partial) {
                (Health::Partial, Reason::PeersMissing { missing })
            } else {
                (Health::Connected, Reason::ConnectionMade)
            }
        } else {
            let since = *self.lonely_since.get_or_insert(cx.now);
            let nobody = !has_targets && lifecycle.peers.len() == 0;
            if since + after > cx.now {
                (if self.is_settled_lonely() { Health::Starting } else { self.health }, Reason::ConnectionLost)
            } else if nobody {
                (Health::Alone, Reason::NoSource)
            } else {
                (Health::Isolated, Reason::Isolated { since: cx.now.since(since) })
            }
        };
        if health == self.health {
            return;
        }
        // Somebody who came and went is no reason to begin again.
        let was_there = matches!(self.health, Health::Connected | Health::Partial);
        if was_there && cx.now.since(self.since) >= SHORT_LIVED {
            self.rounds = 0;
        }
        self.health = health;
        self.since = cx.now;
        let isolated = health == Health::Isolated;
        lifecycle.set_isolated(self.lonely_since.filter(|_| isolated));
        self.next_round = match (isolated, self.rounds) {
            (true, 0) => cx.now,
            (true, _) => self.after_this_round(cx),
            (false, _) => Time::MAX,
        };
        if health != Health::Starting {
            cx.tell(Notice::HealthChanged { health }, reason);
        }
    }

    fn next_round(&mut self, cx: &mut Cx<'_>, lifecycle: &mut PeerLifecycle) {
        self.next_round = self.after_this_round(cx);
        self.rounds = self.rounds.saturating_add(1);
        lifecycle.override_backoffs(cx, PEERS_PER_ROUND);
    }

    fn after_this_round(&self, cx: &Cx<'_>) -> Time {
        let config = &cx.config.planner;
        let longest = if cx.now.since(self.since) < PATIENCE { config.retry_max } else { config.retry_slow };
        let wait = config.retry_min.saturating_mul(1 << self.rounds.min(12)).min(longest);
        let draw = jitter::draw(cx.seed, Purpose::Isolation, self.since.as_nanos(), self.rounds.into());
        cx.now + jitter::vary(wait, draw)
    }
}
