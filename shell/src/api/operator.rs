//! What operators need, over HTTP on a TCP port: whether the node is alive, whether it is of use, and figures.
//!
//! | path | 200 | 503 |
//! |---|---|---|
//! | `/health` | the driver answers within 2 s | it does not, or the node is ending |
//! | `/ready` | the node is of use: [`readiness`] | it is not; the body says why |
//! | `/metrics` | figures, OpenMetrics text | as `/health` |
//!
//! Everything is only read here, and nothing names a peer or an address; but there is no password either, so the address
//! should be one that only the operator's machines reach. Connections are bounded in number (32), time (10 s) and bytes
//! (64 KiB), and the figures are put together at most once a second, however many ask.

use std::{
    io,
    net::{SocketAddr, TcpListener as StdListener},
    sync::Arc,
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use kinfolk_core::{Health, Role};
use serde::{Deserialize, Serialize};
use tokio::{
    net::TcpListener,
    sync::Mutex,
    time::{Instant, timeout},
};

use super::{
    limited::{Limited, Limits},
    types::{Problem, ProblemKind, Status},
};
use crate::{
    handle::{Control, NodeGone},
    metrics::Process,
};

/// A driver that takes longer is not well.
const ANSWER: Duration = Duration::from_secs(2);

/// A scrape and two probes at once are three connections.
const LIMITS: Limits = Limits { connections: 32, time: Some(Duration::from_secs(10)), bytes: Some(64 * 1024) };

/// Figures are as old as this at most.
const FRESH: Duration = Duration::from_secs(1);

/// Prometheus reads this form since 2.5, and other readers take it for plain text.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Why operators can't be answered.
#[derive(Debug, thiserror::Error)]
#[error("can't answer over HTTP on {address} (setting http.listen): {source}{hint}")]
pub struct OperatorError {
    address: SocketAddr,
    source: io::Error,
    hint: &'static str,
}

/// A TCP port that is listened on.
#[derive(Debug)]
pub struct Operator {
    listener: StdListener,
    address: SocketAddr,
}

/// `GET /health`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Alive {
    /// Whether the driver answers.
    pub alive: bool,
    /// In words.
    pub text: String,
}

/// `GET /ready`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ready {
    /// Whether the node is of use.
    pub ready: bool,
    /// Why, or why not, in words.
    pub text: String,
    /// How the node is doing. `null`: it does not answer.
    pub health: Option<Health>,
    /// Peers with a connection.
    pub connected: u32,
}

impl Operator {
    /// Listens; port 0 takes any.
    ///
    /// # Errors
    /// When the operating system says no.
    pub fn listen(address: SocketAddr) -> Result<Self, OperatorError> {
        let listen = || {
            let listener = StdListener::bind(address)?;
            listener.set_nonblocking(true)?;
            let address = listener.local_addr()?;
            Ok(Self { listener, address })
        };
        let hints = [
            (io::ErrorKind::AddrInUse, "; another program has the port, choose another one"),
            (io::ErrorKind::AddrNotAvailable, "; no interface of this machine has that address"),
            (io::ErrorKind::PermissionDenied, "; ports below 1024 need extra rights"),
        ];
        listen().map_err(|source: io::Error| {
            let hint = hints.iter().find(|(kind, _)| *kind == source.kind()).map_or("", |(_, hint)| hint);
            OperatorError { address, source, hint }
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop`, and then until what is being answered is answered. Needs a tokio runtime.
    pub async fn serve(self, node: Control, stop: impl Future<Output = ()> + Send + 'static) {
        let served = async {
            let listener = Limited::new(TcpListener::from_std(self.listener)?, LIMITS);
            axum::serve(listener, router(node)).with_graceful_shutdown(stop).await
        };
        if let Err(error) = served.await {
            tracing::warn!(%error, "operators can't be answered any more");
        }
    }
}

#[derive(Clone)]
struct Asked {
    node: Control,
    figures: Arc<Figures>,
}

/// The figures, as they were told last.
struct Figures {
    process: Process,
    last: Mutex<Option<(Instant, String)>>,
}

fn router(node: Control) -> Router {
    let figures = Arc::new(Figures { process: Process::new(), last: Mutex::new(None) });
    Router::new()
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .fallback(no_such_endpoint)
        .with_state(Asked { node, figures })
}

async fn health(State(asked): State<Asked>) -> Response {
    match answer(asked.node.status()).await {
        Ok(_) => (StatusCode::OK, Json(Alive { alive: true, text: "the node answers".to_owned() })).into_response(),
        Err(text) => (StatusCode::SERVICE_UNAVAILABLE, Json(Alive { alive: false, text })).into_response(),
    }
}

async fn ready(State(asked): State<Asked>) -> Response {
    let ready = match answer(asked.node.status()).await {
        Ok(status) => readiness(&status),
        Err(text) => Ready { ready: false, text, health: None, connected: 0 },
    };
    let code = if ready.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(ready)).into_response()
}

async fn metrics(State(asked): State<Asked>) -> Response {
    let mut last = asked.figures.last.lock().await;
    let text = match &*last {
        Some((at, text)) if at.elapsed() < FRESH => text.clone(),
        Some(_) | None => match answer(asked.node.metrics()).await {
            Ok(told) => {
                let text = format!("{}{}# EOF\n", told.unwrap_or_default(), asked.figures.process.tell());
                *last = Some((Instant::now(), text.clone()));
                text
            }
            Err(text) => return (StatusCode::SERVICE_UNAVAILABLE, text).into_response(),
        },
    };
    ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response()
}

async fn no_such_endpoint(request: Request) -> Problem {
    let text = format!("there is no {}; there are /health, /ready and /metrics", request.uri().path());
    Problem::new(ProblemKind::NoSuchEndpoint, text)
}

/// An answer, or why there is none.
async fn answer<T>(asking: impl Future<Output = Result<T, NodeGone>>) -> Result<T, String> {
    match timeout(ANSWER, asking).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(gone)) => Err(gone.to_string()),
        Err(_) => Err(format!("the node has not answered within {} s", ANSWER.as_secs())),
    }
}

/// Whether a node is of use, not just there: it has somebody to work with, or is where others begin.
///
/// A server that is alone is ready: it is the first of its network, and others can only come if it is let be one. It must
/// listen for that. Pinned peers that are missing leave a node of use to those who are there.
pub fn readiness(status: &Status) -> Ready {
    let (ready, text) = match (status.health, status.role) {
        (_, Role::Server) if status.listening.is_empty() => (false, "this server listens nowhere".to_owned()),
        (Health::Connected | Health::Partial, _) => (true, status.health_text.clone()),
        (Health::Alone, Role::Server) => {
            (true, "a server that others can begin with; nobody is here so far".to_owned())
        }
        (Health::Starting | Health::Alone | Health::Isolated | Health::Offline, _) => {
            (false, status.health_text.clone())
        }
    };
    Ready { ready, text, health: Some(status.health), connected: status.connected }
}
