//! The serving side: HTTP with JSON on a Unix socket that only the node's own user can open.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{FromRequest, Path as InPath, Request, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures::StreamExt;
use kinfolk_core::{Ask, PeerAddress, PeerId, Scope};
use serde::de::DeserializeOwned;
use tokio::net::UnixListener;

use super::{
    limited::{Limited, Limits},
    logs,
    types::{
        AddressBody, EventLine, ExportBody, Id, Outcome, PeerBody, Peers, Problem, ProblemKind, Snapshot, Status, Why,
        parse_target,
    },
};
use crate::{
    clock,
    feed::Fed,
    handle::{Control, Heard, NodeGone, RequestError, TraceError},
};

/// The name of the socket in the data folder.
pub const SOCKET: &str = "api.sock";

/// Bodies are small; larger ones are refused.
const MAX_BODY: usize = 64 * 1024;

/// Connections at once; the next ones wait.
const MAX_CONNECTIONS: usize = 128;

/// Paths of sockets are at most this long: the operating system's limit.
const MAX_PATH: usize = 107;

/// Why the local API is not there.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The operating system knows only short names for sockets.
    #[error(
        "the path of the local API's socket, {}, is longer than {MAX_PATH} bytes; choose a data folder with a shorter \
         path",
        path.display()
    )]
    PathTooLong {
        /// The socket.
        path: PathBuf,
    },
    /// Somebody answers there.
    #[error("another node listens on {}; stop that one first", path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something else has the name.
    #[error("{} is in the way of the local API's socket; move it away", path.display())]
    NotASocket {
        /// The file.
        path: PathBuf,
    },
    /// Anything else.
    #[error("can't {doing} {}: {source}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
}

/// A local API that listens. Dropping it removes the socket.
#[derive(Debug)]
pub struct Api {
    listener: UnixListener,
    /// Removes the file when dropped.
    file: SocketFile,
}

#[derive(Debug)]
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            tracing::debug!(%error, path = %self.0.display(), "can't remove the local API's socket");
        }
    }
}

impl Api {
    /// Listens. What a node that was killed left there is removed. Needs a tokio runtime.
    ///
    /// # Errors
    /// When somebody answers there already, or the operating system says no.
    pub fn listen(path: impl Into<PathBuf>) -> Result<Self, ApiError> {
        let path = path.into();
        if path.as_os_str().len() > MAX_PATH {
            return Err(ApiError::PathTooLong { path });
        }
        let io = |doing, source| ApiError::Io { doing, path: path.clone(), source };
        if let Ok(there) = fs::symlink_metadata(&path) {
            // Only a socket that nobody answers on may go.
            if !there.file_type().is_socket() {
                return Err(ApiError::NotASocket { path });
            }
            match std::os::unix::net::UnixStream::connect(&path) {
                Ok(_) => return Err(ApiError::InUse { path }),
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    fs::remove_file(&path).map_err(|error| io("remove the stale socket", error))?;
                }
                Err(error) => return Err(io("make a socket of", error)),
            }
        }
        // Made where nobody else can reach it, and moved when it is closed to others: so there is no moment at which it
        // is open, wherever it lies.
        let folder = path.parent().unwrap_or(Path::new("."));
        let private = tempfile::Builder::new()
            .prefix(".")
            .rand_bytes(4)
            .tempdir_in(folder)
            .map_err(|error| io("make a socket in the folder of", error))?;
        let first = private.path().join("s");
        let listener = UnixListener::bind(&first).map_err(|error| io("listen on", error))?;
        fs::set_permissions(&first, Permissions::from_mode(0o600)).map_err(|error| io("close to others", error))?;
        fs::rename(&first, &path).map_err(|error| io("make", error))?;
        let file = SocketFile(path.clone());
        Ok(Self { listener, file })
    }

    /// The socket.
    pub fn path(&self) -> &Path {
        &self.file.0
    }

    /// Serves until `stop`, and then until what is being answered is answered.
    pub async fn serve(self, node: Control, stop: impl Future<Output = ()> + Send + 'static) {
        let Self { listener, file } = self;
        let listener = Limited::new(listener, Limits { connections: MAX_CONNECTIONS, time: None, bytes: None });
        // The file goes while the socket still listens: afterwards the name may be another node's.
        let stop = async move {
            stop.await;
            drop(file);
        };
        if let Err(error) = axum::serve(listener, router(node)).with_graceful_shutdown(stop).await {
            tracing::warn!(%error, "the local API has failed");
        }
    }
}

