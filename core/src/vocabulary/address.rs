use alloc::{
    boxed::Box,
    string::{String, ToString},
};
use core::{fmt, net::IpAddr, str::FromStr};

use super::{PeerId, PeerIdError, Scope};

/// Where a peer may be reached, without the peer's own id. Its text is a multiaddr.
///
/// Only what the core reasons about is taken apart; everything else is carried as text. Text is checked to be a real
/// multiaddr by the shell, where it enters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    /// `/ip4/192.0.2.1/tcp/4001`, `/ip6/2001:db8::1/udp/4001/quic-v1`.
    Ip {
        /// IPv4 or IPv6.
        ip: IpAddr,
        /// TCP or UDP port.
        port: u16,
        /// What runs on that port.
        transport: Transport,
    },
    /// `/dns4/node.example/tcp/4001`.
    Name {
        /// Which records are asked for.
        kind: NameKind,
        /// The host name.
        name: Box<str>,
        /// TCP or UDP port.
        port: u16,
        /// What runs on that port.
        transport: Transport,
    },
    /// `/dnsaddr/node.example`: the name's TXT records hold whole multiaddrs.
    DnsAddr(Box<str>),
    /// `…/p2p/RELAY/p2p-circuit`.
    Relayed(Box<Circuit>),
    /// Any other multiaddr, as text.
    Other(Box<str>),
}

/// A way through a relay.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Circuit {
    /// Who relays.
    pub relay: PeerId,
    /// The relay's own address, when the text named one.
    pub via: Option<Address>,
}

/// The transports that the core tells apart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Transport {
    /// TCP with Noise and Yamux.
    Tcp,
    /// QUIC version 1.
    Quic,
}

/// Which DNS records a host name is looked up in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum NameKind {
    /// `/dns`: both families.
    Any,
    /// `/dns4`: IPv4 only.
    V4,
    /// `/dns6`: IPv6 only.
    V6,
}

/// An address, with the peer that is expected there when the text said so: `/ip4/192.0.2.1/tcp/4001/p2p/12D3KooW…`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct PeerAddress {
    /// Who is expected there.
    pub peer: Option<PeerId>,
    /// Where. `None`: only the peer is named (`/p2p/12D3KooW…`).
    pub address: Option<Address>,
}

/// Why a text is no address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AddressError {
    /// An address begins with `/`.
    NoSlash,
    /// The text ends where a value must follow this part.
    Missing(String),
    /// This part's value can't be read.
    BadValue {
        /// The part: `ip4`, `tcp`, `p2p` …
        part: String,
        /// What stood there.
        value: String,
    },
    /// A peer id can't be read.
    BadPeer {
        /// What stood there.
        value: String,
        /// What is wrong with it.
        error: PeerIdError,
    },
    /// A peer id where only an address may stand.
    UnexpectedPeer,
    /// Nothing there.
    Empty,
}

impl Address {
    /// An IP endpoint.
    pub const fn ip(ip: IpAddr, port: u16, transport: Transport) -> Self {
        Self::Ip { ip, port, transport }
    }

    /// A way through `relay`, wherever that is.
    pub fn relayed(relay: PeerId) -> Self {
        Self::Relayed(Box::new(Circuit { relay, via: None }))
    }

    /// Whether it leads through a relay.
    pub const fn is_relayed(&self) -> bool {
        matches!(self, Self::Relayed(_))
    }

    /// The relay it leads through.
    pub fn relay(&self) -> Option<&PeerId> {
        match self {
            Self::Relayed(circuit) => Some(&circuit.relay),
            Self::Ip { .. } | Self::Name { .. } | Self::DnsAddr(_) | Self::Other(_) => None,
        }
    }

    /// The IP address, where one is written.
    pub const fn host_ip(&self) -> Option<IpAddr> {
        match self {
            Self::Ip { ip, .. } => Some(*ip),
            Self::Name { .. } | Self::DnsAddr(_) | Self::Relayed(_) | Self::Other(_) => None,
        }
    }

    /// The port, where one is written.
    pub const fn port(&self) -> Option<u16> {
        match self {
            Self::Ip { port, .. } | Self::Name { port, .. } => Some(*port),
            Self::DnsAddr(_) | Self::Relayed(_) | Self::Other(_) => None,
        }
    }

    /// TCP or QUIC, where one of them is written.
    pub const fn transport(&self) -> Option<Transport> {
        match self {
            Self::Ip { transport, .. } | Self::Name { transport, .. } => Some(*transport),
            Self::DnsAddr(_) | Self::Relayed(_) | Self::Other(_) => None,
        }
    }

    /// How far the address reaches. `None` for names, circuits and what is carried as text.
    pub fn scope(&self) -> Option<Scope> {
        self.host_ip().map(Scope::of)
    }
}

