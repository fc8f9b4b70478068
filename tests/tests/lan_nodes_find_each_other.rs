//! Computers on one home network meet by mDNS, with no configuration.

use std::time::Duration;

use kinfolk_shell::api::types::PathKind;
use kinfolk_tests::World;

#[tokio::test]
async fn three_with_no_configuration_are_connected_in_seconds() {
    let world = World::new().await;
    let isp = world.public("isp", 20).await;
    let home = world.home("home", &isp).await;
    let pi = world.node("pi", &home.device("pi").await).start().await;
    let laptop = world.node("laptop", &home.device("laptop").await).start().await;
    let tower = world.node("tower", &home.device("tower").await).start().await;
    let all = [&pi, &laptop, &tower];
    world.all_connected(&all, Duration::from_secs(20)).await;

    for node in all {
        for other in all.iter().filter(|other| other.name() != node.name()) {
            let peer = node.connected(other).await.unwrap();
            assert_eq!(peer.path.unwrap().kind, PathKind::Local, "{} to {}", node.name(), other.name());
            assert!(peer.agent.unwrap().starts_with("kinfolk/"));
            let told = node.events();
            let id = Some(other.peer_id());
            for event in ["peer_discovered", "peer_connected", "peer_identified"] {
                assert!(told.iter().any(|line| line.event == event && line.peer == id), "{event}: {told:#?}");
            }
        }
        assert_eq!(node.status().await.connected, 2);
    }

    // Both sides dial when both see each other; one connection is what should be left.
    let single = async || {
        for node in all {
            if node.peers().await.iter().any(|peer| peer.connections.len() > 1) {
                return None;
            }
        }
        Some(())
    };
    world.eventually("one connection between any two", Duration::from_secs(40), single).await;
    world.all_connected(&all, Duration::from_secs(1)).await;

    // What a person asks, by the id's end as it is shown to them.
    let peers = pi.cli(&["peers"]).await.unwrap();
    assert!(peers.contains(&laptop.short_id()) && peers.contains(&tower.short_id()), "{peers}");
    let why = pi.cli(&["why", &laptop.short_id()]).await.unwrap();
    assert!(why.contains("the home network"), "{why}");
    world.finish_with_golden(&[(&pi, "lan-of-three")]).await;
}

#[tokio::test]
async fn who_switches_mdns_off_is_not_found_and_finds_nobody() {
    let world = World::new().await;
    let isp = world.public("isp", 20).await;
    let home = world.home("home", &isp).await;
    let quiet = world.node("quiet", &home.device("quiet").await).flag("--no-mdns").start().await;
    let pi = world.node("pi", &home.device("pi").await).start().await;
    let laptop = world.node("laptop", &home.device("laptop").await).start().await;
    world.all_connected(&[&pi, &laptop], Duration::from_secs(20)).await;
    let unseen = async || {
        quiet.peers().await.is_empty()
            && pi.peer(&quiet.peer_id()).await.is_none()
            && laptop.peer(&quiet.peer_id()).await.is_none()
    };
    // Ours asks every few seconds at first, so by then it would have been found.
    world.always("nobody finds the quiet one", Duration::from_secs(8), unseen).await;
    world.finish().await;
}