/// The API's paths.
pub fn router(node: Control) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/snapshot", get(snapshot))
        .route("/v1/id", get(id))
        .route("/v1/peers", get(peers))
        .route("/v1/peers/{peer}", get(peer))
        .route("/v1/peers/{peer}/why", get(why_peer))
        .route("/v1/why", get(why))
        .route("/v1/events", get(events))
        .route("/v1/config", get(config))
        .route("/v1/log", get(logs::log))
        .route("/v1/sync", get(logs::sync))
        .route("/v1/put", post(logs::put))
        .route("/v1/put/lines", post(logs::put_lines).layer(axum::extract::DefaultBodyLimit::max(logs::MAX_LINES)))
        .route("/v1/connect", post(connect))
        .route("/v1/disconnect", post(disconnect))
        .route("/v1/pin", post(pin))
        .route("/v1/forget", post(forget))
        .route("/v1/block", post(block))
        .route("/v1/allow", post(allow))
        .route("/v1/bootstrap/add", post(add_bootstrap))
        .route("/v1/bootstrap/remove", post(remove_bootstrap))
        .route("/v1/trace/start", post(trace_start))
        .route("/v1/trace/stop", post(trace_stop))
        .route("/v1/trace/export", post(trace_export))
        .fallback(no_such_endpoint)
        .method_not_allowed_fallback(wrong_method)
        .layer(axum::extract::DefaultBodyLimit::max(MAX_BODY))
        .with_state(node)
}

type Answer<T> = Result<Json<T>, Problem>;

async fn status(State(node): State<Control>) -> Answer<Status> {
    Ok(Json(node.status().await?))
}

async fn snapshot(State(node): State<Control>) -> Answer<Snapshot> {
    Ok(Json(node.snapshot().await?))
}

async fn id(State(node): State<Control>) -> Answer<Id> {
    let status = node.status().await?;
    Ok(Json(Id { addresses: pasteable(&status), peer: status.peer, agent: status.agent }))
}

async fn peers(State(node): State<Control>) -> Answer<Peers> {
    Ok(Json(Peers { peers: node.peers().await? }))
}

async fn peer(State(node): State<Control>, InPath(peer): InPath<String>) -> Result<Response, Problem> {
    let id = peer_id(&peer)?;
    match node.peer(id).await? {
        Some(peer) => Ok(Json(peer).into_response()),
        None => Err(Problem::new(ProblemKind::UnknownPeer, format!("no peer {id} is known here"))),
    }
}

async fn why_peer(State(node): State<Control>, InPath(peer): InPath<String>) -> Answer<Why> {
    let id = peer_id(&peer)?;
    let entries = node.why(Some(id)).await?;
    // A peer that is gone may still have its reasons; one without either was never heard of.
    if entries.is_empty() && node.peer(id).await?.is_none() {
        return Err(Problem::new(ProblemKind::UnknownPeer, format!("no peer {id} is known here")));
    }
    Ok(Json(Why { entries }))
}

async fn why(State(node): State<Control>) -> Answer<Why> {
    Ok(Json(Why { entries: node.why(None).await? }))
}

async fn config(State(node): State<Control>) -> Answer<kinfolk_core::Config> {
    Ok(Json(node.config().await?))
}

async fn events(State(node): State<Control>) -> Response {
    let ready = futures::stream::iter([EventLine::ready(clock::unix_millis())]);
    let told = node.events().map(|heard: Heard| match heard {
        Fed::Item(told) => EventLine::of(told.at_unix_ms, &told.notice, told.because.to_string()),
        Fed::Lost(lost) => EventLine::lagged(clock::unix_millis(), lost),
    });
    let lines = ready.chain(told).map(|line| {
        let mut text = serde_json::to_vec(&line)?;
        text.push(b'\n');
        Ok::<_, serde_json::Error>(text)
    });
    let ndjson = HeaderValue::from_static("application/x-ndjson");
    ([(header::CONTENT_TYPE, ndjson)], Body::from_stream(lines)).into_response()
}

async fn connect(State(node): State<Control>, Read(body): Read<AddressBody>) -> Answer<Outcome> {
    ask(&node, Ask::Connect(target(&body)?)).await
}

async fn disconnect(State(node): State<Control>, Read(body): Read<PeerBody>) -> Answer<Outcome> {
    ask(&node, Ask::Disconnect(peer_id(&body.peer)?)).await
}

async fn pin(State(node): State<Control>, Read(body): Read<AddressBody>) -> Answer<Outcome> {
    ask(&node, Ask::Pin(target(&body)?)).await
}

async fn forget(State(node): State<Control>, Read(body): Read<PeerBody>) -> Answer<Outcome> {
    ask(&node, Ask::Forget(peer_id(&body.peer)?)).await
}

async fn block(State(node): State<Control>, Read(body): Read<PeerBody>) -> Answer<Outcome> {
    ask(&node, Ask::Block(peer_id(&body.peer)?)).await
}

