//! TCP and QUIC below one guard, names above it, and circuits through relays beside all that.

use std::{
    io,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use futures::{FutureExt, TryFutureExt, future::BoxFuture};
use futures_timer::Delay;
use libp2p::{
    Multiaddr, PeerId, Transport, TransportError,
    core::{
        muxing::{StreamMuxer, StreamMuxerBox, StreamMuxerEvent, SubstreamBox},
        transport::{Boxed, DialOpts, ListenerId, TransportEvent},
        upgrade::Version,
    },
    dns,
    identity::Keypair,
    multiaddr::Protocol,
    noise, quic, tcp, yamux,
};

use super::{
    NetworkError, NetworkSettings,
    guard::{Guard, GuardError, Openings},
    relay::CircuitTransport,
};

/// One address may take this long to connect, encrypt and agree on a muxer.
const ADDRESS_PATIENCE: Duration = Duration::from_secs(10);
/// A name with all its look-ups and addresses may take this long.
const NAME_PATIENCE: Duration = Duration::from_secs(30);
/// After this, a connection that is being closed is given up: a dead link never takes the last bytes.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);

/// What every transport yields in the end.
type Output = (PeerId, StreamMuxerBox);

/// TCP (Noise, Yamux) and QUIC, guarded, below DNS.
///
/// # Errors
/// When no Noise key can be made of `key`.
pub(super) fn internet(
    key: &Keypair,
    settings: &NetworkSettings,
    open: Openings,
) -> Result<Boxed<Output>, NetworkError> {
    let tcp = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
        .map_err(TcpError)
        .upgrade(Version::V1Lazy)
        .authenticate(noise(key)?)
        .multiplex(yamux(settings))
        .inbound_timeout(ADDRESS_PATIENCE);

    let mut config = quic::Config::new(key);
    config.keep_alive_interval = settings.quic_keep_alive;
    config.max_idle_timeout = u32::try_from(settings.quic_idle.as_millis()).unwrap_or(u32::MAX);
    config.max_concurrent_stream_limit = settings.streams;
    config.max_stream_data = settings.stream_window;
    config.max_connection_data = settings.connection_window;
    let quic = quic::tokio::Transport::new(config)
        .map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection)))
        .boxed();

    let both = either(quic, tcp.boxed());
    Ok(Names { inner: Shared(Arc::new(Mutex::new(guarded(both, open)))) }.boxed())
}

/// A transport, and beside it circuits (Noise, Yamux) through relays that are reached by it.
///
/// # Errors
/// When no Noise key can be made of `key`.
pub(super) fn with_circuits(
    key: &Keypair,
    settings: &NetworkSettings,
    circuits: CircuitTransport,
    direct: Boxed<Output>,
) -> Result<Boxed<Output>, NetworkError> {
    let circuits = circuits
        .upgrade(Version::V1Lazy)
        .authenticate(noise(key)?)
        .multiplex(yamux(settings))
        .inbound_timeout(ADDRESS_PATIENCE)
        .map(|(peer, muxer), _| (peer, closing(StreamMuxerBox::new(muxer))))
        .boxed();
    Ok(either(circuits, direct))
}

/// The first one that takes an address.
fn either(first: Boxed<Output>, second: Boxed<Output>) -> Boxed<Output> {
    first.or_transport(second).map(|either, _| either.into_inner()).map_err(|either| either.into_inner()).boxed()
}

fn noise(key: &Keypair) -> Result<noise::Config, NetworkError> {
    noise::Config::new(key).map_err(|error| NetworkError::Key(error.to_string()))
}

fn yamux(settings: &NetworkSettings) -> yamux::Config {
    let mut config = yamux::Config::default();
    config.set_max_num_streams(settings.streams as usize);
    config
}

/// Any transport behind the guard.
pub(super) fn guarded(inner: Boxed<Output>, open: Openings) -> Guard<Boxed<Output>> {
    let patient = inner.map(|(peer, muxer), _| (peer, closing(muxer))).boxed();
    Guard::new(patient, open, ADDRESS_PATIENCE)
}

/// What TCP says. A type of its own, because the `Either`s that libp2p's upgrades put around it show only what lies
/// below the error in them.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct TcpError(#[source] io::Error);

/// Looks up names, with the system's name servers as they are at that moment: a machine may start without a network,
/// and move from one to another.
struct Names {
    inner: Shared,
}

