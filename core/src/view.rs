//! What there is to know about a node, for reading.

use alloc::vec::Vec;
use core::time::Duration;

use crate::vocabulary::{
    Address, Audience, CircuitLimit, ConnectionId, DialError, Direction, Health, Impasse, LogId, Mapping, NatFinding,
    Path, PeerId, PunchError, Reachability, ReserveError, SignalBacking, SignalError, Source, SyncError, Time,
    Transport,
};

/// A peer's place in its life. The state table stands at `lifecycle::State`.
pub use crate::lifecycle::State;

/// A peer, as it stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerView<'a> {
    /// Who.
    pub peer: PeerId,
    /// Where in its life.
    pub state: State,
    /// Since when.
    pub since: Time,
    /// Never given up.
    pub pinned: bool,
    /// Never spoken to.
    pub blocked: bool,
    /// The best connection's path.
    pub path: Option<Path>,
    /// Its program and version, once it has introduced itself.
    pub agent: Option<&'a str>,
    /// What it can do, once it has introduced itself.
    pub capabilities: Capabilities,
    /// When a connection to it last stood.
    pub last_seen: Option<Time>,
    /// How far its data has come.
    pub sync_position: Option<u64>,
    /// Requests that are open.
    pub pending_requests: u32,
    /// When it is dialled next, if it waits.
    pub next_dial: Option<Time>,
    /// What was done for a direct connection, while only a relayed one stands.
    pub punching: Option<PunchingView>,
    /// The exchange of logs with it, while there is any.
    pub sync: Option<PeerSyncView>,
    /// Whether it has a reservation at this node.
    pub served: bool,
    /// Its connections.
    pub connections: Vec<ConnectionView<'a>>,
    /// Its addresses.
    pub addresses: Vec<AddressView<'a>>,
}

/// A connection, as it stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConnectionView<'a> {
    /// Its number.
    pub connection: ConnectionId,
    /// How.
    pub path: Path,
    /// Which side began.
    pub direction: Direction,
    /// The other end.
    pub address: &'a Address,
    /// Since when.
    pub since: Time,
    /// The last ping's round trip.
    pub rtt: Option<Duration>,
    /// What the relay allows it, where it is relayed and limited.
    pub limit: Option<CircuitLimit>,
}

/// What was done for a direct connection to a peer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PunchingView {
    /// Whether a try is under way.
    pub trying: bool,
    /// Tries so far, since the network last changed.
    pub attempts: u32,
    /// How the last one failed.
    pub last_error: Option<PunchError>,
    /// The next try, if one waits.
    pub next: Option<Time>,
    /// Why none can be had, as far as is known.
    pub impasse: Option<Impasse>,
}

/// The exchange of logs, as it stands.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SyncView {
    /// Whether the store of logs has said what it holds. Until then there is no exchange.
    pub ready: bool,
    /// With whom logs are exchanged.
    pub with: Audience,
    /// Logs that are held here, or that connected peers have, by author and epoch.
    pub logs: Vec<LogView>,
    /// Connected peers with which logs are exchanged.
    pub partners: u32,
    /// Ranges under way.
    pub fetching: u32,
    /// No new ranges are asked for before, because the store can't follow.
    pub paused_until: Option<Time>,
    /// Heads that were not taken, because too many logs are known.
    pub ignored: u64,
}

/// A log, as it stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogView {
    /// Which.
    pub log: LogId,
    /// The last entry that is held here; 0 for none.
    pub position: u64,
    /// Entries that some connected peer says it has beyond that.
    pub missing: u64,
    /// Who is being asked for a range.
    pub fetching_from: Option<PeerId>,
    /// Where somebody has another entry than we have, signed by the author as well.
    pub forked_at: Option<u64>,
}

