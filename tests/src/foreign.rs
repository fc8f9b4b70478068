use std::{
    path::Path,
    process::Stdio,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, Command},
    sync::Notify,
    time::timeout,
};

use crate::{Device, program};

/// How long a foreign peer may take to answer one request. Its own time-outs are shorter.
const PATIENCE: Duration = Duration::from_secs(30);

/// A program in a device that is not ours: js-libp2p, or a peer that misbehaves.
///
/// It takes one JSON object a line, `{"id":1,"do":"dial",…}`, and answers `{"id":1,"ok":…}` or `{"id":1,"error":"…"}`;
/// lines with an `"event"` come by themselves, the first is `{"event":"ready","peer":…,"addresses":[…]}`.
#[derive(Debug)]
pub struct Foreign {
    name: String,
    stdin: tokio::sync::Mutex<ChildStdin>,
    heard: Arc<Heard>,
    next: AtomicU64,
    ready: Value,
    _child: Child,
}

#[derive(Debug, Default)]
struct Heard {
    lines: Mutex<Vec<Value>>,
    more: Notify,
}

impl Foreign {
    /// js-libp2p, at port 4001 by TCP. `options` is one JSON object; see `tests/js/peer.js`.
    pub async fn js(device: &Device, mut options: Value) -> Self {
        options["listen"] = json!(["/ip4/0.0.0.0/tcp/4001"]);
        // It tells of public addresses only when it is sure of them, and this is how it is made sure.
        if options["announce"].is_null() {
            options["announce"] = json!([format!("/ip4/{}/tcp/4001", device.ip())]);
        }
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("js");
        let node = folder.join("node_modules/.bin/node");
        assert!(node.exists(), "{} is missing: `npm ci` in {} makes it", node.display(), folder.display());
        let mut command = Command::new(node);
        command.arg(folder.join("peer.js")).arg(options.to_string());
        Self::start("js-libp2p", device, command).await
    }

    /// A rust-libp2p peer that misbehaves. `options` is one JSON object; see `tests/src/bin/hostile-peer`.
    pub async fn hostile(device: &Device, options: Value) -> Self {
        let mut command = Command::new(program("hostile-peer"));
        command.arg(options.to_string());
        Self::start("hostile-peer", device, command).await
    }

    /// Plain rust-libp2p. `options` is one JSON object; see `tests/src/bin/plain.rs`.
    pub async fn plain(device: &Device, options: Value) -> Self {
        let mut command = Command::new(program("plain"));
        command.arg(options.to_string());
        Self::start("plain", device, command).await
    }

    async fn start(name: &str, device: &Device, mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).kill_on_drop(true);
        let mut child = device.spawn(command);
        let stdin = child.stdin.take().expect("a pipe");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let heard = Arc::<Heard>::default();
        let ear = Arc::clone(&heard);
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                let value = serde_json::from_str(&line).unwrap_or(Value::String(line));
                ear.lines.lock().expect("no panic under the lock").push(value);
                ear.more.notify_waiters();
            }
        });
        let mut foreign = Self {
            name: name.to_owned(),
            stdin: tokio::sync::Mutex::new(stdin),
            heard,
            next: AtomicU64::new(1),
            ready: Value::Null,
            _child: child,
        };
        foreign.ready = foreign.event("ready", |_| true).await;
        foreign
    }

    /// Its peer id.
    pub fn peer(&self) -> &str {
        self.ready["peer"].as_str().expect("a peer says who it is")
    }

    /// Where it listens: multiaddrs that begin with `prefix`, with its id.
    pub fn address(&self, prefix: &str) -> String {
        let all = self.ready["addresses"].as_array().expect("a list");
        let found = all.iter().filter_map(Value::as_str).find(|address| address.starts_with(prefix));
        let found = found.unwrap_or_else(|| panic!("{} listens on {all:?}, not on {prefix}", self.name));
        let own = format!("/p2p/{}", self.peer());
        if found.ends_with(&own) { found.to_owned() } else { format!("{found}{own}") }
    }

    /// Asks for something and waits for the answer.
    ///
    /// # Errors
    /// What the peer says went wrong.
    ///
    /// # Panics
    /// If it does not answer at all.
    pub async fn ask(&self, what: &str, mut with: Value) -> Result<Value, String> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        with["id"] = json!(id);
        with["do"] = json!(what);
        let line = format!("{with}\n");
        self.stdin.lock().await.write_all(line.as_bytes()).await.expect("a peer that still runs");
        let answer = self.first(what, PATIENCE, |value| value["id"] == json!(id)).await;
        match answer.get("error") {
            Some(error) => Err(error.as_str().map_or_else(|| error.to_string(), str::to_owned)),
            None => Ok(answer["ok"].clone()),
        }
    }

    /// The first event of this kind that `is` what is looked for, past or to come.
    pub async fn event(&self, kind: &str, is: impl Fn(&Value) -> bool) -> Value {
        self.event_within(PATIENCE, kind, is).await
    }

    /// The same, for what takes long.
    pub async fn event_within(&self, within: Duration, kind: &str, is: impl Fn(&Value) -> bool) -> Value {
        self.first(kind, within, |value| value["event"] == *kind && is(value)).await
    }

    /// How often an event of this kind came so far.
    pub fn count(&self, kind: &str) -> usize {
        self.lines().iter().filter(|value| value["event"] == *kind).count()
    }

    /// All events of this kind so far.
    pub fn events(&self, kind: &str) -> Vec<Value> {
        self.lines().into_iter().filter(|value| value["event"] == *kind).collect()
    }

    async fn first(&self, what: &str, within: Duration, is: impl Fn(&Value) -> bool) -> Value {
        let look = async {
            loop {
                let more = self.heard.more.notified();
                if let Some(value) = self.lines().iter().find(|value| is(value)) {
                    return value.clone();
                }
                more.await;
            }
        };
        match timeout(within, look).await {
            Ok(value) => value,
            Err(_) => panic!("{}: no \"{what}\" in {within:?}; it said: {:#?}", self.name, self.lines()),
        }
    }

    fn lines(&self) -> Vec<Value> {
        self.heard.lines.lock().expect("no panic under the lock").clone()
    }
}
