//! A node in a test's hands: one input, drain, sleep until the deadline.
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test harness shared by files"
)]
#![allow(dead_code, reason = "each test file uses its part")]

pub mod logs;

use std::time::Duration;

use kinfolk_core::{
    Action, Address, Command, CommandId, Config, ConnectionId, Direction, Event, Identity, Interfaces, ListenerId,
    Node, Notice, Origin, PeerId, Prefix, Reason, Source, Started, Time,
    view::{PeerView, State},
};

/// The n-th test peer; ids grow with n.
pub fn peer(n: u64) -> PeerId {
    let mut bytes = [0; 38];
    bytes[..6].copy_from_slice(&[0, 36, 8, 1, 18, 32]);
    bytes[6..14].copy_from_slice(&n.to_be_bytes());
    PeerId::from_bytes(&bytes).unwrap()
}

/// The node under test: in the middle of the others.
pub const LOCAL: u64 = 500;

pub fn address(text: &str) -> Address {
    text.parse().unwrap()
}

/// An address on the internet, in a network of its own for each n.
pub fn global(n: u64) -> Address {
    address(&format!("/ip4/45.{}.{}.1/udp/4001/quic-v1", 10 + n / 250, n % 250))
}

/// An address on the home network.
pub fn near(n: u64) -> Address {
    address(&format!("/ip4/192.168.1.{}/udp/4001/quic-v1", 10 + n % 240))
}

pub fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

pub fn home() -> Interfaces {
    Interfaces {
        addresses: vec![
            Prefix { ip: "127.0.0.1".parse().unwrap(), len: 8 },
            Prefix { ip: "192.168.1.2".parse().unwrap(), len: 24 },
        ],
        default_v4: true,
        default_v6: false,
    }
}

pub struct Rig {
    pub node: Node,
    pub now: Time,
    /// Everything commanded since it was last taken.
    pub commands: Vec<Command>,
    connections: u64,
}

impl Rig {
    pub fn new(config: Config) -> Self {
        Self::at(config, home())
    }

    pub fn at(config: Config, interfaces: Interfaces) -> Self {
        let mut rig = Self { node: Node::new(), now: Time::from_secs(1), commands: vec![], connections: 0 };
        let config = config.validate().expect("a valid configuration");
        rig.tell(Event::Started(Box::new(Started {
            config,
            local: peer(LOCAL),
            seed: 42,
            unix_time: 1_800_000_000,
            interfaces,
        })));
        rig
    }

    /// A started node whose first commands don't matter.
    pub fn quiet(config: Config) -> Self {
        let mut rig = Self::new(config);
        rig.take();
        rig
    }

    pub fn tell(&mut self, event: Event) {
        self.node.handle(self.now, event);
        let before = self.commands.len();
        while let Some(command) = self.node.next_command() {
            self.commands.push(command);
            assert!(self.commands.len() < before + 10_000, "one input, endless commands");
        }
        if let Some(deadline) = self.node.next_deadline() {
            assert!(deadline.at > self.now, "a deadline that has passed: {deadline:?} at {}", self.now);
        }
    }

    /// Lets time pass, waking the node at each of its deadlines.
    pub fn pass(&mut self, span: Duration) {
        let until = self.now + span;
        let mut wakes = 0;
        while let Some(deadline) = self.node.next_deadline().filter(|deadline| deadline.at <= until) {
            self.now = deadline.at;
            self.tell(Event::Wake);
            wakes += 1;
            assert!(wakes < 100_000, "livelock at {}: {deadline:?}", self.now);
        }
        self.now = until;
    }

    pub fn take(&mut self) -> Vec<Command> {
        std::mem::take(&mut self.commands)
    }

    /// What was commanded since it was last taken, in words.
    pub fn words(&mut self) -> String {
        let lines: Vec<String> = self.take().iter().map(in_words).collect();
        lines.join("\n")
    }

    pub fn found(&mut self, source: Source, n: u64, addresses: &[Address]) {
        self.tell(Event::Found { source, peer: peer(n), addresses: addresses.to_vec(), cut: 0 });
    }

    /// The dials among the commands so far, without taking them.
    pub fn dials(&self) -> Vec<(CommandId, Option<PeerId>, Vec<Address>)> {
        self.commands
            .iter()
            .filter_map(|command| match &command.action {
                Action::Dial { peer, addresses } => Some((command.id, *peer, addresses.clone())),
                _ => None,
            })
            .collect()
    }

    pub fn closes(&self) -> Vec<(ConnectionId, Reason)> {
        self.commands
            .iter()
            .filter_map(|command| match &command.action {
                Action::Close { connection, .. } => Some((*connection, command.reason.clone())),
                _ => None,
            })
            .collect()
    }

    pub fn notices(&self) -> Vec<Notice> {
        self.commands
            .iter()
            .filter_map(|command| match &command.action {
                Action::Tell(notice) => Some(notice.clone()),
                _ => None,
            })
            .collect()
    }

    /// Takes the only dial so far and lets it succeed at its first address.
    pub fn dial_succeeds(&mut self, n: u64) -> ConnectionId {
        let dials = self.dials();
        let (dial, _, addresses) =
            dials.into_iter().rev().find(|(_, to, _)| to.is_none() || *to == Some(peer(n))).expect("a dial");
        self.connected(n, Direction::Outbound, addresses[0].clone(), Origin::Dial(dial))
    }

