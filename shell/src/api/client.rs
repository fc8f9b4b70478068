//! The asking side: what a program on this machine uses to speak to the running node.

use std::{
    marker::PhantomData,
    path::{Path, PathBuf},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures::{Stream, StreamExt, stream::BoxStream};
use kinfolk_core::{Config, PeerId};
use reqwest::Method;
use serde::{Serialize, de::DeserializeOwned};

use super::logs::{LogEntry, LogQuery, Put, Sync};
use super::types::{
    AddressBody, EventLine, ExportBody, Exported, Id, Outcome, Peer, PeerBody, Peers, Problem, Snapshot, Status,
    TraceStatus, Why, WhyEntry,
};

/// Reading takes the node milliseconds. What is asked of it takes as long as its settings say.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// A line of events is far shorter; a longer one is not ours.
const MAX_LINE: usize = 1 << 20;

/// Speaks to the node whose socket this is. Needs a tokio runtime.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    socket: PathBuf,
}

/// Why there is no answer, or not the wanted one.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there.
    #[error("no node is running: nobody answers at {}", socket.display())]
    NoNode {
        /// The socket.
        socket: PathBuf,
    },
    /// The socket is another user's.
    #[error("not allowed to speak to the node at {}: it belongs to another user", socket.display())]
    Forbidden {
        /// The socket.
        socket: PathBuf,
    },
    /// The node says no, and why.
    #[error("{}", .0.detail)]
    Problem(Problem),
    /// The conversation broke off, or makes no sense.
    #[error("the node's answer can't be used: {0}")]
    Broken(String),
}

/// The node's events, as they come. Ends with the node.
pub type Events = Lines<EventLine>;

/// Lines of JSON, as they come. At the latest it ends with the node.
pub struct Lines<T> {
    bytes: BoxStream<'static, reqwest::Result<Vec<u8>>>,
    buffer: Vec<u8>,
    /// So much of the buffer is read.
    read: usize,
    line: PhantomData<fn() -> T>,
}

impl Client {
    /// For this socket. Whether somebody is there shows with the first request.
    ///
    /// # Errors
    /// When the HTTP library can't be set up.
    pub fn new(socket: impl Into<PathBuf>) -> Result<Self, ClientError> {
        let socket = socket.into();
        let http = reqwest::Client::builder()
            .unix_socket(socket.clone())
            .no_proxy()
            // There is no TLS on it: the certificates of this system need not be read, nor be there.
            .tls_certs_only([])
            // A connection that is kept may be that of a node that is gone, and costs nothing to make.
            .pool_max_idle_per_host(0)
            .build()
            .map_err(|error| ClientError::Broken(with_causes(&error)))?;
        Ok(Self { http, socket })
    }

    /// For the node of this data folder.
    ///
    /// # Errors
    /// When the HTTP library can't be set up.
    pub fn of_data_dir(folder: &Path) -> Result<Self, ClientError> {
        Self::new(folder.join(super::server::SOCKET))
    }