impl Transport for Names {
    type Output = Output;
    type Error = dns::Error<GuardError>;
    type ListenerUpgrade = BoxFuture<'static, Result<Output, Self::Error>>;
    type Dial = BoxFuture<'static, Result<Output, Self::Error>>;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<Self::Error>> {
        self.inner.listen_on(id, address).map_err(|error| error.map(dns::Error::Transport))
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.inner.remove_listener(id)
    }

    fn dial(&mut self, address: Multiaddr, opts: DialOpts) -> Result<Self::Dial, TransportError<Self::Error>> {
        let named = address.iter().any(|part| {
            matches!(part, Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_) | Protocol::Dnsaddr(_))
        });
        if !named {
            let dial = self.inner.dial(address, opts).map_err(|error| error.map(dns::Error::Transport))?;
            return Ok(dial.map_err(dns::Error::Transport).boxed());
        }
        let inner = self.inner.clone();
        Ok(async move {
            let mut names = dns::tokio::Transport::system(inner.clone()).unwrap_or_else(|error| {
                tracing::debug!(%error, "no name servers; only the hosts file is asked");
                dns::tokio::Transport::custom(inner, dns::ResolverConfig::default(), dns::ResolverOpts::default())
            });
            let dial = names.dial(address, opts).map_err(|error| match error {
                TransportError::MultiaddrNotSupported(address) => dns::Error::MultiaddrNotSupported(address),
                TransportError::Other(error) => error,
            })?;
            // libp2p-dns 0.45 panics on an answer without records in its answer section, which any name server can give.
            let dial = AssertUnwindSafe(dial).catch_unwind();
            match futures::future::select(dial, Delay::new(NAME_PATIENCE)).await {
                futures::future::Either::Left((Ok(output), _)) => output,
                futures::future::Either::Left((Err(_panic), _)) => Err(dns::Error::Transport(GuardError::Lookup)),
                futures::future::Either::Right(((), _)) => Err(dns::Error::Transport(GuardError::TimedOut)),
            }
        }
        .boxed())
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, Self::Error>> {
        Pin::new(&mut self.inner).poll(cx).map(|event| {
            event.map_upgrade(|upgrade| upgrade.map_err(dns::Error::Transport).boxed()).map_err(dns::Error::Transport)
        })
    }
}

/// The guarded transport, shared with the look-ups under way.
#[derive(Clone)]
struct Shared(Arc<Mutex<Guard<Boxed<Output>>>>);

impl Transport for Shared {
    type Output = Output;
    type Error = GuardError;
    type ListenerUpgrade = BoxFuture<'static, Result<Output, GuardError>>;
    type Dial = BoxFuture<'static, Result<Output, GuardError>>;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<GuardError>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).listen_on(id, address)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove_listener(id)
    }

    fn dial(&mut self, address: Multiaddr, opts: DialOpts) -> Result<Self::Dial, TransportError<GuardError>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).dial(address, opts)
    }

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<TransportEvent<Self::ListenerUpgrade, GuardError>> {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Pin::new(&mut *inner).poll(cx)
    }
}

/// A connection whose closing ends. Yamux waits until the other side has taken what was sent, and over a link that is
/// cut that is as long as the operating system tries: a quarter of an hour.
struct Closing {
    muxer: StreamMuxerBox,
    deadline: Option<Delay>,
}

fn closing(muxer: StreamMuxerBox) -> StreamMuxerBox {
    StreamMuxerBox::new(Closing { muxer, deadline: None })
}

impl StreamMuxer for Closing {
    type Substream = SubstreamBox;
    type Error = io::Error;

    fn poll_inbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<SubstreamBox, io::Error>> {
        Pin::new(&mut self.muxer).poll_inbound(cx)
    }

    fn poll_outbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<SubstreamBox, io::Error>> {
        Pin::new(&mut self.muxer).poll_outbound(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        if let Poll::Ready(closed) = Pin::new(&mut self.muxer).poll_close(cx) {
            return Poll::Ready(closed);
        }
        let deadline = self.deadline.get_or_insert_with(|| Delay::new(CLOSE_PATIENCE));
        deadline.poll_unpin(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, io::Error>> {
        Pin::new(&mut self.muxer).poll(cx)
    }
}

/// Seeds the random numbers of QUIC's TLS on another thread. They are seeded at first use, in the middle of the first dial:
/// a program that is built without this workspace's `.cargo/config.toml` has its processor busy with it for 30 to 130 ms.
pub(super) fn warm_up() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let seed = || {
            let mut some = [0; 1];
            if aws_lc_rs::rand::fill(&mut some).is_err() {
                tracing::warn!("no random numbers for QUIC yet");
            }
        };
        if let Err(error) = std::thread::Builder::new().name("seed".to_owned()).spawn(seed) {
            tracing::debug!(%error, "no thread to seed random numbers; the first dial does it");
        }
    });
}
