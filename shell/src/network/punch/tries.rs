//! The core's tries, and the dials of theirs.

use std::collections::{BTreeMap, HashMap};

use kinfolk_core::{
    Address, CommandId, ConnectionId as CoreConnectionId, DialError, Event, Mapping, OfferId, PeerId as CorePeerId,
    PunchError, PunchRole, PunchWire, Refusal, Scope, Transport,
};
use libp2p::{
    Multiaddr, PeerId,
    core::ConnectedPoint,
    swarm::{
        self, ConnectionId, NetworkBehaviour,
        dial_opts::{DialOpts, PeerCondition},
    },
};

use super::{
    Said, Share, Wire, errors,
    handler::{Dropped, Proposal},
    ids::{self, address_to_libp2p, peer_to_libp2p},
    wire::{MAX_CANDIDATES, Terms},
};
use crate::network::{Network, gate::Pass, guard::Opening};

/// Tries that are open, and dials under way.
#[derive(Debug, Default)]
pub(crate) struct Punches {
    tries: BTreeMap<CommandId, Try>,
    /// Also those whose try is over: they can't be stopped.
    dials: HashMap<ConnectionId, Dial>,
}

#[derive(Debug)]
struct Try {
    peer: PeerId,
    transport: Transport,
    reach: Reach,
    /// Known once the peer has answered, or we have.
    share: Option<Share>,
    targets: Vec<Multiaddr>,
    stage: Stage,
    /// Dials under way.
    dials: u32,
    errors: Vec<DialError>,
}

/// Which of a peer's candidates are dialled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reach {
    /// Those on the internet.
    Global,
    /// Those in home networks, too.
    Near,
    /// Those on this machine, too: the core has told the peer such an address of ours.
    Here,
    /// Those that the core has chosen.
    Chosen,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Talking,
    /// The dials decide.
    Acting,
    /// We accept: while the other side may still be dialling, failed dials of ours mean nothing.
    Accepting,
}

#[derive(Debug)]
struct Dial {
    command: CommandId,
    openings: Vec<Opening>,
}

impl Punches {
    /// Whether a dial with this id is one of a try.
    pub(crate) fn has(&self, id: ConnectionId) -> bool {
        self.dials.contains_key(&id)
    }

    pub(crate) fn is_dialling(&self) -> bool {
        !self.dials.is_empty()
    }
}

impl Reach {
    fn takes(self, address: &Address) -> bool {
        let Some(scope) = address.host_ip().map(Scope::of) else { return false };
        match self {
            Self::Global => scope.is_global(),
            Self::Near => scope.is_dialable() && !scope.is_loopback(),
            Self::Here | Self::Chosen => scope.is_dialable(),
        }
    }
}

impl<A: NetworkBehaviour> Network<A> {
    /// `Action::Punch`.
    #[expect(clippy::too_many_arguments, reason = "they are the command's")]
    pub(crate) fn punch(
        &mut self,
        command: CommandId,
        connection: CoreConnectionId,
        peer: &CorePeerId,
        wire: PunchWire,
        transport: Transport,
        candidates: &[Address],
        near: bool,
    ) {
        let here = candidates.iter().any(|address| address.host_ip().is_some_and(|ip| ip.is_loopback()));
        let reach = match (near, here) {
            (false, _) => Reach::Global,
            (true, false) => Reach::Near,
            (true, true) => Reach::Here,
        };
        self.punches.tries.insert(command, Try::new(peer_to_libp2p(peer), transport, reach));
        let (wire, role, mapping) = match wire {
            PunchWire::Kinfolk { mapping } => (Wire::Kinfolk, None, Some(mapping)),
            PunchWire::Dcutr { role } => (Wire::Dcutr, Some(role), None),
        };
        let terms = Terms { transport: Some(transport), role: None, mapping, candidates: candidates.to_vec() };
        let proposal = Proposal { command, wire, transport, role, terms };
        let proposed = match self.by_number.get(&connection.0).copied() {
            Some(id) => self.swarm.behaviour_mut().punch.propose(id, proposal),
            None => Err(PunchError::CircuitGone),
        };
        if let Err(error) = proposed {
            self.punch_failed(command, error);
        }
    }

