//! The client of signal servers: does `Action::SignalQuery` and `Action::SignalPublish`.
//!
//! It asks once and tells what came of it; when to ask, whom, and how often, is the core's business. Everything that a
//! server says is held against limits and signatures: what does not pass is counted as cut off. Redirects are not
//! followed, so a server leads nobody elsewhere.
//!
//! A doorway of Kinfolk is asked at `…/signal`. Where that is not found, the peers that Elohim's doorways tell each other
//! (`…/api/v1/federation/p2p-peers`) are taken for hints; nothing can be published there.

mod http;
mod tokens;

use std::{
    collections::HashMap,
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::{
    Stream, StreamExt,
    channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded},
};
use kinfolk_core::{
    Action, Address, Command, CommandId, Event, PeerId as CorePeerId, SignalBacking, SignalError, SignalPeer,
    SignalServices,
};
use libp2p::{Multiaddr, PeerId, identity::Keypair};
use reqwest::Method;
use serde::de::DeserializeOwned;
use tokio::task::AbortHandle;

use self::http::{Answer, Request};
pub use self::tokens::{BadTokens, Tokens};
use super::{
    address::fit,
    numbers::Numbers,
    record,
    types::{
        self, BACKING_HEADER, Backing, FederationPeer, FederationPeers, Problem, ProblemKind, Publish, Published,
        Record, Records, Service,
    },
};
use crate::network::ids::{address_to_libp2p, peer_to_libp2p, real_peer, told_address};

/// One question may take this long in all.
const PATIENCE: Duration = Duration::from_secs(15);
/// The longest answer about one peer, in bytes.
const MAX_ONE: usize = 16 << 10;
/// The longest answer about many: 32 records with all that stands around them take at most 170 KiB.
const MAX_MANY: usize = 256 << 10;
/// Peers that are taken from one answer.
const MAX_PEERS: usize = 32;
/// The longest text of a server that is shown to people, in characters.
const MAX_WORDS: usize = 200;

/// Asks and tells signal servers. A stream of what came of it; it needs tokio's runtime.
pub struct Client {
    shared: Arc<Shared>,
    running: HashMap<CommandId, AbortHandle>,
    tell: UnboundedSender<(CommandId, Event)>,
    told: UnboundedReceiver<(CommandId, Event)>,
}

#[derive(Debug)]
struct Shared {
    key: Keypair,
    network: String,
    tokens: Tokens,
    numbers: Numbers,
    http: http::Client,
}

/// Where the parts of a signal server are.
struct Place<'a> {
    prefix: &'a str,
    token: Option<&'a str>,
}

impl Client {
    /// A client that signs with `key` and asks about `network`, a name without characters that mean something in a URL.
    pub fn new(key: Keypair, network: String, agent: String, tokens: Tokens, numbers: Numbers) -> Self {
        let (tell, told) = unbounded();
        let shared = Shared { key, network, tokens, numbers, http: http::Client::new(agent) };
        Self { shared: Arc::new(shared), running: HashMap::new(), tell, told }
    }

    /// Does what is commanded, if it is for signal servers. Each question is answered by one event, unless it is
    /// cancelled before.
    pub fn execute(&mut self, command: &Command) {
        let id = command.id;
        if let Action::SignalQuery { server, peer, limit } = &command.action {
            let (server, peer, limit) = (server.clone(), *peer, *limit);
            self.start(id, move |shared| async move {
                match shared.query(&server, peer, limit).await {
                    Ok(found) => {
                        Event::SignalFound { query: id, peers: found.peers, cut: found.cut, backing: found.backing }
                    }
                    Err(error) => Event::SignalFailed { command: id, error },
                }
            });
        } else if let Action::SignalPublish { server, addresses, services, lifetime } = &command.action {
            let (server, addresses, services, lifetime) = (server.clone(), addresses.clone(), *services, *lifetime);
            self.start(id, move |shared| async move {
                match shared.publish(&server, &addresses, services, lifetime).await {
                    Ok((expires_in, backing)) => Event::SignalPublished { publish: id, expires_in, backing },
                    Err(error) => Event::SignalFailed { command: id, error },
                }
            });
        } else if let Action::SignalCancel { command } = &command.action
            && let Some(running) = self.running.remove(command)
        {
            running.abort();
        }
    }

    fn start<F>(&mut self, id: CommandId, work: impl FnOnce(Arc<Shared>) -> F)
    where
        F: Future<Output = Event> + Send + 'static,
    {
        let (work, tell) = (work(Arc::clone(&self.shared)), self.tell.clone());
        let task = tokio::spawn(async move {
            let event = match tokio::time::timeout(PATIENCE, work).await {
                Ok(event) => event,
                Err(_) => Event::SignalFailed { command: id, error: failed("no answer in time") },
            };
            // The client may be gone.
            let _ = tell.unbounded_send((id, event));
        });
        self.running.insert(id, task.abort_handle());
    }
}

