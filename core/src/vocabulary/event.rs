use alloc::{boxed::Box, string::String, vec::Vec};
use core::{fmt, net::IpAddr, time::Duration};

use super::{
    Address, CommandId, ConnectionId, Head, HeldId, ListenerId, LogHead, LogId, Mapping, OfferId, PeerAddress, PeerId,
    ProbeVerdict, PunchError, Reachability, RequestId, ReserveError, SignalBacking, SignalError, SignalPeer, SyncError,
    Time, Told, Transport, ValidConfig,
};

/// Everything that a node can be told. Each variant is plain data, cut to size by the shell (at most 32 addresses and
/// 64 protocols; how much was cut is in the event), so the work for one event is bounded.
///
/// Any event may come at any time: late, twice, or about things long gone. That is ordinary input.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Event {
    /// Nothing but the time: what is due gets done.
    Wake,
    /// The first event of each run.
    Started(Box<Started>),
    /// New settings while running. Seed and identity stay.
    Configured(Box<ValidConfig>),
    /// A frame of what the peer store remembers.
    StoreLoaded {
        /// At most 32 peers.
        peers: Vec<StoredPeer>,
        /// What an earlier run found out about the NATs in front of this machine; in one frame only.
        #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
        nat: Option<StoredNat>,
        /// No more frames follow.
        last: bool,
    },
    /// A user or the application asks for something. Answered by `Action::Answer`, exactly once.
    Asked {
        /// Named by the answer.
        request: RequestId,
        /// What is asked.
        ask: Ask,
    },
    /// This machine's addresses and default routes, whole, whenever they change.
    Interfaces(Interfaces),
    /// What the wall clock says. It is believed only while synchronised.
    WallClock {
        /// Seconds since 1970.
        unix_time: u64,
        /// Whether the operating system vouches for it.
        synced: bool,
    },
    /// The machine slept: boot time and monotonic time have parted by this much.
    Resumed {
        /// How long it slept.
        asleep: Duration,
    },

    /// A listener has an address.
    Listening {
        /// Which listener.
        listener: ListenerId,
        /// The command that asked for it.
        command: CommandId,
        /// Where it listens; wildcards come as one event per interface address.
        address: Address,
    },
    /// A listener lost one of its addresses.
    ListenAddressGone {
        /// Which listener.
        listener: ListenerId,
        /// Where it no longer listens.
        address: Address,
    },
    /// A listener never came up, or is gone.
    ListenFailed {
        /// The command that asked for it.
        command: CommandId,
        /// Why.
        error: ListenError,
    },

    /// Somebody says where a peer is.
    Found {
        /// Who says so.
        source: Source,
        /// The peer.
        peer: PeerId,
        /// Where it is said to be.
        addresses: Vec<Address>,
        /// How many more addresses were cut off.
        cut: u32,
    },
    /// Somebody no longer says where a peer is.
    Lost {
        /// Who said so.
        source: Source,
        /// The peer.
        peer: PeerId,
        /// Where it was said to be.
        addresses: Vec<Address>,
    },
    /// Our own identity was seen at an address that is not ours: a copied data folder or SD card.
    OwnIdentitySeen {
        /// Where.
        address: Address,
    },

    /// A connection stands.
    Connected {
        /// Its number.
        connection: ConnectionId,
        /// Who is at the other end: proven by the handshake.
        peer: PeerId,
        /// Which side began.
        direction: Direction,
        /// The other end's address: as dialled, or where it came from.
        address: Address,
        /// What led to it.
        origin: Origin,
        /// How long it took from dial or accept: a hint of the round trip.
        took: Duration,
    },
    /// A connection has ended.
    Disconnected {
        /// Its number.
        connection: ConnectionId,
        /// Who was at the other end.
        peer: PeerId,
        /// Why.
        cause: CloseCause,
    },
    /// A dial of ours came to nothing.
    DialFailed {
        /// `Action::Dial`'s command.
        dial: CommandId,
        /// What happened at each address that was tried; empty when none was.
        failures: Vec<(Address, DialError)>,
        /// What ended the dial as a whole.
        error: DialError,
    },
    /// Someone knocked and no connection came of it.
    InboundFailed {
        /// Where from.
        address: Address,
        /// Who, where the handshake got that far.
        peer: Option<PeerId>,
        /// What happened.
        error: DialError,
        /// How many like this since the last report, this one included.
        count: u32,
    },
    /// A behaviour other than the core wants to dial; it is held until `Action::Release` or `Action::Refuse`.
    DialHeld {
        /// Named by the answer.
        held: HeldId,
        /// Whose wish it is.
        asker: Asker,
        /// Whom it wants to reach.
        peer: Option<PeerId>,
    },
    /// A held dial that was released came to nothing.
    HeldFailed {
        /// Which one.
        held: HeldId,
        /// What ended it.
        error: DialError,
    },

    /// A peer introduced itself, or told of a change.
    Identified {
        /// On which connection.
        connection: ConnectionId,
        /// Who.
        peer: PeerId,
        /// What it says of itself.
        identity: Box<Identity>,
    },
    /// A peer's introduction failed on this connection.
    IdentifyFailed {
        /// On which connection.
        connection: ConnectionId,
        /// Who.
        peer: PeerId,
        /// What went wrong, in the library's words.
        error: String,
    },
    /// A ping came back; or pings are lost: the shell reports that only when several in a row were.
    Pinged {
        /// On which connection.
        connection: ConnectionId,
        /// Who.
        peer: PeerId,
        /// The round trip.
        result: Result<Duration, PingError>,
    },

    /// A behaviour takes this for an address of ours, without proof.
    Candidate {
        /// Which behaviour.
        asker: Asker,
        /// The address.
        address: Address,
    },
    /// A behaviour takes this for a proven address of ours.
    Confirmed {
        /// Which behaviour.
        asker: Asker,
        /// The address.
        address: Address,
    },
    /// A behaviour no longer takes this for an address of ours.
    Unconfirmed {
        /// Which behaviour.
        asker: Asker,
        /// The address.
        address: Address,
    },

    /// A probe of one of our addresses has ended.
    Probed {
        /// `Action::Probe`'s command.
        probe: CommandId,
        /// What it has shown.
        verdict: ProbeVerdict,
    },

    /// A relay keeps a place for us, or has renewed it.
    Reserved {
        /// `Action::Reserve`'s command, the latest one to this relay.
        reservation: CommandId,
        /// What the relay allows each circuit to us; `None` for no limit.
        limit: Option<CircuitLimit>,
        /// How long the relay keeps it from now on, by its wall clock and ours; `None` if one of them is wrong.
        #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
        lasts: Option<Duration>,
    },
    /// Where the relay says that others reach us through it.
    ReservedAt {
        /// `Action::Reserve`'s command.
        reservation: CommandId,
        /// A circuit.
        address: Address,
    },
    /// The relay keeps no place for us, or no longer.
    ReservationEnded {
        /// `Action::Reserve`'s command.
        reservation: CommandId,
        /// Why.
        error: ReserveError,
    },
    /// A relayed connection has a limit. Comes right after `Connected`, or not at all.
    CircuitLimited {
        /// Which connection.
        connection: ConnectionId,
        /// The limit, counted from the connection's begin.
        limit: CircuitLimit,
    },
    /// Another tenth of a relayed connection's bytes is used up.
    CircuitUsed {
        /// Which connection.
        connection: ConnectionId,
        /// Bytes so far, both ways.
        bytes: u64,
    },
    /// What we relay for a peer has changed.
    Serving {
        /// For whom.
        peer: PeerId,
        /// Whether it has a reservation here.
        reserved: bool,
        /// Circuits from or to it that are open here.
        circuits: u32,
    },

    /// A peer with which a relayed connection stands proposes to try a direct one. Waits for `Action::AnswerPunch` or
    /// `Action::RefusePunch`.
    PunchOffered {
        /// Named by the answer.
        offer: OfferId,
        /// The relayed connection.
        connection: ConnectionId,
        /// Who proposes.
        peer: PeerId,
        /// The NAT in front of it, by its own word. `None`: by the standard protocol, which does not say.
        mapping: Option<Mapping>,
        /// Where it can be dialled: at most 8, as it says. Not to be believed, only to be tried.
        candidates: Vec<Address>,
    },
    /// A peer has taken up our proposal.
    PunchAnswered {
        /// `Action::Punch`'s command.
        punch: CommandId,
        /// The NAT in front of it, by its own word. `None`: by the standard protocol, which does not say.
        mapping: Option<Mapping>,
        /// Where it can be dialled: at most 8, as it says.
        candidates: Vec<Address>,
    },
    /// A try came to nothing. What came of a good one is `Connected`, with the try as its origin.
    PunchFailed {
        /// `Action::Punch`'s or `Action::AnswerPunch`'s command.
        punch: CommandId,
        /// Why.
        error: PunchError,
    },

    /// What the router at the border of the home network offers, after `Action::MapPort`.
    Gateway {
        /// UPnP.
        upnp: bool,
        /// NAT-PMP.
        nat_pmp: bool,
        /// PCP.
        pcp: bool,
    },
    /// The router lets a port of its own lead to ours.
    PortMapped {
        /// To which of our ports.
        transport: Transport,
        /// The router's address and port, as it says.
        external: Address,
    },
    /// The router no longer does, or never did.
    PortUnmapped {
        /// To which of our ports.
        transport: Transport,
    },

    /// The Kademlia routing table changed.
    Routed {
        /// Whose entry.
        peer: PeerId,
        /// Whether it is in the table now.
        present: bool,
    },
    /// A query has found something.
    QueryFound {
        /// `Action::Query`'s command.
        query: CommandId,
        /// Peers, with the addresses that were told; for `Query::Record` these are verified against the peer's
        /// signature.
        peers: Vec<(PeerId, Vec<Address>)>,
        /// How many more peers and addresses were cut off.
        cut: u32,
        /// For `Query::Record`: the record's number; later ones have higher numbers.
        #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
        record: Option<u64>,
    },
    /// A query is over.
    QueryEnded {
        /// `Action::Query`'s command.
        query: CommandId,
        /// Peers that answered. Kademlia calls a query with none a success; it is none.
        successes: u32,
        /// Peers that did not.
        failures: u32,
    },

    /// A signal server has answered for peers. None is an answer, too.
    SignalFound {
        /// `Action::SignalQuery`'s command.
        query: CommandId,
        /// At most 32.
        peers: Vec<SignalPeer>,
        /// How many more peers and addresses were cut off, or not believed.
        cut: u32,
        /// What it keeps its records in, if it says so.
        backing: Option<SignalBacking>,
    },
    /// A signal server has taken our record.
    SignalPublished {
        /// `Action::SignalPublish`'s command.
        publish: CommandId,
        /// For how long it keeps it from now on.
        expires_in: Duration,
        /// What it keeps its records in, if it says so.
        backing: Option<SignalBacking>,
    },
    /// A signal server did not do what was asked.
    SignalFailed {
        /// The command.
        command: CommandId,
        /// Why.
        error: SignalError,
    },

    /// How far the logs of this node's store go: all of them at the start, in frames, and each one whenever it has got
    /// entries by itself. Until the first `last`, logs are not exchanged.
    SyncHeads {
        /// At most 64.
        heads: Vec<LogHead>,
        /// No more frames follow.
        last: bool,
    },
    /// A peer says how far logs go there.
    SyncTold {
        /// Who.
        peer: PeerId,
        /// Over which connection.
        connection: ConnectionId,
        /// `Action::SyncExchange`'s or `Action::SyncAnnounce`'s command. `None`: it says so by itself.
        sync: Option<CommandId>,
        /// What it says.
        told: Told,
        /// No more of this answer follows.
        last: bool,
    },
    /// A range of entries is checked and stored for good.
    SyncFetched {
        /// `Action::SyncFetch`'s command.
        fetch: CommandId,
        /// Which log.
        log: LogId,
        /// How far the log goes here now.
        head: Head,
        /// How many entries were not here before.
        entries: u32,
        /// Whether the peer says that it has more.
        has_more: bool,
    },
    /// An exchange, an announcement or a range came to nothing. What was stored of a range before it broke is told by
    /// `SyncHeads`.
    SyncFailed {
        /// The command.
        sync: CommandId,
        /// Why.
        error: SyncError,
    },
    /// Whether this node's store of logs can't follow: no new ranges are asked for while it can't.
    SyncPressure {
        /// It can't.
        busy: bool,
    },

    /// The shell could not do what it was told.
    Refused {
        /// Which command.
        command: CommandId,
        /// Why.
        refusal: Refusal,
    },
}

