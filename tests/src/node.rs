use std::{
    fs,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, SystemTime},
};

use kinfolk_core::PeerId;
use kinfolk_shell::api::{
    client::Client,
    types::{EventLine, Peer, Peers, Status, Why},
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
    process::{Child, Command},
    time::timeout,
};

use crate::{Device, Trace, program};

/// What nodes log, unless `LAB_LOG` or their test says otherwise.
const LOG: &str = "kinfolk=debug,kinfolk_shell=debug,kinfolk_core=debug,info";

/// How long a program may take to start, to stop, or to answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// What to start a node with. Without any call: no configuration at all.
#[derive(Debug)]
pub struct NodeBuilder {
    node: Node,
}

/// A `kinfolk` or `kinfolk-embedded` in a device: running, stopped or killed, with its data folder.
#[derive(Clone, Debug)]
pub struct Node {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    name: String,
    device: Device,
    program: Mutex<String>,
    folder: PathBuf,
    settings: Mutex<Vec<(String, String)>>,
    flags: Mutex<Vec<String>>,
    log: Mutex<String>,
    state: Mutex<Running>,
    exports: AtomicU32,
}

#[derive(Debug, Default)]
struct Running {
    child: Option<Child>,
    started: Option<SystemTime>,
    peer: Option<PeerId>,
    /// What all runs printed.
    lines: Arc<Mutex<Vec<String>>>,
}

impl NodeBuilder {
    pub(crate) fn new(name: &str, device: &Device, folder: PathBuf) -> Self {
        fs::create_dir_all(&folder).expect("a folder for the node");
        let inner = Inner {
            name: name.to_owned(),
            device: device.clone(),
            program: Mutex::new(std::env::var("LAB_PROGRAM").unwrap_or_else(|_| "kinfolk".to_owned())),
            folder,
            settings: Mutex::default(),
            flags: Mutex::default(),
            log: Mutex::new(std::env::var("LAB_LOG").unwrap_or_else(|_| LOG.to_owned())),
            state: Mutex::default(),
            exports: AtomicU32::new(1),
        };
        Self { node: Node { inner: Arc::new(inner) } }
    }

    pub(crate) fn node(&self) -> Node {
        self.node.clone()
    }

    /// A setting of the configuration file: its key with the table's name, and its value as TOML.
    pub fn set(self, key: &str, value: impl Into<String>) -> Self {
        self.node.set(key, value);
        self
    }

    /// Peers to ask first.
    pub fn bootstrap(self, addresses: &[String]) -> Self {
        self.set("bootstrap", format!("{addresses:?}"))
    }

    /// Runs `kinfolk-embedded` in place of `kinfolk`. `LAB_PROGRAM=kinfolk-embedded` does so for all nodes of all tests.
    pub fn embedded(self) -> Self {
        "kinfolk-embedded".clone_into(&mut self.node.inner.program.lock().expect("no panic under the lock"));
        self
    }

    /// Its wall clock is wrong, as libfaketime takes it: `@1970-01-01 00:10:00`, `+1y`.
    pub fn clock(self, stands: &str) -> Self {
        self.node.set_clock(stands);
        self
    }

    /// A flag of `kinfolk up`.
    pub fn flag(self, flag: &str) -> Self {
        self.node.inner.flags.lock().expect("no panic under the lock").push(flag.to_owned());
        self
    }

    /// What it logs, as `KINFOLK_LOG` says it. By default as much as helps to understand a failed test.
    pub fn log(self, filter: &str) -> Self {
        filter.clone_into(&mut self.node.inner.log.lock().expect("no panic under the lock"));
        self
    }

    /// Starts with the identity of another node: a copied data folder or SD card.
    pub fn identity_of(self, other: &Node) -> Self {
        let data = self.node.data();
        fs::create_dir_all(&data).expect("a data folder");
        fs::copy(other.data().join("identity"), data.join("identity")).expect("an identity to copy");
        self
    }

    /// Starts it, and waits until it runs.
    pub async fn start(self) -> Node {
        self.node.start().await;
        self.node
    }
}

impl Node {
    /// Its name in the test.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Where it runs.
    pub fn device(&self) -> &Device {
        &self.inner.device
    }