/// The exchange of logs with one peer, as it stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerSyncView {
    /// Entries that it says it has, of all logs.
    pub position: u64,
    /// Entries that it has and we have not.
    pub ours: u64,
    /// Entries that we have and it has not.
    pub theirs: u64,
    /// Exchanges and ranges under way.
    pub pending: u32,
    /// When positions were last compared.
    pub compared: Option<Time>,
    /// It is left alone until then, after something came to nothing.
    pub rests_until: Option<Time>,
    /// What last came to nothing, and how.
    pub last_error: Option<SyncError>,
    /// What it says of each log, by author and epoch.
    pub logs: Vec<PeerLogView>,
}

/// How far a peer says that a log goes there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerLogView {
    /// Which.
    pub log: LogId,
    /// The last entry's number.
    pub position: u64,
    /// It has another branch than we have.
    pub forked: bool,
}

/// A relay, as it stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RelayView {
    /// Which.
    pub relay: PeerId,
    /// Since when it keeps a place for us; `None`: it does not.
    pub held_since: Option<Time>,
    /// Its answer is awaited: whether it will keep one, or still does.
    pub asked: bool,
    /// The round trip to it.
    pub rtt: Option<Duration>,
    /// What it allows a circuit to us.
    pub limit: Option<CircuitLimit>,
    /// Why the last try failed, while it is not held.
    pub last_error: Option<ReserveError>,
    /// The next try, if one waits.
    pub retry_at: Option<Time>,
}

/// An own address that may be one on the internet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CandidateView<'a> {
    /// Where.
    pub address: &'a Address,
    /// Whether others are told.
    pub advertised: bool,
    /// Distinct networks whose peers see us there.
    pub observers: u32,
    /// Distinct networks from which it was probed with success.
    pub proofs: u32,
    /// 0 (nothing is known for it) to 3 (certain).
    pub confidence: u8,
    /// Whether the router maps it to this node.
    pub mapped: bool,
}

/// What is known of the NAT for one family and transport.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MappingView {
    /// IPv6, or IPv4.
    pub ipv6: bool,
    /// TCP or QUIC.
    pub transport: Transport,
    /// What it does with ports.
    pub mapping: Mapping,
}

/// What the home router was asked, and what it gave.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortMappingView<'a> {
    /// For which of our ports.
    pub transport: Transport,
    /// The router's address and port, if it gave one.
    pub external: Option<&'a Address>,
}

/// What the home router speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct GatewayView {
    /// UPnP.
    pub upnp: bool,
    /// NAT-PMP.
    pub nat_pmp: bool,
    /// PCP.
    pub pcp: bool,
}

/// What this node does for others.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ServiceView {
    /// Whom it relays for.
    pub relay: Audience,
    /// Whom it probes for.
    pub probes: Audience,
    /// Peers with a reservation here.
    pub reservations: u32,
    /// Circuits that are open here.
    pub circuits: u32,
}

/// An address of a peer, as it is known.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AddressView<'a> {
    /// Where.
    pub address: &'a Address,
    /// Who says so.
    pub sources: Vec<Source>,
    /// When a connection last was made there.
    pub last_success: Option<Time>,
    /// How the last dial failed.
    pub last_error: Option<&'a DialError>,
    /// Not dialled before.
    pub retry_at: Option<Time>,
}

/// What a peer can do, read from its list of protocols.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
pub struct Capabilities(u16);

impl Capabilities {
    /// Serves our network's hash table.
    pub const KADEMLIA: Self = Self(1);
    /// Relays for others (`/libp2p/circuit/relay/0.2.0/hop`).
    pub const RELAY: Self = Self(2);
    /// Takes relayed connections (`…/stop`).
    pub const RELAYED: Self = Self(4);
    /// Punches holes (`/libp2p/dcutr`).
    pub const PUNCH: Self = Self(8);
    /// Probes others' addresses (`/libp2p/autonat/2/dial-request`).
    pub const PROBE: Self = Self(16);
    /// The same in its first version (`/libp2p/autonat/1.0.0`).
    pub const PROBE_V1: Self = Self(32);
    /// Answers pings.
    pub const PING: Self = Self(64);
    /// Belongs to our network: tells our identify version.
    pub const NETWORK: Self = Self(128);
    /// Punches holes in Kinfolk's own way (`Protocols::punch`).
    pub const FAST_PUNCH: Self = Self(256);
    /// Exchanges logs (`Protocols::sync`).
    pub const SYNC: Self = Self(512);