/// What a node knows when it starts.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Started {
    /// The settings.
    pub config: ValidConfig,
    /// Our own id.
    pub local: PeerId,
    /// Feeds all jitter. Anything will do, as long as it differs from node to node and run to run.
    pub seed: u64,
    /// What the wall clock says, seconds since 1970.
    pub unix_time: u64,
    /// Addresses and routes at the start.
    pub interfaces: Interfaces,
}

/// This machine's place in the networks.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Interfaces {
    /// Own addresses, each with the size of its network.
    pub addresses: Vec<Prefix>,
    /// Whether IPv4 packets to the internet have a way out.
    pub default_v4: bool,
    /// Whether IPv6 packets to the internet have a way out.
    pub default_v6: bool,
}

/// An own address and the size of the network it lies in: `192.168.1.7/24`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Prefix {
    /// The own address.
    pub ip: IpAddr,
    /// Bits that name the network: 0 to 32, or to 128.
    pub len: u8,
}

impl Prefix {
    /// Whether `other` lies in the same network.
    pub fn contains(&self, other: IpAddr) -> bool {
        match (self.ip, other) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                let shift = 32 - u32::from(self.len.min(32));
                u32::from(a).checked_shr(shift).unwrap_or(0) == u32::from(b).checked_shr(shift).unwrap_or(0)
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                let shift = 128 - u32::from(self.len.min(128));
                u128::from(a).checked_shr(shift).unwrap_or(0) == u128::from(b).checked_shr(shift).unwrap_or(0)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

/// A peer as the store remembers it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct StoredPeer {
    /// Who.
    pub peer: PeerId,
    /// Never given up.
    pub pinned: bool,
    /// Never spoken to.
    pub blocked: bool,
    /// It has relayed for us.
    #[cfg_attr(feature = "serde", serde(default))]
    pub relay: bool,
    /// The number of the newest of its signed records that was seen; 0 for none.
    #[cfg_attr(feature = "serde", serde(default))]
    pub record: u64,
    /// Where it was, and who said so.
    pub addresses: Vec<StoredAddress>,
}

/// An address as the store remembers it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct StoredAddress {
    /// Where.
    pub address: Address,
    /// Who said so. `Source::Manual` addresses are kept until they are forgotten; the others are only what was known once.
    pub source: Source,
    /// A connection once stood there.
    pub proven: bool,
    /// When one was last made there, in seconds since 1970 as the wall clock had it; 0 for never, or not known. The latest
    /// are used first.
    #[cfg_attr(feature = "serde", serde(default))]
    pub last_success: u32,
}

