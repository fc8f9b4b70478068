//! Ids and addresses, from the core's own types to libp2p's and back.

use std::{fmt, net::IpAddr};

use kinfolk_core::{Address, AddressError, PeerAddress, PeerId as CorePeerId, Scope, Transport};
use libp2p::{Multiaddr, PeerId, kad::KBucketKey, multiaddr::Protocol, multihash::Multihash};

/// The longest text of an address that is taken from others. A relayed one with names and ids in it has about 250.
pub const MAX_ADDRESS_TEXT: usize = 384;

/// The multihash code of SHA-256.
const SHA_256: u64 = 0x12;

/// A peer's id, as the core knows it.
///
/// libp2p lets through some ids that no key can have (a SHA-256 of another length than 32 bytes). They become the
/// SHA-256 of their bytes: another id that no key has.
pub fn peer_to_core(peer: PeerId) -> CorePeerId {
    real_peer(&peer).unwrap_or_else(|| {
        let mut bytes = vec![0x12, 0x20];
        bytes.extend_from_slice(&sha_256(&peer.to_bytes()));
        CorePeerId::from_bytes(&bytes).expect("a SHA-256 multihash is an id")
    })
}

/// A peer's id, if a key can have such an id.
pub(crate) fn real_peer(peer: &PeerId) -> Option<CorePeerId> {
    CorePeerId::from_bytes(&peer.to_bytes()).ok()
}

/// A peer's id, as libp2p knows it.
pub fn peer_to_libp2p(peer: &CorePeerId) -> PeerId {
    PeerId::from_bytes(peer.as_bytes()).expect("every id of the core is a multihash that libp2p takes")
}

/// An address, as the core knows it, without the id of the peer that is reached there.
///
/// What the core does not take apart is carried as text; so is what is no address at all.
pub fn address_to_core(address: &Multiaddr) -> Address {
    if let Some((ip, port, transport)) = endpoint(address) {
        return Address::ip(ip, port, transport);
    }
    let text = address.to_string();
    match text.parse::<PeerAddress>() {
        Ok(PeerAddress { address: Some(address), .. }) => address,
        Ok(PeerAddress { address: None, .. }) | Err(_) => Address::Other(text.into()),
    }
}

/// An address that somebody told us, if it is one and not overlong.
pub(crate) fn told_address(address: &Multiaddr) -> Option<Address> {
    // A part is at least as long in text as it is encoded.
    if address.len() > MAX_ADDRESS_TEXT {
        return None;
    }
    if let Some((ip, port, transport)) = endpoint(address) {
        return Some(Address::ip(ip, port, transport));
    }
    let text = address.to_string();
    if text.len() > MAX_ADDRESS_TEXT {
        return None;
    }
    text.parse::<PeerAddress>().ok()?.address
}

/// An address, as libp2p knows it. `None`: its text is no multiaddr.
pub fn address_to_libp2p(address: &Address) -> Option<Multiaddr> {
    match address {
        Address::Ip { ip, port, transport } => Some(match transport {
            Transport::Tcp => Multiaddr::from(*ip).with(Protocol::Tcp(*port)),
            Transport::Quic => Multiaddr::from(*ip).with(Protocol::Udp(*port)).with(Protocol::QuicV1),
        }),
        Address::Name { .. } | Address::DnsAddr(_) | Address::Relayed(_) | Address::Other(_) => {
            address.to_string().parse().ok()
        }
    }
}

/// Why a text is no address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BadAddress {
    /// It can't be taken apart.
    Parts(AddressError),
    /// It looks like an address, but some part of it is not a multiaddr's; the library's words.
    Multiaddr(String),
}

/// Reads an address that a person wrote: the core's own check and libp2p's.
///
/// # Errors
/// When the text is no multiaddr.
pub fn parse_address(text: &str) -> Result<PeerAddress, BadAddress> {
    let mut parsed: PeerAddress = text.parse().map_err(BadAddress::Parts)?;
    let real: Multiaddr =
        text.parse().map_err(|error: libp2p::multiaddr::Error| BadAddress::Multiaddr(error.to_string()))?;
    if let Some(Address::Other(_)) = parsed.address {
        // The library's spelling, in which the address will come back from it.
        parsed.address = Some(address_to_core(&without_peer(real)));
    }
    Ok(parsed)
}

/// The address without the id of the peer that is reached there.
pub(crate) fn without_peer(mut address: Multiaddr) -> Multiaddr {
    if let Some(Protocol::P2p(_)) = address.iter().last() {
        address.pop();
    }
    address
}

/// Whether it is a plain endpoint on the internet: no name, which may lead anywhere, and no circuit, which proves nothing.
pub(crate) fn on_the_internet(address: &Multiaddr) -> bool {
    endpoint(address).is_some_and(|(ip, ..)| Scope::of(ip).is_global())
}

/// IP address, port and transport, if the address is nothing but these (and a peer's id).
///
/// Strictly so: libp2p's TCP transport dials the *last* IP address of a longer one.
pub(crate) fn endpoint(address: &Multiaddr) -> Option<(IpAddr, u16, Transport)> {
    let ip = first_ip(address)?;
    let mut parts = address.iter().skip(1);
    let (port, transport) = match (parts.next()?, address.iter().nth(2)) {
        (Protocol::Tcp(port), _) => (port, Transport::Tcp),
        (Protocol::Udp(port), Some(Protocol::QuicV1)) => {
            parts.next();
            (port, Transport::Quic)
        }
        _ => return None,
    };
    match (parts.next(), parts.next()) {
        (None | Some(Protocol::P2p(_)), None) => Some((ip, port, transport)),
        _ => None,
    }
}

