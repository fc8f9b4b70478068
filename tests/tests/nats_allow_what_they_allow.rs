//! Every kind of NAT with every other one: the nodes end up directly connected wherever the two allow it, by whatever
//! transport does, and else stay connected through the relay and say why.

use std::{fmt, time::Duration};

use kinfolk_shell::api::types::PathKind;
use kinfolk_tests::{Node, Pair, Side};

/// What the two networks let through, beside the NATs themselves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Through {
    Both,
    OnlyQuic,
    OnlyTcp,
}

impl fmt::Display for Through {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Both => "",
            Self::OnlyQuic => "QUIC only",
            Self::OnlyTcp => "TCP only",
        })
    }
}

/// Whether two sides can have a direct connection. Written out, not computed: it is what the tests compare with. Each
/// row's kind with those from its own on, in the order of `Side::ALL`.
fn table(through: Through) -> [(Side, &'static [bool]); 6] {
    use Side::{DoubleNat, FullCone, PortRestricted, Public, Symmetric, UdpBlocked};
    const DIRECT: bool = true;
    const RELAYED: bool = false;
    match through {
        Through::Both => [
            (Public, &[DIRECT, DIRECT, DIRECT, DIRECT, DIRECT, DIRECT]),
            (FullCone, &[DIRECT, DIRECT, DIRECT, DIRECT, DIRECT]),
            (PortRestricted, &[DIRECT, RELAYED, DIRECT, DIRECT]),
            (Symmetric, &[RELAYED, RELAYED, RELAYED]),
            (DoubleNat, &[DIRECT, DIRECT]),
            (UdpBlocked, &[DIRECT]),
        ],
        // Without UDP there is no QUIC: that row is the same as in the others' absence.
        Through::OnlyQuic => [
            (Public, &[DIRECT, DIRECT, DIRECT, DIRECT, DIRECT]),
            (FullCone, &[DIRECT, DIRECT, DIRECT, DIRECT]),
            (PortRestricted, &[DIRECT, RELAYED, DIRECT]),
            (Symmetric, &[RELAYED, RELAYED]),
            (DoubleNat, &[DIRECT]),
            (UdpBlocked, &[]),
        ],
        // A full cone is one for UDP only; and a port-restricted NAT without UDP is the last kind.
        Through::OnlyTcp => [
            (Public, &[DIRECT, DIRECT, DIRECT, DIRECT, DIRECT]),
            (FullCone, &[DIRECT, DIRECT, RELAYED, DIRECT]),
            (PortRestricted, &[DIRECT, RELAYED, DIRECT]),
            (Symmetric, &[RELAYED, RELAYED]),
            (DoubleNat, &[DIRECT]),
            (UdpBlocked, &[]),
        ],
    }
}

fn can_be_direct(through: Through, one: Side, other: Side) -> bool {
    let place = |side| Side::ALL.iter().position(|known| *known == side).unwrap();
    let (row, column) = (place(one).min(place(other)), place(one).max(place(other)));
    table(through)[row].1[column - row]
}

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
    if can_be_direct(through, one, other) {
        pair.on_one_direct_connection(Duration::from_secs(60)).await;
    } else {
        pair.on("both are connected through the relay", Duration::from_secs(60), |path| path.kind == PathKind::Relayed)
            .await;
        pair.world.eventually("they say why not directly", Duration::from_secs(60), async || says_why(&pair)).await;
        // And nothing has come of it meanwhile.
        pair.on("still through the relay", Duration::ZERO, |path| path.kind == PathKind::Relayed).await;
    }
    println!("{one:<15} {other:<15} {through:<9} {}", pair.met());
    pair.world.finish().await;
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
    pair.world.finish().await;
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

macro_rules! cells {
    ($($name:ident: $through:ident, $one:ident, $other:ident;)*) => {$(
        #[tokio::test]
        async fn $name() {
            meet(Through::$through, Side::$one, Side::$other).await;
        }
    )*};
}

cells! {
    public_and_public: Both, Public, Public;
    public_and_full_cone: Both, Public, FullCone;
    public_and_port_restricted: Both, Public, PortRestricted;
    public_and_symmetric: Both, Public, Symmetric;
    public_and_double_nat: Both, Public, DoubleNat;
    public_and_udp_blocked: Both, Public, UdpBlocked;
    full_cone_and_full_cone: Both, FullCone, FullCone;
    full_cone_and_port_restricted: Both, FullCone, PortRestricted;
    full_cone_and_symmetric: Both, FullCone, Symmetric;
    full_cone_and_double_nat: Both, FullCone, DoubleNat;
    full_cone_and_udp_blocked: Both, FullCone, UdpBlocked;
    port_restricted_and_port_restricted: Both, PortRestricted, PortRestricted;
    port_restricted_and_symmetric: Both, PortRestricted, Symmetric;
    port_restricted_and_double_nat: Both, PortRestricted, DoubleNat;
    port_restricted_and_udp_blocked: Both, PortRestricted, UdpBlocked;
    symmetric_and_symmetric: Both, Symmetric, Symmetric;
    symmetric_and_double_nat: Both, Symmetric, DoubleNat;
    symmetric_and_udp_blocked: Both, Symmetric, UdpBlocked;
    double_nat_and_double_nat: Both, DoubleNat, DoubleNat;
    double_nat_and_udp_blocked: Both, DoubleNat, UdpBlocked;
    udp_blocked_and_udp_blocked: Both, UdpBlocked, UdpBlocked;

    public_and_public_by_quic: OnlyQuic, Public, Public;
    public_and_full_cone_by_quic: OnlyQuic, Public, FullCone;
    public_and_port_restricted_by_quic: OnlyQuic, Public, PortRestricted;
    public_and_symmetric_by_quic: OnlyQuic, Public, Symmetric;
    public_and_double_nat_by_quic: OnlyQuic, Public, DoubleNat;
    full_cone_and_full_cone_by_quic: OnlyQuic, FullCone, FullCone;
    full_cone_and_port_restricted_by_quic: OnlyQuic, FullCone, PortRestricted;
    full_cone_and_symmetric_by_quic: OnlyQuic, FullCone, Symmetric;
    full_cone_and_double_nat_by_quic: OnlyQuic, FullCone, DoubleNat;
    port_restricted_and_port_restricted_by_quic: OnlyQuic, PortRestricted, PortRestricted;
    port_restricted_and_symmetric_by_quic: OnlyQuic, PortRestricted, Symmetric;
    port_restricted_and_double_nat_by_quic: OnlyQuic, PortRestricted, DoubleNat;
    symmetric_and_symmetric_by_quic: OnlyQuic, Symmetric, Symmetric;
    symmetric_and_double_nat_by_quic: OnlyQuic, Symmetric, DoubleNat;
    double_nat_and_double_nat_by_quic: OnlyQuic, DoubleNat, DoubleNat;

    public_and_public_by_tcp: OnlyTcp, Public, Public;
    public_and_full_cone_by_tcp: OnlyTcp, Public, FullCone;
    public_and_port_restricted_by_tcp: OnlyTcp, Public, PortRestricted;
    public_and_symmetric_by_tcp: OnlyTcp, Public, Symmetric;
    public_and_double_nat_by_tcp: OnlyTcp, Public, DoubleNat;
    full_cone_and_full_cone_by_tcp: OnlyTcp, FullCone, FullCone;
    full_cone_and_port_restricted_by_tcp: OnlyTcp, FullCone, PortRestricted;
    full_cone_and_symmetric_by_tcp: OnlyTcp, FullCone, Symmetric;
    full_cone_and_double_nat_by_tcp: OnlyTcp, FullCone, DoubleNat;
    port_restricted_and_port_restricted_by_tcp: OnlyTcp, PortRestricted, PortRestricted;
    port_restricted_and_symmetric_by_tcp: OnlyTcp, PortRestricted, Symmetric;
    port_restricted_and_double_nat_by_tcp: OnlyTcp, PortRestricted, DoubleNat;
    symmetric_and_symmetric_by_tcp: OnlyTcp, Symmetric, Symmetric;
    symmetric_and_double_nat_by_tcp: OnlyTcp, Symmetric, DoubleNat;
    double_nat_and_double_nat_by_tcp: OnlyTcp, DoubleNat, DoubleNat;
}
