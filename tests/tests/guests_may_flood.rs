//! Those whom a node serves may ask too much of it, or for what is not theirs. They get their part and no more; the others
//! get theirs; and the figures say how often somebody was refused.

use std::time::Duration;

use futures::FutureExt;
use kinfolk_core::PeerId;
use kinfolk_tests::{Foreign, Node, Side, Site, World};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

const SOON: Duration = Duration::from_secs(60);

struct Lab {
    world: World,
    centre: Site,
    server: Node,
    hostile: Foreign,
}

impl Lab {
    /// Our server, and a computer of many bad peers in another network.
    async fn new() -> Self {
        let world = World::new().await;
        let centre = world.public("centre", 20).await;
        let server = world.node("server", &centre.device("server").await).set("role", "\"server\"").with_figures();
        let server = server.start().await;
        let hostile = Foreign::hostile(&world.public("bad", 50).await.device("hostile").await, json!({})).await;
        let listens = async || (server.status().await.advertised.len() >= 2).then_some(());
        world.eventually("the server says where it is", SOON, listens).await;
        Self { world, centre, server, hostile }
    }

    async fn flood(&self, what: &str, mut with: Value) -> Flood {
        with["address"] = json!(self.server.address());
        let said = self.hostile.ask(what, with).await.unwrap();
        Flood { connected: said["connected"].as_u64().unwrap(), answers: said["answers"].clone() }
    }

    /// One behind a NAT gets a place on our relay.
    async fn still_relays(&self) {
        let device = self.world.side("home", Side::Symmetric, 30).await.device("friend").await;
        let friend = self.world.node("friend", &device).bootstrap(&self.server.addresses()).start().await;
        let held = async || friend.status().await.relays.iter().any(|relay| relay.held_for_s.is_some()).then_some(());
        self.world.eventually("a friend has a place on the relay", SOON, held).await;
    }

    /// What the shell counts under this name, as operators and as users see it.
    async fn counted(&self, name: &str) -> u64 {
        let status: Value = serde_json::from_str(&self.server.cli(&["status", "--json"]).await.unwrap()).unwrap();
        let told = status["counters"][name].as_u64().unwrap_or_default();
        let agree = async || (self.server.figures().await.counted(name) >= told).then_some(());
        self.world.eventually(&format!("{name} is {told} for operators, too"), SOON, agree).await;
        told
    }
}

struct Flood {
    connected: u64,
    answers: Value,
}

impl Flood {
    fn answered(&self, word: &str) -> u64 {
        self.answers[word].as_u64().unwrap_or_default()
    }
}

/// A connection costs a debug program about 100 kB; a leak more.
fn holds(node: &Node, before_kb: u64) {
    let now = node.memory_kb();
    assert!(now <= before_kb + 16_384, "{before_kb} kB before, {now} kB now");
}

#[tokio::test]
async fn with_places_on_our_relay() {
    let lab = Lab::new().await;
    let before = lab.server.memory_kb();
    let crowd = lab.flood("reserve", json!({ "peers": 40, "times": 1 })).await;
    assert_eq!(crowd.connected, 40);
    // So many of one network.
    assert_eq!((crowd.answered("100"), lab.server.status().await.services.reservations), (32, 32), "{}", crowd.answers);
    assert_eq!(lab.counted("relay.refused_network").await, 8);
    let flood = lab.flood("reserve", json!({ "peers": 4, "times": 80 })).await;
    assert_eq!(flood.answered("100"), 0, "{}", flood.answers);
    let refused = lab.counted("relay.refused_too_often").await;
    assert!(refused >= 4 * 80 - 120, "{refused} of {}", flood.answers);
    assert_eq!(lab.server.figures().await.get("kinfolk_served_reservations"), 32);
    lab.still_relays().await;
    holds(&lab.server, before);
    lab.world.finish().await;
}

#[tokio::test]
async fn with_probes() {
    let lab = Lab::new().await;
    let before = lab.server.memory_kb();
    let nobody = json!(["/ip4/45.10.50.200/tcp/4001"]);
    for version in [2, 1] {
        let flood = json!({ "peers": 5, "times": 60, "version": version, "targets": nobody });
        let flood = lab.flood("probe", flood).await;
        assert_eq!(flood.connected, 5);
        // They never send what they are asked for, or are asked nothing more.
        assert!(flood.answered("none") >= 300 - 24, "{}", flood.answers);
    }
    // Both versions have one quota, of which a network gets so many in a minute.
    let asked = lab.counted("probes.asked").await;
    assert!((1..=24).contains(&asked), "{asked}");
    assert!(lab.counted("probes.refused").await >= 2 * 300 - 24 - 100);
    holds(&lab.server, before);
    lab.still_relays().await;
    lab.world.finish().await;
}

