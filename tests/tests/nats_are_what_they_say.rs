//! The tests of NAT traversal stand on what is checked here: each kind of NAT by packets of its own, lines with a delay
//! by the clock, and plain rust-libp2p, whose results on these kinds are known.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use kinfolk_tests::{Device, Foreign, Side, World};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream, UdpSocket},
    time::timeout,
};

const SOON: Duration = Duration::from_millis(500);

/// What a server sees of a device that asks from one socket.
#[derive(PartialEq, Eq, Debug)]
struct Seen {
    /// UDP gets through at all.
    udp: bool,
    /// Two ports of the server see the same address.
    one_mapping: bool,
    /// A port that was never asked gets in.
    stranger: bool,
    /// TCP gets through.
    tcp: bool,
}

async fn look(from: &Device, server: &Device) -> (Seen, IpAddr) {
    let ip = server.ip();
    let [asked, other, stranger] =
        server.with(async { [(); 3].map(|()| std::net::UdpSocket::bind("0.0.0.0:0").unwrap()) }).await.map(|socket| {
            socket.set_nonblocking(true).unwrap();
            socket
        });
    let listener = server.with(async { TcpListener::bind("0.0.0.0:0").await.unwrap() }).await;
    let ports = [asked.local_addr().unwrap().port(), other.local_addr().unwrap().port()];
    let tcp_port = listener.local_addr().unwrap().port();

    let (told, hear) = tokio::sync::oneshot::channel::<()>();
    let serve = server.with(async move {
        let [asked, other, stranger] = [asked, other, stranger].map(|socket| UdpSocket::from_std(socket).unwrap());
        let mut buffer = [0; 8];
        let one = timeout(SOON, asked.recv_from(&mut buffer)).await.ok().map(|found| found.unwrap().1);
        let two = timeout(SOON, other.recv_from(&mut buffer)).await.ok().map(|found| found.unwrap().1);
        if let Some(back) = one {
            stranger.send_to(b"stranger", back).await.unwrap();
        }
        let _ = told.send(());
        (one, two)
    });
    let tcp = server.with(async move { timeout(SOON, listener.accept()).await.ok().map(|met| met.unwrap().1) });
    let ask = from.with(async move {
        let socket = UdpSocket::bind("0.0.0.0:5000").await.unwrap();
        for port in ports {
            socket.send_to(b"hello", (ip, port)).await.unwrap();
        }
        let connect = timeout(SOON, TcpStream::connect(SocketAddr::new(ip, tcp_port))).await;
        let _ = hear.await;
        let mut buffer = [0; 8];
        let got_in = timeout(SOON, socket.recv_from(&mut buffer)).await.is_ok();
        (got_in, matches!(connect, Ok(Ok(_))))
    });
    let ((one, two), tcp_from, (stranger, tcp)) = tokio::join!(serve, tcp, ask);
    let seen = Seen { udp: one.is_some(), one_mapping: one.is_some() && one == two, stranger, tcp };
    (seen, tcp_from.unwrap().ip())
}

#[tokio::test]
async fn each_kind_maps_and_filters_as_it_says() {
    let world = World::new().await;
    let server = world.public("centre", 20).await.device("server").await;
    for (number, side) in (30..).zip(Side::ALL) {
        let device = world.side(&format!("s{number}"), side, number).await.device(&format!("d{number}")).await;
        let (seen, from) = look(&device, &server).await;
        let expected = match side {
            Side::Public | Side::FullCone => Seen { udp: true, one_mapping: true, stranger: true, tcp: true },
            Side::PortRestricted | Side::DoubleNat => Seen { udp: true, one_mapping: true, stranger: false, tcp: true },
            Side::Symmetric => Seen { udp: true, one_mapping: false, stranger: false, tcp: true },
            Side::UdpBlocked => Seen { udp: false, one_mapping: false, stranger: false, tcp: true },
        };
        assert_eq!(seen, expected, "{side}");
        assert!(from.to_string().starts_with(&format!("45.10.{number}.")), "{side} comes from {from}");
        assert_eq!(from == device.ip(), side == Side::Public, "{side}");
    }
}

