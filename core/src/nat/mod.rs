//! `NatPolicy`: where this node listens, which addresses it has, what others may be told of them, and the ways through
//! NATs to and from here.
//!
//! Three sets are kept apart. *Candidates* are what others see, the router maps, interfaces have or behaviours guess: one
//! observer is enough, they are for trying. *Advertised* addresses are what everyone is told: an own interface has it on
//! the internet and no probe has shown that it is closed, the operator vouches for it, probes have proven it from two
//! networks (or from as many as can probe), observers in enough distinct networks see it, or the router maps it and there
//! is nobody to prove it. *Listening* addresses are never told as such.
//!
//! Relays and hole punching build on these sets.

mod addresses;
mod listeners;
mod mapping;
mod own;
mod ports;
mod prior;
mod probing;
mod punching;
mod relays;
mod services;
mod verdict;

pub(crate) use listeners::Listeners;
pub(crate) use own::Own;
pub(crate) use punching::Punching;
pub(crate) use relays::{Relays, is_candidate as is_relay_candidate};

use alloc::collections::BTreeSet;

use crate::{
    cx::Cx,
    lifecycle::PeerLifecycle,
    vocabulary::{Address, Config, Event, Reachability, Reason, Role, Time},
};

#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct NatPolicy {
    listeners: Listeners,
    pub(crate) own: Own,
    pub(crate) relays: Relays,
    pub(crate) punching: Punching,
    /// When the next pinned peer counts as missed.
    misses_pinned_at: Option<Time>,
}

impl NatPolicy {
    pub(crate) fn absorb(&mut self, cx: &mut Cx<'_>, lifecycle: &mut PeerLifecycle, event: &Event) {
        self.listeners.absorb(cx, event);
        self.own.absorb(cx, lifecycle, event);
        self.relays.absorb(cx, lifecycle, event);
        self.punching.absorb(cx, lifecycle, &self.own, event);
    }

    pub(crate) fn configure(&mut self, cx: &mut Cx<'_>) {
        self.listeners.configure(cx);
        self.own.configure(cx);
    }

    /// What is due, in an order in which each part knows what it builds on.
    pub(crate) fn step(&mut self, cx: &mut Cx<'_>, lifecycle: &mut PeerLifecycle) {
        self.listeners.step(cx);
        self.own.step(cx, lifecycle);
        // A pinned peer whose relay does not answer is missing from now on.
        self.relays.let_go(cx, lifecycle);
        let missed = lifecycle.misses_pinned_from().filter(|_| cx.config.role != Role::Server);
        self.misses_pinned_at = missed.filter(|from| *from > cx.now);
        // Whoever can be dialled by some can't by all: a probe comes from somebody to whom we have sent, which many routers
        // let in, and few lead back what comes from inside to an outer address of their own.
        let missing = || missed.filter(|from| *from <= cx.now).map(|_| Reason::PinnedMissing);
        let why = match self.own.reachability() {
            Reachability::Public => missing(),
            Reachability::Unknown | Reachability::Private => Some(Reason::NotReachable),
        };
        let moved = self.relays.step(cx, lifecycle, self.own.likely_reachability(), why.as_ref());
        self.punching.step(cx, lifecycle, &self.own);
        self.own.advertise(cx, self.relays.circuits(), moved, why);
    }

    pub(crate) fn deadline(&self, config: &Config) -> Option<Time> {
        let parts = [
            self.listeners.deadline(),
            self.own.deadline(),
            self.relays.deadline(),
            self.punching.deadline(config.nat.punch_timeout),
            self.misses_pinned_at,
        ];
        parts.into_iter().flatten().min()
    }

    pub(crate) const fn advertised(&self) -> &BTreeSet<Address> {
        self.own.advertised()
    }
}
