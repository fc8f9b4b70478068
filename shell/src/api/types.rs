//! The shapes of the local API, which are also those of the program's `--json` output.
//!
//! They are stable: fields may be added, none is renamed, removed or given another meaning within a major version.
//! Spans are ages or waits counted from the moment of the answer, in whole seconds (`…_s`); round trips are in
//! microseconds (`…_us`); points in time are the wall clock's seconds since 1970 (`…_unix`), as right as that clock.
//! Peer ids are base58 text, addresses are multiaddrs. A field that is not known is `null`, a list is never `null`.

use kinfolk_core::{
    Address, AskError, Audience, Direction, Health, Impasse, KademliaMode, Mapping, NatFinding, Notice, PeerAddress,
    PeerId, Reachability, Role, SignalBacking, Source, Transport,
    view::{GatewayView, State},
};
use serde::{Deserialize, Serialize};

/// Everything that is known at one moment.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Snapshot {
    /// The node.
    pub status: Status,
    /// All peers, ordered by id.
    pub peers: Vec<Peer>,
}

/// `GET /v1/status`: the node as a whole.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Status {
    /// Our own id.
    pub peer: PeerId,
    /// Program and version, as other peers see it: `kinfolk/0.1.0`.
    pub agent: String,
    /// `family`, `desktop` or `server`.
    pub role: Role,
    /// The network's name.
    pub network: String,
    /// The node's process.
    pub pid: u32,
    /// The data folder. `null`: a node without one.
    pub data_dir: Option<String>,
    /// How long the node has run, sleep included.
    pub uptime_s: u64,
    /// `starting`, `connected`, `partial`, `alone`, `isolated` or `offline`.
    pub health: Health,
    /// The same in words.
    pub health_text: String,
    /// How long it has been so.
    pub health_for_s: u64,
    /// `unknown`, `public` or `private`: whether others can begin connections from the internet.
    pub reachability: Reachability,
    /// The same in words.
    pub reachability_text: String,
    /// Where the node listens.
    pub listening: Vec<Address>,
    /// What others are told.
    pub advertised: Vec<Address>,
    /// Where others see us, without proof.
    pub candidates: Vec<Address>,
    /// Own addresses that may be on the internet, proven or not, and how sure that is.
    #[serde(default)]
    pub own_addresses: Vec<OwnAddress>,
    /// What the NAT does with ports, for each family and transport that is listened on.
    #[serde(default)]
    pub mappings: Vec<PortBehaviour>,
    /// What kind of router stands in between, where it can be told: `carrier_grade`, `router_behind_carrier_grade`,
    /// `double_nat` or `no_mapping_given`.
    pub nat: Option<NatFinding>,
    /// The same in words.
    pub nat_text: Option<String>,
    /// What the home router speaks. `null`: not known, or not asked.
    pub gateway: Option<GatewayView>,
    /// Ports that the home router was asked for.
    #[serde(default)]
    pub port_mappings: Vec<PortMapping>,
    /// Relays that are held, or wanted.
    #[serde(default)]
    pub relays: Vec<Relay>,
    /// How many relays are wanted.
    #[serde(default)]
    pub relays_wanted: u32,
    /// What this node does for others.
    #[serde(default)]
    pub services: Services,
    /// Whether to serve the hash table, as set: `auto`, `client` or `server`.
    pub kademlia: KademliaMode,
    /// Whether the node serves the hash table now.
    pub kademlia_server: bool,
    /// Entries of the routing table.
    pub routing_table: u32,
    /// Bootstrap peers.
    pub bootstrap: Vec<Bootstrap>,
    /// Signal servers.
    #[serde(default)]
    pub signal: Vec<SignalServer>,
    /// Peers that are known.
    pub peers: u32,
    /// Peers with at least one connection.
    pub connected: u32,
    /// Dials under way.
    pub dialing: u32,
    /// The recorder of traces.
    pub trace: TraceStatus,
    /// What the shell counts: events without a meaning for the core, refusals, losses; by name, for looking into
    /// trouble. The names are not stable.
    pub counters: std::collections::BTreeMap<String, u64>,
}

/// An own address that may be one on the internet.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OwnAddress {
    /// Where.
    pub address: Address,
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

