//! How fast traces are replayed, against the time that they took: the golden ones under `tests/traces`, and a busy day
//! that is recorded here. A thousand times real time is the aim.
//!
//! Reading is part of it, and comparing each command and checkpoint; the disk is not. CPU time of this process, the best
//! of several rounds, since the machines that run this are shared and noisy: some tens of per cent between two runs are
//! usual all the same. `cargo bench -p kinfolk-sim --bench replay`.

#![allow(clippy::print_stdout, clippy::unwrap_used, missing_docs, reason = "a benchmark prints its figures")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Cursor,
    net::Ipv4Addr,
    path::Path,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use kinfolk_core::{
    Action, Address, CloseCause, Command, CommandId, Config, ConnectionId, DialError, Direction, Event, Identity,
    Interfaces, ListenerId, Origin, PeerAddress, PeerId, Prefix, Query, Source, Started, Time, Transport,
    trace::SegmentReason,
};
use kinfolk_sim::{
    bless::traces,
    record::Recording,
    replay::{Options, replay},
    trace::Reader,
};
use rustix::time::{ClockId, clock_gettime};

/// How many times faster than real time a replay is to be.
const AIM: f64 = 1_000.0;
/// Rounds go on until they have taken this much CPU time.
const ENOUGH: Duration = Duration::from_secs(1);
const MIN_ROUNDS: u32 = 5;

