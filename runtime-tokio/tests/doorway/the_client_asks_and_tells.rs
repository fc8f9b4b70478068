//! The client of signal servers: against a real doorway, against Elohim's form, and against servers that lie, stall, die
//! or never end.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures::StreamExt;
use kinfolk::doorway::{self, DoorwaySettings, Keep};
use kinfolk_core::{
    Action, Address, Command, CommandId, Event, Reason, SignalBacking, SignalError, SignalPeer, SignalServices,
};
use kinfolk_shell::{
    network::ids::peer_to_core,
    signal::{
        client::{Client, Tokens},
        numbers::Numbers,
    },
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use crate::harness::{Open, Peer, open, settings};

const PLACE: &str = "/ip4/45.10.20.1/udp/4001/quic-v1";

/// A node's client, and the number that it last used.
struct Node {
    peer: Peer,
    client: Client,
    last: Arc<Mutex<u64>>,
    asked: u64,
}

impl Node {
    fn new(after: u64) -> Self {
        Self::with(Peer::new(), after, Tokens::default())
    }

    fn with(peer: Peer, after: u64, tokens: Tokens) -> Self {
        let last = Arc::new(Mutex::new(after));
        let keep = Arc::clone(&last);
        let numbers = Numbers::after(after, move |number| *keep.lock().unwrap() = number);
        let client = Client::new(peer.key.clone(), "elohim".into(), "kinfolk/test".into(), tokens, numbers);
        Self { peer, client, last, asked: 0 }
    }

    fn begin(&mut self, action: Action) -> CommandId {
        self.asked += 1;
        let id = CommandId(self.asked);
        self.client.execute(&Command { id, action, reason: Reason::Routine });
        id
    }

    async fn answer(&mut self) -> Event {
        timeout(Duration::from_secs(30), self.client.next()).await.expect("an answer in time").unwrap()
    }

    async fn query(&mut self, server: &str, peer: Option<&Peer>) -> Result<(Vec<SignalPeer>, u32), SignalError> {
        let peer = peer.map(|peer| peer_to_core(peer.key.public().to_peer_id()));
        let id = self.begin(Action::SignalQuery { server: server.to_owned(), peer, limit: 20 });
        match self.answer().await {
            Event::SignalFound { query, peers, cut, .. } if query == id => Ok((peers, cut)),
            Event::SignalFailed { command, error } if command == id => Err(error),
            other => panic!("{other:?}"),
        }
    }

    async fn publish(&mut self, server: &str, places: &[&str]) -> Result<Duration, SignalError> {
        let addresses: Vec<Address> = places.iter().map(|place| place.parse().unwrap()).collect();
        let services = SignalServices { relay: true, bootstrap: false };
        let lifetime = Duration::from_secs(3_600);
        let id = self.begin(Action::SignalPublish { server: server.to_owned(), addresses, services, lifetime });
        match self.answer().await {
            Event::SignalPublished { publish, expires_in, backing } if publish == id => {
                assert!(backing.is_some());
                Ok(expires_in)
            }
            Event::SignalFailed { command, error } if command == id => Err(error),
            other => panic!("{other:?}"),
        }
    }
}

fn url(doorway: &Open) -> String {
    format!("http://{}/signal", doorway.address)
}

/// A server that says the same to whoever asks, byte for byte, and then closes.
async fn says(answer: impl Into<Vec<u8>>) -> SocketAddr {
    let answer = answer.into();
    serve(move |mut stream| {
        let answer = answer.clone();
        async move {
            let mut request = vec![0; 8_192];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(&answer).await;
            let _ = stream.shutdown().await;
        }
    })
    .await
}

async fn serve<F>(mut one: impl FnMut(TcpStream) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            one(stream).await;
        }
    });
    address
}

fn http(status: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n{headers}\r\n{body}")
}

