//! What a home router does with IPv6: no translation, and mostly nobody in who was not asked.

use std::net::SocketAddrV6;

use rustc_hash::FxHashMap;

use super::nat::Protocol;
use crate::engine::{Moment, SECOND};

/// Whom a firewall lets in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum FirewallKind {
    /// Everyone.
    Open,
    /// Answers only (RFC 6092's default): the endpoints that somebody inside has sent to.
    Stateful,
}

/// A firewall with all that it remembers.
#[derive(Clone, Debug)]
pub struct Firewall {
    /// How it behaves.
    pub kind: FirewallKind,
    flows: FxHashMap<(Protocol, u128, u16, u128, u16), Moment>,
}

/// RFC 6092, REC-14 and REC-35.
const UDP: u64 = 120 * SECOND;
const TCP: u64 = 7_440 * SECOND;
/// Flows above which the expired ones are thrown away.
const MANY: usize = 4_096;

impl Firewall {
    /// A firewall that has just been switched on.
    pub fn new(kind: FirewallKind) -> Self {
        Self { kind, flows: FxHashMap::default() }
    }

    /// A packet from inside.
    pub fn outbound(&mut self, now: Moment, protocol: Protocol, inside: SocketAddrV6, to: SocketAddrV6) {
        if self.kind == FirewallKind::Stateful {
            if self.flows.len() >= MANY {
                self.flows.retain(|(protocol, ..), last| *last + lifetime(*protocol) > now);
            }
            self.flows.insert(key(protocol, inside, to), now);
        }
    }

    /// Whether a packet from outside gets in.
    pub fn inbound(&mut self, now: Moment, protocol: Protocol, inside: SocketAddrV6, from: SocketAddrV6) -> bool {
        match self.kind {
            FirewallKind::Open => true,
            FirewallKind::Stateful => match self.flows.get_mut(&key(protocol, inside, from)) {
                Some(last) if *last + lifetime(protocol) > now => {
                    *last = now;
                    true
                }
                Some(_) | None => false,
            },
        }
    }

    /// Switched off and on.
    pub fn reboot(&mut self) {
        self.flows.clear();
    }
}

fn key(protocol: Protocol, inside: SocketAddrV6, other: SocketAddrV6) -> (Protocol, u128, u16, u128, u16) {
    (protocol, u128::from(*inside.ip()), inside.port(), u128::from(*other.ip()), other.port())
}

const fn lifetime(protocol: Protocol) -> u64 {
    match protocol {
        Protocol::Udp => UDP,
        Protocol::Tcp => TCP,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_get_in_and_nobody_else() {
        let (inside, other): (SocketAddrV6, SocketAddrV6) =
            ("[2a00::1]:4001".parse().unwrap(), "[2a01::1]:4001".parse().unwrap());
        let stranger: SocketAddrV6 = "[2a01::1]:4002".parse().unwrap();
        let mut wall = Firewall::new(FirewallKind::Stateful);
        assert!(!wall.inbound(0, Protocol::Udp, inside, other));
        wall.outbound(0, Protocol::Udp, inside, other);
        assert!(wall.inbound(1, Protocol::Udp, inside, other));
        assert!(!wall.inbound(1, Protocol::Udp, inside, stranger));
        assert!(!wall.inbound(1, Protocol::Tcp, inside, other));
        assert!(!wall.inbound(1 + UDP, Protocol::Udp, inside, other), "quiet for two minutes");
        wall.outbound(0, Protocol::Tcp, inside, other);
        wall.reboot();
        assert!(!wall.inbound(1, Protocol::Tcp, inside, other));
        assert!(Firewall::new(FirewallKind::Open).inbound(0, Protocol::Udp, inside, other));
    }
}
