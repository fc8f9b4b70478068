//! What is answered: routes, and what each request must get past.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{
        ConnectInfo, DefaultBodyLimit, Path, Query, Request, State,
        rejection::{BytesRejection, PathRejection, QueryRejection},
    },
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::get,
};
use kinfolk_core::network_of;
use kinfolk_shell::signal::{
    address::fit,
    key::PeerKey,
    record::{self, MAX_SEQ, Said},
    types::{
        BACKING_HEADER, Backing, DEFAULT_LIMIT, FederationPeer, FederationPeers, Health, MAX_BODY, MAX_LIMIT,
        MIN_LIFETIME_S, ProblemKind, Publish, Published, Record, Records, Service, Withdraw, Withdrawn, bytes_of,
        text_of,
    },
};
use libp2p::multiaddr::Protocol;
use serde::{Deserialize, de::DeserializeOwned};
use tokio::time::timeout;

use super::{
    OPEN_API, REQUEST_TIME, client,
    limits::Limiter,
    metrics::Metrics,
    now,
    refused::Refused,
    settings::{Doing, DoorwaySettings},
    store::{Ended, Kept, Offer, Services, Store, Taken},
};
use crate::{AGENT, config::DoorwayRules};

const RECORD: &str = "application/octet-stream";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Everything that requests need.
pub(super) struct App {
    settings: DoorwaySettings,
    store: Arc<dyn Store>,
    metrics: Arc<Metrics>,
    reads: Limiter,
    writes: Limiter,
}

impl App {
    pub(super) fn new(settings: DoorwaySettings, store: Arc<dyn Store>, metrics: Arc<Metrics>) -> Arc<Self> {
        let rules = &settings.rules;
        let (reads, writes) = (Limiter::per_minute(rules.reads), Limiter::per_minute(rules.writes));
        Arc::new(Self { settings, store, metrics, reads, writes })
    }

    pub(super) fn rules(&self) -> &DoorwayRules {
        &self.settings.rules
    }
}

type Answered<T> = Result<Json<T>, Refused>;

pub(super) fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/signal", get(sample))
        .route("/signal/{peer}", get(look_up).put(publish).delete(withdraw))
        .route("/api/v1/federation/p2p-peers", get(federation))
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .route("/openapi.json", get(open_api))
        .fallback(no_such_endpoint)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(from_fn_with_state(Arc::clone(&app), guard))
        .with_state(app)
}

/// Who asks, as far as limits are concerned.
#[derive(Clone, Copy)]
struct Asking(IpAddr);

/// What every request goes through: limits, time, and being counted.
async fn guard(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let (method, route) = (request.method().clone(), route_of(request.uri().path()));
    let connection = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(from)| from.ip());
    let asking = client::asking(connection.unwrap_or(IpAddr::from([0; 4])), request.headers(), &app.rules().proxies);
    let network = network_of(asking);
    request.extensions_mut().insert(Asking(network));
    let limiter = if method == Method::GET || method == Method::HEAD { &app.reads } else { &app.writes };
    let mut response = match limiter.take(network, app.metrics.uptime()) {
        Err(wait) => Refused::too_often(wait).into_response(),
        Ok(()) => timeout(REQUEST_TIME, next.run(request)).await.unwrap_or_else(|_| {
            let detail = format!("the request has not come whole within {} s", REQUEST_TIME.as_secs());
            Refused::new(ProblemKind::TimedOut, detail).into_response()
        }),
    };
    let backing = match app.store.backing() {
        Backing::Memory => "memory",
        Backing::Sqlite => "sqlite",
        Backing::Redis => "redis",
    };
    let headers = response.headers_mut();
    headers.insert(HeaderName::from_static(BACKING_HEADER), HeaderValue::from_static(backing));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let problem = response.extensions().get::<ProblemKind>().copied();
    app.metrics.answered(route, &method, response.status(), problem, begun.elapsed());
    response
}

