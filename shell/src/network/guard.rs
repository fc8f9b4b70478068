//! A wall around the transports: an address that is not global is dialled only while the core has opened it.
//!
//! Others can make this node dial: Kademlia follows addresses that strangers tell, a name may resolve to anything,
//! and an AutoNAT server dials whatever it is asked to. Without the wall, a stranger could search the home network
//! through us. A transport is not told whose dial it is, so while the core dials an address, anyone may.

use std::{
    collections::HashMap,
    fmt, io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use futures_timer::Delay;
use kinfolk_core::{Scope, Transport as Kind};
use libp2p::{
    Multiaddr, Transport, TransportError,
    core::transport::{DialOpts, ListenerId, TransportEvent},
};

use super::ids;

/// What the core has opened, shared between the network and its transports.
#[derive(Clone, Debug, Default)]
pub(crate) struct Openings(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    exact: HashMap<Multiaddr, u32>,
    ports: HashMap<(u16, Kind), u32>,
    any: u32,
}

/// One thing that is open.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Opening {
    /// This address, without a peer's id.
    Exact(Multiaddr),
    /// Every address with this port and transport: a name that a person wrote may resolve to any.
    Port(u16, Kind),
    /// Everything: a `/dnsaddr` that a person wrote may name any address.
    Any,
}

impl Openings {
    /// Opens, for as often as it is called.
    pub(crate) fn open(&self, opening: &Opening) {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match opening {
            Opening::Exact(address) => *table.exact.entry(address.clone()).or_default() += 1,
            Opening::Port(port, kind) => *table.ports.entry((*port, *kind)).or_default() += 1,
            Opening::Any => table.any += 1,
        }
    }

    /// Undoes one `open`.
    pub(crate) fn close(&self, opening: &Opening) {
        fn less<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, u32>, key: &K) {
            if let Some(count) = counts.get_mut(key) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(key);
                }
            }
        }
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match opening {
            Opening::Exact(address) => less(&mut table.exact, address),
            Opening::Port(port, kind) => less(&mut table.ports, &(*port, *kind)),
            Opening::Any => table.any = table.any.saturating_sub(1),
        }
    }

    fn allow(&self, address: &Multiaddr) -> bool {
        if ids::on_the_internet(address) {
            return true;
        }
        let table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let by_port = || {
            ids::endpoint(address).is_some_and(|(ip, port, kind)| {
                Scope::of(ip).is_dialable() && (table.any > 0 || table.ports.contains_key(&(port, kind)))
            })
        };
        table.exact.contains_key(&ids::without_peer(address.clone())) || by_port()
    }
}

/// The wall itself. Also ends dials that take too long: its clock starts when the dial really begins, not when it is
/// queued behind better addresses.
#[derive(Debug)]
pub(crate) struct Guard<T> {
    inner: T,
    open: Openings,
    patience: Duration,
}

impl<T> Guard<T> {
    pub(crate) fn new(inner: T, open: Openings, patience: Duration) -> Self {
        Self { inner, open, patience }
    }
}

/// What goes wrong at the wall or behind it.
#[derive(Debug)]
pub(crate) enum GuardError {
    /// The address is not global, and not open.
    NotAllowed(Multiaddr),
    /// It took too long.
    TimedOut,
    /// Looking up a name went wrong inside the library.
    Lookup,
    /// The transport's own error.
    Transport(io::Error),
}

impl fmt::Display for GuardError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAllowed(address) => write!(f, "{address} is not dialled: not global, and not asked for"),
            Self::TimedOut => f.write_str("no answer in time"),
            Self::Lookup => f.write_str("the name's records can't be read"),
            Self::Transport(error) => fmt::Display::fmt(error, f),
        }
    }
}

impl std::error::Error for GuardError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Transport(error) => Some(error),
            Self::NotAllowed(_) | Self::TimedOut | Self::Lookup => None,
        }
    }
}