#[tokio::test]
async fn what_one_publishes_the_other_finds() {
    let doorway = open(settings(Keep::Memory)).await;
    let (mut one, mut other) = (Node::new(0), Node::new(0));
    let server = url(&doorway);
    assert_eq!(other.query(&server, None).await, Ok((vec![], 0)), "none is an answer");
    assert_eq!(other.query(&server, Some(&one.peer)).await, Ok((vec![], 0)));
    let life = one.publish(&server, &[PLACE]).await.unwrap();
    assert!(life > Duration::from_secs(3_500) && life <= Duration::from_secs(3_600), "{life:?}");
    let expected = SignalPeer {
        peer: peer_to_core(one.peer.key.public().to_peer_id()),
        seq: Some(*one.last.lock().unwrap()),
        addresses: vec![PLACE.parse().unwrap()],
        services: SignalServices { relay: true, bootstrap: false },
    };
    assert_eq!(other.query(&server, None).await, Ok((vec![expected.clone()], 0)));
    // However the place is written.
    let bare = format!("http://{}", doorway.address);
    assert_eq!(other.query(&bare, Some(&one.peer)).await, Ok((vec![expected.clone()], 0)));
    assert_eq!(other.query(&format!("{server}/"), None).await.unwrap().0.len(), 1);
    // A name that is one for this machine.
    let named = format!("http://localhost:{}/signal", doorway.address.port());
    assert_eq!(other.query(&named, None).await, Ok((vec![expected], 0)));
    let id = other.begin(Action::SignalQuery { server, peer: None, limit: 1 });
    let Event::SignalFound { query, backing, .. } = other.answer().await else { panic!() };
    assert_eq!((query, backing), (id, Some(SignalBacking::Memory)));
}

#[tokio::test]
async fn a_clock_that_was_ahead_is_overcome() {
    let doorway = open(settings(Keep::Memory)).await;
    let server = url(&doorway);
    let mut ahead = Node::new(5_000_000_000);
    ahead.publish(&server, &[PLACE]).await.unwrap();
    // The same peer, without its memory.
    let key = ahead.peer.key.clone();
    let id = ahead.peer.id.clone();
    let mut behind = Node::with(Peer { key, id }, 0, Tokens::default());
    assert_eq!(behind.publish(&server, &[PLACE]).await, Err(SignalError::Stale { seq: 5_000_000_001 }));
    behind.publish(&server, &[PLACE]).await.unwrap();
    assert_eq!(*behind.last.lock().unwrap(), 5_000_000_002);
    behind.publish(&server, &[PLACE]).await.unwrap();
}

#[tokio::test]
async fn a_server_that_makes_numbers_up_leads_nowhere() {
    let lie = json!({ "type": "stale", "title": "", "status": 409, "detail": "x", "seq": "9223372036854775806" });
    let liar = says(http("409 Conflict", "", &lie.to_string())).await;
    let mut node = Node::new(0);
    let error = node.publish(&format!("http://{liar}"), &[PLACE]).await.unwrap_err();
    assert!(matches!(error, SignalError::Failed(_)), "{error:?}");
    let doorway = open(settings(Keep::Memory)).await;
    node.publish(&url(&doorway), &[PLACE]).await.unwrap();
    assert!(*node.last.lock().unwrap() < 5_000_000_000);
}

#[tokio::test]
async fn only_what_everybody_can_use_is_sent() {
    let doorway = open(settings(Keep::Memory)).await;
    let server = url(&doorway);
    let mut node = Node::new(0);
    let relay = Peer::new().id;
    let circuit = format!("{PLACE}/p2p/{relay}/p2p-circuit");
    node.publish(&server, &[&circuit, "/ip4/192.168.1.7/tcp/4001", "/dns4/nas.local/tcp/4001"]).await.unwrap();
    let found = node.query(&server, None).await.unwrap().0;
    assert_eq!(found[0].addresses, [circuit.parse().unwrap()]);
    let error = node.publish(&server, &["/ip4/10.0.0.1/tcp/4001"]).await.unwrap_err();
    assert!(matches!(error, SignalError::Failed(_)), "{error:?}");
}

