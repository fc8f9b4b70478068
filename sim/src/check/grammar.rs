//! The event grammar: which events may answer which command, and what may happen to a connection.
//!
//! Taken from traces of real runs (`tests/traces/`, which a test holds against it) and from what the commands promise.
//! The simulated swarm is held against it, too: what the model emits is what the shell can emit.
//!
//! | command | is answered by |
//! |---|---|
//! | `Dial` | one of `Connected` (with it as origin), `DialFailed`, `Refused` |
//! | `Close` | `Disconnected` of that connection, or `Refused` |
//! | `Release` | one of `Connected` (with the held dial as origin), `HeldFailed`, `Refused` |
//! | `Refuse` | nothing, or `Refused` |
//! | `Listen` | any number of `Listening` and `ListenAddressGone`, at most one `ListenFailed`, which is the last |
//! | `Query` | any number of `QueryFound`, then one of `QueryEnded`, `Refused` |
//! | `SignalQuery` | one of `SignalFound`, `SignalFailed`, `Refused` |
//! | `SignalPublish` | one of `SignalPublished`, `SignalFailed`, `Refused` |
//! | `Probe` | one of `Probed`, `Refused` |
//! | `Reserve` | any number of `Reserved` and `ReservedAt`, then at most one `ReservationEnded`, which is the last |
//! | `Punch` | at most one `PunchAnswered`, then one of `Connected` (with it as origin), `PunchFailed`, `Refused`; after a `Connected` there may be more, from other candidates |
//! | `SyncExchange`, `SyncAnnounce` | any number of `SyncTold`, the last one marked so; or `SyncFailed`, `Refused` |
//! | `SyncFetch` | one of `SyncFetched`, `SyncFailed`, `Refused` |
//! | `AnswerPunch` | one of `Connected` (with it as origin), `PunchFailed`, `Refused`; after a `Connected` there may be more |
//!
//! A connection begins with `Connected`, under a number that is higher than all before, and ends with `Disconnected`;
//! `CircuitLimited`, `Identified`, `IdentifyFailed`, `Pinged`, `CircuitUsed` and `PunchOffered` lie in between, and
//! `CircuitLimited` only on relayed ones. What was cancelled may still be answered.

use std::{collections::BTreeMap, fmt};

use kinfolk_core::{Action, Command, CommandId, ConnectionId, Event, HeldId, OfferId, Origin};

