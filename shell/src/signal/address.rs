//! Which addresses may be published: those that mean the same everywhere on the internet.

use std::net::IpAddr;

use kinfolk_core::Scope;
use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};

use crate::network::ids::MAX_ADDRESS_TEXT;

/// Names that end so are those of a home or company network, of one machine, or of nothing (RFC 2606, 6761, 6762, 7686,
/// 8375, ICANN's `internal`).
const LOCAL_NAMES: [&str; 11] = [
    "local",
    "localhost",
    "localdomain",
    "lan",
    "home",
    "internal",
    "intranet",
    "home.arpa",
    "test",
    "invalid",
    "onion",
];

/// Why an address may not be published.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unfit {
    /// It is not an IP address or a name, with TCP or UDP behind it.
    #[error("it does not say where to connect to: an IP address or a name, then tcp or udp with a port")]
    NoPlace,
    /// It reaches only some part of the internet, or nothing.
    #[error("it means something else elsewhere (private, loopback, unspecified and the like)")]
    NotGlobal,
    /// It ends in the id of another peer.
    #[error("it leads to another peer")]
    OtherPeer,
    /// It is overlong.
    #[error("it is longer than {MAX_ADDRESS_TEXT} characters")]
    Long,
}

/// Whether `peer` may publish `address`. With `private`, any IP address and name is let through.
///
/// Every part is looked at: `/ip4/45.1.1.1/tcp/1/p2p/R/p2p-circuit` is fit, and with a second, private IP address in it
/// is not.
///
/// # Errors
/// Why not.
pub fn fit(peer: &PeerId, address: &Multiaddr, private: bool) -> Result<(), Unfit> {
    if address.len() > MAX_ADDRESS_TEXT || address.to_string().len() > MAX_ADDRESS_TEXT {
        return Err(Unfit::Long);
    }
    let (mut named, mut port, mut last) = (false, false, None);
    for (at, part) in address.iter().enumerate() {
        let global = match host(&part) {
            Some(Host::Ip(ip)) => Scope::of(ip).is_global(),
            Some(Host::Name(name)) => is_public_name(&name),
            None => true,
        };
        if !global && !private {
            return Err(Unfit::NotGlobal);
        }
        named |= at == 0 && host(&part).is_some();
        // What a name of this kind stands for is told by DNS, port and all.
        port |= matches!(part, Protocol::Dnsaddr(_))
            || at == 1 && matches!(part, Protocol::Tcp(port) | Protocol::Udp(port) if port != 0);
        last = Some(part);
    }
    if !named || !port {
        return Err(Unfit::NoPlace);
    }
    match last {
        Some(Protocol::P2p(end)) if end != *peer => Err(Unfit::OtherPeer),
        _ => Ok(()),
    }
}

enum Host {
    Ip(IpAddr),
    Name(String),
}

fn host(part: &Protocol<'_>) -> Option<Host> {
    if let Protocol::Ip4(ip) = part {
        return Some(Host::Ip((*ip).into()));
    }
    if let Protocol::Ip6(ip) = part {
        return Some(Host::Ip((*ip).into()));
    }
    let (Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name) | Protocol::Dnsaddr(name)) = part else {
        return None;
    };
    Some(Host::Name(name.to_string()))
}

/// Whether DNS on the internet may know the name: it has a dot, is no IP address, and its end is not kept for other uses.
fn is_public_name(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let fits = (1..=253).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    let local = |end: &&str| name.strip_suffix(*end).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    // The last label of a real name has a letter; so no spelling of an IP address passes.
    let last = name.rsplit('.').next().unwrap_or_default();
    fits && name.contains('.') && last.bytes().any(|byte| byte.is_ascii_alphabetic()) && !LOCAL_NAMES.iter().any(local)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::key::PeerKey;

    #[test]
    fn only_what_means_the_same_everywhere_is_fit() {
        let (peer, relay) = (PeerKey([1; 32]).peer(), PeerKey([2; 32]).peer());
        let verdict = |text: &str| {
            let text = text.replace("SELF", &peer.to_string()).replace("RELAY", &relay.to_string());
            fit(&peer, &text.parse().unwrap(), false)
        };
        for text in [
            "/ip4/45.10.20.1/tcp/4001",
            "/ip4/45.10.20.1/udp/4001/quic-v1/p2p/SELF",
            "/ip6/2a01:4f8::1/tcp/4001",
            "/dns4/node.example.org/tcp/443/wss",
            "/dnsaddr/bootstrap.example.org",
            "/ip4/45.10.20.1/udp/4001/quic-v1/p2p/RELAY/p2p-circuit",
            "/ip4/45.10.20.1/tcp/4001/p2p/RELAY/p2p-circuit/p2p/SELF",
        ] {
            assert_eq!(verdict(text), Ok(()), "{text}");
        }
        for text in [
            "/ip4/192.168.1.1/tcp/4001",
            "/ip4/10.1.1.1/tcp/4001",
            "/ip4/127.0.0.1/tcp/4001",
            "/ip4/0.0.0.0/tcp/4001",
            "/ip4/100.64.0.1/tcp/4001",
            "/ip4/169.254.1.1/tcp/4001",
            "/ip6/::1/tcp/4001",
            "/ip6/::/tcp/4001",
            "/ip6/fe80::1/tcp/4001",
            "/ip6/fd00::1/tcp/4001",
            "/ip6/::ffff:192.168.1.1/tcp/4001",
            "/ip6/64:ff9b::1/tcp/4001",
            "/dns4/localhost/tcp/4001",
            "/dns4/nas.local/tcp/4001",
            "/dns4/nas/tcp/4001",
            "/dns4/fritz.box.home.arpa./tcp/4001",
            "/dns4/192.168.1.1/tcp/4001",
            "/dns4/127.1/tcp/4001",
            "/ip4/45.10.20.1/tcp/4001/p2p/RELAY/p2p-circuit/ip4/192.168.1.1/tcp/1",
            "/ip4/45.10.20.1/tcp/1/ip4/192.168.1.1/tcp/1",
        ] {
            assert_eq!(verdict(text), Err(Unfit::NotGlobal), "{text}");
            let named: Multiaddr = text.replace("RELAY", &relay.to_string()).parse().unwrap();
            assert_eq!(fit(&peer, &named, true), Ok(()), "{text}");
        }
        for text in ["/tcp/4001", "/ip4/45.10.20.1", "/ip4/45.10.20.1/tcp/0", "/p2p-circuit", "/memory/1", "/unix/etc"]
        {
            assert_eq!(verdict(text), Err(Unfit::NoPlace), "{text}");
        }
        assert_eq!(verdict("/ip4/45.10.20.1/tcp/4001/p2p/RELAY"), Err(Unfit::OtherPeer));
        let long = format!("/dns4/{}.example.org/tcp/1", "a".repeat(400));
        assert_eq!(verdict(&long), Err(Unfit::Long));
    }
}
