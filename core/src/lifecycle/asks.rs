//! What users and the application ask for. Each request is answered exactly once, within `ask_timeout`.

use alloc::{borrow::ToOwned, boxed::Box, collections::BTreeMap, string::String, vec::Vec};

use super::{Class, PeerLifecycle, dialer::Job, discovery::is_believable, settle::is_dialable};
use crate::{
    cx::{Cx, Signal},
    peers::{Slot, Sync},
    vocabulary::{
        Action, Address, Answer, Ask, AskError, ConnectionId, Notice, PeerAddress, PeerId, Reason, RequestId, Source,
        Time,
    },
};

/// Requests that wait for a connection.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
pub(crate) struct Asks {
    open: BTreeMap<RequestId, Open>,
}

#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct Open {
    wish: Wish,
    until: Time,
    /// Others were asked where the peer is, or are not to be.
    sought: bool,
    /// How dialling failed before that.
    failure: Option<String>,
}

#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
enum Wish {
    /// A connection to this peer.
    Peer(Slot),
    /// A connection to whoever is there.
    Address(Address),
}

const MAX_OPEN: usize = 64;

impl Asks {
    pub(crate) fn deadline(&self) -> Option<Time> {
        self.open.values().map(|open| open.until).min()
    }

    /// Whether a look-up may still help somebody who waits for this peer. Keeps how dialling failed, should it not.
    pub(super) fn may_seek(&mut self, slot: Slot, failure: &str) -> bool {
        let waiting = self.open.values_mut().filter(|open| open.waits_for(slot) && !open.sought);
        waiting.fold(false, |_, open| {
            open.sought = true;
            open.failure = Some(failure.to_owned());
            true
        })
    }

    fn waiting_for(&self, slot: Slot) -> Vec<RequestId> {
        self.open.iter().filter(|(_, open)| open.waits_for(slot)).map(|(request, _)| *request).collect()
    }

    pub(super) fn address(&self, request: RequestId) -> Option<Address> {
        match &self.open.get(&request)?.wish {
            Wish::Address(address) => Some(address.clone()),
            Wish::Peer(_) => None,
        }
    }
}

impl Open {
    fn waits_for(&self, slot: Slot) -> bool {
        matches!(self.wish, Wish::Peer(other) if other == slot)
    }
}

impl PeerLifecycle {
    pub(super) fn asked(&mut self, cx: &mut Cx<'_>, request: RequestId, ask: &Ask) {
        if self.asks.open.contains_key(&request) {
            return;
        }
        let answer = match ask {
            Ask::Connect(to) => match self.ask_connect(cx, request, to) {
                Some(answer) => answer,
                None => return,
            },
            Ask::Disconnect(peer) => self.with_known(peer, |this, slot| {
                this.peers.at_mut(slot).held_off = true;
                this.close_all(cx, slot, &Reason::Asked);
                this.settle(cx, slot);
                Ok(Answer::Done)
            }),
            Ask::Pin(to) => self.ask_pin(cx, to),
            Ask::Forget(peer) => self.ask_forget(cx, peer),
            Ask::Block(peer) => self.ask_block(cx, *peer),
            Ask::Allow(peer) => self.with_known(peer, |this, slot| {
                let known = this.peers.at_mut(slot);
                if !known.blocked && !known.denied {
                    return Ok(Answer::NothingToDo);
                }
                known.blocked = false;
                known.shunned_until = cx.now;
                this.remember(cx, slot, Reason::Asked);
                this.settle(cx, slot);
                Ok(Answer::Done)
            }),
            Ask::Protect(peer) | Ask::Unprotect(peer) => self.with_known(peer, |this, slot| {
                let protect = matches!(ask, Ask::Protect(_));
                let known = this.peers.at_mut(slot);
                let before = core::mem::replace(&mut known.protected, protect);
                this.settle(cx, slot);
                Ok(if before == protect { Answer::NothingToDo } else { Answer::Done })
            }),
            Ask::Sync { peer, position, pending } => {
                self.with_known(peer, |this, slot| this.sync(cx, slot, *position, *pending))
            }
            // The planner's.
            Ask::AddBootstrap(_) | Ask::RemoveBootstrap(_) => return,
        };
        cx.command(Action::Answer { request, answer }, Reason::Asked);
    }

    fn with_known(
        &mut self,
        peer: &PeerId,
        then: impl FnOnce(&mut Self, Slot) -> Result<Answer, AskError>,
    ) -> Result<Answer, AskError> {
        let slot = self.peers.find(peer).ok_or(AskError::UnknownPeer)?;
        then(self, slot)
    }

