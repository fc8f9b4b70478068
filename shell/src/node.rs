//! A node, put together: data folder, identity, store, recorder, interfaces, local API and driver around a world.
//!
//! Two steps, since a world needs the identity: [`prepare`] does what can fail on this machine, [`Prepared::drive`] joins
//! it with the world. Both need a tokio runtime, for the local API and for the word of interfaces.

use std::{
    hash::{BuildHasher, RandomState},
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use futures::{
    FutureExt, StreamExt,
    channel::oneshot,
    future::{OptionFuture, join, select},
    stream,
};
use futures_timer::Delay;
use kinfolk_core::{Interfaces, PeerId, Started, ValidConfig};

use crate::{
    api::{
        operator::{Operator, OperatorError},
        server::{Api, ApiError, SOCKET},
    },
    clock::{self, Clock},
    data_dir::{DataDir, DataDirError},
    disk::Disk,
    driver::{Driver, Setup, World},
    feed::Feed,
    handle::Handle,
    identity::{Identity, IdentityError},
    interfaces,
    signal::{
        client::{Client as SignalClient, Tokens},
        numbers::Numbers,
    },
    store::{Remembered, Store, StoreError},
    sync::{
        Logs,
        log::{Log, LogError},
        sqlite::SqliteLog,
    },
    trace::{Recorder, TraceLimits},
};

/// How long answers of the local API that are under way may take at shutdown.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// What a node is made of.
#[derive(Debug)]
pub struct NodeSettings {
    /// The core's settings.
    pub config: ValidConfig,
    /// Program and version, as other peers see it: `kinfolk/0.1.0`.
    pub agent: String,
    /// Where it keeps what it must not forget.
    pub place: Place,
    /// Where to answer operators over HTTP ([`crate::api::operator`]); port 0 for any. `None`: nowhere.
    pub http: Option<SocketAddr>,
    /// What signal servers want to be shown.
    pub tokens: Tokens,
    /// Where to keep logs. `None`: in Kinfolk's own store, in the folder or in memory.
    pub log: Option<Box<dyn Log>>,
    /// Timers may be late by this ([`Setup::slack`]).
    pub slack: Duration,
    /// What can be found again, and the trace, are written to disk this long after.
    pub batch: Duration,
}

/// Where a node keeps what it must not forget.
#[derive(Clone, Debug)]
pub enum Place {
    /// Nowhere: a new identity that knows nobody, no trace, no local API.
    Memory,
    /// In a folder.
    Folder(Folder),
}

/// A node's folder.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Folder {
    /// Where; made if it does not exist.
    pub path: PathBuf,
    /// The local API's socket; default `api.sock` in the folder.
    pub api_socket: PathBuf,
    /// How much is recorded.
    pub trace: TraceLimits,
}

/// Why a node does not start. The text says where and what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data folder.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The peer store, or the file of the logs.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is in the store of logs.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The local API.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The operators' HTTP.
    #[error(transparent)]
    Operator(#[from] OperatorError),
}

/// A node that is ready to be joined with its world.
#[derive(Debug)]
pub struct Prepared {
    /// Who it is; the world needs the key.
    pub identity: Identity,
    /// What the user should know, in whole sentences.
    pub warnings: Vec<String>,
    config: ValidConfig,
    agent: String,
    interfaces: Interfaces,
    logs: Logs,
    tokens: Tokens,
    numbers: Numbers,
    on_disk: Option<OnDisk>,
    operator: Option<Operator>,
    slack: Duration,
}

#[derive(Debug)]
struct OnDisk {
    data_dir: DataDir,
    store: Store,
    remembered: Remembered,
    recorder: Option<Recorder>,
    api: Api,
}

impl NodeSettings {
    /// With everything else as by default: nothing for operators, Kinfolk's own store of logs, no slack, and the disk's
    /// usual batches.
    pub fn new(config: ValidConfig, agent: impl Into<String>, place: Place) -> Self {
        let (slack, batch) = (Duration::ZERO, crate::trace::FLUSH);
        Self { config, agent: agent.into(), place, http: None, tokens: Tokens::default(), log: None, slack, batch }
    }
}

impl Folder {
    /// With everything else as by default.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self { api_socket: path.join(SOCKET), path, trace: TraceLimits::default() }
    }
}