    /// Its peer id.
    pub fn peer_id(&self) -> PeerId {
        self.state().peer.expect("a node that was started has an id")
    }

    /// Its id as people see it in the program's lines: the last eight characters.
    pub fn short_id(&self) -> String {
        let text = self.peer_id().to_string();
        text[text.len() - 8..].to_owned()
    }

    /// A multiaddr of this node at its device's IPv4 address, with its id.
    pub fn address(&self) -> String {
        format!("/ip4/{}/tcp/4001/p2p/{}", self.inner.device.ip(), self.peer_id())
    }

    /// The same by QUIC and by TCP.
    pub fn addresses(&self) -> [String; 2] {
        let (ip, peer) = (self.inner.device.ip(), self.peer_id());
        ["udp/4001/quic-v1", "tcp/4001"].map(|port| format!("/ip4/{ip}/{port}/p2p/{peer}"))
    }

    /// Changes a setting of the configuration file, for the next start.
    pub fn set(&self, key: &str, value: impl Into<String>) {
        let mut settings = self.inner.settings.lock().expect("no panic under the lock");
        settings.retain(|(known, _)| known != key);
        settings.push((key.to_owned(), value.into()));
    }

    /// Sets the wall clock of a node that was built with one: a running node sees it within a second.
    pub fn set_clock(&self, stands: &str) {
        fs::write(self.clock(), stands).expect("a file for the clock");
    }

    fn clock(&self) -> PathBuf {
        self.inner.folder.join("clock")
    }

    /// Starts the program, and waits until it answers.
    pub async fn start(&self) {
        self.write_settings();
        let mut command = self.command();
        command.args(["up", "--json"]).arg("--data-dir").arg(self.data());
        command.arg("--config").arg(self.inner.folder.join("config.toml"));
        command.args(self.inner.flags.lock().expect("no panic under the lock").iter());
        let log = fs::File::options().append(true).create(true).open(self.log()).expect("a file for the log");
        command.env("KINFOLK_LOG", self.inner.log.lock().expect("no panic under the lock").as_str()).stderr(log);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let started = SystemTime::now();
        let mut child = self.inner.device.spawn(command);
        let mut printed = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let lines = Arc::clone(&self.state().lines);
        tokio::spawn(async move {
            while let Ok(Some(line)) = printed.next_line().await {
                lines.lock().expect("no panic under the lock").push(line);
            }
        });
        {
            let mut state = self.state();
            (state.child, state.started) = (Some(child), Some(started));
        }

        let answers = async {
            loop {
                if let Ok(status) = self.ask::<Status>("GET", "/v1/status", None).await {
                    return status;
                }
                let ended = self.state().child.as_mut().and_then(|child| child.try_wait().ok().flatten());
                assert!(ended.is_none(), "{} ended at once ({ended:?})\n{}", self.inner.name, self.log_tail(40));
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        match timeout(PATIENCE, answers).await {
            Ok(status) => self.state().peer = Some(status.peer),
            Err(_) => panic!("{} does not answer\n{}", self.inner.name, self.log_tail(40)),
        }
    }

    /// Ends it as a power cut would.
    pub async fn kill(&self) {
        let mut child = self.take_child();
        child.start_kill().expect("a process to kill");
        child.wait().await.expect("a process that ends");
    }

    /// Ends it as Ctrl-C does, and checks that it takes its leave in order.
    pub async fn stop(&self) {
        let status = self.interrupt().await;
        assert!(status.success(), "{} ended with {status}\n{}", self.inner.name, self.log_tail(40));
    }

    async fn interrupt(&self) -> ExitStatus {
        let mut child = self.take_child();
        let pid = child.id().and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed()));
        rustix::process::kill_process(pid.expect("a process that runs"), rustix::process::Signal::TERM)
            .expect("a signal that arrives");
        match timeout(PATIENCE, child.wait()).await {
            Ok(status) => status.expect("a process that ends"),
            Err(_) => panic!("{} does not end when asked to\n{}", self.inner.name, self.log_tail(40)),
        }
    }

    fn take_child(&self) -> Child {
        self.state().child.take().unwrap_or_else(|| panic!("{} does not run", self.inner.name))
    }

