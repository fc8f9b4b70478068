//! A doorway in the test's process, and a client that holds each answer against the OpenAPI description.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    sync::LazyLock,
    time::{Duration, Instant},
};

use data_encoding::BASE64;
use kinfolk::doorway::{Doorway, DoorwayError, DoorwaySettings, Keep, OPEN_API};
use kinfolk_shell::signal::record;
use libp2p::{Multiaddr, identity::Keypair};
use reqwest::{Method, RequestBuilder, header::HeaderMap};
use serde_json::{Value, json};
use tokio::{sync::oneshot, task::JoinHandle, time::sleep};

/// A doorway that runs.
pub(crate) struct Open {
    pub(crate) address: SocketAddr,
    pub(crate) warnings: Vec<String>,
    stop: oneshot::Sender<()>,
    life: JoinHandle<()>,
    client: reqwest::Client,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
    pub(crate) text: String,
}

/// A peer that publishes.
pub(crate) struct Peer {
    pub(crate) key: Keypair,
    pub(crate) id: String,
}

/// A Redis server of the test's own, on a Unix socket in a folder of its own.
pub(crate) struct RedisServer {
    folder: tempfile::TempDir,
    child: Option<Child>,
}

/// Settings for a test: one network, no limit on requests.
pub(crate) fn settings(keep: Keep) -> DoorwaySettings {
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut settings = DoorwaySettings::new(listen, vec!["elohim".to_owned()], keep);
    (settings.rules.reads, settings.rules.writes) = (0, 0);
    settings
}

pub(crate) async fn open(settings: DoorwaySettings) -> Open {
    try_open(settings).await.unwrap()
}

pub(crate) async fn try_open(settings: DoorwaySettings) -> Result<Open, DoorwayError> {
    let doorway = Doorway::open(settings).await?;
    let (address, warnings) = (doorway.address(), doorway.warnings().to_vec());
    let (stop, stopped) = oneshot::channel();
    let life = tokio::spawn(doorway.serve(async move {
        let _ = stopped.await;
    }));
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    Ok(Open { address, warnings, stop, life, client })
}

impl Open {
    pub(crate) async fn close(self) {
        // Idle connections would have to be waited for.
        drop(self.client);
        let _ = self.stop.send(());
        self.life.await.unwrap();
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("http://{}{path}", self.address))
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path)).await
    }

    pub(crate) async fn put(&self, peer: &Peer, body: &Value) -> Answer {
        self.send(self.request(Method::PUT, &format!("/signal/{}", peer.id)).json(body)).await
    }

    pub(crate) async fn delete(&self, peer: &Peer, record: &str) -> Answer {
        let request = self.request(Method::DELETE, &format!("/signal/{}", peer.id));
        self.send(request.json(&json!({ "record": record }))).await
    }

    /// Sends it, and checks that the answer is as described.
    pub(crate) async fn send(&self, request: RequestBuilder) -> Answer {
        let request = request.build().unwrap();
        let (method, path) = (request.method().clone(), request.url().path().to_owned());
        let response = self.client.execute(request).await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.unwrap();
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        let answer = Answer { status, headers, body, text };
        check(&method, &path, &answer);
        answer
    }
}

impl Answer {
    /// The status, and for a problem its type.
    pub(crate) fn said(&self) -> (u16, &str) {
        (self.status, self.body["type"].as_str().unwrap_or_default())
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The ids of the peers that are listed, in order.
    pub(crate) fn peers(&self) -> Vec<&str> {
        let mut ids: Vec<_> =
            self.body["peers"].as_array().unwrap().iter().map(|peer| peer["peer_id"].as_str().unwrap()).collect();
        ids.sort_unstable();
        ids
    }
}

impl Peer {
    pub(crate) fn new() -> Self {
        let key = Keypair::generate_ed25519();
        let id = key.public().to_peer_id().to_string();
        Self { key, id }
    }

    pub(crate) fn bytes(&self, seq: u64, addresses: &[&str]) -> Vec<u8> {
        let addresses: Vec<Multiaddr> = addresses.iter().map(|text| text.parse().unwrap()).collect();
        record::sign(&self.key, seq, &addresses).unwrap()
    }