/// What the NAT does with ports, for one family and transport.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PortBehaviour {
    /// `ipv4` or `ipv6`.
    pub family: Family,
    /// `tcp` or `quic`.
    pub transport: Transport,
    /// `unknown`, `none` (no NAT), `independent` (one port for all destinations) or `per_destination`.
    pub mapping: Mapping,
    /// The same in words.
    pub mapping_text: String,
}

/// A family of internet addresses.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

/// A port that the home router was asked for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PortMapping {
    /// For our port of this transport: `tcp` or `quic`.
    pub transport: Transport,
    /// The router's address and port. `null`: it gave none, or has not answered yet.
    pub external: Option<Address>,
}

/// A relay that is held, or wanted.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Relay {
    /// Which.
    pub relay: PeerId,
    /// How long it has kept a place for us. `null`: it does not.
    pub held_for_s: Option<u64>,
    /// The round trip to it.
    pub rtt_us: Option<u64>,
    /// What it allows a connection through it. `null`: not known.
    pub limit: Option<CircuitLimit>,
    /// Why the last try failed, in words, while it is not held.
    pub last_error: Option<String>,
    /// The next try, if one waits.
    pub retry_in_s: Option<u64>,
}

/// What a relay allows a relayed connection, counted from the connection's begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CircuitLimit {
    /// How long. `null`: for ever.
    pub duration_s: Option<u64>,
    /// How many bytes, both ways together. `null`: as many as there are.
    pub bytes: Option<u64>,
}

/// What a node does for others.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Services {
    /// Whom it relays for: `nobody`, `members` or `anyone`.
    pub relay: Audience,
    /// Whom it probes own addresses for.
    pub probes: Audience,
    /// Peers with a reservation here.
    pub reservations: u32,
    /// Circuits that are open here.
    pub circuits: u32,
}

/// A bootstrap peer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Bootstrap {
    /// As it was given, with `/p2p/…` if that was given.
    pub address: String,
    /// Who is there, once known.
    pub peer: Option<PeerId>,
    /// Whether a connection stands.
    pub connected: bool,
    /// Failed tries in a row.
    pub failures: u32,
    /// The next try, if it waits. Nobody waits while enough others are connected.
    pub retry_in_s: Option<u64>,
}

/// A signal server.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SignalServer {
    /// Its URL, as in the settings.
    pub server: String,
    /// How asking it went last.
    pub state: SignalState,
    /// When it last answered.
    pub answered_s_ago: Option<u64>,
    /// How many other peers it told then.
    pub peers: u32,
    /// Questions in a row that came to nothing.
    pub failures: u32,
    /// Why the last one did.
    pub error: Option<String>,
    /// The next question, after a failure.
    pub retry_in_s: Option<u64>,
    /// For how long it keeps our record from now on.
    pub published_for_s: Option<u64>,
    /// Why it did not take our record, the last time.
    pub publish_error: Option<String>,
    /// What it keeps its records in, if it says so. Several behind one name must all say `redis`.
    pub backing: Option<SignalBacking>,
}

/// How asking a signal server went last.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SignalState {
    /// It has not been asked, or its first answer is awaited.
    NotAsked,
    /// It has answered; with no peers, perhaps.
    Answered,
    /// It has not answered.
    Failed,
}

/// `GET /v1/id`: who this node is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Id {
    /// Our own id.
    pub peer: PeerId,
    /// Program and version.
    pub agent: String,
    /// Multiaddrs that others can be given, `/p2p/…` included; those that reach farthest come first. Loopback addresses
    /// only where there is nothing else.
    pub addresses: Vec<String>,
}

/// `GET /v1/peers`: all peers, ordered by id.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Peers {
    /// The peers.
    pub peers: Vec<Peer>,
}

/// `GET /v1/peers/{peer}`: one peer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Peer {
    /// Who.
    pub peer: PeerId,
    /// `discovered`, `dialing`, `connected`, `identified`, `syncing`, `disconnected` or `expired`.
    pub state: State,
    /// How long it has been so.
    pub state_for_s: u64,
    /// Never given up.
    pub pinned: bool,
    /// Never spoken to.
    pub blocked: bool,
    /// The best connection's way. `null`: not connected.
    pub path: Option<Path>,
    /// The best connection's last ping.
    pub rtt_us: Option<u64>,
    /// Its program and version, once it has introduced itself.
    pub agent: Option<String>,
    /// What it can do: `kademlia`, `relay`, `relayed`, `punch`, `fast-punch`, `probe`, `probe-v1`,
    /// `ping`, `network`.
    pub capabilities: Vec<String>,
    /// How long ago a connection last stood; 0 while one does.
    pub last_seen_s: Option<u64>,
    /// How far its data has come, in the application's own count.
    pub sync_position: Option<u64>,
    /// Requests that are open.
    pub pending_requests: u32,
    /// When it is dialled next, if it waits.
    pub next_dial_in_s: Option<u64>,
    /// What was done for a direct connection. `null`: one stands, or none was tried for.
    pub punching: Option<Punching>,
    /// Whether it has a reservation at this node: others reach it through us.
    #[serde(default)]
    pub served: bool,
    /// Its connections, the oldest first.
    pub connections: Vec<Connection>,
    /// Its addresses.
    pub addresses: Vec<KnownAddress>,
}

