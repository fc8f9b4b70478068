use std::{collections::VecDeque, pin::Pin, task::Poll, time::Duration};

use futures::{Stream, future};
use kinfolk_core::{
    Action, Address, Command, CommandId, Config, ConnectionId, DialError, Event, PeerId, Reason, ValidConfig,
};
use kinfolk_shell::{
    driver::Happened,
    network::{Network, NetworkSettings},
};
use libp2p::{
    Transport,
    core::{transport::MemoryTransport, upgrade::Version},
    identity::Keypair,
    noise,
    swarm::{NetworkBehaviour, dummy},
    yamux,
};

/// Nothing here takes this long, on however busy a machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// What happened at each address of a dial, and to the dial as a whole.
pub(crate) type Failure = (Vec<(Address, DialError)>, DialError);

/// A network, with the events that nobody has waited for yet.
pub(crate) struct Peer<A: NetworkBehaviour = dummy::Behaviour> {
    pub(crate) network: Network<A>,
    pub(crate) events: VecDeque<Event>,
    pub(crate) app_events: VecDeque<A::ToSwarm>,
    commands: u64,
}

pub(crate) fn config() -> Config {
    Config { mdns: false, ..Config::desktop() }
}

pub(crate) fn valid(config: Config) -> ValidConfig {
    config.validate().expect("a valid configuration")
}

pub(crate) fn settings() -> NetworkSettings {
    NetworkSettings::new(valid(config()), "kinfolk/test")
}

fn executor(task: Pin<Box<dyn Future<Output = ()> + Send>>) {
    tokio::spawn(task);
}

/// A network over TCP and QUIC.
pub(crate) fn peer() -> Peer {
    peer_with(Keypair::generate_ed25519(), settings())
}

pub(crate) fn peer_with(key: Keypair, settings: NetworkSettings) -> Peer {
    Peer::of(Network::new(key, settings, executor, dummy::Behaviour).unwrap())
}

/// A network over TCP and QUIC, with an application.
pub(crate) fn peer_of<A: NetworkBehaviour>(app: A) -> Peer<A> {
    Peer::of(Network::new(Keypair::generate_ed25519(), settings(), executor, app).unwrap())
}

/// A network over libp2p's memory transport.
pub(crate) fn in_memory() -> Peer {
    in_memory_with(Keypair::generate_ed25519(), dummy::Behaviour)
}

pub(crate) fn in_memory_with<A: NetworkBehaviour>(key: Keypair, app: A) -> Peer<A> {
    in_memory_as(key, settings(), app)
}

pub(crate) fn in_memory_as<A: NetworkBehaviour>(key: Keypair, settings: NetworkSettings, app: A) -> Peer<A> {
    let transport = MemoryTransport::default()
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(&key).unwrap())
        .multiplex(yamux::Config::default())
        .boxed();
    Peer::of(Network::with_transport(key, settings, executor, transport, app).unwrap())
}

impl<A: NetworkBehaviour> Peer<A> {
    pub(crate) fn of(network: Network<A>) -> Self {
        Self { network, events: VecDeque::new(), app_events: VecDeque::new(), commands: 0 }
    }

    pub(crate) fn id(&self) -> PeerId {
        self.network.local()
    }

    pub(crate) fn run(&mut self, action: Action) -> CommandId {
        self.run_because(action, Reason::Routine)
    }

    pub(crate) fn run_because(&mut self, action: Action, reason: Reason) -> CommandId {
        self.commands += 1;
        let id = CommandId(self.commands);
        self.network.execute(&Command { id, action, reason });
        id
    }

    /// Listens, and says where.
    pub(crate) async fn listen(&mut self, address: &str) -> Address {
        let command = self.run(Action::Listen { address: address.parse().unwrap() });
        self.wait("to listen", |event| match event {
            Event::Listening { command: of, address, .. } if *of == command => Some(address.clone()),
            Event::ListenFailed { error, .. } => panic!("can't listen on {address}: {error}"),
            _ => None,
        })
        .await
    }

