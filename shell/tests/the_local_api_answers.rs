//! The local API over a real Unix socket: every path, and what is wrong said so that it can be put right.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]

mod common;

use std::{
    fs,
    os::unix::{fs::PermissionsExt, net::UnixStream as StdStream},
    path::{Path, PathBuf},
};

use common::{FakeWorld, LOCAL, OPEN, SendApp, Strings, at, config, peer, setup};
use futures::{
    FutureExt, StreamExt,
    channel::oneshot,
    io::{AsyncReadExt, AsyncWriteExt},
};
use kinfolk_core::{Config, Event, Source, Transport, view::State};
use kinfolk_shell::{
    api::{
        client::{Client, ClientError},
        server::{Api, ApiError},
        types::{Outcome, PathKind, Problem, ProblemKind},
    },
    disk::Disk,
    driver::{Driver, Happened, Setup},
    feed::Fed,
    handle::Handle,
    trace::{Recorder, TraceLimits},
};

/// A node with its API in a folder of its own.
struct Running {
    folder: tempfile::TempDir,
    handle: Handle<SendApp>,
    strings: Strings,
    stop: Option<oneshot::Sender<()>>,
    served: tokio::task::JoinHandle<()>,
}

impl Running {
    fn start() -> Self {
        Self::start_with(config())
    }

    fn start_with(config: Config) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let recorder =
            Recorder::open(folder.path(), LOCAL.parse().unwrap(), TraceLimits::default(), &Disk::default()).unwrap();
        let (world, strings) = FakeWorld::new(SendApp::default());
        let data_dir = Some(folder.path().display().to_string());
        let (driver, handle, _) = Driver::new(world, Setup { recorder: Some(recorder), data_dir, ..setup(config) });
        tokio::spawn(driver.run());
        let api = Api::listen(folder.path().join("api.sock")).unwrap();
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(api.serve(handle.control().clone(), stopped.map(|_| ())));
        Self { folder, handle, strings, stop: Some(stop), served }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("api.sock")
    }

    fn client(&self) -> Client {
        Client::of_data_dir(self.folder.path()).unwrap()
    }

    /// Sends text, and gives the status and body that come back.
    async fn raw(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let stream = StdStream::connect(self.socket()).unwrap();
        let mut stream = smol::Async::new(stream).unwrap();
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: kinfolk\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        // A server that refuses the size answers before it has read everything.
        let _ = stream.write_all(request.as_bytes()).await;
        let mut answer = vec![];
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8(answer).unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
    }

    async fn problem(&self, method: &str, path: &str, body: &str) -> Problem {
        let (status, text) = self.raw(method, path, body).await;
        let problem: Problem = serde_json::from_str(&text).unwrap();
        assert_eq!((problem.status, problem.kind.status()), (status, status), "{problem:?}");
        problem
    }
}

