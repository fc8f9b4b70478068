//! Whole nodes, with the real network: over loopback on tokio, and over the memory transport on smol's single thread.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]

use std::{fs, path::Path, pin::Pin, rc::Rc, time::Duration};

use futures::{
    FutureExt, StreamExt,
    channel::mpsc,
    future::{Either, select},
    stream,
};
use kinfolk_core::{
    Action, Answer, Command, CommandId, Config, Event, Interfaces, Node, Notice, PeerAddress, PeerId, Reason, Started,
    Transport as By,
    trace::{Frame, Header},
    view::State,
};
use kinfolk_shell::{
    api::types::{Peer, parse_target},
    clock::Clock,
    driver::{Driver, Setup},
    feed::Fed,
    handle::{Control, EventStream, Handle, Told},
    network::{Network, NetworkSettings},
    node::{Folder, NodeSettings, Place, prepare},
};
use libp2p::{
    Transport,
    core::{transport::MemoryTransport, upgrade::Version},
    identity::Keypair,
    noise,
    swarm::dummy,
    yamux,
};

/// Nothing here takes this long, on however busy a machine.
const PATIENCE: Duration = Duration::from_secs(60);

const AGENT: &str = "kinfolk/test";

async fn patiently<T>(what: &str, wanted: impl Future<Output = T>) -> T {
    match select(Box::pin(wanted), futures_timer::Delay::new(PATIENCE)).await {
        Either::Left((found, _)) => found,
        Either::Right(_) => panic!("waited in vain for {what}"),
    }
}

async fn until(node: &Control, what: &str, peer: PeerId, condition: impl Fn(&Peer) -> bool) -> Peer {
    let wanted = async {
        loop {
            if let Some(peer) = node.peer(peer).await.unwrap()
                && condition(&peer)
            {
                return peer;
            }
            futures_timer::Delay::new(Duration::from_millis(10)).await;
        }
    };
    patiently(what, wanted).await
}

async fn hears(events: &mut EventStream, what: &str, wanted: impl Fn(&Notice) -> bool) -> Told {
    let heard = async {
        while let Some(heard) = events.next().await {
            if let Fed::Item(told) = heard
                && wanted(&told.notice)
            {
                return Told::clone(&told);
            }
        }
        panic!("the node ended before {what}");
    };
    patiently(what, heard).await
}

fn config(listen: &[&str]) -> Config {
    let listen = listen.iter().map(|address| address.parse().unwrap()).collect();
    Config { mdns: false, listen, ..Config::desktop() }
}

fn spawn(task: Pin<Box<dyn Future<Output = ()> + Send>>) {
    tokio::spawn(task);
}

fn start(place: Place, config: Config) -> Handle<dummy::Behaviour> {
    let config = config.validate().unwrap();
    let prepared = prepare(NodeSettings::new(config.clone(), AGENT, place)).unwrap();
    let settings = NetworkSettings::new(config, AGENT);
    let network = Network::new(prepared.identity.keypair.clone(), settings, spawn, dummy::Behaviour).unwrap();
    let (life, handle, _) = prepared.drive(network);
    tokio::spawn(life);
    handle
}

async fn address(node: &Control, by: By) -> PeerAddress {
    let listening = async {
        loop {
            let status = node.status().await.unwrap();
            if let Some(address) = status.listening.iter().find(|address| address.transport() == Some(by)) {
                return PeerAddress::new(status.peer, address.clone());
            }
            futures_timer::Delay::new(Duration::from_millis(10)).await;
        }
    };
    patiently("a listener", listening).await
}