/// The routes' names for figures: few, whatever is asked for.
fn route_of(path: &str) -> &'static str {
    match path {
        "/signal" => "/signal",
        "/api/v1/federation/p2p-peers" => "/api/v1/federation/p2p-peers",
        "/health" => "/health",
        "/metrics" => "/metrics",
        "/openapi.json" => "/openapi.json",
        _ if path.starts_with("/signal/") => "/signal/{peer}",
        _ => "other",
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfPeer {
    network: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfMany {
    network: Option<String>,
    limit: Option<u32>,
    service: Option<Service>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfPublishing {
    network: Option<String>,
    lifetime_s: Option<u32>,
    /// With commas between them.
    services: Option<String>,
}

async fn look_up(
    State(app): State<Arc<App>>,
    peer: Result<Path<String>, PathRejection>,
    query: Result<Query<OfPeer>, QueryRejection>,
    headers: HeaderMap,
) -> Answered<Record> {
    let network = app.enter(query_of(query)?.network, Doing::Read, &headers)?;
    let key = peer_of(peer)?;
    let now = now();
    let kept = app.store.get(network, key, now).await?;
    let record = kept.and_then(|kept| told(&kept, now));
    record.map(Json).ok_or_else(|| {
        let detail = format!("there is no live record of {} in the network '{network}'", key.peer());
        Refused::new(ProblemKind::NotFound, detail)
    })
}

async fn sample(
    State(app): State<Arc<App>>,
    query: Result<Query<OfMany>, QueryRejection>,
    headers: HeaderMap,
) -> Answered<Records> {
    let OfMany { network, limit, service } = query_of(query)?;
    let network = app.enter(network, Doing::Read, &headers)?;
    if service == Some(Service::Other) {
        return Err(Refused::new(ProblemKind::BadRequest, "service must be relay or bootstrap"));
    }
    let now = now();
    let limit = limit.unwrap_or(DEFAULT_LIMIT).min(MAX_LIMIT) as usize;
    let (kept, total) = app.store.sample(network, limit, service, now).await?;
    let peers = kept.iter().filter_map(|kept| told(kept, now)).collect();
    Ok(Json(Records { network: network.to_owned(), peers, total }))
}

/// Without a name this is the first network: Elohim's doorways have but one.
async fn federation(
    State(app): State<Arc<App>>,
    query: Result<Query<OfMany>, QueryRejection>,
    headers: HeaderMap,
) -> Answered<FederationPeers> {
    let OfMany { network, limit, service } = query_of(query)?;
    let network = network.or_else(|| app.settings.networks.first().cloned());
    let network = app.enter(network, Doing::Read, &headers)?;
    let now = now();
    let limit = limit.unwrap_or(MAX_LIMIT).min(MAX_LIMIT) as usize;
    let (kept, total) = app.store.sample(network, limit, service, now).await?;
    Ok(Json(FederationPeers { peers: kept.iter().filter_map(federation_peer).collect(), total }))
}

async fn publish(
    State(app): State<Arc<App>>,
    peer: Result<Path<String>, PathRejection>,
    query: Result<Query<OfPublishing>, QueryRejection>,
    asking: axum::Extension<Asking>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Answered<Published> {
    let OfPublishing { network, lifetime_s, services } = query_of(query)?;
    let network = app.enter(network, Doing::Write, &headers)?;
    let key = peer_of(peer)?;
    let (bytes, lifetime_s, services) = match body_of(&headers, body)? {
        Sent::Record(bytes) => (bytes.to_vec(), lifetime_s, services_of(services.as_deref())?),
        Sent::Json(bytes) => {
            if lifetime_s.is_some() || services.is_some() {
                let detail = "lifetime_s and services stand in the body, or in the query beside a bare record";
                return Err(Refused::new(ProblemKind::BadRequest, detail));
            }
            let Publish { record, lifetime_s, services } = json_of(&bytes)?;
            (bytes_of(&record)?, lifetime_s, services)
        }
    };
    let said = checked(key, &bytes)?;
    if said.addresses.is_empty() {
        let detail = "the record has no addresses; to withdraw what is there, send it by DELETE";
        return Err(Refused::new(ProblemKind::BadAddress, detail));
    }
    for address in &said.addresses {
        fit(&said.peer, address, app.rules().private).map_err(|unfit| {
            Refused::new(ProblemKind::BadAddress, format!("{address} may not be published: {unfit}"))
        })?;
    }
    record::verify(&said.peer, &bytes)?;

    let now = now();
    let longest = app.rules().lifetime;
    let shortest = Duration::from_secs(MIN_LIFETIME_S.into()).min(longest);
    let lifetime = lifetime_s.map_or(longest, |wanted| Duration::from_secs(wanted.into()).clamp(shortest, longest));
    let expires = now + lifetime.as_secs();
    let axum::Extension(Asking(prefix)) = asking;
    let services = Services::of(&services);
    let offer = Offer { network, key, seq: said.seq, record: &bytes, services, expires, prefix };
    let (expires, changed) = match app.store.put(offer, now).await? {
        Taken::Yes => (expires, true),
        Taken::Before { expires } => (expires, false),
        Taken::Stale { seq } => return Err(Refused::stale(seq)),
        Taken::Crowded => return Err(Refused::crowded()),
        Taken::Full => return Err(Refused::full()),
    };
    let (peer_id, expires_in_s) = (said.peer.to_string(), expires.saturating_sub(now));
    Ok(Json(Published { peer_id, seq: said.seq, expires, expires_in_s, changed }))
}

async fn withdraw(
    State(app): State<Arc<App>>,
    peer: Result<Path<String>, PathRejection>,
    query: Result<Query<OfPeer>, QueryRejection>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Answered<Withdrawn> {
    let network = app.enter(query_of(query)?.network, Doing::Write, &headers)?;
    let key = peer_of(peer)?;
    let bytes = match body_of(&headers, body)? {
        Sent::Record(bytes) => bytes.to_vec(),
        Sent::Json(bytes) => bytes_of(&json_of::<Withdraw>(&bytes)?.record)?,
    };
    let said = checked(key, &bytes)?;
    if !said.addresses.is_empty() {
        // Otherwise whoever has seen a record could end it.
        let detail = "a record that withdraws has no addresses, and a higher number than the one that it ends";
        return Err(Refused::new(ProblemKind::BadAddress, detail));
    }
    record::verify(&said.peer, &bytes)?;
    let changed = match app.store.end(network, key, said.seq, now()).await? {
        Ended::Yes => true,
        Ended::Nothing => false,
        Ended::Stale { seq } => return Err(Refused::stale(seq)),
    };
    Ok(Json(Withdrawn { peer_id: said.peer.to_string(), seq: said.seq, changed }))
}

async fn health(State(app): State<Arc<App>>) -> Response {
    let (code, ok, text) = match app.store.check().await {
        Ok(()) => (StatusCode::OK, true, "the doorway answers".to_owned()),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, false, "the store does not answer, or can't be written".to_owned()),
    };
    let (backing, uptime_s) = (app.store.backing(), app.metrics.uptime().as_secs());
    (code, Json(Health { ok, text, backing, agent: AGENT.to_owned(), uptime_s })).into_response()
}

async fn metrics(State(app): State<Arc<App>>) -> Response {
    let mut records = Some(Vec::new());
    for network in &app.settings.networks {
        match (app.store.total(network, now()).await, &mut records) {
            (Ok(total), Some(records)) => records.push((network.as_str(), total)),
            _ => {
                records = None;
                break;
            }
        }
    }
    let text = app.metrics.tell(records.map(Vec::into_iter));
    ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response()
}

async fn open_api() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], OPEN_API).into_response()
}

async fn no_such_endpoint() -> Refused {
    let detail = "there is no such path; /openapi.json says which there are";
    Refused::new(ProblemKind::NoSuchEndpoint, detail)
}

async fn wrong_method() -> Refused {
    Refused::new(ProblemKind::WrongMethod, "this path knows other methods; /openapi.json says which")
}

impl App {
    /// The network that is asked about, if it is served and whoever asks may.
    fn enter(&self, named: Option<String>, doing: Doing, headers: &HeaderMap) -> Result<&str, Refused> {
        let networks = &self.settings.networks;
        let network = match (named, networks.as_slice()) {
            (None, [only]) => only,
            (None, _) => {
                let detail = "this doorway serves several networks: say which, by network=…";
                return Err(Refused::new(ProblemKind::BadRequest, detail));
            }
            (Some(named), _) => networks
                .iter()
                .find(|network| **network == named)
                .ok_or_else(|| Refused::new(ProblemKind::UnknownNetwork, "this doorway does not serve that network"))?,
        };
        let token = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = token.and_then(|value| value.split_once(' '));
        let token = token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, token)| token.trim());
        if self.settings.tokens.allow(network, doing, token) {
            return Ok(network);
        }
        let doing = match doing {
            Doing::Read => "reading",
            Doing::Write => "publishing",
        };
        let given = if token.is_some() { "another token" } else { "a token (Authorization: Bearer …)" };
        let detail = format!("{doing} in the network '{network}' needs {given}");
        Err(Refused::new(ProblemKind::Unauthorized, detail))
    }
}

