use alloc::{boxed::Box, string::String, vec::Vec};
use core::time::Duration;

use super::{Book, Known};
use crate::{
    lifecycle::{Class, State},
    view::Capabilities,
    vocabulary::{
        Address, CircuitLimit, CommandId, ConnectionId, Direction, LifecycleConfig, Path, PeerId, Scope, Time,
        Transport,
    },
};

/// All that is known of a peer. About 250 bytes, and about 90 for each address.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Peer {
    pub(crate) id: PeerId,
    /// Running number of its arrival: what jitter is keyed by.
    pub(crate) arrival: u64,
    pub(crate) state: State,
    pub(crate) since: Time,
    pub(crate) book: Book,
    pub(crate) connections: Vec<Connection>,
    /// Dials of the core under way.
    pub(crate) dials: Vec<Dialing>,
    pub(crate) profile: Option<Box<Profile>>,
    pub(crate) last_seen: Option<Time>,
    pub(crate) sync: Option<Box<Sync>>,
    /// Not dialled before, whatever its addresses say.
    pub(crate) hold_until: Time,
    /// No look-up dials it before: it has said that it does not serve the hash table.
    #[cfg_attr(feature = "serde", serde(default))]
    pub(crate) no_table_until: Time,
    /// Neither dialled nor believed until then: it misbehaved.
    pub(crate) shunned_until: Time,
    /// The shell turns it away.
    pub(crate) denied: bool,
    /// When something it said was last refused aloud; `Time::ZERO` for never.
    pub(crate) distrusted: Time,
    /// Connections that it dropped lately, and since when they are counted.
    pub(crate) drops: u16,
    pub(crate) drops_since: Time,
    /// How often in a row it has ended our connections.
    #[cfg_attr(feature = "serde", serde(default))]
    pub(crate) turned_away: u8,
    /// Its place in the queue of dials.
    pub(crate) queued: Option<(Class, Time)>,
    /// Its timers, kept by the table; `Time::MAX` for none.
    pub(crate) wake_soon: Time,
    pub(crate) wake_later: Time,
    /// Users' requests that wait for a connection.
    pub(crate) asks: u16,

    pub(crate) pinned: bool,
    /// Pinned by the settings: can't be forgotten at run time.
    pub(crate) pinned_by_settings: bool,
    /// A user named it by hand.
    pub(crate) manual: bool,
    pub(crate) blocked: bool,
    pub(crate) protected: bool,
    /// Said to belong to the network.
    pub(crate) member: bool,
    /// A bootstrap peer.
    pub(crate) bootstrap: bool,
    /// What it is to us as a relay.
    pub(crate) relay: RelayUse,
    /// The settings name it as a relay.
    pub(crate) relay_by_settings: bool,
    /// It relayed for us in an earlier run, or is said to relay for the network.
    pub(crate) relay_known: bool,
    /// It has a reservation here.
    pub(crate) served: bool,
    /// A try to get a direct connection is under way.
    pub(crate) punching: bool,
    /// A user wants no connection to it.
    pub(crate) held_off: bool,
    pub(crate) ever_connected: bool,
    /// Put into the routing table.
    pub(crate) routed: bool,
    /// Ranges of its logs that are under way.
    #[cfg_attr(feature = "serde", serde(default))]
    pub(crate) fetching: u32,
    /// It was said that it is not dialled for now, and why.
    pub(crate) deferred: bool,
    /// What the store remembers of it is out of date.
    pub(crate) unstored: bool,
    /// The number of the newest of its own records that was told.
    #[cfg_attr(feature = "serde", serde(default))]
    pub(crate) record: u64,
}

/// A dial of the core under way.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Dialing {
    pub(crate) id: CommandId,
    pub(crate) lane: Lane,
}

/// The two ways to a peer, each with a dial of its own: one dial has one winner.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub(crate) enum Lane {
    Direct,
    Relayed,
}

