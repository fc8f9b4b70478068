//! What one member puts into its log is soon with all others, whatever happens meanwhile.

use std::time::Duration;

use kinfolk_shell::api::{logs::Sync, types::PathKind};
use kinfolk_tests::{Node, NodeBuilder, Side, World};

/// Lines `from` to `to` of somebody's text.
fn lines(of: &str, from: u32, to: u32) -> String {
    (from..=to).map(|number| format!("{of} says something for the {number}th time\n")).collect()
}

async fn positions(node: &Node) -> Vec<u64> {
    let sync: Sync = node.ask("GET", "/v1/sync", None).await.unwrap_or_else(|error| panic!("{error}"));
    sync.logs.iter().map(|log| log.position).filter(|position| *position > 0).collect()
}

/// Waits until all hold so many entries of each log.
async fn all_hold(world: &World, nodes: &[&Node], logs: &[u64], within: Duration) {
    let hold = async || {
        for node in nodes {
            let mut held = positions(node).await;
            held.sort_unstable();
            if held != logs {
                return None;
            }
        }
        Some(())
    };
    world.eventually(&format!("all {} hold {logs:?}", nodes.len()), within, hold).await;
}

/// The whole of all logs, as the program prints them.
async fn told(node: &Node) -> String {
    node.cli(&["log", "--json"]).await.unwrap()
}

/// A member of a family whose members need not know each other's ids before they start.
fn member(builder: NodeBuilder) -> NodeBuilder {
    builder.set("sync.with", "\"anyone\"").log("warn")
}

#[tokio::test]
async fn through_a_relay_and_past_a_power_cut() {
    let world = World::new().await;
    let centre = world.public("centre", 20).await;
    let server = world.node("server", &centre.device("server").await).set("role", "\"server\"");
    let server = server.set("sync.with", "\"off\"").start().await;
    // Between two such homes nothing but a relay leads.
    let (home, away) = (world.side("home", Side::Symmetric, 30).await, world.side("away", Side::Symmetric, 40).await);
    let node = async |name: &str, site: &kinfolk_tests::Site| {
        let builder = world.node(name, &site.device(name).await).bootstrap(&server.addresses());
        member(builder).start().await
    };
    let (a, b, c) = (node("a", &home).await, node("b", &home).await, node("c", &away).await);
    world.all_connected(&[&a, &b, &c], Duration::from_secs(60)).await;
    let path = c.connected(&a).await.and_then(|peer| peer.path);
    assert!(path.is_some_and(|path| path.kind == PathKind::Relayed), "{path:?}");

    a.put(&lines("a", 1, 4_000)).await;
    b.put(&lines("b", 1, 1_000)).await;
    let begun = async || positions(&c).await.first().copied();
    world.eventually("c has some of it", Duration::from_secs(60), begun).await;
    c.kill().await;
    a.put(&lines("a", 4_001, 8_000)).await;
    c.start().await;
    c.put(&lines("c", 1, 1_000)).await;
    all_hold(&world, &[&a, &b, &c], &[1_000, 1_000, 8_000], Duration::from_secs(120)).await;

    let of_a = told(&a).await;
    assert_eq!(of_a.lines().count(), 10_000);
    assert!(of_a == told(&b).await && of_a == told(&c).await, "they hold the same number of entries, but others");
    world.finish().await;
}

#[tokio::test]
async fn of_twenty_at_home() {
    let world = World::new().await;
    let isp = world.public("isp", 20).await;
    let home = world.home("home", &isp).await;
    let mut nodes = Vec::new();
    for number in 0..20 {
        let name = format!("n{number}");
        nodes.push(member(world.node(&name, &home.device(&name).await)).start().await);
    }
    let all: Vec<&Node> = nodes.iter().collect();
    world.all_connected(&all, Duration::from_secs(120)).await;
    nodes[7].put("The cat is back.\n").await;
    all_hold(&world, &all, &[1], Duration::from_secs(10)).await;
    // And what somebody says who was away meanwhile.
    nodes[3].stop().await;
    nodes[7].put("It is gone again.\n").await;
    let rest: Vec<&Node> = all.iter().copied().filter(|node| node.name() != "n3").collect();
    all_hold(&world, &rest, &[2], Duration::from_secs(10)).await;
    nodes[3].start().await;
    all_hold(&world, &all, &[2], Duration::from_secs(60)).await;
    world.finish().await;
}
