//! What happens to those who live by a relay when it goes away, for a moment or for good.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kinfolk_core::PeerId;
use kinfolk_shell::api::types::PathKind;
use kinfolk_tests::{Device, Node, Pair, Side, World};

/// Milliseconds since 1970, as in the lines that nodes print.
fn now() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// When the node first said so of that peer, after a time.
fn said(node: &Node, event: &str, peer: &PeerId, after: u64) -> Option<u64> {
    let lines = node.events();
    let line = lines.iter().find(|line| line.event == event && line.peer == Some(*peer) && line.at_unix_ms >= after);
    line.map(|line| line.at_unix_ms)
}

/// Relays in the cloud, each in a network of its own, and one node behind a symmetric NAT.
struct Cloud {
    world: World,
    relays: Vec<Node>,
    node: Node,
}

impl Cloud {
    async fn new(relays: u8) -> Self {
        let world = World::new().await;
        let mut running = Vec::new();
        for number in 0..relays {
            let device = centre(&world, number).await;
            running.push(relay(&world, number, &device).start().await);
        }
        let device = world.side("home", Side::Symmetric, 30).await.device("node").await;
        let known: Vec<String> = running.iter().flat_map(Node::addresses).collect();
        let node = world.node("node", &device).bootstrap(&known).start().await;
        for relay in &running {
            let peer = relay.peer_id();
            let held = async || said(&node, "relay_held", &peer, 0);
            world.eventually("the relay is held", Duration::from_secs(30), held).await;
        }
        Self { world, relays: running, node }
    }

    /// Waits until a relay is held again, and gives how long after `from` that was.
    async fn held_again(&self, relay: &Node, from: u64, within: Duration) -> Duration {
        let peer = relay.peer_id();
        let held = async || said(&self.node, "relay_held", &peer, from);
        let at = self.world.eventually("the relay is held again", within, held).await;
        Duration::from_millis(at - from)
    }
}

async fn centre(world: &World, number: u8) -> Device {
    world.public(&format!("centre{number}"), 20 + number).await.device(&format!("server{number}")).await
}

fn relay(world: &World, number: u8, device: &Device) -> kinfolk_tests::NodeBuilder {
    world.node(&format!("relay{number}"), device).set("role", "\"server\"")
}

#[tokio::test]
async fn one_that_is_restarted_has_its_place_for_us_within_five_seconds() {
    let cloud = Cloud::new(1).await;
    cloud.relays[0].stop().await;
    cloud.relays[0].start().await;
    let took = cloud.held_again(&cloud.relays[0], now(), Duration::from_secs(30)).await;
    assert!(took <= Duration::from_secs(5), "{took:?}");
    cloud.world.finish_with_golden(&[(&cloud.node, "relay-restarted")]).await;
}

#[tokio::test]
async fn one_that_was_away_for_half_a_minute_has_it_within_five_seconds() {
    let cloud = Cloud::new(1).await;
    let peer = cloud.relays[0].peer_id();
    let killed = now();
    cloud.relays[0].kill().await;
    let lost = async || said(&cloud.node, "relay_not_held", &peer, killed);
    cloud.world.eventually("the relay's death is noticed", Duration::from_secs(90), lost).await;
    let away = async || said(&cloud.node, "relay_held", &peer, killed).is_none();
    cloud.world.always("it is away", Duration::from_secs(30), away).await;
    cloud.relays[0].start().await;
    let took = cloud.held_again(&cloud.relays[0], now(), Duration::from_secs(60)).await;
    assert!(took <= Duration::from_secs(5), "{took:?}");
    cloud.world.finish().await;
}

#[tokio::test]
async fn with_none_alive_a_node_starts_and_finds_the_first_that_comes() {
    let world = World::new().await;
    let device = centre(&world, 0).await;
    let server = relay(&world, 0, &device).start().await;
    let known = server.addresses();
    server.stop().await;
    let home = world.side("home", Side::Symmetric, 30).await.device("node").await;
    let node = world.node("node", &home).bootstrap(&known).set("nat.relays", format!("{known:?}")).start().await;
    let alone = async || node.status().await.connected == 0 && node.runs();
    world.always("it runs without anybody", Duration::from_secs(15), alone).await;
    server.start().await;
    let (peer, from) = (server.peer_id(), now());
    let held = async || said(&node, "relay_held", &peer, from);
    let at = world.eventually("the relay is held", Duration::from_secs(40), held).await;
    assert!(at - from <= 35_000, "{} ms", at - from);
    world.finish_with_golden(&[(&node, "every-relay-dead-at-start")]).await;
}

/// Who is reached through which relay.
async fn relayed_by(node: &Node, other: &Node) -> Option<PeerId> {
    node.connected(other).await?.path.filter(|path| path.kind == PathKind::Relayed)?.relay
}

#[tokio::test]
async fn one_that_dies_for_good_is_replaced_by_the_second() {
    let pair = Pair::new([Side::Symmetric, Side::Symmetric]).await;
    let device = pair.world.public("centre2", 21).await.device("server2").await;
    let second = pair.world.node("second", &device).set("role", "\"server\"").start().await;
    let known: Vec<String> = pair.server.addresses().into_iter().chain(second.addresses()).collect();
    for node in &pair.nodes {
        node.set("bootstrap", format!("{known:?}"));
    }
    pair.start().await;
    let within = Duration::from_secs(60);
    pair.on("both are connected through a relay", within, |path| path.kind == PathKind::Relayed).await;
    for node in &pair.nodes {
        for relay in [&pair.server, &second] {
            let peer = relay.peer_id();
            let held = async || said(node, "relay_held", &peer, 0);
            pair.world.eventually("two relays are held", within, held).await;
        }
    }
    let [a, b] = &pair.nodes;
    let first = relayed_by(a, b).await.unwrap();
    let (dies, stays) = if first == pair.server.peer_id() { (&pair.server, &second) } else { (&second, &pair.server) };
    dies.kill().await;
    let stays = stays.peer_id();
    pair.on("both are connected through the other one", Duration::from_secs(60), |path| path.relay == Some(stays))
        .await;
    pair.world.finish_with_golden(&[(a, "second-relay-takes-over")]).await;
}

#[tokio::test]
async fn a_hard_pair_stays_on_one_for_good_and_nobody_dials_again() {
    let pair = Pair::new([Side::Symmetric, Side::Symmetric]).await;
    pair.start().await;
    pair.on("both are connected through the relay", Duration::from_secs(60), |path| path.kind == PathKind::Relayed)
        .await;
    let [a, b] = &pair.nodes;
    // Each may have dialled the other one; one connection is left.
    let single = async || {
        let [connection] = <[_; 1]>::try_from(a.connected(b).await?.connections).ok()?;
        Some(connection.connection)
    };
    let first = pair.world.eventually("one connection is left", Duration::from_secs(30), single).await;
    let same = async || single().await == Some(first) && relayed_by(b, a).await.is_some();
    pair.world.always("it is the same connection", Duration::from_secs(75), same).await;
    let times: usize = pair.both().iter().map(|(node, other)| connections(node, other)).sum();
    assert!(times <= 3, "{times} connections were made between them");
    pair.world.finish_with_golden(&[(a, "hard-pair-stays-relayed")]).await;
}

/// How often the node said that it came to be connected with the other one.
fn connections(node: &Node, other: &Node) -> usize {
    let peer = other.peer_id();
    node.events().iter().filter(|line| line.event == "peer_connected" && line.peer == Some(peer)).count()
}
