//! Words for NATs and ways through them.

use alloc::string::String;
use core::fmt;

use super::DialError;

/// What the NAT in front of a node does with ports, as far as others' eyes tell.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Mapping {
    /// Not known: fewer than two observers.
    #[default]
    Unknown,
    /// There is no NAT: an own address is on the internet.
    None,
    /// One port for all destinations (RFC 4787: endpoint-independent).
    Independent,
    /// Another port for each destination (address- or port-dependent, "symmetric").
    PerDestination,
}

/// For whom a node does something.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Audience {
    /// For nobody.
    #[default]
    Nobody,
    /// For members of its network.
    Members,
    /// For everyone, within quotas.
    Anyone,
}

/// A side's part in a try to get a direct connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum PunchRole {
    /// Begins the connection: QUIC's client, TCP's dialler. The side with the harder NAT.
    Dial,
    /// Opens its NAT for the other side, and accepts.
    Accept,
}

/// What a probe of one of our addresses has shown.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum ProbeVerdict {
    /// The server's nonce came in there: proven.
    Reachable,
    /// The server says that it could not connect. Weak: it may not have tried.
    DialFailed,
    /// The server says that it connected, and could not deliver its nonce.
    DialBackFailed,
    /// The server says yes, and no nonce came: it lies, or is mistaken.
    Unproven,
    /// The server does not want to.
    Refused,
    /// The server does not do this for us.
    NotSupported,
    /// There is no connection to the server that we have dialled.
    NotConnected,
    /// The talk with the server broke; the library's words.
    Broken(String),
}

/// Why a relay keeps no place for us.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum ReserveError {
    /// The relay has no place left.
    Full,
    /// The relay does not relay for us.
    Forbidden,
    /// It is no relay.
    Unsupported,
    /// Its answer makes no sense: no address, for one.
    Malformed,
    /// The connection to it has ended.
    ConnectionLost,
    /// No answer in time.
    TimedOut,
    /// We gave it back.
    Ours,
    /// Anything else; the library's words, at most 200 characters.
    Other(String),
}

/// Why a try to get a direct connection came to nothing.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum PunchError {
    /// The peer does not speak the protocol.
    NotSupported,
    /// The peer declined, or named no address.
    Declined,
    /// None of the peer's addresses fits the transport, or may be dialled.
    NoCandidates,
    /// The relayed connection is gone.
    CircuitGone,
    /// No connection came of it.
    Dial(DialError),
    /// It took too long.
    TimedOut,
    /// The talk about it broke; the library's words, at most 200 characters.
    Broken(String),
}

/// Why no direct connection between two nodes can be had, as far as is known.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Impasse {
    /// Both NATs give each destination another port.
    BothPerDestination,
    /// Ours does, and theirs lets in only those that it has sent to.
    OursPerDestination,
    /// Theirs does, and ours lets in only those that we have sent to.
    TheirsPerDestination,
    /// UDP does not get through, and TCP did not.
    NoUdp,
    /// It was tried in every way, without success.
    TriedEverything,
    /// The peer does not know how to.
    NotSpoken,
}

/// What kind of router stands between this node and the internet, where it can be told.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum NatFinding {
    /// This machine's own address is one that providers share among customers (100.64.0.0/10).
    CarrierGrade,
    /// The home router's outer address is one that providers share among customers: the provider has a NAT of its own.
    RouterBehindCarrierGrade,
    /// The home router's outer address is private: a second router stands behind it.
    DoubleNat,
    /// The router speaks of port mapping, and gives none: mostly a second NAT behind it.
    NoMappingGiven,
}

impl Mapping {
    /// Whether a peer elsewhere can guess where a packet to it will come from.
    pub const fn is_predictable(self) -> bool {
        !matches!(self, Self::PerDestination)
    }
}

impl fmt::Display for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "not known yet",
            Self::None => "no NAT",
            Self::Independent => "one port for all destinations",
            Self::PerDestination => "another port for each destination",
        })
    }
}

impl fmt::Display for Audience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nobody => "nobody",
            Self::Members => "members",
            Self::Anyone => "anyone",
        })
    }
}

impl fmt::Display for PunchRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dial => "dialling",
            Self::Accept => "accepting",
        })
    }
}

impl fmt::Display for ProbeVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reachable => f.write_str("reachable"),
            Self::DialFailed => f.write_str("the server could not connect"),
            Self::DialBackFailed => f.write_str("the server connected and could not speak"),
            Self::Unproven => f.write_str("the server says yes without proof"),
            Self::Refused => f.write_str("the server does not want to probe"),
            Self::NotSupported => f.write_str("the server does not probe for us"),
            Self::NotConnected => f.write_str("no connection to the server"),
            Self::Broken(text) => f.write_str(text),
        }
    }
}

impl fmt::Display for ReserveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("the relay is full"),
            Self::Forbidden => f.write_str("the relay does not relay for this node"),
            Self::Unsupported => f.write_str("it is no relay"),
            Self::Malformed => f.write_str("the relay's answer makes no sense"),
            Self::ConnectionLost => f.write_str("the connection to the relay has ended"),
            Self::TimedOut => f.write_str("the relay did not answer in time"),
            Self::Ours => f.write_str("given back by this node"),
            Self::Other(text) => f.write_str(text),
        }
    }
}

impl fmt::Display for PunchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSupported => f.write_str("the peer does not know how to"),
            Self::Declined => f.write_str("the peer declined"),
            Self::NoCandidates => f.write_str("the peer named no address that could be dialled"),
            Self::CircuitGone => f.write_str("the relayed connection has ended"),
            Self::Dial(error) => fmt::Display::fmt(error, f),
            Self::TimedOut => f.write_str("it took too long"),
            Self::Broken(text) => f.write_str(text),
        }
    }
}

impl fmt::Display for Impasse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BothPerDestination => "your NAT gives each destination another port, and so does theirs",
            Self::OursPerDestination => {
                "your NAT gives each destination another port, and theirs lets in only whom it has sent to"
            }
            Self::TheirsPerDestination => {
                "their NAT gives each destination another port, and yours lets in only whom it has sent to"
            }
            Self::NoUdp => "UDP does not get through, and TCP can't be made to",
            Self::TriedEverything => "a direct connection was tried in every way, without success",
            Self::NotSpoken => "the peer does not know how to get a direct connection",
        })
    }
}

impl fmt::Display for NatFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CarrierGrade => {
                "this machine's address is shared with other customers of the provider (carrier-grade NAT)"
            }
            Self::RouterBehindCarrierGrade => {
                "the router's address is shared with other customers of the provider (carrier-grade NAT)"
            }
            Self::DoubleNat => "a second router stands between the home router and the internet (double NAT)",
            Self::NoMappingGiven => {
                "the router offers port mapping, and gives none: mostly there is a second NAT behind it"
            }
        })
    }
}
