//! For whom this node does something: who belongs to the network, and which services are on.
//!
//! The core says so; behaviours that serve others read it when they are asked. Both tables are shared: a clone is the
//! same table.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

use kinfolk_core::Audience;
use libp2p::PeerId;

/// The members of the network, as the core counts them: as many as it keeps peers at most.
#[derive(Clone, Debug, Default)]
pub(super) struct Members(Arc<Mutex<HashSet<PeerId>>>);

impl Members {
    /// Counts a peer among the members, or no longer.
    pub(super) fn set(&self, peer: PeerId, member: bool) {
        let mut members = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if member {
            members.insert(peer);
        } else {
            members.remove(&peer);
        }
    }

    /// Whether the peer is one of those whom a service is for.
    pub(super) fn are_served(&self, audience: Audience, peer: &PeerId) -> bool {
        match audience {
            Audience::Nobody => false,
            Audience::Members => self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(peer),
            Audience::Anyone => true,
        }
    }
}

/// Whom the services are for. Nobody at first.
#[derive(Clone, Debug, Default)]
pub(super) struct Services(Arc<Mutex<Audiences>>);

/// See [`Services`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Audiences {
    /// Whom to relay for.
    pub(super) relay: Audience,
    /// Whom to probe addresses for.
    pub(super) probes: Audience,
}

impl Services {
    pub(super) fn set(&self, audiences: Audiences) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = audiences;
    }

    pub(super) fn get(&self) -> Audiences {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_served_where_strangers_are_not() {
        let (members, peer, stranger) = (Members::default(), PeerId::random(), PeerId::random());
        let shared = members.clone();
        members.set(peer, true);
        for (audience, of_member, of_stranger) in
            [(Audience::Nobody, false, false), (Audience::Members, true, false), (Audience::Anyone, true, true)]
        {
            let served = |peer| shared.are_served(audience, peer);
            assert_eq!((served(&peer), served(&stranger)), (of_member, of_stranger), "{audience:?}");
        }
        members.set(peer, false);
        assert!(!shared.are_served(Audience::Members, &peer));
    }
}