async fn allow(State(node): State<Control>, Read(body): Read<PeerBody>) -> Answer<Outcome> {
    ask(&node, Ask::Allow(peer_id(&body.peer)?)).await
}

async fn add_bootstrap(State(node): State<Control>, Read(body): Read<AddressBody>) -> Answer<Outcome> {
    ask(&node, Ask::AddBootstrap(target(&body)?)).await
}

async fn remove_bootstrap(State(node): State<Control>, Read(body): Read<AddressBody>) -> Answer<Outcome> {
    ask(&node, Ask::RemoveBootstrap(target(&body)?)).await
}

async fn trace_start(State(node): State<Control>) -> Result<Response, Problem> {
    Ok(Json(node.trace_start().await?).into_response())
}

async fn trace_stop(State(node): State<Control>) -> Result<Response, Problem> {
    Ok(Json(node.trace_stop().await?).into_response())
}

async fn trace_export(State(node): State<Control>, Read(body): Read<ExportBody>) -> Result<Response, Problem> {
    let file = PathBuf::from(body.file);
    if !file.is_absolute() {
        let detail = format!("\"file\": {} is not an absolute path", file.display());
        return Err(Problem::new(ProblemKind::BadRequest, detail));
    }
    Ok(Json(node.trace_export(file).await?).into_response())
}

async fn no_such_endpoint(request: Request) -> Problem {
    Problem::new(ProblemKind::NoSuchEndpoint, format!("there is no {}", request.uri().path()))
}

async fn wrong_method(request: Request) -> Problem {
    let detail = format!("{} does not take {}", request.uri().path(), request.method());
    Problem::new(ProblemKind::WrongMethod, detail)
}

async fn ask(node: &Control, ask: Ask) -> Answer<Outcome> {
    Ok(Json(node.ask(ask).await?.into()))
}

fn target(body: &AddressBody) -> Result<PeerAddress, Problem> {
    let bad = |problem: String| Problem::new(ProblemKind::BadRequest, format!("\"address\": {problem}"));
    parse_target(&body.address).map_err(|error| bad(error.to_string()))
}

fn peer_id(text: &str) -> Result<PeerId, Problem> {
    text.parse().map_err(|error| Problem::new(ProblemKind::BadRequest, format!("peer '{text}': {error}")))
}

/// Multiaddrs that others can be given; what reaches farthest comes first.
pub fn pasteable(status: &Status) -> Vec<String> {
    let reach = |address: &kinfolk_core::Address| match address.scope() {
        None => 0,
        Some(Scope::Global) => 1,
        Some(Scope::Loopback) => 4,
        // With its zone missing it is of no use to anyone.
        Some(Scope::LinkLocal) => 3,
        Some(
            Scope::Unspecified
            | Scope::Private
            | Scope::UniqueLocal
            | Scope::Shared
            | Scope::Nat64
            | Scope::Benchmarking
            | Scope::Documentation
            | Scope::Multicast
            | Scope::Reserved,
        ) => 2,
    };
    let mut addresses: Vec<_> =
        status.advertised.iter().chain(&status.listening).map(|address| (reach(address), address)).collect();
    addresses.sort();
    addresses.dedup();
    let best = addresses.first().map_or(0, |(reach, _)| *reach);
    addresses.retain(|(reach, _)| *reach < 3 || *reach == best);
    let peer = status.peer;
    addresses.into_iter().map(|(_, address)| format!("{address}/p2p/{peer}")).collect()
}

/// A JSON body; what is wrong with it is said with line and column.
struct Read<T>(T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Read<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| {
            let too_large = rejection.status() == StatusCode::PAYLOAD_TOO_LARGE;
            let kind = if too_large { ProblemKind::TooLarge } else { ProblemKind::BadRequest };
            Problem::new(kind, rejection.body_text())
        })?;
        serde_json::from_slice(&bytes)
            .map(Self)
            .map_err(|error| Problem::new(ProblemKind::BadRequest, format!("the body is not what is needed: {error}")))
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let json = HeaderValue::from_static("application/problem+json");
        (status, [(header::CONTENT_TYPE, json)], serde_json::to_string(&self).unwrap_or_default()).into_response()
    }
}

impl From<NodeGone> for Problem {
    fn from(gone: NodeGone) -> Self {
        Self::new(ProblemKind::ShuttingDown, gone.to_string())
    }
}

impl From<RequestError> for Problem {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::Declined(error) => Self::from(&error),
            RequestError::Gone(gone) => gone.into(),
        }
    }
}

impl From<TraceError> for Problem {
    fn from(error: TraceError) -> Self {
        match error {
            TraceError::Failed(text) => Self::new(ProblemKind::Internal, text),
            TraceError::Gone(gone) => gone.into(),
        }
    }
}