/// What was found out about the NATs in front of this machine, as the store remembers it: worth a guess in the next run,
/// on the same networks, until something better is known.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct StoredNat {
    /// Own addresses at that time, at most 32: they say which networks those were.
    pub addresses: Vec<Prefix>,
    /// Whether others could reach this node.
    pub reachability: Reachability,
    /// What the NATs did with ports, where it was known.
    pub mappings: Vec<StoredMapping>,
}

/// What a NAT did with the ports of one family and transport.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct StoredMapping {
    /// IPv6, or else IPv4.
    pub ipv6: bool,
    /// By which transport.
    pub transport: Transport,
    /// What it did.
    pub mapping: Mapping,
}

/// Who says where a peer is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Source {
    /// Multicast on the home network.
    Mdns,
    /// The distributed hash table.
    Kademlia,
    /// A signal server.
    Signal,
    /// A user.
    Manual,
    /// The settings: bootstrap and pinned peers.
    Configured,
    /// The peer itself, by identify.
    Identify,
    /// What was known in an earlier run.
    Store,
    /// It came to us from there.
    Inbound,
}

/// Which side began a connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Direction {
    /// We dialled.
    Outbound,
    /// The other side dialled.
    Inbound,
}

/// What led to a connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Origin {
    /// The other side.
    Inbound,
    /// A dial of the core.
    Dial(CommandId),
    /// A dial of some behaviour that the core released.
    Held(HeldId),
    /// A try to get a direct connection, of either side: `Action::Punch` or `Action::AnswerPunch`.
    Punch(CommandId),
    /// A peer that we have asked to probe an address comes to it: `Action::Probe`.
    Probe(CommandId),
}

