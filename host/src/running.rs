use std::{
    fmt,
    net::SocketAddr,
    ops::Deref,
    sync::{Mutex, PoisonError},
};

use kinfolk_core::{PeerId, ValidConfig};
use kinfolk_shell::{
    api::server::ApiError,
    data_dir::DataDirError,
    feed::{Fed, Feed},
    handle::{EventStream, Handle},
    network::{Network, NetworkError, NetworkSettings},
    node::{self, Folder, NodeSettings, Place},
    signal::client::Tokens,
    sync::{Logs, log::Log},
    trace::TraceLimits,
};
use libp2p::{identity::Keypair, swarm::NetworkBehaviour};
use tokio::{runtime, task::JoinHandle};

use crate::{
    AGENT,
    config::{Footprint, HostSettings},
};

/// A node that runs, on tasks of its own. It ends with this value: by [`shutdown`](Self::shutdown), which waits until
/// everything is on disk, or in the background when this is dropped.
///
/// What can be asked of it is in [`Control`](crate::Control), which it derefs to by way of [`Handle`]; clones of that
/// may be given to other tasks and threads.
pub struct Running<A: NetworkBehaviour> {
    handle: Handle<A>,
    peer: PeerId,
    warnings: Vec<String>,
    http: Option<SocketAddr>,
    logs: Logs,
    first_events: Mutex<Option<EventStream>>,
    app_events: Feed<A::ToSwarm>,
    runtime: runtime::Handle,
    life: Option<JoinHandle<()>>,
}

/// Why a node did not start. The text says where and what to do.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StartError {
    /// The settings are wrong.
    #[error("{0}")]
    Settings(String),
    /// Another node runs on the data folder.
    #[error("{0}")]
    NodeRunning(String),
    /// Something of this machine can't be used: a file, a socket.
    #[error("{0}")]
    Failed(String),
}

/// What a node is told beside the core's settings.
pub(crate) struct Outside {
    /// `None`: nothing is kept.
    pub(crate) host: Option<HostSettings>,
    pub(crate) http: Option<SocketAddr>,
    pub(crate) footprint: Footprint,
    pub(crate) tokens: Tokens,
}

pub(crate) async fn start<A>(
    config: ValidConfig,
    outside: Outside,
    log: Option<Box<dyn Log>>,
    app: Box<dyn FnOnce(&Keypair) -> A + Send>,
) -> Result<Running<A>, StartError>
where
    A: NetworkBehaviour + Send,
    A::ToSwarm: Send,
{
    let Outside { host, http, footprint, tokens } = outside;
    let place = host.map_or(Place::Memory, |host| Place::Folder(folder(host)));
    let Footprint { slack, batch, .. } = footprint;
    let settings =
        NodeSettings { config: config.clone(), agent: AGENT.to_owned(), place, http, tokens, log, slack, batch };
    // Opens and writes files. And what makes the network needs much room for a moment: on a thread that ends, its stack does
    // not stay with the process, as that of the main thread would.
    let assembled = tokio::task::spawn_blocking(move || {
        let prepared = node::prepare(settings)?;
        let key = prepared.identity.keypair.clone();
        let app = app(&key);
        let spawn = |task| {
            tokio::spawn(task);
        };
        let mut settings = NetworkSettings { numbers: prepared.numbers(), ..NetworkSettings::new(config, AGENT) };
        footprint.shape(&mut settings);
        let network = Network::new(key, settings, spawn, app)?;
        let logs = prepared.logs().clone();
        let network = network.with_logs(logs.clone());
        let (peer, warnings, http) = (prepared.identity.peer, prepared.warnings.clone(), prepared.http());
        let (life, handle, app_events) = prepared.drive(network);
        // Before its life begins, so that nothing is missed.
        let first_events = Mutex::new(Some(handle.events()));
        let life = Some(tokio::spawn(life));
        let runtime = runtime::Handle::current();
        Ok(Running { handle, peer, warnings, http, logs, first_events, app_events, runtime, life })
    });
    match assembled.await {
        Ok(running) => running,
        Err(error) => match error.try_into_panic() {
            // The application's.
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => Err(StartError::Failed(error.to_string())),
        },
    }
}

fn folder(host: HostSettings) -> Folder {
    let HostSettings {
        data_dir,
        api_socket,
        trace,
        http_listen: _,
        signal_tokens: _,
        doorway: _,
        log: _,
        footprint: _,
    } = host;
    let trace = TraceLimits {
        segment_bytes: trace.segment.0,
        segments: trace.segments,
        bytes: trace.total.0,
        record: trace.record,
    };
    Folder { path: data_dir, api_socket, trace }
}

impl<A: NetworkBehaviour> Running<A> {
    /// Who this node is.
    pub fn peer_id(&self) -> PeerId {
        self.peer
    }

    /// What the user should know about this start, in whole sentences: a key file that others could read, a damaged
    /// peer store that was set aside.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Where operators are answered over HTTP, if they are: with the port that was taken for 0.
    pub fn http(&self) -> Option<SocketAddr> {
        self.http
    }

    /// The logs: the own one, and the copies of the others'.
    pub fn log(&self) -> &Logs {
        &self.logs
    }

    /// The way to the node, to be cloned for other tasks.
    pub fn handle(&self) -> &Handle<A> {
        &self.handle
    }

    /// What happens. The first stream begins with the node's start, later ones with the call. A stream that is not read
    /// loses the oldest events and says how many; it ends with the node.
    pub fn events(&self) -> EventStream {
        let mut first = self.first_events.lock().unwrap_or_else(PoisonError::into_inner);
        first.take().unwrap_or_else(|| self.handle.events())
    }

    /// What the application's own behaviour says. At most 1 024 events wait to be read, then the oldest are lost, which
    /// [`Fed::Lost`] tells. `None`: the node has ended.
    pub async fn next_app_event(&mut self) -> Option<Fed<A::ToSwarm>> {
        futures::StreamExt::next(&mut self.app_events).await
    }

    /// Ends the node: connections are closed, and what is to be remembered is on disk when this returns.
    pub async fn shutdown(mut self) {
        self.handle.shutdown().await;
        if let Some(life) = self.life.take() {
            // An error is a panic of the driver, which was told where it happened; it has ended all the same.
            let _ = life.await;
        }
    }
}

impl<A: NetworkBehaviour> Deref for Running<A> {
    type Target = Handle<A>;

    fn deref(&self) -> &Handle<A> {
        &self.handle
    }
}

impl<A: NetworkBehaviour> Drop for Running<A> {
    fn drop(&mut self) {
        if self.life.is_some() {
            let control = self.handle.control().clone();
            self.runtime.spawn(async move { control.shutdown().await });
        }
    }
}

impl<A: NetworkBehaviour> fmt::Debug for Running<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl From<node::StartError> for StartError {
    fn from(error: node::StartError) -> Self {
        let text = error.to_string();
        match error {
            node::StartError::DataDir(DataDirError::InUse { .. }) | node::StartError::Api(ApiError::InUse { .. }) => {
                Self::NodeRunning(text)
            }
            node::StartError::DataDir(_)
            | node::StartError::Identity(_)
            | node::StartError::Store(_)
            | node::StartError::Log(_)
            | node::StartError::Api(_)
            | node::StartError::Operator(_) => Self::Failed(text),
        }
    }
}

impl From<NetworkError> for StartError {
    fn from(error: NetworkError) -> Self {
        match error {
            NetworkError::Protocol { .. } => Self::Settings(error.to_string()),
            NetworkError::Key(_) | NetworkError::Mdns(_) => Self::Failed(error.to_string()),
        }
    }
}
