//! The network: the only place that knows libp2p.
//!
//! [`Network`] turns the core's commands into calls of libp2p, and libp2p's events into the core's. It decides nothing:
//! what a stock behaviour would decide by itself (whom to dial, which own addresses to believe) comes out as an event
//! and waits for a command. What it does by itself is to keep hostile input small: lists are cut, repeats are counted
//! together, nothing private is dialled that the core has not opened, nothing forged is kept.
//!
//! Under stress: strangers can fill the places for handshakes and connections, never those of pinned peers or of the
//! core's dials; somebody who floods us with one thing costs one event in 64; records and memberships that do not fit
//! are refused.

mod behaviour;
mod counters;
mod errors;
mod execute;
mod gate;
mod governed;
mod guard;
pub mod ids;
mod kademlia;
mod members;
mod pings;
mod punch;
mod reach;
mod record;
mod relay;
mod repeats;
mod settled;
mod shelf;
mod sync;
mod translate;
mod transport;
mod twin;

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    fmt, io,
    num::NonZeroUsize,
    pin::Pin,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use futures::{Stream, StreamExt};
use kinfolk_core::{
    Address, Asker, Command, CommandId, DialError, Event, HeldId, ListenerId as CoreListenerId, PeerId as CorePeerId,
    Source, StoredPeer, ValidConfig,
};
use libp2p::{
    Multiaddr, PeerId, Swarm,
    core::{
        muxing::StreamMuxerBox,
        transport::{Boxed, ListenerId},
        upgrade::Version,
    },
    identity::Keypair,
    kad::{self, QueryId},
    swarm::{self, ConnectionId, Executor, NetworkBehaviour},
};

pub use counters::Counters;

use crate::{
    driver::{Happened, World},
    port_mapping::PortMapping,
    signal::numbers::Numbers,
    sync::Logs,
};
use behaviour::{Behaviour, NetworkKeys, Routed};
use guard::{Opening, Openings};
use kademlia::Query;
use members::{Members, Services};
use punch::Punches;
use reach::{quota::Quota, serving::Terms};
use relay::Client;
use repeats::{Pace, Repeats};

/// More dials of behaviours than these are not held; the oldest is refused for a new one.
const MAX_HELD: usize = 64;
/// Names that a person wrote, and that may lead into the home network.
const MAX_NAMES: usize = 512;
/// After so many events of libp2p in a row, others get a turn.
const FAIR: usize = 256;

/// What a [`Network`] is made with. The fields that are not the configuration's: defaults in [`NetworkSettings::new`].
#[derive(Clone, Debug)]
pub struct NetworkSettings {
    /// Protocol names, limits, whether to use mDNS, whose connections have a reserve, which names are trusted.
    pub config: ValidConfig,
    /// What identify calls this program: `kinfolk/0.1.0`.
    pub agent: String,
    /// Numbers our records in the hash table. By default it begins anew with each network; with a signal client beside it, it
    /// is the same one.
    pub numbers: Numbers,
    /// A QUIC connection on which nothing happens sends something after this; default 28 s, below the usual 30 s of UDP
    /// mappings, and above `quic_ping_interval`, which spares it. Each such packet is a wake-up on both sides.
    pub quic_keep_alive: Duration,
    /// A QUIC connection from which nothing comes is dead after this; default 60 s. Must be above `quic_keep_alive`.
    pub quic_idle: Duration,
    /// How often each connection is pinged; default 15 s. Up to a quarter earlier, together with others.
    pub ping_interval: Duration,
    /// The same for direct connections by QUIC that we have dialled, from the third ping on; default 25 s, which is what
    /// WireGuard recommends to keep a way through NATs open. As they share turns they cost less than QUIC's own keep-alives.
    pub quic_ping_interval: Duration,
    /// The same where the other side has dialled, and pings, too; default 60 s. That nobody is there any more, QUIC notices by
    /// itself (`quic_idle`); with an outage of as long as that before an answer, it is within the two minutes of silence that
    /// the core takes for the end.
    pub quic_ping_heard: Duration,
    /// A ping without answer fails at the first turn after this; default 15 s: other rust-libp2p programs answer over QUIC as
    /// late as their own next ping, which is 15 s. The first failure is forgiven, so a cut link shows after at most three
    /// intervals: by TCP 45 s.
    pub ping_timeout: Duration,
    /// How often each peer is asked anew to introduce itself, and to say where it sees us; default 5 min. Other protocols
    /// than before it tells by itself. Must be well below `nat.observation_ttl`.
    pub identify_interval: Duration,
    /// How often the home network is asked who is there, once somebody has answered; default 30 s.
    pub mdns_interval: Duration,
    /// Handshakes of strangers under way; default 64, half of them from one /24 or /48.
    pub handshakes: u32,
    /// Streams of one connection whose protocol is being agreed on; default 64. Each may make us hold 16 KiB.
    pub negotiating: usize,
    /// Streams that may be open on one connection; default 256. Bounds Yamux at 256 KiB each.
    pub streams: u32,
    /// Bytes on the way on one QUIC stream; default 1 MiB: 10 MB/s over 100 ms.
    pub stream_window: u32,
    /// Bytes on the way on one QUIC connection; default 4 MiB, the most that a peer can make us hold.
    pub connection_window: u32,
    /// Peers in each of the 256 buckets of the hash table; default 20. libp2p sets aside 312 bytes for each from the start.
    pub bucket: NonZeroUsize,
}

