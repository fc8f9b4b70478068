//! Bootstrap peers by name and by number, with and without their id, by either family and transport.

use std::time::Duration;

use kinfolk_core::Transport;
use kinfolk_tests::World;

#[tokio::test]
async fn by_name_by_number_by_either_family_and_transport() {
    let world = World::new().await;
    let centre = world.public("centre", 20).await;
    let device = centre.device("server").await;
    let names = world.name_server();
    names.set_host("server.example", device.ip()).unwrap();
    names.set_host("server.example", device.ip6()).unwrap();
    let server = world.node("server", &device).set("role", "\"server\"").start().await;
    let (ip, ip6, id) = (device.ip(), device.ip6(), server.peer_id());
    let text = format!("dnsaddr=/ip4/{ip}/udp/4001/quic-v1/p2p/{id}");
    names.set_txt("_dnsaddr.server.example", &[&text]).unwrap();

    let tcp_only = r#"["/ip4/0.0.0.0/tcp/4001", "/ip6/::/tcp/4001"]"#;
    let quic_only = r#"["/ip4/0.0.0.0/udp/4001/quic-v1", "/ip6/::/udp/4001/quic-v1"]"#;
    // What such an address stands for is only known to the library.
    let cases = [
        ("name", format!("/dns4/server.example/tcp/4001/p2p/{id}"), Some(Transport::Tcp), None),
        ("name6", format!("/dns6/server.example/tcp/4001/p2p/{id}"), Some(Transport::Tcp), None),
        ("anyname", format!("/dns/server.example/udp/4001/quic-v1/p2p/{id}"), Some(Transport::Quic), None),
        ("dnsaddr", "/dnsaddr/server.example".to_owned(), None, None),
        ("noid", format!("/ip4/{ip}/tcp/4001"), Some(Transport::Tcp), None),
        ("noidquic", format!("/ip6/{ip6}/udp/4001/quic-v1"), Some(Transport::Quic), None),
        ("six", format!("/ip6/{ip6}/tcp/4001/p2p/{id}"), Some(Transport::Tcp), Some(tcp_only)),
        ("quic", format!("/ip4/{ip}/udp/4001/quic-v1/p2p/{id}"), Some(Transport::Quic), Some(quic_only)),
    ];
    let edge = world.public("edge", 30).await;
    let mut nodes = Vec::new();
    for (name, bootstrap, transport, listen) in cases {
        let mut builder = world.node(name, &edge.device(name).await).flag("--no-mdns").bootstrap(&[bootstrap]);
        if let Some(listen) = listen {
            builder = builder.set("listen", listen);
        }
        nodes.push((builder.start().await, transport));
    }
    let missing = async || {
        let mut missing = Vec::new();
        for (node, transport) in &nodes {
            let peer = node.connected(&server).await;
            let connections = peer.into_iter().flat_map(|peer| peer.connections);
            if !connections.into_iter().any(|connection| connection.path.transport == *transport) {
                missing.push(node.name().to_owned());
            }
        }
        missing
    };
    let all = async || missing().await.is_empty().then_some(());
    let within = Duration::from_secs(30);
    world.eventually_or(within, all, async || format!("{:?} have not reached the server", missing().await)).await;
    for (node, _) in &nodes {
        let status = node.status().await;
        assert_eq!(status.bootstrap.len(), 1);
        assert!(status.bootstrap[0].connected, "{}: {:?}", node.name(), status.bootstrap);
        assert_eq!(status.bootstrap[0].peer, Some(id), "{}", node.name());
    }
    world.finish().await;
}

#[tokio::test]
async fn one_more_and_one_less_while_it_runs() {
    let world = World::new().await;
    let site = world.public("site", 20).await;
    let server = world.node("server", &site.device("server").await).set("role", "\"server\"").start().await;
    let node = world.node("node", &site.device("node").await).flag("--no-mdns").start().await;
    node.cli(&["bootstrap", "add", &server.address()]).await.unwrap();
    world.all_connected(&[&node, &server], Duration::from_secs(20)).await;
    let listed = node.cli(&["bootstrap", "list"]).await.unwrap();
    assert!(listed.contains(&server.address()), "{listed}");
    node.cli(&["bootstrap", "remove", &server.address()]).await.unwrap();
    assert!(node.status().await.bootstrap.is_empty());
    world.finish().await;
}