/// Whether the address leads through a relay.
pub(crate) fn is_relayed(address: &Multiaddr) -> bool {
    address.iter().any(|part| part == Protocol::P2pCircuit)
}

/// The IP address that the address begins with.
pub(crate) fn first_ip(address: &Multiaddr) -> Option<IpAddr> {
    let first = address.iter().next()?;
    if let Protocol::Ip4(ip) = first {
        Some(IpAddr::V4(ip))
    } else if let Protocol::Ip6(ip) = first {
        Some(IpAddr::V6(ip))
    } else {
        None
    }
}

/// The id at a random place of the hash table: nobody has it.
pub(crate) fn place(number: u64) -> PeerId {
    let digest = sha_256(&number.to_be_bytes());
    let hash = Multihash::wrap(SHA_256, &digest).expect("32 bytes fit");
    PeerId::from_multihash(hash).expect("a SHA-256 multihash is an id")
}

/// SHA-256, by the way that Kademlia hashes its keys.
pub(crate) fn sha_256(bytes: &[u8]) -> [u8; 32] {
    let key = KBucketKey::new(bytes.to_vec());
    key.hashed_bytes().try_into().expect("Kademlia's keys have 32 bytes")
}

impl fmt::Display for BadAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Parts(error) => fmt::Display::fmt(error, f),
            Self::Multiaddr(error) => write!(f, "not a multiaddr ({error}); one looks like /ip4/192.0.2.1/tcp/4001"),
        }
    }
}

impl std::error::Error for BadAddress {}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: &str = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";

    #[test]
    fn an_address_is_the_same_after_both_ways() {
        for text in [
            "/ip4/192.0.2.1/tcp/4001",
            "/ip6/2001:db8::1/udp/4001/quic-v1",
            "/dns4/node.example/tcp/443",
            "/dns/node.example/udp/4001/quic-v1",
            "/dnsaddr/bootstrap.example",
            "/ip4/192.0.2.1/tcp/443/tls/ws",
            "/memory/7",
            &format!("/p2p/{PEER}/p2p-circuit"),
            &format!("/ip4/192.0.2.1/tcp/4001/p2p/{PEER}/p2p-circuit"),
        ] {
            let address: Address = text.parse().unwrap();
            let there = address_to_libp2p(&address).unwrap();
            assert_eq!(address_to_core(&there), address, "{text}");
            let peer: PeerId = PEER.parse().unwrap();
            assert_eq!(address_to_core(&there.with_p2p(peer).unwrap()), address, "{text} with a peer");
        }
    }

    #[test]
    fn only_plain_endpoints_are_endpoints() {
        let endpoint = |text: &str| endpoint(&text.parse().unwrap());
        assert!(endpoint("/ip4/192.0.2.1/tcp/1").is_some());
        assert!(endpoint(&format!("/ip4/192.0.2.1/udp/1/quic-v1/p2p/{PEER}")).is_some());
        for text in [
            "/ip4/192.0.2.1",
            "/ip4/192.0.2.1/udp/1",
            "/ip4/192.0.2.1/tcp/1/ip4/192.168.1.1/tcp/80",
            &format!("/ip4/192.0.2.1/tcp/1/p2p/{PEER}/ip4/192.168.1.1/tcp/80"),
            &format!("/ip4/192.0.2.1/tcp/1/p2p/{PEER}/p2p-circuit"),
            "/dns4/node.example/tcp/1",
        ] {
            assert_eq!(endpoint(text), None, "{text}");
        }
    }

    #[test]
    fn an_id_that_no_key_has_stays_one() {
        let odd = PeerId::from_multihash(Multihash::wrap(SHA_256, &[7; 5]).unwrap()).unwrap();
        assert_eq!(real_peer(&odd), None);
        let core = peer_to_core(odd);
        assert_ne!(peer_to_libp2p(&core), odd);
        let usual: PeerId = PEER.parse().unwrap();
        assert_eq!(peer_to_libp2p(&peer_to_core(usual)), usual);
    }

    #[test]
    fn what_is_no_multiaddr_says_so() {
        assert!(matches!(parse_address("192.0.2.1"), Err(BadAddress::Parts(_))));
        assert!(matches!(parse_address("/carrier/pigeon"), Err(BadAddress::Multiaddr(_))));
        let parsed = parse_address(&format!("/ip4/192.0.2.1/tcp/1/ws/ipfs/{PEER}")).unwrap();
        assert_eq!(parsed.to_string(), format!("/ip4/192.0.2.1/tcp/1/ws/p2p/{PEER}"));
    }

    #[test]
    fn sha_256_is_sha_256() {
        assert_eq!(sha_256(b"abc")[..4], [0xba, 0x78, 0x16, 0xbf]);
    }

    #[test]
    fn overlong_addresses_are_not_taken() {
        let long = format!("/dns4/{}/tcp/1", "a".repeat(MAX_ADDRESS_TEXT));
        assert_eq!(told_address(&long.parse().unwrap()), None);
        assert!(told_address(&"/dns4/short.example/tcp/1".parse().unwrap()).is_some());
        assert_eq!(told_address(&format!("/p2p/{PEER}").parse().unwrap()), None);
    }
}
