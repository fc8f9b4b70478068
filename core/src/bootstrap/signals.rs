//! Signal servers: asked for peers, and told where we are.
//!
//! Each has its own schedule and back-off, for asking and for publishing apart, so one that is dead, slow or full costs
//! the others nothing. One question of each kind is under way at a time, and each is given up after a while.

use alloc::{borrow::ToOwned, collections::BTreeSet, string::String, vec::Vec};
use core::time::Duration;

use crate::{
    cx::{Cx, Signal},
    jitter::{self, Purpose},
    lifecycle::PeerLifecycle,
    nat::NatPolicy,
    view::SignalView,
    vocabulary::{
        Action, Address, CommandId, Config, KademliaMode, Notice, PeerId, Reason, Role, Scope, SignalBacking,
        SignalErrand, SignalError, SignalPeer, SignalServices, Time,
    },
};

#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct Signals {
    servers: Vec<Server>,
    /// Nobody is connected.
    lonely: bool,
}

#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct Server {
    url: String,
    query: Errand,
    publish: Errand,
    /// When it is asked again if nobody is connected then.
    lonely_at: Time,
    /// Answers in a row while nobody was connected.
    lonely_rounds: u32,
    /// Peers whose own record is asked for.
    sought: BTreeSet<PeerId>,
    /// How many peers its last answer told.
    peers: u32,
    backing: Option<SignalBacking>,
    /// What it has of us, and until when.
    keeps: Option<(SignalServices, Time)>,
    /// Our addresses have changed since what was last sent.
    changed: bool,
    /// It has refused our record for its number, and was sent a higher one at once.
    outnumbered: bool,
}

/// Something that is wanted of a server again and again.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct Errand {
    running: Option<Running>,
    at: Time,
    /// The server wants to be left alone until then.
    not_before: Time,
    failures: u32,
    failing_since: Option<Time>,
    /// When it last went well.
    done: Option<Time>,
    error: Option<SignalError>,
    reason: Reason,
}

#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct Running {
    command: CommandId,
    since: Time,
    /// Whose record is asked for; `None` for any, and for publishing.
    peer: Option<PeerId>,
    services: SignalServices,
}

/// Who is lonely asks again after this, then later and later.
const LONELY: Duration = Duration::from_secs(2);
/// Addresses change in bursts.
const SETTLING: Duration = Duration::from_secs(1);
/// A server that is down is asked often for this long, then seldom.
const PATIENCE: Duration = Duration::from_secs(600);
/// Nobody is left alone for longer, whatever it says.
const LONGEST_REST: Duration = Duration::from_secs(3_600);
/// A record that a server says to keep only for moments is not published all the time.
const SHORTEST_LIFE: Duration = Duration::from_secs(60);
/// Peers that one server is asked for by name, at most.
const MAX_SOUGHT: usize = 16;
/// A record has no more.
const MAX_ADDRESSES: usize = 16;
/// Peers of one answer that are looked at.
const MAX_TOLD: usize = 32;

impl Signals {
    /// Whether there are servers, and none has ever answered: nobody knows whether we are alone.
    pub(super) fn is_in_the_dark(&self) -> bool {
        !self.servers.is_empty() && self.servers.iter().all(|server| server.query.done.is_none())
    }

    /// Takes over the servers of the settings.
    pub(super) fn configure(&mut self, cx: &mut Cx<'_>) {
        let mut before = core::mem::take(&mut self.servers);
        for url in &cx.config.signal.servers {
            let known = before.iter().position(|server| server.url == *url);
            self.servers.push(known.map_or_else(|| Server::new(url, cx.now), |at| before.swap_remove(at)));
        }
        for server in before {
            for running in [server.query.running, server.publish.running].into_iter().flatten() {
                cx.command(Action::SignalCancel { command: running.command }, Reason::Settings);
            }
        }
    }

    /// The network is another one, or this machine has slept.
    pub(super) fn rearm(&mut self, now: Time) {
        for server in &mut self.servers {
            for (errand, wait) in [(&mut server.query, Duration::ZERO), (&mut server.publish, SETTLING)] {
                errand.failures = 0;
                errand.failing_since = None;
                errand.not_before = now;
                errand.at = now + wait;
                errand.reason = Reason::NetworkChanged;
            }
        }
    }

    pub(super) fn addresses_changed(&mut self, now: Time) {
        for server in &mut self.servers {
            server.changed = true;
            if server.publish.at <= now {
                // There was nothing to publish.
                server.publish.at = Time::MAX;
            }
            server.publish.bring_forward(now + SETTLING, Reason::AddressesChanged);
        }
    }