/// A connection.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Connection {
    /// Its number, as in traces and logs.
    pub connection: u64,
    /// How.
    pub path: Path,
    /// `outbound`: we dialled; `inbound`: the other side did.
    pub direction: Direction,
    /// The other end.
    pub address: Address,
    /// How long it has stood.
    pub age_s: u64,
    /// The last ping.
    pub rtt_us: Option<u64>,
    /// What the relay allows it. `null`: it is not relayed, or without limit.
    pub limit: Option<CircuitLimit>,
}

/// What was done for a direct connection to a peer that is reached through a relay.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Punching {
    /// Whether a try is under way.
    pub trying: bool,
    /// Tries so far, since the network last changed.
    pub attempts: u32,
    /// How the last one failed, in words.
    pub last_error: Option<String>,
    /// The next try, if one waits.
    pub next_in_s: Option<u64>,
    /// Why no direct connection can be had, as far as is known: `both_per_destination`, `ours_per_destination`,
    /// `theirs_per_destination`, `no_udp`, `tried_everything` or `not_spoken`.
    pub impasse: Option<Impasse>,
    /// The same in words.
    pub impasse_text: Option<String>,
}

/// How a peer is reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Path {
    /// The kind of way.
    pub kind: PathKind,
    /// `tcp` or `quic`. `null`: another one, or relayed.
    pub transport: Option<Transport>,
    /// The relay, when it is one.
    pub relay: Option<PeerId>,
}

/// The kinds of ways to a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PathKind {
    /// Straight, over the home network.
    Local,
    /// Straight, over the internet.
    Direct,
    /// Through a relay.
    Relayed,
}

/// An address of a peer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KnownAddress {
    /// Where.
    pub address: Address,
    /// Who says so: `mdns`, `kademlia`, `signal`, `manual`, `configured`, `identify`, `store`, `inbound`.
    pub sources: Vec<Source>,
    /// How long ago a connection was last made there.
    pub last_success_s: Option<u64>,
    /// How the last dial failed, in words.
    pub last_error: Option<String>,
    /// Not dialled before, if it waits.
    pub retry_in_s: Option<u64>,
}

/// `GET /v1/peers/{peer}/why`, and `GET /v1/why` for what is about no peer: reasons of the last decisions.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Why {
    /// Oldest first; at most 32 per peer.
    pub entries: Vec<WhyEntry>,
}

/// One decision.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WhyEntry {
    /// How long ago.
    pub ago_s: u64,
    /// When.
    pub at_unix: u64,
    /// When, in nanoseconds since the node started: the `t` of the trace.
    pub t: u64,
    /// The command's number, as in traces and logs.
    pub command: u64,
    /// What was done, in words.
    pub action: String,
    /// Why; completes "…, because ".
    pub because: String,
    /// How often in a row, when the same was decided again; `ago_s`, `at_unix`, `t` and `command` are the last time's.
    pub times: u32,
}

/// A line of `GET /v1/events` (NDJSON, without end): something that a user should know.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EventLine {
    /// When, milliseconds since 1970.
    pub at_unix_ms: u64,
    /// What: `peer_connected` and so on, the names of `kinfolk_core::Notice` in snake case; `lagged` when events were
    /// lost because this stream was not read fast enough; `ready` once at the beginning: what follows is complete.
    pub event: String,
    /// The peer it is about.
    pub peer: Option<PeerId>,
    /// In words.
    pub text: String,
    /// Why; completes "…, because ". Empty for `lagged` and `ready`.
    pub because: String,
    /// The fields of the notice; for `lagged` `{"lost": how many}`; for `ready` `{}`.
    pub detail: serde_json::Value,
}

