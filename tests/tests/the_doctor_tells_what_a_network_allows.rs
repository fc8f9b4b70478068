//! `kinfolk doctor` in networks of different kinds: what it says is what the network does.

use std::time::Duration;

use kinfolk_tests::{Device, Node, Site, World, program};
use serde_json::Value;

/// What the doctor finds in a device, with these servers known.
async fn doctor(device: &Device, servers: &[&Node]) -> Value {
    let home = tempfile::tempdir().unwrap();
    let mut line =
        format!("HOME={} {} doctor --json --timeout 25s", home.path().display(), program("kinfolk").display());
    for server in servers {
        line += &format!(" --bootstrap /ip4/{}/tcp/4001/p2p/{}", server.device().ip(), server.peer_id());
    }
    // Its exit code says whether there is a problem, and so does its report.
    line += "; test $? -le 1";
    let device = device.clone();
    let said = tokio::task::spawn_blocking(move || device.run(&line)).await.unwrap();
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
}

/// The verdicts under this id.
fn verdicts<'a>(report: &'a Value, id: &str) -> Vec<&'a str> {
    let findings = report["findings"].as_array().unwrap().iter();
    findings.filter(|finding| finding["id"] == id).map(|finding| finding["verdict"].as_str().unwrap()).collect()
}

async fn server(world: &World, site: &Site, name: &str) -> Node {
    world.node(name, &site.device(name).await).set("role", "\"server\"").start().await
}

#[tokio::test]
async fn a_home_a_home_without_udp_and_the_open_internet() {
    let world = World::new().await;
    let (centre, edge) = (world.public("centre", 20).await, world.public("edge", 30).await);
    let (home, closed) = (world.home("home", &centre).await, world.home("closed", &centre).await);
    closed.run(
        "nft add table inet noudp && \
         nft 'add chain inet noudp forward { type filter hook forward priority -300; policy accept; }' && \
         nft 'add rule inet noudp forward meta l4proto udp drop'",
    );
    let servers = [server(&world, &centre, "one").await, server(&world, &edge, "two").await];
    let servers: Vec<&Node> = servers.iter().collect();
    world
        .eventually("the servers listen", Duration::from_secs(20), async || {
            for server in &servers {
                (server.status().await.advertised.len() >= 2).then_some(())?;
            }
            Some(())
        })
        .await;

    let devices = [home.device("athome").await, closed.device("walled").await, edge.device("open").await];
    let [at_home, walled, open] = devices.each_ref().map(|device| doctor(device, &servers));
    let (at_home, walled, open) = tokio::join!(at_home, walled, open);
    for (name, report) in [("athome", &at_home), ("walled", &walled), ("open", &open)] {
        assert_eq!(verdicts(report, "bootstrap"), ["ok", "ok"], "{name}: {report:#}");
        for id in ["network", "ipv4", "tcp", "mdns"] {
            assert_eq!(verdicts(report, id), ["ok"], "{name}: {id}: {report:#}");
        }
    }
    assert_eq!(verdicts(&at_home, "udp"), ["ok"], "{at_home:#}");
    assert_eq!(verdicts(&open, "udp"), ["ok"], "{open:#}");
    assert_eq!(verdicts(&open, "reachable"), ["ok"], "{open:#}");
    assert_eq!((verdicts(&walled, "udp"), &walled["ok"]), (vec!["problem"], &Value::Bool(false)), "{walled:#}");
    // A node that nobody is to hear of asks nothing of the network's hash table, and tells it nothing.
    for server in &servers {
        let counters = server.status().await.counters;
        let asked: Vec<_> =
            counters.iter().filter(|(name, _)| name.starts_with("kademlia.") && name.contains("_")).collect();
        assert!(asked.is_empty(), "{}: {asked:?}", server.name());
    }
    world.finish().await;
}