#[tokio::test]
async fn with_questions_about_our_lan() {
    let lab = Lab::new().await;
    let printer = lab.centre.device("printer").await;
    lab.server.device().run("ip addr add 192.168.77.1/24 dev eth0");
    printer.run(
        "ip addr add 192.168.77.2/24 dev eth0 && nft add table inet seen && nft add counter inet seen came && \
         nft 'add chain inet seen input { type filter hook input priority -300; policy accept; }' && \
         nft add rule inet seen input ip daddr 192.168.77.2 counter name came",
    );
    let seen = || {
        let text = printer.run("nft list counter inet seen came");
        text.split("packets ").nth(1).and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
    };
    let listener = printer.with(async { TcpListener::bind("192.168.77.2:80").await.unwrap() }).await;
    let targets = [
        "/ip4/192.168.77.2/tcp/80",
        "/ip4/192.168.77.2/udp/80/quic-v1",
        "/ip4/45.10.50.200/tcp/1/ip4/192.168.77.2/tcp/80",
        "/ip6/::ffff:192.168.77.2/tcp/80",
        "/ip4/127.0.0.1/tcp/80",
    ];
    let ask = |version| json!({ "times": targets.len(), "version": version, "targets": targets, "data": true });
    let new = lab.flood("probe", ask(2)).await;
    assert_eq!(new.answered("200 100"), targets.len() as u64, "{}", new.answers);
    assert_eq!(lab.counted("probes.refused").await, targets.len() as u64);
    // Version 1 may dial the client's own address instead, which does no harm; after four it has to wait.
    let old = lab.flood("probe", ask(1)).await;
    assert_eq!(old.answered("0") + old.answered("none"), 0, "{}", old.answers);
    assert_eq!(seen(), Some(0), "packets came");
    assert!(listener.accept().now_or_never().is_none());
    // It would have come, and would have been seen.
    let reached = lab.server.device().with(async { TcpStream::connect("192.168.77.2:80").await.is_ok() });
    assert!(reached.await);
    assert!(seen() > Some(0));
    lab.world.finish().await;
}

#[tokio::test]
async fn with_circuits_from_one_that_is_blocked() {
    let lab = Lab::new().await;
    let device = lab.world.side("home", Side::Symmetric, 30).await.device("node").await;
    let node = lab.world.node("node", &device).bootstrap(&lab.server.addresses()).with_figures().start().await;
    let held = async || node.status().await.relays.iter().any(|relay| relay.held_for_s.is_some()).then_some(());
    lab.world.eventually("it has a place on the relay", SOON, held).await;
    let [relay, _] = lab.server.addresses();
    let device = lab.world.public("far", 40).await.device("plain").await;
    let plain =
        Foreign::plain(&device, json!({ "mode": "dialer", "relay": relay, "version": "/elohim/id/1.0.0" })).await;
    let peer: PeerId = plain.peer().parse().unwrap();
    node.cli(&["block", plain.peer()]).await.unwrap();
    plain.event("identified", |event| event["peer"] == *lab.server.peer_id().to_string()).await;
    let before = node.memory_kb();
    let circuit = format!("{relay}/p2p-circuit/p2p/{}", node.peer_id());
    // As many as the relay opens for one peer at once.
    for _ in 0..8 {
        plain.ask("dial", json!({ "address": circuit })).await.unwrap();
    }
    let refused = async || (node.figures().await.counted("refused.denied_peers") >= 8).then_some(());
    lab.world.eventually("each was refused, and counted", SOON, refused).await;
    assert!(lab.server.figures().await.counted("relay.circuits_opened") >= 8);
    let known = node.peer(&peer).await.unwrap();
    assert!(known.blocked && known.connections.is_empty(), "{known:?}");
    let never = |line: &kinfolk_shell::api::types::EventLine| line.event != "peer_connected" || line.peer != Some(peer);
    assert!(node.events().iter().all(never), "it was let in");
    holds(&node, before);
    lab.world.finish().await;
}
