use alloc::{string::String, vec::Vec};
use core::{fmt, time::Duration};

use super::{
    Address, CloseCause, Direction, Impasse, ListenError, LogId, NatFinding, PeerId, PunchError, ReserveError,
    SignalErrand, Source, SyncError, Transport,
};

/// What the application and the user are told. The shell's stream of events is made of these.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Notice {
    /// A peer that was not known is known now.
    PeerDiscovered {
        /// Who.
        peer: PeerId,
        /// By whom.
        source: Source,
    },
    /// The first connection to a peer stands.
    PeerConnected {
        /// Who.
        peer: PeerId,
        /// How.
        path: Path,
        /// Which side began.
        direction: Direction,
        /// Where.
        address: Address,
    },
    /// A peer has introduced itself.
    PeerIdentified {
        /// Who.
        peer: PeerId,
        /// Its program and version.
        agent: String,
        /// What it speaks.
        protocols: Vec<String>,
    },
    /// The best connection to a peer is another one now.
    PathChanged {
        /// Who.
        peer: PeerId,
        /// Before.
        from: Path,
        /// Now.
        to: Path,
    },
    /// Data is being exchanged.
    PeerSyncing {
        /// Who.
        peer: PeerId,
    },
    /// No request is open any more.
    PeerSynced {
        /// Who.
        peer: PeerId,
        /// How far its data has come.
        position: Option<u64>,
    },
    /// How far a peer's logs and ours are apart has changed.
    PeerLag {
        /// Who.
        peer: PeerId,
        /// Entries that it has and we have not.
        ours: u64,
        /// Entries that we have and it has not.
        theirs: u64,
    },
    /// Entries have come, and are stored.
    EntriesReceived {
        /// From whom.
        peer: PeerId,
        /// Of which log.
        log: LogId,
        /// How many.
        entries: u32,
        /// How far the log goes now.
        position: u64,
    },
    /// An exchange of logs with a peer came to nothing.
    SyncFailed {
        /// With whom.
        peer: PeerId,
        /// Why.
        error: SyncError,
    },
    /// An author has signed two different entries with the same number: it runs twice, or was restored from a backup.
    /// What we had is kept; the other branch is not followed.
    LogForked {
        /// Which log.
        log: LogId,
        /// The entries' number.
        position: u64,
        /// Who has the other branch.
        peer: PeerId,
    },
    /// The last connection to a peer has ended.
    PeerDisconnected {
        /// Who.
        peer: PeerId,
        /// Why.
        cause: CloseCause,
    },
    /// Nothing is known of the peer any more.
    PeerExpired {
        /// Who.
        peer: PeerId,
    },
    /// A connection that was wanted will not be tried for a while.
    PeerDeferred {
        /// Who.
        peer: PeerId,
        /// Until then, counted from now.
        wait: Duration,
    },
    /// A connection that is wanted can't even be tried.
    PeerUnreachable {
        /// Who.
        peer: PeerId,
    },
    /// Something that a peer, or somebody about it, said was not taken.
    PeerDistrusted {
        /// Who.
        peer: PeerId,
    },
    /// Our identity is in use elsewhere.
    OwnIdentitySeen {
        /// Where.
        address: Address,
    },
    /// A direct connection was got through the NATs.
    Punched {
        /// With whom.
        peer: PeerId,
        /// By which transport.
        transport: Transport,
        /// At which try, from 1 on.
        attempt: u32,
    },
    /// A try to get a direct connection came to nothing.
    NotPunched {
        /// With whom.
        peer: PeerId,
        /// By which transport.
        transport: Transport,
        /// Which try, from 1 on.
        attempt: u32,
        /// Why.
        error: PunchError,
    },
    /// The peer stays on a relay for now.
    StaysRelayed {
        /// Who.
        peer: PeerId,
        /// Why.
        impasse: Impasse,
    },
    /// A relay keeps a place for us: others reach us through it.
    RelayHeld {
        /// Which.
        relay: PeerId,
    },
    /// A relay keeps no place for us, or no longer.
    RelayNotHeld {
        /// Which.
        relay: PeerId,
        /// Why.
        error: ReserveError,
    },

    /// The router lets a port of its own lead to this node.
    PortMapped {
        /// The router's address and port.
        address: Address,
    },
    /// The router does not let a port of its own lead to this node.
    PortNotMapped {
        /// To which of our ports.
        transport: Transport,
    },
    /// It is known what kind of router stands between this node and the internet.
    NatFound {
        /// What kind.
        finding: NatFinding,
    },
    /// This node listens here.
    Listening {
        /// Where.
        address: Address,
    },
    /// This node can't listen here.
    NotListening {
        /// Where it was to listen.
        address: Address,
        /// Why not.
        error: ListenError,
    },
    /// The port was taken; another one will be tried.
    PortTaken {
        /// Where it was to listen.
        address: Address,
    },
    /// How the node is doing has changed.
    HealthChanged {
        /// Now.
        health: Health,
    },
    /// What is known of our own reachability has changed.
    ReachabilityChanged {
        /// Now.
        reachability: Reachability,
    },
    /// A signal server has answered, for the first time or again.
    SignalAnswers {
        /// Which, as in the settings.
        server: String,
        /// How many peers it told.
        peers: u32,
    },
    /// A signal server does not do what it is asked.
    SignalFailed {
        /// Which, as in the settings.
        server: String,
        /// What it was asked.
        errand: SignalErrand,
        /// The next try, counted from now.
        wait: Duration,
    },
    /// A bootstrap peer does not answer.
    BootstrapFailed {
        /// Where.
        address: String,
        /// The next try, counted from now.
        wait: Duration,
    },
}