    /// `None`: the answer comes later.
    fn ask_connect(
        &mut self,
        cx: &mut Cx<'_>,
        request: RequestId,
        to: &PeerAddress,
    ) -> Option<Result<Answer, AskError>> {
        let PeerAddress { peer, address } = to;
        if let Some(address) = address {
            if cx.here.is_own(address) {
                return Some(Err(AskError::OwnIdentity));
            }
            if !is_believable(cx.here, Source::Manual, address) || (address.is_relayed() && peer.is_none()) {
                return Some(Err(AskError::UnusableAddress));
            }
        }
        if self.asks.open.len() >= MAX_OPEN {
            return Some(Err(AskError::Limit("requests that wait for a connection".to_owned())));
        }
        let until = cx.now + cx.config.lifecycle.ask_timeout;
        match (peer, address) {
            (None, None) => Some(Err(AskError::Incomplete("an address or a peer id is needed".to_owned()))),
            (None, Some(address)) => {
                self.asks
                    .open
                    .insert(request, Open { wish: Wish::Address(address.clone()), until, sought: true, failure: None });
                self.dialer.enqueue(Class::User, cx.now, Job::Ask(request));
                None
            }
            (Some(peer), address) => {
                let slot = match self.by_hand(cx, *peer, address.as_ref()) {
                    Ok(slot) => slot,
                    Err(error) => return Some(Err(error)),
                };
                if address.is_some() {
                    self.peers.at_mut(slot).manual = true;
                    self.remember(cx, slot, Reason::Asked);
                }
                let known = self.peers.at_mut(slot);
                known.held_off = false;
                known.shunned_until = known.shunned_until.min(cx.now);
                known.hold_until = known.hold_until.min(cx.now);
                known.book.forgive(cx.now);
                if let Some(best) = known.best() {
                    let answer = Answer::Connected { peer: *peer, connection: best.id, address: best.address.clone() };
                    self.settle(cx, slot);
                    return Some(Ok(answer));
                }
                known.asks += 1;
                let known = self.peers.at(slot);
                let lost = !is_dialable(cx.here, known);
                if lost {
                    cx.signal(Signal::Sought(*peer));
                }
                // Where a user says where it is, nobody else is asked.
                let sought = lost || address.is_some();
                let open = Open { wish: Wish::Peer(slot), until, sought, failure: None };
                self.asks.open.insert(request, open);
                self.settle(cx, slot);
                None
            }
        }
    }

    fn ask_pin(&mut self, cx: &mut Cx<'_>, to: &PeerAddress) -> Result<Answer, AskError> {
        let Some(peer) = to.peer else {
            return Err(AskError::Incomplete("pinning needs the peer's id: PEER or …/p2p/PEER".to_owned()));
        };
        if let Some(address) = &to.address
            && !is_believable(cx.here, Source::Manual, address)
        {
            return Err(AskError::UnusableAddress);
        }
        let pinned = self.pinned.len() as u32;
        if pinned + 1 >= cx.config.lifecycle.high_water {
            return Err(AskError::Limit("pinned peers must be fewer than lifecycle.high_water".to_owned()));
        }
        let slot = self.by_hand(cx, peer, to.address.as_ref())?;
        let known = self.peers.at_mut(slot);
        let before = core::mem::replace(&mut known.pinned, true);
        known.held_off = false;
        known.hold_until = known.hold_until.min(cx.now);
        known.shunned_until = known.shunned_until.min(cx.now);
        known.book.forgive(cx.now);
        let known = self.peers.at(slot);
        if !known.is_connected() && !is_dialable(cx.here, known) {
            cx.signal(Signal::Sought(peer));
        }
        self.remember(cx, slot, Reason::Asked);
        self.settle(cx, slot);
        cx.signal(Signal::Pinned);
        Ok(if before && to.address.is_none() { Answer::NothingToDo } else { Answer::Done })
    }

    fn ask_forget(&mut self, cx: &mut Cx<'_>, peer: &PeerId) -> Result<Answer, AskError> {
        let slot = self.peers.find(peer).ok_or(AskError::UnknownPeer)?;
        let known = self.peers.at_mut(slot);
        if known.pinned_by_settings {
            return Err(AskError::Incomplete(
                "the settings pin this peer; remove it from the configuration".to_owned(),
            ));
        }
        let before = core::mem::take(&mut known.pinned) | core::mem::take(&mut known.manual);
        known.book.untold_all(Source::Manual, &[]);
        known.unstored = known.book.iter().any(|known| known.proven);
        if known.blocked {
            self.remember(cx, slot, Reason::Asked);
        } else {
            cx.command(Action::Forget { peer: *peer }, Reason::Asked);
        }
        self.settle(cx, slot);
        Ok(if before { Answer::Done } else { Answer::NothingToDo })
    }

    fn ask_block(&mut self, cx: &mut Cx<'_>, peer: PeerId) -> Result<Answer, AskError> {
        if peer == cx.local {
            return Err(AskError::OwnIdentity);
        }
        let Some(slot) = self.admit(cx, peer, Source::Manual) else {
            return Err(AskError::Limit("the peer table is full".to_owned()));
        };
        if self.peers.at(slot).blocked {
            return Ok(Answer::NothingToDo);
        }
        self.block(cx, slot);
        self.remember(cx, slot, Reason::Asked);
        self.settle(cx, slot);
        Ok(Answer::Done)
    }

