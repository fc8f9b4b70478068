//! Peers that know only a server find each other, whether or not they are in its routing table.

use std::time::Duration;

use kinfolk_shell::api::types::PathKind;
use kinfolk_tests::{Node, Site, World};

/// Two networks that know nothing of each other, and a server that both know. Their addresses are public: what NATs add
/// is another matter.
struct Three {
    world: World,
    near: Site,
    far: Site,
    server: Node,
}

impl Three {
    async fn new() -> Self {
        let world = World::new().await;
        let centre = world.public("centre", 20).await;
        let near = world.public("near", 30).await;
        let far = world.public("far", 40).await;
        let server = world.node("server", &centre.device("server").await).set("role", "\"server\"").start().await;
        Self { world, near, far, server }
    }

    async fn node(&self, name: &str, site: &Site, kademlia: &str) -> Node {
        self.world
            .node(name, &site.device(name).await)
            .bootstrap(&[self.server.address()])
            .set("kademlia", format!("{kademlia:?}"))
            .start()
            .await
    }
}

async fn meet(kademlia: &str) -> (Three, Node, Node) {
    let three = Three::new().await;
    let a = three.node("a", &three.near, kademlia).await;
    let b = three.node("b", &three.far, kademlia).await;
    three.world.all_connected(&[&three.server, &a, &b], Duration::from_secs(75)).await;
    for (node, other) in [(&a, &b), (&b, &a)] {
        let peer = node.connected(other).await.unwrap();
        assert_eq!(peer.path.unwrap().kind, PathKind::Direct);
        assert_eq!(node.status().await.kademlia_server, kademlia == "server");
    }
    (three, a, b)
}

#[tokio::test]
async fn as_servers_of_the_hash_table() {
    let (three, a, _) = meet("server").await;
    assert!(three.server.status().await.routing_table >= 2, "both serve at global addresses");
    three.world.finish_with_golden(&[(&a, "two-lans-kademlia-servers")]).await;
}

#[tokio::test]
async fn as_clients_who_are_in_nobodys_table() {
    let (three, a, b) = meet("client").await;
    assert_eq!(three.server.status().await.routing_table, 0, "clients are in no table");
    let (one, other) = (a.why_text(&b.peer_id()).await, b.why_text(&a.peer_id()).await);
    assert!(
        one.contains("in the distributed hash table") || other.contains("in the distributed hash table"),
        "neither says how it found the other:\n{one}\n{other}"
    );
    three.world.finish_with_golden(&[(&a, "two-lans-kademlia-clients"), (&three.server, "server-of-two-lans")]).await;
}

#[tokio::test]
async fn a_home_behind_a_nat_reaches_the_one_that_can_be_reached() {
    let three = Three::new().await;
    let home = three.world.home("home", &three.near).await;
    let a = three.node("a", &home, "auto").await;
    let b = three.node("b", &three.far, "auto").await;
    three.world.all_connected(&[&three.server, &a, &b], Duration::from_secs(75)).await;
    let own = a.device().ip().to_string();
    for node in [&three.server, &b] {
        let known = node.peer(&a.peer_id()).await.unwrap();
        let leaked: Vec<_> = known.addresses.iter().filter(|known| known.address.to_string().contains(&own)).collect();
        assert!(leaked.is_empty(), "{}: an address of the home left it: {leaked:?}", node.name());
    }
    three.world.finish().await;
}

#[tokio::test]
async fn the_servers_death_parts_nobody_and_its_return_brings_all_back() {
    let (three, a, b) = meet("client").await;
    let between = a.connected(&b).await.unwrap().connections;
    three.server.kill().await;
    let gone = async || {
        let missed = a.connected(&three.server).await.is_none() && b.connected(&three.server).await.is_none();
        missed.then_some(())
    };
    three.world.eventually("both miss the server", Duration::from_secs(90), gone).await;
    assert!(a.connected(&b).await.is_some() && b.connected(&a).await.is_some(), "{}", three.world.report().await);

    three.server.start().await;
    three.world.all_connected(&[&three.server, &a, &b], Duration::from_secs(60)).await;
    let after = a.connected(&b).await.unwrap().connections;
    let kept = between.iter().any(|old| after.iter().any(|new| new.connection == old.connection));
    assert!(kept, "a and b were parted: {between:?} became {after:?}");
    three.world.finish_with_golden(&[(&a, "server-killed-and-back")]).await;
}