impl<T> Transport for Guard<T>
where
    T: Transport<Error = io::Error> + Unpin,
    T::Dial: Send + 'static,
    T::ListenerUpgrade: Send + 'static,
    T::Output: 'static,
{
    type Output = T::Output;
    type Error = GuardError;
    type ListenerUpgrade = BoxFuture<'static, Result<T::Output, GuardError>>;
    type Dial = BoxFuture<'static, Result<T::Output, GuardError>>;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<GuardError>> {
        self.inner.listen_on(id, address).map_err(|error| error.map(GuardError::Transport))
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.inner.remove_listener(id)
    }

    fn dial(&mut self, address: Multiaddr, opts: DialOpts) -> Result<Self::Dial, TransportError<GuardError>> {
        if !self.open.allow(&address) {
            return Err(TransportError::Other(GuardError::NotAllowed(ids::without_peer(address))));
        }
        let dial = self.inner.dial(address, opts).map_err(|error| error.map(GuardError::Transport))?;
        let patience = self.patience;
        Ok(async move {
            match futures::future::select(Box::pin(dial), Delay::new(patience)).await {
                futures::future::Either::Left((output, _)) => output.map_err(GuardError::Transport),
                futures::future::Either::Right(((), _)) => Err(GuardError::TimedOut),
            }
        }
        .boxed())
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<TransportEvent<Self::ListenerUpgrade, GuardError>> {
        Pin::new(&mut self.inner).poll(cx).map(|event| {
            event
                .map_upgrade(|upgrade| upgrade.map(|output| output.map_err(GuardError::Transport)).boxed())
                .map_err(GuardError::Transport)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    #[test]
    fn global_addresses_are_always_open() {
        let open = Openings::default();
        assert!(open.allow(&address("/ip4/45.10.20.1/tcp/1")));
        assert!(open.allow(&address("/ip6/2a01:4f8::1/udp/1/quic-v1")));
        for text in [
            "/ip4/192.168.1.1/tcp/80",
            "/ip4/127.0.0.1/tcp/1",
            "/ip4/100.64.0.1/tcp/1",
            "/ip6/fe80::1/tcp/1",
            "/ip6/::ffff:192.168.1.1/tcp/1",
            "/ip4/45.10.20.1/tcp/1/ip4/192.168.1.1/tcp/80",
            "/memory/1",
            "/dns4/node.example/tcp/1",
        ] {
            assert!(!open.allow(&address(text)), "{text}");
        }
    }

    #[test]
    fn what_is_opened_twice_is_closed_twice() {
        let open = Openings::default();
        let lan = address("/ip4/192.168.1.1/tcp/80");
        let opening = Opening::Exact(lan.clone());
        open.open(&opening);
        open.open(&opening);
        open.close(&opening);
        assert!(open.allow(&lan));
        assert!(open.allow(&lan.clone().with_p2p(libp2p::PeerId::random()).unwrap()));
        assert!(!open.allow(&address("/ip4/192.168.1.1/tcp/81")));
        open.close(&opening);
        assert!(!open.allow(&lan));
        open.close(&opening);
        assert!(!open.allow(&lan));
    }

    #[test]
    fn a_name_opens_its_port_and_transport_only() {
        let open = Openings::default();
        open.open(&Opening::Port(4001, Kind::Tcp));
        assert!(open.allow(&address("/ip4/192.168.1.1/tcp/4001")));
        assert!(!open.allow(&address("/ip4/192.168.1.1/udp/4001/quic-v1")));
        assert!(!open.allow(&address("/ip4/192.168.1.1/tcp/80")));
        assert!(!open.allow(&address("/ip4/224.0.0.1/tcp/4001")), "never a group");
        open.open(&Opening::Any);
        assert!(open.allow(&address("/ip4/192.168.1.1/tcp/80")));
        assert!(!open.allow(&address("/ip4/45.10.20.1/tcp/1/ip4/192.168.1.1/tcp/80")));
    }
}