    /// `Action::AnswerPunch`.
    #[expect(clippy::too_many_arguments, reason = "they are the command's")]
    pub(crate) fn answer_punch(
        &mut self,
        command: CommandId,
        offer: OfferId,
        peer: &CorePeerId,
        transport: Transport,
        role: PunchRole,
        mapping: Mapping,
        candidates: &[Address],
        targets: &[Address],
    ) {
        self.punches.tries.insert(command, Try::new(peer_to_libp2p(peer), transport, Reach::Chosen));
        let share = self.swarm.behaviour().punch.share(offer, transport, role);
        let share = match share.and_then(|share| self.deal(command, share, targets).map(|()| share)) {
            Ok(share) => share,
            Err(error) => {
                // The peer need not wait for what will not come.
                self.swarm.behaviour_mut().punch.refuse(offer);
                return self.punch_failed(command, error);
            }
        };
        if share.is_first() {
            self.act(command);
        }
        // It may have failed already.
        if self.punches.tries.contains_key(&command) {
            let candidates = candidates.to_vec();
            let terms = Terms { transport: None, role: Some(role), mapping: Some(mapping), candidates };
            self.swarm.behaviour_mut().punch.answer(command, offer, share, terms);
        } else {
            self.swarm.behaviour_mut().punch.refuse(offer);
        }
    }

    /// `Action::RefusePunch`.
    pub(crate) fn refuse_punch(&mut self, command: CommandId, offer: OfferId) {
        if !self.swarm.behaviour_mut().punch.refuse(offer) {
            self.tell(Event::Refused { command, refusal: Refusal::Gone });
        }
    }

    /// `Action::CancelPunch`.
    pub(crate) fn cancel_punch(&mut self, punch: CommandId) {
        self.punches.tries.remove(&punch);
        self.swarm.behaviour_mut().punch.drop_talk(punch);
    }

    pub(crate) fn on_punch(&mut self, said: Said) {
        match said {
            Said::Offered { offer, connection, peer, terms } => match self.number(connection) {
                Some(connection) => self.tell(Event::PunchOffered {
                    offer,
                    connection,
                    peer: ids::peer_to_core(peer),
                    mapping: terms.mapping,
                    candidates: terms.candidates,
                }),
                None => drop(self.swarm.behaviour_mut().punch.refuse(offer)),
            },
            Said::Answered { command, share, terms } => self.on_answer(command, share, terms),
            Said::Now { command } => self.act(command),
            Said::Failed { command, error } => self.punch_failed(command, error),
            Said::Waited { command } => {
                if let Some(open) = self.punches.tries.get_mut(&command) {
                    open.stage = Stage::Acting;
                    self.settle_punch(command);
                }
            }
            Said::Dropped(what) => self.counters.count(match what {
                Dropped::TooMany => "punch.too_many_offers",
                Dropped::Unreadable => "punch.unreadable_offers",
                Dropped::Unanswered => "punch.unanswered_offers",
            }),
        }
    }

    fn on_answer(&mut self, command: CommandId, share: Share, terms: Terms) {
        if !self.punches.tries.contains_key(&command) {
            return self.swarm.behaviour_mut().punch.drop_talk(command);
        }
        let none = terms.candidates.is_empty();
        let dealt = self.deal(command, share, &terms.candidates);
        self.tell(Event::PunchAnswered { punch: command, mapping: terms.mapping, candidates: terms.candidates });
        match dealt {
            Ok(()) if share.is_first() => {
                self.act(command);
                self.swarm.behaviour_mut().punch.begun(command);
            }
            Ok(()) => {}
            Err(error) => self.punch_failed(command, if none { PunchError::Declined } else { error }),
        }
    }

    /// Notes our share in a try, and whom it leads to.
    ///
    /// # Errors
    /// When we should dial, and there is nothing to be dialled.
    fn deal(&mut self, command: CommandId, share: Share, candidates: &[Address]) -> Result<(), PunchError> {
        let Some(open) = self.punches.tries.get_mut(&command) else { return Ok(()) };
        open.share = Some(share);
        let fitting = candidates.iter().filter(|address| {
            matches!(address, Address::Ip { transport, .. } if *transport == open.transport)
                && open.reach.takes(address)
        });
        // libp2p drops those of our own without a word.
        let others =
            fitting.filter_map(address_to_libp2p).filter(|known| self.swarm.listeners().all(|own| own != known));
        open.targets = others.take(MAX_CANDIDATES).collect();
        if share.role == PunchRole::Dial && open.targets.is_empty() {
            return Err(PunchError::NoCandidates);
        }
        Ok(())
    }

