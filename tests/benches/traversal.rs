//! Kinfolk beside plain rust-libp2p (`tests/src/bin/plain.rs`) on the same NATs: how many pairs become direct, how soon,
//! by how many connections, and who is still connected later.
//!
//! Both do the same: one node has a place at a relay and waits; the other one starts, knows the relay's address and the
//! first one's id, and opens a circuit. Times go from just before the second process is made to the line in which it says
//! that it is connected, and directly connected. Each node's line takes 25 ms each way, which is measured before each run;
//! the relay has none: 50 ms from a node to the relay and back, 100 ms between nodes. Neighbour tables are warm, data
//! folders are new.
//!
//! In the second part every cell runs once more, and all are looked at after some minutes side by side.
//!
//! ```text
//! cargo build --workspace --release && cargo bench -p kinfolk-tests --bench traversal
//! ```
//!
//! In the environment: `TRAVERSAL_REPETITIONS` (5; 0 for no first part), `TRAVERSAL_MINUTES` (5; 0 for no second part), `TRAVERSAL_CELLS` (a
//! part of the cells' names), `TRAVERSAL_PROGRAM` (a part of the program's).

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    missing_docs,
    reason = "a benchmark prints its figures"
)]

use std::{
    collections::VecDeque,
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use kinfolk_shell::api::types::PathKind;
use kinfolk_tests::{Device, Foreign, Node, NodeBuilder, Side, Site, World};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until, timeout};

const DELAY: Duration = Duration::from_millis(25);
/// What becomes direct does so in this time, or not for now: three tries of plain rust-libp2p's may take 30 s.
const PATIENCE: Duration = Duration::from_secs(40);
/// For second connections to come, and superfluous ones to go: a connection by TCP is proven after 15 s.
const REST: Duration = Duration::from_secs(20);

/// Who opens the circuit, who waits, and whether their NATs allow a direct connection.
const CELLS: [(Side, Side, bool); 11] = [
    (Side::PortRestricted, Side::PortRestricted, true),
    (Side::PortRestricted, Side::DoubleNat, true),
    (Side::PortRestricted, Side::FullCone, true),
    (Side::PortRestricted, Side::Public, true),
    (Side::Public, Side::PortRestricted, true),
    (Side::Public, Side::Symmetric, true),
    (Side::Symmetric, Side::FullCone, true),
    (Side::PortRestricted, Side::UdpBlocked, true),
    (Side::Symmetric, Side::PortRestricted, false),
    (Side::PortRestricted, Side::Symmetric, false),
    (Side::Symmetric, Side::Symmetric, false),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Program {
    Plain,
    Kinfolk,
}

/// A pair that has met.
struct Pair {
    _world: World,
    centre: Site,
    first: Option<Duration>,
    direct: Option<Duration>,
    ends: Ends,
}

enum Ends {
    Plain { _relay: Box<Foreign>, listener: Box<Foreign>, dialer: Box<Foreign> },
    Kinfolk { listener: Node, dialer: Node },
}

/// Connections between the two.
#[derive(Clone, Copy, Default)]
struct Count {
    direct: usize,
    relayed: usize,
}

fn main() {
    // While there is one thread: a user namespace, in which networks can be made without root.
    patchbay::init_userns().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let repetitions = setting("TRAVERSAL_REPETITIONS", 5);
        if repetitions > 0 {
            times(repetitions).await;
        }
        let minutes = setting("TRAVERSAL_MINUTES", 5);
        if minutes > 0 {
            endurance(minutes).await;
        }
    });
}

fn cells() -> impl Iterator<Item = (Side, Side, bool)> {
    let wanted = std::env::var("TRAVERSAL_CELLS").unwrap_or_default();
    CELLS.into_iter().filter(move |(one, other, _)| format!("{one} - {other}").contains(&wanted))
}

fn programs() -> impl Iterator<Item = Program> {
    let wanted = std::env::var("TRAVERSAL_PROGRAM").unwrap_or_default();
    [Program::Plain, Program::Kinfolk].into_iter().filter(move |program| program.to_string().contains(&wanted))
}

/// What came of one meeting.
struct Run {
    cell: usize,
    program: Program,
    first: Option<Duration>,
    direct: Option<Duration>,
    connections: usize,
}

/// The first part. Pairs that have met rest while the next ones meet.
async fn times(repetitions: u64) {
    let mut runs: Vec<Run> = Vec::new();
    let mut resting: VecDeque<(Instant, usize, Program, Pair)> = VecDeque::new();
    for (cell, (one, other, possible)) in cells().enumerate() {
        for program in programs() {
            eprintln!("{one} - {other}: {program}");
            for _ in 0..repetitions {
                while resting.front().is_some_and(|(until, ..)| *until <= Instant::now()) {
                    runs.extend(rested(&mut resting).await);
                }
                let pair = Pair::meet(program, one, other, possible).await;
                resting.push_back((Instant::now() + REST, cell, program, pair));
            }
        }
    }
    while let Some(run) = rested(&mut resting).await {
        runs.push(run);
    }

    println!("\nmedians of {repetitions}, ms from the process's start\n");
    println!("| who opens the circuit, who waits | | first | direct | became direct | direct connections |");
    println!("|---|---|--:|--:|--:|--:|");
    for (cell, (one, other, possible)) in cells().enumerate() {
        for program in programs() {
            let of = || runs.iter().filter(|run| run.cell == cell && run.program == program);
            row(&format!("{one} - {other}"), program, possible, of);
        }
    }
    let can: Vec<bool> = cells().map(|(.., possible)| possible).collect();
    for program in programs() {
        let of = || runs.iter().filter(|run| can[run.cell] && run.program == program);
        row("all that can", program, true, of);
    }
}

