//! Somebody has to be first.

use std::time::Duration;

use kinfolk_core::Health;
use kinfolk_tests::World;

#[tokio::test]
async fn it_says_so_dials_nobody_and_meets_the_second() {
    let world = World::new().await;
    let isp = world.public("isp", 20).await;
    let home = world.home("home", &isp).await;
    let first = world.node("first", &home.device("first").await).start().await;
    let alone = async || (first.status().await.health == Health::Alone).then_some(());
    world.eventually("it says that it is alone", Duration::from_secs(30), alone).await;
    let still = async || first.status().await.health == Health::Alone && first.status().await.dialing == 0;
    world.always("it stays alone, in peace", Duration::from_secs(10), still).await;
    let told = first.events();
    assert_eq!(told.iter().filter(|line| line.event == "health_changed").count(), 1, "said once: {told:#?}");
    let trace = first.trace().await;
    assert!(trace.dials().is_empty(), "{:?}", trace.dials());
    let commands = trace.commands().count();
    assert!(commands < 60, "{commands} commands to nobody");
    let status = first.cli(&["status"]).await.unwrap();
    assert!(status.contains("alone"), "{status}");

    let second = world.node("second", &home.device("second").await).start().await;
    world.all_connected(&[&first, &second], Duration::from_secs(20)).await;
    assert_eq!(first.status().await.health, Health::Connected);
    world.finish_with_golden(&[(&first, "first-node-and-second")]).await;
}

#[tokio::test]
async fn one_whose_server_is_down_says_isolated_and_tries_with_patience() {
    let world = World::new().await;
    let site = world.public("site", 20).await;
    let server = world.node("server", &site.device("server").await).set("role", "\"server\"").start().await;
    server.kill().await;
    let node = world.node("node", &site.device("node").await).flag("--no-mdns").bootstrap(&[server.address()]);
    let node = node.start().await;
    let isolated = async || (node.status().await.health == Health::Isolated).then_some(());
    world.eventually("it says that it is isolated", Duration::from_secs(30), isolated).await;
    let failed = async || (node.status().await.bootstrap[0].failures >= 4).then_some(());
    world.eventually("it has tried four times", Duration::from_secs(60), failed).await;
    let most = node.trace().await.most_dials_within(Duration::from_secs(10));
    assert!(most <= 8, "{most} dials in 10 s");
    let told = node.events();
    assert!(told.iter().any(|line| line.event == "bootstrap_failed"), "{told:#?}");

    server.start().await;
    world.all_connected(&[&server, &node], Duration::from_secs(45)).await;
    world.finish_with_golden(&[(&node, "server-down-at-start")]).await;
}