impl NetworkSettings {
    /// The defaults.
    pub fn new(config: ValidConfig, agent: impl Into<String>) -> Self {
        Self {
            config,
            agent: agent.into(),
            numbers: Numbers::default(),
            quic_keep_alive: Duration::from_secs(28),
            quic_idle: Duration::from_secs(60),
            ping_interval: Duration::from_secs(15),
            quic_ping_interval: Duration::from_secs(25),
            quic_ping_heard: Duration::from_secs(60),
            ping_timeout: Duration::from_secs(15),
            identify_interval: Duration::from_secs(300),
            mdns_interval: Duration::from_secs(30),
            handshakes: 64,
            negotiating: 64,
            streams: 256,
            stream_window: 1 << 20,
            connection_window: 4 << 20,
            bucket: kad::K_VALUE,
        }
    }
}

/// Why there is no network.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The identity can't be used for encryption.
    #[error("the identity can't be used for encrypted connections: {0}")]
    Key(String),
    /// A protocol's name is none.
    #[error("protocols.{setting}: {name:?} is no protocol name; one looks like /elohim/kad/1.0.0")]
    Protocol {
        /// Which.
        setting: &'static str,
        /// What it is.
        name: String,
    },
    /// mDNS can't be started.
    #[error("looking for peers on the home network (mDNS) can't be started: {0}; `mdns = false` goes without")]
    Mdns(#[source] io::Error),
}

/// A node's network: a swarm, and the tables that connect its ids with the core's.
///
/// A stream that never ends. After [`Network::execute`] poll it again; it wakes its task by itself, too.
pub struct Network<A: NetworkBehaviour> {
    swarm: Swarm<Behaviour<A>>,
    key: Keypair,
    local: CorePeerId,
    network: NetworkKeys,
    open: Openings,
    routed: Routed,
    members: Members,
    services: Services,
    ports: PortMapping,
    logs: Option<Logs>,
    counters: Counters,
    out: VecDeque<Happened<A::ToSwarm>>,
    waker: Option<Waker>,

    /// Connections that stand, by libp2p's id, and back.
    connections: HashMap<ConnectionId, Connection>,
    by_number: HashMap<u64, ConnectionId>,
    last_connection: u64,
    closing: HashSet<ConnectionId>,
    /// The core's dials under way.
    dials: HashMap<ConnectionId, Dial>,
    /// Behaviours' dials: held, oldest first, and released.
    held: VecDeque<Held>,
    released: HashMap<ConnectionId, Released>,
    last_held: u64,
    punches: Punches,
    listeners: HashMap<ListenerId, Listener>,
    last_listener: u64,
    /// Queries of the core under way.
    queries: HashMap<QueryId, Query>,
    numbers: Numbers,
    /// Peers that mDNS has found and that the core was told of, each with the number of its addresses.
    by_mdns: HashMap<PeerId, u32>,
    /// Names that a person wrote.
    names: HashSet<Address>,
    configured_pins: HashSet<CorePeerId>,
    /// Own addresses as others see them, the newest last.
    seen_as: VecDeque<Multiaddr>,
    last_self_dial: Option<Instant>,
    /// Whether the last introduction came within its peer's budget: what identify makes of it follows at once.
    heeded: bool,
    knocks: Repeats,
    copies: Repeats,
}