/// Ends the pair that has met first, once it has rested.
async fn rested(resting: &mut VecDeque<(Instant, usize, Program, Pair)>) -> Option<Run> {
    let (until, cell, program, pair) = resting.pop_front()?;
    sleep_until(until).await;
    let run = Run { cell, program, first: pair.first, direct: pair.direct, connections: pair.count().await.direct };
    pair.end().await;
    Some(run)
}

fn row<'a, I: Iterator<Item = &'a Run>>(name: &str, program: Program, possible: bool, of: impl Fn() -> I) {
    let direct = of().filter(|run| run.direct.is_some()).count();
    let became = if possible { format!("{direct} of {}", of().count()) } else { "impossible".to_owned() };
    println!(
        "| {name} | {program} | {} | {} | {became} | {} |",
        median(of().filter_map(|run| run.first)),
        median(of().filter_map(|run| run.direct)),
        of().map(|run| run.connections).max().unwrap_or_default(),
    );
}

/// The second part.
async fn endurance(minutes: u64) {
    println!("\n{minutes} minutes later\n");
    println!(
        "| who opens the circuit, who waits | | direct connections | through the relay | to and from the relay, kB/min |"
    );
    println!("|---|---|--:|--:|--:|");
    for program in programs() {
        let mut pairs = Vec::new();
        for (one, other, possible) in cells() {
            pairs.push((one, other, Pair::meet(program, one, other, possible).await));
        }
        // By then what is proven is proven, and what is superfluous is closed.
        sleep(Duration::from_secs(30)).await;
        let before: Vec<u64> = pairs.iter().map(|(.., pair)| pair.passed()).collect();
        sleep(Duration::from_secs(minutes * 60)).await;
        let (mut connected, total) = (0, pairs.len());
        for ((one, other, pair), before) in pairs.into_iter().zip(before) {
            let count = pair.count().await;
            connected += usize::from(count.direct + count.relayed > 0);
            let passed = (pair.passed() - before) / minutes / 1000;
            println!("| {one} - {other} | {program} | {} | {} | {passed} |", count.direct, count.relayed);
            pair.end().await;
        }
        println!("| still connected | {program} | {connected} of {total} | | |");
    }
}

impl Pair {
    /// Waits for a direct connection only where one is possible.
    async fn meet(program: Program, one: Side, other: Side, possible: bool) -> Self {
        let world = World::new().await;
        let centre = world.public("centre", 20).await;
        let relay = centre.device("relay").await;
        let far = world.side("far", other, 40).await.device("listener").await;
        let near = world.side("near", one, 30).await.device("dialer").await;
        centre.count();
        for (device, side) in [(&near, one), (&far, other)] {
            device.delay(DELAY).await;
            // It also makes the neighbour tables warm.
            if side != Side::UdpBlocked {
                let round_trip = device.round_trip(&relay).await.unwrap();
                assert!(
                    round_trip >= 2 * DELAY && round_trip < 2 * DELAY + Duration::from_millis(15),
                    "{round_trip:?}"
                );
            }
        }
        match program {
            Program::Plain => Self::plain(world, centre, [&relay, &far, &near], [one, other], possible).await,
            Program::Kinfolk => Self::kinfolk(world, centre, [&relay, &far, &near], possible).await,
        }
    }