    /// A peer that must not stay away is gone: it may be elsewhere now.
    pub(super) fn down(&mut self, cx: &Cx<'_>, lifecycle: &PeerLifecycle, peer: &PeerId) {
        if lifecycle.peers.by_id(peer).is_some_and(|peer| peer.pinned) {
            let at = cx.now + cx.config.planner.members;
            for server in self.servers.iter_mut().filter(|server| server.query.failures == 0) {
                server.query.bring_forward(at, Reason::PeersMissing { missing: lifecycle.missing_pinned() });
            }
        }
    }

    /// A user waits for a peer that can't be dialled. Whether anybody is asked.
    pub(super) fn seek(&mut self, now: Time, peer: PeerId) -> bool {
        let mut asked = false;
        for server in self.servers.iter_mut().filter(|server| server.query.failures == 0) {
            let room = server.sought.len() < MAX_SOUGHT && server.query.not_before <= now;
            if room {
                server.sought.insert(peer);
            }
            asked |= room;
        }
        asked
    }

    pub(super) fn is_seeking(&self, peer: &PeerId) -> bool {
        self.servers.iter().any(|server| {
            let running = server.query.running.as_ref();
            server.sought.contains(peer) || running.is_some_and(|running| running.peer == Some(*peer))
        })
    }

    pub(super) fn found(
        &mut self,
        cx: &mut Cx<'_>,
        lifecycle: &mut PeerLifecycle,
        query: CommandId,
        peers: &[SignalPeer],
        backing: Option<SignalBacking>,
    ) {
        let Some((at, running)) = self.take(SignalErrand::Query, query) else { return };
        let server = &mut self.servers[at];
        server.backing = backing;
        let fits = |told: &&SignalPeer| running.peer.is_none_or(|wanted| told.peer == wanted);
        let told: Vec<&SignalPeer> = peers.iter().take(MAX_TOLD).filter(fits).collect();
        // Servers and relays first: they are the ones that lead on.
        let (helpers, others): (Vec<_>, Vec<_>) =
            told.into_iter().partition(|told| told.services.bootstrap || told.services.relay);
        for told in helpers.into_iter().chain(others) {
            lifecycle.signalled(cx, told);
        }
        let first = server.query.done.is_none() || server.query.failures > 0;
        server.query.went_well(cx.now);
        if let Some(peer) = running.peer {
            cx.signal(Signal::SeekEnded(peer));
            return;
        }
        server.peers = peers.iter().filter(|told| told.peer != cx.local).count() as u32;
        if first {
            let notice = Notice::SignalAnswers { server: server.url.clone(), peers: server.peers };
            cx.tell(notice, Reason::FirstPeers);
        }
        let draw = jitter::draw(cx.seed, Purpose::Signal, at as u64, query.0);
        server.query.at = cx.now + jitter::vary(cx.config.signal.every, draw);
        server.query.reason = Reason::Routine;
        // Those who start together have published in a moment.
        let soon = LONELY.saturating_mul(1 << server.lonely_rounds.min(12)).min(cx.config.signal.lonely);
        server.lonely_at = cx.now + jitter::vary(soon, draw);
        server.lonely_rounds = if self.lonely { server.lonely_rounds.saturating_add(1) } else { 0 };
        // Who must not stay away is asked for by name: a sample may miss it.
        let room = MAX_SOUGHT.saturating_sub(server.sought.len());
        let missing = lifecycle.pinned_peers().into_iter().filter(|peer| lifecycle.needs_record(cx, peer)).take(room);
        server.sought.extend(missing);
    }

    pub(super) fn published(
        &mut self,
        cx: &mut Cx<'_>,
        publish: CommandId,
        expires_in: Duration,
        backing: Option<SignalBacking>,
    ) {
        let Some((at, running)) = self.take(SignalErrand::Publish, publish) else { return };
        let server = &mut self.servers[at];
        server.backing = backing;
        server.publish.went_well(cx.now);
        server.outnumbered = false;
        let life = expires_in.clamp(SHORTEST_LIFE, cx.config.signal.lifetime);
        server.keeps = Some((running.services, cx.now + life));
        if !server.changed {
            let draw = jitter::draw(cx.seed, Purpose::Signal, at as u64, publish.0);
            server.publish.at = cx.now + jitter::vary(life / 2, draw);
            server.publish.reason = Reason::Renewal;
        }
    }

    pub(super) fn failed(&mut self, cx: &mut Cx<'_>, command: CommandId, error: &SignalError) {
        if let Some((at, running)) = self.take(SignalErrand::Query, command) {
            self.query_failed(cx, at, &running, error.clone());
        } else if let Some((at, _)) = self.take(SignalErrand::Publish, command) {
            self.publish_failed(cx, at, error.clone());
        }
    }

    fn query_failed(&mut self, cx: &mut Cx<'_>, at: usize, running: &Running, error: SignalError) {
        let server = &mut self.servers[at];
        let seeks = core::mem::take(&mut server.sought);
        seeks.into_iter().chain(running.peer).for_each(|peer| cx.signal(Signal::SeekEnded(peer)));
        server.query.back_off(cx, at as u64, &error, Duration::ZERO);
        server.query.complain(cx, &server.url, SignalErrand::Query, error);
    }

