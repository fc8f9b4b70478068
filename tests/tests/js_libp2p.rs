//! A peer that nobody here wrote.

use std::time::Duration;

use kinfolk_core::{Direction, Event, PeerId};
use kinfolk_tests::{Foreign, Node, World};
use serde_json::{Value, json};

fn id(foreign: &Foreign) -> PeerId {
    foreign.peer().parse().unwrap()
}

/// Ping is asked again when it fails: js-libp2p's first one often does while its Kademlia is on.
async fn pings(js: &Foreign, node: &Node) -> bool {
    for _ in 0..3 {
        if js.ask("ping", json!({ "peer": node.peer_id().to_string() })).await.is_ok() {
            return true;
        }
    }
    false
}

/// Both have introduced themselves to each other, and each answers the other's pings.
async fn know_each_other(world: &World, node: &Node, js: &Foreign, direction: Direction) {
    let met = async || node.connected_to(&id(js)).await.filter(|peer| peer.rtt_us.is_some());
    let peer = world.eventually("js answers our pings and has introduced itself", Duration::from_secs(30), met).await;
    assert_eq!(peer.agent.as_deref(), Some("js-peer/1.0.0"));
    assert_eq!(peer.connections[0].direction, direction);
    assert!(peer.capabilities.iter().any(|capability| capability == "ping"), "{:?}", peer.capabilities);

    let own = node.peer_id().to_string();
    let heard = js.event("identified", |event| event["peer"] == *own).await;
    assert!(heard["agent"].as_str().unwrap().starts_with("kinfolk/"), "{heard}");
    assert_eq!(heard["version"], "/elohim/id/1.0.0");
    assert!(pings(js, node).await, "js gets no answer to its pings");
}

#[tokio::test]
async fn it_dials_us() {
    let world = World::new().await;
    let site = world.public("site", 20).await;
    let node = world.node("node", &site.device("node").await).flag("--no-mdns").start().await;
    let js = Foreign::js(&site.device("js").await, json!({})).await;
    let met = js.ask("dial", json!({ "address": node.address() })).await.unwrap();
    assert_eq!(met["peer"], node.peer_id().to_string());
    know_each_other(&world, &node, &js, Direction::Inbound).await;
    world.finish().await;
}

#[tokio::test]
async fn we_dial_it() {
    let world = World::new().await;
    let site = world.public("site", 20).await;
    let node = world.node("node", &site.device("node").await).flag("--no-mdns").start().await;
    let js = Foreign::js(&site.device("js").await, json!({})).await;
    let said = node.cli(&["connect", &js.address("/ip4/45.")]).await.unwrap();
    assert!(said.contains(&js.peer()[js.peer().len() - 8..]), "{said}");
    know_each_other(&world, &node, &js, Direction::Outbound).await;
    world.finish().await;
}

#[tokio::test]
async fn it_answers_and_asks_the_hash_table_under_our_name() {
    let world = World::new().await;
    let site = world.public("site", 20).await;
    let js = Foreign::js(&site.device("js").await, json!({ "kademlia": "server" })).await;
    let node = world.node("node", &site.device("node").await).flag("--no-mdns").set("kademlia", "\"server\"");
    let node = node.bootstrap(&[js.address("/ip4/45.")]).start().await;

    // Before it is asked to ping: it takes into its table who answers one ping, tried once, and rust-libp2p answers only the
    // newest of two pings at a time.
    let own = json!({ "peer": node.peer_id().to_string() });
    let in_its_table = async || (js.ask("routed", own.clone()).await == Ok(Value::Bool(true))).then_some(());
    world.eventually("we are in js's routing table", Duration::from_secs(20), in_its_table).await;
    know_each_other(&world, &node, &js, Direction::Outbound).await;

    // It serves our table, so it is in ours, and our look-ups are answered by it: there is nobody else.
    let routed = async || (node.status().await.routing_table == 1).then_some(());
    world.eventually("js is in our routing table", Duration::from_secs(20), routed).await;
    let answered = async || {
        let ended = |event: &Event| matches!(event, Event::QueryEnded { successes, .. } if *successes > 0);
        node.trace().await.frames.iter().any(|frame| ended(&frame.r#in)).then_some(())
    };
    world.eventually("js has answered a query of ours", Duration::from_secs(30), answered).await;

    // And the other way round.
    let who = js.ask("answered", own).await.unwrap();
    assert_eq!(who, json!([node.peer_id().to_string()]), "we answer js's queries");
    world.finish_with_golden(&[(&node, "js-libp2p-in-the-table")]).await;
}

#[tokio::test]
async fn two_of_ours_that_know_only_it_find_each_other() {
    let world = World::new().await;
    let site = world.public("site", 20).await;
    let js = Foreign::js(&site.device("js").await, json!({ "kademlia": "server" })).await;
    let mut nodes = Vec::new();
    for name in ["a", "b"] {
        let builder = world.node(name, &site.device(name).await).flag("--no-mdns").set("kademlia", "\"server\"");
        nodes.push(builder.bootstrap(&[js.address("/ip4/45.")]).start().await);
    }
    world.all_connected(&[&nodes[0], &nodes[1]], Duration::from_secs(75)).await;
    world.finish().await;
}

#[tokio::test]
async fn it_finds_us_on_the_lan() {
    let world = World::new().await;
    let isp = world.public("isp", 20).await;
    let home = world.home("home", &isp).await;
    let node = world.node("node", &home.device("node").await).start().await;
    let js = Foreign::js(&home.device("js").await, json!({ "mdns": true })).await;
    let own = node.peer_id().to_string();
    let found = js.event("discovered", |event| event["peer"] == *own).await;
    let at = format!("/ip4/{}/tcp/4001", node.device().ip());
    let addresses = found["addresses"].as_array().unwrap();
    assert!(addresses.iter().any(|address| address.as_str().unwrap().starts_with(&at)), "{found}");
    // Only this direction: js puts its answer where rust-libp2p does not look for it.
    js.ask("dial", json!({ "address": format!("{at}/p2p/{own}") })).await.unwrap();
    know_each_other(&world, &node, &js, Direction::Inbound).await;
    world.finish().await;
}