    /// Does our part.
    fn act(&mut self, command: CommandId) {
        let Some(open) = self.punches.tries.get_mut(&command) else { return };
        let Some(share) = open.share else { return };
        let targets = std::mem::take(&mut open.targets);
        match share.role {
            PunchRole::Dial => {
                open.stage = Stage::Acting;
                let (far, near) = targets.into_iter().partition::<Vec<_>, _>(ids::on_the_internet);
                if !far.is_empty() {
                    self.punch_dial(command, share, far);
                }
                // At an address of their home somebody else may be in ours, who would be the end of a dial to all of them.
                for target in near {
                    self.punch_dial(command, share, vec![target]);
                }
            }
            PunchRole::Accept => {
                open.stage = Stage::Accepting;
                self.swarm.behaviour_mut().punch.wait(command, share.accept_patience());
                // A hole for each; who comes first comes through one of them.
                for target in targets {
                    self.punch_dial(command, share, vec![target]);
                }
            }
        }
    }

    fn punch_dial(&mut self, command: CommandId, share: Share, targets: Vec<Multiaddr>) {
        let Some(open) = self.punches.tries.get_mut(&command) else { return };
        open.dials += 1;
        let openings: Vec<Opening> = targets.iter().cloned().map(Opening::Exact).collect();
        let mut opts = DialOpts::peer_id(open.peer).condition(PeerCondition::Always).addresses(targets);
        if share.role == PunchRole::Accept {
            opts = opts.override_role();
            if share.transport == Transport::Quic {
                // Together they mean to libp2p: only send something, and take what comes back.
                opts = opts.allocate_new_port();
            }
        }
        let opts = opts.build();
        let id = opts.connection_id();
        openings.iter().for_each(|opening| self.open.open(opening));
        self.punches.dials.insert(id, Dial { command, openings });
        self.swarm.behaviour_mut().gate.pass(id, Pass::Core);
        if let Err(error) = self.swarm.dial(opts) {
            self.punch_dial_failed(id, &error);
        }
    }

    /// A dial of a try has failed.
    pub(crate) fn punch_dial_failed(&mut self, id: ConnectionId, error: &swarm::DialError) {
        let Some(command) = self.end_punch_dial(id) else { return };
        if let Some(open) = self.punches.tries.get_mut(&command) {
            open.dials = open.dials.saturating_sub(1);
            open.errors.push(errors::of_dial(error));
            self.settle_punch(command);
        }
    }

    /// The try of which a dial has led to a connection.
    pub(crate) fn punched(&mut self, id: ConnectionId) -> Option<CommandId> {
        let command = self.end_punch_dial(id)?;
        self.punches.tries.remove(&command);
        Some(command)
    }

    /// The open try to which somebody who has come belongs.
    pub(crate) fn awaited(&mut self, peer: PeerId, endpoint: &ConnectedPoint) -> Option<CommandId> {
        let (_, _, by) = ids::endpoint(endpoint.get_remote_address())?;
        let fitting = self.punches.tries.iter().filter(|(_, open)| open.peer == peer && open.transport == by);
        let accepts = |open: &Try| open.share.is_some_and(|share| share.role == PunchRole::Accept);
        let (command, _) = fitting.min_by_key(|(_, open)| !accepts(open))?;
        let command = *command;
        self.punches.tries.remove(&command);
        Some(command)
    }

    fn end_punch_dial(&mut self, id: ConnectionId) -> Option<CommandId> {
        let dial = self.punches.dials.remove(&id)?;
        self.swarm.behaviour_mut().gate.done(id);
        dial.openings.iter().for_each(|opening| self.open.close(opening));
        Some(dial.command)
    }

    fn settle_punch(&mut self, command: CommandId) {
        let Some(open) = self.punches.tries.get(&command) else { return };
        if open.stage == Stage::Acting && open.dials == 0 {
            let error = errors::telling(open.errors.iter().cloned());
            self.punch_failed(command, error.map_or(PunchError::NoCandidates, PunchError::Dial));
        }
    }

    /// Ends a try, if it is open.
    fn punch_failed(&mut self, command: CommandId, error: PunchError) {
        if self.punches.tries.remove(&command).is_some() {
            self.swarm.behaviour_mut().punch.drop_talk(command);
            self.tell(Event::PunchFailed { punch: command, error });
        }
    }
}

impl Try {
    fn new(peer: PeerId, transport: Transport, reach: Reach) -> Self {
        Self { peer, transport, reach, share: None, targets: vec![], stage: Stage::Talking, dials: 0, errors: vec![] }
    }
}