    pub fn connected(&mut self, n: u64, direction: Direction, address: Address, origin: Origin) -> ConnectionId {
        self.connections += 1;
        let connection = ConnectionId(self.connections);
        let took = Duration::from_millis(20);
        self.tell(Event::Connected { connection, peer: peer(n), direction, address, origin, took });
        connection
    }

    pub fn inbound(&mut self, n: u64, address: Address) -> ConnectionId {
        self.connected(n, Direction::Inbound, address, Origin::Inbound)
    }

    pub fn identified(&mut self, connection: ConnectionId, n: u64) {
        self.identified_as(connection, n, kinfolk());
    }

    pub fn identified_as(&mut self, connection: ConnectionId, n: u64, identity: Identity) {
        self.tell(Event::Identified { connection, peer: peer(n), identity: Box::new(identity) });
    }

    pub fn pong(&mut self, connection: ConnectionId, n: u64) {
        self.tell(Event::Pinged { connection, peer: peer(n), result: Ok(Duration::from_millis(5)) });
    }

    /// Lets time pass while everybody answers pings, with the round trips they had.
    pub fn live(&mut self, span: Duration) {
        let until = self.now + span;
        while self.now < until {
            self.pass(until.since(self.now).min(secs(15)));
            let view = self.node.view().unwrap();
            let standing: Vec<_> = view
                .peers()
                .flat_map(|peer| peer.connections.into_iter().map(move |one| (peer.peer, one.connection, one.rtt)))
                .collect();
            for (peer, connection, rtt) in standing {
                self.tell(Event::Pinged { connection, peer, result: Ok(rtt.unwrap_or(Duration::from_millis(5))) });
            }
        }
    }

    /// Lets time pass, everybody alive, until something was commanded.
    pub fn live_until(&mut self, longest: Duration, done: impl Fn(&Self) -> bool) {
        let until = self.now + longest;
        while !done(self) {
            assert!(self.now < until, "not within {longest:?}");
            self.live(Duration::from_millis(100));
        }
    }

    pub fn listening(&mut self, text: &str) {
        let command = self
            .commands
            .iter()
            .find_map(|command| matches!(command.action, Action::Listen { .. }).then_some(command.id))
            .expect("a listen command");
        self.tell(Event::Listening { listener: ListenerId(1), command, address: address(text) });
    }

    pub fn view(&self, n: u64) -> Option<PeerView<'_>> {
        self.node.view().unwrap().peer(&peer(n))
    }

    pub fn state(&self, n: u64) -> State {
        self.view(n).map_or(State::Expired, |view| view.state)
    }
}

/// What a Kinfolk node says of itself.
pub fn kinfolk() -> Identity {
    Identity {
        protocol_version: "/elohim/id/1.0.0".into(),
        agent: "kinfolk/0.1.0".into(),
        protocols: vec!["/ipfs/id/1.0.0".into(), "/ipfs/ping/1.0.0".into()],
        ..Identity::default()
    }
}

/// A Kinfolk node that serves the hash table.
pub fn server_at(n: u64) -> Identity {
    let mut identity = kinfolk();
    identity.protocols.push("/elohim/kad/1.0.0".into());
    identity.addresses.push(global(n));
    identity
}

pub fn in_words(command: &Command) -> String {
    let who = match command.peer() {
        Some(peer) => format!("#{} ", number(peer)),
        None => String::new(),
    };
    format!("{who}{}, because {}", command.action, command.reason)
}

pub fn number(peer: &PeerId) -> u64 {
    u64::from_be_bytes(peer.as_bytes()[6..14].try_into().unwrap())
}

/// A Kinfolk server that relays, too.
pub fn relay_at(n: u64) -> Identity {
    let mut identity = server_at(n);
    identity.protocols.push("/libp2p/circuit/relay/0.2.0/hop".into());
    identity
}

impl Rig {
    /// The latest command of a kind, with its number.
    pub fn last<T>(&self, of: impl Fn(&Action) -> Option<T>) -> Option<(CommandId, T)> {
        self.commands.iter().rev().find_map(|command| of(&command.action).map(|found| (command.id, found)))
    }

    /// Whom the node has asked to relay so far, in order.
    pub fn reserves(&self) -> Vec<(CommandId, u64)> {
        let reserve = |command: &Command| match &command.action {
            Action::Reserve { relay, .. } => Some((command.id, number(relay))),
            _ => None,
        };
        self.commands.iter().filter_map(reserve).collect()
    }

    /// Relay n grants what it was last asked for.
    pub fn relay_grants(&mut self, n: u64) -> CommandId {
        let (reservation, _) = self.reserves().into_iter().rfind(|(_, relay)| *relay == n).expect("it was asked");
        self.tell(Event::Reserved { reservation, limit: None, lasts: None });
        let via = global(n);
        let circuit = address(&format!("{via}/p2p/{}/p2p-circuit", peer(n)));
        self.tell(Event::ReservedAt { reservation, address: circuit });
        reservation
    }

    /// Relays that are held, as the view says.
    pub fn held(&self) -> Vec<u64> {
        let node = self.node.view().unwrap().node();
        node.relays.iter().filter(|relay| relay.held_since.is_some()).map(|relay| number(&relay.relay)).collect()
    }
}

/// A way to a peer through relay n.
pub fn circuit(n: u64) -> Address {
    address(&format!("{}/p2p/{}/p2p-circuit", global(n), peer(n)))
}
