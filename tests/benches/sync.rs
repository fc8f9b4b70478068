//! How fast logs travel between `kinfolk` processes in networks of their own, and what it costs:
//!
//! - entries of 100 bytes a second, by TCP and by QUIC, from the request to connect to the last one on the other's disk;
//!   and the most memory that each of both had by then, for a tenth of the entries and for all: it should be the same;
//! - how long after it was put an entry is with all of twenty nodes at home;
//! - bytes on the wire per hour and peer when nothing changes: of two pairs of nodes the one compares positions every
//!   second and the other never, and the difference is what an exchange costs; by default there are 12 in an hour.
//!
//! The release build is what is measured, and has to be there:
//!
//! ```text
//! cargo build --workspace --release && cargo bench -p kinfolk-tests --bench sync
//! ```
//!
//! `KINFOLK_ENTRIES` in the environment is another number of entries than a million.

#![allow(clippy::print_stdout, clippy::unwrap_used, missing_docs, reason = "a benchmark prints its figures")]

use std::{
    fs,
    time::{Duration, Instant},
};

use futures::future::join_all;
use kinfolk_shell::api::{logs::Sync, types::Outcome};
use kinfolk_tests::{Node, NodeBuilder, World};
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(900);

/// How long nothing happens, for the figures of an idle hour.
const IDLE: Duration = Duration::from_secs(60);

fn main() {
    // While there is one thread: a user namespace, in which networks can be made without root.
    patchbay::init_userns().unwrap();
    let entries = std::env::var("KINFOLK_ENTRIES").ok().and_then(|text| text.parse().ok()).unwrap_or(1_000_000);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        for (name, address) in [("TCP", "tcp/4001"), ("QUIC", "udp/4001/quic-v1")] {
            for entries in [entries / 10, entries] {
                catch_up(name, address, entries).await;
            }
        }
        twenty().await;
        let (often, never) = (idle("1s").await, idle("1d").await);
        let seconds = IDLE.as_secs();
        let exchange = often.saturating_sub(never) / seconds;
        println!(
            "idle: {} bytes per hour and peer for logs ({exchange} an exchange, 12 an hour), {} for all else",
            12 * exchange,
            never * 3_600 / seconds
        );
    });
}

/// One node gets all that another one has.
async fn catch_up(name: &str, address: &str, entries: u64) {
    let world = World::new().await;
    let (here, there) = (world.public("here", 20).await, world.public("there", 30).await);
    let device = here.device("author").await;
    let author = member(world.node("author", &device)).start().await;
    let line = format!("{}\n", "x".repeat(100));
    let putting = Instant::now();
    let mut left = entries;
    while left > 0 {
        let some = left.min(4_096);
        author.put(&line.repeat(usize::try_from(some).unwrap())).await;
        left -= some;
    }
    let put = per_second(entries, putting.elapsed());
    let reader = member(world.node("reader", &there.device("reader").await)).start().await;
    let at = format!("/ip4/{}/{address}/p2p/{}", device.ip(), author.peer_id());
    let start = Instant::now();
    let connected: Result<Outcome, String> = reader.ask("POST", "/v1/connect", Some(json!({ "address": at }))).await;
    connected.unwrap();
    let all = async || (position(&reader).await == entries).then_some(());
    world.eventually("the reader has all entries", PATIENCE, all).await;
    let took = start.elapsed();
    let (of_author, of_reader) = (most_memory(&author).await, most_memory(&reader).await);
    println!(
        "{entries} entries by {name}: {} a second; most memory: author {of_author} KiB, reader {of_reader} KiB; put before: \
         {put} a second",
        per_second(entries, took)
    );
    author.stop().await;
    reader.stop().await;
}

/// One of twenty puts an entry.
async fn twenty() {
    let world = World::new().await;
    let provider = world.public("isp", 20).await;
    let home = world.home("home", &provider).await;
    let mut nodes = Vec::new();
    for number in 0..20 {
        let name = format!("n{number}");
        nodes.push(member(world.node(&name, &home.device(&name).await)).start().await);
    }
    let all: Vec<&Node> = nodes.iter().collect();
    world.all_connected(&all, PATIENCE).await;
    let mut took = vec![];
    for round in 1..=15 {
        let start = Instant::now();
        nodes[round % 20].put("The cat is back.\n").await;
        let entries = u64::try_from(round).unwrap();
        loop {
            let positions = join_all(nodes.iter().map(position)).await;
            if positions.iter().all(|position| *position == entries) {
                break;
            }
            assert!(start.elapsed() < PATIENCE, "{positions:?}");
        }
        took.push(start.elapsed().as_millis());
    }
    took.sort_unstable();
    println!("an entry is with all of 20 nodes after {} ms (median of 15; {} to {})", took[7], took[0], took[14]);
    join_all(nodes.iter().map(Node::stop)).await;
}

/// Bytes between two nodes with the same logs, while nothing happens.
async fn idle(every: &str) -> u64 {
    let world = World::new().await;
    let (here, there) = (world.public("here", 20).await, world.public("there", 30).await);
    let set = |builder: NodeBuilder| member(builder).set("sync.every", format!("\"{every}\"")).flag("--no-mdns");
    let a = set(world.node("a", &here.device("a").await)).start().await;
    a.put("The cat is back.\n").await;
    let b = set(world.node("b", &there.device("b").await)).bootstrap(&[a.address()]).start().await;
    let even = async || (position(&b).await == 1).then_some(());
    world.eventually("both have the same", PATIENCE, even).await;
    // What follows a first connection is over.
    tokio::time::sleep(IDLE).await;
    there.count();
    tokio::time::sleep(IDLE).await;
    let passed = there.passed();
    a.stop().await;
    b.stop().await;
    passed
}

/// Logs nothing, as by default, and exchanges logs with everybody.
fn member(builder: NodeBuilder) -> NodeBuilder {
    builder.log("off").set("sync.with", "\"anyone\"")
}

/// Entries that it holds, of all logs.
async fn position(node: &Node) -> u64 {
    let sync: Sync = node.ask("GET", "/v1/sync", None).await.unwrap();
    sync.logs.iter().map(|log| log.position).sum()
}

/// In KiB, of a process that still runs.
async fn most_memory(node: &Node) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", node.status().await.pid)).unwrap();
    let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    most.trim().trim_end_matches("kB").trim().parse().unwrap()
}

fn per_second(entries: u64, took: Duration) -> u64 {
    entries * 1_000 / u64::try_from(took.as_millis()).unwrap().max(1)
}
