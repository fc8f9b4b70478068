use alloc::{string::String, vec::Vec};
use core::fmt;

use super::{Address, CommandId, ConnectionId, HeldId, Notice, PeerId, Reason, RequestId, StoredPeer};

/// Something the core wants done, or said.
#[derive(Clone, PartialEq, Eq, Debug)]
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
#[derive(Clone, PartialEq, Eq, Debug)]
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

    /// Remember a peer across restarts.
    Remember(StoredPeer),
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

/// What the hash table is asked, or told.
#[derive(Clone, PartialEq, Eq, Debug)]
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
#[derive(Clone, PartialEq, Eq, Debug)]
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
#[derive(Clone, PartialEq, Eq, Debug)]
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
            | Action::Forget { peer } => Some(peer),
            Action::Query(Query::Record { peer }) => Some(peer),
            Action::Remember(stored) => Some(&stored.peer),
            Action::Tell(notice) => notice.peer(),
            Action::Listen { .. }
            | Action::Advertise { .. }
            | Action::Withdraw { .. }
            | Action::PushIdentity
            | Action::SetKademliaServer { .. }
            | Action::Query(_)
            | Action::CancelQuery { .. }
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
            Self::Release { .. } => f.write_str("allow a look-up to dial it"),
            Self::Refuse { .. } => f.write_str("refuse a look-up's dial"),
            Self::Deny { .. } => f.write_str("turn it away"),
            Self::Admit { .. } => f.write_str("let it in again"),
            Self::Listen { address } => write!(f, "listen on {address}"),
            Self::Advertise { address } => write!(f, "advertise {address}"),
            Self::Withdraw { address } => write!(f, "withdraw {address}"),
            Self::PushIdentity => f.write_str("tell peers of our changes"),
            Self::SetKademliaServer { server: true } => f.write_str("serve the hash table"),
            Self::SetKademliaServer { server: false } => f.write_str("only ask the hash table"),
            Self::Route { .. } => f.write_str("put it into the routing table"),
            Self::Unroute { .. } => f.write_str("take it out of the routing table"),
            Self::Query(query) => fmt::Display::fmt(query, f),
            Self::CancelQuery { query } => write!(f, "drop query {query}"),
            Self::Remember(_) => f.write_str("remember it"),
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
            Self::Join => f.write_str("announce that we belong to the network"),
            Self::Record { .. } => f.write_str("look for its signed record"),
            Self::Publish { addresses } => {
                f.write_str("publish our record: ")?;
                list(f, addresses)
            }
        }
    }
}

fn list(f: &mut fmt::Formatter<'_>, addresses: &[Address]) -> fmt::Result {
    for (at, address) in addresses.iter().enumerate() {
        let comma = if at == 0 { "" } else { ", " };
        write!(f, "{comma}{address}")?;
    }
    Ok(())
}
