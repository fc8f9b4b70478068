//! Ports of the home router that lead to ours, by UPnP, NAT-PMP or PCP.
//!
//! The `portmapper` crate finds the router, asks it, renews and gives back. It works on tokio, and is started only once
//! the core asks for a port. It looks at the system's default route whenever it asks the router something, but does
//! nothing by itself when the network changes, nor again after a failure: that is for the core to say, by asking again.

use std::{
    collections::VecDeque,
    fmt, io,
    net::{IpAddr, Ipv4Addr, UdpSocket},
    num::NonZeroU16,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures::{FutureExt, Stream, StreamExt, future::BoxFuture, stream::BoxStream};
use futures_timer::Delay;
use kinfolk_core::{Address, Event, Transport};
use netwatch::interfaces::HomeRouter;
use portmapper::{Client, Config, ProbeOutput, Protocol};

/// How long a port that is given back may take: a word with the router.
const GIVING_BACK: Duration = Duration::from_secs(5);

/// The ports that the core has asked for: a stream of what becomes of them, which never ends.
#[derive(Debug, Default)]
pub(crate) struct PortMapping {
    tcp: Option<Port>,
    quic: Option<Port>,
    leaving: Vec<Leaving>,
    events: VecDeque<Event>,
}

enum Port {
    /// Which services the router has is being found out.
    Probing { port: NonZeroU16, probe: BoxFuture<'static, (Client, ProbeOutput)> },
    /// The router has none.
    Unmappable,
    /// The router is asked by one of them.
    Asked {
        port: NonZeroU16,
        service: Service,
        client: Client,
        news: BoxStream<'static, Option<Address>>,
        mapped: bool,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Service {
    Upnp,
    NatPmp,
    Pcp,
}

/// A port that is being given back.
struct Leaving {
    _client: Client,
    until: Delay,
}

impl PortMapping {
    /// Asks the router for a port. What it gave before is given back: it may be another router by now, or one that has
    /// forgotten. `false`: not here, for want of tokio or of a port.
    pub(crate) fn ask_for(&mut self, transport: Transport, port: u16) -> bool {
        let Some(port) = NonZeroU16::new(port) else { return false };
        if tokio::runtime::Handle::try_current().is_err() {
            return false;
        }
        if self.give_back(transport) {
            self.events.push_back(Event::PortUnmapped { transport });
        }
        // A new client each time: what an older one has learnt of another network would mislead it.
        let client = Client::new(Config { protocol: protocol(transport), ..Config::default() });
        let probe = async move {
            let nothing = ProbeOutput { upnp: false, pcp: false, nat_pmp: false };
            let found = client.probe().await.ok().and_then(Result::ok).unwrap_or(nothing);
            (client, found)
        };
        *self.of(transport) = Some(Port::Probing { port, probe: probe.boxed() });
        true
    }

    /// Gives a port back. Says whether there was one.
    pub(crate) fn give_back(&mut self, transport: Transport) -> bool {
        let Some(Port::Asked { port, service, client, mapped: true, .. }) = self.of(transport).take() else {
            return false;
        };
        if (service, transport) == (Service::NatPmp, Transport::Tcp) {
            if let Err(error) = give_back_tcp_by_nat_pmp(port) {
                tracing::debug!(%error, "the router is not told that a port is given back");
            }
        } else {
            client.deactivate();
            self.leaving.push(Leaving { _client: client, until: Delay::new(GIVING_BACK) });
        }
        true
    }

    /// Gives all ports back.
    pub(crate) fn farewell(&mut self) {
        self.give_back(Transport::Tcp);
        self.give_back(Transport::Quic);
    }

    /// Ports that the router has given, and that are not surely given back.
    pub(crate) fn standing(&self) -> usize {
        let ports = self.tcp.iter().chain(&self.quic);
        self.leaving.len() + ports.filter(|port| matches!(port, Port::Asked { mapped: true, .. })).count()
    }

    fn of(&mut self, transport: Transport) -> &mut Option<Port> {
        match transport {
            Transport::Tcp => &mut self.tcp,
            Transport::Quic => &mut self.quic,
        }
    }
}

impl Port {
    fn poll(&mut self, transport: Transport, cx: &mut Context<'_>) -> Poll<Event> {
        match self {
            Self::Probing { port, probe } => {
                let Poll::Ready((client, found)) = probe.poll_unpin(cx) else { return Poll::Pending };
                *self = Self::ask(transport, *port, client, &found);
                let ProbeOutput { upnp, nat_pmp, pcp } = found;
                Poll::Ready(Event::Gateway { upnp, nat_pmp, pcp })
            }
            Self::Unmappable => Poll::Pending,
            Self::Asked { news, mapped, .. } => match news.poll_next_unpin(cx) {
                Poll::Ready(Some(Some(external))) => {
                    *mapped = true;
                    Poll::Ready(Event::PortMapped { transport, external })
                }
                Poll::Ready(Some(None)) => {
                    *mapped = false;
                    Poll::Ready(Event::PortUnmapped { transport })
                }
                Poll::Ready(None) | Poll::Pending => Poll::Pending,
            },
        }
    }

    /// By one service only. A client with several forgets after 10 minutes which of them the router has, and then renews
    /// by UPnP. NAT-PMP first, which renews best; PCP last: the crate renews under another nonce, which a router must
    /// refuse (RFC 6887, section 11.3), so the port is lost once in its lifetime of an hour, and has to be asked for anew.
    fn ask(transport: Transport, port: NonZeroU16, client: Client, found: &ProbeOutput) -> Self {
        let service = match found {
            ProbeOutput { nat_pmp: true, .. } => Service::NatPmp,
            ProbeOutput { upnp: true, .. } => Service::Upnp,
            ProbeOutput { pcp: true, .. } => Service::Pcp,
            ProbeOutput { .. } => return Self::Unmappable,
        };
        // The one that has found the router by UPnP need not look for it again; but it prefers PCP.
        let client = if service == Service::Upnp && !found.pcp {
            client
        } else {
            Client::new(Config {
                enable_upnp: service == Service::Upnp,
                enable_pcp: service == Service::Pcp,
                enable_nat_pmp: service == Service::NatPmp,
                protocol: protocol(transport),
            })
        };
        client.update_local_port(port);
        let news = futures::stream::unfold(client.watch_external_address(), move |mut watch| async move {
            watch.changed().await.ok()?;
            let external = *watch.borrow_and_update();
            Some((external.map(|at| Address::ip((*at.ip()).into(), at.port(), transport)), watch))
        });
        Self::Asked { port, service, client, news: news.boxed(), mapped: false }
    }
}

fn protocol(transport: Transport) -> Protocol {
    match transport {
        Transport::Tcp => Protocol::Tcp,
        Transport::Quic => Protocol::Udp,
    }
}

/// portmapper 0.20 gives every port back as a UDP port by NAT-PMP, so it would take our QUIC port of the same number from
/// us and leave the TCP port open.
fn give_back_tcp_by_nat_pmp(port: NonZeroU16) -> io::Result<()> {
    const NAT_PMP: u16 = 5351;
    let gateway = HomeRouter::new().map(|router| router.gateway).ok_or(io::ErrorKind::HostUnreachable)?;
    let [high, low] = port.get().to_be_bytes();
    // RFC 6886, section 3.4: version 0, operation 2 (TCP); our port; no outer port, no lifetime.
    let message = [0, 2, 0, 0, high, low, 0, 0, 0, 0, 0, 0];
    let socket = UdpSocket::bind((IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0))?;
    socket.set_nonblocking(true)?;
    socket.send_to(&message, (gateway, NAT_PMP)).map(drop)
}

impl Stream for PortMapping {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        self.leaving.retain_mut(|leaving| leaving.until.poll_unpin(cx).is_pending());
        if let Some(event) = self.events.pop_front() {
            return Poll::Ready(Some(event));
        }
        for transport in [Transport::Tcp, Transport::Quic] {
            if let Some(port) = self.of(transport)
                && let Poll::Ready(event) = port.poll(transport, cx)
            {
                return Poll::Ready(Some(event));
            }
        }
        Poll::Pending
    }
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Probing { port, .. } => f.debug_struct("Probing").field("port", port).finish_non_exhaustive(),
            Self::Unmappable => f.write_str("Unmappable"),
            Self::Asked { port, service, mapped, .. } => f
                .debug_struct("Asked")
                .field("port", port)
                .field("service", service)
                .field("mapped", mapped)
                .finish_non_exhaustive(),
        }
    }
}

impl fmt::Debug for Leaving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leaving").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_started_before_a_port_is_asked_for_nor_without_tokio() {
        let mut ports = PortMapping::default();
        assert!(ports.next().now_or_never().is_none());
        assert!(!ports.ask_for(Transport::Tcp, 4001));
        assert!(!ports.give_back(Transport::Tcp));
        ports.farewell();
        assert_eq!(ports.standing(), 0);
    }

    #[tokio::test]
    async fn a_port_of_no_number_is_none() {
        assert!(!PortMapping::default().ask_for(Transport::Quic, 0));
    }
}