/// What a relay allows a relayed connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct CircuitLimit {
    /// How long; `None` for ever.
    pub duration: Option<Duration>,
    /// How many bytes, `None` for as many as there are. The protocol says each way; relays made with rust-libp2p count
    /// both together, so both are counted.
    pub bytes: Option<u64>,
}

/// Which behaviour acts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Asker {
    /// Kademlia.
    Kademlia,
    /// Identify: addresses as others observe them.
    Identify,
    /// The relay client.
    Relay,
    /// An AutoNAT server.
    Autonat,
    /// The application's own behaviour.
    Application,
}

/// Why a connection ended.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum CloseCause {
    /// We closed it.
    Ours,
    /// The other side closed it.
    Remote,
    /// Nothing used it any more.
    Idle,
    /// It broke; the library's words.
    Broken(String),
}

/// Why a dial, or a knock from outside, came to nothing.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum DialError {
    /// Somebody is there and said no: the port is closed.
    ConnectionRefused,
    /// Nobody answered.
    TimedOut,
    /// No way there.
    Unreachable,
    /// The name means nothing.
    NameNotFound,
    /// Somebody else is there.
    WrongPeer(PeerId),
    /// It is ourselves.
    OwnIdentity,
    /// Both sides spoke, and did not agree.
    Handshake,
    /// No transport for such an address.
    Unsupported,
    /// No address left to try.
    NoAddresses,
    /// A limit of this node.
    Limit,
    /// The gate or the guard stopped it.
    Denied,
    /// Given up on our side.
    Cancelled,
    /// Anything else; the library's words, at most 200 characters.
    Other(String),
}