impl PeerAddress {
    /// A peer and an address of it.
    pub const fn new(peer: PeerId, address: Address) -> Self {
        Self { peer: Some(peer), address: Some(address) }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip { ip: IpAddr::V4(ip), port, transport } => write!(f, "/ip4/{ip}{}", Port(*port, *transport)),
            Self::Ip { ip: IpAddr::V6(ip), port, transport } => write!(f, "/ip6/{ip}{}", Port(*port, *transport)),
            Self::Name { kind, name, port, transport } => {
                write!(f, "/{}/{name}{}", kind.part(), Port(*port, *transport))
            }
            Self::DnsAddr(name) => write!(f, "/dnsaddr/{name}"),
            Self::Relayed(circuit) => {
                if let Some(via) = &circuit.via {
                    write!(f, "{via}")?;
                }
                write!(f, "/p2p/{}/p2p-circuit", circuit.relay)
            }
            Self::Other(text) => f.write_str(text),
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Quic => "QUIC",
        })
    }
}

struct Port(u16, Transport);

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {
            Transport::Tcp => write!(f, "/tcp/{}", self.0),
            Transport::Quic => write!(f, "/udp/{}/quic-v1", self.0),
        }
    }
}

impl NameKind {
    const fn part(self) -> &'static str {
        match self {
            Self::Any => "dns",
            Self::V4 => "dns4",
            Self::V6 => "dns6",
        }
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(address) = &self.address {
            write!(f, "{address}")?;
        }
        match &self.peer {
            Some(peer) => write!(f, "/p2p/{peer}"),
            None => Ok(()),
        }
    }
}

impl FromStr for PeerAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text.is_empty() {
            return Err(AddressError::Empty);
        }
        if !text.starts_with('/') {
            return Err(AddressError::NoSlash);
        }
        let (before, peer) = match split_peer(text)? {
            Some((before, peer)) => (before, Some(peer)),
            None => (text, None),
        };
        let address = if before.is_empty() { None } else { Some(parse(before)?) };
        Ok(Self { peer, address })
    }
}

/// Splits `/p2p/PEER` off the end of `text`.
fn split_peer(text: &str) -> Result<Option<(&str, PeerId)>, AddressError> {
    let Some((head, value)) = text.rsplit_once('/') else { return Ok(None) };
    let Some(before) = head.strip_suffix("/p2p").or_else(|| head.strip_suffix("/ipfs")) else { return Ok(None) };
    let peer = value.parse().map_err(|error| AddressError::BadPeer { value: value.to_string(), error })?;
    Ok(Some((before, peer)))
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let parsed: PeerAddress = text.parse()?;
        match (parsed.peer, parsed.address) {
            (None, Some(address)) => Ok(address),
            (Some(_), _) => Err(AddressError::UnexpectedPeer),
            (None, None) => Err(AddressError::Empty),
        }
    }
}

fn parse(text: &str) -> Result<Address, AddressError> {
    if let Some(before) = text.strip_suffix("/p2p-circuit") {
        let (via, relay) = split_peer(before)?.ok_or_else(|| AddressError::Missing("p2p-circuit".to_string()))?;
        let via = if via.is_empty() { None } else { Some(parse(via)?) };
        return Ok(Address::Relayed(Box::new(Circuit { relay, via })));
    }
    let other = || Ok(Address::Other(text.into()));
    let text = text.strip_prefix('/').ok_or(AddressError::NoSlash)?;
    let mut parts = text.split('/');
    let host = parts.next().unwrap_or_default();
    let mut value = |part: &str| parts.next().ok_or_else(|| AddressError::Missing(part.to_string()));
    let bad = |part: &str, value: &str| AddressError::BadValue { part: part.to_string(), value: value.to_string() };

    let host = match host {
        "ip4" | "ip6" => {
            let text = value(host)?;
            let ip: IpAddr = text.parse().map_err(|_| bad(host, text))?;
            if ip.is_ipv4() != (host == "ip4") {
                return Err(bad(host, text));
            }
            Host::Ip(ip)
        }
        "dns" => Host::Name(NameKind::Any, value(host)?),
        "dns4" => Host::Name(NameKind::V4, value(host)?),
        "dns6" => Host::Name(NameKind::V6, value(host)?),
        "dnsaddr" => {
            let name = value(host)?;
            if name.is_empty() {
                return Err(bad(host, name));
            }
            return if parts.next().is_none() { Ok(Address::DnsAddr(name.into())) } else { other() };
        }
        "" => return Err(AddressError::Empty),
        _ => return other(),
    };
    if let Host::Name(kind, "") = host {
        return Err(bad(kind.part(), ""));
    }
    let Some(protocol) = parts.next() else { return other() };
    if protocol != "tcp" && protocol != "udp" {
        return other();
    }
    let text_port = parts.next().ok_or_else(|| AddressError::Missing(protocol.to_string()))?;
    let port = text_port.parse().map_err(|_| bad(protocol, text_port))?;
    let transport = match (protocol, parts.next(), parts.next()) {
        ("tcp", None, _) => Transport::Tcp,
        ("udp", Some("quic-v1"), None) => Transport::Quic,
        _ => return other(),
    };
    Ok(match host {
        Host::Ip(ip) => Address::Ip { ip, port, transport },
        Host::Name(kind, name) => Address::Name { kind, name: name.into(), port, transport },
    })
}

