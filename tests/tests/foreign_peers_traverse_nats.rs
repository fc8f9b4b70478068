//! Relays, punches and probes with peers that nobody here wrote: js-libp2p, and plain rust-libp2p.

use std::time::Duration;

use kinfolk_core::{Action, Command, Event, PeerId, ProbeVerdict, Reachability};
use kinfolk_shell::api::types::PathKind;
use kinfolk_tests::{Device, Foreign, Node, Side, World};
use serde_json::{Value, json};

/// What members call themselves: others are not kept for long.
const OURS: &str = "/elohim/id/1.0.0";
const SOON: Duration = Duration::from_secs(60);

fn id(foreign: &Foreign) -> PeerId {
    foreign.peer().parse().unwrap()
}

/// A world with a data centre, and room for two networks.
struct Lab {
    world: World,
    centre: Device,
}

impl Lab {
    async fn new() -> Self {
        let world = World::new().await;
        let centre = world.public("centre", 20).await.device("centre").await;
        Self { world, centre }
    }

    /// Our relay.
    async fn server(&self) -> Node {
        self.world.node("server", &self.centre).set("role", "\"server\"").start().await
    }

    /// A network, and a computer in it.
    async fn device(&self, name: &str, side: Side, number: u8) -> Device {
        self.world.side(&format!("{name}-net"), side, number).await.device(name).await
    }

    async fn node(&self, name: &str, side: Side, number: u8, known: &[String]) -> Node {
        let device = self.device(name, side, number).await;
        self.world.node(name, &device).bootstrap(known).start().await
    }

    /// Has a node connect to a peer through a relay that it is connected with.
    async fn connect(&self, node: &Node, relay: &Node, peer: &Foreign) {
        let connected = async || node.connected(relay).await.map(|_| ());
        self.world.eventually("the relay is there", SOON, connected).await;
        let [_, address] = relay.addresses();
        node.cli(&["connect", &circuit(&address, peer.peer())]).await.unwrap();
    }

    async fn held(&self, node: &Node, relay: PeerId) {
        let held = async || {
            node.events().iter().any(|line| line.event == "relay_held" && line.peer == Some(relay)).then_some(())
        };
        self.world.eventually("the relay keeps a place for us", SOON, held).await;
    }

    async fn on(&self, node: &Node, peer: &PeerId, kind: PathKind) {
        let on = async || node.connected_to(peer).await.and_then(|peer| peer.path).filter(|path| path.kind == kind);
        self.world.eventually(&format!("connected, and the path is {kind:?}"), SOON, on).await;
    }

    /// Two of ours that can only meet through that relay do so.
    async fn two_meet_through(&self, relay: &Foreign, known: &[String], relays: &[String]) {
        let mut nodes = Vec::new();
        for (name, number) in [("a", 30), ("b", 40)] {
            let device = self.device(name, Side::Symmetric, number).await;
            let builder = self.world.node(name, &device).bootstrap(known).set("nat.relays", format!("{relays:?}"));
            nodes.push(builder.start().await);
        }
        for (node, other) in [(&nodes[0], &nodes[1]), (&nodes[1], &nodes[0])] {
            self.on(node, &other.peer_id(), PathKind::Relayed).await;
            let path = node.connected(other).await.unwrap().path.unwrap();
            assert_eq!(path.relay, Some(id(relay)));
        }
    }
}

fn listen() -> Value {
    json!(["/ip4/0.0.0.0/tcp/4001", "/ip4/0.0.0.0/udp/4001/quic-v1"])
}

fn circuit(relay: &str, peer: &str) -> String {
    format!("{relay}/p2p-circuit/p2p/{peer}")
}

#[tokio::test]
async fn a_js_relay_serves_our_nodes() {
    let lab = Lab::new().await;
    let js = Foreign::js(&lab.centre, json!({ "kademlia": "server", "relay": true })).await;
    let known = [js.address("/ip4/45.")];
    lab.two_meet_through(&js, &known, &known).await;
    lab.world.finish().await;
}

#[tokio::test]
async fn a_plain_relay_serves_our_nodes() {
    let lab = Lab::new().await;
    let elsewhere = lab.device("plain", Side::Public, 21).await;
    // Ours tells who belongs to the network, and relays for nobody.
    let server = lab.world.node("server", &lab.centre).set("role", "\"server\"").set("nat.relay_service", "\"off\"");
    let server = server.start().await;
    let plain = Foreign::plain(&elsewhere, json!({ "mode": "relay", "listen": listen() })).await;
    lab.two_meet_through(&plain, &server.addresses(), &[plain.address("/ip4/45.")]).await;
    lab.world.finish().await;
}