/// Why a ping did not come back.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum PingError {
    /// No answer in time.
    TimedOut,
    /// The other side does not speak ping.
    Unsupported,
    /// Anything else; the library's words, at most 200 characters.
    Other(String),
}

/// Why there is no listener.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum ListenError {
    /// Another program has the port.
    PortTaken,
    /// This machine has no such address or family.
    NoSuchAddress,
    /// Not allowed to.
    Forbidden,
    /// No transport for such an address.
    Unsupported,
    /// It was there and is gone.
    Closed,
    /// Anything else; the library's words, at most 200 characters.
    Other(String),
}

/// Why the shell did not do what it was told.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Refusal {
    /// What the command names is gone.
    Gone,
    /// This node was built without that.
    NotBuiltIn,
    /// Kademlia knows nobody to ask.
    NobodyToAsk,
    /// A local store is full.
    StoreFull,
    /// Anything else; the library's words, at most 200 characters.
    Other(String),
}

/// What a peer says of itself.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Identity {
    /// `/elohim/id/1.0.0`.
    pub protocol_version: String,
    /// `kinfolk/0.1.0`.
    pub agent: String,
    /// At most 64.
    pub protocols: Vec<String>,
    /// Where it says it can be reached; at most 32.
    pub addresses: Vec<Address>,
    /// Where it sees us coming from.
    pub observed: Option<Address>,
    /// How many more protocols and addresses were cut off.
    pub cut: u32,
}