    pub(crate) fn dial(&mut self, peer: impl Into<Option<PeerId>>, addresses: &[Address]) -> CommandId {
        self.run(Action::Dial { peer: peer.into(), addresses: addresses.to_vec() })
    }

    /// Waits for an event of this peer alone.
    pub(crate) async fn wait<T>(&mut self, what: &str, find: impl FnMut(&Event) -> Option<T>) -> T {
        wait(&mut [self], 0, what, find).await
    }

    pub(crate) async fn dial_failed(&mut self, dial: CommandId) -> Failure {
        self.wait("a dial to fail", failed(dial)).await
    }

    /// Takes the first event that `find` finds out of those that came so far.
    pub(crate) fn take<T>(&mut self, mut find: impl FnMut(&Event) -> Option<T>) -> Option<T> {
        let (at, found) = self.events.iter().enumerate().find_map(|(at, event)| Some((at, find(event)?)))?;
        self.events.remove(at);
        Some(found)
    }

    /// Takes in all that has happened. What is only counted comes as no event.
    fn poll(&mut self, cx: &mut std::task::Context<'_>) {
        while let Poll::Ready(Some(happened)) = Pin::new(&mut self.network).poll_next(cx) {
            match happened {
                Happened::Core(event) => self.events.push_back(event),
                Happened::App(event) => self.app_events.push_back(event),
            }
        }
    }
}

/// Runs all `peers` until one of `who`'s events is what is looked for, and takes it.
pub(crate) async fn wait<A: NetworkBehaviour, T>(
    peers: &mut [&mut Peer<A>],
    who: usize,
    what: &str,
    mut find: impl FnMut(&Event) -> Option<T>,
) -> T {
    until(peers, what, |peers| peers[who].take(&mut find)).await
}

/// Runs all `peers` until `done` gives something.
pub(crate) async fn until<A: NetworkBehaviour, T>(
    peers: &mut [&mut Peer<A>],
    what: &str,
    mut done: impl FnMut(&mut [&mut Peer<A>]) -> Option<T>,
) -> T {
    let run = future::poll_fn(|cx| {
        peers.iter_mut().for_each(|peer| peer.poll(cx));
        done(peers).map_or(Poll::Pending, Poll::Ready)
    });
    match tokio::time::timeout(PATIENCE, run).await {
        Ok(done) => done,
        Err(_) => {
            let events: Vec<_> = peers.iter().map(|peer| (peer.id(), &peer.events, peer.network.counters())).collect();
            panic!("waited for {what} in vain; what came instead: {events:#?}")
        }
    }
}

/// Connects the first peer to the second, and gives the numbers of the connection on both sides.
pub(crate) async fn connect<A: NetworkBehaviour>(
    a: &mut Peer<A>,
    b: &mut Peer<A>,
    address: &Address,
) -> (ConnectionId, ConnectionId) {
    let dial = a.dial(b.id(), std::slice::from_ref(address));
    let (from, to) = (a.id(), b.id());
    let at_a = wait(&mut [a, b], 0, "the dialler's connection", |event| match event {
        Event::Connected { connection, peer, .. } if *peer == to => Some(*connection),
        Event::DialFailed { dial: of, failures, error } if *of == dial => panic!("{error}: {failures:?}"),
        _ => None,
    })
    .await;
    let at_b = wait(&mut [a, b], 1, "the listener's connection", |event| match event {
        Event::Connected { connection, peer, .. } if *peer == from => Some(*connection),
        _ => None,
    })
    .await;
    (at_a, at_b)
}

pub(crate) fn failed(dial: CommandId) -> impl FnMut(&Event) -> Option<Failure> {
    move |event| match event {
        Event::DialFailed { dial: of, failures, error } if *of == dial => Some((failures.clone(), error.clone())),
        Event::Connected { .. } => panic!("connected after all: {event:?}"),
        _ => None,
    }
}
