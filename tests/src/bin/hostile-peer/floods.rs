//! Many peers, each of which asks for the same thing many times.

use std::{collections::BTreeMap, error::Error};

use futures::StreamExt;
use libp2p::{
    Multiaddr, PeerId, StreamProtocol, Swarm, SwarmBuilder, identify,
    identity::Keypair,
    noise, relay, request_response,
    swarm::{NetworkBehaviour, SwarmEvent},
    tcp, yamux,
};
use prost::Message as _;
use serde_json::{Value, json};
use tokio::{sync::mpsc, time::timeout};

use crate::{
    LIMIT,
    lies::DIAL_REQUEST,
    messages::{DialData, DialRequest, Hop, OldDial, OldPeer, OldProbe, Probe},
    raw::{self, Asked, Raw},
};

const OLD_PROBES: StreamProtocol = StreamProtocol::new("/libp2p/autonat/1.0.0");
/// What a server may want to be sent before it dials.
const DATA: usize = 100_000;
const PIECE: usize = 4_000;
/// Of one peer: what most servers hear out at the same time.
const AT_ONCE: usize = 4;

#[derive(NetworkBehaviour)]
struct Behaviour {
    identify: identify::Behaviour,
    ask: request_response::Behaviour<Raw>,
}

pub(super) struct Size {
    peers: u64,
    times: u64,
}

impl Size {
    pub(super) fn of(request: &Value) -> Self {
        let number = |name: &str| request[name].as_u64().unwrap_or(1);
        Self { peers: number("peers"), times: number("times") }
    }
}

/// For places on a relay.
pub(super) async fn reserve(at: &Multiaddr, size: &Size) -> Result<Value, Box<dyn Error>> {
    let ask = Hop { kind: 0, reservation: None, status: None }.encode_length_delimited_to_vec();
    let read = |answer: &[u8]| Some(Hop::decode_length_delimited(answer).ok()?.status?.to_string());
    flood(at, size, &relay::HOP_PROTOCOL_NAME, |_| ask.clone(), read).await
}

/// For probes of the targets, in turn.
pub(super) async fn probe(at: &Multiaddr, size: &Size, request: &Value) -> Result<Value, Box<dyn Error>> {
    let targets = request["targets"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let targets: Vec<Multiaddr> = targets.map(str::parse).collect::<Result<_, _>>()?;
    let mut targets = targets.iter().cycle();
    let mut next = || targets.next().map(|target| vec![target.to_vec()]).unwrap_or_default();
    if request["version"] == json!(1) {
        let ask = |peer: PeerId| {
            let peer = OldPeer { id: peer.to_bytes(), addresses: next() };
            let dial = Some(OldDial { peer: Some(peer) });
            OldProbe { kind: Some(0), dial, response: None }.encode_length_delimited_to_vec()
        };
        let read = |answer: &[u8]| Some(OldProbe::decode_length_delimited(answer).ok()?.response?.status.to_string());
        return flood(at, size, &OLD_PROBES, ask, read).await;
    }
    let ask = |_| {
        let dial = DialRequest { addresses: next(), nonce: 1 };
        let mut messages = Probe { request: Some(dial), ..Probe::default() }.encode_length_delimited_to_vec();
        if request["data"] == json!(true) {
            let piece = Probe { data: Some(DialData { data: vec![0; PIECE] }), ..Probe::default() };
            for _ in 0..DATA.div_ceil(PIECE) {
                messages.extend(piece.encode_length_delimited_to_vec());
            }
        }
        messages
    };
    // Before the answer it may ask for data.
    let read = |mut answer: &[u8]| {
        while let Ok(probe) = Probe::decode_length_delimited(&mut answer) {
            if let Some(response) = probe.response {
                return Some(format!("{} {}", response.status, response.dial_status));
            }
        }
        None
    };
    flood(at, size, &DIAL_REQUEST, ask, read).await
}

async fn flood(
    at: &Multiaddr,
    size: &Size,
    protocol: &StreamProtocol,
    mut ask: impl FnMut(PeerId) -> Vec<u8>,
    read: impl Fn(&[u8]) -> Option<String>,
) -> Result<Value, Box<dyn Error>> {
    let (sender, mut answers) = mpsc::unbounded_channel();
    let mut connected = 0;
    // One after the other: at the door there is room for so many from one network.
    for _ in 0..size.peers {
        let mut swarm = peer(protocol)?;
        let Some(server) = connect(&mut swarm, at).await? else { continue };
        connected += 1;
        let requests = (0..size.times).map(|_| (protocol.clone(), ask(*swarm.local_peer_id()))).collect();
        tokio::spawn(stay(swarm, server, requests, sender.clone()));
    }
    drop(sender);
    let mut counts = BTreeMap::<String, u64>::new();
    for _ in 0..connected * size.times {
        let answer = timeout(LIMIT * 2, answers.recv()).await.map_err(|_| "an answer never comes")?;
        let word = answer.flatten().and_then(|answer| read(&answer)).unwrap_or_else(|| "none".to_owned());
        *counts.entry(word).or_default() += 1;
    }
    Ok(json!({ "connected": connected, "answers": counts }))
}

fn peer(protocol: &StreamProtocol) -> Result<Swarm<Behaviour>, Box<dyn Error>> {
    let key = Keypair::generate_ed25519();
    let identify = identify::Config::new("/elohim/id/1.0.0".to_owned(), key.public());
    let behaviour = Behaviour { identify: identify::Behaviour::new(identify), ask: raw::asking(protocol.clone()) };
    Ok(SwarmBuilder::with_existing_identity(key)
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)?
        .with_behaviour(|_| behaviour)?
        .with_swarm_config(|config| config.with_idle_connection_timeout(LIMIT * 60))
        .build())
}

/// Who is there; `None`: nobody, or it lets nobody in.
async fn connect(swarm: &mut Swarm<Behaviour>, at: &Multiaddr) -> Result<Option<PeerId>, Box<dyn Error>> {
    swarm.dial(at.clone())?;
    let introduced = async {
        loop {
            match swarm.select_next_some().await {
                SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received { peer_id, .. })) => {
                    return Some(peer_id);
                }
                SwarmEvent::OutgoingConnectionError { .. } | SwarmEvent::ConnectionClosed { .. } => return None,
                _ => {}
            }
        }
    };
    Ok(timeout(LIMIT, introduced).await.unwrap_or(None))
}

/// Asks, so many times at once, and goes on after the last answer: a place is lost with its connection.
async fn stay(
    mut swarm: Swarm<Behaviour>,
    server: PeerId,
    mut requests: Vec<Asked>,
    answers: mpsc::UnboundedSender<Option<Vec<u8>>>,
) {
    for request in requests.drain(..requests.len().min(AT_ONCE)) {
        swarm.behaviour_mut().ask.send_request(&server, request);
    }
    loop {
        let answer = match swarm.select_next_some().await {
            SwarmEvent::Behaviour(BehaviourEvent::Ask(request_response::Event::Message {
                message: request_response::Message::Response { response, .. },
                ..
            })) => Some(response),
            SwarmEvent::Behaviour(BehaviourEvent::Ask(request_response::Event::OutboundFailure { .. })) => None,
            _ => continue,
        };
        // Nobody listens once all have answered.
        let _ = answers.send(answer);
        if let Some(next) = requests.pop() {
            swarm.behaviour_mut().ask.send_request(&server, next);
        }
    }
}
