//! Peers that misbehave cost little, and whoever asks `why` is told.

use std::time::Duration;

use kinfolk_core::PeerId;
use kinfolk_tests::{Foreign, Node, Site, World};
use serde_json::json;

struct Scene {
    world: World,
    site: Site,
    node: Node,
}

impl Scene {
    async fn new(settings: &[(&str, &str)]) -> Self {
        let world = World::new().await;
        let site = world.public("site", 20).await;
        let mut builder = world.node("node", &site.device("node").await);
        for (key, value) in settings {
            builder = builder.set(key, *value);
        }
        let node = builder.start().await;
        Self { world, site, node }
    }

    /// In the node's own network.
    async fn hostile(&self, options: serde_json::Value) -> Foreign {
        Foreign::hostile(&self.site.device("hostile").await, options).await
    }

    async fn why_says(&self, peer: &PeerId, words: &str, within: Duration) {
        let says = async || self.node.why_text(peer).await.contains(words).then_some(());
        self.world.eventually(&format!("`why` says: {words}"), within, says).await;
    }

    /// The node still serves honest peers.
    async fn still_serves(&self) {
        let friend = self.world.node("friend", &self.site.device("friend").await).start().await;
        friend.cli(&["connect", &self.node.address()]).await.unwrap();
        self.world.all_connected(&[&self.node, &friend], Duration::from_secs(20)).await;
    }
}

fn id(foreign: &Foreign) -> PeerId {
    foreign.peer().parse().unwrap()
}

#[tokio::test]
async fn one_that_tells_thousands_of_addresses() {
    let scene = Scene::new(&[("mdns", "false")]).await;
    let hostile = scene.hostile(json!({})).await;
    hostile.ask("dial", json!({ "address": scene.node.address() })).await.unwrap();
    let told = hostile.ask("flood", json!({ "rounds": 100 })).await.unwrap();
    assert_eq!(told, 3_000);
    let peer = scene.node.peer(&id(&hostile)).await.unwrap();
    assert!(peer.addresses.len() <= 16, "{} addresses were kept", peer.addresses.len());
    scene.why_says(&id(&hostile), "too many addresses", Duration::from_secs(10)).await;
    let dials = scene.node.trace().await.dials();
    assert!(dials.len() <= 8, "{} dials to addresses that a stranger told: {dials:?}", dials.len());
    scene.still_serves().await;
    scene.world.finish_with_golden(&[(&scene.node, "flood-of-addresses")]).await;
}

#[tokio::test]
async fn one_that_says_on_the_lan_that_it_is_somebody_else() {
    let scene = Scene::new(&[]).await;
    let absent: PeerId = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA".parse().unwrap();
    let hostile = scene.hostile(json!({ "mdns": absent.to_string() })).await;
    scene.why_says(&absent, "another peer answered", Duration::from_secs(20)).await;
    assert!(scene.node.connected_to(&absent).await.is_none());
    let calm = async || scene.node.connected_to(&absent).await.is_none();
    scene.world.always("it is never taken for the absent one", Duration::from_secs(10), calm).await;
    let dials = scene.node.trace().await.dials_by_peer();
    assert!(dials.get(&absent).is_none_or(|times| *times <= 4), "{dials:?}");
    drop(hostile);
    scene.world.finish_with_golden(&[(&scene.node, "liar-on-the-lan")]).await;
}

#[tokio::test]
async fn one_that_connects_and_drops_in_a_loop() {
    let scene = Scene::new(&[("mdns", "false")]).await;
    let hostile = scene.hostile(json!({})).await;
    let flap = hostile.ask("flap", json!({ "address": scene.node.address(), "times": 20 })).await.unwrap();
    scene.why_says(&id(&hostile), "connected and dropped", Duration::from_secs(10)).await;
    // The fifth time within a minute is the last.
    assert_eq!(flap, 5, "got in so often");
    let refused = hostile.ask("dial", json!({ "address": scene.node.address() })).await;
    let inside = scene.node.connected_to(&id(&hostile)).await;
    assert!(inside.is_none(), "it is inside again: {refused:?} {inside:?}");
    scene.still_serves().await;
    scene.world.finish_with_golden(&[(&scene.node, "connects-and-drops")]).await;
}

#[tokio::test]
async fn one_that_never_introduces_itself() {
    let scene = Scene::new(&[("mdns", "false"), ("lifecycle.identify_timeout", "\"3s\"")]).await;
    let hostile = scene.hostile(json!({ "identify": false })).await;
    hostile.ask("dial", json!({ "address": scene.node.address() })).await.unwrap();
    scene.why_says(&id(&hostile), "never introduced itself", Duration::from_secs(20)).await;
    let gone = async || {
        let peer = scene.node.peer(&id(&hostile)).await;
        peer.is_none_or(|peer| peer.connections.is_empty()).then_some(())
    };
    scene.world.eventually("its connection is closed", Duration::from_secs(10), gone).await;
    scene.world.finish_with_golden(&[(&scene.node, "never-introduces-itself")]).await;
}

#[tokio::test]
async fn one_that_knocks_and_says_nothing() {
    let scene = Scene::new(&[("mdns", "false")]).await;
    // From elsewhere: who shares its network with such a peer has to wait, all others not.
    let elsewhere = scene.world.public("elsewhere", 30).await;
    let hostile = Foreign::hostile(&elsewhere.device("hostile").await, json!({})).await;
    hostile.ask("knock", json!({ "address": scene.node.address(), "times": 300 })).await.unwrap();
    scene.still_serves().await;
    let status = scene.node.status().await;
    assert!(status.peers <= 2, "{} peers", status.peers);
    scene.world.finish().await;
}

#[tokio::test]
async fn one_that_invents_thousands_of_peers_on_the_lan() {
    let scene = Scene::new(&[("lifecycle.max_peers", "256")]).await;
    let hostile = scene.hostile(json!({})).await;
    assert_eq!(hostile.ask("crowd", json!({ "peers": 2_000 })).await.unwrap(), 2_000);
    let full = async || (scene.node.status().await.peers >= 200).then_some(());
    scene.world.eventually("the crowd is heard", Duration::from_secs(20), full).await;
    let peers = scene.node.status().await.peers;
    assert!(peers <= 256, "{peers} peers in a table of 256");
    scene.still_serves().await;
    let trace = scene.node.trace().await;
    // 64 a minute into one network of our own, 16 at once.
    let most = trace.most_dials_within(Duration::from_secs(60));
    assert!(most <= 72, "{most} dials in a minute");
    scene.world.finish().await;
}

/// It came by itself, so it may stay; but we don't look for such ones.
#[tokio::test]
async fn one_of_another_network() {
    let scene = Scene::new(&[]).await;
    let hostile = scene.hostile(json!({ "version": "/other/id/1.0.0", "mdns": "own" })).await;
    scene.why_says(&id(&hostile), "another network", Duration::from_secs(20)).await;
    let gone = async || {
        let peer = scene.node.peer(&id(&hostile)).await;
        peer.is_none_or(|peer| peer.connections.is_empty()).then_some(())
    };
    scene.world.eventually("its connection is closed", Duration::from_secs(10), gone).await;
    let dials = scene.node.trace().await.dials_by_peer();
    assert!(dials.get(&id(&hostile)).is_none_or(|times| *times <= 2), "{dials:?}");
    scene.world.finish().await;
}