/// What can be told of a record before its signature is checked.
fn checked(key: PeerKey, bytes: &[u8]) -> Result<Said, Refused> {
    let said = record::read(bytes)?;
    if said.peer != key.peer() {
        let detail = format!("the record is about {}, the path names {}", said.peer, key.peer());
        return Err(Refused::new(ProblemKind::BadSignature, detail));
    }
    if said.seq > MAX_SEQ {
        let detail = format!("the sequence number must be {MAX_SEQ} at most");
        return Err(Refused::new(ProblemKind::BadSequence, detail));
    }
    Ok(said)
}

/// A kept record, for whoever asked.
fn told(kept: &Kept, now: u64) -> Option<Record> {
    let said = record::read(&kept.record).ok()?;
    Some(Record {
        peer_id: said.peer.to_string(),
        addrs: said.addresses.iter().map(ToString::to_string).collect(),
        expires: kept.expires,
        expires_in_s: kept.expires.saturating_sub(now),
        seq: said.seq,
        services: kept.services.list(),
        record: text_of(&kept.record),
    })
}

fn federation_peer(kept: &Kept) -> Option<FederationPeer> {
    let said = record::read(&kept.record).ok()?;
    let direct = |address: &libp2p::Multiaddr| address.iter().all(|part| part != Protocol::P2pCircuit);
    let nat_status = if said.addresses.iter().any(direct) { "public" } else { "private" };
    let capabilities = kept.services.list().into_iter().map(|service| match service {
        Service::Relay => "relay".to_owned(),
        Service::Bootstrap => "bootstrap".to_owned(),
        Service::Other => "other".to_owned(),
    });
    Some(FederationPeer {
        peer_id: said.peer.to_string(),
        multiaddrs: said.addresses.iter().map(ToString::to_string).collect(),
        capabilities: capabilities.collect(),
        nat_status: Some(nat_status.to_owned()),
    })
}

