//! What it says to those who ask it for help: where it sees them, whether they can be reached, and that it relays for
//! them.

use std::{error::Error, time::SystemTime};

use libp2p::{
    Multiaddr, PeerId, StreamProtocol, Swarm, identify,
    identity::Keypair,
    relay,
    request_response::{self, ResponseChannel},
};
use prost::Message as _;
use serde_json::{Value, json};
use tokio::time::{Duration, Instant};

use crate::{
    Behaviour, is_loopback,
    messages::{DialResponse, Hop, Identify, Probe, Reservation},
    raw::Asked,
    say,
};

pub(super) const DIAL_REQUEST: StreamProtocol = StreamProtocol::new("/libp2p/autonat/2/dial-request");

const OK: i32 = 100;
const NO_RESERVATION: i32 = 204;

type Event = request_response::Event<Asked, Vec<u8>>;
type Answer = (ResponseChannel<Vec<u8>>, Vec<u8>);

pub(super) struct Lies {
    /// What it says of itself, with a place at which it sees everybody.
    introduction: Option<Identify>,
    /// What it says of every address.
    verdict: Option<i32>,
    relay: Option<Relay>,
    late: Duration,
    /// Answers that are not due; the first one first.
    answers: Vec<(Instant, Answer)>,
}

#[derive(Clone, Copy, PartialEq)]
enum Relay {
    Drops,
    HangsUp,
    Forgets,
}

impl Lies {
    pub(super) fn new(options: &Value, key: &Keypair, version: &str) -> Result<Self, Box<dyn Error>> {
        let unknown = |what: &str| Err(format!("no such lie: {what}").into());
        let mut lies = Self {
            introduction: None,
            verdict: match options["probes"].as_str() {
                None => None,
                Some("yes") => Some(200),
                Some("no") => Some(100),
                Some(other) => return unknown(other),
            },
            relay: match options["relay"].as_str() {
                None => None,
                Some("drops") => Some(Relay::Drops),
                Some("hangs up") => Some(Relay::HangsUp),
                Some("forgets") => Some(Relay::Forgets),
                Some(other) => return unknown(other),
            },
            late: Duration::from_secs(options["late"].as_u64().unwrap_or(0)),
            answers: Vec::new(),
        };
        if let Some(observed) = options["observed"].as_str() {
            let protocols = lies.protocols().into_iter().chain([identify::PROTOCOL_NAME]);
            lies.introduction = Some(Identify {
                public_key: key.public().encode_protobuf(),
                protocols: protocols.map(|protocol| protocol.to_string()).collect(),
                observed: observed.parse::<Multiaddr>()?.to_vec(),
                version: version.to_owned(),
                agent: "hostile/1".to_owned(),
            });
        }
        Ok(lies)
    }

    /// Whether it says itself who it is.
    pub(super) fn introduces(&self) -> bool {
        self.introduction.is_some()
    }

    pub(super) fn protocols(&self) -> Vec<StreamProtocol> {
        let identify = self.introduction.as_ref().map(|_| identify::PROTOCOL_NAME);
        let probes = self.verdict.map(|_| DIAL_REQUEST);
        let relay = self.relay.map(|_| relay::HOP_PROTOCOL_NAME);
        identify.into_iter().chain(probes).chain(relay).collect()
    }

    pub(super) fn hear(&mut self, event: Event, swarm: &mut Swarm<Behaviour>) {
        match event {
            request_response::Event::Message {
                peer,
                message: request_response::Message::Request { request: (protocol, message), channel, .. },
                ..
            } => {
                let (about, answer) = self.answer(&protocol, &message, swarm);
                say(&json!({ "event": "asked", "peer": peer.to_string(), "for": about }));
                if about == "place" && !self.late.is_zero() {
                    self.answers.push((Instant::now() + self.late, (channel, answer)));
                } else {
                    tell(swarm, (channel, answer));
                }
            }
            request_response::Event::ResponseSent { peer, .. } if self.relay == Some(Relay::HangsUp) => {
                // It has gone by itself: all the better.
                let _ = swarm.disconnect_peer_id(peer);
            }
            _ => {}
        }
    }

    fn answer(&self, protocol: &StreamProtocol, message: &[u8], swarm: &Swarm<Behaviour>) -> (&'static str, Vec<u8>) {
        if *protocol == identify::PROTOCOL_NAME {
            return ("introduction", self.introduction.clone().unwrap_or_default().encode_length_delimited_to_vec());
        }
        if *protocol == DIAL_REQUEST {
            let response = DialResponse { status: 200, dial_status: self.verdict.unwrap_or_default() };
            let probe = Probe { response: Some(response), ..Probe::default() };
            return ("probe", probe.encode_length_delimited_to_vec());
        }
        let place = Hop::decode(message).is_ok_and(|hop| hop.kind == 0);
        let (about, reservation, status) = if place {
            ("place", Some(place_at(swarm)), OK)
        } else {
            ("circuit", None, if self.relay == Some(Relay::Drops) { OK } else { NO_RESERVATION })
        };
        (about, Hop { kind: 2, reservation, status: Some(status) }.encode_length_delimited_to_vec())
    }

    /// Until an answer is due.
    pub(super) async fn due(&self) {
        match self.answers.first() {
            Some((at, _)) => tokio::time::sleep_until(*at).await,
            None => std::future::pending().await,
        }
    }

    pub(super) fn tell_late(&mut self, swarm: &mut Swarm<Behaviour>) {
        if !self.answers.is_empty() {
            let (_, answer) = self.answers.remove(0);
            tell(swarm, answer);
            say(&json!({ "event": "told_late" }));
        }
    }
}

fn tell(swarm: &mut Swarm<Behaviour>, (channel, answer): Answer) {
    // Whoever asked may be gone.
    let _ = swarm.behaviour_mut().lies.send_response(channel, answer);
}

fn place_at(swarm: &Swarm<Behaviour>) -> Reservation {
    let own: PeerId = *swarm.local_peer_id();
    let addresses = swarm.listeners().filter(|address| !is_loopback(address)).cloned();
    let addresses = addresses.filter_map(|address| Some(address.with_p2p(own).ok()?.to_vec())).collect();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Reservation { expire: now.as_secs() + 3_600, addresses }
}
