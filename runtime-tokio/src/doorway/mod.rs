//! The doorway: a signal server, where nodes that know only its name find their first peers.
//!
//! It keeps signed peer records ([`kinfolk_shell::signal`]) for a few networks and hands them out over HTTP; a family or a
//! village runs one beside its cloud node (`kinfolk up` with `doorway.listen`) or alone (`kinfolk doorway`). Records are
//! soft: they end after two hours, and peers publish them again, so a doorway that has lost everything is whole within an
//! hour. Several doorways behind one name share a Redis or Valkey server.
//!
//! Under stress: connections are bounded in number, per network and in time, heads and bodies in size and time, requests
//! per network and minute, records in number, per network and in size; what is refused is answered by a problem that says
//! why, and counted. Signatures are checked last, after everything that costs less. A store that does not answer makes
//! 503, at once.

mod client;
mod connections;
mod http;
mod limits;
mod metrics;
mod refused;
mod settings;
pub mod store;

use std::{
    fmt, io,
    net::SocketAddr,
    os::unix::fs::DirBuilderExt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::net::TcpListener;

pub use self::settings::{DoorwaySettings, Keep, Tokens};
use self::{
    http::App,
    metrics::Metrics,
    store::{Memory, OpenError, Redis, Room, Sqlite, Store},
};

/// The OpenAPI description of what a doorway answers; it is served as `/openapi.json`.
pub const OPEN_API: &str = include_str!("openapi.json");

/// A request's head must have come by then; a connection on which none comes ends, too.
const HEAD_TIME: Duration = Duration::from_secs(10);

/// A request's body must have come, and the answer must have been found by then.
const REQUEST_TIME: Duration = Duration::from_secs(10);

/// A doorway that listens. Nobody is answered before [`serve`](Self::serve).
pub struct Doorway {
    listener: TcpListener,
    address: SocketAddr,
    settings: DoorwaySettings,
    store: Arc<dyn Store>,
    warnings: Vec<String>,
}

/// Why there is no doorway. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum DoorwayError {
    /// The port can't be had.
    #[error("the doorway can't listen on {address} (setting doorway.listen): {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the operating system says.
        source: io::Error,
    },
    /// The records can't be kept.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The settings are wrong.
    #[error("{0}")]
    Settings(String),
}

impl Doorway {
    /// Opens the store and listens. A Redis server need not be there yet. Needs a tokio runtime.
    ///
    /// # Errors
    /// When the port or the store can't be had, or a setting is wrong.
    pub async fn open(settings: DoorwaySettings) -> Result<Self, DoorwayError> {
        check(&settings).map_err(DoorwayError::Settings)?;
        let rules = &settings.rules;
        let room = Room { records: rules.records, per_prefix: rules.records_per_prefix };
        let mut warnings = Vec::new();
        let store: Arc<dyn Store> = match &settings.keep {
            Keep::Memory => Arc::new(Memory::new(&settings.networks, room)),
            Keep::Redis(url) => Arc::new(Redis::open(url, room)?),
            Keep::Folder(folder) => {
                let (folder, networks, longest) = (folder.clone(), settings.networks.clone(), rules.lifetime);
                let open = move || {
                    std::fs::DirBuilder::new()
                        .recursive(true)
                        .mode(0o700)
                        .create(&folder)
                        .map_err(|source| OpenError::File { path: folder.clone(), source: source.into() })?;
                    Sqlite::open(&folder, &networks, room, longest.as_secs(), now())
                };
                // Reads files.
                let opened = tokio::task::spawn_blocking(open).await;
                let (store, warning) = opened.map_err(|error| DoorwayError::Settings(error.to_string()))??;
                warnings.extend(warning);
                Arc::new(store)
            }
        };
        let cannot = |source| DoorwayError::Listen { address: settings.listen, source };
        let listener = TcpListener::bind(settings.listen).await.map_err(cannot)?;
        let address = listener.local_addr().map_err(cannot)?;
        Ok(Self { listener, address, settings, store, warnings })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What the operator should know about this start, in whole sentences.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Answers until `stop`, then what is being answered, then puts everything where it stays.
    pub async fn serve(self, stop: impl Future<Output = ()> + Send + 'static) {
        let metrics = Arc::new(Metrics::new(self.store.backing()));
        let app = App::new(self.settings, Arc::clone(&self.store), Arc::clone(&metrics));
        let rules = app.rules().clone();
        connections::serve(self.listener, http::router(app), rules, metrics, stop).await;
        if let Err(error) = self.store.close().await {
            tracing::warn!(%error, "not everything could be kept");
        }
    }
}

impl fmt::Debug for Doorway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Doorway").field("address", &self.address).finish_non_exhaustive()
    }
}

fn check(settings: &DoorwaySettings) -> Result<(), String> {
    if settings.networks.is_empty() {
        return Err("a doorway needs a network to serve (doorway.networks)".to_owned());
    }
    let named = |name: &str| settings.networks.iter().any(|network| network == name);
    match settings.tokens.networks().find(|name| !named(name)) {
        Some(name) => Err(format!(
            "doorway.tokens speaks of the network '{}', which this doorway does not serve (doorway.networks)",
            name.escape_debug()
        )),
        None => Ok(()),
    }
}

/// Seconds since 1970, by this machine's clock.
fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
