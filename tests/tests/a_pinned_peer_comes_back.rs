//! Who is pinned is never given up.

use std::time::Duration;

use kinfolk_core::Health;
use kinfolk_tests::World;

#[tokio::test]
async fn after_its_restart_and_after_ours() {
    let world = World::new().await;
    let (near, far) = (world.public("near", 20).await, world.public("far", 30).await);
    let b = world.node("b", &far.device("b").await).start().await;
    let a = world.node("a", &near.device("a").await).start().await;
    let c = world.node("c", &near.device("c").await).start().await;
    a.cli(&["pin", &b.address()]).await.unwrap();
    world.all_connected(&[&a, &b], Duration::from_secs(20)).await;
    world.all_connected(&[&a, &c], Duration::from_secs(20)).await;

    b.stop().await;
    let partial = async || (a.status().await.health == Health::Partial).then_some(());
    world.eventually("a says that somebody is missing", Duration::from_secs(30), partial).await;
    let shown = a.cli(&["peers"]).await.unwrap();
    assert!(shown.contains(&b.short_id()), "the missing one is still shown: {shown}");
    b.start().await;
    world.all_connected(&[&a, &b], Duration::from_secs(60)).await;

    // What was said by hand outlives a power cut, and needs no second word.
    a.kill().await;
    a.start().await;
    world.all_connected(&[&a, &b], Duration::from_secs(30)).await;
    let peer = a.connected(&b).await.unwrap();
    assert!(peer.pinned);
    world.finish_with_golden(&[(&a, "pinned-peer-comes-back")]).await;
}

#[tokio::test]
async fn on_another_port() {
    let world = World::new().await;
    let isp = world.public("isp", 20).await;
    let home = world.home("home", &isp).await;
    let b = world.node("b", &home.device("b").await).start().await;
    let a = world.node("a", &home.device("a").await).start().await;
    a.cli(&["pin", &b.address()]).await.unwrap();
    world.all_connected(&[&a, &b], Duration::from_secs(20)).await;
    b.stop().await;
    b.set("listen", r#"["/ip4/0.0.0.0/tcp/4777", "/ip4/0.0.0.0/udp/4777/quic-v1"]"#);
    b.start().await;
    world.all_connected(&[&a, &b], Duration::from_secs(40)).await;
    world.finish().await;
}

#[tokio::test]
async fn until_it_is_forgotten() {
    let world = World::new().await;
    let (near, far) = (world.public("near", 20).await, world.public("far", 30).await);
    let b = world.node("b", &far.device("b").await).start().await;
    let a = world.node("a", &near.device("a").await).start().await;
    a.cli(&["pin", &b.address()]).await.unwrap();
    world.all_connected(&[&a, &b], Duration::from_secs(20)).await;
    a.cli(&["forget", &b.peer_id().to_string()]).await.unwrap();
    a.stop().await;
    b.stop().await;
    a.start().await;
    let peers = a.peers().await;
    assert!(peers.iter().all(|peer| !peer.pinned), "{peers:?}");
    world.finish().await;
}
