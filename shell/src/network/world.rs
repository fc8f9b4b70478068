//! The network as the driver sees it.

use std::collections::BTreeMap;

use kinfolk_core::{Command, StoredPeer};
use libp2p::{PeerId, swarm::NetworkBehaviour};

use super::Network;
use crate::driver::World;

impl<A: NetworkBehaviour> World for Network<A> {
    type App = A;
    type AppEvent = A::ToSwarm;

    fn execute(&mut self, command: &Command) {
        Self::execute(self, command);
    }

    fn app_mut(&mut self) -> &mut A {
        Self::app_mut(self)
    }

    fn remember(&mut self, stored: &StoredPeer) {
        Self::remember(self, stored);
    }

    fn counters(&self, counters: &mut BTreeMap<String, u64>) {
        counters.extend(Self::counters(self).iter().map(|(name, count)| (name.to_owned(), count)));
    }

    fn standing(&self) -> usize {
        self.swarm.connected_peers().count()
    }

    fn farewell(&mut self) {
        let peers: Vec<PeerId> = self.swarm.connected_peers().copied().collect();
        for peer in peers {
            // An error means that it is gone already.
            let _ = self.swarm.disconnect_peer_id(peer);
        }
    }
}
