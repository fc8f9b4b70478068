use alloc::collections::VecDeque;

use crate::{
    view::{NodeView, PeerView},
    vocabulary::{Command, Event, PeerId, Time},
};

/// A node's mind.
///
/// The rule: *one input, drain to empty, sleep until the deadline.* After each [`Node::handle`], call
/// [`Node::next_command`] until it returns `None`; then sleep until [`Node::next_deadline`] or the next event, whichever
/// comes first, and at the deadline call `handle(now, Event::Wake)`.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Node {
    out: VecDeque<Command>,
}

/// When a node wants to be woken, and why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Deadline {
    /// When.
    pub at: Time,
    /// Why.
    pub reason: DeadlineReason,
}

/// What a node wants to be woken for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum DeadlineReason {
    /// Commands wait to be drained.
    CommandsWaiting,
}

impl Node {
    /// A node that has not been told anything yet. Its first event is `Event::Started`.
    pub fn new() -> Self {
        Self::default()
    }

    /// The only input. First does everything that was due up to `now`, then takes in `event`.
    pub fn handle(&mut self, now: Time, event: Event) {
        let _ = (now, event);
    }

    /// The next thing to do; `None` when there is no more.
    pub fn next_command(&mut self) -> Option<Command> {
        self.out.pop_front()
    }

    /// When to call `handle(.., Event::Wake)`. Asking changes nothing.
    pub fn next_deadline(&self) -> Option<Deadline> {
        None
    }

    /// Everything there is to know, for reading. `None` before `Event::Started`.
    pub fn view(&self) -> Option<View<'_>> {
        None
    }
}

/// A node, for reading.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    node: &'a Node,
}

impl<'a> View<'a> {
    /// The node as a whole.
    pub fn node(&self) -> NodeView<'a> {
        let _ = self.node;
        unreachable!()
    }

    /// All peers, by id.
    pub fn peers(&self) -> impl Iterator<Item = PeerView<'a>> {
        core::iter::empty()
    }

    /// One peer.
    pub fn peer(&self, peer: &PeerId) -> Option<PeerView<'a>> {
        let _ = peer;
        None
    }
}
