//! `kinfolk-embedded` does what `kinfolk` does, among its own kind and mixed with the other.

use std::time::Duration;

use kinfolk_shell::api::{logs::Sync, types::PathKind};
use kinfolk_tests::{Foreign, Node, Pair, Side, World};
use serde_json::json;

/// Waits until all hold one entry of each of so many logs.
async fn all_hold(world: &World, nodes: &[&Node], logs: usize) {
    let hold = async || {
        for node in nodes {
            let sync: Sync = node.ask("GET", "/v1/sync", None).await.unwrap();
            if sync.logs.iter().filter(|log| log.position == 1).count() != logs {
                return None;
            }
        }
        Some(())
    };
    world.eventually(&format!("all {} have what all have put", nodes.len()), Duration::from_secs(60), hold).await;
}

#[tokio::test]
async fn at_home_with_others() {
    let world = World::new().await;
    let isp = world.public("isp", 20).await;
    let home = world.home("home", &isp).await;
    let mut nodes = Vec::new();
    for name in ["pi", "attic", "laptop"] {
        let builder = world.node(name, &home.device(name).await).set("sync.with", "\"anyone\"");
        let builder = if name == "laptop" { builder } else { builder.embedded().set("power", "\"low\"") };
        nodes.push(builder.start().await);
    }
    let all: Vec<&Node> = nodes.iter().collect();
    world.all_connected(&all, Duration::from_secs(20)).await;
    for node in &all {
        node.put(&format!("{} is here\n", node.name())).await;
    }
    all_hold(&world, &all, 3).await;
    let pi = &nodes[0];
    for other in &nodes[1..] {
        assert_eq!(pi.connected(other).await.unwrap().path.unwrap().kind, PathKind::Local);
    }
    assert!(pi.cli(&["log"]).await.unwrap().contains("laptop is here"));
    assert!(pi.cli(&["why", &nodes[2].short_id()]).await.unwrap().contains("the home network"));
    world.finish().await;
}

#[tokio::test]
async fn in_two_homes_with_a_server() {
    let pair = Pair::with([Side::PortRestricted; 2], |builder| builder.embedded()).await;
    pair.start().await;
    pair.on_one_direct_connection(Duration::from_secs(120)).await;
    pair.world.finish().await;
}

#[tokio::test]
async fn through_a_relay_for_good() {
    let pair = Pair::with([Side::Symmetric; 2], |builder| builder.embedded().set("sync.with", "\"anyone\"")).await;
    pair.start().await;
    pair.on("both are relayed", Duration::from_secs(60), |path| path.kind == PathKind::Relayed).await;
    let [a, b] = &pair.nodes;
    a.put("from home\n").await;
    b.put("from the other home\n").await;
    all_hold(&pair.world, &[a, b], 2).await;
    pair.world.finish().await;
}

#[tokio::test]
async fn with_little_memory_under_a_flood() {
    const MIB: u64 = 64;
    let world = World::new().await;
    let site = world.public("site", 20).await;
    // A server, because others want more of it.
    let node = world.node("node", &site.device("node").await).embedded().set("role", "\"server\"");
    let node = node.set("memory", format!("\"{MIB}MiB\"")).start().await;
    let friend = world.node("friend", &site.device("friend").await).bootstrap(&node.addresses()).start().await;
    node.cli(&["pin", &friend.addresses()[0]]).await.unwrap();
    world.all_connected(&[&node, &friend], Duration::from_secs(20)).await;

    let hostile = Foreign::hostile(&world.public("bad", 50).await.device("hostile").await, json!({})).await;
    let knocked = hostile.ask("knock", json!({ "address": node.address(), "times": 300 })).await.unwrap();
    assert_eq!(knocked, 300, "the operating system takes them");
    let crowd = json!({ "address": node.address(), "peers": 60, "times": 5 });
    let (reserve, probe) = tokio::join!(hostile.ask("reserve", crowd.clone()), async {
        let flood = json!({ "address": node.address(), "peers": 20, "times": 20, "version": 2, "targets": [] });
        hostile.ask("probe", flood).await
    });
    let most = node.memory_kb();
    assert!(most < MIB * 1_024, "{most} kB; {reserve:?} {probe:?}");
    let limits: serde_json::Value =
        serde_json::from_str(&node.cli(&["config", "show", "--json"]).await.unwrap()).unwrap();
    let shown = limits["settings"].as_array().unwrap().iter().find(|one| one["key"] == "lifecycle.high_water").unwrap();
    assert_eq!((shown["value"].as_u64(), shown["from"].as_str()), (Some(48), Some("follows from memory")));
    assert!(node.status().await.connected <= 48 + 16 + 16);
    assert!(node.connected(&friend).await.is_some(), "whoever is pinned stays");
    world.finish().await;
}