enum Host<'a> {
    Ip(IpAddr),
    Name(NameKind, &'a str),
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSlash => {
                f.write_str("an address is a multiaddr and begins with '/', such as /ip4/192.0.2.1/tcp/4001")
            }
            Self::Missing(part) => write!(f, "something is missing around '/{part}'"),
            Self::BadValue { part, value } => write!(f, "'{value}' is no value for '/{part}'"),
            Self::BadPeer { value, error } => write!(f, "'{value}' after '/p2p' is no peer id: {error}"),
            Self::UnexpectedPeer => f.write_str("a peer id ('/p2p/…') has no place here"),
            Self::Empty => f.write_str("the address is empty"),
        }
    }
}

impl core::error::Error for AddressError {}

macro_rules! debug_as_text {
    ($($type:ty),*) => {$(
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    )*};
}
debug_as_text!(Address, PeerAddress);

impl fmt::Debug for Circuit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Circuit").field("relay", &self.relay).field("via", &self.via).finish()
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for Address {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for Address {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = alloc::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: &str = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";

    #[test]
    fn what_is_written_is_what_is_read() {
        for text in [
            "/ip4/192.0.2.1/tcp/4001",
            "/ip4/192.0.2.1/udp/4001/quic-v1",
            "/ip6/2001:db8::1/udp/4001/quic-v1",
            "/dns4/node.example/tcp/443",
            "/dns/node.example/udp/4001/quic-v1",
            "/dnsaddr/bootstrap.example",
            "/ip4/192.0.2.1/tcp/443/tls/ws",
            "/ip4/192.0.2.1/udp/4001/quic-v1/webtransport",
            "/memory/7",
            &alloc::format!("/p2p/{PEER}/p2p-circuit"),
            &alloc::format!("/ip4/192.0.2.1/tcp/4001/p2p/{PEER}/p2p-circuit"),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
            let with_peer = alloc::format!("{text}/p2p/{PEER}");
            let parsed: PeerAddress = with_peer.parse().unwrap();
            assert_eq!(parsed.to_string(), with_peer);
            assert_eq!(parsed.peer, Some(PEER.parse().unwrap()));
        }
        let only: PeerAddress = alloc::format!("/p2p/{PEER}").parse().unwrap();
        assert_eq!((only.peer, only.address), (Some(PEER.parse().unwrap()), None));
    }

    #[test]
    fn parts_are_taken_apart() {
        let address: Address = "/ip6/::1/udp/9/quic-v1".parse().unwrap();
        assert_eq!(address, Address::ip("::1".parse().unwrap(), 9, Transport::Quic));
        assert_eq!(address.scope(), Some(Scope::Loopback));
        let circuit: Address = alloc::format!("/ip4/10.0.0.1/tcp/1/p2p/{PEER}/p2p-circuit").parse().unwrap();
        assert_eq!(circuit.relay(), Some(&PEER.parse().unwrap()));
    }

    #[test]
    fn what_cannot_be_read_says_where() {
        let error = |text: &str| text.parse::<PeerAddress>().unwrap_err().to_string();
        insta::assert_snapshot!(error(""), @"the address is empty");
        insta::assert_snapshot!(error("192.0.2.1:4001"), @"an address is a multiaddr and begins with '/', such as /ip4/192.0.2.1/tcp/4001");
        insta::assert_snapshot!(error("/ip4/192.0.2/tcp/1"), @"'192.0.2' is no value for '/ip4'");
        insta::assert_snapshot!(error("/ip4/::1/tcp/1"), @"'::1' is no value for '/ip4'");
        insta::assert_snapshot!(error("/ip4/192.0.2.1/tcp/70000"), @"'70000' is no value for '/tcp'");
        insta::assert_snapshot!(error("/ip4/192.0.2.1/tcp"), @"something is missing around '/tcp'");
        insta::assert_snapshot!(error("/ip4"), @"something is missing around '/ip4'");
        insta::assert_snapshot!(error("/ip4/192.0.2.1/tcp/1/p2p/0OIl"), @"'0OIl' after '/p2p' is no peer id: a peer id is base58 text, such as 12D3KooW…; this has other characters");
        insta::assert_snapshot!(error("/ip4/192.0.2.1/tcp/1/p2p-circuit"), @"something is missing around '/p2p-circuit'");
    }
}
