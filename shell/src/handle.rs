//! The way to a running node from outside of its driver.

use std::{
    fmt,
    ops::Deref,
    path::PathBuf,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use futures::{
    FutureExt, SinkExt, Stream, StreamExt,
    channel::{mpsc, oneshot},
    future::Shared,
};
use kinfolk_core::{Answer, Ask, AskError, Config, LogHead, Notice, PeerAddress, PeerId, Reason, ValidConfig};

use crate::{
    api::{
        logs::Sync,
        types::{Exported, Peer, Snapshot, Status, TraceStatus, WhyEntry},
    },
    feed::{Fed, Feed, Feeder, feed},
    sync::{Logs, PutError},
};

/// Requests of `Control::ask` and its like that may be open at once; the next one is declined with `AskError::Limit`.
pub const MAX_OPEN: usize = 1_024;

/// Requests that may wait for the driver at once; whoever comes then waits for a place.
const QUEUE: usize = 64;

/// Notices that an [`EventStream`] keeps for a slow reader.
pub const MAX_EVENTS: usize = 1_024;

/// The way to a running node whose application behaviour is an `A`. Cheap to clone; any thread may use it.
///
/// Everything but [`Handle::with_behaviour`] is in [`Control`], which it derefs to.
pub struct Handle<A> {
    control: Control,
    calls: Way<Call<A>>,
}

/// The way to a running node, whatever its application. Cheap to clone; any thread may use it.
///
/// The futures run on any executor, and give [`NodeGone`] once the node has shut down.
#[derive(Clone)]
pub struct Control {
    requests: Way<Request>,
    subscribers: Subscribers,
    logs: Option<Logs>,
    ended: Shared<oneshot::Receiver<()>>,
}

/// The node has shut down.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the node has shut down")]
pub struct NodeGone;

/// Why a request was not granted.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RequestError {
    /// The node says no, and why.
    #[error("{0}")]
    Declined(AskError),
    /// There is no node any more.
    #[error(transparent)]
    Gone(#[from] NodeGone),
}

/// Why a trace could not be switched or written.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TraceError {
    /// What went wrong, and where.
    #[error("{0}")]
    Failed(String),
    /// There is no node any more.
    #[error(transparent)]
    Gone(#[from] NodeGone),
}

/// A notice, and why it was given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Told {
    /// The wall clock, milliseconds since 1970.
    pub at_unix_ms: u64,
    /// What happened.
    pub notice: Notice,
    /// Why; its text completes "…, because ".
    pub because: Reason,
}

/// What [`EventStream`] yields: [`Fed::Item`], or [`Fed::Lost`] with the number of events that a slow reader missed.
pub type Heard = Fed<Arc<Told>>;

/// The notices of a node, from the moment of [`Control::events`] on; ends with the node.
#[derive(Debug)]
pub struct EventStream {
    feed: Feed<Arc<Told>>,
}

impl<A: 'static> Handle<A> {
    /// Runs `f` with the application's behaviour, inside the driver; the network is polled right after it.
    ///
    /// `f` must not block: nothing else goes on meanwhile. A panic in it ends the node.
    ///
    /// # Errors
    /// When the node is gone.
    pub async fn with_behaviour<R, F>(&self, f: F) -> Result<R, NodeGone>
    where
        F: FnOnce(&mut A) -> R + Send + 'static,
        R: Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let call: Call<A> = Box::new(move |app| {
            // A caller that no longer waits does not want to know.
            let _ = reply.send(f(app));
        });
        self.calls.send(call).await?;
        answer.await.map_err(|_| NodeGone)
    }
}

impl<A> Handle<A> {
    /// Everything that does not need the application's type.
    pub fn control(&self) -> &Control {
        &self.control
    }
}

impl Control {
    /// Asks for something. The answer may take up to the setting `lifecycle.ask_timeout` (60 s).
    ///
    /// # Errors
    /// When the node declines, or is gone.
    pub async fn ask(&self, ask: Ask) -> Result<Answer, RequestError> {
        self.wait(|reply| Request::Ask { ask, reply }).await?.map_err(RequestError::Declined)
    }

