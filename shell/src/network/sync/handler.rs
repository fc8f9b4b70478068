//! The talk about logs on one connection.

use std::{
    collections::{HashSet, VecDeque},
    io,
    task::{Context, Poll},
    time::Duration,
};

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use futures_bounded::{Delay, FuturesMap, FuturesSet};
use kinfolk_core::{CommandId, EntryHash, LogHead, LogId, SyncError, Told};
use libp2p::{
    core::upgrade::{NegotiationError, ReadyUpgrade},
    swarm::{
        ConnectionHandler, ConnectionHandlerEvent, Stream, StreamProtocol, StreamUpgradeError, SubstreamProtocol,
        handler::{ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound},
    },
};
use serde_bytes::ByteArray;

use super::{super::errors, serving::Serving};
use crate::sync::{
    Logs, Stored,
    wire::{self, MAX_HEADS_ANSWER, MAX_RANGE_ANSWER, MAX_REQUEST, PAGE, Request, Response},
};

/// Requests of ours at a time on one connection. The core has fewer.
const MAX_ASKED: usize = 16;
/// The core gives up long before; this only bounds what is kept if it doesn't.
const ASK_PATIENCE: Duration = Duration::from_secs(180);
/// Requests of the peer at a time.
const MAX_SERVED: usize = 8;
/// A peer that takes longer, to ask or to read, is cut: 1 MiB in this time is 17 KiB/s.
const SERVE_PATIENCE: Duration = Duration::from_secs(60);
/// Pages of an exchange: as many logs as a store has at most.
const MAX_PAGES: u32 = 64;

/// What the behaviour wants.
#[derive(Debug)]
pub(in crate::network) enum ToHandler {
    Ask(Ask),
    Drop(CommandId),
}

/// A request of the core.
#[derive(Clone, Debug)]
pub(in crate::network) struct Ask {
    pub(super) command: CommandId,
    pub(super) what: What,
}

#[derive(Clone, Debug)]
pub(super) enum What {
    /// The last log of the page before, and how many pages there were.
    Exchange {
        after: Option<LogId>,
        pages: u32,
    },
    Announce {
        heads: Vec<LogHead>,
    },
    Range {
        log: LogId,
        since: u64,
        limit: u32,
    },
}

/// What happens on the connection.
#[derive(Debug)]
pub(in crate::network) enum FromHandler {
    /// A part of the answer to an exchange or an announcement.
    Told { command: CommandId, told: Told, last: bool },
    /// A range is stored.
    Fetched { command: CommandId, log: LogId, stored: Stored, has_more: bool },
    /// A request of ours has failed.
    Failed { command: CommandId, error: SyncError },
    /// What the peer's request says of its logs.
    Heard(Told),
    /// A request of the peer that was not answered.
    Dropped,
}

/// See the module.
pub(in crate::network) struct Handler {
    protocol: Option<StreamProtocol>,
    logs: Option<Logs>,
    serving: Serving,
    /// Those that nobody has dropped.
    wanted: HashSet<CommandId>,
    queue: VecDeque<Ask>,
    asked: FuturesMap<CommandId, Result<Answer, SyncError>>,
    served: FuturesSet<io::Result<Option<Told>>>,
    out: VecDeque<FromHandler>,
}

/// What came of a request of ours.
enum Answer {
    Same,
    Heads { heads: Vec<LogHead>, next: Option<Ask> },
    Stored { log: LogId, stored: Stored, has_more: bool },
}

impl Handler {
    /// Without logs it does nothing.
    pub(super) fn new(protocol: StreamProtocol, logs: Option<Logs>, serving: Serving) -> Self {
        Self {
            protocol: logs.is_some().then_some(protocol),
            logs,
            serving,
            wanted: HashSet::new(),
            queue: VecDeque::new(),
            asked: FuturesMap::new(|| Delay::futures_timer(ASK_PATIENCE), MAX_ASKED),
            served: FuturesSet::new(|| Delay::futures_timer(SERVE_PATIENCE), MAX_SERVED),
            out: VecDeque::new(),
        }
    }

    fn talk(&mut self, stream: Stream, ask: Ask) {
        let Some(logs) = self.logs.clone() else { return };
        let command = ask.command;
        if self.wanted.contains(&command) && self.asked.try_push(command, talk(stream, ask, logs)).is_err() {
            self.failed(command, SyncError::Other("too many requests at once".to_owned()));
        }
    }

    fn failed(&mut self, command: CommandId, error: SyncError) {
        if self.wanted.remove(&command) {
            self.out.push_back(FromHandler::Failed { command, error });
        }
    }

