//! `LogSync`: whose entries are where, and who is asked for what is missing here.
//!
//! Peers that speak our protocol of logs, and that the settings allow, are *partners* while a connection to them stands.
//! Positions are compared with each as soon as it has introduced itself, and then at leisure; what grows is announced,
//! many entries at once. From what partners say (their *claims*) and what the store holds follows what is missing, and
//! ranges of it are fetched: a log from one partner at a time, the log that waited longest first, another partner when
//! one fails or is slow.
//!
//! Nothing that a partner says is trusted. A claim costs it at most one range that brings nothing; then it rests, longer
//! each time. Entries that can't be right let it rest for long at once. Its other logs, and other partners, go on.
//! Whether entries are right is not seen here: the shell checks signatures and the chain of hashes, and says what it has
//! stored. So whatever the order of answers, nothing is skipped: a range always begins where the store ends.
//!
//! Until the store has said what it holds, nothing happens at all.

mod claims;
mod fetching;
mod partners;
mod reading;
mod talking;

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};
use core::time::Duration;

use claims::Claim;
use partners::Partner;

use crate::{
    cx::Cx,
    lifecycle::PeerLifecycle,
    vocabulary::{
        Action, Ask, Audience, CommandId, Event, Head, LogId, PeerId, Reason, Refusal, Service, SyncError, Time,
    },
};

/// A store that has said it can't follow, and then nothing for this long, is tried again.
const PRESSURE: Duration = Duration::from_secs(60);

/// About 200 bytes for each log, 300 for each partner and 100 for each log of a partner.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct LogSync {
    /// The store has said what it holds.
    ready: bool,
    /// With whom the shell exchanges logs.
    with: Audience,
    logs: BTreeMap<LogId, Log>,
    partners: BTreeMap<PeerId, Partner>,
    open: BTreeMap<CommandId, Open>,
    /// Logs of which entries may be missing.
    wanted: BTreeSet<LogId>,
    /// Partners no more, of which the peer table is not told yet.
    parted: Vec<PeerId>,
    /// The store can't follow: no new ranges before.
    paused_until: Time,
    /// Ranges asked for so far.
    turns: u64,
    /// Heads that were not taken, because too many logs are known.
    ignored: u64,
    /// Something has happened since the last step.
    stirred: bool,
    /// The next moment at which something is due.
    due: Option<Time>,
}

/// A log that is held here, or that a partner claims to have.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct Log {
    /// How far it goes here.
    head: Head,
    /// The range of it that is under way.
    fetch: Option<CommandId>,
    /// Which range was its last one.
    turn: u64,
    /// Where it is known to fork.
    forked: Option<u64>,
    /// There is no room for more of it here: nobody is asked for it before.
    full_until: Time,
}

/// A command that waits for its answer.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct Open {
    peer: PeerId,
    until: Time,
    what: What,
}

#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
enum What {
    Exchange {
        begun: Time,
    },
    /// The logs, and how far they are said to go.
    Announce(Vec<(LogId, u64)>),
    Fetch {
        log: LogId,
        begun: Time,
        /// How far the log went here then.
        from: u64,
        /// Only to see whether the peer's entry is the same as ours.
        check: bool,
    },
}