    /// Connects, and remembers the peer as a manual one.
    ///
    /// # Errors
    /// When no connection comes of it, or the node is gone.
    pub async fn connect(&self, to: PeerAddress) -> Result<Answer, RequestError> {
        self.ask(Ask::Connect(to)).await
    }

    /// Ends all connections to a peer, and begins no new ones until somebody asks.
    ///
    /// # Errors
    /// When the node declines, or is gone.
    pub async fn disconnect(&self, peer: PeerId) -> Result<Answer, RequestError> {
        self.ask(Ask::Disconnect(peer)).await
    }

    /// Never gives this peer up.
    ///
    /// # Errors
    /// When the node declines, or is gone.
    pub async fn pin(&self, peer: PeerAddress) -> Result<Answer, RequestError> {
        self.ask(Ask::Pin(peer)).await
    }

    /// Forgets what was said by hand about this peer.
    ///
    /// # Errors
    /// When the node declines, or is gone.
    pub async fn forget(&self, peer: PeerId) -> Result<Answer, RequestError> {
        self.ask(Ask::Forget(peer)).await
    }

    /// Never speaks to this peer.
    ///
    /// # Errors
    /// When the node declines, or is gone.
    pub async fn block(&self, peer: PeerId) -> Result<Answer, RequestError> {
        self.ask(Ask::Block(peer)).await
    }

    /// Undoes `block`.
    ///
    /// # Errors
    /// When the node declines, or is gone.
    pub async fn allow(&self, peer: PeerId) -> Result<Answer, RequestError> {
        self.ask(Ask::Allow(peer)).await
    }

    /// A bootstrap peer more.
    ///
    /// # Errors
    /// When the node declines, or is gone.
    pub async fn add_bootstrap(&self, peer: PeerAddress) -> Result<Answer, RequestError> {
        self.ask(Ask::AddBootstrap(peer)).await
    }

    /// A bootstrap peer less.
    ///
    /// # Errors
    /// When the node declines, or is gone.
    pub async fn remove_bootstrap(&self, peer: PeerAddress) -> Result<Answer, RequestError> {
        self.ask(Ask::RemoveBootstrap(peer)).await
    }

    /// Does not trim this peer's connections, until [`Control::unprotect`].
    ///
    /// # Errors
    /// When the node declines, or is gone.
    pub async fn protect(&self, peer: PeerId) -> Result<Answer, RequestError> {
        self.ask(Ask::Protect(peer)).await
    }

    /// Undoes `protect`.
    ///
    /// # Errors
    /// When the node declines, or is gone.
    pub async fn unprotect(&self, peer: PeerId) -> Result<Answer, RequestError> {
        self.ask(Ask::Unprotect(peer)).await
    }

    /// Tells of the application's data flow with a peer: how far that peer's data has come, in the application's own count
    /// (`None`: as before), and how many requests are open. While some are, its connections are kept.
    ///
    /// # Errors
    /// When the node declines, or is gone.
    pub async fn sync(&self, peer: PeerId, position: Option<u64>, pending: u32) -> Result<Answer, RequestError> {
        self.ask(Ask::Sync { peer, position, pending }).await
    }

    /// New settings while running.
    ///
    /// # Errors
    /// When the node is gone.
    pub async fn configure(&self, config: ValidConfig) -> Result<(), NodeGone> {
        self.wait(|reply| Request::Configure { config: Box::new(config), reply }).await
    }

    /// Everything that is known now.
    ///
    /// # Errors
    /// When the node is gone.
    pub async fn snapshot(&self) -> Result<Snapshot, NodeGone> {
        self.wait(|reply| Request::Snapshot { reply }).await.map(|snapshot| *snapshot)
    }

    /// The node as a whole.
    ///
    /// # Errors
    /// When the node is gone.
    pub async fn status(&self) -> Result<Status, NodeGone> {
        self.wait(|reply| Request::Status { reply }).await.map(|status| *status)
    }