struct Connection {
    number: u64,
    peer: CorePeerId,
    /// The other end's address, as libp2p knows it.
    remote: Multiaddr,
    relayed: bool,
    identity: Option<(kinfolk_core::Identity, Instant)>,
    pace: Pace,
    /// It does not speak ping, and the core knows.
    mute: bool,
}

struct Dial {
    command: CommandId,
    /// Under way now, in both notations.
    addresses: Vec<(Multiaddr, Address)>,
    /// Without a known peer libp2p dials one address at a time: these come next.
    rest: VecDeque<(Multiaddr, Address)>,
    failures: Vec<(Address, DialError)>,
    openings: Vec<Opening>,
}

struct Held {
    number: HeldId,
    dial: ConnectionId,
    asker: Asker,
    peer: Option<PeerId>,
}

struct Released {
    number: HeldId,
    openings: Vec<Opening>,
}

struct Listener {
    number: CoreListenerId,
    command: CommandId,
}

impl<A: NetworkBehaviour> Network<A> {
    /// A network over TCP, QUIC and relays, with DNS. `executor` runs libp2p's tasks; the transports themselves need tokio, so
    /// this and all else here must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the key or a protocol name is unfit, or mDNS can't be started.
    pub fn new(
        key: Keypair,
        settings: NetworkSettings,
        executor: impl Executor + Send + 'static,
        app: A,
    ) -> Result<Self, NetworkError> {
        transport::warm_up();
        let open = Openings::default();
        let transport = transport::internet(&key, &settings, open.clone())?;
        let (circuits, relay) = relay::client();
        let transport = transport::with_circuits(&key, &settings, circuits, transport)?;
        Self::build(key, settings, executor, transport, relay, open, app)
    }

    /// A network over any other transport, such as libp2p's memory transport, and relays; behind the same guard. Needs tokio only
    /// if the transport does, or if mDNS is on.
    ///
    /// # Errors
    /// As [`Network::new`].
    pub fn with_transport(
        key: Keypair,
        settings: NetworkSettings,
        executor: impl Executor + Send + 'static,
        transport: Boxed<(PeerId, StreamMuxerBox)>,
        app: A,
    ) -> Result<Self, NetworkError> {
        let open = Openings::default();
        let transport = libp2p::Transport::boxed(transport::guarded(transport, open.clone()));
        let (circuits, relay) = relay::client();
        let transport = transport::with_circuits(&key, &settings, circuits, transport)?;
        Self::build(key, settings, executor, transport, relay, open, app)
    }

    fn build(
        key: Keypair,
        settings: NetworkSettings,
        executor: impl Executor + Send + 'static,
        transport: Boxed<(PeerId, StreamMuxerBox)>,
        relay: Client,
        open: Openings,
        app: A,
    ) -> Result<Self, NetworkError> {
        let peer = key.public().to_peer_id();
        let routed = Routed::default();
        let (members, services) = (Members::default(), Services::default());
        let server = relay::server(peer, &settings.config.relay, members.clone(), services.clone());
        let terms = Terms { members: members.clone(), services: services.clone(), quota: Quota::default() };
        let behaviour = Behaviour::new(&key, &settings, routed.clone(), (relay, server), terms, app)?;
        let config = swarm::Config::with_executor(executor)
            .with_smart_dial()
            // Saves a round trip per stream; `settled` where that would lose something.
            .with_substream_upgrade_protocol_override(Version::V1Lazy)
            .with_max_negotiating_inbound_streams(settings.negotiating)
            // The core closes connections. A year, because longer ones don't fit every clock.
            .with_idle_connection_timeout(Duration::from_secs(365 * 24 * 3600));
        let mut network = Self {
            swarm: Swarm::new(transport, behaviour, peer, config),
            key,
            local: ids::peer_to_core(peer),
            network: NetworkKeys::of(&settings.config.network),
            open,
            routed,
            members,
            services,
            ports: PortMapping::default(),
            logs: None,
            counters: Counters::default(),
            out: VecDeque::new(),
            waker: None,
            connections: HashMap::new(),
            by_number: HashMap::new(),
            last_connection: 0,
            closing: HashSet::new(),
            dials: HashMap::new(),
            held: VecDeque::new(),
            released: HashMap::new(),
            last_held: 0,
            punches: Punches::default(),
            listeners: HashMap::new(),
            last_listener: 0,
            queries: HashMap::new(),
            numbers: settings.numbers,
            by_mdns: HashMap::new(),
            names: HashSet::new(),
            configured_pins: settings.config.pinned.iter().map(|pinned| pinned.peer).collect(),
            seen_as: VecDeque::new(),
            last_self_dial: None,
            heeded: true,
            knocks: Repeats::default(),
            copies: Repeats::default(),
        };
        let bootstrap = settings.config.bootstrap.iter().filter_map(|peer| peer.address.as_ref());
        let pinned = settings.config.pinned.iter().flat_map(|pinned| &pinned.addresses);
        for address in bootstrap.chain(pinned) {
            network.trust(address);
        }
        Ok(network)
    }