impl LogSync {
    pub(crate) fn absorb(&mut self, cx: &mut Cx<'_>, lifecycle: &PeerLifecycle, event: &Event) {
        match event {
            Event::SyncHeads { heads, last } => {
                for head in heads {
                    self.grown(cx, head.log, head.head);
                }
                if *last && !self.ready {
                    self.ready = true;
                    self.configure(cx, lifecycle);
                }
            }
            Event::SyncTold { peer, connection: _, sync, told, last } => self.told(cx, *peer, *sync, told, *last),
            Event::SyncFetched { fetch, log, head, entries, has_more } => {
                self.fetched(cx, *fetch, *log, *head, *entries, *has_more);
            }
            Event::SyncFailed { sync, error } => self.failed(cx, *sync, error),
            Event::SyncPressure { busy } => {
                self.paused_until = if *busy { cx.now + PRESSURE } else { cx.now };
                self.stirred = true;
            }
            Event::Refused { command, refusal } => {
                let error = match refusal {
                    Refusal::Gone => SyncError::ConnectionLost,
                    Refusal::NotBuiltIn => SyncError::Unsupported,
                    Refusal::StoreFull => SyncError::StoreFailed,
                    Refusal::NobodyToAsk => SyncError::NotThere,
                    Refusal::Other(text) => SyncError::Other(text.clone()),
                };
                self.failed(cx, *command, &error);
            }
            Event::Connected { peer, .. } => {
                self.consider(cx, lifecycle, *peer);
                self.reconnected(cx, peer);
            }
            Event::Disconnected { peer, .. } | Event::Identified { peer, .. } => self.consider(cx, lifecycle, *peer),
            // A path that may be good enough now, or no longer.
            Event::CircuitLimited { .. } | Event::CircuitUsed { .. } => self.stirred = true,
            Event::Asked { ask: Ask::Pin(at), .. } => {
                if let Some(peer) = at.peer {
                    self.consider(cx, lifecycle, peer);
                }
            }
            Event::Asked { ask: Ask::Forget(peer) | Ask::Block(peer) | Ask::Disconnect(peer), .. } => {
                self.consider(cx, lifecycle, *peer);
            }
            Event::Wake
            | Event::Started(_)
            | Event::Configured(_)
            | Event::StoreLoaded { .. }
            | Event::Asked { .. }
            | Event::Interfaces(_)
            | Event::WallClock { .. }
            | Event::Resumed { .. }
            | Event::Listening { .. }
            | Event::ListenAddressGone { .. }
            | Event::ListenFailed { .. }
            | Event::Found { .. }
            | Event::Lost { .. }
            | Event::OwnIdentitySeen { .. }
            | Event::DialFailed { .. }
            | Event::InboundFailed { .. }
            | Event::DialHeld { .. }
            | Event::HeldFailed { .. }
            | Event::IdentifyFailed { .. }
            | Event::Pinged { .. }
            | Event::Candidate { .. }
            | Event::Confirmed { .. }
            | Event::Unconfirmed { .. }
            | Event::Probed { .. }
            | Event::Reserved { .. }
            | Event::ReservedAt { .. }
            | Event::ReservationEnded { .. }
            | Event::Serving { .. }
            | Event::PunchOffered { .. }
            | Event::PunchAnswered { .. }
            | Event::PunchFailed { .. }
            | Event::Gateway { .. }
            | Event::PortMapped { .. }
            | Event::PortUnmapped { .. }
            | Event::SignalFound { .. }
            | Event::SignalPublished { .. }
            | Event::SignalFailed { .. }
            | Event::Routed { .. }
            | Event::QueryFound { .. }
            | Event::QueryEnded { .. } => {}
        }
    }

    /// Takes over with whom the settings allow to exchange logs.
    pub(crate) fn configure(&mut self, cx: &mut Cx<'_>, lifecycle: &PeerLifecycle) {
        if !self.ready {
            return;
        }
        let with = match cx.config.sync.with {
            Service::Off => Audience::Nobody,
            Service::Auto | Service::Members => Audience::Members,
            Service::Anyone => Audience::Anyone,
        };
        if core::mem::replace(&mut self.with, with) != with {
            cx.command(Action::SetSync { with }, Reason::Settings);
        }
        for peer in self.partners.keys().copied().collect::<Vec<_>>() {
            self.consider(cx, lifecycle, peer);
        }
        for peer in lifecycle.connected_peers() {
            self.consider(cx, lifecycle, peer);
        }
    }

    /// Everything that is due. What a late call finds overdue is done once.
    pub(crate) fn step(&mut self, cx: &mut Cx<'_>, lifecycle: &mut PeerLifecycle) {
        if !self.ready || !(self.stirred || self.due.is_some_and(|due| due <= cx.now)) {
            return;
        }
        self.stirred = false;
        self.expire(cx);
        let talk_due = self.talk(cx, lifecycle);
        let fetch_due = self.fetch(cx, lifecycle);
        self.show(cx, lifecycle);
        let answers = self.open.values().map(|open| open.until).min();
        self.due = [talk_due, fetch_due, answers].into_iter().flatten().min();
        self.stirred = false;
    }

    pub(crate) const fn deadline(&self) -> Option<Time> {
        self.due
    }

    /// Commands without an answer in time came to nothing.
    fn expire(&mut self, cx: &mut Cx<'_>) {
        let late = |open: &&Open| open.until <= cx.now;
        let due: Vec<(CommandId, PeerId)> =
            self.open.iter().filter(|(_, open)| late(open)).map(|(id, open)| (*id, open.peer)).collect();
        for (sync, peer) in due {
            cx.command(Action::SyncCancel { sync, peer }, Reason::TimedOut);
            self.failed(cx, sync, &SyncError::TimedOut);
        }
    }
}
