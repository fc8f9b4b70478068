use alloc::{string::String, vec::Vec};
use core::{fmt, time::Duration};

use super::{Address, PeerId};

/// Settings of the client of signal servers. Tokens are none of the core's business: settings are recorded.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
pub struct SignalConfig {
    /// Where signal servers are: `https://doorway.example/signal`, at most 8. Default: none.
    pub servers: Vec<String>,
    /// Whether our own record is published there; on by default.
    pub publish: bool,
    /// How often each is asked for peers; default 15 min.
    pub every: Duration,
    /// How often each is asked while nobody is connected; default 20 s, which is 4 300 small requests a day. The first
    /// few times sooner.
    pub lonely: Duration,
    /// How many peers are asked for at once; default 20, at most 32.
    pub sample: u32,
    /// For how long a record is to be kept; default 2 h. A server may keep it for less. It is published again at half
    /// of what the server grants.
    pub lifetime: Duration,
    /// A question without an answer is given up after this; default 20 s. The shell's own time-outs are shorter.
    pub timeout: Duration,
}

/// A peer as a signal server tells of it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SignalPeer {
    /// Who.
    pub peer: PeerId,
    /// The number of the peer's record, whose signature was checked; later ones have higher numbers. `None`: only the
    /// server says so.
    pub seq: Option<u64>,
    /// Where; at most 16.
    pub addresses: Vec<Address>,
    /// What it does for others, as the server says.
    pub services: SignalServices,
}

/// What a peer does for others, by its own word.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
pub struct SignalServices {
    /// Relays.
    pub relay: bool,
    /// Serves the hash table, and is there for good.
    pub bootstrap: bool,
}

/// What a signal server keeps its records in. Several behind one name must share theirs; one that does not is an island.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum SignalBacking {
    /// In its process only.
    Memory,
    /// On its disk.
    Sqlite,
    /// In a server that several may share.
    Redis,
}

/// What is wanted of a signal server.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum SignalErrand {
    /// It is asked for peers.
    Query,
    /// Our own record is published.
    Publish,
}

/// Why a signal server did not do what was asked.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum SignalError {
    /// It has a record of ours with this number; the next one of ours is higher.
    Stale {
        /// That number.
        seq: u64,
    },
    /// It says no, or not now.
    Refused {
        /// In its words, at most 200 characters.
        reason: String,
        /// When it may be asked again, counted from now.
        retry_after: Option<Duration>,
    },
    /// It does not offer that at all: it only tells peers, say.
    Unsupported,
    /// It is not there, does not answer in time, or answers nonsense; in the library's words, at most 200 characters.
    Failed(String),
}

impl Default for SignalConfig {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            publish: true,
            every: Duration::from_secs(900),
            lonely: Duration::from_secs(20),
            sample: 20,
            lifetime: Duration::from_secs(7_200),
            timeout: Duration::from_secs(20),
        }
    }
}

impl SignalConfig {
    /// Whether this is where a signal server can be: `https://` or `http://`, a host, and maybe a port and a path.
    pub(super) fn is_place(url: &str) -> bool {
        let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
        let odd = |c: char| !c.is_ascii_graphic() || matches!(c, '?' | '#' | '@' | '\\' | '"' | '<' | '>');
        rest.is_some_and(|rest| {
            let host = rest.split('/').next().unwrap_or_default();
            !host.is_empty() && !host.starts_with(':') && url.len() <= 256 && !url.contains(odd)
        })
    }
}

impl fmt::Display for SignalBacking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory => "memory",
            Self::Sqlite => "sqlite",
            Self::Redis => "redis",
        })
    }
}

impl fmt::Display for SignalErrand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Query => "tell peers",
            Self::Publish => "take our record",
        })
    }
}

impl fmt::Display for SignalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stale { seq } => write!(f, "it has our record number {seq}, which ours was not above"),
            Self::Refused { reason, .. } => write!(f, "it says: {reason}"),
            Self::Unsupported => f.write_str("it does not offer that"),
            Self::Failed(text) => f.write_str(text),
        }
    }
}