fn replay(file: &Path) -> usize {
    let (mut node, mut inputs) = (Node::new(), 0);
    for line in fs::read_to_string(file).unwrap().lines() {
        if line.starts_with("{\"kinfolk_trace\"") {
            let header: Header = serde_json::from_str(line).unwrap();
            node = header.checkpoint.map_or_else(Node::new, |checkpoint| *checkpoint);
            continue;
        }
        let frame: Frame = serde_json::from_str(line).unwrap();
        node.handle(frame.t, frame.r#in);
        let out: Vec<Command> = std::iter::from_fn(|| node.next_command()).collect();
        assert_eq!(out, frame.out);
        inputs += 1;
    }
    inputs
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_connect_part_and_meet_again() {
    let folder = tempfile::tempdir().unwrap();
    let both = ["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"];
    let (a, b) = (folder.path().join("a"), folder.path().join("b"));
    let first = start(Place::Folder(Folder::new(&a)), config(&both));
    let second = start(Place::Folder(Folder::new(&b)), config(&both));
    let mut events = first.events();

    let to = address(&second, By::Quic).await;
    let other = to.peer.unwrap();
    let answer = first.pin(to).await.unwrap();
    assert_eq!(answer, Answer::Done);
    let known = until(&first, "the other to introduce itself", other, |peer| peer.state == State::Identified).await;
    assert_eq!(known.agent.as_deref(), Some(AGENT));
    let own = first.status().await.unwrap().peer;
    until(&second, "the first to introduce itself", own, |peer| peer.state == State::Identified).await;
    until(&first, "a ping", other, |peer| peer.rtt_us.is_some()).await;
    let why = first.why(Some(other)).await.unwrap();
    let dialled = why.iter().find(|entry| entry.action.starts_with("dial ")).unwrap();
    assert!(["you asked for it", "it is pinned and must not stay away"].contains(&&*dialled.because), "{dialled:?}");
    let counters = first.status().await.unwrap().counters;
    assert!(counters.keys().any(|name| !name.starts_with("driver.")), "the network counts too: {counters:?}");
    assert_eq!(first.with_behaviour(|_: &mut dummy::Behaviour| 7).await, Ok(7));

    second.shutdown().await;
    let told = hears(&mut events, "the other's end", |notice| matches!(notice, Notice::PeerDisconnected { .. })).await;
    assert_eq!(told.notice.peer(), Some(&other));

    // It comes back at other ports.
    let again = start(Place::Folder(Folder::new(&b)), config(&both));
    let to = address(&again, By::Tcp).await;
    assert_eq!(to.peer, Some(other), "the identity is the same");
    first.connect(to).await.unwrap();
    until(&again, "the first once more", own, |peer| !peer.connections.is_empty()).await;

    for (node, name) in [(first, "first.jsonl"), (again, "again.jsonl")] {
        let file = folder.path().join(name);
        node.trace_export(file.clone()).await.unwrap();
        assert!(replay(&file) > 10, "bit for bit");
        node.shutdown().await;
    }
}

#[test]
fn a_node_that_goes_says_farewell() {
    let runtimes = [(); 2].map(|()| tokio::runtime::Runtime::new().unwrap());
    let [first, second] = [0, 1].map(|at: usize| {
        let _inside = runtimes[at].enter();
        start(Place::Memory, config(&["/ip4/127.0.0.1/udp/0/quic-v1"]))
    });
    let [here, there] = runtimes;
    futures::executor::block_on(async {
        let to = address(&second, By::Quic).await;
        let other = to.peer.unwrap();
        first.connect(to).await.unwrap();
        until(&first, "an introduction", other, |peer| peer.state == State::Identified).await;
        let mut events = first.events();
        second.shutdown().await;
        // As when a process exits: whatever was not sent yet is not sent any more. By QUIC nobody but the node itself can
        // say that it goes; by its silence it would be noticed after 25 s at the earliest.
        there.shutdown_background();
        let told = hears(&mut events, "a farewell", |notice| matches!(notice, Notice::PeerDisconnected { .. }));
        futures::select! {
            _ = Box::pin(told).fuse() => {}
            () = futures_timer::Delay::new(Duration::from_secs(20)).fuse() => panic!("no farewell"),
        }
        first.shutdown().await;
    });
    here.shutdown_background();
}

/// A node on smol's thread: libp2p's tasks want to be sent, the executor does not, so they go through a channel.
fn on_smol(executor: &Rc<smol::LocalExecutor<'static>>, listen: Option<&str>) -> (PeerId, Handle<dummy::Behaviour>) {
    let (tasks, mut sent) = mpsc::unbounded::<Pin<Box<dyn Future<Output = ()> + Send>>>();
    let local = Rc::clone(executor);
    executor
        .spawn(async move {
            while let Some(task) = sent.next().await {
                local.spawn(task).detach();
            }
        })
        .detach();
    let key = Keypair::generate_ed25519();
    let transport = MemoryTransport::default()
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(&key).unwrap())
        .multiplex(yamux::Config::default())
        .boxed();
    let config = config(&[]).validate().unwrap();
    let settings = NetworkSettings::new(config.clone(), AGENT);
    let spawn = move |task| drop(tasks.unbounded_send(task));
    let mut network = Network::with_transport(key, settings, spawn, transport, dummy::Behaviour).unwrap();
    if let Some(address) = listen {
        // The settings know only IP; so this listener is the test's.
        let action = Action::Listen { address: address.parse().unwrap() };
        network.execute(&Command { id: CommandId(1_000_000), action, reason: Reason::Settings });
    }
    let local = network.local();
    let setup = Setup {
        started: Started { config, local, seed: 7, unix_time: 1_790_000_000, interfaces: Interfaces::default() },
        agent: AGENT.into(),
        data_dir: None,
        clock: Clock::start(),
        inputs: stream::iter([Event::StoreLoaded { peers: vec![], nat: None, last: true }]).boxed(),
        store: None,
        recorder: None,
        logs: None,
        signal: None,
        slack: Duration::ZERO,
        metrics: false,
        finish: async {}.boxed(),
    };
    let (driver, handle, _) = Driver::new(network, setup);
    executor.spawn(driver.run()).detach();
    (local, handle)
}

#[test]
fn two_nodes_meet_on_smols_single_thread() {
    let executor = Rc::new(smol::LocalExecutor::new());
    let (there, listener) = on_smol(&executor, Some("/memory/7117"));
    let (here, dialer) = on_smol(&executor, None);
    let test = executor.spawn(async move {
        let to = parse_target(&format!("/memory/7117/p2p/{there}")).unwrap();
        let connected = patiently("the connection", dialer.connect(to)).await.unwrap();
        assert!(matches!(connected, Answer::Connected { peer, .. } if peer == there), "{connected:?}");
        until(&dialer, "an introduction", there, |peer| peer.state == State::Identified).await;
        until(&listener, "an introduction", here, |peer| peer.state == State::Identified).await;
        until(&dialer, "a ping", there, |peer| peer.rtt_us.is_some()).await;
        let mut events = listener.events();
        dialer.shutdown().await;
        hears(&mut events, "a farewell", |notice| matches!(notice, Notice::PeerDisconnected { .. })).await;
        listener.shutdown().await;
    });
    smol::block_on(executor.run(test));
}