    /// Whether it was started, and neither stopped nor killed.
    pub fn runs(&self) -> bool {
        self.state().child.is_some()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.state().child.as_ref().and_then(Child::id).expect("a process that runs")
    }

    /// The moment before its process was last started.
    pub fn started_at(&self) -> SystemTime {
        self.state().started.expect("a node that was started")
    }

    /// The node as a whole.
    pub async fn status(&self) -> Status {
        self.get("/v1/status").await
    }

    /// All peers that it knows.
    pub async fn peers(&self) -> Vec<Peer> {
        self.get::<Peers>("/v1/peers").await.peers
    }

    /// One peer, if it knows it.
    pub async fn peer(&self, peer: &PeerId) -> Option<Peer> {
        self.peers().await.into_iter().find(|known| known.peer == *peer)
    }

    /// How it is connected with another node: `None` if it is not, or the other has not introduced itself.
    pub async fn connected(&self, other: &Node) -> Option<Peer> {
        self.connected_to(&other.peer_id()).await
    }

    /// The same by id.
    pub async fn connected_to(&self, other: &PeerId) -> Option<Peer> {
        self.peer(other).await.filter(|peer| peer.path.is_some() && peer.agent.is_some())
    }

    /// The reasons of its last decisions about a peer.
    pub async fn why(&self, peer: &PeerId) -> Why {
        self.get(&format!("/v1/peers/{peer}/why")).await
    }

    /// The same as text, a line each.
    pub async fn why_text(&self, peer: &PeerId) -> String {
        let line = |entry: &kinfolk_shell::api::types::WhyEntry| {
            format!("{}, because {} ({}x)\n", entry.action, entry.because, entry.times)
        };
        match self.ask::<Why>("GET", &format!("/v1/peers/{peer}/why"), None).await {
            Ok(why) => why.entries.iter().map(line).collect(),
            Err(error) => format!("nothing: {error}\n"),
        }
    }

    /// What it told its user, the NDJSON lines that are events, all runs together.
    pub fn events(&self) -> Vec<EventLine> {
        let lines = Arc::clone(&self.state().lines);
        let lines = lines.lock().expect("no panic under the lock");
        lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Everything that it printed, all runs together.
    pub fn printed(&self) -> Vec<String> {
        self.state().lines.lock().expect("no panic under the lock").clone()
    }

    /// Runs `kinfolk ARGUMENTS` against this node, as its user would, and gives what it printed.
    ///
    /// # Errors
    /// What it said and printed, when it ended with another exit code than 0.
    pub async fn cli(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = self.command();
        command.args(arguments).arg("--data-dir").arg(self.data());
        command.arg("--config").arg(self.inner.folder.join("config.toml")).kill_on_drop(true);
        let output = timeout(Duration::from_secs(90), command.output()).await.expect("a command that ends");
        let output = output.expect("a program that can be started");
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            let [printed, said] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
            Err(format!("{}: {said}{printed}", output.status))
        }
    }

    /// Puts each line into its log, and is done when they are on its disk.
    pub async fn put(&self, lines: &str) {
        let client = Client::of_data_dir(&self.data()).expect("an HTTP client");
        // Requests have a bound.
        for part in lines.split_inclusive('\n').collect::<Vec<_>>().chunks(4_096) {
            if let Err(error) = client.put_lines(part.concat().into_bytes()).await {
                panic!("{}: {error}\n{}", self.inner.name, self.log_tail(40));
            }
        }
    }

    /// A copy of its trace so far.
    pub async fn export(&self) -> PathBuf {
        let number = self.inner.exports.fetch_add(1, Ordering::Relaxed);
        let file = self.inner.folder.join(format!("trace-{number}.jsonl"));
        let path = file.to_str().expect("a path in UTF-8");
        self.cli(&["trace", "export", path]).await.unwrap_or_else(|error| panic!("{}: {error}", self.inner.name));
        file
    }

    /// Its trace so far, read.
    pub async fn trace(&self) -> Trace {
        Trace::read(&self.export().await)
    }

