//! Nodes that got through their NATs, and then the network changes.

use std::time::{Duration, Instant};

use kinfolk_core::Health;
use kinfolk_shell::api::types::PathKind;
use kinfolk_tests::{Pair, Side};

const SOON: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_router_that_is_rebooted_has_another_address_and_they_get_through_again() {
    let pair = Pair::new([Side::PortRestricted, Side::PortRestricted]).await;
    pair.start().await;
    pair.on_one_direct_connection(SOON).await;
    let [a, b] = &pair.nodes;
    let before = a.connected(b).await.unwrap().connections[0].connection;
    pair.sites[0].reboot(99);
    let again = async || {
        let one = a.connected(b).await?;
        let other = b.connected(a).await?;
        let new = one.connections.iter().all(|connection| connection.connection != before);
        let direct = [one, other].iter().all(|peer| peer.path.is_some_and(|path| path.kind == PathKind::Direct));
        (new && direct).then_some(())
    };
    pair.world.eventually("they are directly connected again", Duration::from_secs(120), again).await;
    pair.on_one_direct_connection(SOON).await;
    // Whichever side began, the other one knows where it is now.
    let known = b.peer(&a.peer_id()).await.unwrap();
    let at = |address: &kinfolk_core::Address| address.to_string().contains("/45.10.30.99/");
    let seen =
        known.connections.iter().any(|one| at(&one.address)) || known.addresses.iter().any(|one| at(&one.address));
    assert!(seen, "{known:#?}");
    pair.world.finish_with_golden(&[(a, "router-rebooted")]).await;
}

/// Pulls the cable of one of two that need a relay for half a minute, and gives how long after it was plugged in again
/// they were connected.
async fn replug(relays: u8) -> Duration {
    let pair = Pair::new([Side::Symmetric, Side::Symmetric]).await;
    let mut known = pair.server.addresses().to_vec();
    if relays == 2 {
        let device = pair.world.public("centre2", 21).await.device("server2").await;
        known.extend(pair.world.node("second", &device).set("role", "\"server\"").start().await.addresses());
    }
    for node in &pair.nodes {
        node.set("bootstrap", format!("{known:?}"));
    }
    pair.start().await;
    pair.on("both are connected through a relay", SOON, |path| path.kind == PathKind::Relayed).await;
    let [a, b] = &pair.nodes;
    let held = async || {
        let held = a.events().iter().filter(|line| line.event == "relay_held").count();
        (held >= usize::from(relays)).then_some(())
    };
    pair.world.eventually("the relays are held", SOON, held).await;
    a.device().unplug();
    let offline = async || (a.status().await.health == Health::Offline).then_some(());
    pair.world.eventually("it says that it is offline", SOON, offline).await;
    let parted = async || (a.connected(b).await.is_none() && b.connected(a).await.is_none()).then_some(());
    pair.world.eventually("both notice", Duration::from_secs(120), parted).await;
    a.device().plug();
    let plugged = Instant::now();
    pair.on("they are connected again", SOON, |path| path.kind == PathKind::Relayed).await;
    let took = plugged.elapsed();
    pair.world.finish().await;
    took
}

#[tokio::test]
async fn a_cable_that_is_plugged_in_again_means_reachable_within_ten_seconds() {
    let took = replug(1).await;
    assert!(took <= Duration::from_secs(10), "{took:?}");
}

#[tokio::test]
async fn with_a_second_relay_within_three() {
    let took = replug(2).await;
    assert!(took <= Duration::from_secs(3), "{took:?}");
}

#[tokio::test]
async fn a_line_that_loses_a_tenth_is_good_enough() {
    let pair = Pair::new([Side::PortRestricted, Side::DoubleNat]).await;
    pair.sites[0].lose(10);
    pair.start().await;
    pair.on_one_direct_connection(Duration::from_secs(120)).await;
    let [a, b] = &pair.nodes;
    let still = async || a.connected(b).await.is_some() && b.connected(a).await.is_some();
    pair.world.always("they stay connected", Duration::from_secs(30), still).await;
    pair.world.finish().await;
}