fn kind(result: Result<impl std::fmt::Debug, ClientError>) -> ProblemKind {
    match result {
        Err(ClientError::Problem(problem)) => problem.kind,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_path_is_answered() {
    let node = Running::start();
    let client = node.client();
    let open = format!("{OPEN}/p2p/{}", peer(1));

    let status = client.status().await.unwrap();
    assert_eq!((status.peer.to_string().as_str(), status.agent.as_str()), (LOCAL, "kinfolk/test"));
    assert_eq!(status.data_dir, Some(node.folder.path().display().to_string()));
    assert_eq!(status.pid, std::process::id());

    let connected = client.connect(&open).await.unwrap();
    assert!(matches!(&connected, Outcome::Connected { peer: who, .. } if *who == peer(1)), "{connected:?}");
    let peers = client.peers().await.unwrap();
    assert_eq!(peers.len(), 1);
    assert_eq!((peers[0].peer, peers[0].state), (peer(1), State::Connected));
    let path = peers[0].path.unwrap();
    assert_eq!((path.kind, path.transport, path.relay), (PathKind::Local, Some(Transport::Tcp), None));
    assert_eq!(client.peer(peer(1)).await.unwrap(), peers[0]);
    let snapshot = client.snapshot().await.unwrap();
    assert_eq!((snapshot.status.connected, snapshot.peers.len()), (1, 1));

    let why = client.why(Some(peer(1))).await.unwrap();
    assert!(why.iter().any(|entry| entry.because == "you asked for it"), "{why:?}");
    assert!(client.why(None).await.unwrap().iter().any(|entry| entry.action.starts_with("listen on")));
    assert_eq!(client.config().await.unwrap(), config());

    assert_eq!(client.pin(&peer(2).to_string()).await.unwrap(), Outcome::Done);
    assert!(client.peer(peer(2)).await.unwrap().pinned);
    assert_eq!(client.forget(peer(2)).await.unwrap(), Outcome::Done);
    assert_eq!(client.block(peer(3)).await.unwrap(), Outcome::Done);
    assert!(client.peer(peer(3)).await.unwrap().blocked);
    assert_eq!(client.block(peer(3)).await.unwrap(), Outcome::NothingToDo);
    assert_eq!(client.allow(peer(3)).await.unwrap(), Outcome::Done);
    let bootstrap = "/dns4/bootstrap.example/tcp/4001";
    assert_eq!(client.add_bootstrap(bootstrap).await.unwrap(), Outcome::Done);
    assert_eq!(client.status().await.unwrap().bootstrap[0].address, bootstrap);
    assert_eq!(client.remove_bootstrap(bootstrap).await.unwrap(), Outcome::Done);
    assert_eq!(client.status().await.unwrap().bootstrap, []);
    assert_eq!(client.disconnect(peer(1)).await.unwrap(), Outcome::Done);

    assert!(!client.trace_stop().await.unwrap().recording);
    assert!(client.trace_start().await.unwrap().recording);
    let file = node.folder.path().join("out.jsonl");
    let exported = client.trace_export(&file).await.unwrap();
    assert_eq!(
        (exported.file.as_str(), exported.bytes),
        (&*file.to_string_lossy(), fs::metadata(&file).unwrap().len())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_are_ready_to_paste() {
    let node = Running::start();
    let client = node.client();
    let listening = |number: u64, address: &str| {
        node.strings.happen(Happened::Core(Event::Listening {
            listener: kinfolk_core::ListenerId(number),
            command: kinfolk_core::CommandId(number),
            address: address.parse().unwrap(),
        }));
    };
    listening(1, "/ip4/127.0.0.1/tcp/4001");
    let only = loop {
        let addresses = client.id().await.unwrap().addresses;
        if !addresses.is_empty() {
            break addresses;
        }
    };
    assert_eq!(only, [format!("/ip4/127.0.0.1/tcp/4001/p2p/{LOCAL}")], "better than nothing");
    listening(1, "/ip4/192.168.1.7/tcp/4001");
    listening(2, "/ip6/fe80::1/udp/4001/quic-v1");
    listening(3, "/ip6/2a01:4f8::7/udp/4001/quic-v1");
    while client.status().await.unwrap().listening.len() < 4 {}
    let id = client.id().await.unwrap();
    assert_eq!((id.peer.to_string().as_str(), id.agent.as_str()), (LOCAL, "kinfolk/test"));
    assert_eq!(
        id.addresses,
        [format!("/ip6/2a01:4f8::7/udp/4001/quic-v1/p2p/{LOCAL}"), format!("/ip4/192.168.1.7/tcp/4001/p2p/{LOCAL}")]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_say_why_in_a_word_and_in_words() {
    let node = Running::start();
    let client = node.client();
    assert_eq!(kind(client.peer(peer(9)).await), ProblemKind::UnknownPeer);
    assert_eq!(kind(client.why(Some(peer(9))).await), ProblemKind::UnknownPeer);
    assert_eq!(kind(client.connect(LOCAL).await), ProblemKind::OwnIdentity);
    client.block(peer(3)).await.unwrap();
    assert_eq!(kind(client.connect(&peer(3).to_string()).await), ProblemKind::Blocked);
    let refused = client.connect("/ip4/192.0.2.2/tcp/4001/p2p/".to_owned().as_str()).await;
    assert_eq!(kind(refused), ProblemKind::BadRequest);
    let refused = client.connect(&at(peer(4), "/ip4/192.0.2.2/tcp/4001").to_string()).await.unwrap_err();
    assert!(refused.to_string().contains("connection refused"), "{refused}");
    assert_eq!(kind(Err::<(), _>(refused)), ProblemKind::Failed);
    let error = client.trace_export(Path::new("/no/such/folder/x")).await.unwrap_err();
    assert!(error.to_string().contains("/no/such/folder/x"), "{error}");
    assert_eq!(kind(Err::<(), _>(error)), ProblemKind::Internal);
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_requests_are_refused_saying_where() {
    let node = Running::start();
    let cases = [
        ("POST", "/v1/connect", "", ProblemKind::BadRequest, "EOF while parsing a value at line 1 column 0"),
        ("POST", "/v1/connect", "{\"address\":\n7}", ProblemKind::BadRequest, "expected a string at line 2 column 1"),
        ("POST", "/v1/connect", "{}", ProblemKind::BadRequest, "missing field `address`"),
        (
            "POST",
            "/v1/connect",
            "{\"adress\":\"x\"}",
            ProblemKind::BadRequest,
            "unknown field `adress`, expected `address`",
        ),
        ("POST", "/v1/connect", "{\"address\":\"here\"}", ProblemKind::BadRequest, "begins with '/'"),
        (
            "POST",
            "/v1/connect",
            "{\"address\":\"/ip4/1.2.3/tcp/1\"}",
            ProblemKind::BadRequest,
            "'1.2.3' is no value for '/ip4'",
        ),
        ("POST", "/v1/pin", "{\"address\":\"/p2p/xyz\"}", ProblemKind::BadRequest, "'xyz' after '/p2p' is no peer id"),
        ("POST", "/v1/block", "{\"peer\":\"\u{0}\"}", ProblemKind::BadRequest, "control character"),
        ("POST", "/v1/forget", "{\"peer\":\"me\"}", ProblemKind::BadRequest, "peer 'me'"),
        ("POST", "/v1/trace/export", "{\"file\":\"x\"}", ProblemKind::BadRequest, "not an absolute path"),
        ("GET", "/v1/peers/me", "", ProblemKind::BadRequest, "peer 'me'"),
        ("GET", "/v1/peers/me/why", "", ProblemKind::BadRequest, "peer 'me'"),
        ("GET", "/v2/status", "", ProblemKind::NoSuchEndpoint, "there is no /v2/status"),
        ("GET", "/", "", ProblemKind::NoSuchEndpoint, "there is no /"),
        ("DELETE", "/v1/status", "", ProblemKind::WrongMethod, "/v1/status does not take DELETE"),
        ("GET", "/v1/connect", "", ProblemKind::WrongMethod, "does not take GET"),
    ];
    for (method, path, body, kind, words) in cases {
        let problem = node.problem(method, path, body).await;
        assert_eq!(problem.kind, kind, "{method} {path} {body}: {problem:?}");
        assert!(problem.detail.contains(words), "{method} {path} {body}: {problem:?}");
    }
    let large = format!("{{\"address\":\"{}\"}}", "x".repeat(70_000));
    assert_eq!(node.problem("POST", "/v1/connect", &large).await.kind, ProblemKind::TooLarge);
    assert_eq!(node.raw("NONSENSE\r\n", "/", "").await.0, 400);
    assert_eq!(node.client().status().await.unwrap().peers, 0, "it goes on after all that");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_come_as_they_happen_and_end_with_the_node() {
    let node = Running::start();
    let mut events = node.client().events().await.unwrap();
    let first = events.next().await.unwrap().unwrap();
    assert_eq!((first.event.as_str(), first.notice()), ("ready", None));
    let mut told = node.handle.events();
    node.handle.connect(at(peer(1), OPEN)).await.unwrap();
    let line = loop {
        let line = events.next().await.unwrap().unwrap();
        if line.event == "peer_connected" {
            break line;
        }
    };
    let notice = loop {
        let Some(Fed::Item(told)) = told.next().await else { panic!("nothing told") };
        if told.notice.to_string().starts_with("connected") {
            break told.notice.clone();
        }
    };
    assert_eq!(line.notice(), Some(notice), "nothing is lost on the way");
    assert_eq!((line.peer, line.detail["direction"].as_str()), (Some(peer(1)), Some("outbound")));
    assert!(line.text.starts_with("connected") && !line.because.is_empty(), "{line:?}");
    node.handle.shutdown().await;
    while let Some(line) = events.next().await {
        line.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_reads_slowly_is_told_what_was_lost() {
    let mut config = config();
    config.lifecycle.max_peers = 100_000;
    let node = Running::start_with(config);
    let mut events = node.client().events().await.unwrap();
    events.next().await.unwrap().unwrap();
    // Far more than the feed, the connection and the client can hold while nobody reads.
    for number in 0..20_000_u32 {
        let [_, a, b, c] = number.to_be_bytes();
        let addresses = vec![format!("/ip4/45.{a}.{b}.{c}/tcp/4001").parse().unwrap()];
        let found = Event::Found { source: Source::Kademlia, peer: peer(number), addresses, cut: 0 };
        node.strings.happen(Happened::Core(found));
    }
    while node.handle.status().await.unwrap().peers < 20_000 {}
    node.handle.shutdown().await;
    let (mut lost, mut heard) = (0, 0);
    while let Some(line) = events.next().await {
        let line = line.unwrap();
        match line.event.as_str() {
            "lagged" => lost += line.detail["lost"].as_u64().unwrap(),
            _ => heard += 1,
        }
    }
    assert!(lost > 0 && lost + heard >= 20_000, "lost {lost}, heard {heard}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_owner_can_open_the_socket() {
    let node = Running::start();
    let mode = fs::metadata(node.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_socket_goes_and_a_live_one_stays() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("api.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "what a killed node leaves");
    let first = Api::listen(&path).unwrap();
    assert!(matches!(Api::listen(&path), Err(ApiError::InUse { .. })));
    drop(first);
    assert!(!path.exists());

    fs::write(&path, "not a socket").unwrap();
    let error = Api::listen(&path).unwrap_err().to_string();
    assert!(path.exists(), "{error}");

    let deep = folder.path().join("d".repeat(120));
    let error = Api::listen(deep.join("api.sock")).unwrap_err().to_string();
    assert!(error.contains("longer than 107 bytes"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_node_the_client_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let client = Client::of_data_dir(folder.path()).unwrap();
    assert!(matches!(client.status().await, Err(ClientError::NoNode { .. })));
    drop(std::os::unix::net::UnixListener::bind(folder.path().join("api.sock")).unwrap());
    let error = client.status().await.unwrap_err().to_string();
    assert!(error.contains("no node is running"), "{error}");

    let mut node = Running::start();
    let client = node.client();
    node.handle.shutdown().await;
    assert_eq!(kind(client.status().await), ProblemKind::ShuttingDown);
    node.stop.take().unwrap().send(()).unwrap();
    node.served.await.unwrap();
    assert!(matches!(client.status().await, Err(ClientError::NoNode { .. })));
}