    fn answered(&mut self, command: CommandId, answer: Answer) {
        if !self.wanted.contains(&command) {
            return;
        }
        let out = match answer {
            Answer::Same => FromHandler::Told { command, told: Told::Same, last: true },
            Answer::Heads { heads, next: Some(next) } => {
                self.queue.push_back(next);
                self.out.push_back(FromHandler::Told { command, told: Told::Heads(heads), last: false });
                return;
            }
            Answer::Heads { heads, next: None } => FromHandler::Told { command, told: Told::Heads(heads), last: true },
            Answer::Stored { log, stored, has_more } => FromHandler::Fetched { command, log, stored, has_more },
        };
        self.wanted.remove(&command);
        self.out.push_back(out);
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = ToHandler;
    type ToBehaviour = FromHandler;
    type InboundProtocol = Offer;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Ask;

    fn listen_protocol(&self) -> SubstreamProtocol<Offer> {
        SubstreamProtocol::new(Offer(self.protocol.clone()), ())
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<ReadyUpgrade<StreamProtocol>, Ask, FromHandler>> {
        while let Poll::Ready((command, result)) = self.asked.poll_unpin(cx) {
            match result {
                Ok(Ok(answer)) => self.answered(command, answer),
                Ok(Err(error)) => self.failed(command, error),
                Err(_) => self.failed(command, SyncError::TimedOut),
            }
        }
        while let Poll::Ready(result) = self.served.poll_unpin(cx) {
            match result {
                Ok(Ok(Some(told))) => self.out.push_back(FromHandler::Heard(told)),
                Ok(Ok(None)) => {}
                Ok(Err(_)) | Err(_) => self.out.push_back(FromHandler::Dropped),
            }
        }
        if let Some(event) = self.out.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(event));
        }
        if let (Some(protocol), Some(ask)) = (&self.protocol, self.queue.pop_front()) {
            let protocol = SubstreamProtocol::new(ReadyUpgrade::new(protocol.clone()), ask);
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, event: ToHandler) {
        match event {
            ToHandler::Ask(ask) => {
                self.wanted.insert(ask.command);
                self.queue.push_back(ask);
            }
            ToHandler::Drop(command) => {
                self.wanted.remove(&command);
                self.queue.retain(|ask| ask.command != command);
                drop(self.asked.remove(command));
            }
        }
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Offer, ReadyUpgrade<StreamProtocol>, (), Ask>) {
        if let ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol: stream, .. }) = event {
            let Some(logs) = self.logs.clone() else { return };
            let serving = self.serving.clone();
            if self.served.try_push(serve(stream, logs, serving)).is_err() {
                self.out.push_back(FromHandler::Dropped);
            }
        } else if let ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol, info }) = event {
            self.talk(protocol, info);
        } else if let ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error }) = event {
            let error = match error {
                StreamUpgradeError::NegotiationFailed => SyncError::Unsupported,
                StreamUpgradeError::Timeout => SyncError::TimedOut,
                StreamUpgradeError::Io(error) => broken(&error),
                StreamUpgradeError::Apply(never) => match never {},
            };
            self.failed(info.command, error);
        }
    }
}

/// Asks, and does what the answer needs.
async fn talk<S: AsyncRead + AsyncWrite + Unpin>(stream: S, ask: Ask, logs: Logs) -> Result<Answer, SyncError> {
    match ask.what {
        What::Exchange { after, pages } => {
            let digest = ByteArray::new(logs.digest().0);
            let request = Request::Exchange { digest, after: after.as_ref().map(wire::from_log) };
            let (heads, has_more) = match say(stream, &request, MAX_HEADS_ANSWER).await? {
                Response::Same if after.is_none() => return Ok(Answer::Same),
                Response::Heads { heads, has_more } => (wire::to_heads(heads, PAGE)?, has_more),
                Response::Same | Response::Range { .. } | Response::Busy | Response::Denied | Response::NotThere => {
                    return Err(SyncError::Malformed);
                }
            };
            // So that it comes to an end.
            let ordered =
                heads.iter().try_fold(after, |before, head| (before < Some(head.log)).then_some(Some(head.log)));
            let last = ordered.ok_or(SyncError::Malformed)?;
            if has_more && (heads.is_empty() || pages + 1 >= MAX_PAGES) {
                return Err(SyncError::Malformed);
            }
            let next = || Ask { command: ask.command, what: What::Exchange { after: last, pages: pages + 1 } };
            Ok(Answer::Heads { heads, next: has_more.then(next) })
        }
        What::Announce { heads } => {
            let request = Request::Announce { heads: wire::from_heads(&heads) };
            match say(stream, &request, MAX_HEADS_ANSWER).await? {
                Response::Heads { heads: answer, has_more: false } => {
                    Ok(Answer::Heads { heads: wire::to_heads(answer, heads.len())?, next: None })
                }
                Response::Heads { .. }
                | Response::Same
                | Response::Range { .. }
                | Response::Busy
                | Response::Denied
                | Response::NotThere => Err(SyncError::Malformed),
            }
        }
        What::Range { log, since, limit } => {
            let request = Request::Range { log: wire::from_log(&log), since, limit };
            match say(stream, &request, MAX_RANGE_ANSWER).await? {
                Response::Range { before, entries, has_more } => {
                    let sent = wire::to_range(log, since, before, entries);
                    let stored = logs.store(sent).await?;
                    Ok(Answer::Stored { log, stored, has_more })
                }
                Response::Heads { .. } | Response::Same | Response::Busy | Response::Denied | Response::NotThere => {
                    Err(SyncError::Malformed)
                }
            }
        }
    }
}