    pub(crate) fn record(&self, seq: u64, addresses: &[&str]) -> String {
        BASE64.encode(&self.bytes(seq, addresses))
    }

    /// A body that publishes a usual address.
    pub(crate) fn publish(&self, seq: u64) -> Value {
        json!({ "record": self.record(seq, &["/ip4/45.10.20.1/udp/4001/quic-v1"]) })
    }
}

impl RedisServer {
    pub(crate) async fn start() -> Self {
        // Short: a socket's path has at most 107 bytes.
        let folder = tempfile::Builder::new().prefix("k").tempdir_in("/tmp").unwrap();
        let mut server = Self { folder, child: None };
        server.again().await;
        server
    }

    pub(crate) fn url(&self) -> String {
        format!("redis+unix://{}", self.socket().display())
    }

    fn socket(&self) -> std::path::PathBuf {
        self.folder.path().join("redis.sock")
    }

    /// Starts it, empty.
    pub(crate) async fn again(&mut self) {
        let mut command = Command::new("redis-server");
        command
            .args(["--port", "0", "--save", "", "--unixsocket"])
            .arg(self.socket())
            .arg("--dir")
            .arg(self.folder.path());
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        self.child = Some(child.expect("redis-server is missing: scripts/needs.sh installs it where it may"));
        let socket = self.socket();
        eventually("the Redis server listens", || std::os::unix::net::UnixStream::connect(&socket).is_ok()).await;
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Waits until it is so, 20 s at most.
pub(crate) async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(20), "not within 20 s: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// Runs a test with each backing.
pub(crate) async fn with_each(test: impl AsyncFn(DoorwaySettings)) {
    test(settings(Keep::Memory)).await;
    let folder = tempfile::tempdir().unwrap();
    test(settings(Keep::Folder(folder.path().to_owned()))).await;
    let server = RedisServer::start().await;
    test(settings(Keep::Redis(server.url()))).await;
}

static DESCRIPTION: LazyLock<Value> = LazyLock::new(|| serde_json::from_str(OPEN_API).unwrap());

/// A validator for each schema that is named.
static SCHEMAS: LazyLock<BTreeMap<String, jsonschema::Validator>> = LazyLock::new(|| {
    let names = DESCRIPTION["components"]["schemas"].as_object().unwrap().keys();
    let of = |name: &String| {
        let schema = json!({
            "$ref": format!("#/components/schemas/{name}"),
            "components": DESCRIPTION["components"],
        });
        (name.clone(), jsonschema::draft202012::new(&schema).unwrap())
    };
    names.map(of).collect()
});

fn check(method: &Method, path: &str, answer: &Answer) {
    let Answer { status, body, text, .. } = answer;
    let backing = answer.header("kinfolk-backing");
    assert!(["memory", "sqlite", "redis"].contains(&backing), "{method} {path}: {:?}", answer.headers);
    let media = answer.header("content-type").split(';').next().unwrap().to_owned();
    let operation = match path {
        _ if path.starts_with("/signal/") => "/signal/{peer}",
        _ => path,
    };
    let operation = &DESCRIPTION["paths"][operation][method.as_str().to_ascii_lowercase()];
    if operation.is_null() {
        // What is not described can only be refused.
        assert!([404, 405, 413, 429].contains(status), "{method} {path}: {status}");
        assert_eq!(media, "application/problem+json", "{method} {path}");
        return SCHEMAS["Problem"].validate(body).unwrap_or_else(|error| panic!("{method} {path}: {error}: {text}"));
    }
    let schema = &operation["responses"][status.to_string()]["content"][&media]["schema"];
    assert!(!schema.is_null(), "{method} {path}: {status} with {media} is not described: {text}");
    if let Some(name) = schema["$ref"].as_str() {
        let name = name.rsplit('/').next().unwrap();
        SCHEMAS[name].validate(body).unwrap_or_else(|error| panic!("{method} {path}: {error}: {text}"));
    }
    if media == "application/problem+json" {
        assert_eq!(body["status"], *status, "{text}");
        assert_eq!(
            body["retry_after_s"].as_u64().map(|s| s.to_string()).unwrap_or_default(),
            answer.header("retry-after")
        );
    }
}

/// Where the tests of js-libp2p have their packages.
pub(crate) fn js_folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/js"))
}
