//! mDNS: who is on the same home network.
//!
//! The library asks 0.5 s after its start and then at doubled waits until the first answer; after that, whoever hears a
//! question or an answer waits 30 s anew (the shell's setting), so a network hears one question in half a minute. All
//! hear all answers. What was heard holds for six minutes; nobody says goodbye.

use kinfolk_core::{Address, Event, Scope, Source};

use super::{Addresses, What, World};
use crate::{
    engine::{MILLI, Moment, SECOND},
    internet::SegmentId,
};

/// A home network, as multicasts see it.
#[derive(Default)]
pub(super) struct Lan {
    /// When the next question is due.
    asks_at: Moment,
    pub(super) muted: bool,
}

const FIRST: u64 = 500 * MILLI;
const INTERVAL: u64 = 30 * SECOND;
const TTL: u64 = 360 * SECOND;

impl World {
    /// A machine starts to listen on its network, or has come to another one.
    pub(super) fn join_lan(&mut self, node: u32) {
        let machine = &mut self.machines[node as usize];
        let segment = self.net.host(node).segment;
        if !machine.on || !machine.setup.config.mdns || self.net.gateway(segment).is_none() {
            return;
        }
        let at = self.now + FIRST + machine.dice.below(100 * MILLI);
        let lan = self.lans.entry(segment).or_default();
        if lan.asks_at <= self.now || at < lan.asks_at {
            lan.asks_at = at;
            self.queue.push(at, node, What::Multicast(segment));
        }
    }

    /// What it knows of others, it forgets without a word.
    pub(super) fn leave_lan(&mut self, node: u32) {
        self.machines[node as usize].near.clear();
    }

    /// Whether multicasts get through on a network (some access points drop them).
    pub fn mute(&mut self, segment: SegmentId, muted: bool) {
        self.lans.entry(segment).or_default().muted = muted;
    }

    /// Whether multicasts are kept from getting through on a network.
    pub fn is_mute(&self, segment: SegmentId) -> bool {
        self.lans.get(&segment).is_some_and(|lan| lan.muted)
    }

    /// Somebody asks, everybody answers, everybody hears.
    pub(super) fn multicast(&mut self, segment: SegmentId) {
        let now = self.now;
        let Some(lan) = self.lans.get_mut(&segment) else { return };
        if lan.asks_at != now {
            return;
        }
        let muted = lan.muted;
        let here: Vec<u32> = self.net.neighbours(segment).to_vec();
        let takes_part = |world: &Self, node: u32| {
            let machine = &world.machines[node as usize];
            machine.on && !machine.asleep && machine.setup.config.mdns && world.net.host(node).plugged
        };
        let here: Vec<u32> = here.into_iter().filter(|node| takes_part(self, *node)).collect();
        let Some(first) = here.first().copied() else { return };
        let jitter = self.machines[first as usize].dice.below(SECOND);
        let at = now + INTERVAL + jitter;
        if let Some(lan) = self.lans.get_mut(&segment) {
            lan.asks_at = at;
        }
        self.queue.push(at, first, What::Multicast(segment));
        let said: Vec<(u32, Addresses)> = here.iter().map(|node| (*node, self.announced(*node))).collect();
        for listener in here {
            if !muted {
                for (speaker, addresses) in said.iter().filter(|(speaker, _)| *speaker != listener) {
                    self.heard(listener, *speaker, addresses);
                }
            }
            self.expire_near(listener);
        }
    }

    /// What a machine says: where it listens on this network, by IPv4.
    fn announced(&self, node: u32) -> Addresses {
        let listeners = self.machines[node as usize].listeners.iter();
        let all = listeners.flat_map(|listener| listener.addresses.iter());
        let near =
            |address: &&Address| address.host_ip().is_some_and(|ip| ip.is_ipv4() && !Scope::of(ip).is_loopback());
        all.filter(near).cloned().collect()
    }

    fn heard(&mut self, listener: u32, speaker: u32, addresses: &Addresses) {
        let until = self.now + TTL;
        let machine = &mut self.machines[listener as usize];
        let peer = super::peer_id(speaker);
        let known = machine.near.iter_mut().find(|(one, ..)| *one == speaker);
        let news: Vec<Address> = match &known {
            Some((_, before, _)) => addresses.iter().filter(|one| !before.contains(one)).cloned().collect(),
            None => addresses.to_vec(),
        };
        match known {
            Some(known) => {
                let gone = known.1.iter().any(|one| !addresses.contains(one));
                if !news.is_empty() || gone {
                    // What is no longer said stays until its time is over; here it goes with the next expiry.
                    known.1 = addresses.clone();
                }
                known.2 = until;
            }
            None if addresses.is_empty() => {}
            None => machine.near.push((speaker, addresses.clone(), until)),
        }
        if !news.is_empty() {
            let at = self.now + MILLI + machine.dice.below(100 * MILLI);
            self.say(at, listener, Event::Found { source: Source::Mdns, peer, addresses: news, cut: 0 });
        }
    }

    fn expire_near(&mut self, listener: u32) {
        let now = self.now;
        let near = &mut self.machines[listener as usize].near;
        let mut lost = vec![];
        near.retain(|(speaker, addresses, until)| {
            let gone = *until <= now;
            if gone {
                lost.push((*speaker, addresses.to_vec()));
            }
            !gone
        });
        for (speaker, addresses) in lost {
            let peer = super::peer_id(speaker);
            self.say_now(listener, Event::Lost { source: Source::Mdns, peer, addresses });
        }
    }
}
