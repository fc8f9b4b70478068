//! What stands before two nodes, and whether that allows a direct connection. The tests with real NATs and the
//! simulator's compare with this one table: the simulator's take this file in by its path, so it needs nothing but `std`.

use std::fmt;

/// What stands between a node and the internet, for IPv4.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Side {
    /// Nothing: public addresses.
    Public,
    /// A NAT that lets everyone in at a port that was ever used (endpoint-independent mapping and filter). UDP only: TCP
    /// gets in as behind a port-restricted one.
    FullCone,
    /// A NAT as most homes have it: endpoint-independent mapping, address- and port-dependent filter.
    PortRestricted,
    /// A NAT that gives each destination another, random port.
    Symmetric,
    /// A home's port-restricted NAT behind its provider's (CGNAT), which is port-restricted as well.
    DoubleNat,
    /// A port-restricted NAT through which no UDP goes.
    UdpBlocked,
}

/// What the two networks let through, beside the NATs themselves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Through {
    /// Everything.
    Both,
    /// No TCP.
    OnlyQuic,
    /// No UDP.
    OnlyTcp,
}

impl Side {
    /// All.
    pub const ALL: [Self; 6] =
        [Self::Public, Self::FullCone, Self::PortRestricted, Self::Symmetric, Self::DoubleNat, Self::UdpBlocked];
}

impl Through {
    /// All.
    pub const ALL: [Self; 3] = [Self::Both, Self::OnlyQuic, Self::OnlyTcp];
}

/// Written out, not computed: it is what the tests compare with. Each row's kind with those from its own on, in the order
/// of `Side::ALL`.
const fn table(through: Through) -> [(Side, &'static [bool]); 6] {
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
        // Without UDP there is no QUIC: nothing is left for the last kind.
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

/// All situations of a kind, each with whether the two can have a direct connection.
pub fn situations(through: Through) -> impl Iterator<Item = (Side, Side, bool)> {
    let rows = table(through).into_iter().enumerate();
    rows.flat_map(|(row, (one, cells))| {
        Side::ALL[row..].iter().zip(cells).map(move |(other, direct)| (one, *other, *direct))
    })
}

/// Whether two sides can have a direct connection; `None` where they can't even reach a relay.
pub fn can_be_direct(through: Through, one: Side, other: Side) -> Option<bool> {
    let (low, high) = (one.min(other), one.max(other));
    situations(through).find(|known| (known.0, known.1) == (low, high)).map(|known| known.2)
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Public => "public",
            Self::FullCone => "full cone",
            Self::PortRestricted => "port-restricted",
            Self::Symmetric => "symmetric",
            Self::DoubleNat => "double NAT",
            Self::UdpBlocked => "UDP blocked",
        })
    }
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
