use alloc::{string::String, vec::Vec};
use core::{fmt, time::Duration};

use super::{
    Address, Audience, CommandId, ConnectionId, HeldId, LogHead, LogId, Mapping, Notice, OfferId, PeerId, PunchRole,
    Reason, RequestId, SignalServices, StoredNat, StoredPeer, Transport,
};

/// Something the core wants done, or said.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Command {
    /// Its number; answers name it.
    pub id: CommandId,
    /// What is to be done.
    #[cfg_attr(feature = "serde", serde(rename = "do"))]
    pub action: Action,
    /// Why.
    #[cfg_attr(feature = "serde", serde(rename = "why"))]
    pub reason: Reason,
}

/// What can be commanded.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Action {
    /// Dial, all addresses as one dial with one winner. Answered by `Event::Connected` with this id, or
    /// `Event::DialFailed`.
    Dial {
        /// Who is expected. `None`: whoever answers.
        peer: Option<PeerId>,
        /// At least one.
        addresses: Vec<Address>,
    },
    /// Close one connection. Answered by `Event::Disconnected`.
    Close {
        /// Which.
        connection: ConnectionId,
        /// Whose.
        peer: PeerId,
    },
    /// Let a behaviour's dial go on. Answered by `Event::Connected` with the held id, or `Event::HeldFailed`.
    Release {
        /// Which.
        held: HeldId,
        /// Whom it reaches for.
        peer: Option<PeerId>,
    },
    /// Stop a behaviour's dial.
    Refuse {
        /// Which.
        held: HeldId,
        /// Whom it reached for.
        peer: Option<PeerId>,
    },
    /// Turn a peer away at the door, dialled or knocking, until `Admit`. Connections that stand are closed.
    Deny {
        /// Whom.
        peer: PeerId,
    },
    /// Undo `Deny`.
    Admit {
        /// Whom.
        peer: PeerId,
    },

    /// Listen. Answered by `Event::Listening`, once per interface address, or `Event::ListenFailed`.
    Listen {
        /// Where; port 0 takes any free one.
        address: Address,
    },
    /// Tell others that we can be reached here.
    Advertise {
        /// Where.
        address: Address,
    },
    /// No longer tell others so.
    Withdraw {
        /// Where.
        address: Address,
    },
    /// Tell connected peers of what has changed (identify push).
    PushIdentity,

    /// Have a peer try whether we can be reached somewhere (AutoNAT v2), over a connection that we have dialled.
    /// Answered by `Event::Probed`.
    Probe {
        /// Who tries.
        server: PeerId,
        /// Where.
        address: Address,
    },
    /// Drop a probe. A late answer is ignored.
    CancelProbe {
        /// Which.
        probe: CommandId,
    },

    /// Ask a relay to keep a place for us, or to renew it; a connection to it stands. Answered by `Event::Reserved` and
    /// `Event::ReservedAt`, or `Event::ReservationEnded`. After a renewal the new command names the reservation.
    Reserve {
        /// Which relay.
        relay: PeerId,
        /// Where the relay is.
        address: Address,
    },
    /// Give a place at a relay back. The core waits for an answer that is under way; one that comes after all is ignored.
    Unreserve {
        /// Which, by its latest `Reserve`.
        reservation: CommandId,
    },

    /// Propose, over a relayed connection, to try a direct one, and do our part of it. Answered by `Event::Connected`
    /// with this as its origin, or by `Event::PunchFailed`; before that, `Event::PunchAnswered`.
    Punch {
        /// The relayed connection.
        connection: ConnectionId,
        /// To whom.
        peer: PeerId,
        /// By which protocol.
        wire: PunchWire,
        /// By which transport.
        transport: Transport,
        /// Where we may be dialled: what the peer is told. At most 8.
        candidates: Vec<Address>,
        /// Whether addresses of home networks among the peer's answer may be dialled.
        near: bool,
    },
    /// Take up a peer's proposal. Answered as `Punch`, without `PunchAnswered`.
    AnswerPunch {
        /// Which.
        offer: OfferId,
        /// Whose.
        peer: PeerId,
        /// By which transport.
        transport: Transport,
        /// Our part.
        role: PunchRole,
        /// The NAT in front of us.
        mapping: Mapping,
        /// Where we may be dialled: what the peer is told. At most 8.
        candidates: Vec<Address>,
        /// Where the peer is dialled: what is worth it of the peer's candidates.
        targets: Vec<Address>,
    },
    /// Decline a peer's proposal.
    RefusePunch {
        /// Which.
        offer: OfferId,
        /// Whose.
        peer: PeerId,
    },
    /// Drop a try. What still comes of it is a connection like any other.
    CancelPunch {
        /// `Punch`'s or `AnswerPunch`'s command.
        punch: CommandId,
    },

    /// Ask the router at the border of the home network to let a port lead to ours, for as long as we run. Answered by
    /// `Event::Gateway`, and by `Event::PortMapped` whenever there is news.
    MapPort {
        /// Which of our ports.
        transport: Transport,
        /// Its number.
        port: u16,
    },
    /// No longer.
    UnmapPort {
        /// Which of our ports.
        transport: Transport,
    },

    /// For whom to relay, and for whom to probe addresses.
    SetServices {
        /// Relay.
        relay: Audience,
        /// Probe (AutoNAT, both versions).
        probes: Audience,
    },
    /// Count a peer among the members of our network, or no longer.
    SetMember {
        /// Whom.
        peer: PeerId,
        /// Count it.
        member: bool,
    },

    /// Serve the hash table, or only ask it.
    SetKademliaServer {
        /// Serve.
        server: bool,
    },
    /// Put a server peer into the routing table.
    Route {
        /// Whom.
        peer: PeerId,
        /// Where.
        addresses: Vec<Address>,
    },
    /// Take a peer out of the routing table.
    Unroute {
        /// Whom.
        peer: PeerId,
    },
    /// Ask the hash table. Answered by `Event::QueryFound` (any number) and one `Event::QueryEnded`.
    Query(Query),
    /// Drop a query. A late answer is ignored.
    CancelQuery {
        /// Which.
        query: CommandId,
    },

    /// Ask a signal server for peers. Answered by `Event::SignalFound` or `Event::SignalFailed`.
    SignalQuery {
        /// Which server, as in the settings.
        server: String,
        /// This one's record; `None`: any.
        peer: Option<PeerId>,
        /// How many at most.
        limit: u32,
    },
    /// Have a signal server keep our signed record. Answered by `Event::SignalPublished` or `Event::SignalFailed`.
    SignalPublish {
        /// Which server, as in the settings.
        server: String,
        /// What it says; 1 to 16.
        addresses: Vec<Address>,
        /// What we do for others.
        services: SignalServices,
        /// For how long.
        lifetime: Duration,
    },
    /// Drop a question to a signal server. A late answer is ignored.
    SignalCancel {
        /// Which, by its command.
        command: CommandId,
    },

    /// With whom logs are exchanged: whose requests of positions and entries are answered.
    SetSync {
        /// With whom.
        with: Audience,
    },
    /// Compare positions with a peer. Answered by `Event::SyncTold` with this command, the last one being marked so, or
    /// `Event::SyncFailed`.
    SyncExchange {
        /// With whom.
        peer: PeerId,
        /// Over which connection.
        connection: ConnectionId,
    },
    /// Tell a peer how far some logs go here. It answers how far they go there: `Event::SyncTold` with this command, or
    /// `Event::SyncFailed`.
    SyncAnnounce {
        /// Whom.
        peer: PeerId,
        /// Over which connection.
        connection: ConnectionId,
        /// 1 to 64 of our own heads.
        heads: Vec<LogHead>,
    },
    /// Ask a peer for the entries `since + 1` up to at most `since + limit` of a log, check them, and store them.
    /// Answered by `Event::SyncFetched` when they are stored for good, or `Event::SyncFailed`. Entries that are here
    /// already are only compared.
    SyncFetch {
        /// Whom.
        peer: PeerId,
        /// Over which connection.
        connection: ConnectionId,
        /// Which log.
        log: LogId,
        /// The last entry that is not needed.
        since: u64,
        /// How many at most.
        limit: u32,
    },
    /// Drop an exchange, an announcement or a range. A late answer is taken.
    SyncCancel {
        /// Which.
        sync: CommandId,
        /// Whose.
        peer: PeerId,
    },

    /// Remember a peer across restarts.
    Remember(StoredPeer),
    /// Remember what the NATs in front of this machine are like, in place of what was remembered.
    RememberNat(StoredNat),
    /// Forget a peer that was remembered.
    Forget {
        /// Whom.
        peer: PeerId,
    },

    /// Answer a request.
    Answer {
        /// Which.
        request: RequestId,
        /// How it went.
        answer: Result<Answer, AskError>,
    },
    /// Tell the application and the user.
    Tell(Notice),
}