    pub(super) fn block(&mut self, cx: &mut Cx<'_>, slot: Slot) {
        self.peers.at_mut(slot).blocked = true;
        self.deny(cx, slot, Reason::Blocked);
        self.close_all(cx, slot, &Reason::Blocked);
        self.answer_asks(cx, slot, &Err(AskError::Blocked));
    }

    /// The slot of a peer that a user names, with what the user says of it.
    fn by_hand(&mut self, cx: &mut Cx<'_>, peer: PeerId, address: Option<&Address>) -> Result<Slot, AskError> {
        if peer == cx.local {
            return Err(AskError::OwnIdentity);
        }
        if self.peers.by_id(&peer).is_some_and(|peer| peer.blocked) {
            return Err(AskError::Blocked);
        }
        let slot =
            self.admit(cx, peer, Source::Manual).ok_or_else(|| AskError::Limit("the peer table is full".to_owned()))?;
        if let Some(address) = address {
            self.peers.at_mut(slot).book.told(Source::Manual, address, cx.now, &cx.config.lifecycle, |_, _| true);
        }
        Ok(slot)
    }

    fn sync(&mut self, cx: &mut Cx<'_>, slot: Slot, position: Option<u64>, pending: u32) -> Result<Answer, AskError> {
        let peer = self.peers.at_mut(slot);
        if !peer.is_connected() || peer.profile.is_none() {
            return Err(AskError::Incomplete("the peer has to be connected and to have introduced itself".to_owned()));
        }
        let who = peer.id;
        let sync = peer.sync.get_or_insert_with(Box::<Sync>::default);
        let before = core::mem::replace(&mut sync.pending, pending);
        sync.position = position.or(sync.position);
        sync.until = cx.now + cx.config.lifecycle.sync_timeout;
        let position = sync.position;
        if before == 0 && pending > 0 {
            cx.tell(Notice::PeerSyncing { peer: who }, Reason::Sync);
        } else if pending == 0 {
            cx.tell(Notice::PeerSynced { peer: who, position }, Reason::Sync);
        }
        self.settle(cx, slot);
        Ok(Answer::Done)
    }

    /// A look-up for a peer has ended; who waits for it and still has nowhere to dial is told so.
    pub(crate) fn seek_ended(&mut self, cx: &mut Cx<'_>, peer: &PeerId) {
        let Some(slot) = self.peers.find(peer) else { return };
        let known = self.peers.at(slot);
        if known.asks == 0 || known.queued.is_some() || !known.dials.is_empty() {
            return;
        }
        for request in self.asks.waiting_for(slot) {
            let failure = self.asks.open.get_mut(&request).and_then(|open| open.failure.take());
            let error = failure.map_or(AskError::NotFound, AskError::Failed);
            self.answer_ask(cx, request, Err(error), &Reason::Asked);
        }
        self.settle(cx, slot);
    }

    /// Answers everyone who waits for a connection to this peer.
    pub(super) fn answer_asks(&mut self, cx: &mut Cx<'_>, slot: Slot, answer: &Result<Answer, AskError>) {
        if self.peers.at(slot).asks == 0 {
            return;
        }
        for request in self.asks.waiting_for(slot) {
            self.answer_ask(cx, request, answer.clone(), &Reason::Asked);
        }
    }

    pub(super) fn answer_ask(
        &mut self,
        cx: &mut Cx<'_>,
        request: RequestId,
        answer: Result<Answer, AskError>,
        reason: &Reason,
    ) {
        let Some(open) = self.asks.open.remove(&request) else { return };
        cx.command(Action::Answer { request, answer }, reason.clone());
        if let Wish::Peer(slot) = open.wish {
            let peer = self.peers.at_mut(slot);
            peer.asks = peer.asks.saturating_sub(1);
            self.note_grace(slot);
        }
    }

    pub(super) fn ask_reached(&mut self, cx: &mut Cx<'_>, request: RequestId, slot: Slot, id: ConnectionId) {
        let peer = self.peers.at_mut(slot);
        let who = peer.id;
        let Some(connection) = peer.connection_mut(id) else { return };
        let answer = Answer::Connected { peer: who, connection: id, address: connection.address.clone() };
        self.answer_ask(cx, request, Ok(answer), &Reason::Asked);
    }

    pub(super) fn expire_asks(&mut self, cx: &mut Cx<'_>) {
        let due: Vec<RequestId> =
            self.asks.open.iter().filter(|(_, open)| open.until <= cx.now).map(|(request, _)| *request).collect();
        for request in due {
            let slot = match self.asks.open.get(&request).map(|open| &open.wish) {
                Some(Wish::Peer(slot)) => Some(*slot),
                Some(Wish::Address(_)) | None => None,
            };
            self.answer_ask(cx, request, Err(AskError::TimedOut), &Reason::TimedOut);
            if let Some(slot) = slot {
                self.settle(cx, slot);
            }
        }
    }
}
