//! A world that does what the test says.

#![allow(dead_code, reason = "each test file uses its part")]

use std::{
    collections::BTreeSet,
    net::IpAddr,
    pin::Pin,
    rc::Rc,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use futures::{FutureExt, Stream, StreamExt, channel::mpsc, stream};
use kinfolk_core::{
    Action, Address, Command, Config, ConnectionId, DialError, Direction, Event, Interfaces, Origin, PeerAddress,
    PeerId, Prefix, Started,
};
use kinfolk_shell::{
    clock::Clock,
    driver::{Happened, Setup, World},
};

/// Who every test's node is.
pub(crate) const LOCAL: &str = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";

/// Nothing comes of dials to this address, not even an error.
pub(crate) const SILENT: &str = "/ip4/192.0.2.3/tcp/4001";

/// Dials to this address succeed; all others are refused.
pub(crate) const OPEN: &str = "/ip4/192.0.2.1/tcp/4001";

pub(crate) fn peer(number: u32) -> PeerId {
    let mut bytes = vec![0x12, 0x20];
    bytes.extend(number.to_be_bytes());
    bytes.resize(34, 7);
    PeerId::from_bytes(&bytes).unwrap()
}

pub(crate) fn at(peer: PeerId, address: &str) -> PeerAddress {
    PeerAddress::new(peer, address.parse().unwrap())
}

/// What the test holds of a [`FakeWorld`].
#[derive(Clone)]
pub(crate) struct Strings {
    happen: mpsc::UnboundedSender<Happened<u32>>,
    commands: Arc<Mutex<Vec<Command>>>,
}

impl Strings {
    pub(crate) fn happen(&self, happened: Happened<u32>) {
        self.happen.unbounded_send(happened).unwrap();
    }

    pub(crate) fn commands(&self) -> Vec<Command> {
        self.commands.lock().unwrap().clone()
    }

    pub(crate) fn dials(&self) -> usize {
        self.commands().iter().filter(|command| matches!(command.action, Action::Dial { .. })).count()
    }

    /// Waits, within bounds, until `condition` holds.
    pub(crate) async fn until(&self, what: &str, condition: impl Fn(&[Command]) -> bool) {
        for _ in 0..1_000 {
            if condition(&self.commands()) {
                return;
            }
            futures_timer::Delay::new(Duration::from_millis(10)).await;
        }
        panic!("waited in vain for {what}; commands: {:#?}", self.commands());
    }
}

/// Counts how often it was asked, and is bound to its thread, as an application's behaviour may be.
#[derive(Debug, Default)]
pub(crate) struct App {
    pub(crate) calls: Rc<std::cell::Cell<u32>>,
}

/// The same, for executors that move tasks from thread to thread.
#[derive(Debug, Default)]
pub(crate) struct SendApp {
    pub(crate) calls: u32,
}

pub(crate) struct FakeWorld<A> {
    app: A,
    happened: mpsc::UnboundedReceiver<Happened<u32>>,
    strings: Strings,
    connections: u64,
    standing: BTreeSet<(ConnectionId, PeerId)>,
}

impl<A> FakeWorld<A> {
    pub(crate) fn new(app: A) -> (Self, Strings) {
        let (happen, happened) = mpsc::unbounded();
        let strings = Strings { happen, commands: Arc::default() };
        let world = Self { app, happened, strings: strings.clone(), connections: 0, standing: BTreeSet::new() };
        (world, strings)
    }
}

impl<A: Unpin> Stream for FakeWorld<A> {
    type Item = Happened<u32>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.happened.poll_next_unpin(cx)
    }
}

impl<A: Unpin + 'static> World for FakeWorld<A> {
    type App = A;
    type AppEvent = u32;

    fn execute(&mut self, command: &Command) {
        self.strings.commands.lock().unwrap().push(command.clone());
        let Action::Dial { peer: Some(peer), addresses } = &command.action else { return };
        let open: Address = OPEN.parse().unwrap();
        if addresses.contains(&SILENT.parse().unwrap()) {
            return;
        }
        let event = if addresses.contains(&open) {
            self.connections += 1;
            let connection = ConnectionId(self.connections);
            self.standing.insert((connection, *peer));
            Event::Connected {
                connection,
                peer: *peer,
                direction: Direction::Outbound,
                address: open,
                origin: Origin::Dial(command.id),
                took: Duration::from_millis(5),
            }
        } else {
            let failures = addresses.iter().map(|address| (address.clone(), DialError::ConnectionRefused)).collect();
            Event::DialFailed { dial: command.id, failures, error: DialError::ConnectionRefused }
        };
        self.strings.happen(Happened::Core(event));
    }

    fn app_mut(&mut self) -> &mut A {
        &mut self.app
    }
}

pub(crate) fn config() -> Config {
    let mut config = Config::desktop();
    config.mdns = false;
    config.lifecycle.backoff_base = Duration::from_secs(1);
    config.lifecycle.backoff_step = Duration::ZERO;
    config
}

pub(crate) fn setup(config: Config) -> Setup {
    let own: IpAddr = "192.0.2.9".parse().unwrap();
    let interfaces = Interfaces { addresses: vec![Prefix { ip: own, len: 24 }], default_v4: true, default_v6: false };
    let config = config.validate().unwrap();
    Setup {
        started: Started { config, local: LOCAL.parse().unwrap(), seed: 7, unix_time: 1_790_000_000, interfaces },
        agent: "kinfolk/test".into(),
        data_dir: None,
        clock: Clock::start(),
        inputs: stream::iter([Event::StoreLoaded { peers: vec![], nat: None, last: true }]).boxed(),
        store: None,
        recorder: None,
        logs: None,
        signal: None,
        metrics: false,
        slack: std::time::Duration::ZERO,
        finish: async {}.boxed(),
    }
}