/// The recorder of traces.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct TraceStatus {
    /// Whether it records.
    pub recording: bool,
    /// Segments on disk.
    pub segments: u32,
    /// Bytes on disk.
    pub bytes: u64,
    /// Inputs that could not be recorded since the start.
    pub lost: u64,
    /// Why it does not record, if something is wrong.
    pub error: Option<String>,
}

/// The answer to `POST /v1/trace/export`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Exported {
    /// The file that was written.
    pub file: String,
    /// Segments in it.
    pub segments: u32,
    /// Its size.
    pub bytes: u64,
}

/// Body of `POST /v1/connect`, `/v1/pin`, `/v1/bootstrap/add` and `/v1/bootstrap/remove`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddressBody {
    /// A multiaddr, with or without `/p2p/PEER`; where only a peer is meant, also its bare id.
    pub address: String,
}

/// Body of `POST /v1/disconnect`, `/v1/forget`, `/v1/block` and `/v1/allow`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerBody {
    /// A peer id.
    pub peer: String,
}

/// Body of `POST /v1/trace/export`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportBody {
    /// The file to write, as an absolute path; compressed when the name ends in `.zst`.
    pub file: String,
}

/// The answer to a request that was granted.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Outcome {
    /// A connection to this peer stands.
    Connected {
        /// Who.
        peer: PeerId,
        /// The connection's number.
        connection: u64,
        /// Where.
        address: Address,
    },
    /// Done.
    Done,
    /// It was so already.
    NothingToDo,
}

/// Every answer with a status of 400 and above (`application/problem+json`, RFC 9457).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Problem {
    /// A word for programs; see [`ProblemKind`].
    #[serde(rename = "type")]
    pub kind: ProblemKind,
    /// What kind of problem, for people.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What is wrong here, where, and what to do.
    pub detail: String,
}

/// Kinds of problems, each with its HTTP status.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemKind {
    /// 400: the request can't be read.
    BadRequest,
    /// 404: there is no such path.
    NoSuchEndpoint,
    /// 405: the path is right, the method is not.
    WrongMethod,
    /// 413: the body is larger than 64 KiB.
    TooLarge,
    /// 404: no such peer is known.
    UnknownPeer,
    /// 404: nobody knows where the peer is.
    NotFound,
    /// 409: the peer is this node itself.
    OwnIdentity,
    /// 409: the peer is blocked.
    Blocked,
    /// 422: such an address can't be dialled from here.
    UnusableAddress,
    /// 502: every address failed.
    Failed,
    /// 504: it took too long.
    TimedOut,
    /// 429: a limit of this node is reached.
    Limit,
    /// 422: the request needs something that this node was not given.
    Incomplete,
    /// 503: the node is shutting down.
    ShuttingDown,
    /// 500: something here failed, such as writing a file.
    Internal,
}

impl ProblemKind {
    /// The HTTP status.
    pub const fn status(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::NoSuchEndpoint | Self::UnknownPeer | Self::NotFound => 404,
            Self::WrongMethod => 405,
            Self::OwnIdentity | Self::Blocked => 409,
            Self::TooLarge => 413,
            Self::UnusableAddress | Self::Incomplete => 422,
            Self::Limit => 429,
            Self::Internal => 500,
            Self::Failed => 502,
            Self::ShuttingDown => 503,
            Self::TimedOut => 504,
        }
    }

    /// What kind of problem, for people.
    pub const fn title(self) -> &'static str {
        match self {
            Self::BadRequest => "the request can't be read",
            Self::NoSuchEndpoint => "no such path",
            Self::WrongMethod => "wrong method",
            Self::TooLarge => "the request is too large",
            Self::UnknownPeer => "unknown peer",
            Self::NotFound => "peer not found",
            Self::OwnIdentity => "own identity",
            Self::Blocked => "blocked peer",
            Self::UnusableAddress => "unusable address",
            Self::Failed => "no connection",
            Self::TimedOut => "timed out",
            Self::Limit => "limit reached",
            Self::Incomplete => "incomplete request",
            Self::ShuttingDown => "shutting down",
            Self::Internal => "internal problem",
        }
    }
}

impl Problem {
    /// A problem of this kind.
    pub fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        Self { kind, title: kind.title().into(), status: kind.status(), detail: detail.into() }
    }
}