#[tokio::test]
async fn a_long_line_takes_its_time_and_a_lossy_one_loses() {
    let world = World::new().await;
    let server = world.public("centre", 20).await.device("server").await;
    let home = world.side("home", Side::PortRestricted, 30).await;
    let device = home.device("device").await;
    let short = device.round_trip(&server).await.unwrap();
    assert!(short < Duration::from_millis(10), "{short:?}");
    device.delay(Duration::from_millis(25)).await;
    let long = device.round_trip(&server).await.unwrap();
    assert!(long >= Duration::from_millis(50) && long < Duration::from_millis(60), "{long:?}");

    // Of six round trips, all would have to come through.
    home.lose(90);
    assert_eq!(device.round_trip(&server).await, None);
}

#[tokio::test]
async fn a_router_that_was_rebooted_has_another_address() {
    let world = World::new().await;
    let server = world.public("centre", 20).await.device("server").await;
    let home = world.side("home", Side::PortRestricted, 30).await;
    let device = home.device("device").await;
    let (_, before) = look(&device, &server).await;
    home.reboot(99);
    let (seen, after) = look(&device, &server).await;
    assert_ne!(before, after);
    assert_eq!(after.to_string(), "45.10.30.99");
    assert!(seen.udp && seen.one_mapping && !seen.stranger, "{seen:?}");
}

/// Two sides, a relay between them, plain rust-libp2p on all three.
struct Plain {
    _world: World,
    _relay: Foreign,
    listener: Foreign,
    dialer: Foreign,
}

impl Plain {
    /// They are connected through the relay.
    async fn new(one: Side, other: Side) -> Self {
        let world = World::new().await;
        let centre = world.public("centre", 20).await.device("server").await;
        let listen = json!(["/ip4/0.0.0.0/tcp/4001", "/ip4/0.0.0.0/udp/4001/quic-v1"]);
        // It would learn its address from the first client, which may have asked for a place by then, and be refused.
        let external = [format!("/ip4/{}/tcp/4001", centre.ip())];
        let relay = Foreign::plain(&centre, json!({ "mode": "relay", "listen": listen, "external": external })).await;
        let listener = world.side("other", other, 40).await.device("listener").await;
        let dialer = world.side("one", one, 30).await.device("dialer").await;
        let address = relay.address(&format!("/ip4/{}/tcp", centre.ip()));
        let listener = Foreign::plain(&listener, json!({ "mode": "listener", "relay": address })).await;
        listener.event("reserved", |_| true).await;
        let options = json!({ "mode": "dialer", "relay": address, "remote": listener.peer() });
        let dialer = Foreign::plain(&dialer, options).await;
        let relayed = dialer.event("connected", |event| event["peer"] == *listener.peer()).await;
        assert_eq!(relayed["relayed"], true, "{relayed}");
        Self { _world: world, _relay: relay, listener, dialer }
    }

    async fn punched(&self) -> bool {
        let with_dialer = |event: &Value| event["peer"] == *self.dialer.peer();
        // Three tries, each of which a TCP connection that does not come to be can hold up for ten seconds.
        let punched = self.listener.event_within(Duration::from_secs(60), "punched", with_dialer).await;
        punched["error"].is_null()
    }
}

#[tokio::test]
async fn plain_libp2p_gets_through_two_port_restricted_ones() {
    assert!(Plain::new(Side::PortRestricted, Side::PortRestricted).await.punched().await);
}

#[tokio::test]
async fn plain_libp2p_gets_through_by_tcp_where_udp_is_blocked() {
    assert!(Plain::new(Side::UdpBlocked, Side::DoubleNat).await.punched().await);
}

#[tokio::test]
async fn plain_libp2p_does_not_get_through_two_symmetric_ones_and_loses_them() {
    let plain = Plain::new(Side::Symmetric, Side::Symmetric).await;
    assert!(!plain.punched().await);
    let with_listener = |event: &Value| event["peer"] == *plain.listener.peer() && event["relayed"] == true;
    plain.dialer.event_within(Duration::from_secs(60), "disconnected", with_listener).await;
}