    /// The node as a whole.
    ///
    /// # Errors
    /// When nobody answers, or not sensibly; so with all requests.
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.get("/v1/status").await
    }

    /// Node and peers of one moment.
    ///
    /// # Errors
    /// See [`Client::status`].
    pub async fn snapshot(&self) -> Result<Snapshot, ClientError> {
        self.get("/v1/snapshot").await
    }

    /// Who the node is.
    ///
    /// # Errors
    /// See [`Client::status`].
    pub async fn id(&self) -> Result<Id, ClientError> {
        self.get("/v1/id").await
    }

    /// All peers, by id.
    ///
    /// # Errors
    /// See [`Client::status`].
    pub async fn peers(&self) -> Result<Vec<Peer>, ClientError> {
        Ok(self.get::<Peers>("/v1/peers").await?.peers)
    }

    /// One peer.
    ///
    /// # Errors
    /// `UnknownPeer`, and see [`Client::status`].
    pub async fn peer(&self, peer: PeerId) -> Result<Peer, ClientError> {
        self.get(&format!("/v1/peers/{peer}")).await
    }

    /// The reasons of the last decisions about a peer, or about no peer in particular; oldest first.
    ///
    /// # Errors
    /// `UnknownPeer`, and see [`Client::status`].
    pub async fn why(&self, peer: Option<PeerId>) -> Result<Vec<WhyEntry>, ClientError> {
        let path = peer.map_or_else(|| "/v1/why".to_owned(), |peer| format!("/v1/peers/{peer}/why"));
        Ok(self.get::<Why>(&path).await?.entries)
    }

    /// Who has what.
    ///
    /// # Errors
    /// See [`Client::status`].
    pub async fn sync(&self) -> Result<Sync, ClientError> {
        self.get("/v1/sync").await
    }

    /// Puts one entry into the node's log; it is on the disk when this returns.
    ///
    /// # Errors
    /// When it is too long, or the store can't write; and see [`Client::status`].
    pub async fn put(&self, entry: Vec<u8>) -> Result<Put, ClientError> {
        self.put_body("/v1/put", entry).await
    }

    /// Puts each line into the node's log, all or none.
    ///
    /// # Errors
    /// As [`Client::put`].
    pub async fn put_lines(&self, lines: Vec<u8>) -> Result<Put, ClientError> {
        self.put_body("/v1/put/lines", lines).await
    }

    async fn put_body(&self, path: &str, body: Vec<u8>) -> Result<Put, ClientError> {
        let response = self.http.post(url(path)).body(body).send().await.map_err(|error| self.error(&error))?;
        self.read(response).await
    }

    /// The entries of all logs, or of one; by author, then by number, and what is new as it comes.
    ///
    /// # Errors
    /// See [`Client::status`].
    pub async fn log(&self, query: &LogQuery) -> Result<Lines<LogEntry>, ClientError> {
        let LogQuery { author, last, follow } = query;
        let author = author.map(|author| format!("author={author}&")).unwrap_or_default();
        let last = last.map(|last| format!("last={last}&")).unwrap_or_default();
        self.lines(&format!("/v1/log?{author}{last}follow={follow}")).await
    }

    /// The settings in force.
    ///
    /// # Errors
    /// See [`Client::status`].
    pub async fn config(&self) -> Result<Config, ClientError> {
        self.get("/v1/config").await
    }

    /// Connects; waits for how that ends.
    ///
    /// # Errors
    /// When no connection comes of it, and see [`Client::status`].
    pub async fn connect(&self, address: &str) -> Result<Outcome, ClientError> {
        self.post_address("/v1/connect", address).await
    }

    /// Ends all connections to a peer.
    ///
    /// # Errors
    /// When the node declines, and see [`Client::status`]; so with the following.
    pub async fn disconnect(&self, peer: PeerId) -> Result<Outcome, ClientError> {
        self.post_peer("/v1/disconnect", peer).await
    }

    /// Never gives this peer up.
    ///
    /// # Errors
    /// See [`Client::disconnect`].
    pub async fn pin(&self, address: &str) -> Result<Outcome, ClientError> {
        self.post_address("/v1/pin", address).await
    }

    /// Forgets what was said by hand about this peer.
    ///
    /// # Errors
    /// See [`Client::disconnect`].
    pub async fn forget(&self, peer: PeerId) -> Result<Outcome, ClientError> {
        self.post_peer("/v1/forget", peer).await
    }

    /// Never speaks to this peer.
    ///
    /// # Errors
    /// See [`Client::disconnect`].
    pub async fn block(&self, peer: PeerId) -> Result<Outcome, ClientError> {
        self.post_peer("/v1/block", peer).await
    }

    /// Undoes `block`.
    ///
    /// # Errors
    /// See [`Client::disconnect`].
    pub async fn allow(&self, peer: PeerId) -> Result<Outcome, ClientError> {
        self.post_peer("/v1/allow", peer).await
    }

    /// A bootstrap peer more.
    ///
    /// # Errors
    /// See [`Client::disconnect`].
    pub async fn add_bootstrap(&self, address: &str) -> Result<Outcome, ClientError> {
        self.post_address("/v1/bootstrap/add", address).await
    }

    /// A bootstrap peer less.
    ///
    /// # Errors
    /// See [`Client::disconnect`].
    pub async fn remove_bootstrap(&self, address: &str) -> Result<Outcome, ClientError> {
        self.post_address("/v1/bootstrap/remove", address).await
    }

    /// Switches the recording of traces on.
    ///
    /// # Errors
    /// See [`Client::status`].
    pub async fn trace_start(&self) -> Result<TraceStatus, ClientError> {
        self.send(Method::POST, "/v1/trace/start", None::<&()>).await
    }

    /// Switches the recording of traces off.
    ///
    /// # Errors
    /// See [`Client::status`].
    pub async fn trace_stop(&self) -> Result<TraceStatus, ClientError> {
        self.send(Method::POST, "/v1/trace/stop", None::<&()>).await
    }

    /// Has the node write what was recorded into a file, named by an absolute path.
    ///
    /// # Errors
    /// When the file can't be written, and see [`Client::status`].
    pub async fn trace_export(&self, file: &Path) -> Result<Exported, ClientError> {
        let file = file.to_str().ok_or_else(|| ClientError::Broken(format!("{} is not UTF-8", file.display())))?;
        self.send(Method::POST, "/v1/trace/export", Some(&ExportBody { file: file.to_owned() })).await
    }

    /// The events from now on; the first line is `ready`.
    ///
    /// # Errors
    /// See [`Client::status`].
    pub async fn events(&self) -> Result<Events, ClientError> {
        self.lines("/v1/events").await
    }

    async fn lines<T>(&self, path: &str) -> Result<Lines<T>, ClientError> {
        let response = self.http.get(url(path)).send().await.map_err(|error| self.error(&error))?;
        if !response.status().is_success() {
            return Err(problem(response).await);
        }
        let bytes = response.bytes_stream().map(|bytes| bytes.map(|bytes| bytes.to_vec())).boxed();
        Ok(Lines { bytes, buffer: vec![], read: 0, line: PhantomData })
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.send(Method::GET, path, None::<&()>).await
    }

    async fn post_address(&self, path: &str, address: &str) -> Result<Outcome, ClientError> {
        self.send(Method::POST, path, Some(&AddressBody { address: address.to_owned() })).await
    }

    async fn post_peer(&self, path: &str, peer: PeerId) -> Result<Outcome, ClientError> {
        self.send(Method::POST, path, Some(&PeerBody { peer: peer.to_string() })).await
    }

    async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, ClientError> {
        let mut request = self.http.request(method.clone(), url(path));
        if method == Method::GET {
            request = request.timeout(READ_TIMEOUT);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.map_err(|error| self.error(&error))?;
        self.read(response).await
    }

    async fn read<T: DeserializeOwned>(&self, response: reqwest::Response) -> Result<T, ClientError> {
        if !response.status().is_success() {
            return Err(problem(response).await);
        }
        let bytes = response.bytes().await.map_err(|error| self.error(&error))?;
        serde_json::from_slice(&bytes).map_err(|error| ClientError::Broken(error.to_string()))
    }

    fn error(&self, error: &reqwest::Error) -> ClientError {
        let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
        while let Some(one) = source {
            if let Some(io) = one.downcast_ref::<std::io::Error>() {
                let socket = self.socket.clone();
                if matches!(io.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused) {
                    return ClientError::NoNode { socket };
                }
                if io.kind() == std::io::ErrorKind::PermissionDenied {
                    return ClientError::Forbidden { socket };
                }
            }
            source = one.source();
        }
        ClientError::Broken(with_causes(error))
    }
}

