//! A small machine among others who come and go, over a line that fails: half an hour by hand, at night, and moments each time.

use std::time::{Duration, Instant};

use futures::future::join_all;
use kinfolk_tests::{Node, NodeBuilder, Usage, World};

/// What its process may have in use, in kB: the default of `memory`.
const MEMORY_KB: u64 = 64 << 10;

/// What the heap may grow by besides a tenth: a crowd that comes back at once needs as much for handshakes.
const SLACK_KB: u64 = 1 << 10;

struct Soak {
    /// A server, and the others.
    peers: usize,
    span: Duration,
    /// How long each is away, and then how long it is there before the next one goes.
    pause: Duration,
}

#[tokio::test]
#[ignore = "half an hour: cargo nextest run --workspace --features kinfolk-sim/museum --profile soak --run-ignored only --no-capture soaks"]
async fn for_half_an_hour() {
    let minutes = std::env::var("SOAK_MINUTES").ok().and_then(|text| text.parse().ok()).unwrap_or(30);
    Soak { peers: 20, span: Duration::from_secs(60 * minutes), pause: Duration::from_secs(15) }.run().await;
}

#[tokio::test]
async fn for_moments() {
    Soak { peers: 5, span: Duration::from_secs(12), pause: Duration::from_secs(2) }.run().await;
}

impl Soak {
    async fn run(self) {
        let world = World::new().await;
        let isp = world.public("isp", 20).await;
        let [home, other] = [world.home("home", &isp).await, world.home("other", &isp).await];
        let server = world.node("server", &isp.device("server").await).set("role", "\"server\"").start().await;
        let pi = world.node("pi", &home.device("pi").await).embedded().set("power", "\"low\"");
        let pi = pi.bootstrap(&server.addresses()).start().await;
        let mut others = vec![];
        for number in 1..self.peers {
            let site = if number % 3 == 0 { &home } else { &other };
            let name = format!("peer-{number}");
            let node = world.node(&name, &site.device(&name).await).bootstrap(&server.addresses());
            // In a crowd nobody keeps to everybody, but to whom they have pinned.
            others.push(node.set("pinned", format!("[\"{}\"]", pi.peer_id())));
        }
        let others: Vec<Node> = join_all(others.into_iter().map(NodeBuilder::start)).await;
        let met = async || (pi.status().await.connected as usize >= self.peers).then_some(());
        world.eventually("all are connected to it", Duration::from_secs(180), met).await;

        let start = Instant::now();
        let mut seen: Vec<(Duration, Usage)> = vec![(Duration::ZERO, pi.usage())];
        for round in 0_usize.. {
            // One goes, by a power cut or in order, and comes back; every fifth time the line is cut as well, every
            // fifth it loses much.
            let one = &others[round * 7 % others.len()];
            if round % 2 == 0 {
                one.kill().await;
            } else {
                one.stop().await;
            }
            match round % 5 {
                0 => home.cut(),
                3 => home.lose(20),
                _ => {}
            }
            tokio::time::sleep(self.pause).await;
            match round % 5 {
                0 => home.heal(),
                3 => drop(home.run("nft delete table inet loss")),
                _ => {}
            }
            one.start().await;
            tokio::time::sleep(self.pause).await;

            let (at, now) = (start.elapsed(), pi.usage());
            assert!(now.memory_kb < MEMORY_KB, "{now:?}");
            let (then, before) = seen[seen.len() - 1];
            tell(at, pi.status().await.connected, &now, (at - then, &before));
            seen.push((at, now));
            if at > self.span {
                break;
            }
        }
        let most = |quarter: u32| {
            let (from, to) = (self.span * quarter / 4, self.span * (quarter + 1) / 4);
            seen.iter().filter(|(at, _)| (from..=to).contains(at)).map(|(_, usage)| usage.own_kb).max()
        };
        let (early, late) =
            (most(1).or(most(0)).unwrap(), seen[seen.len() - 1].1.own_kb.min(most(3).unwrap_or(u64::MAX)));
        let all = &seen[seen.len() - 1];
        tell(all.0, pi.status().await.connected, &all.1, (all.0, &seen[0].1));
        assert!(
            late <= early + early / 10 + SLACK_KB,
            "its own memory grows: {early} kB at first, {late} kB at the end"
        );
        world.eventually("all are connected to it again", Duration::from_secs(180), met).await;
        world.finish().await;
    }
}

#[expect(clippy::print_stdout, reason = "how it fares is asked for")]
fn tell(at: Duration, connected: u32, now: &Usage, (span, before): (Duration, &Usage)) {
    let seconds = span.as_secs_f64();
    println!(
        "{:>5} s: {connected} connected, {} kB, {} of them its own, {:.1} wake-ups/s, {:.1} ms of processor/s",
        at.as_secs(),
        now.memory_kb,
        now.own_kb,
        now.wake_ups.saturating_sub(before.wake_ups) as f64 / seconds,
        now.processor.saturating_sub(before.processor).as_secs_f64() * 1e3 / seconds,
    );
}