fn main() -> ExitCode {
    println!(
        "{:<38} {:>10} {:>8} {:>10} {:>10} {:>16}",
        "trace", "node time", "inputs", "CPU", "inputs/s", "real time"
    );
    let golden = traces(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/traces")).unwrap();
    let mut speeds = Vec::new();
    for file in golden {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        speeds.push(measure(&name, fs::read(&file).unwrap()));
    }
    speeds.push(measure("(a family's day)", Day::record()));
    let slowest = speeds.iter().flatten().copied().fold(f64::INFINITY, f64::min);
    println!("the slowest: {slowest:.0} times real time; the aim is {AIM:.0}");
    if speeds.contains(&None) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Replays a trace until its best time is known, prints that, and gives how many times faster than real time it was.
/// `None`: it does not replay to its end, so there is nothing to measure.
fn measure(name: &str, text: Vec<u8>) -> Option<f64> {
    let text: Arc<[u8]> = text.into();
    let (mut best, mut total, mut rounds) = (Duration::MAX, Duration::ZERO, 0);
    let report = loop {
        let before = cpu();
        let mut reader = Reader::new(name, Cursor::new(Arc::clone(&text))).unwrap();
        let report = replay(&mut reader, Options::default());
        let took = cpu() - before;
        if !report.is_good() {
            println!("{name:<38} does not replay: `cargo test -p kinfolk-sim --test golden` says where");
            return None;
        }
        (best, total, rounds) = (best.min(took), total + took, rounds + 1);
        if rounds >= MIN_ROUNDS && total >= ENOUGH {
            break report;
        }
    };
    let (took, node_time) = (best.as_secs_f64(), report.node_time.as_secs_f64());
    let (inputs, rate, times) = (report.inputs, report.inputs as f64 / took, node_time / took);
    println!("{name:<38} {node_time:>8.0} s {inputs:>8} {:>7.2} ms {rate:>10.0} {times:>10.0} times", took * 1e3);
    Some(times)
}

const DAY: Time = Time::from_secs(24 * 3_600);
const HOUR: Duration = Duration::from_secs(3_600);
const PING: Duration = Duration::from_secs(15);
/// How often mDNS says again where a peer is.
const REFRESH: Duration = Duration::from_secs(300);
/// How long the server is away while it restarts.
const RESTART: Duration = Duration::from_secs(20);
/// What everything else takes.
const SOON: Duration = Duration::from_millis(15);
/// Who is at home, beside the node; and the server that all ask first.
const HOME: std::ops::Range<u8> = 1..8;
const SERVER: u8 = 8;
const OWN: [u8; 4] = [192, 168, 1, 100];
const UNIX_TIME: u64 = 1_790_000_000;

/// A family's always-on node: seven others at home, a server that restarts each hour, all of them pinged without end.
struct Day {
    node: Recording,
    /// What will be told, by time and in order.
    agenda: BTreeMap<(Time, u64), Happening>,
    planned: u64,
    connections: BTreeMap<ConnectionId, u8>,
    opened: u64,
    server_back: Time,
}

enum Happening {
    Told(Event),
    /// A dial gets through, or finds nobody.
    Dialled {
        dial: CommandId,
        number: u8,
        address: Address,
    },
    Ping(ConnectionId),
    Refresh(u8),
    /// The hour is full: the server restarts, and the recorder begins a new segment.
    Hour,
}

impl Day {
    /// The day's trace, as text.
    fn record() -> Vec<u8> {
        let mut config = Config::family_node();
        config.bootstrap = vec![PeerAddress::new(peer(SERVER), address(SERVER))];
        let own = |ip: [u8; 4], len| Prefix { ip: Ipv4Addr::from(ip).into(), len };
        let started = Started {
            config: config.validate().unwrap(),
            local: peer(0),
            seed: 1,
            unix_time: UNIX_TIME,
            interfaces: Interfaces {
                addresses: vec![own([127, 0, 0, 1], 8), own(OWN, 24)],
                default_v4: true,
                default_v6: false,
            },
        };
        let (node, commands) = Recording::start(started);
        let mut day = Self {
            node,
            agenda: BTreeMap::new(),
            planned: 0,
            connections: BTreeMap::new(),
            opened: 0,
            server_back: Time::ZERO,
        };
        day.follow(Time::ZERO, commands);
        day.plan(Time::ZERO + SOON, Happening::Told(Event::StoreLoaded { peers: vec![], nat: None, last: true }));
        day.plan(Time::ZERO + HOUR, Happening::Hour);
        for number in HOME {
            day.plan(Time::from_secs(number.into()), Happening::Refresh(number));
        }
        day.run();
        day.node.text().unwrap()
    }

    fn run(&mut self) {
        loop {
            let next = self.agenda.first_key_value().map_or(DAY, |((at, _), _)| (*at).min(DAY));
            let wake = self.node.node().next_deadline().map(|deadline| deadline.at).filter(|at| *at <= next);
            if let Some(at) = wake {
                let commands = self.node.rest_until(at).unwrap();
                self.follow(at, commands);
            } else if next == DAY {
                return;
            } else {
                let ((at, _), happening) = self.agenda.pop_first().unwrap();
                self.happen(at, happening);
            }
        }
    }

    fn plan(&mut self, at: Time, happening: Happening) {
        self.planned += 1;
        self.agenda.insert((at, self.planned), happening);
    }

    fn tell(&mut self, at: Time, event: Event) {
        let commands = self.node.tell(at, event).unwrap();
        self.follow(at, commands);
    }

    fn happen(&mut self, at: Time, happening: Happening) {
        match happening {
            Happening::Told(event) => self.tell(at, event),
            Happening::Dialled { dial, number: SERVER, address } if at < self.server_back => {
                let (failures, error) = (vec![(address, DialError::ConnectionRefused)], DialError::ConnectionRefused);
                self.tell(at, Event::DialFailed { dial, failures, error });
            }
            Happening::Dialled { dial, number, address } => self.connect(at, dial, number, address),
            Happening::Ping(connection) => {
                if let Some(&number) = self.connections.get(&connection) {
                    let result = Ok(Duration::from_micros(800 + u64::from(number)));
                    self.tell(at, Event::Pinged { connection, peer: peer(number), result });
                    self.plan(at + PING, Happening::Ping(connection));
                }
            }
            Happening::Refresh(number) => {
                let addresses = vec![address(number)];
                self.tell(at, Event::Found { source: Source::Mdns, peer: peer(number), addresses, cut: 0 });
                self.plan(at + REFRESH, Happening::Refresh(number));
            }
            Happening::Hour => {
                self.node.segment(SegmentReason::Rotation, 0);
                self.server_back = at + RESTART;
                let gone: BTreeSet<ConnectionId> =
                    self.connections.iter().filter(|(_, number)| **number == SERVER).map(|(id, _)| *id).collect();
                for connection in gone {
                    self.connections.remove(&connection);
                    let cause = CloseCause::Broken("connection reset by peer".into());
                    self.tell(at, Event::Disconnected { connection, peer: peer(SERVER), cause });
                }
                let unix_time = UNIX_TIME + at.as_secs();
                self.tell(at, Event::WallClock { unix_time, synced: true });
                self.plan(at + HOUR, Happening::Hour);
            }
        }
    }

    fn connect(&mut self, at: Time, dial: CommandId, number: u8, address: Address) {
        self.opened += 1;
        let connection = ConnectionId(self.opened);
        self.connections.insert(connection, number);
        let peer = peer(number);
        let (direction, origin) = (Direction::Outbound, Origin::Dial(dial));
        self.tell(at, Event::Connected { connection, peer, direction, address, origin, took: SOON });
        let seen = if number == SERVER { [45, 10, 30, 1] } else { OWN };
        let observed = Address::ip(Ipv4Addr::from(seen).into(), 4_001, Transport::Quic);
        let identity = Identity {
            protocol_version: "/elohim/id/1.0.0".into(),
            agent: "kinfolk/0.1.0".into(),
            protocols: vec!["/elohim/kad/1.0.0".into(), "/ipfs/id/1.0.0".into(), "/ipfs/ping/1.0.0".into()],
            addresses: vec![self::address(number)],
            observed: Some(observed),
            cut: 0,
        };
        self.plan(at + SOON, Happening::Told(Event::Identified { connection, peer, identity: Box::new(identity) }));
        self.plan(at + PING, Happening::Ping(connection));
    }

    /// Answers what was commanded, as a shell would on a day on which all goes well.
    #[allow(clippy::wildcard_enum_match_arm, reason = "other commands need no answer here")]
    fn follow(&mut self, at: Time, commands: Vec<Command>) {
        for Command { id, action, .. } in commands {
            let event = match action {
                Action::Dial { peer: Some(wanted), addresses } => {
                    let number = (1..=SERVER).find(|number| peer(*number) == wanted).unwrap();
                    self.plan(at + SOON, Happening::Dialled { dial: id, number, address: addresses[0].clone() });
                    continue;
                }
                Action::Close { connection, peer } => {
                    self.connections.remove(&connection);
                    Event::Disconnected { connection, peer, cause: CloseCause::Ours }
                }
                Action::Listen { address: Address::Ip { ip, port, transport } } if ip.is_ipv4() => {
                    let address = Address::ip(Ipv4Addr::from(OWN).into(), port, transport);
                    Event::Listening { listener: ListenerId(id.0), command: id, address }
                }
                Action::Route { peer, .. } => Event::Routed { peer, present: true },
                Action::Unroute { peer } => Event::Routed { peer, present: false },
                Action::Query(query) => {
                    if !matches!(query, Query::Join | Query::Publish { .. } | Query::Record { .. }) {
                        let peers = vec![(peer(SERVER), vec![address(SERVER)])];
                        self.plan(
                            at + SOON,
                            Happening::Told(Event::QueryFound { query: id, peers, cut: 0, record: None }),
                        );
                    }
                    Event::QueryEnded { query: id, successes: 1, failures: 0 }
                }
                _ => continue,
            };
            self.plan(at + SOON, Happening::Told(event));
        }
    }
}

fn peer(number: u8) -> PeerId {
    PeerId::from_bytes(&[&[0x00, 0x24, 0x08, 0x01, 0x12, 0x20][..], &[number + 1; 32][..]].concat()).unwrap()
}

fn address(number: u8) -> Address {
    let ip = if number == SERVER { [45, 10, 20, 2] } else { [192, 168, 1, number] };
    Address::ip(Ipv4Addr::from(ip).into(), 4_001, Transport::Quic)
}

fn cpu() -> Duration {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}