#[tokio::test]
async fn tokens_open_networks() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens");
    std::fs::write(&file, "elohim read 0123456789abcdef\nelohim write fedcba9876543210\n").unwrap();
    let doorway =
        open(DoorwaySettings { tokens: doorway::Tokens::load(&file).unwrap(), ..settings(Keep::Memory) }).await;
    let server = url(&doorway);
    let mut stranger = Node::new(0);
    for error in
        [stranger.query(&server, None).await.unwrap_err(), stranger.publish(&server, &[PLACE]).await.unwrap_err()]
    {
        assert!(matches!(error, SignalError::Refused { .. }), "{error:?}");
    }
    let tokens = |token: &str| format!("{server} {token}").parse().unwrap();
    let mut writer = Node::with(Peer::new(), 0, tokens("fedcba9876543210"));
    writer.publish(&server, &[PLACE]).await.unwrap();
    let mut reader = Node::with(Peer::new(), 0, tokens("0123456789abcdef"));
    assert_eq!(reader.query(&server, None).await.unwrap().0.len(), 1);
    assert!(matches!(reader.publish(&server, &[PLACE]).await, Err(SignalError::Refused { .. })));
}

#[tokio::test]
async fn a_flooded_server_says_when_to_come_again() {
    let mut settings = settings(Keep::Memory);
    settings.rules.reads = 2;
    let doorway = open(settings).await;
    let mut node = Node::new(0);
    let mut last = Ok((vec![], 0));
    for _ in 0..10 {
        last = node.query(&url(&doorway), None).await;
    }
    let Err(SignalError::Refused { retry_after: Some(wait), .. }) = last else { panic!("{last:?}") };
    assert!(wait >= Duration::from_secs(1) && wait <= Duration::from_secs(120), "{wait:?}");
}

#[tokio::test]
async fn what_is_not_signed_by_the_peer_is_cut_off() {
    let (peer, other) = (Peer::new(), Peer::new());
    let record = |who: &Peer, record: String| {
        json!({ "peer_id": who.id, "addrs": ["/ip4/45.9.9.9/tcp/22"], "expires": 1, "expires_in_s": 1, "seq": "7",
                "services": ["relay", "teleport"], "record": record })
    };
    let body = json!({ "network": "elohim", "total": 4, "peers": [
        record(&peer, peer.record(7, &[PLACE])),
        record(&peer, other.record(7, &[PLACE])),
        record(&other, "nonsense".into()),
        // Above what anybody could exceed.
        record(&other, other.record(u64::MAX, &[PLACE])),
    ] });
    let liar = says(http("200 OK", "content-type: application/json\r\n", &body.to_string())).await;
    let (peers, cut) = Node::new(0).query(&format!("http://{liar}/signal"), None).await.unwrap();
    assert_eq!((peers.len(), cut), (1, 3));
    assert_eq!(peers[0].addresses, [PLACE.parse().unwrap()], "the signed ones, not those beside them");
    assert_eq!((peers[0].seq, peers[0].services.relay), (Some(7), true));
}

#[tokio::test]
async fn elohims_doorways_are_read_as_hints_and_take_no_records() {
    let peer = Peer::new();
    let body = json!({ "total": 3, "peers": [
        { "peer_id": peer.id, "multiaddrs": [PLACE, format!("{PLACE}/p2p/{}", peer.id), "rubbish"],
          "capabilities": ["relay", "storage"], "nat_status": "public" },
        { "peer_id": "nobody", "multiaddrs": [PLACE] },
        { "peer_id": Peer::new().id } ] });
    let (found, missing) = (http("200 OK", "", &body.to_string()), http("404 Not Found", "", "<html>no</html>"));
    let doorway = serve(move |mut stream| {
        let (found, missing) = (found.clone(), missing.clone());
        async move {
            let mut request = vec![0; 8_192];
            let length = stream.read(&mut request).await.unwrap_or(0);
            let federation = request[..length].starts_with(b"GET /api/v1/federation/p2p-peers?network=elohim");
            let _ = stream.write_all(if federation { &found } else { &missing }.as_bytes()).await;
        }
    })
    .await;
    let server = format!("http://{doorway}");
    let mut node = Node::new(0);
    let (peers, cut) = node.query(&server, None).await.unwrap();
    assert_eq!((peers.len(), cut), (1, 2));
    assert_eq!((peers[0].seq, peers[0].services.relay), (None, true), "nobody has signed that");
    assert!(peers[0].addresses.iter().all(|address| *address == PLACE.parse().unwrap()), "{peers:?}");
    assert_eq!(node.query(&server, Some(&peer)).await.unwrap().0.len(), 1);
    assert_eq!(node.query(&server, Some(&Peer::new())).await.unwrap(), (vec![], 0));
    assert_eq!(node.publish(&server, &[PLACE]).await, Err(SignalError::Unsupported));
    // Neither form.
    let nothing = says(http("404 Not Found", "", "")).await;
    assert_eq!(node.query(&format!("http://{nothing}"), None).await, Err(SignalError::Unsupported));
}