fn url(path: &str) -> String {
    format!("http://kinfolk{path}")
}

async fn problem(response: reqwest::Response) -> ClientError {
    let status = response.status();
    match response.bytes().await {
        Ok(bytes) => match serde_json::from_slice(&bytes) {
            Ok(problem) => ClientError::Problem(problem),
            Err(_) => ClientError::Broken(format!("status {status}")),
        },
        Err(error) => ClientError::Broken(with_causes(&error)),
    }
}

/// The error and what led to it; the library's own text names only the outermost.
pub(crate) fn with_causes(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(one) = source {
        text.push_str(": ");
        text.push_str(&one.to_string());
        source = one.source();
    }
    text
}

impl<T: DeserializeOwned> Stream for Lines<T> {
    type Item = Result<T, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let rest = self.buffer.get(self.read..).unwrap_or_default();
            if let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line = serde_json::from_slice(&rest[..end]).map_err(|error| ClientError::Broken(error.to_string()));
                self.read += end + 1;
                return Poll::Ready(Some(line));
            }
            let read = std::mem::take(&mut self.read);
            self.buffer.drain(..read);
            if self.buffer.len() > MAX_LINE {
                self.buffer.clear();
                return Poll::Ready(Some(Err(ClientError::Broken("a line without end".into()))));
            }
            match self.bytes.poll_next_unpin(cx) {
                Poll::Ready(Some(Ok(bytes))) => self.buffer.extend(bytes),
                Poll::Ready(Some(Err(error))) => {
                    return Poll::Ready(Some(Err(ClientError::Broken(with_causes(&error)))));
                }
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl<T> std::fmt::Debug for Lines<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lines").finish_non_exhaustive()
    }
}
