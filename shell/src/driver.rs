//! The driver: carries events to the core and its commands to the world.
//!
//! One loop: an event in, the commands out, sleep until the core's deadline or the next event. It decides nothing, and
//! waits for nobody: not for the disk, not for a slow listener. It runs on any executor; its timers have a thread of
//! their own (futures-timer).

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::{
    Stream, StreamExt,
    channel::oneshot,
    future::{BoxFuture, select},
    stream::BoxStream,
};
use futures_timer::Delay;
use kinfolk_core::{
    Action, Answer, AskError, Command, Config, Deadline, Event, Node, Notice, Refusal, RequestId, Started, StoredPeer,
    Time, trace::Frame,
};

use crate::{
    api::types::{Peer, Snapshot, Status, TraceStatus},
    clock::{self, Clock},
    feed::{Feed, Feeder, feed},
    handle::{Call, Ends, Handle, MAX_OPEN, Request, Told, handle},
    metrics::Metrics,
    signal::client::Client as SignalClient,
    snapshot::{self, Around},
    store::Store,
    sync::Logs,
    trace::Recorder,
    why::Why,
};

/// Application events that are kept for a slow reader.
pub const MAX_APP_EVENTS: usize = 1_024;

/// The clocks are compared at least this often, to notice a sleep of the machine: timers stand still in it.
const LOOK_AT_CLOCKS: Duration = Duration::from_secs(15);

/// What the wall clock says is told this often.
const TELL_WALL_CLOCK: Duration = Duration::from_secs(600);

/// A deadline that has passed and does not go away is tried this often. It would be a mistake of the core; it must not
/// become a hot processor.
const PAST_DEADLINE: Duration = Duration::from_millis(10);

/// After so many turns without a pause, others on the same thread get theirs.
const TURNS: u32 = 64;

/// How long a farewell to the world may take at shutdown.
const FAREWELL: Duration = Duration::from_millis(500);

/// Connections count as closed before their last packets are out (QUIC); those need a process that lives.
const LAST_PACKETS: Duration = Duration::from_millis(100);

/// What the driver moves: the network, or a test's idea of it. A stream of what happens; the driver ends with it.
pub trait World: Stream<Item = Happened<Self::AppEvent>> + Unpin {
    /// The application's own behaviour.
    type App: 'static;
    /// What it says.
    type AppEvent;

    /// Does what is commanded. Must not block. What fails at once makes an event like what fails later. Commands that
    /// are not for the world (`Answer`, `Tell`, `Remember`, `Forget`) are shown too.
    fn execute(&mut self, command: &Command);

    /// A peer that an earlier run remembers, before the core is told of it. `Action::Remember` says the same of what is
    /// new.
    fn remember(&mut self, stored: &StoredPeer) {
        let _ = stored;
    }

    /// The application's own behaviour. The world is polled after it was lent out.
    fn app_mut(&mut self) -> &mut Self::App;

    /// What is worth counting, by name, for `Status::counters`.
    fn counters(&self, counters: &mut BTreeMap<String, u64>) {
        let _ = counters;
    }

    /// How much stands: connections, say.
    fn standing(&self) -> usize {
        0
    }

    /// Begins to end what stands, politely, so that the other sides need not wait for silence. The world is polled on for
    /// a moment, until nothing stands any more.
    fn farewell(&mut self) {}
}

/// What happens in the world.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Happened<E> {
    /// Something for the core.
    Core(Event),
    /// Something for the application.
    App(E),
}

/// What a driver is given beside its world.
pub struct Setup {
    /// The core's first event.
    pub started: Started,
    /// Program and version, for the status.
    pub agent: String,
    /// The data folder, for the status.
    pub data_dir: Option<String>,
    /// The clock; `Started` is handed in at its present time.
    pub clock: Clock,
    /// Events from elsewhere than the world: what the store remembers, interfaces. May end.
    pub inputs: BoxStream<'static, Event>,
    /// Where to remember peers.
    pub store: Option<Store>,
    /// Where to record.
    pub recorder: Option<Recorder>,
    /// The logs, which are closed at the end.
    pub logs: Option<Logs>,
    /// Asks signal servers. `None`: such commands are refused.
    pub signal: Option<SignalClient>,
    /// The core's timers may be late by this, so that several go off together, and those that are near by an eighth of what
    /// is left at most. The core loses nothing by it. The clocks are compared less often, too.
    pub slack: Duration,
    /// Whether to count for `Control::metrics`; without it, that costs nothing.
    pub metrics: bool,
    /// What is to be done last, before `shutdown` returns.
    pub finish: BoxFuture<'static, ()>,
}