/// Takes the folder, and opens everything in it.
///
/// # Errors
/// When another node has the folder, or a file in it can't be used. Nothing is lost or half-written then.
pub fn prepare(settings: NodeSettings) -> Result<Prepared, StartError> {
    let NodeSettings { config, agent, place, http, tokens, log, slack, batch } = settings;
    let interfaces = interfaces::read();
    let disk = Disk::default();
    let Place::Folder(folder) = place else {
        let operator = http.map(Operator::listen).transpose()?;
        let identity = Identity::generate();
        let log = match log {
            Some(log) => log,
            None => Box::new(SqliteLog::in_memory()?),
        };
        let logs = Logs::start(identity.keypair.clone(), log, &disk)?;
        let (warnings, numbers, on_disk) = (vec![], Numbers::default(), None);
        return Ok(Prepared {
            identity,
            warnings,
            config,
            agent,
            interfaces,
            logs,
            tokens,
            numbers,
            on_disk,
            operator,
            slack,
        });
    };
    let data_dir = DataDir::open(folder.path)?;
    let operator = http.map(Operator::listen).transpose()?;
    let path = data_dir.path();
    let identity = Identity::load_or_create(path)?;
    let opened = Store::open(path, clock::unix_secs(), &disk)?;
    let mut warnings: Vec<String> = identity.warning.iter().chain(&opened.warning).cloned().collect();
    let log = match log {
        Some(log) => log,
        None => {
            let opened = SqliteLog::open(path, identity.created, clock::unix_secs())?;
            warnings.extend(opened.warning);
            Box::new(opened.log.with_room(identity.peer, config.sync.room)?)
        }
    };
    let logs = Logs::start(identity.keypair.clone(), log, &disk)?;
    let recorder = record(path, identity.peer, folder.trace, &disk, &mut warnings);
    let recorder = recorder.map(|recorder| recorder.with_flush(batch));
    let store = opened.store.with_batch_time(batch);
    let api = Api::listen(folder.api_socket)?;
    for warning in &warnings {
        tracing::warn!("{warning}");
    }
    let numbers = Numbers::after(opened.number, store.number_keeper());
    let on_disk = Some(OnDisk { store, remembered: opened.remembered, recorder, api, data_dir });
    Ok(Prepared { identity, warnings, config, agent, interfaces, logs, tokens, numbers, on_disk, operator, slack })
}

/// A node that can't record still is a node.
fn record(path: &Path, node: PeerId, limits: TraceLimits, disk: &Disk, warnings: &mut Vec<String>) -> Option<Recorder> {
    match Recorder::open(path, node, limits, disk) {
        Ok(recorder) => Some(recorder),
        Err(error) => {
            let folder = path.join(crate::trace::FOLDER);
            warnings.push(format!("can't use {} ({error}), so nothing is recorded", folder.display()));
            None
        }
    }
}

impl Prepared {
    /// The local API's socket, if there is one.
    pub fn api_socket(&self) -> Option<&Path> {
        self.on_disk.as_ref().map(|on_disk| on_disk.api.path())
    }

    /// Where it answers operators over HTTP, if it does.
    pub fn http(&self) -> Option<SocketAddr> {
        self.operator.as_ref().map(Operator::address)
    }

    /// The logs; a world that exchanges them needs them, too.
    pub fn logs(&self) -> &Logs {
        &self.logs
    }

    /// Numbers our records, in the signal client; a world that publishes some as well needs the same.
    pub fn numbers(&self) -> Numbers {
        self.numbers.clone()
    }

    /// Joins it with its world: the node's life, which is to be spawned, the way to it, and what the application's
    /// behaviour says.
    ///
    /// The life ends with [`crate::handle::Control::shutdown`]; when that returns, everything is on disk and the folder
    /// is free for another node. A life that is dropped frees it too, but may lose the last second's finds.
    pub fn drive<W: World>(self, world: W) -> (impl Future<Output = ()>, Handle<W::App>, Feed<W::AppEvent>) {
        let network = self.config.network.clone();
        let started = Started {
            config: self.config,
            local: self.identity.peer,
            // The hasher of each run is keyed by the operating system.
            seed: RandomState::new().hash_one(self.identity.peer),
            unix_time: clock::unix_secs(),
            interfaces: self.interfaces.clone(),
        };
        let (store, remembered, recorder, data_dir, api) = match self.on_disk {
            Some(OnDisk { data_dir, store, remembered, recorder, api }) => {
                (Some(store), remembered, recorder, Some(data_dir), Some(api))
            }
            None => (None, Remembered::default(), None, None, None),
        };
        let key = self.identity.keypair.clone();
        let signal = SignalClient::new(key, network, self.agent.clone(), self.tokens, self.numbers);
        let remembered = stream::iter(remembered.frames());
        let (stop, stopped) = oneshot::channel::<()>();
        // Either end of it means to stop.
        let stopped = stopped.map(|_| ()).shared();
        let (ended, end) = oneshot::channel::<()>();
        let setup = Setup {
            started,
            agent: self.agent,
            data_dir: data_dir.as_ref().map(|data_dir| data_dir.path().display().to_string()),
            clock: Clock::start(),
            inputs: remembered.chain(interfaces::changes(self.interfaces)).boxed(),
            store,
            recorder,
            logs: Some(self.logs),
            signal: Some(signal),
            metrics: self.operator.is_some(),
            slack: self.slack,
            finish: async move {
                drop(stop);
                // An error means that it has ended as well.
                select(end, Delay::new(LAST_ANSWERS)).await;
                drop(data_dir);
            }
            .boxed(),
        };
        let (driver, handle, app_events) = Driver::new(world, setup);
        let control = handle.control().clone();
        let life = async move {
            let api = api.map(|api| api.serve(control.clone(), stopped.clone()));
            let operator = self.operator.map(|operator| operator.serve(control, stopped));
            tokio::spawn(async move {
                join(OptionFuture::from(api), OptionFuture::from(operator)).await;
                drop(ended);
            });
            driver.run().await;
        };
        (life, handle, app_events)
    }
}