#[tokio::test]
async fn our_relay_serves_js() {
    let lab = Lab::new().await;
    let server = lab.server().await;
    let [_, relay] = server.addresses();
    let far = lab.device("far", Side::PortRestricted, 30).await;
    let far = Foreign::js(&far, json!({ "announce": [], "via": [relay] })).await;
    let near = lab.device("near", Side::PortRestricted, 40).await;
    let near = Foreign::js(&near, json!({ "announce": [] })).await;
    near.ask("dial", json!({ "address": circuit(&relay, far.peer()) })).await.unwrap();
    let met = far.event("connected", |event| event["peer"] == *near.peer()).await;
    assert_eq!(met["relayed"], true);
    lab.world.finish().await;
}

#[tokio::test]
async fn our_relay_serves_plain_ones_that_then_punch() {
    let lab = Lab::new().await;
    let server = lab.server().await;
    let [relay, _] = server.addresses();
    let far = lab.device("far", Side::PortRestricted, 30).await;
    let far = Foreign::plain(&far, json!({ "mode": "listener", "relay": relay })).await;
    far.event("reserved", |_| true).await;
    let near = lab.device("near", Side::PortRestricted, 40).await;
    let near = Foreign::plain(&near, json!({ "mode": "dialer", "relay": relay, "remote": far.peer() })).await;
    for relayed in [true, false] {
        near.event("connected", |event| event["peer"] == *far.peer() && event["relayed"] == relayed).await;
    }
    lab.world.finish().await;
}

#[tokio::test]
async fn js_behind_a_nat_and_ours_on_the_internet_become_direct() {
    let lab = Lab::new().await;
    let server = lab.server().await;
    let [_, relay] = server.addresses();
    let js = lab.device("js", Side::PortRestricted, 30).await;
    let js = Foreign::js(&js, json!({ "announce": [], "via": [relay], "dcutr": true, "version": OURS })).await;
    let node = lab.node("node", Side::Public, 40, &server.addresses()).await;
    lab.connect(&node, &server, &js).await;
    lab.on(&node, &id(&js), PathKind::Direct).await;
    lab.world.finish().await;
}

#[tokio::test]
async fn ours_behind_a_nat_and_js_on_the_internet_become_direct() {
    let lab = Lab::new().await;
    let server = lab.server().await;
    let [_, relay] = server.addresses();
    let node = lab.node("node", Side::PortRestricted, 40, &server.addresses()).await;
    lab.held(&node, server.peer_id()).await;
    let js = Foreign::js(&lab.device("js", Side::Public, 30).await, json!({ "dcutr": true, "version": OURS })).await;
    js.ask("dial", json!({ "address": circuit(&relay, &node.peer_id().to_string()) })).await.unwrap();
    lab.on(&node, &id(&js), PathKind::Direct).await;
    lab.world.finish_with_golden(&[(&node, "js-libp2p-turned-round")]).await;
}

#[tokio::test]
async fn js_and_ours_behind_nats_stay_relayed() {
    let lab = Lab::new().await;
    let server = lab.server().await;
    let [_, relay] = server.addresses();
    let js = lab.device("js", Side::PortRestricted, 30).await;
    let js = Foreign::js(&js, json!({ "announce": [], "via": [relay], "dcutr": true, "version": OURS })).await;
    let node = lab.node("node", Side::PortRestricted, 40, &server.addresses()).await;
    lab.connect(&node, &server, &js).await;
    lab.on(&node, &id(&js), PathKind::Relayed).await;
    // It dials from another port each time, which no NAT lets in.
    let relayed = async || {
        let peer = node.connected_to(&id(&js)).await;
        peer.is_some_and(|peer| peer.path.is_some_and(|path| path.kind == PathKind::Relayed))
    };
    lab.world.always("they stay relayed", Duration::from_secs(45), relayed).await;
    lab.world.finish().await;
}

#[tokio::test]
async fn plain_opens_a_circuit_to_ours_and_they_punch() {
    let lab = Lab::new().await;
    let server = lab.server().await;
    let node = lab.node("node", Side::PortRestricted, 40, &server.addresses()).await;
    lab.held(&node, server.peer_id()).await;
    let device = lab.device("plain", Side::PortRestricted, 30).await;
    let [relay, _] = server.addresses();
    let options = json!({ "mode": "dialer", "relay": relay, "remote": node.peer_id().to_string(), "version": OURS });
    let plain = Foreign::plain(&device, options).await;
    lab.on(&node, &id(&plain), PathKind::Direct).await;
    lab.world.finish_with_golden(&[(&node, "plain-libp2p-punches")]).await;
}