    async fn plain(
        world: World,
        centre: Site,
        [relay, far, near]: [&Device; 3],
        sides: [Side; 2],
        possible: bool,
    ) -> Self {
        let listen = json!(["/ip4/0.0.0.0/tcp/4001", "/ip4/0.0.0.0/udp/4001/quic-v1"]);
        let ip = relay.ip();
        let external = [format!("/ip4/{ip}/tcp/4001"), format!("/ip4/{ip}/udp/4001/quic-v1")];
        let relay = Foreign::plain(relay, json!({ "mode": "relay", "listen": listen, "external": external })).await;
        // As in its example's instructions by TCP, and by QUIC at the same time where that gets through: with candidates of
        // one transport only it would get through fewer NATs.
        let [tcp, quic] = ["tcp", "udp"].map(|port| relay.address(&format!("/ip4/{ip}/{port}")));
        let options = |mode: &str, side: Side| {
            let mut options = json!({ "mode": mode, "relay": tcp });
            if side != Side::UdpBlocked {
                options["also"] = json!(quic);
            }
            options
        };
        let listener = Foreign::plain(far, options("listener", sides[1])).await;
        listener.event("reserved", |_| true).await;
        let start = SystemTime::now();
        let mut dialer = options("dialer", sides[0]);
        dialer["remote"] = json!(listener.peer());
        let dialer = Foreign::plain(near, dialer).await;
        let connected = async |relayed: bool| {
            loop {
                let events = dialer.events("connected");
                let found =
                    events.iter().find(|event| event["peer"] == *listener.peer() && event["relayed"] == relayed);
                if let Some(event) = found {
                    return since(start, event["at_unix_ms"].as_u64().unwrap());
                }
                sleep(Duration::from_millis(50)).await;
            }
        };
        let relayed = timeout(PATIENCE, connected(true)).await.ok();
        let direct = if possible { timeout(PATIENCE, connected(false)).await.ok() } else { None };
        Self {
            _world: world,
            centre,
            first: relayed,
            direct,
            ends: Ends::Plain { _relay: relay.into(), listener: listener.into(), dialer: dialer.into() },
        }
    }

    async fn kinfolk(world: World, centre: Site, [relay, far, near]: [&Device; 3], possible: bool) -> Self {
        let quiet = |builder: NodeBuilder| builder.log("off").flag("--no-mdns");
        let server = quiet(world.node("relay", relay)).set("role", "\"server\"").start().await;
        let known = server.addresses();
        let listener = quiet(world.node("listener", far)).bootstrap(&known).start().await;
        let held = async || listener.events().iter().any(|line| line.event == "relay_held").then_some(());
        let public = async || listener.status().await.reachability == kinfolk_core::Reachability::Public;
        let ready = async || if public().await { Some(()) } else { held().await };
        world.eventually("the listener has a place at the relay, or needs none", PATIENCE, ready).await;
        let circuits = known.each_ref().map(|relay| format!("{relay}/p2p-circuit/p2p/{}", listener.peer_id()));
        let dialer = quiet(world.node("dialer", near)).bootstrap(&known).set("pinned", format!("{circuits:?}"));
        let dialer = dialer.start().await;
        let start = dialer.started_at();
        let peer = listener.peer_id();
        let met = async || dialer.connected_to(&peer).await.map(|_| dialer.met(&peer, start));
        let found = timeout(PATIENCE, async {
            loop {
                if let Some(met) = met().await
                    && (met.direct.is_some() || !possible)
                {
                    return;
                }
                sleep(Duration::from_millis(50)).await;
            }
        });
        // Either is told by `met`.
        let _ = found.await;
        let met = met().await;
        let (first, direct) = (met.map(|met| met.first), met.and_then(|met| met.direct).map(|(after, _)| after));
        Self { _world: world, centre, first, direct, ends: Ends::Kinfolk { listener, dialer } }
    }

    /// As the one counts that has more.
    async fn count(&self) -> Count {
        match &self.ends {
            Ends::Plain { listener, dialer, .. } => {
                let mut most = Count::default();
                for (end, other) in [(dialer, listener), (listener, dialer)] {
                    let all = end.ask("connections", json!({})).await.unwrap();
                    let all = all.as_array().unwrap();
                    let relayed = |is: bool| {
                        let that = |one: &&Value| one["peer"] == *other.peer() && one["relayed"] == is;
                        all.iter().filter(that).count()
                    };
                    most = most.max(relayed(false), relayed(true));
                }
                most
            }
            Ends::Kinfolk { listener, dialer } => {
                let mut most = Count::default();
                for (end, other) in [(dialer, listener), (listener, dialer)] {
                    let Some(peer) = end.peer(&other.peer_id()).await else { continue };
                    let relayed = peer.connections.iter().filter(|one| one.path.kind == PathKind::Relayed).count();
                    most = most.max(peer.connections.len() - relayed, relayed);
                }
                most
            }
        }
    }

    /// Bytes in and out of the relay's network.
    fn passed(&self) -> u64 {
        self.centre.passed()
    }

    async fn end(self) {
        if let Ends::Kinfolk { listener, dialer } = &self.ends {
            tokio::join!(listener.stop(), dialer.stop());
        }
    }
}

impl Count {
    fn max(self, direct: usize, relayed: usize) -> Self {
        Self { direct: self.direct.max(direct), relayed: self.relayed.max(relayed) }
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "rust-libp2p",
            Self::Kinfolk => "Kinfolk",
        })
    }
}

fn since(start: SystemTime, at_unix_ms: u64) -> Duration {
    let start = start.duration_since(UNIX_EPOCH).unwrap();
    Duration::from_millis(at_unix_ms).saturating_sub(start)
}

fn median(times: impl Iterator<Item = Duration>) -> String {
    let mut times: Vec<u128> = times.map(|time| time.as_millis()).collect();
    times.sort_unstable();
    times.get(times.len() / 2).map_or_else(|| "-".to_owned(), ToString::to_string)
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |value| value.parse().unwrap())
}
