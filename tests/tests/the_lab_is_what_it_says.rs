//! The other tests stand on what is checked here: addresses, routes, cuts, names.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use kinfolk_core::Scope;
use kinfolk_tests::{Device, Foreign, World};
use serde_json::json;
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
    time::timeout,
};

/// Whether a TCP connection from one device to another comes to be within a second.
async fn reaches(from: &Device, to: &Device, ip: IpAddr) -> bool {
    let (port, listener) = to
        .with(async {
            let listener = TcpListener::bind("[::]:0").await.unwrap();
            (listener.local_addr().unwrap().port(), listener)
        })
        .await;
    let accept = to.with(async move {
        let met = timeout(Duration::from_secs(1), listener.accept()).await;
        drop(met);
    });
    let dial = from.with(async move {
        let connect = TcpStream::connect(SocketAddr::new(ip, port));
        match timeout(Duration::from_secs(1), connect).await {
            Ok(Ok(mut stream)) => stream.read(&mut [0]).await.is_ok(),
            Ok(Err(_)) | Err(_) => false,
        }
    });
    let ((), reached) = tokio::join!(accept, dial);
    reached
}

#[tokio::test]
async fn public_addresses_are_global_and_reach_each_other() {
    let world = World::new().await;
    let one = world.public("one", 20).await.device("a").await;
    let two = world.public("two", 30).await.device("b").await;
    for device in [&one, &two] {
        assert_eq!(Scope::of(device.ip()), Scope::Global, "{device:?}");
        assert_eq!(Scope::of(device.ip6()), Scope::Global, "{device:?}");
        let addresses = device.run("ip -o addr show dev eth0");
        assert!(!addresses.contains("2001:db8"), "a lab's own address is left: {addresses}");
    }
    assert!(reaches(&one, &two, two.ip()).await, "IPv4");
    assert!(reaches(&two, &one, one.ip6()).await, "IPv6");
}

#[tokio::test]
async fn who_is_plugged_in_later_cuts_nobody_off() {
    let world = World::new().await;
    let (near, far) = (world.public("near", 20).await, world.public("far", 30).await);
    let (a, b) = (near.device("a").await, far.device("b").await);
    assert!(reaches(&a, &b, b.ip6()).await);
    for name in ["c", "d", "e", "f", "g", "h"] {
        near.device(name).await;
        assert!(reaches(&a, &b, b.ip()).await, "IPv4, after {name}");
        assert!(reaches(&a, &b, b.ip6()).await, "IPv6, after {name}");
    }
}

#[tokio::test]
async fn a_home_is_private_and_shut_from_outside() {
    let world = World::new().await;
    let isp = world.public("isp", 20).await;
    let server = isp.device("server").await;
    let home = world.home("home", &isp).await;
    let (pi, laptop) = (home.device("pi").await, home.device("laptop").await);
    assert_eq!(Scope::of(pi.ip()), Scope::Private);
    assert!(reaches(&pi, &laptop, laptop.ip()).await);
    assert!(reaches(&pi, &server, server.ip()).await);
    assert!(!reaches(&server, &pi, pi.ip()).await);
}

#[tokio::test]
async fn a_cut_line_drops_everything_until_it_heals() {
    let world = World::new().await;
    let (near, far) = (world.public("near", 20).await, world.public("far", 30).await);
    let (a, b) = (near.device("a").await, far.device("b").await);
    assert!(reaches(&a, &b, b.ip()).await);
    near.cut();
    assert!(!reaches(&a, &b, b.ip()).await);
    assert!(!reaches(&b, &a, a.ip6()).await);
    near.heal();
    assert!(reaches(&a, &b, b.ip()).await);

    a.unplug();
    assert!(!reaches(&a, &b, b.ip()).await);
    a.plug();
    assert!(reaches(&a, &b, b.ip()).await);
    assert!(reaches(&a, &b, b.ip6()).await);
}

#[tokio::test]
async fn names_are_known_in_every_device() {
    let world = World::new().await;
    let site = world.public("site", 20).await;
    let device = site.device("a").await;
    let names = world.name_server();
    names.set_host("server.example", device.ip()).unwrap();
    let resolv = device.run("cat /etc/resolv.conf");
    assert!(resolv.contains("nameserver 198.18.0.1"), "{resolv}");
    let found = device.run("getent ahostsv4 server.example");
    assert!(found.contains(&device.ip().to_string()), "{found}");
}

/// The foreign peers among themselves, so that a test in which they meet ours fails for ours alone.
#[tokio::test]
async fn foreign_peers_do_what_they_are_told() {
    let world = World::new().await;
    let isp = world.public("isp", 20).await;
    let home = world.home("home", &isp).await;
    let js = Foreign::js(&home.device("js").await, json!({ "kademlia": "server", "mdns": true })).await;
    let hostile = Foreign::hostile(&home.device("hostile").await, json!({ "mdns": "own" })).await;
    let found = js.event("discovered", |event| event["peer"] == *hostile.peer()).await;
    assert!(found["addresses"][0].as_str().unwrap().starts_with("/ip4/10."), "{found}");

    let address = json!({ "address": js.address("/ip4/10.") });
    assert_eq!(hostile.ask("dial", address.clone()).await.unwrap(), js.peer());
    let heard = js.event("identified", |event| event["peer"] == *hostile.peer()).await;
    assert_eq!(heard["agent"], "hostile/1");
    assert_eq!(hostile.ask("flood", json!({ "rounds": 3 })).await.unwrap(), 90);
    let mut flap = address.clone();
    // js-libp2p lets five in per second.
    flap["times"] = json!(3);
    assert_eq!(hostile.ask("flap", flap.clone()).await.unwrap(), 3);
    assert_eq!(hostile.ask("knock", flap).await.unwrap(), 3);
    assert_eq!(hostile.ask("crowd", json!({ "peers": 3 })).await.unwrap(), 3);
    assert!(hostile.ask("dance", json!({})).await.unwrap_err().contains("no such request"));
}
