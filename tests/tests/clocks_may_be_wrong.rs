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
    let early = node("early", 30, "@1970-01-01 00:10:00").await;
    let late = node("late", 40, "+1y").await;
    let all = [&server, &early, &late];
    // They know each other from the hash table only, and meet through the relay.
    world.all_connected(&all, SOON).await;
    let path = early.connected(&late).await.unwrap().path.unwrap();
    assert_eq!(path.kind, PathKind::Relayed);
    let on_a_relay = async || {
        for node in [&early, &late] {
            node.status().await.relays.iter().find(|relay| relay.held_for_s.is_some())?;
        }
        Some(())
    };
    world.eventually("both have a place on the relay", SOON, on_a_relay).await;

    server.kill().await;
    let alone = async || early.connected(&server).await.is_none().then_some(());
    world.eventually("the server is missed", SOON, alone).await;
    server.start().await;
    world.all_connected(&all, SOON).await;
    world.eventually("both have a place on the relay again", SOON, on_a_relay).await;

    let said = early.cli(&["doctor", "--timeout", "3s"]).await.unwrap_or_else(|error| error);
    assert!(said.contains("before 1975"), "{said}");
    world.finish().await;
}

#[tokio::test]
async fn a_clock_that_jumps_makes_no_storm() {
    let world = World::new().await;
    let isp = world.public("isp", 20).await;
    let home = world.home("home", &isp).await;
    let laptop = world.node("laptop", &home.device("laptop").await).start().await;
    let pi = world.node("pi", &home.device("pi").await).embedded().clock("+0");
    let pi = pi.set("power", "\"low\"").start().await;
    world.all_connected(&[&pi, &laptop], SOON).await;
    let connections = async || pi.status().await.counters.get("connections.knocks").copied().unwrap_or_default();
    let before = connections().await;
    for jump in ["+1y", "-2y", "@1970-01-01 00:10:00", "+0"] {
        let commands = pi.trace().await.commands().count();
        let timer = pi.status().await.counters["driver.timer"];
        pi.set_clock(jump);
        let there = async || pi.connected(&laptop).await.is_some();
        world.always(&format!("connected while the clock jumps to {jump}"), Duration::from_secs(12), there).await;
        let commands = pi.trace().await.commands().count() - commands;
        let timer = pi.status().await.counters["driver.timer"] - timer;
        assert!(commands <= 12 && timer <= 60, "after {jump}: {commands} commands, the timer went off {timer} times");
    }
    assert_eq!(connections().await, before, "nobody had to come again");
    world.finish().await;
}