#[tokio::test]
async fn ours_opens_a_circuit_to_plain_and_they_punch() {
    let lab = Lab::new().await;
    let server = lab.server().await;
    let [relay, _] = server.addresses();
    let device = lab.device("plain", Side::PortRestricted, 30).await;
    let plain = Foreign::plain(&device, json!({ "mode": "listener", "relay": relay, "version": OURS })).await;
    plain.event("reserved", |_| true).await;
    let node = lab.node("node", Side::PortRestricted, 40, &server.addresses()).await;
    lab.connect(&node, &server, &plain).await;
    lab.on(&node, &id(&plain), PathKind::Direct).await;
    lab.world.finish_with_golden(&[(&node, "plain-libp2p-is-punched")]).await;
}

/// Ours finds out by another's probes that it can be reached.
async fn is_probed_by(lab: &Lab, server: &Foreign) {
    let node = lab.node("node", Side::Public, 30, &[server.address("/ip4/45.")]).await;
    let peer = id(server);
    let proven = async || {
        let trace = node.trace().await;
        let asked = |command: &&Command| matches!(&command.action, Action::Probe { server, .. } if *server == peer);
        let probes: Vec<_> =
            trace.commands().map(|(_, command)| command).filter(asked).map(|command| command.id).collect();
        let reachable = |event: &Event| matches!(event, Event::Probed { probe, verdict: ProbeVerdict::Reachable, .. } if probes.contains(probe));
        trace.frames.iter().any(|frame| reachable(&frame.r#in)).then_some(())
    };
    lab.world.eventually("a probe has proven an address", SOON, proven).await;
    let public = async || (node.status().await.reachability == Reachability::Public).then_some(());
    lab.world.eventually("it says that it can be reached", SOON, public).await;
}

#[tokio::test]
async fn js_probes_us() {
    let lab = Lab::new().await;
    let js = Foreign::js(&lab.centre, json!({ "autonat": true, "kademlia": "server" })).await;
    is_probed_by(&lab, &js).await;
    lab.world.finish().await;
}

#[tokio::test]
async fn plain_probes_us() {
    let lab = Lab::new().await;
    let plain = Foreign::plain(&lab.centre, json!({ "mode": "relay", "listen": listen(), "autonat": "server" })).await;
    is_probed_by(&lab, &plain).await;
    lab.world.finish().await;
}

#[tokio::test]
async fn we_probe_js() {
    let lab = Lab::new().await;
    let server = lab.server().await;
    let [_, address] = server.addresses();
    let device = lab.device("js", Side::Public, 30).await;
    let own = json!(format!("/ip4/{}/tcp/4001", device.ip()));
    let js = Foreign::js(&device, json!({ "announce": [], "autonat": true })).await;
    let proven = async || js.ask("proven", json!({})).await.unwrap().as_array().unwrap().contains(&own);
    assert!(!proven().await);
    js.ask("dial", json!({ "address": address })).await.unwrap();
    let reached = async || proven().await.then_some(());
    lab.world.eventually("our probe has reached js where it said", SOON, reached).await;
    lab.world.finish().await;
}

#[tokio::test]
async fn we_probe_plain() {
    let lab = Lab::new().await;
    let server = lab.server().await;
    let [_, known] = server.addresses();
    let device = lab.device("plain", Side::Public, 30).await;
    let plain = json!({ "mode": "dialer", "listen": listen(), "known": known, "autonat": "client", "version": OURS });
    let plain = Foreign::plain(&device, plain).await;
    let ours = server.peer_id().to_string();
    let probed = plain.event_within(SOON, "probed", |event| event["server"] == *ours && event["error"].is_null()).await;
    assert!(probed["address"].as_str().unwrap().starts_with("/ip4/45.10.30."), "{probed}");
    lab.world.finish().await;
}

#[tokio::test]
async fn we_probe_plain_behind_a_nat_and_find_it_shut() {
    let lab = Lab::new().await;
    let server = lab.server().await;
    let [_, known] = server.addresses();
    let device = lab.device("plain", Side::PortRestricted, 30).await;
    let plain = json!({ "mode": "dialer", "listen": listen(), "known": known, "autonat": "client", "version": OURS });
    let plain = Foreign::plain(&device, plain).await;
    // Its stock client hears of no answer: a NAT that drops packets takes a server longer than the client waits.
    let tried = async || server.why_text(&id(&plain)).await.contains("asked to have its address probed").then_some(());
    lab.world.eventually("ours tries", SOON, tried).await;
    // Its dials are given up after ten seconds, the client's patience ends before.
    let shut = async || plain.count("confirmed") == 0;
    lab.world.always("it is not taken for reachable", Duration::from_secs(12), shut).await;
    lab.world.finish().await;
}
