//! The event grammar: which events may answer which command, and what may happen to a connection.
//!
//! Taken from traces of real runs and from what the commands promise. `kinfolk-sim replay` holds every trace against it,
//! so the shell's whole-system tests do, whose traces are replayed; and a test holds the simulated swarm against it: what
//! the model emits is what the shell can emit.
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

use kinfolk_core::{Action, Command, CommandId, ConnectionId, Event, HeldId, Origin};

/// What has been said so far.
#[derive(Clone, Debug)]
pub struct Grammar {
    /// What is not answered yet.
    open: BTreeMap<CommandId, Expected>,
    commands: Numbers,
    /// The open ones, and whether each is relayed.
    connections: BTreeMap<ConnectionId, bool>,
    connected: Numbers,
    /// Whether each is released.
    held: BTreeMap<HeldId, bool>,
    holds: Numbers,
}

/// Numbers that only rise.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Numbers {
    /// The first one; `None`: some were given before the first frame, and none since.
    since: Option<u64>,
    last: u64,
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
}

/// Something that no sentence of the grammar allows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wrong(pub String);

impl Numbers {
    const FROM_THE_START: Self = Self { since: Some(0), last: 0 };
    const IN_THE_MIDDLE: Self = Self { since: None, last: 0 };

    /// `false`: it is not higher than all before.
    fn give(&mut self, number: u64) -> bool {
        let rises = number > self.last;
        self.since.get_or_insert(number);
        self.last = self.last.max(number);
        rises
    }

    /// Whether it may have been given before the first frame.
    fn is_from_before(&self, number: u64) -> bool {
        self.since.is_none_or(|since| number < since)
    }
}

impl Grammar {
    /// Of a node that starts.
    pub fn from_the_start() -> Self {
        Self::new(Numbers::FROM_THE_START)
    }

    /// Of a node that has run already: what it began before is not known.
    pub fn in_the_middle() -> Self {
        Self::new(Numbers::IN_THE_MIDDLE)
    }

    fn new(numbers: Numbers) -> Self {
        Self {
            open: BTreeMap::new(),
            commands: numbers,
            connections: BTreeMap::new(),
            connected: numbers,
            held: BTreeMap::new(),
            holds: numbers,
        }
    }

    /// An event comes.
    ///
    /// # Errors
    /// When it may not.
    pub fn event(&mut self, event: &Event) -> Result<(), Wrong> {
        match event {
            Event::Connected { connection, address, origin, .. } => {
                let before = self.connected.last;
                if !self.connected.give(connection.0) {
                    return wrong(format!("connection {connection} after {before}"));
                }
                self.connections.insert(*connection, address.is_relayed());
                self.began(*origin)
            }
            Event::Disconnected { connection, .. } => {
                self.on(*connection, "Disconnected")?;
                self.connections.remove(connection);
                Ok(())
            }
            Event::CircuitLimited { connection, .. } | Event::CircuitUsed { connection, .. } => {
                match self.on(*connection, "a circuit's limit")? {
                    Some(false) => wrong(format!("{connection} has a circuit's limit, and is direct")),
                    Some(true) | None => Ok(()),
                }
            }
            Event::Identified { connection, .. } => self.on(*connection, "Identified").map(|_| ()),
            Event::IdentifyFailed { connection, .. } => self.on(*connection, "IdentifyFailed").map(|_| ()),
            Event::Pinged { connection, .. } => self.on(*connection, "Pinged").map(|_| ()),
            Event::PunchOffered { connection, .. } => self.on(*connection, "PunchOffered").map(|_| ()),
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
                if let Some(open) = self.open.get_mut(punch) {
                    *open = Expected::Punch { answered: true };
                }
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
            Event::DialHeld { held, .. } => {
                let before = self.holds.last;
                self.held.insert(*held, false);
                if self.holds.give(held.0) { Ok(()) } else { wrong(format!("{held} is held after {before}")) }
            }
            // Also of one that was never released: the oldest makes room.
            Event::HeldFailed { held, .. } => match self.held.remove(held) {
                None if !self.holds.is_from_before(held.0) => wrong(format!("{held} failed, and is not held")),
                Some(_) | None => Ok(()),
            },
            Event::Refused { command, .. } if command.0 > self.commands.last && self.commands.since.is_some() => {
                wrong(format!("{command} is refused, and was never given"))
            }
            Event::Refused { command, .. } => {
                self.open.remove(command);
                Ok(())
            }
            Event::Started(_) => {
                *self = Self::from_the_start();
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
        self.commands.give(command.id.0);
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
                if let Some(open) = self.open.get_mut(&punch) {
                    *open = Expected::Punched;
                }
                Ok(())
            }
            Origin::Held(held) => match self.held.remove(&held) {
                Some(true) => Ok(()),
                Some(false) => wrong(format!("{held} has led to a connection, and was not released")),
                None if self.holds.is_from_before(held.0) => Ok(()),
                None => wrong(format!("{held} has led to a connection, and is not held")),
            },
        }
    }

    /// Whether it is relayed, if that is known.
    fn on(&self, connection: ConnectionId, what: &str) -> Result<Option<bool>, Wrong> {
        match self.connections.get(&connection) {
            Some(relayed) => Ok(Some(*relayed)),
            None if self.connected.is_from_before(connection.0) => Ok(None),
            None if connection.0 <= self.connected.last => {
                wrong(format!("{what} on {connection}, which has ended or never began"))
            }
            None => wrong(format!("{what} on {connection}, which never began")),
        }
    }

    fn amid(&self, command: CommandId, expected: &[Expected], what: &str) -> Result<(), Wrong> {
        match self.open.get(&command) {
            Some(open) if expected.contains(open) => Ok(()),
            Some(open) => wrong(format!("{what} for {command}, which is a {open:?}")),
            None if self.commands.is_from_before(command.0) => Ok(()),
            None if command.0 <= self.commands.last => {
                wrong(format!("{what} for {command}, which was answered, or asks for nothing of the kind"))
            }
            None => wrong(format!("{what} for {command}, which was never given")),
        }
    }

    fn end(&mut self, command: CommandId, expected: &[Expected], what: &str) -> Result<(), Wrong> {
        self.amid(command, expected, what)?;
        self.open.remove(&command);
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