/// Sends a request, and reads the answer. What the peer declines with is an error.
async fn say<S>(mut stream: S, request: &Request, max: u64) -> Result<Response, SyncError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let bytes = async {
        stream.write_all(&wire::encode(request)).await?;
        stream.close().await?;
        read(&mut stream, max).await
    };
    match wire::decode(&bytes.await.map_err(|error| broken(&error))?)? {
        Response::Busy => Err(SyncError::Busy),
        Response::Denied => Err(SyncError::Denied),
        Response::NotThere => Err(SyncError::NotThere),
        answer @ (Response::Same | Response::Heads { .. } | Response::Range { .. }) => Ok(answer),
    }
}

/// Answers one request. What it says of the peer's logs comes back.
async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    logs: Logs,
    serving: Serving,
) -> io::Result<Option<Told>> {
    let request = read(&mut stream, MAX_REQUEST).await?;
    // Whatever the peer has asked, its bytes are not kept while the answer is made.
    let request = wire::decode(&request).map_err(unreadable)?;
    let mut heard = None;
    let mut place = None;
    let response = if !serving.is_for_peer() {
        Response::Denied
    } else if !serving.in_time() {
        Response::Busy
    } else {
        match request {
            Request::Exchange { digest, after } => {
                let after = after.as_ref().map(wire::to_log).transpose().map_err(unreadable)?;
                let same = EntryHash(digest.into_array()) == logs.digest();
                if after.is_none() {
                    heard = Some(if same { Told::Same } else { Told::Differs });
                }
                if same && after.is_none() {
                    Response::Same
                } else {
                    let (heads, has_more) = logs.heads_after(after.as_ref(), PAGE);
                    Response::Heads { heads: wire::from_heads(&heads), has_more }
                }
            }
            Request::Announce { heads } => {
                let theirs = wire::announced(heads).map_err(unreadable)?;
                let ours: Vec<LogHead> =
                    theirs.iter().map(|theirs| LogHead { log: theirs.log, head: logs.head(&theirs.log) }).collect();
                heard = Some(Told::Heads(theirs));
                Response::Heads { heads: wire::from_heads(&ours), has_more: false }
            }
            Request::Range { log, since, limit } => {
                let log = wire::to_log(&log).map_err(unreadable)?;
                place = serving.place();
                match &place {
                    None => Response::Busy,
                    Some(_) => match logs.range(log, since, limit).await {
                        Ok(range) => wire::from_range(range),
                        Err(SyncError::NotThere) => Response::NotThere,
                        Err(_) => Response::Busy,
                    },
                }
            }
        }
    };
    let sent = async {
        stream.write_all(&wire::encode(&response)).await?;
        stream.close().await
    };
    // What was heard is worth something, whatever becomes of the answer.
    let sent = sent.await;
    drop(place);
    match heard {
        Some(told) => Ok(Some(told)),
        None => sent.map(|()| None),
    }
}

/// Everything up to the end of the stream; more than `max` is an error.
async fn read<S: AsyncRead + Unpin>(stream: &mut S, max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![];
    stream.take(max + 1).read_to_end(&mut bytes).await?;
    if bytes.len() as u64 > max {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the message is too long"));
    }
    Ok(bytes)
}

fn unreadable(error: SyncError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
}

fn broken(error: &io::Error) -> SyncError {
    // Negotiated lazily, it shows only when the stream is used.
    if error.get_ref().is_some_and(|inner| inner.is::<NegotiationError>()) {
        return SyncError::Unsupported;
    }
    if error.kind() == io::ErrorKind::InvalidData {
        return SyncError::Malformed;
    }
    SyncError::Other(errors::text(error))
}

/// The protocol, if it is spoken here.
#[derive(Clone, Debug)]
pub(in crate::network) struct Offer(Option<StreamProtocol>);

impl libp2p::core::UpgradeInfo for Offer {
    type Info = StreamProtocol;
    type InfoIter = std::option::IntoIter<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.clone().into_iter()
    }
}

impl libp2p::core::InboundUpgrade<Stream> for Offer {
    type Output = Stream;
    type Error = std::convert::Infallible;
    type Future = std::future::Ready<Result<Stream, Self::Error>>;

    fn upgrade_inbound(self, stream: Stream, _: StreamProtocol) -> Self::Future {
        std::future::ready(Ok(stream))
    }
}