/// What has been said so far.
#[derive(Clone, Debug, Default)]
pub struct Grammar {
    open: BTreeMap<CommandId, Expected>,
    connections: BTreeMap<ConnectionId, Connection>,
    last_connection: u64,
    held: BTreeMap<HeldId, bool>,
    offers: BTreeMap<OfferId, ()>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Expected {
    Dial,
    Query,
    SignalQuery,
    SignalPublish,
    Probe,
    Listen,
    Reserve,
    Punch {
        answered: bool,
    },
    AnswerPunch,
    /// One of its dials got through; others still may.
    Punched,
    Exchange,
    Fetch,
    /// Nothing more may come.
    Done,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Connection {
    relayed: bool,
    open: bool,
}

/// Something that no sentence of the grammar allows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wrong(pub String);

impl Grammar {
    /// An event comes.
    ///
    /// # Errors
    /// When it may not.
    pub fn event(&mut self, event: &Event) -> Result<(), Wrong> {
        match event {
            Event::Connected { connection, address, origin, .. } => {
                if connection.0 <= self.last_connection {
                    return wrong(format!("connection {connection} after {}", self.last_connection));
                }
                self.last_connection = connection.0;
                self.connections.insert(*connection, Connection { relayed: address.is_relayed(), open: true });
                self.began(*origin)
            }
            Event::Disconnected { connection, .. } => {
                self.on(*connection, "Disconnected")?.open = false;
                Ok(())
            }
            Event::CircuitLimited { connection, .. } | Event::CircuitUsed { connection, .. } => {
                let relayed = self.on(*connection, "a circuit's limit")?.relayed;
                if relayed { Ok(()) } else { wrong(format!("{connection} has a circuit's limit, and is direct")) }
            }
            Event::Identified { connection, .. } => self.on(*connection, "Identified").map(|_| ()),
            Event::IdentifyFailed { connection, .. } => self.on(*connection, "IdentifyFailed").map(|_| ()),
            Event::Pinged { connection, .. } => self.on(*connection, "Pinged").map(|_| ()),
            Event::PunchOffered { connection, offer, .. } => {
                self.offers.insert(*offer, ());
                self.on(*connection, "PunchOffered").map(|_| ())
            }
            Event::DialFailed { dial, .. } => self.end(*dial, &[Expected::Dial], "DialFailed"),
            Event::QueryFound { query, .. } => self.amid(*query, &[Expected::Query], "QueryFound"),
            Event::QueryEnded { query, .. } => self.end(*query, &[Expected::Query], "QueryEnded"),
            Event::SignalFound { query, .. } => self.end(*query, &[Expected::SignalQuery], "SignalFound"),
            Event::SignalPublished { publish, .. } => self.end(*publish, &[Expected::SignalPublish], "SignalPublished"),
            Event::SignalFailed { command, .. } => {
                self.end(*command, &[Expected::SignalQuery, Expected::SignalPublish], "SignalFailed")
            }
            Event::Probed { probe, .. } => self.end(*probe, &[Expected::Probe], "Probed"),
            Event::Listening { command, .. } => self.amid(*command, &[Expected::Listen], "Listening"),
            Event::ListenFailed { command, .. } => self.end(*command, &[Expected::Listen], "ListenFailed"),
            Event::Reserved { reservation, .. } | Event::ReservedAt { reservation, .. } => {
                self.amid(*reservation, &[Expected::Reserve], "Reserved")
            }
            Event::ReservationEnded { reservation, .. } => {
                self.end(*reservation, &[Expected::Reserve], "ReservationEnded")
            }
            Event::PunchAnswered { punch, .. } => {
                self.amid(*punch, &[Expected::Punch { answered: false }], "PunchAnswered")?;
                self.open.insert(*punch, Expected::Punch { answered: true });
                Ok(())
            }
            Event::PunchFailed { punch, .. } => self.end(*punch, &PUNCHES, "PunchFailed"),
            Event::SyncTold { sync: None, connection, .. } => self.on(*connection, "SyncTold").map(|_| ()),
            Event::SyncTold { sync: Some(sync), last: false, .. } => {
                self.amid(*sync, &[Expected::Exchange], "SyncTold")
            }
            Event::SyncTold { sync: Some(sync), last: true, .. } => self.end(*sync, &[Expected::Exchange], "SyncTold"),
            Event::SyncFetched { fetch, .. } => self.end(*fetch, &[Expected::Fetch], "SyncFetched"),
            Event::SyncFailed { sync, .. } => self.end(*sync, &[Expected::Exchange, Expected::Fetch], "SyncFailed"),
            Event::DialHeld { held, .. } => match self.held.insert(*held, false) {
                None => Ok(()),
                Some(_) => wrong(format!("{held} is held twice")),
            },
            // Also of one that was never released: the oldest makes room.
            Event::HeldFailed { held, .. } => match self.held.remove(held) {
                Some(_) => Ok(()),
                None => wrong(format!("{held} failed, and is not held")),
            },
            Event::Refused { command, .. } => {
                self.open.insert(*command, Expected::Done);
                Ok(())
            }
            Event::Started(_) => {
                *self = Self::default();
                Ok(())
            }
            Event::Wake
            | Event::Configured(_)
            | Event::StoreLoaded { .. }
            | Event::Asked { .. }
            | Event::Interfaces(_)
            | Event::WallClock { .. }
            | Event::Resumed { .. }
            | Event::ListenAddressGone { .. }
            | Event::Found { .. }
            | Event::Lost { .. }
            | Event::OwnIdentitySeen { .. }
            | Event::InboundFailed { .. }
            | Event::Candidate { .. }
            | Event::Confirmed { .. }
            | Event::Unconfirmed { .. }
            | Event::Serving { .. }
            | Event::Gateway { .. }
            | Event::PortMapped { .. }
            | Event::PortUnmapped { .. }
            | Event::SyncHeads { .. }
            | Event::SyncPressure { .. }
            | Event::Routed { .. } => Ok(()),
        }
    }

    /// A command is given.
    pub fn command(&mut self, command: &Command) {
        if let Action::Release { held, .. } = &command.action {
            if let Some(released) = self.held.get_mut(held) {
                *released = true;
            }
            return;
        }
        if let Action::Refuse { held, .. } = &command.action {
            self.held.remove(held);
            return;
        }
        let expected = if let Action::Dial { .. } = command.action {
            Expected::Dial
        } else if let Action::Query(_) = command.action {
            Expected::Query
        } else if let Action::SignalQuery { .. } = command.action {
            Expected::SignalQuery
        } else if let Action::SignalPublish { .. } = command.action {
            Expected::SignalPublish
        } else if let Action::Probe { .. } = command.action {
            Expected::Probe
        } else if let Action::Listen { .. } = command.action {
            Expected::Listen
        } else if let Action::Reserve { .. } = command.action {
            Expected::Reserve
        } else if let Action::Punch { .. } = command.action {
            Expected::Punch { answered: false }
        } else if let Action::SyncExchange { .. } | Action::SyncAnnounce { .. } = command.action {
            Expected::Exchange
        } else if let Action::SyncFetch { .. } = command.action {
            Expected::Fetch
        } else if let Action::AnswerPunch { .. } = command.action {
            Expected::AnswerPunch
        } else {
            return;
        };
        self.open.insert(command.id, expected);
    }

    fn began(&mut self, origin: Origin) -> Result<(), Wrong> {
        match origin {
            Origin::Inbound | Origin::Probe(_) => Ok(()),
            Origin::Dial(dial) => self.end(dial, &[Expected::Dial], "Connected"),
            Origin::Punch(punch) => {
                self.amid(punch, &[&PUNCHES[..], &[Expected::Punched]].concat(), "Connected")?;
                self.open.insert(punch, Expected::Punched);
                Ok(())
            }
            Origin::Held(held) => match self.held.remove(&held) {
                Some(true) => Ok(()),
                Some(false) => wrong(format!("{held} has led to a connection, and was not released")),
                None => wrong(format!("{held} has led to a connection, and is not held")),
            },
        }
    }

    fn on(&mut self, connection: ConnectionId, what: &str) -> Result<&mut Connection, Wrong> {
        match self.connections.get_mut(&connection) {
            Some(known) if known.open => Ok(known),
            Some(_) => wrong(format!("{what} on {connection}, which has ended")),
            None => wrong(format!("{what} on {connection}, which never began")),
        }
    }

    fn amid(&self, command: CommandId, expected: &[Expected], what: &str) -> Result<(), Wrong> {
        match self.open.get(&command) {
            Some(open) if expected.contains(open) => Ok(()),
            Some(Expected::Done) => wrong(format!("{what} for {command}, which was answered")),
            Some(open) => wrong(format!("{what} for {command}, which is a {open:?}")),
            // A trace may begin in the middle.
            None => Ok(()),
        }
    }

    fn end(&mut self, command: CommandId, expected: &[Expected], what: &str) -> Result<(), Wrong> {
        self.amid(command, expected, what)?;
        self.open.insert(command, Expected::Done);
        Ok(())
    }
}

const PUNCHES: [Expected; 3] =
    [Expected::Punch { answered: false }, Expected::Punch { answered: true }, Expected::AnswerPunch];

fn wrong<T>(what: String) -> Result<T, Wrong> {
    Err(Wrong(what))
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