/// Carries events to the core and its commands to the world. [`Driver::run`] is to be spawned.
pub struct Driver<W: World> {
    node: Node,
    world: W,
    clock: Clock,
    inputs: futures::stream::Fuse<BoxStream<'static, Event>>,
    ends: Ends<W::App>,
    app: Feeder<W::AppEvent>,
    config: Config,
    agent: String,
    data_dir: Option<String>,
    store: Option<Store>,
    recorder: Option<Recorder>,
    logs: Option<Logs>,
    signal: Option<SignalClient>,
    finish: BoxFuture<'static, ()>,
    why: Why,
    metrics: Option<Metrics>,
    asks: BTreeMap<RequestId, oneshot::Sender<Result<Answer, AskError>>>,
    next_request: u64,
    timer: Timer,
    slack: Slack,
    /// When to tell what the wall clock says.
    wall_clock_at: Time,
    /// When to compare the clocks.
    clocks_at: Time,
    world_is_over: bool,
    /// Which source is looked at first.
    turn: u8,
    started: Option<Started>,
    /// What was asked of a part that is not there.
    refused: VecDeque<Event>,
    counters: Counters,
}

#[derive(Debug, Default)]
struct Counters {
    inputs: u64,
    commands: u64,
    past_deadlines: u64,
    sleeps: u64,
    timer: u64,
}

/// What woke the driver.
enum Turn<W: World> {
    Request(Request),
    Call(Call<W::App>),
    Input(Event),
    World(Happened<W::AppEvent>),
    /// All handles are gone, or the world is.
    Left,
    Time,
}

impl<W: World> Driver<W> {
    /// A driver, the way to it, and what the application's behaviour says: at most [`MAX_APP_EVENTS`] wait there, then
    /// the oldest are lost and counted. Dropping that feed is fine.
    pub fn new(world: W, setup: Setup) -> (Self, Handle<W::App>, Feed<W::AppEvent>) {
        let (handle, ends) = handle(setup.logs.clone());
        let (app, app_events) = feed(MAX_APP_EVENTS);
        let config: &Config = &setup.started.config;
        let metrics = setup.metrics.then(|| Metrics::new(&setup.agent, config.role, &config.network));
        let driver = Self {
            node: Node::new(),
            world,
            clock: setup.clock,
            inputs: setup.inputs.fuse(),
            ends,
            app,
            config: setup.started.config.clone().into(),
            agent: setup.agent,
            data_dir: setup.data_dir,
            store: setup.store,
            recorder: setup.recorder,
            logs: setup.logs,
            signal: setup.signal,
            finish: setup.finish,
            why: Why::default(),
            metrics,
            asks: BTreeMap::new(),
            next_request: 1,
            timer: Timer::default(),
            slack: Slack { most: setup.slack, ..Slack::default() },
            wall_clock_at: Time::ZERO,
            clocks_at: Time::ZERO,
            world_is_over: false,
            turn: 0,
            started: Some(setup.started),
            refused: VecDeque::new(),
            counters: Counters::default(),
        };
        (driver, handle, app_events)
    }

