//! The talk about a direct connection, on one relayed connection.

use std::{
    collections::VecDeque,
    convert::Infallible,
    fmt,
    future::{Ready, ready},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures::{FutureExt, future::BoxFuture};
use futures_timer::Delay;
use kinfolk_core::{CommandId, PunchError, PunchRole, Transport};
use libp2p::{
    StreamProtocol,
    core::{InboundUpgrade, UpgradeInfo, upgrade::ReadyUpgrade},
    swarm::{
        ConnectionHandler, ConnectionHandlerEvent, Stream, StreamUpgradeError, SubstreamProtocol,
        handler::{ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound},
    },
};

use super::{
    DCUTR, HEAD_START, PATIENCE, Share, Side, Wire, errors, other,
    wire::{Channel, Kind, Terms},
};

type Talk = Box<Channel<Stream>>;
type Event = ConnectionHandlerEvent<ReadyUpgrade<StreamProtocol>, CommandId, FromHandler>;

/// What the behaviour wants.
#[derive(Debug)]
pub(crate) enum ToHandler {
    /// Propose.
    Propose(Proposal),
    /// Take up the offer with this number.
    Answer {
        /// The core's command.
        command: CommandId,
        /// Which.
        offer: u64,
        /// Our share.
        share: Share,
        /// What the peer is told.
        terms: Terms,
    },
    /// Decline the offer with this number.
    Refuse {
        /// Which.
        offer: u64,
    },
    /// Our part has begun.
    Begun {
        /// Of which try.
        command: CommandId,
    },
    /// Say no more about this.
    Drop {
        /// Of which try.
        command: CommandId,
    },
}

/// A proposal of ours.
#[derive(Debug)]
pub(crate) struct Proposal {
    pub(super) command: CommandId,
    pub(super) wire: Wire,
    pub(super) transport: Transport,
    /// Our part. In Kinfolk's own protocol the answer says it.
    pub(super) role: Option<PunchRole>,
    /// What the peer is told.
    pub(super) terms: Terms,
}

/// What happens on the connection.
#[derive(Debug)]
pub(crate) enum FromHandler {
    /// The peer proposes.
    Offered { offer: u64, wire: Wire, terms: Terms },
    /// The peer no longer does, or was never answered.
    Withdrawn { offer: u64 },
    /// The peer has answered.
    Answered { command: CommandId, share: Share, terms: Terms },
    /// The time for our part has come.
    Now { command: CommandId },
    /// All is said.
    Ended { command: CommandId },
    /// The talk has failed.
    Failed { command: CommandId, error: PunchError },
    /// Something of the peer's that was dropped.
    Dropped(Dropped),
}

/// What was dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Dropped {
    /// A proposal while another one waits, or while too many do.
    TooMany,
    /// A proposal that can't be read, or never comes to its end.
    Unreadable,
    /// A proposal that nobody answered.
    Unanswered,
}

/// See the module. On a direct connection it offers nothing and does nothing.
pub(crate) struct Handler {
    listens: Vec<StreamProtocol>,
    proposal: Option<Proposing>,
    offer: Option<Offer>,
    last_offer: u64,
    answer: Option<Answering>,
    out: VecDeque<Event>,
}

struct Proposing {
    command: CommandId,
    wire: Wire,
    transport: Transport,
    role: Option<PunchRole>,
    deadline: Delay,
    stage: Stage,
}