/// By which protocol a direct connection is proposed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum PunchWire {
    /// Our own (`Protocols::punch`): either side may propose, the other one deals the roles. A round trip less.
    Kinfolk {
        /// The NAT in front of us: what the peer is told.
        mapping: Mapping,
    },
    /// The standard one (`/libp2p/dcutr`): the side that the circuit came to proposes.
    Dcutr {
        /// Our part.
        role: PunchRole,
    },
}

/// What the hash table is asked, or told.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Query {
    /// Who is near this peer's id.
    LookUp {
        /// The id, which nobody needs to have.
        near: PeerId,
    },
    /// Who is near a random place: the SHA-256 of this number (big endian).
    LookUpRandom {
        /// Any number.
        place: u64,
    },
    /// Who has announced to belong to the network.
    Members,
    /// Announce that we belong to the network.
    Join,
    /// Who relays for the network.
    Relays,
    /// Announce that we relay for the network.
    OfferRelay,
    /// The signed record of a peer.
    Record {
        /// Whose.
        peer: PeerId,
    },
    /// Publish our own signed record with these addresses.
    Publish {
        /// What it says.
        addresses: Vec<Address>,
    },
}

/// How a request went.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Answer {
    /// A connection to this peer stands.
    Connected {
        /// Who.
        peer: PeerId,
        /// The connection.
        connection: ConnectionId,
        /// Where.
        address: Address,
    },
    /// Done.
    Done,
    /// It was so already.
    NothingToDo,
}