#[tokio::test]
async fn nobody_is_led_elsewhere() {
    let doorway = open(settings(Keep::Memory)).await;
    let elsewhere = format!("location: {}\r\n", url(&doorway));
    let leads = says(http("302 Found", &elsewhere, "")).await;
    let error = Node::new(0).query(&format!("http://{leads}/signal"), None).await.unwrap_err();
    let SignalError::Refused { reason, retry_after: None } = error else { panic!("{error:?}") };
    assert!(reason.contains(&url(&doorway)), "{reason}");
}

#[tokio::test]
async fn nonsense_is_a_failure() {
    let long = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(100_000));
    let oversized = http("200 OK", "", &"[".repeat(400_000));
    for answer in [
        String::new(),
        "hello\r\n\r\n".into(),
        long,
        oversized,
        http("200 OK", "", "{\"peers\": 7}"),
        http("200 OK", "", &"[".repeat(20_000)),
        // It promises more than it sends.
        "HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{".into(),
    ] {
        let shown: String = answer.chars().take(60).collect();
        let server = format!("http://{}/signal", says(answer).await);
        let mut node = Node::new(0);
        let error = node.query(&server, None).await.unwrap_err();
        assert!(matches!(&error, SignalError::Failed(text) if text.chars().count() <= 200), "{shown}: {error:?}");
        assert!(node.publish(&server, &[PLACE]).await.is_err(), "{shown}");
    }
    let rude = http("503 Service Unavailable", "retry-after: 7\r\n", "\u{1b}[2J");
    let error = Node::new(0).query(&format!("http://{}", says(rude).await), None).await.unwrap_err();
    let wait = Some(Duration::from_secs(7));
    assert_eq!(error, SignalError::Refused { reason: "HTTP status 503".into(), retry_after: wait });
    // Its words do nothing to a terminal.
    let problem =
        json!({ "type": "full", "title": "", "status": 503, "detail": format!("\u{1b}[2J{}", "z".repeat(900)) });
    let error =
        Node::new(0).query(&format!("http://{}", says(http("503 X", "", &problem.to_string())).await), None).await;
    let Err(SignalError::Refused { reason, .. }) = error else { panic!("{error:?}") };
    assert!(!reason.contains('\u{1b}') && reason.chars().count() == 200, "{reason}");
}

#[tokio::test]
async fn the_dead_and_the_slow_cost_a_bounded_time() {
    let mut node = Node::new(0);
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let begun = Instant::now();
    for server in [format!("http://{closed}"), "http://nobody.invalid/signal".into(), "http://[::1".into()] {
        let error = node.query(&server, None).await.unwrap_err();
        assert!(matches!(error, SignalError::Failed(_)), "{server}: {error:?}");
    }
    assert!(begun.elapsed() < Duration::from_secs(20));

    // A byte now and then keeps nobody.
    let slow = serve(async |mut stream: TcpStream| {
        while stream.write_all(b"H").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    })
    .await;
    let begun = Instant::now();
    let error = node.query(&format!("http://{slow}"), None).await.unwrap_err();
    assert!(matches!(error, SignalError::Failed(_)), "{error:?}");
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn what_is_cancelled_is_not_answered() {
    let silent = serve(async |stream: TcpStream| {
        tokio::time::sleep(Duration::from_secs(60)).await;
        drop(stream);
    })
    .await;
    let doorway = open(settings(Keep::Memory)).await;
    let mut node = Node::new(0);
    let given_up = node.begin(Action::SignalQuery { server: format!("http://{silent}"), peer: None, limit: 1 });
    node.begin(Action::SignalCancel { command: given_up });
    assert_eq!(node.query(&url(&doorway), None).await, Ok((vec![], 0)));
    assert!(timeout(Duration::from_millis(100), node.client.next()).await.is_err());
}
