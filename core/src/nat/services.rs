//! What this node does for others: whom it relays and probes for, and whether it serves the hash table.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};

use crate::{
    cx::Cx,
    lifecycle::PeerLifecycle,
    view::ServiceView,
    vocabulary::{Action, Audience, KademliaMode, PeerId, Reachability, Reason, Role, Service},
};

#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct Services {
    kademlia_server: Option<bool>,
    relay: Audience,
    probes: Audience,
    /// Whom the shell counts among the members.
    members: BTreeSet<PeerId>,
    /// Who is a member may have changed.
    stirred: bool,
    /// Peers that we relay for.
    served: BTreeMap<PeerId, Served>,
}

#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct Served {
    reserved: bool,
    circuits: u32,
}

/// Peers that are relayed for and counted: far above what the limits of a relay allow by default.
const MAX_SERVED: usize = 4_096;

impl Services {
    pub(super) fn stir(&mut self) {
        self.stirred = true;
    }

    pub(super) const fn is_stirred(&self) -> bool {
        self.stirred
    }

    pub(super) fn step(&mut self, cx: &mut Cx<'_>, lifecycle: &PeerLifecycle, reachability: Reachability) {
        self.set_kademlia_mode(cx, reachability);
        self.set_services(cx, reachability);
        if core::mem::take(&mut self.stirred) {
            self.set_members(cx, lifecycle);
        }
    }

    fn set_kademlia_mode(&mut self, cx: &mut Cx<'_>, reachability: Reachability) {
        let (server, reason) = match (cx.config.kademlia, reachability) {
            (KademliaMode::Server, _) => (true, Reason::Settings),
            (KademliaMode::Client, _) => (false, Reason::Settings),
            (KademliaMode::Auto, _) if cx.config.role == Role::Server => (true, Reason::Settings),
            (KademliaMode::Auto, Reachability::Public) => (true, Reason::Reachable),
            (KademliaMode::Auto, Reachability::Unknown | Reachability::Private) => (false, Reason::NotReachable),
        };
        if self.kademlia_server != Some(server) {
            self.kademlia_server = Some(server);
            cx.command(Action::SetKademliaServer { server }, reason);
        }
    }

    fn set_services(&mut self, cx: &mut Cx<'_>, reachability: Reachability) {
        let audience = |service| match service {
            Service::Off => Audience::Nobody,
            Service::Members => Audience::Members,
            Service::Anyone => Audience::Anyone,
            Service::Auto if cx.config.role == Role::Server => Audience::Anyone,
            Service::Auto if reachability == Reachability::Public => Audience::Members,
            Service::Auto => Audience::Nobody,
        };
        let (relay, probes) = (audience(cx.config.nat.relay_service), audience(cx.config.nat.probe_service));
        if (relay, probes) != (self.relay, self.probes) {
            (self.relay, self.probes) = (relay, probes);
            let by_settings = cx.config.role == Role::Server
                || (cx.config.nat.relay_service != Service::Auto && cx.config.nat.probe_service != Service::Auto);
            let reason = match reachability {
                _ if by_settings => Reason::Settings,
                Reachability::Public => Reason::Reachable,
                Reachability::Unknown | Reachability::Private => Reason::NotReachable,
            };
            cx.command(Action::SetServices { relay, probes }, reason);
        }
    }

    fn set_members(&mut self, cx: &mut Cx<'_>, lifecycle: &PeerLifecycle) {
        let members: BTreeSet<PeerId> = lifecycle.pinned_peers().into_iter().collect();
        let gone: Vec<PeerId> = self.members.difference(&members).copied().collect();
        let new: Vec<PeerId> = members.difference(&self.members).copied().collect();
        for peer in gone {
            cx.command(Action::SetMember { peer, member: false }, Reason::StateChanged);
        }
        for peer in new {
            cx.command(Action::SetMember { peer, member: true }, Reason::Pinned);
        }
        self.members = members;
    }

    pub(super) fn serving(&mut self, peer: &PeerId, reserved: bool, circuits: u32) {
        if !reserved && circuits == 0 {
            self.served.remove(peer);
        } else if self.served.len() < MAX_SERVED || self.served.contains_key(peer) {
            self.served.insert(*peer, Served { reserved, circuits });
        }
    }

    /// Whether the peer has a reservation here.
    pub(super) fn is_served(&self, peer: &PeerId) -> bool {
        self.served.get(peer).is_some_and(|served| served.reserved)
    }

    pub(super) fn is_kademlia_server(&self) -> bool {
        self.kademlia_server == Some(true)
    }

    pub(super) const fn relay(&self) -> Audience {
        self.relay
    }

    pub(super) fn view(&self) -> ServiceView {
        let ends: u64 = self.served.values().map(|served| u64::from(served.circuits)).sum();
        ServiceView {
            relay: self.relay,
            probes: self.probes,
            reservations: self.served.values().filter(|served| served.reserved).count() as u32,
            // Both ends of a circuit are counted.
            circuits: u32::try_from(ends.div_ceil(2)).unwrap_or(u32::MAX),
        }
    }
}