enum Sent {
    Record(Bytes),
    Json(Bytes),
}

fn body_of(headers: &HeaderMap, body: Result<Bytes, BytesRejection>) -> Result<Sent, Refused> {
    let body = body.map_err(|rejection| {
        let kind = match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => ProblemKind::TooLarge,
            _ => ProblemKind::BadRequest,
        };
        Refused::new(kind, format!("the body can't be read ({rejection}); it may have {MAX_BODY} bytes"))
    })?;
    let media = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match media.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
        "application/json" => Ok(Sent::Json(body)),
        RECORD => Ok(Sent::Record(body)),
        _ => {
            let detail = format!("send application/json, or the record itself as {RECORD}");
            Err(Refused::new(ProblemKind::WrongMediaType, detail))
        }
    }
}

fn json_of<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refused> {
    serde_json::from_slice(bytes)
        .map_err(|error| Refused::new(ProblemKind::BadRequest, format!("the body can't be read: {error}")))
}

fn query_of<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, Refused> {
    match query {
        Ok(Query(query)) => Ok(query),
        Err(rejection) => Err(Refused::new(ProblemKind::BadRequest, rejection.body_text())),
    }
}

fn peer_of(peer: Result<Path<String>, PathRejection>) -> Result<PeerKey, Refused> {
    let bad = |detail: String| Refused::new(ProblemKind::BadPeer, detail);
    let Path(text) = peer.map_err(|rejection| bad(rejection.body_text()))?;
    text.parse().map_err(|error: kinfolk_shell::signal::key::BadKey| bad(error.to_string()))
}

fn services_of(list: Option<&str>) -> Result<Vec<Service>, Refused> {
    let words = list.unwrap_or_default().split(',').map(str::trim).filter(|word| !word.is_empty());
    words
        .map(|word| match word {
            "relay" => Ok(Service::Relay),
            "bootstrap" => Ok(Service::Bootstrap),
            _ => Err(Refused::new(
                ProblemKind::BadRequest,
                "services are relay and bootstrap, with a comma between them",
            )),
        })
        .collect()
}