/// Why a request was not granted.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum AskError {
    /// The peer is this node itself.
    OwnIdentity,
    /// The peer is blocked.
    Blocked,
    /// No such peer is known.
    UnknownPeer,
    /// Nobody knows where the peer is.
    NotFound,
    /// The address can't be dialled from here.
    UnusableAddress,
    /// Every address failed; the last errors in words.
    Failed(String),
    /// It took too long.
    TimedOut,
    /// A limit of this node is reached; which one.
    Limit(String),
    /// The request needs something that this node was not given.
    Incomplete(String),
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OwnIdentity => f.write_str("that is this node itself"),
            Self::Blocked => f.write_str("this peer is blocked; `kinfolk allow PEER` undoes that"),
            Self::UnknownPeer => f.write_str("no such peer is known here"),
            Self::NotFound => f.write_str("nobody that this node can ask knows where the peer is"),
            Self::UnusableAddress => f.write_str("such an address can't be dialled from here"),
            Self::Failed(text) => f.write_str(text),
            Self::TimedOut => f.write_str("it took too long"),
            Self::Limit(text) => write!(f, "a limit is reached: {text}"),
            Self::Incomplete(text) => f.write_str(text),
        }
    }
}

impl Command {
    /// The peer that the command is about, where it is about one.
    pub fn peer(&self) -> Option<&PeerId> {
        match &self.action {
            Action::Dial { peer, .. } | Action::Release { peer, .. } | Action::Refuse { peer, .. } => peer.as_ref(),
            Action::Close { peer, .. }
            | Action::Deny { peer }
            | Action::Admit { peer }
            | Action::Route { peer, .. }
            | Action::Unroute { peer }
            | Action::Probe { server: peer, .. }
            | Action::Reserve { relay: peer, .. }
            | Action::Punch { peer, .. }
            | Action::AnswerPunch { peer, .. }
            | Action::RefusePunch { peer, .. }
            | Action::SetMember { peer, .. }
            | Action::SyncExchange { peer, .. }
            | Action::SyncAnnounce { peer, .. }
            | Action::SyncFetch { peer, .. }
            | Action::SyncCancel { peer, .. }
            | Action::Forget { peer } => Some(peer),
            Action::Query(Query::Record { peer }) => Some(peer),
            Action::SignalQuery { peer, .. } => peer.as_ref(),
            Action::Remember(stored) => Some(&stored.peer),
            Action::Tell(notice) => notice.peer(),
            Action::Listen { .. }
            | Action::Advertise { .. }
            | Action::Withdraw { .. }
            | Action::PushIdentity
            | Action::CancelProbe { .. }
            | Action::Unreserve { .. }
            | Action::CancelPunch { .. }
            | Action::MapPort { .. }
            | Action::UnmapPort { .. }
            | Action::SetServices { .. }
            | Action::SetKademliaServer { .. }
            | Action::Query(_)
            | Action::CancelQuery { .. }
            | Action::SignalPublish { .. }
            | Action::SignalCancel { .. }
            | Action::SetSync { .. }
            | Action::RememberNat(_)
            | Action::Answer { .. } => None,
        }
    }
}