/// What a peer is to us as a relay.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub(crate) enum RelayUse {
    None,
    /// A connection to it is wanted, to ask it.
    Wanted,
    /// It keeps a place for us.
    Held,
}

/// What a peer said of itself.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Profile {
    pub(crate) agent: String,
    pub(crate) capabilities: Capabilities,
}

/// The application's data flow with a peer.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Sync {
    pub(crate) position: Option<u64>,
    pub(crate) pending: u32,
    /// Over when nothing is reported by then.
    pub(crate) until: Time,
}

/// A connection that stands.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Connection {
    pub(crate) id: ConnectionId,
    pub(crate) direction: Direction,
    pub(crate) address: Address,
    pub(crate) since: Time,
    /// The last sign of life.
    pub(crate) alive: Time,
    pub(crate) rtt: Option<Duration>,
    pub(crate) pongs: u16,
    /// Since when it is asked to be closed; it counts no more.
    pub(crate) closing: Option<Time>,
    /// It is there for a look-up only.
    pub(crate) for_lookup: bool,
    /// It is there to probe an address only, ours or theirs.
    pub(crate) for_probe: bool,
    /// What the relay allows it.
    pub(crate) limit: Option<Box<Limit>>,
}

/// A relayed connection's limit, and how much of it is used up.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Limit {
    pub(crate) limit: CircuitLimit,
    pub(crate) used: u64,
    /// So much is used that another one has to take its place.
    pub(crate) worn: bool,
}

impl Peer {
    /// So many tenths of a circuit's limit are used up when it is worn: the smaller id's side makes the next circuit, and
    /// the other one only if nothing has come of that.
    pub(crate) fn worn_from(&self, local: &PeerId) -> u32 {
        if *local < self.id { 8 } else { 9 }
    }

    pub(crate) fn new(id: PeerId, arrival: u64, now: Time) -> Self {
        Self {
            id,
            arrival,
            state: State::Discovered,
            since: now,
            book: Book::default(),
            connections: Vec::new(),
            dials: Vec::new(),
            profile: None,
            last_seen: None,
            sync: None,
            hold_until: Time::ZERO,
            no_table_until: Time::ZERO,
            shunned_until: Time::ZERO,
            denied: false,
            distrusted: Time::ZERO,
            drops: 0,
            drops_since: now,
            turned_away: 0,
            queued: None,
            wake_soon: Time::MAX,
            wake_later: Time::MAX,
            asks: 0,
            pinned: false,
            pinned_by_settings: false,
            manual: false,
            blocked: false,
            protected: false,
            member: false,
            bootstrap: false,
            relay: RelayUse::None,
            relay_by_settings: false,
            relay_known: false,
            served: false,
            punching: false,
            held_off: false,
            ever_connected: false,
            routed: false,
            fetching: 0,
            deferred: false,
            unstored: false,
            record: 0,
        }
    }

    /// Whether an address must not be forgotten, however old it is: the last way to somebody who is never given up, or
    /// the one that is in use.
    pub(crate) fn holds_on_to(&self, known: &Known) -> bool {
        (known.proven && (self.pinned || self.manual))
            || self.connections.iter().any(|one| one.address == known.address)
    }

    /// Somebody here wants it kept, whether it is there or not.
    pub(crate) fn is_kept(&self) -> bool {
        self.pinned
            || self.manual
            || self.blocked
            || self.protected
            || self.bootstrap
            || self.relay != RelayUse::None
            || self.relay_by_settings
            || self.asks > 0
    }

    /// Its connections are never trimmed.
    pub(crate) fn is_protected(&self) -> bool {
        self.pinned
            || self.protected
            || self.asks > 0
            || self.relay == RelayUse::Held
            || self.punching
            || self.is_syncing()
    }

    pub(crate) fn is_syncing(&self) -> bool {
        self.fetching > 0 || self.sync.as_ref().is_some_and(|sync| sync.pending > 0)
    }