    /// The application's own behaviour. What it has queued goes out when the network is polled next.
    pub fn app_mut(&mut self) -> &mut A {
        self.wake();
        self.swarm.behaviour_mut().app.inner_mut()
    }

    /// Our own id.
    pub fn local(&self) -> CorePeerId {
        self.local
    }

    /// What was not worth an event.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// A peer that an earlier run remembers: a pinned one has a reserved place for its connections, and names by which it
    /// was called by hand may lead into the home network. `Action::Remember` says the same for what is new.
    pub fn remember(&mut self, stored: &StoredPeer) {
        let pinned = stored.pinned || self.configured_pins.contains(&stored.peer);
        self.swarm.behaviour_mut().gate.pin(ids::peer_to_libp2p(&stored.peer), pinned);
        for stored in &stored.addresses {
            if matches!(stored.source, Source::Manual | Source::Configured) {
                self.trust(&stored.address);
            }
        }
    }

    /// A name that a person wrote may lead into the home network.
    fn trust(&mut self, address: &Address) {
        let name = matches!(address, Address::Name { .. } | Address::DnsAddr(_));
        if name && self.names.len() < MAX_NAMES {
            self.names.insert(address.clone());
        }
    }

    fn tell(&mut self, event: Event) {
        self.out.push_back(Happened::Core(event));
        self.wake();
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

// Nothing in it is pinned.
impl<A: NetworkBehaviour> Unpin for Network<A> {}

impl<A: NetworkBehaviour> Stream for Network<A> {
    type Item = Happened<A::ToSwarm>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        while let Poll::Ready(Some(event)) = self.ports.poll_next_unpin(cx) {
            self.out.push_back(Happened::Core(event));
        }
        if self.out.is_empty()
            && let Some(Poll::Ready(event)) = self.logs.as_ref().map(|logs| logs.poll_event(cx))
        {
            return Poll::Ready(Some(Happened::Core(event)));
        }
        for _ in 0..FAIR {
            if let Some(happened) = self.out.pop_front() {
                return Poll::Ready(Some(happened));
            }
            match self.swarm.poll_next_unpin(cx) {
                Poll::Ready(Some(event)) => self.translate(event),
                // A swarm never ends.
                Poll::Ready(None) | Poll::Pending => {
                    self.waker = Some(cx.waker().clone());
                    return Poll::Pending;
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<A: NetworkBehaviour> World for Network<A> {
    type App = A;
    type AppEvent = A::ToSwarm;

    fn execute(&mut self, command: &Command) {
        Self::execute(self, command);
    }

    fn remember(&mut self, stored: &StoredPeer) {
        Self::remember(self, stored);
    }

    fn app_mut(&mut self) -> &mut A {
        Self::app_mut(self)
    }

    fn counters(&self, counters: &mut BTreeMap<String, u64>) {
        counters.extend(self.counters.iter().map(|(name, count)| (name.to_owned(), count)));
    }

    fn standing(&self) -> usize {
        self.swarm.connected_peers().count() + self.ports.standing()
    }

    fn farewell(&mut self) {
        self.ports.farewell();
        let peers: Vec<PeerId> = self.swarm.connected_peers().copied().collect();
        for peer in peers {
            // An error means that it is gone already.
            let _ = self.swarm.disconnect_peer_id(peer);
        }
    }
}

impl<A: NetworkBehaviour> fmt::Debug for Network<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network")
            .field("local", &self.local)
            .field("connections", &self.connections.len())
            .field("dials", &self.dials.len())
            .field("held", &self.held.len())
            .field("queries", &self.queries.len())
            .finish_non_exhaustive()
    }
}