impl fmt::Display for Action {
    /// In words, for `kinfolk why` and `kinfolk-sim trace show`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dial { addresses, .. } => {
                f.write_str("dial ")?;
                list(f, addresses)
            }
            Self::Close { connection, .. } => write!(f, "close connection {connection}"),
            Self::Release { .. } => f.write_str("allow a part of this node to dial it"),
            Self::Refuse { .. } => f.write_str("refuse the dial of a part of this node"),
            Self::Deny { .. } => f.write_str("turn it away"),
            Self::Admit { .. } => f.write_str("let it in again"),
            Self::Listen { address } => write!(f, "listen on {address}"),
            Self::Advertise { address } => write!(f, "advertise {address}"),
            Self::Withdraw { address } => write!(f, "withdraw {address}"),
            Self::PushIdentity => f.write_str("tell peers of our changes"),
            Self::Probe { address, .. } => write!(f, "have it probe {address}"),
            Self::CancelProbe { probe } => write!(f, "drop probe {probe}"),
            Self::Reserve { .. } => f.write_str("ask it to relay for us"),
            Self::Unreserve { reservation } => write!(f, "give reservation {reservation} back"),
            Self::Punch { transport, wire, candidates, .. } => {
                let wire = if matches!(wire, PunchWire::Dcutr { .. }) { ", the standard way" } else { "" };
                write!(f, "propose a direct connection by {transport}{wire}, to us at ")?;
                list(f, candidates)
            }
            Self::AnswerPunch { transport, role, targets, .. } => {
                write!(f, "take up its proposal of a direct connection by {transport}, {role}: ")?;
                list(f, targets)
            }
            Self::RefusePunch { .. } => f.write_str("decline its proposal of a direct connection"),
            Self::CancelPunch { punch } => write!(f, "drop try {punch} of a direct connection"),
            Self::MapPort { transport, port } => write!(f, "ask the router for a way to {transport} port {port}"),
            Self::UnmapPort { transport } => write!(f, "give the way through the router to our {transport} port back"),
            Self::SetServices { relay, probes } => write!(f, "relay for {relay}, probe for {probes}"),
            Self::SetMember { member: true, .. } => f.write_str("count it among the members"),
            Self::SetMember { member: false, .. } => f.write_str("no longer count it among the members"),
            Self::SetKademliaServer { server: true } => f.write_str("serve the hash table"),
            Self::SetKademliaServer { server: false } => f.write_str("only ask the hash table"),
            Self::Route { .. } => f.write_str("put it into the routing table"),
            Self::Unroute { .. } => f.write_str("take it out of the routing table"),
            Self::Query(query) => fmt::Display::fmt(query, f),
            Self::CancelQuery { query } => write!(f, "drop query {query}"),
            Self::SignalQuery { server, peer: None, .. } => write!(f, "ask {server} for peers"),
            Self::SignalQuery { server, peer: Some(_), .. } => write!(f, "ask {server} for its record"),
            Self::SignalPublish { server, addresses, .. } => {
                write!(f, "publish our record at {server}: ")?;
                list(f, addresses)
            }
            Self::SignalCancel { command } => write!(f, "drop question {command} to a signal server"),
            Self::SetSync { with } => write!(f, "exchange logs with {with}"),
            Self::SyncExchange { .. } => f.write_str("compare positions with it"),
            Self::SyncAnnounce { heads, .. } => {
                f.write_str("tell it of our logs: ")?;
                list(f, heads)
            }
            Self::SyncFetch { log, since, limit, .. } => {
                write!(
                    f,
                    "ask it for entries {} to {}",
                    since.saturating_add(1),
                    since.saturating_add((*limit).into())
                )?;
                write!(f, " of {log}")
            }
            Self::SyncCancel { sync, .. } => write!(f, "drop {sync}"),
            Self::Remember(_) => f.write_str("remember it"),
            Self::RememberNat(_) => f.write_str("remember what the NATs in front of this machine are like"),
            Self::Forget { .. } => f.write_str("forget it"),
            Self::Answer { request, answer: Ok(_) } => write!(f, "grant request {request}"),
            Self::Answer { request, answer: Err(error) } => write!(f, "decline request {request}: {error}"),
            Self::Tell(notice) => fmt::Display::fmt(notice, f),
        }
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LookUp { near } => write!(f, "look up who is near {near}"),
            Self::LookUpRandom { .. } => f.write_str("look up who is near a random place"),
            Self::Members => f.write_str("ask who belongs to the network"),
            Self::Relays => f.write_str("ask who relays for the network"),
            Self::OfferRelay => f.write_str("announce that we relay for the network"),
            Self::Join => f.write_str("announce that we belong to the network"),
            Self::Record { .. } => f.write_str("look for its signed record"),
            Self::Publish { addresses } => {
                f.write_str("publish our record: ")?;
                list(f, addresses)
            }
        }
    }
}

fn list(f: &mut fmt::Formatter<'_>, items: &[impl fmt::Display]) -> fmt::Result {
    for (at, item) in items.iter().enumerate() {
        let comma = if at == 0 { "" } else { ", " };
        write!(f, "{comma}{item}")?;
    }
    Ok(())
}