    const NAMES: [(Self, &'static str); 10] = [
        (Self::KADEMLIA, "kademlia"),
        (Self::RELAY, "relay"),
        (Self::RELAYED, "relayed"),
        (Self::PUNCH, "punch"),
        (Self::PROBE, "probe"),
        (Self::PROBE_V1, "probe-v1"),
        (Self::PING, "ping"),
        (Self::NETWORK, "network"),
        (Self::FAST_PUNCH, "fast-punch"),
        (Self::SYNC, "sync"),
    ];

    /// Whether all of `other` are among these.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// These and `other`.
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those that are among `other`, too.
    pub const fn only(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Their names, for people.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.into_iter().filter(move |(one, _)| self.contains(*one)).map(|(_, name)| name)
    }
}

impl core::fmt::Debug for Capabilities {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

/// The node as a whole.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeView<'a> {
    /// Our own id.
    pub local: PeerId,
    /// How the node is doing.
    pub health: Health,
    /// Since when.
    pub health_since: Time,
    /// Whether others can reach us.
    pub reachability: Reachability,
    /// Where the node listens.
    pub listening: Vec<&'a Address>,
    /// What others are told.
    pub advertised: Vec<&'a Address>,
    /// Own addresses that may be on the internet: seen by others, mapped, or on an interface.
    pub candidates: Vec<CandidateView<'a>>,
    /// What the NAT does with ports, for each family and transport that is listened on.
    pub mappings: Vec<MappingView>,
    /// What kind of router stands in between, where it can be told.
    pub nat: Option<NatFinding>,
    /// What the home router speaks; `None`: not known, or not asked.
    pub gateway: Option<GatewayView>,
    /// Ports that the home router was asked for.
    pub port_mappings: Vec<PortMappingView<'a>>,
    /// Relays that are held, or wanted.
    pub relays: Vec<RelayView>,
    /// How many relays are wanted.
    pub relays_wanted: u32,
    /// What this node does for others.
    pub services: ServiceView,
    /// Whether the node serves the hash table.
    pub kademlia_server: bool,
    /// Entries of the routing table.
    pub routing_table: u32,
    /// Bootstrap peers.
    pub bootstrap: Vec<BootstrapView<'a>>,
    /// Signal servers.
    pub signal: Vec<SignalView<'a>>,
    /// Peers in the table.
    pub peers: u32,
    /// Peers with at least one connection.
    pub connected: u32,
    /// Dials under way.
    pub dialing: u32,
}

/// A signal server, as it stands. Never answered and no error: it was not asked, or is being asked for the first time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SignalView<'a> {
    /// Which, as in the settings.
    pub server: &'a str,
    /// Whether its answer is awaited.
    pub asking: bool,
    /// When it last answered.
    pub answered: Option<Time>,
    /// How many peers it told then, ourselves not counted.
    pub peers: u32,
    /// Questions in a row that came to nothing.
    pub failures: u32,
    /// Why the last one did.
    pub error: Option<&'a SignalError>,
    /// The next question, after a failure.
    pub retry_at: Option<Time>,
    /// Whether our record is on its way there.
    pub publishing: bool,
    /// Until when it keeps our record.
    pub published: Option<Time>,
    /// Why it did not take our record, the last time.
    pub publish_error: Option<&'a SignalError>,
    /// The next try to publish, after a failure.
    pub publish_retry_at: Option<Time>,
    /// What it keeps its records in, if it says so.
    pub backing: Option<SignalBacking>,
}

/// A bootstrap peer, as it stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BootstrapView<'a> {
    /// Where.
    pub address: &'a crate::vocabulary::PeerAddress,
    /// Who is there, once known.
    pub peer: Option<PeerId>,
    /// Whether a connection stands.
    pub connected: bool,
    /// Failed tries in a row.
    pub failures: u32,
    /// The next try, if it waits. Nobody waits while enough others are connected.
    pub retry_at: Option<Time>,
}