impl From<&AskError> for Problem {
    fn from(error: &AskError) -> Self {
        let kind = match error {
            AskError::OwnIdentity => ProblemKind::OwnIdentity,
            AskError::Blocked => ProblemKind::Blocked,
            AskError::UnknownPeer => ProblemKind::UnknownPeer,
            AskError::NotFound => ProblemKind::NotFound,
            AskError::UnusableAddress => ProblemKind::UnusableAddress,
            AskError::Failed(_) => ProblemKind::Failed,
            AskError::TimedOut => ProblemKind::TimedOut,
            AskError::Limit(_) => ProblemKind::Limit,
            AskError::Incomplete(_) => ProblemKind::Incomplete,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<kinfolk_core::Answer> for Outcome {
    fn from(answer: kinfolk_core::Answer) -> Self {
        match answer {
            kinfolk_core::Answer::Connected { peer, connection, address } => {
                Self::Connected { peer, connection: connection.0, address }
            }
            kinfolk_core::Answer::Done => Self::Done,
            kinfolk_core::Answer::NothingToDo => Self::NothingToDo,
        }
    }
}

impl From<kinfolk_core::CircuitLimit> for CircuitLimit {
    fn from(limit: kinfolk_core::CircuitLimit) -> Self {
        Self { duration_s: limit.duration.map(|duration| duration.as_secs()), bytes: limit.bytes }
    }
}

impl std::fmt::Display for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Ipv4 => "IPv4",
            Self::Ipv6 => "IPv6",
        })
    }
}

impl From<kinfolk_core::Path> for Path {
    fn from(path: kinfolk_core::Path) -> Self {
        match path {
            kinfolk_core::Path::Local { transport } => Self { kind: PathKind::Local, transport, relay: None },
            kinfolk_core::Path::Direct { transport } => Self { kind: PathKind::Direct, transport, relay: None },
            kinfolk_core::Path::Relayed { relay } => {
                Self { kind: PathKind::Relayed, transport: None, relay: Some(relay) }
            }
        }
    }
}

impl std::fmt::Display for Path {
    /// In words: "over the home network by QUIC".
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let transport = self.transport;
        let path = match (self.kind, self.relay) {
            (PathKind::Local, _) => kinfolk_core::Path::Local { transport },
            (PathKind::Relayed, Some(relay)) => kinfolk_core::Path::Relayed { relay },
            (PathKind::Relayed, None) => return f.write_str("through a relay"),
            (PathKind::Direct, _) => kinfolk_core::Path::Direct { transport },
        };
        path.fmt(f)
    }
}

impl EventLine {
    /// The line for a notice.
    pub fn of(at_unix_ms: u64, notice: &Notice, because: String) -> Self {
        let (event, detail) = match serde_json::to_value(notice) {
            Ok(serde_json::Value::Object(map)) => map.into_iter().next().unwrap_or_default(),
            Ok(_) | Err(_) => <(String, serde_json::Value)>::default(),
        };
        Self { at_unix_ms, event, peer: notice.peer().copied(), text: notice.to_string(), because, detail }
    }

    /// The line that says that events were lost.
    pub fn lagged(at_unix_ms: u64, lost: u64) -> Self {
        Self {
            at_unix_ms,
            event: "lagged".into(),
            peer: None,
            text: format!("{lost} events were lost: this stream was not read fast enough"),
            because: String::new(),
            detail: serde_json::json!({ "lost": lost }),
        }
    }

    /// The first line of a stream.
    pub fn ready(at_unix_ms: u64) -> Self {
        Self {
            at_unix_ms,
            event: "ready".into(),
            peer: None,
            text: "listening for events".into(),
            because: String::new(),
            detail: serde_json::json!({}),
        }
    }

    /// The notice. `None` for `lagged`, `ready`, and what a newer node tells.
    pub fn notice(&self) -> Option<Notice> {
        let tagged = serde_json::json!({ self.event.as_str(): self.detail });
        serde_json::from_value(tagged).ok()
    }
}

/// Reads a multiaddr, or a bare peer id where only a peer is meant.
///
/// # Errors
/// Says what can't be read and what would be right.
pub fn parse_target(text: &str) -> Result<PeerAddress, kinfolk_core::AddressError> {
    let text = text.trim();
    match text.parse::<PeerId>() {
        Ok(peer) => Ok(PeerAddress { peer: Some(peer), address: None }),
        Err(_) => text.parse(),
    }
}
