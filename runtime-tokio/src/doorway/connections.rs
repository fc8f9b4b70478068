//! Connections, bounded: in number, in number per network, and in time.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{Router, body::Body, extract::ConnectInfo, http::Request};
use futures::{FutureExt, future::Shared as SharedFuture};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use kinfolk_core::network_of;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};
use tower::ServiceExt;

use super::{HEAD_TIME, metrics::Metrics};
use crate::config::DoorwayRules;

/// How long a connection may last, idle or not. Clients begin a new one.
const LIFE: Duration = Duration::from_secs(300);

/// What is being answered when a connection or the doorway ends has this long.
const GRACE: Duration = Duration::from_secs(5);

/// After the operating system had none left.
const AFTER_ERROR: Duration = Duration::from_millis(100);

/// Head of a request, in bytes: more is no request.
const MAX_HEAD: usize = 16 * 1024;

/// Answers until `stop`, and then what is being answered.
pub(super) async fn serve(
    listener: TcpListener,
    app: Router,
    rules: DoorwayRules,
    metrics: Arc<Metrics>,
    stop: impl Future<Output = ()> + Send + 'static,
) {
    let places = Arc::new(Semaphore::new(rules.connections as usize));
    let crowd = Arc::new(Crowd { bound: rules.connections_per_prefix, proxies: rules.proxies, here: Mutex::default() });
    let stop = stop.boxed().shared();
    let mut connections = JoinSet::new();
    loop {
        // It is never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { break };
        let accepted = tokio::select! {
            () = stop.clone() => break,
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
        };
        match accepted {
            Ok((stream, from)) => match Crowd::enter(&crowd, from.ip()) {
                Some(entered) => {
                    metrics.connections.inc();
                    let (app, stop, metrics) = (app.clone(), stop.clone(), Arc::clone(&metrics));
                    connections.spawn(async move {
                        connection(stream, from, app, stop).await;
                        metrics.connections.dec();
                        drop((entered, place));
                    });
                }
                None => _ = metrics.turned_away.inc(),
            },
            Err(error) if is_of_one(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "no connection can be taken");
                sleep(AFTER_ERROR).await;
            }
        }
    }
    drop(listener);
    // Each of them knows of the end.
    while connections.join_next().await.is_some() {}
}

/// The other side went before it was taken.
fn is_of_one(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
}

async fn connection(stream: TcpStream, from: SocketAddr, app: Router, stop: SharedFuture<impl Future<Output = ()>>) {
    // An answer is one write: waiting for more helps nobody.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(from));
        app.clone().oneshot(request)
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME).max_buf_size(MAX_HEAD);
    let mut connection = std::pin::pin!(http.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        // Errors are those of a client that went or spoke something else.
        _ = connection.as_mut() => return,
        () = stop => {}
        () = sleep(LIFE) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = timeout(GRACE, connection).await;
}

/// Who is here, by network.
#[derive(Debug)]
struct Crowd {
    bound: u32,
    /// They stand for many.
    proxies: Vec<IpAddr>,
    here: Mutex<HashMap<IpAddr, u32>>,
}

struct Entered(Option<(Arc<Crowd>, IpAddr)>);

impl Crowd {
    fn enter(crowd: &Arc<Self>, from: IpAddr) -> Option<Entered> {
        if crowd.proxies.contains(&from.to_canonical()) {
            return Some(Entered(None));
        }
        let network = network_of(from);
        let mut here = crowd.lock();
        let count = here.entry(network).or_default();
        if *count >= crowd.bound {
            return None;
        }
        *count += 1;
        Some(Entered(Some((Arc::clone(crowd), network))))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, u32>> {
        self.here.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let Some((crowd, network)) = &self.0 else { return };
        let mut here = crowd.lock();
        if let Some(count) = here.get_mut(network) {
            *count -= 1;
            if *count == 0 {
                here.remove(network);
            }
        }
    }
}