    fn publish_failed(&mut self, cx: &mut Cx<'_>, at: usize, error: SignalError) {
        let server = &mut self.servers[at];
        if let SignalError::Stale { seq } = error
            && !core::mem::replace(&mut server.outnumbered, true)
        {
            server.publish.at = cx.now;
            server.publish.reason = Reason::Outnumbered { seq };
            return;
        }
        let least = if error == SignalError::Unsupported { LONGEST_REST } else { Duration::ZERO };
        server.publish.back_off(cx, !(at as u64), &error, least);
        server.publish.complain(cx, &server.url, SignalErrand::Publish, error);
    }

    pub(super) fn step(&mut self, cx: &mut Cx<'_>, lifecycle: &PeerLifecycle, nat: &NatPolicy) {
        if self.servers.is_empty() {
            return;
        }
        let (timeout, now) = (cx.config.signal.timeout, cx.now);
        let late = |running: &mut Running| running.since + timeout <= now;
        for at in 0..self.servers.len() {
            if let Some(running) = self.servers[at].query.running.take_if(late) {
                cx.command(Action::SignalCancel { command: running.command }, Reason::TimedOut);
                self.query_failed(cx, at, &running, SignalError::Failed(NO_ANSWER.to_owned()));
            }
            if let Some(running) = self.servers[at].publish.running.take_if(late) {
                cx.command(Action::SignalCancel { command: running.command }, Reason::TimedOut);
                self.publish_failed(cx, at, SignalError::Failed(NO_ANSWER.to_owned()));
            }
        }
        self.lonely = lifecycle.connected_count() == 0;
        let services = services(cx.config, nat);
        for server in &mut self.servers {
            server.ask(cx, self.lonely);
            server.tell(cx, nat, services);
        }
    }

    pub(super) fn deadline(&self, config: &Config, nat: &NatPolicy) -> Option<Time> {
        if self.servers.is_empty() {
            return None;
        }
        let publishes = config.signal.publish && publishable(nat).next().is_some();
        let timeout = config.signal.timeout;
        let due = |server: &Server| {
            let query = match &server.query.running {
                Some(running) => running.since + timeout,
                None => server.query_at(self.lonely),
            };
            let publish = match &server.publish.running {
                Some(running) => Some(running.since + timeout),
                None => publishes.then_some(server.publish.at),
            };
            publish.map_or(query, |publish| publish.min(query))
        };
        self.servers.iter().map(due).min()
    }

    pub(super) fn views(&self) -> impl Iterator<Item = SignalView<'_>> {
        self.servers.iter().map(|server| SignalView {
            server: &server.url,
            asking: server.query.running.is_some(),
            answered: server.query.done,
            peers: server.peers,
            failures: server.query.failures,
            error: server.query.error.as_ref(),
            retry_at: (server.query.failures > 0).then_some(server.query.at),
            publishing: server.publish.running.is_some(),
            published: server.keeps.map(|(_, until)| until),
            publish_error: server.publish.error.as_ref(),
            publish_retry_at: (server.publish.failures > 0).then_some(server.publish.at),
            backing: server.backing,
        })
    }

    /// Whose question it is that was answered; it is no longer under way.
    fn take(&mut self, errand: SignalErrand, command: CommandId) -> Option<(usize, Running)> {
        self.servers.iter_mut().enumerate().find_map(|(at, server)| {
            let running = match errand {
                SignalErrand::Query => &mut server.query.running,
                SignalErrand::Publish => &mut server.publish.running,
            };
            running.take_if(|running| running.command == command).map(|running| (at, running))
        })
    }
}

const NO_ANSWER: &str = "no answer in time";

impl Server {
    fn new(url: &str, now: Time) -> Self {
        Self {
            url: url.to_owned(),
            query: Errand::new(now, Reason::FirstPeers),
            publish: Errand::new(now, Reason::AddressesChanged),
            lonely_at: Time::MAX,
            lonely_rounds: 0,
            sought: BTreeSet::new(),
            peers: 0,
            backing: None,
            keeps: None,
            changed: false,
            outnumbered: false,
        }
    }

    /// When it is asked next.
    fn query_at(&self, lonely: bool) -> Time {
        let query = &self.query;
        if query.failures > 0 {
            return query.at;
        }
        let lonely_at = if lonely { self.lonely_at } else { Time::MAX };
        let sought = if self.sought.is_empty() { Time::MAX } else { query.not_before };
        query.at.min(lonely_at).min(sought)
    }

