//! First contact: nodes that know nothing but the name of a signal server.

use std::time::Duration;

use kinfolk_core::Health;
use kinfolk_shell::api::types::{SignalServer, SignalState};
use kinfolk_tests::{Device, Node, NodeBuilder, Side, World};

const NAME: &str = "doorway.example";

/// The name means the device.
fn named(world: &World, device: &Device) -> String {
    world.name_server().set_host(NAME, device.ip()).unwrap();
    format!("http://{NAME}:4080/signal")
}

/// A server with a doorway beside it, at which it publishes itself.
fn cloud(world: &World, device: &Device, url: &str) -> NodeBuilder {
    knows(world.node("cloud", device).set("role", "\"server\""), url).set("doorway.listen", "\"0.0.0.0:4080\"")
}

fn knows(node: NodeBuilder, url: &str) -> NodeBuilder {
    node.set("signal.servers", format!("[{url:?}]"))
}

async fn signal(node: &Node) -> SignalServer {
    node.status().await.signal.swap_remove(0)
}

#[tokio::test]
async fn three_behind_nats_meet_by_its_name_and_meet_again_when_it_is_gone_for_good() {
    let world = World::new().await;
    let device = world.public("centre", 20).await.device("cloud").await;
    let url = named(&world, &device);
    let cloud = cloud(&world, &device, &url).start().await;
    let mut family = Vec::new();
    for (number, side) in (30..).zip([Side::PortRestricted, Side::FullCone, Side::PortRestricted]) {
        let name = format!("node{number}");
        let device = world.side(&name, side, number).await.device(&name).await;
        family.push(knows(world.node(&name, &device), &url).start().await);
    }
    let all: Vec<&Node> = family.iter().collect();
    world.all_connected(&all, Duration::from_secs(90)).await;
    for node in &all {
        let seen = signal(node).await;
        assert_eq!((seen.state, seen.server.as_str()), (SignalState::Answered, url.as_str()));
        assert!(seen.peers >= 1 && seen.backing.is_some(), "{seen:?}");
        let published = async || signal(node).await.published_for_s;
        world.eventually("it is published, by way of its relay", Duration::from_secs(60), published).await;
    }
    let status = family[0].cli(&["status"]).await.unwrap();
    assert!(status.contains(&url) && status.contains("keeps them in sqlite"), "{status}");

    for node in &all {
        node.stop().await;
    }
    // The name means nobody any more; the relay goes on without a doorway.
    cloud.stop().await;
    cloud.set("doorway.listen", "\"off\"");
    cloud.set("signal.servers", "[]");
    cloud.start().await;
    for node in &all {
        node.start().await;
    }
    world.all_connected(&all, Duration::from_secs(60)).await;
    for node in &all {
        let seen = signal(node).await;
        assert_eq!((seen.state, seen.answered_s_ago), (SignalState::Failed, None), "{seen:?}");
        assert!(seen.error.is_some() && seen.failures > 0, "{seen:?}");
    }
    world.finish_with_golden(&[(&family[0], "doorway-gone-for-good")]).await;
}

#[tokio::test]
async fn the_first_waits_alone_and_the_second_comes_within_half_a_minute() {
    let world = World::new().await;
    let device = world.public("centre", 20).await.device("cloud").await;
    let url = named(&world, &device);
    let first = cloud(&world, &device, &url).start().await;
    let alone = async || (first.status().await.health == Health::Alone).then_some(());
    world.eventually("it says that it is alone", Duration::from_secs(30), alone).await;
    let seen = signal(&first).await;
    assert_eq!((seen.state, seen.peers), (SignalState::Answered, 0), "asked, and none: {seen:?}");
    let home = world.side("home", Side::PortRestricted, 30).await.device("second").await;
    let second = knows(world.node("second", &home), &url).start().await;
    world.all_connected(&[&first, &second], Duration::from_secs(30)).await;
    world.finish_with_golden(&[(&second, "met-by-a-doorway")]).await;
}