    /// Runs until [`crate::handle::Control::shutdown`], or until all handles or the world are gone.
    pub async fn run(mut self) {
        if let Some(started) = self.started.take() {
            self.input(Event::Started(Box::new(started)));
        }
        let mut turns = 0;
        loop {
            turns += 1;
            if turns >= TURNS {
                turns = 0;
                pause().await;
            }
            match poll_fn(|cx| self.next(cx)).await {
                Turn::Request(Request::Shutdown) | Turn::Left => break,
                Turn::Request(request) => self.request(request),
                Turn::Call(call) => call(self.world.app_mut()),
                Turn::Input(event) | Turn::World(Happened::Core(event)) => {
                    self.look_at_clocks();
                    self.input(event);
                }
                Turn::World(Happened::App(event)) => {
                    // Whether anybody listens is the application's business.
                    let _ = self.app.feed(event);
                }
                Turn::Time => self.time(),
            }
        }
        self.end().await;
    }

    /// The next thing to do. Sources take turns in being looked at first, so none can starve another.
    fn next(&mut self, cx: &mut Context<'_>) -> Poll<Turn<W>> {
        const SOURCES: u8 = 6;
        if let Some(event) = self.refused.pop_front() {
            return Poll::Ready(Turn::Input(event));
        }
        for _ in 0..SOURCES {
            let source = self.turn;
            self.turn = (self.turn + 1) % SOURCES;
            let turn = match source {
                0 => match self.ends.requests.poll_next_unpin(cx) {
                    Poll::Ready(Some(request)) => Poll::Ready(Turn::Request(request)),
                    Poll::Ready(None) => Poll::Ready(Turn::Left),
                    Poll::Pending => Poll::Pending,
                },
                1 => some(self.ends.calls.poll_next_unpin(cx)).map(Turn::Call),
                2 => some(self.inputs.poll_next_unpin(cx)).map(Turn::Input),
                3 => match self.world.poll_next_unpin(cx) {
                    Poll::Ready(Some(happened)) => Poll::Ready(Turn::World(happened)),
                    Poll::Ready(None) => {
                        self.world_is_over = true;
                        Poll::Ready(Turn::Left)
                    }
                    Poll::Pending => Poll::Pending,
                },
                4 => match &mut self.signal {
                    Some(signal) => some(signal.poll_next_unpin(cx)).map(Turn::Input),
                    None => Poll::Pending,
                },
                _ => {
                    let wake_at = self.wake_at();
                    self.timer.poll(cx, self.clock.now(), wake_at).map(|()| Turn::Time)
                }
            };
            if turn.is_ready() {
                return turn;
            }
        }
        Poll::Pending
    }

    /// When to wake without any event.
    fn wake_at(&mut self) -> Time {
        let now = self.clock.now();
        let deadline = self.node.next_deadline().map_or(Time::MAX, |deadline| self.slack.after(now, deadline.at));
        let disk = self.disk_in().map_or(Time::MAX, |left| now + left);
        deadline.min(self.wall_clock_at).min(self.clocks_at).min(disk)
    }

    /// After this, there is something to write.
    fn disk_in(&self) -> Option<Duration> {
        let store = self.store.as_ref().and_then(Store::due_in);
        store.into_iter().chain(self.recorder.as_ref().and_then(Recorder::due_in)).min()
    }

    /// The timer has gone off.
    fn time(&mut self) {
        self.counters.timer += 1;
        self.look_at_clocks();
        let now = self.clock.now();
        if now >= self.wall_clock_at {
            self.wall_clock_at = now + TELL_WALL_CLOCK;
            self.input(clock::wall_clock());
        }
        let is_over = |left: Option<Duration>| left.is_some_and(|left| left.is_zero());
        if let Some(store) = self.store.as_ref().filter(|store| is_over(store.due_in())) {
            store.write();
        }
        if let Some(recorder) = self.recorder.as_mut().filter(|recorder| is_over(recorder.due_in())) {
            recorder.flush();
        }
        let is_due = |deadline: Option<Deadline>| deadline.is_some_and(|deadline| deadline.at <= now);
        if let Some(deadline) = self.node.next_deadline().filter(|deadline| deadline.at <= now) {
            if let Some(metrics) = &self.metrics {
                metrics.woken(now.since(deadline.at));
            }
            self.input(Event::Wake);
            if is_due(self.node.next_deadline()) {
                self.counters.past_deadlines += 1;
                self.timer.not_before(now + PAST_DEADLINE);
            }
        }
    }