    /// Figures in the text form of OpenMetrics, without its last line. `None`: this node does not count
    /// (`Setup::metrics`). Costs the driver a walk through all peers.
    ///
    /// # Errors
    /// When the node is gone.
    pub async fn metrics(&self) -> Result<Option<String>, NodeGone> {
        self.wait(|reply| Request::Metrics { reply }).await
    }

    /// All peers, by id.
    ///
    /// # Errors
    /// When the node is gone.
    pub async fn peers(&self) -> Result<Vec<Peer>, NodeGone> {
        self.wait(|reply| Request::Peers { reply }).await
    }

    /// Who has what: logs, and how far each peer is.
    ///
    /// # Errors
    /// When the node is gone.
    pub async fn sync_view(&self) -> Result<Sync, NodeGone> {
        self.wait(|reply| Request::Sync { reply }).await?.ok_or(NodeGone)
    }

    /// One peer. `None`: not known.
    ///
    /// # Errors
    /// When the node is gone.
    pub async fn peer(&self, peer: PeerId) -> Result<Option<Peer>, NodeGone> {
        self.wait(|reply| Request::Peer { peer, reply }).await
    }

    /// The reasons of the last decisions about a peer, or about no peer in particular; oldest first.
    ///
    /// # Errors
    /// When the node is gone.
    pub async fn why(&self, peer: Option<PeerId>) -> Result<Vec<WhyEntry>, NodeGone> {
        self.wait(|reply| Request::Why { peer, reply }).await
    }

    /// The settings in force.
    ///
    /// # Errors
    /// When the node is gone.
    pub async fn config(&self) -> Result<Config, NodeGone> {
        self.wait(|reply| Request::Config { reply }).await.map(|config| *config)
    }

    /// The notices from now on.
    pub fn events(&self) -> EventStream {
        self.subscribers.subscribe()
    }

    /// Switches the recording of traces on. What it was before is no matter.
    ///
    /// # Errors
    /// When this node has nowhere to record to, or is gone.
    pub async fn trace_start(&self) -> Result<TraceStatus, TraceError> {
        self.trace(true).await
    }

    /// Switches the recording of traces off; what was recorded stays.
    ///
    /// # Errors
    /// When this node has nowhere to record to, or is gone.
    pub async fn trace_stop(&self) -> Result<TraceStatus, TraceError> {
        self.trace(false).await
    }

    async fn trace(&self, on: bool) -> Result<TraceStatus, TraceError> {
        self.wait(|reply| Request::Trace { on, reply }).await?.map_err(TraceError::Failed)
    }

    /// Writes what was recorded into one file, up to this moment; compressed when the name ends in `.zst`. The file is
    /// whole or not there.
    ///
    /// # Errors
    /// When nothing was recorded, the file can't be written, or the node is gone.
    pub async fn trace_export(&self, file: PathBuf) -> Result<Exported, TraceError> {
        self.wait(|reply| Request::Export { file, reply }).await?.map_err(TraceError::Failed)
    }

    /// The logs of this node and of the others. `None`: it has none, as in tests.
    pub fn logs(&self) -> Option<&Logs> {
        self.logs.as_ref()
    }

    /// Puts an entry into the own log. When this returns, it is on the disk, and others will be told. Gives how far
    /// which log goes now: the entry's number.
    ///
    /// # Errors
    /// When the entry is too long, the store can't write, or the node is gone.
    pub async fn put(&self, entry: impl Into<Vec<u8>>) -> Result<LogHead, PutError> {
        let logs = self.logs.as_ref().ok_or(NodeGone)?;
        logs.put(vec![entry.into()]).await
    }

    /// Ends the node: what is to be remembered is on disk when this returns. Ending what has ended is no error.
    pub async fn shutdown(&self) {
        // Errors mean that it is ending, or has ended.
        let _ = self.requests.send(Request::Shutdown).await;
        let _ = self.ended.clone().await;
    }

    async fn wait<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, NodeGone> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).await?;
        answer.await.map_err(|_| NodeGone)
    }
}

/// A bounded way into the driver. One sender behind a lock: each clone of a sender would bring a place of its own.
pub(crate) struct Way<T>(Arc<futures::lock::Mutex<mpsc::Sender<T>>>);

