//! How many events a core takes in per CPU-second, and how many bytes it keeps per peer, at three sizes of the table.
//!
//! CPU time of this process, the best of several rounds: the machines that run this are shared. `cargo bench -p
//! kinfolk-core`.
#![allow(
    clippy::disallowed_types,
    clippy::print_stdout,
    clippy::unwrap_used,
    missing_docs,
    reason = "a benchmark prints its figures"
)]

use std::{hint::black_box, time::Duration};

use kinfolk_core::{
    Address, CloseCause, Config, ConnectionId, Direction, Event, Identity, Interfaces, Node, Origin, PeerId, Source,
    Started, Time,
};
use rustix::time::{ClockId, clock_gettime};

const ROUNDS: u32 = 7;
const EVENTS: u64 = 400_000;
/// Peers with a connection: a server's, the rest is only known.
const CONNECTED: u64 = 200;

fn main() {
    println!("{:>10} {:>18} {:>14} {:>16}", "peers", "events/CPU-second", "ns per event", "bytes per peer");
    let mut first = None;
    for peers in [1_000, 100_000, 1_000_000] {
        let mut rig = None;
        let heap = allocation_counter::measure(|| rig = Some(Rig::new(peers)));
        let mut rig = rig.unwrap();
        let bytes = u64::try_from(heap.bytes_current).unwrap_or(0) / peers;
        let best = (0..ROUNDS).map(|_| rig.round()).min().unwrap();
        let nanos = best.as_nanos() as u64 / Rig::events();
        let ratio = nanos as f64 / *first.get_or_insert(nanos) as f64;
        let rate = Rig::events() as f64 / best.as_secs_f64();
        println!("{peers:>10} {rate:>18.0} {nanos:>8} (x{ratio:.2}) {bytes:>14}");
    }
}

struct Rig {
    node: Node,
    peers: u64,
    now: Time,
    dice: u64,
    connections: u64,
}

impl Rig {
    fn new(peers: u64) -> Self {
        let mut config = Config::server();
        config.lifecycle.max_peers = u32::try_from(peers).unwrap() + 1_000;
        config.lifecycle.low_water = 2_000;
        config.lifecycle.high_water = 3_000;
        let started = Started {
            config: config.validate().unwrap(),
            local: id(u64::MAX),
            seed: 1,
            unix_time: 0,
            interfaces: Interfaces { default_v4: true, ..Interfaces::default() },
        };
        let mut node = Node::new();
        node.handle(Time::ZERO, Event::Started(Box::new(started)));
        let mut rig = Self { node, peers, now: Time::from_secs(1), dice: 1, connections: 0 };
        for n in 0..peers {
            let addresses = (0..3).map(|k| address(n, k)).collect();
            rig.tell(Event::Found { source: Source::Kademlia, peer: id(n), addresses, cut: 0 });
        }
        for n in 0..CONNECTED {
            rig.connect(n);
        }
        rig
    }

    fn tell(&mut self, event: Event) {
        self.now = self.now + Duration::from_micros(20);
        self.node.handle(self.now, event);
        while let Some(command) = self.node.next_command() {
            black_box(command);
        }
        black_box(self.node.next_deadline());
    }

    fn connect(&mut self, n: u64) {
        self.connections += 1;
        let connection = ConnectionId(self.connections);
        self.tell(Event::Connected {
            connection,
            peer: id(n),
            direction: Direction::Inbound,
            address: address(n, 0),
            origin: Origin::Inbound,
            took: Duration::from_millis(20),
        });
        let identity = Identity {
            protocol_version: "/elohim/id/1.0.0".into(),
            agent: "kinfolk/0.1.0".into(),
            protocols: vec!["/elohim/kad/1.0.0".into(), "/ipfs/ping/1.0.0".into()],
            ..Identity::default()
        };
        self.tell(Event::Identified { connection, peer: id(n), identity: Box::new(identity) });
    }

    /// How many events one round takes in.
    const fn events() -> u64 {
        EVENTS + EVENTS / 10
    }

    /// What a busy server hears: pings, words about peers all over the table, peers that come and go.
    fn round(&mut self) -> Duration {
        let before = cpu();
        for event in 0..EVENTS {
            self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let anyone = (self.dice >> 33) % self.peers;
            let connected = (self.dice >> 33) % CONNECTED;
            match event % 10 {
                0..5 => self.tell(Event::Pinged {
                    connection: ConnectionId(connected + 1),
                    peer: id(connected),
                    result: Ok(Duration::from_millis(15)),
                }),
                5..9 => self.tell(Event::Found {
                    source: Source::Kademlia,
                    peer: id(anyone),
                    addresses: vec![address(anyone, 1)],
                    cut: 0,
                }),
                _ => {
                    self.connections += 1;
                    let connection = ConnectionId(1_000_000 + self.connections);
                    let visitor = CONNECTED + anyone % (self.peers - CONNECTED);
                    self.tell(Event::Connected {
                        connection,
                        peer: id(visitor),
                        direction: Direction::Inbound,
                        address: address(visitor, 0),
                        origin: Origin::Inbound,
                        took: Duration::from_millis(20),
                    });
                    self.tell(Event::Disconnected { connection, peer: id(visitor), cause: CloseCause::Remote });
                }
            }
        }
        cpu() - before
    }
}

fn id(n: u64) -> PeerId {
    let mut bytes = [0; 38];
    bytes[..6].copy_from_slice(&[0, 36, 8, 1, 18, 32]);
    bytes[6..14].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    bytes[14..22].copy_from_slice(&n.to_be_bytes());
    PeerId::from_bytes(&bytes).unwrap()
}

fn address(n: u64, k: u64) -> Address {
    let ip = std::net::Ipv4Addr::from(0x2d00_0000 + n as u32);
    Address::ip(ip.into(), 4_001 + k as u16, kinfolk_core::Transport::Quic)
}

fn cpu() -> Duration {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}
