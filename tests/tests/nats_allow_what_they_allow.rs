//! Every kind of NAT with every other one: the nodes end up directly connected wherever the two allow it, by whatever
//! transport does, and else stay connected through the relay and say why.

use std::time::Duration;

use kinfolk_shell::api::types::PathKind;
use kinfolk_tests::{Node, Pair, Side, Through, can_be_direct};

/// Starts both, waits for what the table says, and prints how long it took.
#[expect(clippy::print_stdout, reason = "the times are asked for")]
async fn meet(through: Through, one: Side, other: Side) {
    let pair = Pair::new([one, other]).await;
    for site in &pair.sites {
        match through {
            Through::Both => {}
            Through::OnlyQuic => site.forbid("tcp"),
            Through::OnlyTcp => site.forbid("udp"),
        }
    }
    pair.start().await;
    if can_be_direct(through, one, other).unwrap() {
        pair.on_one_direct_connection(Duration::from_secs(60)).await;
    } else {
        pair.on("both are connected through the relay", Duration::from_secs(60), |path| path.kind == PathKind::Relayed)
            .await;
        pair.world.eventually("they say why not directly", Duration::from_secs(60), async || says_why(&pair)).await;
        // And nothing has come of it meanwhile.
        pair.on("still through the relay", Duration::ZERO, |path| path.kind == PathKind::Relayed).await;
    }
    println!("{one:<15} {other:<15} {through:<9} {}", pair.met());
    let [a, _] = &pair.nodes;
    let golden = golden(through, one, other).map(|name| (a, name));
    pair.world.finish_with_golden(golden.as_slice()).await;
}

/// One cell of each kind is kept as a trace.
fn golden(through: Through, one: Side, other: Side) -> Option<&'static str> {
    match (through, one, other) {
        (Through::Both, Side::PortRestricted, Side::PortRestricted) => Some("nats-punched-by-quic"),
        (Through::OnlyTcp, Side::PortRestricted, Side::PortRestricted) => Some("nats-punched-by-tcp"),
        (Through::Both, Side::PortRestricted, Side::Symmetric) => Some("nats-too-hard"),
        (Through::Both, Side::Public, Side::PortRestricted) => Some("nats-one-side-public"),
        (Through::Both | Through::OnlyQuic | Through::OnlyTcp, _, _) => None,
    }
}

/// Two networks with IPv6 alone. A firewall without NAT is one that lets in whoever was sent to, so all pairs can.
#[expect(clippy::print_stdout, reason = "the times are asked for")]
async fn meet_by_ipv6(shut: [bool; 2]) {
    let pair = Pair::new([Side::Public, Side::Public]).await;
    for (site, shut) in pair.sites.iter().zip(shut) {
        site.only_ipv6();
        if shut {
            site.shut();
        }
    }
    let ip = pair.server.device().ip6();
    let known = ["udp/4001/quic-v1", "tcp/4001"].map(|port| format!("/ip6/{ip}/{port}/p2p/{}", pair.server.peer_id()));
    for node in &pair.nodes {
        node.set("bootstrap", format!("{known:?}"));
    }
    pair.start().await;
    pair.on_one_direct_connection(Duration::from_secs(60)).await;
    let [a, b] = &pair.nodes;
    let address = &a.connected(b).await.unwrap().connections[0].address;
    assert!(address.to_string().starts_with("/ip6/2a0e:b107:40:"), "{address}");
    println!("IPv6, shut: {shut:?} {}", pair.met());
    let golden = (shut == [true, true]).then_some((a, "ipv6-behind-firewalls"));
    pair.world.finish_with_golden(golden.as_slice()).await;
}

#[tokio::test]
async fn ipv6_without_firewalls() {
    meet_by_ipv6([false, false]).await;
}

#[tokio::test]
async fn ipv6_with_a_firewall_on_one_side() {
    meet_by_ipv6([false, true]).await;
}

#[tokio::test]
async fn ipv6_with_firewalls_on_both_sides() {
    meet_by_ipv6([true, true]).await;
}

/// Each tells its user that, and why, the other one stays on the relay.
fn says_why(pair: &Pair) -> Option<()> {
    let says = |node: &Node, other: &Node| {
        let peer = other.peer_id();
        node.events().iter().any(|line| line.event == "stays_relayed" && line.peer == Some(peer))
    };
    pair.both().iter().all(|(node, other)| says(node, other)).then_some(())
}

/// By whatever gets through, by QUIC alone and by TCP alone: three worlds at once, whose nodes mostly wait.
async fn meet_in_every_way(one: Side, other: Side) {
    if can_be_direct(Through::OnlyQuic, one, other).is_none() {
        meet(Through::Both, one, other).await;
    } else {
        tokio::join!(
            meet(Through::Both, one, other),
            meet(Through::OnlyQuic, one, other),
            meet(Through::OnlyTcp, one, other)
        );
    }
}

macro_rules! pairs {
    ($($name:ident: $one:ident, $other:ident;)*) => {$(
        #[tokio::test]
        async fn $name() {
            meet_in_every_way(Side::$one, Side::$other).await;
        }
    )*};
}

pairs! {
    public_and_public: Public, Public;
    public_and_full_cone: Public, FullCone;
    public_and_port_restricted: Public, PortRestricted;
    public_and_symmetric: Public, Symmetric;
    public_and_double_nat: Public, DoubleNat;
    public_and_udp_blocked: Public, UdpBlocked;
    full_cone_and_full_cone: FullCone, FullCone;
    full_cone_and_port_restricted: FullCone, PortRestricted;
    full_cone_and_symmetric: FullCone, Symmetric;
    full_cone_and_double_nat: FullCone, DoubleNat;
    full_cone_and_udp_blocked: FullCone, UdpBlocked;
    port_restricted_and_port_restricted: PortRestricted, PortRestricted;
    port_restricted_and_symmetric: PortRestricted, Symmetric;
    port_restricted_and_double_nat: PortRestricted, DoubleNat;
    port_restricted_and_udp_blocked: PortRestricted, UdpBlocked;
    symmetric_and_symmetric: Symmetric, Symmetric;
    symmetric_and_double_nat: Symmetric, DoubleNat;
    symmetric_and_udp_blocked: Symmetric, UdpBlocked;
    double_nat_and_double_nat: DoubleNat, DoubleNat;
    double_nat_and_udp_blocked: DoubleNat, UdpBlocked;
    udp_blocked_and_udp_blocked: UdpBlocked, UdpBlocked;
}
