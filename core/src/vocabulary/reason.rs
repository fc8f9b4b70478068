use core::{fmt, time::Duration};

use super::{Address, ConnectionId, DialError, PeerId, SignalError, Source, SyncError};

/// Why something is commanded. Its text completes "…, because ".
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Reason {
    /// A user or the application asked.
    Asked,
    /// The settings say so.
    Settings,
    /// The peer is pinned and must not stay away.
    Pinned,
    /// It was found.
    FoundBy(Source),
    /// It is a bootstrap peer.
    BootstrapPeer,
    /// No connection is left, so back-offs don't count.
    Isolated {
        /// For how long.
        since: Duration,
    },
    /// The wait after a failure is over.
    Retry {
        /// Which try this is, from 2 on.
        attempt: u32,
    },
    /// It belongs to the network, and was not met so far.
    Member,
    /// It may relay for us: that many relays are held, that many wanted.
    RelayWanted {
        /// Held.
        have: u32,
        /// Wanted.
        want: u32,
    },
    /// Only a relayed connection stands, and a direct one may be had.
    OnlyRelayed,
    /// What the relay allows the connection is nearly used up.
    CircuitWorn,
    /// A look-up needs to ask it.
    LookUp,
    /// A way through it is dialled.
    Circuit,
    /// It has asked for a probe of its address.
    ProbeAsked,

    /// The peer is blocked.
    Blocked,
    /// It is this node itself.
    OwnIdentity,
    /// The budget of this node is used up.
    OverBudget {
        /// Connections that stand.
        connections: u32,
        /// How many may.
        limit: u32,
    },
    /// Too many dials into one network in a short time.
    NetworkLimit,
    /// None of its addresses can be dialled from here.
    NoUsableAddress,
    /// No address of it is known.
    NoAddress,
    /// Nothing comes through by the transport of its addresses, while others work.
    TransportBlocked,
    /// The last dial failed.
    DialFailed {
        /// At this address, where one stands for all.
        address: Option<Address>,
        /// How.
        error: DialError,
    },
    /// Another connection to the same peer is kept.
    Duplicate {
        /// The one that is kept.
        kept: ConnectionId,
    },
    /// The direct connection has proven itself, so the relayed one can go.
    DirectProven {
        /// The direct one.
        kept: ConnectionId,
    },
    /// It never introduced itself.
    NeverIdentified,
    /// It speaks none of this network's protocols.
    OtherNetwork,
    /// It has not answered pings.
    PingsLost,
    /// Nothing here needs the connection any more.
    NotNeeded,
    /// It connects and drops in a loop.
    Flapping {
        /// How often in the window of the settings.
        closes: u32,
    },
    /// It misbehaved a while ago.
    TurnedAway,
    /// The time it was turned away for is over.
    BanOver,
    /// Too many addresses were told; the rest is ignored.
    TooManyAddresses {
        /// How many were not taken.
        ignored: u32,
    },
    /// Nobody speaks of it any more.
    NoSource,
    /// The table is full, and it was the least useful.
    TableFull,
    /// It connected.
    ConnectionMade,
    /// Its connection ended.
    ConnectionLost,
    /// It introduced itself.
    Introduced,

    /// Half of its time is over, or nobody knows how much is left.
    Renewal,
    /// Its place is doubtful: something through that relay has failed.
    Doubtful,
    /// A nearer relay is held.
    BetterRelay,
    /// No relay is needed.
    NoRelayNeeded,
    /// The relay keeps no place for us any more.
    RelayLost,
    /// Nobody has shown yet whether it leads here.
    Unproven,
    /// It is time to look again.
    ProbeAgain,
    /// This node seems to be behind a NAT.
    BehindNat,
    /// The router lets it lead here.
    Mapped,
    /// A direct connection is tried.
    PunchTry {
        /// Which try this is, from 1 on.
        attempt: u32,
    },
    /// The other side proposes it.
    Offered,
    /// A direct connection stands.
    AlreadyDirect,
    /// We know no address of ours that it could dial.
    NoCandidate,
    /// Another try with it is under way.
    Busy,

    /// It may know first peers.
    FirstPeers,
    /// A signal server has our record with this number, and takes only higher ones.
    Outnumbered {
        /// The number.
        seq: u64,
    },
    /// A signal server did not do what was asked.
    SignalFault(SignalError),
    /// The routing table is small.
    SmallTable {
        /// Its entries.
        entries: u32,
    },
    /// It is time for the routine.
    Routine,
    /// What others are told about us has changed.
    AddressesChanged,
    /// Pinned peers or members are missing.
    PeersMissing {
        /// How many.
        missing: u32,
    },
    /// It serves the hash table at an address that everyone can use.
    Server,
    /// It does not serve the hash table.
    NoServer,
    /// This node is reachable from the internet, or a server.
    Reachable,
    /// This node is not known to be reachable from the internet.
    NotReachable,
    /// A pinned peer is not directly connected: it may be one that can't reach this node's own addresses.
    PinnedMissing,
    /// One of our own interfaces has this address.
    OwnAddress,
    /// Several independent observers see us there.
    Observed {
        /// How many, in distinct networks.
        observers: u32,
    },
    /// A probe has shown that it leads here.
    Confirmed,
    /// Nobody sees us there any more.
    NotObserved,
    /// Our network has changed.
    NetworkChanged,
    /// The machine slept.
    Resumed,
    /// The port was taken.
    PortTaken,
    /// It took too long.
    TimedOut,
    /// Somebody at that address claims to be this node.
    SeenElsewhere,
    /// Data is being exchanged, or was.
    Sync,
    /// It has entries that are missing here.
    Missing {
        /// How many.
        entries: u64,
    },
    /// Entries are here that it has not.
    Grown,
    /// It was asked for entries, and may know that they are stored.
    CaughtUp,
    /// Its entry is said to be another one than ours with the same number.
    ForkClaimed,
    /// Logs were not exchanged with it.
    SyncFault(SyncError),
    /// The peer answered who it is.
    WrongPeer {
        /// Who is there.
        actual: PeerId,
    },
    /// It was the state of things.
    StateChanged,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Asked => f.write_str("you asked for it"),
            Self::Settings => f.write_str("the settings say so"),
            Self::Pinned => f.write_str("it is pinned and must not stay away"),
            Self::FoundBy(source) => write!(f, "it was found {source}"),
            Self::BootstrapPeer => f.write_str("it is a bootstrap peer"),
            Self::Isolated { since } => write!(f, "there was no connection at all for {} s", since.as_secs()),
            Self::Retry { attempt } => write!(f, "it is time for try {attempt}"),
            Self::Member => f.write_str("it belongs to the network"),
            Self::Circuit => f.write_str("a way through it is dialled"),
            Self::ProbeAsked => f.write_str("it has asked to have its address probed"),
            Self::LookUp => f.write_str("a look-up needs to ask it"),
            Self::Blocked => f.write_str("it is blocked"),
            Self::OwnIdentity => f.write_str("it is this node itself"),
            Self::OverBudget { connections, limit } => {
                write!(f, "the budget is used up ({connections} connections, {limit} allowed)")
            }
            Self::NetworkLimit => f.write_str("its network was dialled too often in the last minute"),
            Self::NoUsableAddress => f.write_str("none of its addresses can be dialled from here"),
            Self::NoAddress => f.write_str("nobody has said where it is"),
            Self::TransportBlocked => f.write_str("this network seems to block such connections"),
            Self::DialFailed { address: Some(address), error } => write!(f, "dialling {address} failed: {error}"),
            Self::DialFailed { address: None, error } => write!(f, "dialling failed: {error}"),
            Self::Duplicate { kept } => write!(f, "connection {kept} to the same peer is kept"),
            Self::DirectProven { kept } => write!(f, "the direct connection {kept} has proven itself"),
            Self::NeverIdentified => f.write_str("it never introduced itself"),
            Self::OtherNetwork => f.write_str("it belongs to another network"),
            Self::PingsLost => f.write_str("its pings were lost"),
            Self::NotNeeded => f.write_str("nothing here needs it any more"),
            Self::Flapping { closes } => write!(f, "it connected and dropped {closes} times in a row"),
            Self::TurnedAway => f.write_str("it misbehaved a while ago"),
            Self::BanOver => f.write_str("the time it was turned away for is over"),
            Self::TooManyAddresses { ignored } => write!(f, "too many addresses were told, {ignored} are ignored"),
            Self::NoSource => f.write_str("nobody speaks of it any more"),
            Self::TableFull => f.write_str("the peer table is full and it was the least useful"),
            Self::ConnectionMade => f.write_str("a connection was made"),
            Self::ConnectionLost => f.write_str("its connection ended"),
            Self::Introduced => f.write_str("it introduced itself"),
            Self::FirstPeers => f.write_str("it may know first peers"),
            Self::Outnumbered { seq } => write!(f, "it has our record number {seq} and takes only higher ones"),
            Self::SignalFault(error) => fmt::Display::fmt(error, f),
            Self::SmallTable { entries } => write!(f, "the routing table has only {entries} entries"),
            Self::Routine => f.write_str("it is time for it"),
            Self::AddressesChanged => f.write_str("our addresses have changed"),
            Self::PeersMissing { missing } => write!(f, "{missing} wanted peers are missing"),
            Self::Server => f.write_str("it serves the hash table at a public address"),
            Self::NoServer => f.write_str("it does not serve the hash table"),
            Self::Reachable => f.write_str("this node can be reached from the internet"),
            Self::NotReachable => f.write_str("this node is not known to be reachable from the internet"),
            Self::PinnedMissing => f.write_str(
                "a pinned peer is not directly connected, and may not get through to this node's own addresses",
            ),
            Self::OwnAddress => f.write_str("an interface of this machine has it"),
            Self::Observed { observers } => write!(f, "{observers} independent peers see this node there"),
            Self::Confirmed => f.write_str("a probe has shown that it leads here"),
            Self::NotObserved => f.write_str("nobody sees this node there any more"),
            Self::NetworkChanged => f.write_str("the network of this machine has changed"),
            Self::Resumed => f.write_str("the machine has slept"),
            Self::PortTaken => f.write_str("the port is taken"),
            Self::TimedOut => f.write_str("it took too long"),
            Self::SeenElsewhere => f.write_str("somebody there claims to be this node"),
            Self::Sync => f.write_str("of its data"),
            Self::Missing { entries: 1 } => f.write_str("it has an entry that is missing here"),
            Self::Missing { entries } => write!(f, "it has {entries} entries that are missing here"),
            Self::Grown => f.write_str("entries are here that it has not"),
            Self::CaughtUp => f.write_str("it may know that its entries are stored"),
            Self::ForkClaimed => f.write_str("its entry is said to be another one than ours"),
            Self::SyncFault(error) => fmt::Display::fmt(error, f),
            Self::WrongPeer { actual } => write!(f, "{actual} is at that address"),
            Self::RelayWanted { have, want } => write!(f, "{have} of {want} wanted relays are held"),
            Self::OnlyRelayed => f.write_str("only a relayed connection stands"),
            Self::CircuitWorn => f.write_str("what the relay allows the connection is nearly used up"),
            Self::Renewal => f.write_str("it is time to renew it"),
            Self::Doubtful => f.write_str("something through that relay has failed"),
            Self::BetterRelay => f.write_str("a nearer relay is held"),
            Self::NoRelayNeeded => f.write_str("this node needs no relay"),
            Self::RelayLost => f.write_str("the relay keeps no place for this node any more"),
            Self::Unproven => f.write_str("nobody has shown yet whether it leads here"),
            Self::ProbeAgain => f.write_str("it is time to look again whether it leads here"),
            Self::BehindNat => f.write_str("this node seems to be behind a NAT"),
            Self::Mapped => f.write_str("the router lets it lead here"),
            Self::PunchTry { attempt } => write!(f, "a direct connection is tried, for the {}", Ordinal(*attempt)),
            Self::Offered => f.write_str("the other side proposes it"),
            Self::AlreadyDirect => f.write_str("a direct connection stands"),
            Self::NoCandidate => f.write_str("no address is known at which others see this node"),
            Self::Busy => f.write_str("another try with it is under way"),
            Self::StateChanged => f.write_str("things have changed"),
        }
    }
}

struct Ordinal(u32);

impl fmt::Display for Ordinal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            1 => f.write_str("first time"),
            2 => f.write_str("second time"),
            3 => f.write_str("third time"),
            n => write!(f, "{n}th time"),
        }
    }
}