    pub(crate) fn is_shunned(&self, now: Time) -> bool {
        self.shunned_until > now
    }

    pub(crate) fn capabilities(&self) -> Capabilities {
        self.profile.as_ref().map(|profile| profile.capabilities).unwrap_or_default()
    }

    /// Connections that are not about to be closed.
    pub(crate) fn standing(&self) -> impl Iterator<Item = &Connection> {
        self.connections.iter().filter(|connection| connection.closing.is_none())
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.standing().next().is_some()
    }

    /// Direct connections that are there for their own sake.
    pub(crate) fn direct(&self) -> impl Iterator<Item = &Connection> {
        self.standing().filter(|connection| !connection.address.is_relayed() && !connection.for_probe)
    }

    pub(crate) fn is_direct(&self) -> bool {
        self.direct().next().is_some()
    }

    pub(crate) fn is_dialing(&self, lane: Lane) -> bool {
        self.dials.iter().any(|dial| dial.lane == lane)
    }

    /// The connection that everything goes over: direct before relayed, QUIC before TCP, the older one.
    pub(crate) fn best(&self) -> Option<&Connection> {
        self.standing().min_by_key(|connection| connection.rank())
    }

    /// The best one of those that fit and are there for their own sake.
    pub(crate) fn best_for(&self, fits: impl Fn(&Connection) -> bool) -> Option<&Connection> {
        let fitting = self.standing().filter(|connection| !connection.for_probe && fits(connection));
        fitting.min_by_key(|connection| connection.rank())
    }

    pub(crate) fn path(&self) -> Option<Path> {
        self.best().map(Connection::path)
    }

    pub(crate) fn connection_mut(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.connections.iter_mut().find(|connection| connection.id == id)
    }

    /// The state that follows from what stands.
    pub(crate) fn derived_state(&self) -> State {
        if self.is_connected() {
            match &self.profile {
                Some(_) if self.is_syncing() => State::Syncing,
                Some(_) => State::Identified,
                None => State::Connected,
            }
        } else if !self.dials.is_empty() {
            State::Dialing
        } else if self.ever_connected {
            State::Disconnected
        } else {
            State::Discovered
        }
    }
}

impl Connection {
    pub(crate) fn path(&self) -> Path {
        let transport = self.address.transport();
        match &self.address {
            Address::Relayed(circuit) => Path::Relayed { relay: circuit.relay },
            Address::Ip { ip, .. } if !Scope::of(*ip).is_global() => Path::Local { transport },
            Address::Ip { .. } | Address::Name { .. } | Address::DnsAddr(_) | Address::Other(_) => {
                Path::Direct { transport }
            }
        }
    }

    /// When it has stood long enough to be relied on: punched TCP connections were seen to die after 10 s.
    pub(crate) fn proof_due(&self, config: &LifecycleConfig) -> Time {
        let quic = self.address.transport() == Some(Transport::Quic);
        self.since + if quic { config.proof_quic } else { config.proof_tcp }
    }

    pub(crate) fn is_proven(&self, now: Time, config: &LifecycleConfig) -> bool {
        self.pongs >= 2 && self.proof_due(config) <= now
    }

    pub(crate) fn is_worn(&self) -> bool {
        self.limit.as_ref().is_some_and(|limit| limit.worn)
    }

    /// When so much of its time is used up that another one has to take its place.
    pub(crate) fn wears_at(&self, tenths: u32) -> Option<Time> {
        let limit = self.limit.as_ref().filter(|limit| !limit.worn)?;
        Some(self.since + limit.limit.duration? * tenths / 10)
    }

    /// Smaller is better.
    fn rank(&self) -> (bool, bool, bool, bool, Time, ConnectionId) {
        let quic = self.address.transport() == Some(Transport::Quic);
        (self.address.is_relayed(), self.for_probe, self.is_worn(), !quic, self.since, self.id)
    }
}