impl<T> Way<T> {
    pub(crate) fn new() -> (Self, mpsc::Receiver<T>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (Self(Arc::new(futures::lock::Mutex::new(sender))), receiver)
    }

    pub(crate) async fn send(&self, item: T) -> Result<(), NodeGone> {
        self.0.lock().await.send(item).await.map_err(|_| NodeGone)
    }
}

impl<T> Clone for Way<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl Stream for EventStream {
    type Item = Heard;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Heard>> {
        self.feed.poll_next_unpin(cx)
    }
}

/// Something to be done inside the driver with the application's behaviour.
pub(crate) type Call<A> = Box<dyn FnOnce(&mut A) + Send>;

/// What a handle sends to the driver.
pub(crate) enum Request {
    Ask { ask: Ask, reply: oneshot::Sender<Result<Answer, AskError>> },
    Configure { config: Box<ValidConfig>, reply: oneshot::Sender<()> },
    Snapshot { reply: oneshot::Sender<Box<Snapshot>> },
    Status { reply: oneshot::Sender<Box<Status>> },
    Metrics { reply: oneshot::Sender<Option<String>> },
    Peers { reply: oneshot::Sender<Vec<Peer>> },
    Sync { reply: oneshot::Sender<Option<Sync>> },
    Peer { peer: PeerId, reply: oneshot::Sender<Option<Peer>> },
    Why { peer: Option<PeerId>, reply: oneshot::Sender<Vec<WhyEntry>> },
    Config { reply: oneshot::Sender<Box<Config>> },
    Trace { on: bool, reply: oneshot::Sender<Result<TraceStatus, String>> },
    Export { file: PathBuf, reply: oneshot::Sender<Result<Exported, String>> },
    Shutdown,
}

/// Who listens to notices. `None`: the driver has ended.
#[derive(Clone)]
pub(crate) struct Subscribers(Arc<Mutex<Option<Feeders>>>);

type Feeders = Vec<Feeder<Arc<Told>>>;

impl Subscribers {
    fn subscribe(&self) -> EventStream {
        let (feeder, feed) = feed(MAX_EVENTS);
        if let Some(feeders) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            feeders.retain(Feeder::is_read);
            feeders.push(feeder);
        }
        EventStream { feed }
    }

    pub(crate) fn tell(&self, told: &Arc<Told>) {
        if let Some(feeders) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            feeders.retain(|feeder| feeder.feed(Arc::clone(told)));
        }
    }

    /// Ends all streams, once they are read.
    pub(crate) fn close(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// The driver's ends of a [`Handle`].
pub(crate) struct Ends<A> {
    pub(crate) requests: mpsc::Receiver<Request>,
    pub(crate) calls: mpsc::Receiver<Call<A>>,
    pub(crate) subscribers: Subscribers,
    /// Dropped when everything is over.
    pub(crate) ended: Option<oneshot::Sender<()>>,
}

impl<A> Drop for Ends<A> {
    /// Also when the driver is dropped before its end.
    fn drop(&mut self) {
        self.subscribers.close();
    }
}

pub(crate) fn handle<A>(logs: Option<Logs>) -> (Handle<A>, Ends<A>) {
    let (to_driver, requests) = Way::new();
    let (to_app, calls) = Way::new();
    let subscribers = Subscribers(Arc::new(Mutex::new(Some(vec![]))));
    let (end, ended) = oneshot::channel();
    let control = Control { requests: to_driver, subscribers: subscribers.clone(), logs, ended: ended.shared() };
    (Handle { control, calls: to_app }, Ends { requests, calls, subscribers, ended: Some(end) })
}

impl<A> Clone for Handle<A> {
    fn clone(&self) -> Self {
        Self { control: self.control.clone(), calls: self.calls.clone() }
    }
}

impl<A> Deref for Handle<A> {
    type Target = Control;

    fn deref(&self) -> &Control {
        &self.control
    }
}

impl<A> fmt::Debug for Handle<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").finish_non_exhaustive()
    }
}