    /// Asks the local API.
    async fn get<T: DeserializeOwned>(&self, path: &str) -> T {
        match self.ask("GET", path, None).await {
            Ok(value) => value,
            Err(error) => panic!("{}: {path}: {error}\n{}", self.inner.name, self.log_tail(40)),
        }
    }

    /// Asks the local API by hand, so that these tests share nothing with the client that they test.
    ///
    /// # Errors
    /// The problem in words, or what went wrong on the way.
    pub async fn ask<T: DeserializeOwned>(&self, method: &str, path: &str, body: Option<Value>) -> Result<T, String> {
        let talk = async {
            let mut socket = UnixStream::connect(self.data().join("api.sock")).await?;
            let body = body.map_or_else(String::new, |body| body.to_string());
            let head = format!(
                "{method} {path} HTTP/1.1\r\nhost: kinfolk\r\nconnection: close\r\ncontent-type: application/json\r\n\
                 content-length: {}\r\n\r\n{body}",
                body.len()
            );
            socket.write_all(head.as_bytes()).await?;
            let mut answer = Vec::new();
            socket.read_to_end(&mut answer).await?;
            Ok::<_, std::io::Error>(answer)
        };
        let answer = timeout(Duration::from_secs(90), talk).await.map_err(|_| "no answer".to_owned())?;
        let answer = answer.map_err(|error| error.to_string())?;
        let text = String::from_utf8_lossy(&answer);
        let (head, body) = text.split_once("\r\n\r\n").ok_or_else(|| format!("no HTTP: {text}"))?;
        let status = head.split(' ').nth(1).unwrap_or_default();
        if !status.starts_with('2') {
            return Err(format!("{status}: {body}"));
        }
        serde_json::from_str(body).map_err(|error| format!("{error} in {body}"))
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.inner.folder.join("data")
    }

    fn log(&self) -> PathBuf {
        self.inner.folder.join("log")
    }

    /// The end of its log.
    pub(crate) fn log_tail(&self, lines: usize) -> String {
        let log = fs::read(self.log()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let all: Vec<&str> = log.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// All that can be said about it, for a test that has failed.
    pub(crate) async fn report(&self) -> String {
        let mut text = format!("== {} ({:?})\n", self.inner.name, self.state().peer.map(|peer| peer.to_string()));
        match self.ask::<Status>("GET", "/v1/status", None).await {
            Ok(status) => text += &format!("{status:#?}\n"),
            Err(error) => text += &format!("no status: {error}\n"),
        }
        if let Ok(Peers { peers }) = self.ask("GET", "/v1/peers", None).await {
            for peer in peers {
                text += &format!("-- {peer:#?}\nwhy:\n{}", self.why_text(&peer.peer).await);
            }
        }
        text + &self.said()
    }

    /// What it printed and logged.
    pub(crate) fn said(&self) -> String {
        let printed = self.printed().join("\n");
        format!("-- {} printed:\n{printed}\n-- log:\n{}\n", self.inner.name, self.log_tail(60))
    }

    fn write_settings(&self) {
        let settings = self.inner.settings.lock().expect("no panic under the lock");
        let mut text = String::new();
        for (key, value) in settings.iter() {
            text += &format!("{key} = {value}\n");
        }
        fs::write(self.inner.folder.join("config.toml"), text).expect("a configuration file");
    }

    /// Its program, in an environment that says nothing to it.
    fn command(&self) -> Command {
        let program = program(&self.inner.program.lock().expect("no panic under the lock"));
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"KINFOLK_")) {
            command.env_remove(name);
        }
        let clock = self.clock();
        if clock.exists() {
            // Not by the program `faketime`: it stays as the parent, and takes the signals that are meant for the node.
            let triplet = format!("{}-linux-gnu", std::env::consts::ARCH);
            command.env("LD_PRELOAD", format!("/usr/lib/{triplet}/faketime/libfaketimeMT.so.1"));
            command.env("FAKETIME_TIMESTAMP_FILE", clock);
            command.envs([("FAKETIME_CACHE_DURATION", "1"), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")]);
        }
        command
    }

    fn state(&self) -> std::sync::MutexGuard<'_, Running> {
        self.inner.state.lock().expect("no panic under the lock")
    }
}