    fn ask(&mut self, cx: &mut Cx<'_>, lonely: bool) {
        if self.query.running.is_some() || self.query_at(lonely) > cx.now {
            return;
        }
        let peer = if self.query.failures == 0 { self.sought.pop_first() } else { None };
        let reason = match (peer, self.query.failures) {
            (Some(_), _) => Reason::PeersMissing { missing: 1 },
            (None, 0) if self.query.at > cx.now => Reason::Isolated { since: self.query.idle(cx.now) },
            (None, 0) => self.query.reason.clone(),
            (None, failures) => Reason::Retry { attempt: failures + 1 },
        };
        let limit = if peer.is_some() { 1 } else { cx.config.signal.sample };
        let command = cx.command(Action::SignalQuery { server: self.url.clone(), peer, limit }, reason);
        self.query.running = Some(Running { command, since: cx.now, peer, services: SignalServices::default() });
    }

    fn tell(&mut self, cx: &mut Cx<'_>, nat: &NatPolicy, services: SignalServices) {
        if self.publish.running.is_some() || !cx.config.signal.publish {
            return;
        }
        if self.keeps.is_some_and(|(known, _)| known != services) && !self.changed {
            self.changed = true;
            self.publish.bring_forward(cx.now + SETTLING, Reason::StateChanged);
        }
        if self.publish.at > cx.now {
            return;
        }
        let addresses: Vec<Address> = publishable(nat).take(MAX_ADDRESSES).cloned().collect();
        if addresses.is_empty() {
            return;
        }
        let reason = match self.publish.failures {
            0 => self.publish.reason.clone(),
            failures => Reason::Retry { attempt: failures + 1 },
        };
        self.changed = false;
        let (server, lifetime) = (self.url.clone(), cx.config.signal.lifetime);
        let command = cx.command(Action::SignalPublish { server, addresses, services, lifetime }, reason);
        self.publish.running = Some(Running { command, since: cx.now, peer: None, services });
    }
}

impl Errand {
    const fn new(now: Time, reason: Reason) -> Self {
        Self {
            running: None,
            at: now,
            not_before: now,
            failures: 0,
            failing_since: None,
            done: None,
            error: None,
            reason,
        }
    }

    fn bring_forward(&mut self, at: Time, reason: Reason) {
        let at = at.max(self.not_before);
        if at < self.at {
            self.at = at;
            self.reason = reason;
        }
    }

    fn went_well(&mut self, now: Time) {
        self.failures = 0;
        self.failing_since = None;
        self.error = None;
        self.done = Some(now);
        self.not_before = now;
    }

    fn idle(&self, now: Time) -> Duration {
        self.done.map_or(Duration::ZERO, |done| now.since(done))
    }

    fn back_off(&mut self, cx: &Cx<'_>, key: u64, error: &SignalError, least: Duration) {
        let config = &cx.config.planner;
        let since = *self.failing_since.get_or_insert(cx.now);
        let longest = if cx.now.since(since) < PATIENCE { config.retry_max } else { config.retry_slow };
        let wait = config.retry_min.saturating_mul(1 << self.failures.min(12)).min(longest);
        self.failures = self.failures.saturating_add(1);
        let asked_for = match error {
            SignalError::Refused { retry_after, .. } => retry_after.unwrap_or_default().min(LONGEST_REST),
            SignalError::Stale { .. } | SignalError::Unsupported | SignalError::Failed(_) => Duration::ZERO,
        };
        self.not_before = cx.now + asked_for;
        let draw = jitter::draw(cx.seed, Purpose::Signal, key, u64::from(self.failures));
        self.at = self.not_before.max(cx.now + jitter::vary(wait.max(least), draw));
    }

    /// The first failure is told, and then each time their number has doubled.
    fn complain(&mut self, cx: &mut Cx<'_>, server: &str, errand: SignalErrand, error: SignalError) {
        if self.failures.is_power_of_two() {
            let notice = Notice::SignalFailed { server: server.to_owned(), errand, wait: self.at.since(cx.now) };
            cx.tell(notice, Reason::SignalFault(error.clone()));
        }
        self.error = Some(error);
    }
}

/// Of what others are told, what means the same everywhere.
fn publishable(nat: &NatPolicy) -> impl Iterator<Item = &Address> {
    let global = |address: &Address| match address {
        Address::Relayed(circuit) => circuit.via.as_ref().is_some_and(|via| via.scope() == Some(Scope::Global)),
        Address::Ip { .. } => address.scope() == Some(Scope::Global),
        Address::Name { .. } => true,
        Address::DnsAddr(_) | Address::Other(_) => false,
    };
    nat.advertised().iter().filter(move |address| global(address))
}

fn services(config: &Config, nat: &NatPolicy) -> SignalServices {
    let bootstrap = config.role == Role::Server && config.kademlia != KademliaMode::Client;
    SignalServices { relay: nat.own.offers_relay(), bootstrap: bootstrap && nat.own.is_kademlia_server() }
}
