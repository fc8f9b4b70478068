//! What a node has found out about the NATs in front of it outlives it.

use std::time::Duration;

use kinfolk_core::{Action, Event, Mapping, Reachability, StoredMapping};
use kinfolk_tests::{Side, World};

#[tokio::test]
async fn nat_facts_are_there_in_the_next_run() {
    let world = World::new().await;
    let mut servers = vec![];
    for number in [20, 21] {
        let device = world.public(&format!("centre{number}"), number).await.device(&format!("server{number}")).await;
        servers.push(world.node(&format!("server{number}"), &device).set("role", "\"server\"").start().await);
    }
    let home = world.side("home", Side::Symmetric, 30).await;
    let known: Vec<String> = servers.iter().flat_map(|server| server.addresses()).collect();
    let node = world.node("node", &home.device("node").await).embedded().bootstrap(&known).start().await;

    let remembered = async || {
        let trace = node.trace().await;
        let facts = trace.commands().filter_map(|(_, command)| {
            let Action::RememberNat(nat) = &command.action else { return None };
            Some(nat.clone())
        });
        facts.filter(|nat| nat.reachability == Reachability::Private).last()
    };
    // What has held for two minutes is worth a write.
    let facts = world.eventually("it knows that it is behind a NAT", Duration::from_secs(240), remembered).await;
    let hard = |known: &StoredMapping| !known.ipv6 && known.mapping == Mapping::PerDestination;
    assert!(facts.mappings.iter().any(hard), "{facts:?}");

    node.stop().await;
    for server in &servers {
        server.kill().await;
    }
    node.start().await;
    let loaded = node.trace().await.frames.into_iter().rev().find_map(|frame| {
        let Event::StoreLoaded { nat, .. } = frame.r#in else { return None };
        Some(nat)
    });
    assert_eq!(loaded, Some(Some(facts)));
    world.finish().await;
}
