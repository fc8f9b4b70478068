//! Ports of the home router that lead to ours, by UPnP, NAT-PMP and PCP.
//!
//! The `portmapper` crate finds the router, asks it, renews and gives back. It works on tokio, and is started only once
//! the core asks for a port. It looks at the system's default route at each of its attempts, but it attempts nothing when
//! the network changes, nor again after a failure: that is the core's, by asking again.

use std::{
    fmt,
    num::NonZeroU16,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures::{FutureExt, Stream, StreamExt, future::BoxFuture, stream::BoxStream};
use futures_timer::Delay;
use kinfolk_core::{Address, Event, Transport};
use portmapper::{Client, ProbeOutput, Protocol};

/// How long a port that is given back may take: a word with the router.
const GIVING_BACK: Duration = Duration::from_secs(5);

/// The ports that the core has asked for: a stream of what becomes of them, which never ends.
#[derive(Debug, Default)]
pub(crate) struct PortMapping {
    tcp: Option<Port>,
    quic: Option<Port>,
    leaving: Vec<Leaving>,
}

struct Port {
    transport: Transport,
    client: Client,
    port: NonZeroU16,
    /// Under way: which services the router has. The port is asked for after it, since without its result only UPnP is
    /// tried.
    probe: Option<BoxFuture<'static, Option<ProbeOutput>>>,
    news: BoxStream<'static, Option<Address>>,
    mapped: Option<Address>,
    /// Whether the core waits to hear again what it knows.
    again: bool,
}

/// A port that is being given back.
struct Leaving {
    _client: Client,
    until: Delay,
}

impl PortMapping {
    /// Asks for a port, or again for the same one. The router is probed each time. `false`: not here, for want of tokio
    /// or of a port.
    pub(crate) fn map(&mut self, transport: Transport, port: u16) -> bool {
        let Some(port) = NonZeroU16::new(port) else { return false };
        if tokio::runtime::Handle::try_current().is_err() {
            return false;
        }
        let of_transport = self.of(transport);
        match of_transport {
            Some(known) => {
                known.port = port;
                known.probe();
            }
            None => *of_transport = Some(Port::new(transport, port)),
        }
        true
    }

    /// Gives a port back.
    pub(crate) fn unmap(&mut self, transport: Transport) {
        if let Some(port) = self.of(transport).take() {
            port.client.deactivate();
            self.leaving.push(Leaving { _client: port.client, until: Delay::new(GIVING_BACK) });
        }
    }

    /// Gives all ports back.
    pub(crate) fn farewell(&mut self) {
        self.unmap(Transport::Tcp);
        self.unmap(Transport::Quic);
    }

    /// Ports that the router has given, or may have: they are not given back yet.
    pub(crate) fn standing(&self) -> usize {
        self.leaving.len() + self.tcp.iter().chain(&self.quic).count()
    }

    fn of(&mut self, transport: Transport) -> &mut Option<Port> {
        match transport {
            Transport::Tcp => &mut self.tcp,
            Transport::Quic => &mut self.quic,
        }
    }
}

impl Port {
    fn new(transport: Transport, port: NonZeroU16) -> Self {
        let protocol = match transport {
            Transport::Tcp => Protocol::Tcp,
            Transport::Quic => Protocol::Udp,
        };
        let client = Client::new(portmapper::Config { protocol, ..portmapper::Config::default() });
        let watch = client.watch_external_address();
        let news = futures::stream::unfold(watch, move |mut watch| async move {
            watch.changed().await.ok()?;
            let external = *watch.borrow_and_update();
            let external = external.map(|at| Address::ip((*at.ip()).into(), at.port(), transport));
            Some((external, watch))
        });
        let mut this = Self { transport, client, port, probe: None, news: news.boxed(), mapped: None, again: false };
        this.probe();
        this
    }

    fn probe(&mut self) {
        let probe = self.client.probe();
        self.probe = Some(async move { probe.await.ok()?.ok() }.boxed());
        self.again = self.mapped.is_some();
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        if let Some(probe) = &mut self.probe
            && let Poll::Ready(output) = probe.poll_unpin(cx)
        {
            self.probe = None;
            self.client.update_local_port(self.port);
            // The same port again, without a mapping: another try.
            self.client.procure_mapping();
            let none = ProbeOutput { upnp: false, pcp: false, nat_pmp: false };
            let ProbeOutput { upnp, pcp, nat_pmp } = output.unwrap_or(none);
            return Poll::Ready(Event::Gateway { upnp, nat_pmp, pcp });
        }
        if let Poll::Ready(Some(external)) = self.news.poll_next_unpin(cx) {
            self.again = false;
            self.mapped = external;
            return Poll::Ready(self.now());
        }
        if self.probe.is_none() && std::mem::take(&mut self.again) {
            return Poll::Ready(self.now());
        }
        Poll::Pending
    }

    fn now(&self) -> Event {
        let transport = self.transport;
        match &self.mapped {
            Some(external) => Event::PortMapped { transport, external: external.clone() },
            None => Event::PortUnmapped { transport },
        }
    }
}

impl Stream for PortMapping {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        self.leaving.retain_mut(|leaving| leaving.until.poll_unpin(cx).is_pending());
        let this = &mut *self;
        for port in [&mut this.tcp, &mut this.quic].into_iter().flatten() {
            if let Poll::Ready(event) = port.poll(cx) {
                return Poll::Ready(Some(event));
            }
        }
        Poll::Pending
    }
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Port").field("port", &self.port).field("mapped", &self.mapped).finish_non_exhaustive()
    }
}

impl fmt::Debug for Leaving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leaving").finish_non_exhaustive()
    }
}