    /// Notices when the machine has slept.
    fn look_at_clocks(&mut self) {
        self.clocks_at = self.clock.now() + LOOK_AT_CLOCKS.max(self.slack.most * 12);
        if let Some(asleep) = self.clock.slept() {
            self.counters.sleeps += 1;
            tracing::info!(seconds = asleep.as_secs(), "the machine has slept");
            self.input(Event::Resumed { asleep });
            self.wall_clock_at = self.clock.now();
        }
    }

    /// One input: hand in, drain, carry out.
    fn input(&mut self, event: Event) {
        let now = self.clock.now();
        tracing::trace!(?event, %now, "event");
        self.counters.inputs += 1;
        if let Event::Configured(config) = &event {
            self.config = (**config).clone().into();
        }
        if let Event::StoreLoaded { peers, .. } = &event {
            peers.iter().for_each(|stored| self.world.remember(stored));
        }
        let recorded = match &mut self.recorder {
            Some(recorder) if recorder.is_recording() => {
                recorder.before(now, clock::unix_secs(), &self.node);
                Some(event.clone())
            }
            Some(recorder) => {
                recorder.passed();
                None
            }
            None => None,
        };
        if let Some(metrics) = &mut self.metrics {
            metrics.event(&event);
        }
        self.node.handle(now, event);
        let mut out = vec![];
        let mut answers = vec![];
        while let Some(command) = self.node.next_command() {
            self.counters.commands += 1;
            tracing::debug!(command = %command.id, peer = ?command.peer(), action = %command.action, because = %command.reason, "command");
            self.why.note(now, clock::unix_secs(), &command);
            if let Some(metrics) = &mut self.metrics {
                metrics.command(&command);
            }
            self.world.execute(&command);
            self.carry_out(&command, &mut answers);
            if recorded.is_some() {
                out.push(command);
            }
        }
        if let (Some(event), Some(recorder)) = (recorded, &mut self.recorder) {
            recorder.after(Frame { t: now, r#in: event, out });
        }
        self.answer(answers);
    }

    /// What is not the world's.
    fn carry_out(&mut self, command: &Command, answers: &mut Vec<(RequestId, Result<Answer, AskError>)>) {
        match &command.action {
            Action::Answer { request, answer } => answers.push((*request, answer.clone())),
            Action::Tell(notice) => {
                log(command, notice);
                let told =
                    Told { at_unix_ms: clock::unix_millis(), notice: notice.clone(), because: command.reason.clone() };
                self.ends.subscribers.tell(&Arc::new(told));
            }
            Action::Remember(stored) => {
                if let Some(store) = &self.store {
                    store.remember(stored.clone());
                }
            }
            Action::RememberNat(nat) => {
                if let Some(store) = &self.store {
                    store.remember_nat(nat.clone());
                }
            }
            Action::Forget { peer } => {
                if let Some(store) = &self.store {
                    store.forget(*peer);
                }
            }
            Action::SignalQuery { .. } | Action::SignalPublish { .. } | Action::SignalCancel { .. } => {
                if let Some(signal) = &mut self.signal {
                    signal.execute(command);
                } else if !matches!(command.action, Action::SignalCancel { .. }) {
                    self.refuse(command);
                }
            }
            Action::Dial { .. }
            | Action::Close { .. }
            | Action::Release { .. }
            | Action::Refuse { .. }
            | Action::Deny { .. }
            | Action::Admit { .. }
            | Action::Listen { .. }
            | Action::Advertise { .. }
            | Action::Withdraw { .. }
            | Action::PushIdentity
            | Action::Probe { .. }
            | Action::CancelProbe { .. }
            | Action::Reserve { .. }
            | Action::Unreserve { .. }
            | Action::Punch { .. }
            | Action::AnswerPunch { .. }
            | Action::RefusePunch { .. }
            | Action::CancelPunch { .. }
            | Action::MapPort { .. }
            | Action::UnmapPort { .. }
            | Action::SetServices { .. }
            | Action::SetSync { .. }
            | Action::SyncExchange { .. }
            | Action::SyncAnnounce { .. }
            | Action::SyncFetch { .. }
            | Action::SyncCancel { .. }
            | Action::SetMember { .. }
            | Action::SetKademliaServer { .. }
            | Action::Route { .. }
            | Action::Unroute { .. }
            | Action::Query(_)
            | Action::CancelQuery { .. } => {}
        }
    }

    /// The part that could do it is not there.
    fn refuse(&mut self, command: &Command) {
        self.refused.push_back(Event::Refused { command: command.id, refusal: Refusal::NotBuiltIn });
    }

    /// Answers come after everything else of the same input, and when what was said by hand is on disk.
    fn answer(&mut self, answers: Vec<(RequestId, Result<Answer, AskError>)>) {
        for (request, answer) in answers {
            let Some(reply) = self.asks.remove(&request) else { continue };
            // Whoever asked may have gone.
            let reply = move || drop(reply.send(answer));
            match &self.store {
                Some(store) => store.then(reply),
                None => reply(),
            }
        }
    }

    fn request(&mut self, request: Request) {
        let now = self.clock.now();
        // Whoever asked may have gone: so no reply below is sure to arrive, and none needs to.
        match request {
            Request::Ask { ask, reply } => {
                self.asks.retain(|_, reply| !reply.is_canceled());
                if self.asks.len() >= MAX_OPEN {
                    let _ = reply.send(Err(AskError::Limit(format!("{MAX_OPEN} requests are open"))));
                    return;
                }
                let request = RequestId(self.next_request);
                self.next_request += 1;
                self.asks.insert(request, reply);
                self.look_at_clocks();
                self.input(Event::Asked { request, ask });
            }
            Request::Configure { config, reply } => {
                self.input(Event::Configured(config));
                let _ = reply.send(());
            }
            Request::Snapshot { reply } => {
                if let Some(status) = self.status(now) {
                    let _ = reply.send(Box::new(Snapshot { status, peers: self.peers(now) }));
                }
            }
            Request::Status { reply } => {
                if let Some(status) = self.status(now) {
                    let _ = reply.send(Box::new(status));
                }
            }
            Request::Metrics { reply } => {
                let uptime = now.since(Time::ZERO);
                let tell = |metrics: &Metrics| metrics.tell(self.node.view().as_ref(), uptime, &self.count());
                let _ = reply.send(self.metrics.as_ref().map(tell));
            }
            Request::Peers { reply } => {
                let _ = reply.send(self.peers(now));
            }
            Request::Sync { reply } => {
                let _ = reply.send(self.node.view().map(|view| snapshot::sync(&view, now)));
            }
            Request::Peer { peer, reply } => {
                let seen = self.node.view().and_then(|view| view.peer(&peer).map(|seen| snapshot::peer(now, seen)));
                let _ = reply.send(seen);
            }
            Request::Why { peer, reply } => {
                let _ = reply.send(self.why.entries(peer.as_ref(), now));
            }
            Request::Config { reply } => {
                let _ = reply.send(Box::new(self.config.clone()));
            }
            Request::Trace { on, reply } => {
                let status = match &mut self.recorder {
                    Some(recorder) => {
                        if on {
                            recorder.start();
                        } else {
                            recorder.stop();
                        }
                        Ok(recorder.status())
                    }
                    None => Err(NO_TRACE.to_owned()),
                };
                let _ = reply.send(status);
            }
            Request::Export { file, reply } => match &self.recorder {
                Some(recorder) => recorder.export(file, reply),
                None => drop(reply.send(Err(NO_TRACE.to_owned()))),
            },
            // Ends the loop, which sees it first.
            Request::Shutdown => {}
        }
    }

    fn status(&self, now: Time) -> Option<Status> {
        let view = self.node.view()?;
        let trace = self.recorder.as_ref().map_or_else(TraceStatus::default, Recorder::status);
        let data_dir = self.data_dir.as_deref();
        let counters = self.count();
        let around = Around { now, config: &self.config, agent: &self.agent, data_dir, trace, counters };
        Some(snapshot::status(&view, around))
    }

    fn peers(&self, now: Time) -> Vec<Peer> {
        self.node.view().map_or_else(Vec::new, |view| snapshot::peers(&view, now))
    }

    fn count(&self) -> BTreeMap<String, u64> {
        let Counters { inputs, commands, past_deadlines, sleeps, timer } = self.counters;
        let mut counters = BTreeMap::from([
            ("driver.inputs".to_owned(), inputs),
            ("driver.commands".to_owned(), commands),
            ("driver.past_deadlines".to_owned(), past_deadlines),
            ("driver.sleeps".to_owned(), sleeps),
            ("driver.timer".to_owned(), timer),
        ]);
        self.world.counters(&mut counters);
        counters
    }

    async fn end(self) {
        let Self { mut world, mut ends, app, store, recorder, logs, finish, asks, .. } = self;
        let ended = ends.ended.take();
        // Whoever asks for anything now learns that the node is gone.
        drop((asks, ends, app));
        if !self.world_is_over && world.standing() > 0 {
            world.farewell();
            let rest = async { while world.standing() > 0 && world.next().await.is_some() {} };
            select(Box::pin(rest), Delay::new(FAREWELL)).await;
            Delay::new(LAST_PACKETS).await;
        }
        drop(world);
        if let Some(logs) = logs {
            logs.close().await;
        }
        if let Some(store) = store {
            store.close().await;
        }
        if let Some(recorder) = recorder {
            recorder.close().await;
        }
        finish.await;
        drop(ended);
    }
}

const NO_TRACE: &str = "this node can't record: it has no data folder, or no use of the folder `traces` in it";

/// A source that has ended has nothing to say any more.
fn some<T>(poll: Poll<Option<T>>) -> Poll<T> {
    match poll {
        Poll::Ready(Some(item)) => Poll::Ready(item),
        Poll::Ready(None) | Poll::Pending => Poll::Pending,
    }
}

/// Lets others on the same thread have their turn.
async fn pause() {
    let mut paused = false;
    poll_fn(|cx| {
        if paused {
            return Poll::Ready(());
        }
        paused = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// What a user should know is INFO; what is degraded is WARN.
fn log(command: &Command, notice: &Notice) {
    let (id, peer, because) = (command.id, notice.peer(), &command.reason);
    match notice {
        Notice::OwnIdentitySeen { .. } | Notice::NotListening { .. } => {
            tracing::warn!(command = %id, ?peer, %because, "{notice}");
        }
        Notice::PeerDiscovered { .. }
        | Notice::PeerDeferred { .. }
        | Notice::PeerExpired { .. }
        | Notice::NotPunched { .. }
        | Notice::RelayNotHeld { .. }
        | Notice::PortNotMapped { .. }
        | Notice::PeerSyncing { .. }
        | Notice::PeerLag { .. }
        | Notice::EntriesReceived { .. }
        | Notice::SyncFailed { .. }
        | Notice::PeerSynced { .. } => tracing::debug!(command = %id, ?peer, %because, "{notice}"),
        Notice::PeerConnected { .. }
        | Notice::PeerIdentified { .. }
        | Notice::PathChanged { .. }
        | Notice::Punched { .. }
        | Notice::StaysRelayed { .. }
        | Notice::RelayHeld { .. }
        | Notice::PortMapped { .. }
        | Notice::NatFound { .. }
        | Notice::LogForked { .. }
        | Notice::PeerDisconnected { .. }
        | Notice::PeerDistrusted { .. }
        | Notice::PeerUnreachable { .. }
        | Notice::Listening { .. }
        | Notice::PortTaken { .. }
        | Notice::HealthChanged { .. }
        | Notice::ReachabilityChanged { .. }
        | Notice::SignalAnswers { .. }
        | Notice::SignalFailed { .. }
        | Notice::BootstrapFailed { .. } => tracing::info!(command = %id, ?peer, %because, "{notice}"),
    }
}

/// How late a deadline may be kept.
#[derive(Default)]
struct Slack {
    most: Duration,
    /// A deadline, and when it is kept: settled once, so that it does not creep nearer with each look.
    settled: (Time, Time),
}

impl Slack {
    fn after(&mut self, now: Time, at: Time) -> Time {
        if self.most.is_zero() || at == Time::MAX {
            return at;
        }
        if self.settled.0 != at {
            self.settled = (at, at + self.most.min(at.since(now) / 8));
        }
        self.settled.1
    }
}

/// The one timer. It is set anew only when it would go off too late: going off too early costs one look at the clock.
#[derive(Default)]
struct Timer {
    delay: Option<Delay>,
    set_to: Time,
    floor: Time,
}

impl Timer {
    /// Ready when `at` has come.
    fn poll(&mut self, cx: &mut Context<'_>, now: Time, at: Time) -> Poll<()> {
        let at = at.max(self.floor);
        if self.delay.is_none() || at < self.set_to {
            self.set(now, at);
        }
        loop {
            let Some(delay) = &mut self.delay else { return Poll::Pending };
            match Pin::new(delay).poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(()) if now < at && self.set_to < at => self.set(now, at),
                Poll::Ready(()) => {
                    self.delay = None;
                    return Poll::Ready(());
                }
            }
        }
    }

    fn set(&mut self, now: Time, at: Time) {
        self.set_to = at;
        let span = at.since(now);
        match &mut self.delay {
            Some(delay) => delay.reset(span),
            None => self.delay = Some(Delay::new(span)),
        }
    }

    /// Does not go off before `at`.
    fn not_before(&mut self, at: Time) {
        self.floor = at;
    }
}

impl<W: World> fmt::Debug for Driver<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").field("counters", &self.counters).finish_non_exhaustive()
    }
}

impl fmt::Debug for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setup")
            .field("started", &self.started)
            .field("data_dir", &self.data_dir)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;

    use super::*;

    fn poll(timer: &mut Timer, now: Time, at: Time) -> bool {
        block_on(poll_fn(|cx| Poll::Ready(timer.poll(cx, now, at).is_ready())))
    }

    #[test]
    fn a_deadline_that_moves_away_wakes_nobody() {
        let mut timer = Timer::default();
        let start = Time::from_secs(100);
        assert!(!poll(&mut timer, start, start + Duration::from_millis(1)));
        block_on(Delay::new(Duration::from_millis(50)));
        // The old deadline has gone by, so the timer has gone off; the new one is far.
        assert!(!poll(&mut timer, start + Duration::from_millis(50), start + Duration::from_secs(3_600)));
    }

    #[test]
    fn what_is_far_may_be_late_and_what_is_near_may_not() {
        let mut slack = Slack { most: Duration::from_secs(5), ..Slack::default() };
        let now = Time::from_secs(100);
        assert_eq!(slack.after(now, now), now, "what is due is due");
        let soon = now + Duration::from_millis(400);
        assert_eq!(slack.after(now, soon), soon + Duration::from_millis(50));
        let far = now + Duration::from_secs(3_600);
        assert_eq!(slack.after(now, far), far + Duration::from_secs(5));
        assert_eq!(slack.after(far, far), far + Duration::from_secs(5), "settled once");
        assert_eq!(slack.after(now, Time::MAX), Time::MAX);
        assert_eq!(Slack::default().after(now, far), far);
    }

    #[test]
    fn a_deadline_that_comes_nearer_is_kept() {
        let mut timer = Timer::default();
        let start = Time::from_secs(100);
        assert!(!poll(&mut timer, start, start + Duration::from_secs(3_600)));
        let near = start + Duration::from_millis(1);
        assert!(!poll(&mut timer, start, near));
        block_on(poll_fn(|cx| timer.poll(cx, near, near)));
    }

    #[test]
    fn a_deadline_that_stays_in_the_past_does_not_spin() {
        let mut timer = Timer::default();
        let (start, past) = (Time::from_secs(100), Time::from_secs(1));
        block_on(poll_fn(|cx| timer.poll(cx, start, past)));
        timer.not_before(start + Duration::from_secs(3_600));
        assert!(!poll(&mut timer, start, past));
        block_on(Delay::new(Duration::from_millis(20)));
        assert!(!poll(&mut timer, start + Duration::from_millis(20), past));
    }
}
