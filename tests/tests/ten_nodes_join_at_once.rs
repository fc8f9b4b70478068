//! A power cut is over, and all computers of a home start in the same second.

use std::time::Duration;

use futures::future::join_all;
use kinfolk_tests::{Node, World};

#[tokio::test]
async fn all_are_connected_and_nobody_storms() {
    let world = World::new().await;
    let isp = world.public("isp", 20).await;
    let home = world.home("home", &isp).await;
    let mut builders = Vec::new();
    for number in 0..10 {
        let name = format!("n{number}");
        builders.push(world.node(&name, &home.device(&name).await));
    }
    let nodes: Vec<Node> = join_all(builders.into_iter().map(kinfolk_tests::NodeBuilder::start)).await;
    let all: Vec<&Node> = nodes.iter().collect();
    world.all_connected(&all, Duration::from_secs(60)).await;

    for node in &nodes {
        let trace = node.trace().await;
        // Nine others; each may be dialled once by us, and once more when both sides dialled and one gave way.
        let dials = trace.dials();
        assert!(dials.len() <= 27, "{} dialled {} times: {dials:?}", node.name(), dials.len());
        for (peer, times) in trace.dials_by_peer() {
            assert!(times <= 4, "{} dialled {peer} {times} times\n{}", node.name(), node.why_text(&peer).await);
        }
    }
    let single = async || {
        let mut connections = 0;
        for node in &nodes {
            connections += node.peers().await.iter().map(|peer| peer.connections.len()).sum::<usize>();
        }
        (connections == 90).then_some(())
    };
    world.eventually("one connection between any two", Duration::from_secs(60), single).await;
    world.finish_with_golden(&[(&nodes[0], "one-of-ten")]).await;
}
