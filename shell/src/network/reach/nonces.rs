//! The secret numbers of the probes under way, shared between the behaviour and its handlers: a number must be marked
//! as come before the server hears so, or its verdict, on another connection, may overtake it.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use kinfolk_core::Transport;
use libp2p::Multiaddr;

use super::super::ids;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Nonces(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    open: HashMap<u64, Asked>,
    /// Counts probes and arrivals, to tell which came first.
    moment: u64,
}

#[derive(Debug)]
struct Asked {
    begun: u64,
    endpoint: Option<(IpAddr, u16, Transport)>,
    came: bool,
}

/// An inbound connection, as far as it tells what a number that comes over it proves.
#[derive(Clone, Debug)]
pub(super) struct Arrival {
    moment: u64,
    local: Option<(IpAddr, u16, Transport)>,
}

impl Nonces {
    /// A number for a probe of `address`, unless the system has no random numbers.
    pub(super) fn begin(&self, address: &Multiaddr) -> Option<u64> {
        let mut bytes = [0; 8];
        aws_lc_rs::rand::fill(&mut bytes).ok()?;
        let nonce = u64::from_ne_bytes(bytes);
        let mut table = self.table();
        table.moment += 1;
        let asked = Asked { begun: table.moment, endpoint: ids::endpoint(address), came: false };
        table.open.insert(nonce, asked);
        Some(nonce)
    }

    /// The probe is over. Says whether its number has come.
    pub(super) fn end(&self, nonce: u64) -> bool {
        self.table().open.remove(&nonce).is_some_and(|asked| asked.came)
    }

    /// Whether any is awaited.
    pub(super) fn any(&self) -> bool {
        !self.table().open.is_empty()
    }

    /// A connection has come in at `local`, an address of this machine.
    pub(super) fn arrival(&self, local: &Multiaddr) -> Arrival {
        let mut table = self.table();
        table.moment += 1;
        Arrival { moment: table.moment, local: ids::endpoint(local) }
    }

    /// Takes a number that came over a connection. It proves something only over a new connection, of the address's own
    /// transport and family: a server that has a way in already could say anything. It need not be the server's own
    /// connection; some dial back under another name.
    pub(super) fn mark(&self, nonce: u64, over: &Arrival) -> bool {
        let mut table = self.table();
        let Some(asked) = table.open.get_mut(&nonce) else { return false };
        let fits = match (&asked.endpoint, &over.local) {
            (Some((asked, _, by)), Some((came, _, over))) => asked.is_ipv4() == came.is_ipv4() && by == over,
            (None, _) | (_, None) => true,
        };
        let proven = fits && asked.begun < over.moment;
        asked.came |= proven;
        proven
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_number_proves_something_only_over_a_new_connection_that_fits_the_address() {
        let nonces = Nonces::default();
        let early = nonces.arrival(&at("/ip4/192.168.1.7/tcp/4001"));
        let nonce = nonces.begin(&at("/ip4/45.10.20.1/tcp/4001")).unwrap();
        assert!(!nonces.mark(nonce, &early), "was there before");
        for other in ["/ip4/192.168.1.7/udp/4001/quic-v1", "/ip6/2a01::1/tcp/4001"] {
            assert!(!nonces.mark(nonce, &nonces.arrival(&at(other))), "{other}");
        }
        assert!(!nonces.mark(nonce.wrapping_add(1), &nonces.arrival(&at("/ip4/192.168.1.7/tcp/4001"))));
        assert!(nonces.any());
        assert!(!nonces.end(nonce), "nothing of all this was a proof");

        let nonce = nonces.begin(&at("/ip4/45.10.20.1/tcp/4001")).unwrap();
        assert!(nonces.mark(nonce, &nonces.arrival(&at("/ip4/192.168.1.7/tcp/4001"))));
        assert!(nonces.end(nonce));
        assert!(!nonces.any() && !nonces.end(nonce));
    }

    #[test]
    fn a_name_may_be_reached_by_either_family() {
        let nonces = Nonces::default();
        let nonce = nonces.begin(&at("/dns/node.example/tcp/4001")).unwrap();
        assert!(nonces.mark(nonce, &nonces.arrival(&at("/ip6/2a01::1/tcp/4001"))));
    }
}