/// How a peer is reached.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Path {
    /// Straight, over the home network.
    Local {
        /// By which transport. `None`: one that the core does not know.
        transport: Option<Transport>,
    },
    /// Straight, over the internet.
    Direct {
        /// By which transport. `None`: one that the core does not know.
        transport: Option<Transport>,
    },
    /// Through a relay.
    Relayed {
        /// Which relay.
        relay: PeerId,
    },
}

/// How the node is doing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Health {
    /// Just started; nobody was met so far.
    Starting,
    /// Peers are there.
    Connected,
    /// Peers are there, but pinned ones are missing.
    Partial,
    /// Nobody is known; waiting for the first one. That is how the first node of a network lives.
    Alone,
    /// Peers are known, and none is there.
    Isolated,
    /// This machine has no network.
    Offline,
}

/// Whether others can begin connections to us from the internet.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Reachability {
    /// Not known.
    #[default]
    Unknown,
    /// They can.
    Public,
    /// They can't.
    Private,
}

impl Notice {
    /// The peer it is about.
    pub const fn peer(&self) -> Option<&PeerId> {
        match self {
            Self::PeerDiscovered { peer, .. }
            | Self::PeerConnected { peer, .. }
            | Self::PeerIdentified { peer, .. }
            | Self::PathChanged { peer, .. }
            | Self::PeerSyncing { peer }
            | Self::PeerSynced { peer, .. }
            | Self::PeerLag { peer, .. }
            | Self::EntriesReceived { peer, .. }
            | Self::SyncFailed { peer, .. }
            | Self::LogForked { peer, .. }
            | Self::PeerDisconnected { peer, .. }
            | Self::PeerExpired { peer }
            | Self::PeerDeferred { peer, .. }
            | Self::PeerUnreachable { peer }
            | Self::Punched { peer, .. }
            | Self::NotPunched { peer, .. }
            | Self::StaysRelayed { peer, .. }
            | Self::RelayHeld { relay: peer }
            | Self::RelayNotHeld { relay: peer, .. }
            | Self::PeerDistrusted { peer } => Some(peer),
            Self::OwnIdentitySeen { .. }
            | Self::Listening { .. }
            | Self::NotListening { .. }
            | Self::PortTaken { .. }
            | Self::HealthChanged { .. }
            | Self::ReachabilityChanged { .. }
            | Self::PortMapped { .. }
            | Self::PortNotMapped { .. }
            | Self::NatFound { .. }
            | Self::SignalAnswers { .. }
            | Self::SignalFailed { .. }
            | Self::BootstrapFailed { .. } => None,
        }
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PeerDiscovered { .. } => f.write_str("discovered"),
            Self::PeerConnected { path, direction, address, .. } => {
                write!(f, "connected {path} ({direction}, {address})")
            }
            Self::PeerIdentified { agent, .. } => write!(f, "identified as {agent}"),
            Self::PathChanged { from, to, .. } => write!(f, "now connected {to} (before: {from})"),
            Self::PeerSyncing { .. } => f.write_str("exchanging data"),
            Self::PeerSynced { position: Some(position), .. } => write!(f, "data exchanged up to {position}"),
            Self::PeerSynced { position: None, .. } => f.write_str("data exchanged"),
            Self::PeerLag { ours: 0, theirs: 0, .. } => f.write_str("has the same entries"),
            Self::PeerLag { ours, theirs, .. } => write!(f, "has {ours} entries more, and {theirs} less"),
            Self::EntriesReceived { log, entries, position, .. } => {
                write!(f, "has sent {entries} entries of {log}, up to {position}")
            }
            Self::SyncFailed { error, .. } => write!(f, "logs were not exchanged: {error}"),
            Self::LogForked { log, position, .. } => write!(
                f,
                "has another entry {position} of {log} than this node, and both are signed: the author runs twice, or \
                 was restored from a backup"
            ),
            Self::PeerDisconnected { cause, .. } => write!(f, "disconnected: {cause}"),
            Self::PeerExpired { .. } => f.write_str("forgotten"),
            Self::PeerDeferred { wait, .. } if wait.is_zero() => f.write_str("to be dialled again at once"),
            Self::PeerDeferred { wait, .. } => write!(f, "not dialled for {} s", wait.as_secs().max(1)),
            Self::PeerUnreachable { .. } => f.write_str("can't be dialled"),
            Self::PeerDistrusted { .. } => f.write_str("not believed"),
            Self::OwnIdentitySeen { address } => write!(
                f,
                "this node's identity is also in use at {address}; a copied data folder or SD card? Delete `identity` \
                 in one of them"
            ),
            Self::Punched { transport, attempt, .. } => {
                write!(f, "a direct connection by {transport} was got through the NATs, at try {attempt}")
            }
            Self::NotPunched { transport, attempt, error, .. } => {
                write!(f, "try {attempt} of a direct connection, by {transport}, failed: {error}")
            }
            Self::StaysRelayed { impasse, .. } => write!(f, "stays relayed: {impasse}"),
            Self::RelayHeld { .. } => f.write_str("relays for this node"),
            Self::RelayNotHeld { error, .. } => write!(f, "does not relay for this node: {error}"),
            Self::PortMapped { address } => write!(f, "the router lets {address} lead to this node"),
            Self::PortNotMapped { transport } => {
                write!(f, "the router lets no {transport} port of its own lead to this node")
            }
            Self::NatFound { finding } => fmt::Display::fmt(finding, f),
            Self::Listening { address } => write!(f, "listening on {address}"),
            Self::NotListening { address, error } => write!(f, "can't listen on {address}: {error}"),
            Self::PortTaken { address } => write!(f, "{address} is taken by another program; using another port"),
            Self::HealthChanged { health } => fmt::Display::fmt(health, f),
            Self::ReachabilityChanged { reachability } => fmt::Display::fmt(reachability, f),
            Self::SignalAnswers { server, peers: 0 } => write!(f, "signal server {server} knows nobody else"),
            Self::SignalAnswers { server, peers: 1 } => write!(f, "signal server {server} tells a peer"),
            Self::SignalAnswers { server, peers } => write!(f, "signal server {server} tells {peers} peers"),
            Self::SignalFailed { server, errand, wait } => {
                let wait = wait.as_secs().max(1);
                write!(f, "signal server {server} does not {errand}; next try in {wait} s")
            }
            Self::BootstrapFailed { address, wait } => {
                write!(f, "bootstrap peer {address} does not answer; next try in {} s", wait.as_secs())
            }
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = |transport: &Option<Transport>| match transport {
            Some(Transport::Tcp) => " by TCP",
            Some(Transport::Quic) => " by QUIC",
            None => "",
        };
        match self {
            Self::Local { transport } => write!(f, "over the home network{}", by(transport)),
            Self::Direct { transport } => write!(f, "directly{}", by(transport)),
            Self::Relayed { relay } => write!(f, "through relay {relay}"),
        }
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Starting => "starting",
            Self::Connected => "connected",
            Self::Partial => "connected, but pinned peers are missing",
            Self::Alone => "alone: nobody else is known, waiting for the first peer",
            Self::Isolated => "isolated: peers are known, but none can be reached",
            Self::Offline => "offline: this machine has no network",
        })
    }
}

impl fmt::Display for Reachability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "not known whether others can reach this node",
            Self::Public => "others can reach this node from the internet",
            Self::Private => "others can't reach this node from the internet",
        })
    }
}
