//! How long it takes from the start of a `kinfolk` process to its first connection, in networks of its own: to a
//! bootstrap server in another public network, by QUIC and by TCP; to a server of which only a doorway's name is known; and by
//! mDNS to another node at home, which runs already or is started at the same moment.
//!
//! Each repetition is a first start: with a new data folder, so that making the identity and the store is in it. The time
//! goes from just before the process is made to the `peer_connected` line of `kinfolk up --json`, by the clock of the
//! machine; of two started at once, from the first one's start to the later one's line. The networks have no delay of
//! their own, and the program's own time is some tens of milliseconds: on a machine that others use, too, their work is
//! most of the range. Compare medians, of runs on a quiet machine.
//!
//! The release build is what is measured, and has to be there:
//!
//! ```text
//! cargo build --workspace --release && cargo bench -p kinfolk-tests --bench start
//! ```

#![allow(clippy::print_stdout, clippy::unwrap_used, missing_docs, reason = "a benchmark prints its figures")]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kinfolk_core::{Health, PeerId};
use kinfolk_tests::{Node, NodeBuilder, Side, Site, World};
use serde_json::Value;

const REPETITIONS: usize = 15;
const PATIENCE: Duration = Duration::from_secs(60);

fn main() {
    // While there is one thread: a user namespace, in which networks can be made without root.
    patchbay::init_userns().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    println!(
        "{:<48} {:>8} {:>8} {:>8}   of {REPETITIONS}, ms",
        "from the start of the process to", "median", "least", "most"
    );
    runtime.block_on(async {
        for (name, transport, address) in [("QUIC", "quic", "udp/4001/quic-v1"), ("TCP", "tcp", "tcp/4001")] {
            print(&format!("the bootstrap server, by {name}"), bootstrap(transport, address).await);
        }
        print("a server that a doorway tells of", doorway().await);
        print("one at home that runs already, by mDNS", home_runs().await);
        print("one at home that is started, too, by mDNS", home_at_once().await);
    });
}

/// To a server, by one transport.
async fn bootstrap(transport: &str, address: &str) -> Vec<u64> {
    let world = World::new().await;
    let (centre, edge) = (world.public("centre", 20).await, world.public("edge", 30).await);
    let device = centre.device("server").await;
    let server = quiet(world.node("server", &device)).set("role", "\"server\"").start().await;
    let first = format!("/ip4/{}/{address}/p2p/{}", device.ip(), server.peer_id());
    let mut took = Vec::new();
    for round in 0..REPETITIONS {
        let name = format!("node{round}");
        let builder = quiet(world.node(&name, &edge.device(&name).await)).flag("--no-mdns");
        let node = builder.bootstrap(std::slice::from_ref(&first)).start().await;
        let (at, detail) = first_connection(&world, &node, &server.peer_id()).await;
        assert_eq!(by(&detail), transport, "{detail}");
        took.push(millis(node.started_at(), at));
        node.stop().await;
    }
    took
}

/// From behind a NAT to a server of which nothing is known but the name of the doorway beside it.
async fn doorway() -> Vec<u64> {
    let world = World::new().await;
    let device = world.public("centre", 20).await.device("cloud").await;
    let home = world.side("home", Side::PortRestricted, 30).await;
    world.name_server().set_host("doorway.example", device.ip()).unwrap();
    let knows = |node: NodeBuilder| quiet(node).set("signal.servers", r#"["http://doorway.example:4080/signal"]"#);
    let cloud = knows(world.node("cloud", &device)).set("role", "\"server\"");
    let cloud = cloud.set("doorway.listen", "\"0.0.0.0:4080\"").start().await;
    let published = async || cloud.status().await.signal.first().and_then(|server| server.published_for_s);
    world.eventually("the server has published itself", PATIENCE, published).await;
    let mut took = Vec::new();
    for round in 0..REPETITIONS {
        let name = format!("node{round}");
        let node = knows(world.node(&name, &home.device(&name).await)).flag("--no-mdns").start().await;
        let (at, _) = first_connection(&world, &node, &cloud.peer_id()).await;
        took.push(millis(node.started_at(), at));
        node.stop().await;
    }
    took
}

/// To a node that has been running, alone at first.
async fn home_runs() -> Vec<u64> {
    let (world, home) = home().await;
    let old = quiet(world.node("old", &home.device("old").await)).start().await;
    let alone = async || (old.status().await.health == Health::Alone).then_some(());
    world.eventually("the first one has settled", PATIENCE, alone).await;
    let mut took = Vec::new();
    for round in 0..REPETITIONS {
        let name = format!("new{round}");
        let new = quiet(world.node(&name, &home.device(&name).await)).start().await;
        let (at, _) = first_connection(&world, &new, &old.peer_id()).await;
        took.push(millis(new.started_at(), at));
        new.stop().await;
    }
    took
}

/// Two that start at once.
async fn home_at_once() -> Vec<u64> {
    let (world, home) = home().await;
    let mut took = Vec::new();
    for round in 0..REPETITIONS {
        let [a, b] = [format!("a{round}"), format!("b{round}")];
        let (one, other) = (home.device(&a).await, home.device(&b).await);
        let (a, b) = (quiet(world.node(&a, &one)), quiet(world.node(&b, &other)));
        let (a, b) = tokio::join!(a.start(), b.start());
        let (at_a, _) = first_connection(&world, &a, &b.peer_id()).await;
        let (at_b, _) = first_connection(&world, &b, &a.peer_id()).await;
        took.push(millis(a.started_at().min(b.started_at()), at_a.max(at_b)));
        tokio::join!(a.stop(), b.stop());
    }
    took
}

async fn home() -> (World, Site) {
    let world = World::new().await;
    let provider = world.public("isp", 20).await;
    let home = world.home("home", &provider).await;
    (world, home)
}

/// Logs nothing, as by default.
fn quiet(builder: NodeBuilder) -> NodeBuilder {
    builder.log("off")
}

/// When the node said that it is connected with that peer, in milliseconds since 1970, and how.
async fn first_connection(world: &World, node: &Node, peer: &PeerId) -> (u64, Value) {
    let connected = async || {
        let line = node.events().into_iter().find(|line| line.event == "peer_connected" && line.peer == Some(*peer))?;
        Some((line.at_unix_ms, line.detail))
    };
    world.eventually(&format!("{} is connected", node.name()), PATIENCE, connected).await
}

/// The transport of a `peer_connected` line.
fn by(detail: &Value) -> &str {
    let kinds = detail["path"].as_object().into_iter().flat_map(|path| path.values());
    kinds.filter_map(|kind| kind["transport"].as_str()).next().unwrap_or("none")
}

fn millis(from: SystemTime, to: u64) -> u64 {
    let from = from.duration_since(UNIX_EPOCH).unwrap().as_millis();
    to - u64::try_from(from).unwrap()
}

fn print(what: &str, mut took: Vec<u64>) {
    took.sort_unstable();
    println!("{what:<48} {:>8} {:>8} {:>8}", took[took.len() / 2], took[0], took[took.len() - 1]);
}