/// What a user or the application may ask for.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Ask {
    /// Connect there. Without an address the peer is looked for; without a peer, whoever answers is taken. Remembered
    /// as a manual peer when the peer's id is known or becomes known.
    Connect(PeerAddress),
    /// End all connections to a peer, and don't begin new ones until somebody asks.
    Disconnect(PeerId),
    /// Never give this peer up; it is a member.
    Pin(PeerAddress),
    /// Undo `Pin` and `Connect`: forget what was said by hand about this peer.
    Forget(PeerId),
    /// Never speak to this peer.
    Block(PeerId),
    /// Undo `Block`.
    Allow(PeerId),
    /// A bootstrap peer more.
    AddBootstrap(PeerAddress),
    /// A bootstrap peer less.
    RemoveBootstrap(PeerAddress),
    /// Don't trim this peer's connections, until `Unprotect`.
    Protect(PeerId),
    /// Undo `Protect`.
    Unprotect(PeerId),
    /// The application's data flow with a peer.
    Sync {
        /// With whom.
        peer: PeerId,
        /// How far that peer's data has come, in the application's own count. `None`: as before.
        position: Option<u64>,
        /// Requests that are open. More than none: the peer is `Syncing`, and its connections are kept.
        pending: u32,
    },
}

impl Source {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Mdns,
        Self::Kademlia,
        Self::Signal,
        Self::Manual,
        Self::Configured,
        Self::Identify,
        Self::Store,
        Self::Inbound,
    ];
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mdns => "on the home network",
            Self::Kademlia => "in the distributed hash table",
            Self::Signal => "by a signal server",
            Self::Manual => "by hand",
            Self::Configured => "in the settings",
            Self::Identify => "by its own word",
            Self::Store => "from an earlier run",
            Self::Inbound => "when it came to us",
        })
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
        })
    }
}

impl fmt::Display for CloseCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ours => f.write_str("closed by this node"),
            Self::Remote => f.write_str("closed by the other side"),
            Self::Idle => f.write_str("nothing used it any more"),
            Self::Broken(text) => write!(f, "it broke ({text})"),
        }
    }
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ConnectionRefused => f.write_str("connection refused: nothing listens there"),
            Self::TimedOut => f.write_str("no answer in time"),
            Self::Unreachable => f.write_str("no route there"),
            Self::NameNotFound => f.write_str("the name is not known"),
            Self::WrongPeer(peer) => write!(f, "another peer answered: {peer}"),
            Self::OwnIdentity => f.write_str("it is this node itself, or a copy of its identity"),
            Self::Handshake => f.write_str("the handshake failed"),
            Self::Unsupported => f.write_str("no transport for this kind of address"),
            Self::NoAddresses => f.write_str("no address to try"),
            Self::Limit => f.write_str("a limit of this node"),
            Self::Denied => f.write_str("not allowed by this node"),
            Self::Cancelled => f.write_str("given up"),
            Self::Other(text) => f.write_str(text),
        }
    }
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PortTaken => f.write_str("another program has the port"),
            Self::NoSuchAddress => f.write_str("this machine has no such address"),
            Self::Forbidden => f.write_str("not permitted (ports below 1024 need extra rights)"),
            Self::Unsupported => f.write_str("no transport for this kind of address"),
            Self::Closed => f.write_str("the listener has closed"),
            Self::Other(text) => f.write_str(text),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => f.write_str("it is gone"),
            Self::NotBuiltIn => f.write_str("this node was built without that"),
            Self::NobodyToAsk => f.write_str("nobody to ask is known"),
            Self::StoreFull => f.write_str("the store is full"),
            Self::Other(text) => f.write_str(text),
        }
    }
}

impl Event {
    /// Whether the event is the empty one.
    pub const fn is_wake(&self) -> bool {
        matches!(self, Self::Wake)
    }
}

const _: () = assert!(size_of::<Event>() <= 168, "events are moved around; keep them small");
const _: () = assert!(size_of::<Time>() == 8);