enum Stage {
    /// The stream is being opened.
    Opening(Terms),
    /// The answer is awaited.
    Asking(BoxFuture<'static, Result<(Talk, Terms, Duration), PunchError>>),
    /// Our part comes before the signal.
    Acting(Talk),
    /// The signal is given, and waited for if the time of our part comes after it.
    Signalling { signal: BoxFuture<'static, Result<(), PunchError>>, then_now: bool },
}

struct Offer {
    number: u64,
    wire: Wire,
    deadline: Delay,
    stage: OfferStage,
}

enum OfferStage {
    Reading(BoxFuture<'static, Result<(Talk, Terms), PunchError>>),
    /// The core is asked.
    Open(Talk),
}

struct Answering {
    command: CommandId,
    deadline: Delay,
    then_now: bool,
    talk: BoxFuture<'static, Result<(), PunchError>>,
}

impl Handler {
    /// `listens`: the protocols in which proposals are taken; our own one first, or none.
    pub(super) fn new(listens: Vec<StreamProtocol>) -> Self {
        Self { listens, proposal: None, offer: None, last_offer: 0, answer: None, out: VecDeque::new() }
    }

    fn tell(&mut self, event: FromHandler) {
        self.out.push_back(ConnectionHandlerEvent::NotifyBehaviour(event));
    }

    fn failed(&mut self, command: CommandId, error: PunchError) {
        self.tell(FromHandler::Failed { command, error });
    }

    fn propose(&mut self, proposal: Proposal) {
        let Proposal { command, wire, transport, role, terms } = proposal;
        if self.proposal.is_some() {
            return self.failed(command, broken("another proposal is under way on this connection"));
        }
        let name = match wire {
            Wire::Dcutr => DCUTR,
            Wire::Kinfolk => match self.listens.first() {
                Some(name) => name.clone(),
                None => return self.failed(command, PunchError::CircuitGone),
            },
        };
        self.out.push_back(ConnectionHandlerEvent::OutboundSubstreamRequest {
            protocol: SubstreamProtocol::new(ReadyUpgrade::new(name), command),
        });
        let deadline = Delay::new(PATIENCE);
        self.proposal = Some(Proposing { command, wire, transport, role, deadline, stage: Stage::Opening(terms) });
    }

    fn opened(&mut self, command: CommandId, stream: Stream) {
        let Some(proposing) = self.proposal.as_mut().filter(|proposing| proposing.command == command) else { return };
        let Stage::Opening(terms) = &proposing.stage else { return };
        proposing.stage = Stage::Asking(ask(Box::new(Channel::new(stream, proposing.wire)), terms.clone()).boxed());
    }

    fn not_opened(&mut self, command: CommandId, error: StreamUpgradeError<Infallible>) {
        if self.proposal.as_ref().is_none_or(|proposing| proposing.command != command) {
            return;
        }
        self.proposal = None;
        let error = match error {
            StreamUpgradeError::Timeout => PunchError::TimedOut,
            StreamUpgradeError::NegotiationFailed => PunchError::NotSupported,
            StreamUpgradeError::Io(error) => errors::of_punch(&error),
            StreamUpgradeError::Apply(never) => match never {},
        };
        self.failed(command, error);
    }

    fn knocked(&mut self, stream: Stream, wire: Wire) {
        if self.offer.is_some() {
            return self.tell(FromHandler::Dropped(Dropped::TooMany));
        }
        self.last_offer += 1;
        let mut talk = Box::new(Channel::new(stream, wire));
        let reading = async move {
            let terms = talk.read(Kind::Proposal).await?;
            Ok((talk, terms))
        };
        self.offer = Some(Offer {
            number: self.last_offer,
            wire,
            deadline: Delay::new(PATIENCE),
            stage: OfferStage::Reading(reading.boxed()),
        });
    }

    /// Takes the offer with this number, if it waits for an answer.
    fn take_offer(&mut self, number: u64) -> Option<Talk> {
        match self.offer.take_if(|offer| offer.number == number)?.stage {
            OfferStage::Open(talk) => Some(talk),
            OfferStage::Reading(_) => None,
        }
    }

    fn take_up(&mut self, command: CommandId, offer: u64, share: Share, terms: Terms) {
        let Some(talk) = self.take_offer(offer) else {
            return self.failed(command, broken("the peer has withdrawn its proposal"));
        };
        let talk = reply(talk, share, terms).boxed();
        let deadline = Delay::new(PATIENCE);
        let answering = Answering { command, deadline, then_now: !share.is_first(), talk };
        if let Some(before) = self.answer.replace(answering) {
            self.failed(before.command, broken("a newer proposal has taken its place"));
        }
    }

    fn poll_proposal(&mut self, cx: &mut Context<'_>) {
        let Some(proposing) = &mut self.proposal else { return };
        let command = proposing.command;
        match &mut proposing.stage {
            Stage::Opening(_) | Stage::Acting(_) => {}
            Stage::Asking(asking) => match asking.poll_unpin(cx) {
                Poll::Ready(Ok((talk, terms, took))) => self.answered(talk, terms, took),
                Poll::Ready(Err(error)) => {
                    self.proposal = None;
                    self.failed(command, error);
                }
                Poll::Pending => {}
            },
            Stage::Signalling { signal, then_now } => {
                if let Poll::Ready(signalled) = signal.poll_unpin(cx) {
                    let now = *then_now;
                    self.proposal = None;
                    self.ended(command, now, signalled);
                }
            }
        }
        if let Some(proposing) = &mut self.proposal
            && proposing.deadline.poll_unpin(cx).is_ready()
        {
            self.proposal = None;
            self.failed(command, PunchError::TimedOut);
        }
    }

    fn answered(&mut self, talk: Talk, terms: Terms, took: Duration) {
        let Some(proposing) = &mut self.proposal else { return };
        let (command, wire, transport) = (proposing.command, proposing.wire, proposing.transport);
        let Some(role) = proposing.role.or(terms.role.map(other)) else {
            self.proposal = None;
            return self.failed(command, broken("the answer deals no roles"));
        };
        let share = Share { wire, side: Side::Proposer, transport, role };
        if !share.has_signal() {
            self.proposal = None;
        } else if share.is_first() {
            proposing.stage = Stage::Acting(talk);
        } else {
            proposing.stage =
                Stage::Signalling { signal: signal_and_wait(talk, share.pause(took)).boxed(), then_now: true };
        }
        self.tell(FromHandler::Answered { command, share, terms });
        if self.proposal.is_none() {
            self.tell(FromHandler::Ended { command });
        }
    }

    fn begun(&mut self, command: CommandId) {
        if let Some(mut proposing) = self.proposal.take_if(|proposing| proposing.command == command) {
            if let Stage::Acting(talk) = proposing.stage {
                proposing.stage = Stage::Signalling { signal: wait_and_signal(talk).boxed(), then_now: false };
            }
            self.proposal = Some(proposing);
        }
    }

    fn poll_offer(&mut self, cx: &mut Context<'_>) {
        let Some(offer) = &mut self.offer else { return };
        let number = offer.number;
        let gone = match &mut offer.stage {
            OfferStage::Reading(reading) => match reading.poll_unpin(cx) {
                Poll::Ready(Ok((mut talk, terms))) => {
                    // So that the end of the stream wakes this task.
                    let gone = talk.poll_gone(cx);
                    let wire = offer.wire;
                    offer.stage = OfferStage::Open(talk);
                    self.tell(FromHandler::Offered { offer: number, wire, terms });
                    gone
                }
                Poll::Ready(Err(_)) => {
                    self.offer = None;
                    return self.tell(FromHandler::Dropped(Dropped::Unreadable));
                }
                Poll::Pending => Poll::Pending,
            },
            OfferStage::Open(talk) => talk.poll_gone(cx),
        };
        let Some(offer) = &mut self.offer else { return };
        let late = offer.deadline.poll_unpin(cx).is_ready();
        if gone.is_pending() && !late {
            return;
        }
        match self.offer.take().map(|offer| offer.stage) {
            Some(OfferStage::Open(_)) => {
                self.tell(FromHandler::Withdrawn { offer: number });
                if late {
                    self.tell(FromHandler::Dropped(Dropped::Unanswered));
                }
            }
            Some(OfferStage::Reading(_)) => self.tell(FromHandler::Dropped(Dropped::Unreadable)),
            None => {}
        }
    }

    fn poll_answer(&mut self, cx: &mut Context<'_>) {
        let Some(answering) = &mut self.answer else { return };
        let (command, now) = (answering.command, answering.then_now);
        let said = match answering.talk.poll_unpin(cx) {
            Poll::Ready(said) => said,
            Poll::Pending if answering.deadline.poll_unpin(cx).is_ready() => Err(PunchError::TimedOut),
            Poll::Pending => return,
        };
        self.answer = None;
        self.ended(command, now, said);
    }

    fn ended(&mut self, command: CommandId, now: bool, said: Result<(), PunchError>) {
        match said {
            Ok(()) => {
                if now {
                    self.tell(FromHandler::Now { command });
                }
                self.tell(FromHandler::Ended { command });
            }
            Err(error) => self.failed(command, error),
        }
    }
}

async fn ask(mut talk: Talk, terms: Terms) -> Result<(Talk, Terms, Duration), PunchError> {
    talk.send(Kind::Proposal, &terms).await?;
    let sent = Instant::now();
    let answer = talk.read(Kind::Answer).await?;
    Ok((talk, answer, sent.elapsed()))
}

async fn reply(mut talk: Talk, share: Share, terms: Terms) -> Result<(), PunchError> {
    if share.is_first() {
        Delay::new(HEAD_START).await;
    }
    talk.send(Kind::Answer, &terms).await?;
    if share.has_signal() {
        talk.read(Kind::Signal).await?;
    }
    talk.close().await;
    Ok(())
}

async fn wait_and_signal(mut talk: Talk) -> Result<(), PunchError> {
    Delay::new(HEAD_START).await;
    talk.send(Kind::Signal, &Terms::default()).await?;
    talk.close().await;
    Ok(())
}

async fn signal_and_wait(mut talk: Talk, pause: Duration) -> Result<(), PunchError> {
    talk.send(Kind::Signal, &Terms::default()).await?;
    talk.close().await;
    Delay::new(pause).await;
    Ok(())
}

fn broken(text: &str) -> PunchError {
    PunchError::Broken(text.to_owned())
}

/// The protocols in which proposals are taken.
#[derive(Clone, Debug)]
pub(crate) struct Listens(Vec<StreamProtocol>);

impl UpgradeInfo for Listens {
    type Info = StreamProtocol;
    type InfoIter = std::vec::IntoIter<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.clone().into_iter()
    }
}

impl<C> InboundUpgrade<C> for Listens {
    type Output = (C, StreamProtocol);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: C, name: StreamProtocol) -> Self::Future {
        ready(Ok((stream, name)))
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = ToHandler;
    type ToBehaviour = FromHandler;
    type InboundProtocol = Listens;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = CommandId;

    fn listen_protocol(&self) -> SubstreamProtocol<Listens> {
        SubstreamProtocol::new(Listens(self.listens.clone()), ())
    }

    fn on_behaviour_event(&mut self, event: ToHandler) {
        match event {
            ToHandler::Propose(proposal) => self.propose(proposal),
            ToHandler::Answer { command, offer, share, terms } => self.take_up(command, offer, share, terms),
            ToHandler::Refuse { offer } => drop(self.take_offer(offer)),
            ToHandler::Begun { command } => self.begun(command),
            ToHandler::Drop { command } => {
                self.proposal.take_if(|proposing| proposing.command == command);
                self.answer.take_if(|answering| answering.command == command);
            }
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        if self.out.is_empty() {
            self.poll_proposal(cx);
            self.poll_offer(cx);
            self.poll_answer(cx);
        }
        match self.out.pop_front() {
            Some(event) => Poll::Ready(event),
            None => Poll::Pending,
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "an open list; what else happens is none of our business")]
    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Listens, ReadyUpgrade<StreamProtocol>, (), CommandId>,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol: (stream, name), .. }) => {
                self.knocked(stream, if name == DCUTR { Wire::Dcutr } else { Wire::Kinfolk });
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol, info }) => {
                self.opened(info, protocol);
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error }) => self.not_opened(info, error),
            _ => {}
        }
    }
}

impl fmt::Debug for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handler").field("listens", &self.listens).finish_non_exhaustive()
    }
}