impl Stream for Client {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        loop {
            match self.told.poll_next_unpin(cx) {
                // What was cancelled is not told.
                Poll::Ready(Some((id, event))) if self.running.remove(&id).is_some() => {
                    return Poll::Ready(Some(event));
                }
                Poll::Ready(Some(_)) => {}
                Poll::Ready(None) | Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.running.values().for_each(AbortHandle::abort);
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("running", &self.running.len()).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Found {
    peers: Vec<SignalPeer>,
    cut: u32,
    backing: Option<SignalBacking>,
}

impl Shared {
    async fn query(&self, server: &str, peer: Option<CorePeerId>, limit: u32) -> Result<Found, SignalError> {
        let place = self.place(server);
        let Some(peer) = peer else {
            let url = format!("{}/signal?network={}&limit={limit}", place.prefix, self.network);
            let answer = self.get(&place, &url, MAX_MANY).await?;
            return match outcome(&answer) {
                Outcome::Good => Ok(records(&answer, read::<Records>(&answer)?.peers)),
                Outcome::NoSuchPath => self.federation(&place, limit, None).await,
                Outcome::Problem(problem) => Err(refusal(&answer, problem)),
            };
        };
        let peer = peer_to_libp2p(&peer);
        let url = format!("{}/signal/{peer}?network={}", place.prefix, self.network);
        let answer = self.get(&place, &url, MAX_ONE).await?;
        match outcome(&answer) {
            Outcome::Good => Ok(records(&answer, vec![read::<Record>(&answer)?])),
            Outcome::Problem(Some(Problem { kind: ProblemKind::NotFound, .. })) => Ok(records(&answer, vec![])),
            Outcome::NoSuchPath => self.federation(&place, limit, Some(peer)).await,
            Outcome::Problem(problem) => Err(refusal(&answer, problem)),
        }
    }

    /// What an Elohim doorway tells: not signed, so only hints.
    async fn federation(&self, place: &Place<'_>, limit: u32, only: Option<PeerId>) -> Result<Found, SignalError> {
        let limit = if only.is_some() { types::MAX_LIMIT } else { limit };
        let url = format!("{}/api/v1/federation/p2p-peers?network={}&limit={limit}", place.prefix, self.network);
        let answer = self.get(place, &url, MAX_MANY).await?;
        match outcome(&answer) {
            Outcome::Good => {}
            Outcome::NoSuchPath => return Err(SignalError::Unsupported),
            Outcome::Problem(problem) => return Err(refusal(&answer, problem)),
        }
        let told = read::<FederationPeers>(&answer)?.peers;
        let mut found = Found { backing: backing(&answer), ..Found::default() };
        for peer in told {
            let wanted = only.is_none_or(|only| peer.peer_id == only.to_string());
            match hint(&peer).filter(|_| wanted && found.peers.len() < MAX_PEERS) {
                Some(peer) => found.peers.push(peer),
                None => found.cut = found.cut.saturating_add(u32::from(wanted)),
            }
        }
        Ok(found)
    }

    async fn publish(
        &self,
        server: &str,
        addresses: &[Address],
        services: SignalServices,
        lifetime: Duration,
    ) -> Result<(Duration, Option<SignalBacking>), SignalError> {
        let place = self.place(server);
        let peer = self.key.public().to_peer_id();
        let fits = |address: &Multiaddr| fit(&peer, address, false).is_ok();
        let addresses: Vec<Multiaddr> = addresses.iter().filter_map(address_to_libp2p).filter(fits).collect();
        if addresses.is_empty() {
            return Err(failed("no address of ours may be published"));
        }
        let seq = self.numbers.next();
        let record = record::sign(&self.key, seq, &addresses)
            .map_err(|error| failed(&format!("the record can't be signed: {error}")))?;
        let publish = Publish {
            record: types::text_of(&record),
            lifetime_s: Some(u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX)),
            services: services_of(services),
        };
        let body = serde_json::to_vec(&publish).map_err(|error| failed(&error.to_string()))?;
        let url = format!("{}/signal/{peer}?network={}", place.prefix, self.network);
        let answer = self.ask(&place, Method::PUT, &url, Some(body), MAX_ONE).await?;
        match outcome(&answer) {
            Outcome::Good => {
                let published = read::<Published>(&answer)?;
                Ok((Duration::from_secs(published.expires_in_s), backing(&answer)))
            }
            Outcome::NoSuchPath => Err(SignalError::Unsupported),
            Outcome::Problem(Some(Problem { kind: ProblemKind::Stale, seq: Some(seq), .. })) => {
                // Ours were never so high, whatever our clock said.
                if self.numbers.raise(seq) {
                    Err(SignalError::Stale { seq })
                } else {
                    Err(failed("it makes up numbers"))
                }
            }
            Outcome::Problem(problem) => Err(refusal(&answer, problem)),
        }
    }

    fn place<'a>(&'a self, server: &'a str) -> Place<'a> {
        let prefix = server.trim_end_matches('/');
        Place { prefix: prefix.strip_suffix("/signal").unwrap_or(prefix), token: self.tokens.of(server) }
    }

    async fn get(&self, place: &Place<'_>, url: &str, limit: usize) -> Result<Answer, SignalError> {
        self.ask(place, Method::GET, url, None, limit).await
    }

    async fn ask(
        &self,
        place: &Place<'_>,
        method: Method,
        url: &str,
        body: Option<Vec<u8>>,
        limit: usize,
    ) -> Result<Answer, SignalError> {
        let request = Request { method, url, token: place.token, body, limit };
        self.http.ask(request).await.map_err(|error| failed(&error.to_string()))
    }
}

enum Outcome {
    Good,
    /// Nothing is there: this is no doorway of Kinfolk.
    NoSuchPath,
    Problem(Option<Problem>),
}

fn outcome(answer: &Answer) -> Outcome {
    if answer.status == 200 {
        return Outcome::Good;
    }
    let problem: Option<Problem> = serde_json::from_slice(&answer.body).ok();
    let elsewhere = |problem: &Problem| matches!(problem.kind, ProblemKind::NoSuchEndpoint | ProblemKind::WrongMethod);
    if matches!(answer.status, 404 | 405 | 501) && problem.as_ref().is_none_or(elsewhere) {
        return Outcome::NoSuchPath;
    }
    Outcome::Problem(problem)
}

fn refusal(answer: &Answer, problem: Option<Problem>) -> SignalError {
    let retry_after = answer.header("retry-after").and_then(|text| text.trim().parse().ok());
    let retry_after = retry_after.or(problem.as_ref().and_then(|problem| problem.retry_after_s));
    let reason = match (problem, answer.status) {
        (Some(problem), _) if !problem.detail.is_empty() => words(&problem.detail),
        (_, 300..=399) => match answer.header("location") {
            Some(elsewhere) => words(&format!("it is at {elsewhere} now; put that into the settings")),
            None => "it is elsewhere now".to_owned(),
        },
        (_, status) => format!("HTTP status {status}"),
    };
    SignalError::Refused { reason, retry_after: retry_after.map(Duration::from_secs) }
}

fn read<T: DeserializeOwned>(answer: &Answer) -> Result<T, SignalError> {
    serde_json::from_slice(&answer.body).map_err(|error| failed(&format!("the answer can't be read: {error}")))
}

fn records(answer: &Answer, records: Vec<Record>) -> Found {
    let mut found = Found { backing: backing(answer), ..Found::default() };
    for record in records {
        match believed(&record).filter(|_| found.peers.len() < MAX_PEERS) {
            Some(peer) => found.peers.push(peer),
            None => found.cut = found.cut.saturating_add(1),
        }
    }
    found
}

/// What the peer itself has signed, and what the server says that it does.
fn believed(record: &Record) -> Option<SignalPeer> {
    let said = record.verify().ok().filter(|said| said.seq <= record::MAX_SEQ)?;
    let addresses = said.addresses.iter().filter_map(told_address).collect();
    let has = |service| record.services.contains(&service);
    let services = SignalServices { relay: has(Service::Relay), bootstrap: has(Service::Bootstrap) };
    Some(SignalPeer { peer: real_peer(&said.peer)?, seq: Some(said.seq), addresses, services })
}

fn hint(told: &FederationPeer) -> Option<SignalPeer> {
    let peer = real_peer(&told.peer_id.parse().ok()?)?;
    let addresses = told.multiaddrs.iter().take(record::MAX_ADDRESSES);
    let addresses: Vec<Address> = addresses.filter_map(|text| told_address(&text.parse().ok()?)).collect();
    let has = |word: &str| told.capabilities.iter().any(|capability| capability.eq_ignore_ascii_case(word));
    let services = SignalServices { relay: has("relay"), bootstrap: has("bootstrap") };
    (!addresses.is_empty()).then_some(SignalPeer { peer, seq: None, addresses, services })
}

fn services_of(services: SignalServices) -> Vec<Service> {
    let named = [(services.relay, Service::Relay), (services.bootstrap, Service::Bootstrap)];
    named.into_iter().filter(|(has, _)| *has).map(|(_, service)| service).collect()
}

fn backing(answer: &Answer) -> Option<SignalBacking> {
    let text = answer.header(BACKING_HEADER)?;
    Some(match serde_json::from_value(text.into()).ok()? {
        Backing::Memory => SignalBacking::Memory,
        Backing::Sqlite => SignalBacking::Sqlite,
        Backing::Redis => SignalBacking::Redis,
    })
}

fn failed(text: &str) -> SignalError {
    SignalError::Failed(words(text))
}

/// What somebody else wrote, fit for a terminal and a log.
fn words(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_WORDS).collect()
}
