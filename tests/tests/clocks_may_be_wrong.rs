//! A Raspberry Pi has no clock of its own: until somebody tells it the time it may be 1970 there, or any other day.

use std::time::Duration;

use kinfolk_shell::api::types::PathKind;
use kinfolk_tests::{Node, Side, World};

const SOON: Duration = Duration::from_secs(75);

#[tokio::test]
async fn relays_records_and_second_tries_do_without() {
    let world = World::new().await;
    let centre = world.public("centre", 20).await;
    let server = world.node("server", &centre.device("server").await).set("role", "\"server\"").start().await;
    let node = async |name: &str, number: u8, clock: &str| -> Node {
        let site = world.side(&format!("home-of-{name}"), Side::Symmetric, number).await;
        let node = world.node(name, &site.device(name).await).embedded().clock(clock);
        node.bootstrap(&server.addresses()).start().await
    };
    let early = node("early", 30, "1970-01-01 00:10:00").await;
    let late = node("late", 40, "+1y").await;
    let all = [&server, &early, &late];
    // They know each other from the hash table only, and meet through the relay.
    world.all_connected(&all, SOON).await;
    let path = early.connected(&late).await.unwrap().path.unwrap();
    assert_eq!(path.kind, PathKind::Relayed);
    let on_a_relay = async || early.status().await.relays.iter().any(|relay| relay.held_for_s.is_some()).then_some(());
    world.eventually("the early one has a place on the relay", SOON, on_a_relay).await;

    server.kill().await;
    let alone = async || early.connected(&server).await.is_none().then_some(());
    world.eventually("the server is missed", SOON, alone).await;
    server.start().await;
    world.all_connected(&all, SOON).await;
    world.eventually("the early one has a place on the relay again", SOON, on_a_relay).await;

    let said = early.cli(&["doctor", "--timeout", "3s"]).await.unwrap_or_else(|error| error);
    assert!(said.contains("before 1975"), "{said}");
    // libp2p's relay client has no use for a place that ends in its past: who is a year ahead has none, and is told why.
    let told = async || {
        let said = late.cli(&["doctor", "--timeout", "3s"]).await.unwrap_or_else(|error| error);
        said.contains("the clock is ahead").then_some(())
    };
    world.eventually("the late one is told why it has no place", SOON, told).await;
    world.finish().await;
}
