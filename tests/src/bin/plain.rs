//! Plain rust-libp2p, for comparison and as a foreign peer: the stock behaviours put together as in its own `dcutr` and
//! `relay-server` examples, with their defaults. Options come as the only argument, one JSON object:
//!
//! - `mode`: `relay`, `listener` (waits for a circuit) or `dialer` (opens one)
//! - `listen`: multiaddrs; default: any port, TCP and QUIC, IPv4
//! - `relay`: listener and dialer: the relay's address with its id
//! - `also`: another address of the relay, dialled at the same time: then it is seen there by both transports, and what it
//!   proposes when it punches has addresses of both
//! - `remote`: dialer: whom to reach through the relay; without it, it stays with the relay
//! - `known`: dialer: an address of a peer to dial instead, without any relay
//! - `autonat`: `client` or `server` (version 2); default: neither, as in the examples
//! - `version`: what it calls the protocol version; default `/plain/1.0.0`
//! - `external`: relay: addresses that it vouches for; default: what others see, as in the example
//!
//! What happens is printed as JSON lines, each with `ms`, the milliseconds since the process began, and `at_unix_ms`; see
//! `tests/src/foreign.rs`. Of requests it knows two: `connections`, all that stand, and `dial {address}`, whose outcome is
//! an event like any other.
#![expect(clippy::wildcard_enum_match_arm, reason = "of the swarm's many events it looks at a few, on purpose")]

use std::{
    collections::{BTreeMap, HashSet},
    error::Error,
    io::Write,
    time::{Instant, UNIX_EPOCH},
};

use futures::StreamExt;
use libp2p::{
    Multiaddr, PeerId, Swarm, SwarmBuilder, autonat,
    core::transport::ListenerId,
    identify,
    identity::Keypair,
    multiaddr::Protocol,
    noise, ping, relay,
    swarm::{
        ConnectionId, NetworkBehaviour, SwarmEvent,
        behaviour::toggle::Toggle,
        dial_opts::{DialOpts, PeerCondition},
    },
    tcp, yamux,
};
use libp2p_dcutr as dcutr;
use serde_json::{Value, json};

#[derive(NetworkBehaviour)]
struct Behaviour {
    relay_client: Toggle<relay::client::Behaviour>,
    relay: Toggle<relay::Behaviour>,
    ping: ping::Behaviour,
    identify: identify::Behaviour,
    dcutr: Toggle<dcutr::Behaviour>,
    probing: Toggle<autonat::v2::client::Behaviour>,
    probed: Toggle<autonat::v2::server::Behaviour>,
}

struct Plain {
    began: Instant,
    swarm: Swarm<Behaviour>,
    mode: String,
    relay: Option<Multiaddr>,
    remote: Option<PeerId>,
    relay_peer: Option<PeerId>,
    /// Introductions that are awaited, of each kind.
    relays: usize,
    /// Listeners that have not said where they listen.
    unheard: HashSet<ListenerId>,
    /// How often the relay has told where it sees us, and has been told of us: then the example goes on.
    seen: usize,
    told: usize,
    connections: BTreeMap<ConnectionId, Value>,
    vouched: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let began = Instant::now();
    let options: Value = serde_json::from_str(&std::env::args().nth(1).unwrap_or_else(|| "{}".into()))?;
    let mut plain = Plain::new(began, &options)?;
    plain.begin(&options).await?;

    let (sender, mut requests) = tokio::sync::mpsc::channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    loop {
        tokio::select! {
            line = requests.recv() => {
                let Some(line) = line else { return Ok(()) };
                let request: Value = serde_json::from_str(&line)?;
                let answer = match request["do"].as_str() {
                    Some("connections") => {
                        json!({ "id": request["id"], "ok": plain.connections.values().collect::<Vec<_>>() })
                    }
                    Some("dial") => {
                        let address: Multiaddr = request["address"].as_str().unwrap_or_default().parse()?;
                        let peer = address.iter().filter_map(|part| match part {
                            Protocol::P2p(peer) => Some(peer),
                            _ => None,
                        });
                        let peer = peer.last().ok_or("an address without a peer")?;
                        let dial = DialOpts::peer_id(peer).condition(PeerCondition::Always).addresses(vec![address]);
                        plain.swarm.dial(dial.build())?;
                        json!({ "id": request["id"], "ok": true })
                    }
                    _ => json!({ "id": request["id"], "error": "no such request" }),
                };
                plain.say(answer);
            }
            event = plain.swarm.select_next_some() => plain.take(event)?,
        }
    }
}

impl Plain {
    fn new(began: Instant, options: &Value) -> Result<Self, Box<dyn Error>> {
        let mode = options["mode"].as_str().unwrap_or_default().to_owned();
        let serves = match mode.as_str() {
            "relay" => true,
            "listener" | "dialer" => false,
            other => return Err(format!("no such mode: {other}").into()),
        };
        let version = options["version"].as_str().unwrap_or("/plain/1.0.0").to_owned();
        let (probing, probed) = match options["autonat"].as_str() {
            None => (false, false),
            Some("client") => (true, false),
            Some("server") => (false, true),
            Some(other) => return Err(format!("no such part of AutoNAT: {other}").into()),
        };
        let swarm = SwarmBuilder::with_existing_identity(Keypair::generate_ed25519())
            .with_tokio()
            .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)?
            .with_quic()
            .with_relay_client(noise::Config::new, yamux::Config::default)?
            .with_behaviour(|key, client| {
                let peer = key.public().to_peer_id();
                Behaviour {
                    relay_client: (!serves).then_some(client).into(),
                    relay: serves.then(|| relay::Behaviour::new(peer, relay::Config::default())).into(),
                    ping: ping::Behaviour::new(ping::Config::new()),
                    identify: identify::Behaviour::new(identify::Config::new(version, key.public())),
                    dcutr: (!serves).then(|| dcutr::Behaviour::new(peer)).into(),
                    probing: probing.then(autonat::v2::client::Behaviour::default).into(),
                    probed: probed.then(autonat::v2::server::Behaviour::default).into(),
                }
            })?
            .build();
        let relay: Option<Multiaddr> = options["relay"].as_str().map(str::parse).transpose()?;
        let relay_peer = relay.as_ref().and_then(peer_of);
        let remote = options["remote"].as_str().map(str::parse).transpose()?;
        Ok(Self {
            began,
            swarm,
            mode,
            relay,
            remote,
            relay_peer,
            unheard: HashSet::new(),
            relays: 1 + usize::from(options["also"].is_string()),
            seen: 0,
            told: 0,
            connections: BTreeMap::new(),
            vouched: false,
        })
    }

    /// Listens, says that it is ready, and dials whom it is to dial first. The example waits a second here.
    async fn begin(&mut self, options: &Value) -> Result<(), Box<dyn Error>> {
        let any = || vec![json!("/ip4/0.0.0.0/tcp/0"), json!("/ip4/0.0.0.0/udp/0/quic-v1")];
        for address in options["listen"].as_array().cloned().unwrap_or_else(any).iter().filter_map(Value::as_str) {
            self.unheard.insert(self.swarm.listen_on(address.parse()?)?);
        }
        let mut addresses = Vec::new();
        while !self.unheard.is_empty() {
            if let SwarmEvent::NewListenAddr { listener_id, address } = self.swarm.select_next_some().await
                && !is_loopback(&address)
            {
                self.unheard.remove(&listener_id);
                addresses.push(address.to_string());
            }
        }
        self.say(json!({ "event": "ready", "peer": self.swarm.local_peer_id().to_string(), "addresses": addresses }));
        for address in options["external"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            self.swarm.add_external_address(address.parse()?);
            self.vouched = true;
        }
        if let Some(known) = options["known"].as_str() {
            self.swarm.dial(known.parse::<Multiaddr>()?)?;
        } else if let Some(relay) = &self.relay {
            self.swarm.dial(relay.clone())?;
            if let (Some(peer), Some(also)) = (self.relay_peer, options["also"].as_str()) {
                let dial = DialOpts::peer_id(peer).condition(PeerCondition::Always).addresses(vec![also.parse()?]);
                self.swarm.dial(dial.build())?;
            }
        }
        Ok(())
    }

    fn take(&mut self, event: SwarmEvent<BehaviourEvent>) -> Result<(), Box<dyn Error>> {
        match event {
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                let address = endpoint.get_remote_address().to_string();
                let connection = json!({
                    "peer": peer_id.to_string(),
                    "connection": connection_id.to_string(),
                    "relayed": endpoint.is_relayed(),
                    "transport": if address.contains("/quic-v1") { "quic" } else { "tcp" },
                    "direction": if endpoint.is_dialer() { "outbound" } else { "inbound" },
                    "address": address,
                });
                self.connections.insert(connection_id, connection.clone());
                self.tell("connected", connection);
            }
            SwarmEvent::ConnectionClosed { connection_id, cause, .. } => {
                if let Some(mut connection) = self.connections.remove(&connection_id) {
                    connection["cause"] = json!(cause.map(|cause| cause.to_string()));
                    self.tell("disconnected", connection);
                }
            }
            SwarmEvent::OutgoingConnectionError { peer_id, error, .. } => {
                let peer = peer_id.map(|peer| peer.to_string());
                self.tell("not_connected", json!({ "peer": peer, "error": error.to_string() }));
            }
            SwarmEvent::ListenerClosed { reason, .. } => {
                self.tell("listener_closed", json!({ "reason": format!("{reason:?}") }));
            }
            SwarmEvent::ExternalAddrConfirmed { address } => {
                self.tell("confirmed", json!({ "address": address.to_string() }));
            }
            SwarmEvent::Behaviour(event) => self.behaves(event)?,
            _ => {}
        }
        Ok(())
    }

    fn behaves(&mut self, event: BehaviourEvent) -> Result<(), Box<dyn Error>> {
        match event {
            BehaviourEvent::Identify(identify::Event::Received { peer_id, info, .. }) => {
                if self.mode == "relay" && !self.vouched {
                    self.swarm.add_external_address(info.observed_addr.clone());
                }
                let protocols: Vec<String> = info.protocols.iter().map(ToString::to_string).collect();
                self.tell(
                    "identified",
                    json!({
                        "peer": peer_id.to_string(),
                        "agent": info.agent_version,
                        "observed": info.observed_addr.to_string(),
                        "protocols": protocols,
                    }),
                );
                self.seen += usize::from(self.is_relay(&peer_id));
                self.go_on(&peer_id)?;
            }
            BehaviourEvent::Identify(identify::Event::Sent { peer_id, .. }) => {
                self.told += usize::from(self.is_relay(&peer_id));
                self.go_on(&peer_id)?;
            }
            BehaviourEvent::Dcutr(dcutr::Event { remote_peer_id, result }) => {
                let error = result.err().map(|error| error.to_string());
                self.tell("punched", json!({ "peer": remote_peer_id.to_string(), "error": error }));
            }
            BehaviourEvent::RelayClient(relay::client::Event::ReservationReqAccepted { renewal, .. }) => {
                self.tell("reserved", json!({ "renewal": renewal }));
            }
            BehaviourEvent::Relay(relay::Event::ReservationReqAccepted { src_peer_id, renewed }) => {
                self.tell("reserves", json!({ "peer": src_peer_id.to_string(), "renewal": renewed }));
            }
            BehaviourEvent::Relay(relay::Event::CircuitReqAccepted { src_peer_id, dst_peer_id }) => {
                self.tell(
                    "circuit",
                    json!({ "peer": src_peer_id.to_string(), "to": dst_peer_id.to_string(), "open": true }),
                );
            }
            BehaviourEvent::Relay(relay::Event::CircuitClosed { src_peer_id, dst_peer_id, .. }) => {
                self.tell(
                    "circuit",
                    json!({ "peer": src_peer_id.to_string(), "to": dst_peer_id.to_string(), "open": false }),
                );
            }
            BehaviourEvent::Probing(autonat::v2::client::Event { tested_addr, server, result, .. }) => {
                let error = result.err().map(|error| error.to_string());
                self.tell(
                    "probed",
                    json!({ "address": tested_addr.to_string(), "server": server.to_string(), "error": error }),
                );
            }
            BehaviourEvent::Probed(autonat::v2::server::Event { tested_addr, client, result, .. }) => {
                let error = result.err().map(|error| error.to_string());
                self.tell(
                    "probes",
                    json!({ "address": tested_addr.to_string(), "peer": client.to_string(), "error": error }),
                );
            }
            BehaviourEvent::Ping(ping::Event { peer, result: Ok(rtt), .. }) => {
                self.tell("pinged", json!({ "peer": peer.to_string(), "rtt_us": rtt.as_micros() }));
            }
            _ => {}
        }
        Ok(())
    }

    fn is_relay(&self, peer: &PeerId) -> bool {
        self.relay_peer == Some(*peer)
    }

    /// Both introduced: now the circuit is listened for, or opened.
    fn go_on(&mut self, peer: &PeerId) -> Result<(), Box<dyn Error>> {
        if self.seen < self.relays || self.told < self.relays || !self.is_relay(peer) {
            return Ok(());
        }
        // Once.
        self.relay_peer = None;
        let Some(relay) = self.relay.take() else { return Ok(()) };
        let circuit = relay.with(Protocol::P2pCircuit);
        if self.mode == "listener" {
            self.swarm.listen_on(circuit)?;
        } else if let Some(remote) = self.remote {
            self.swarm.dial(circuit.with(Protocol::P2p(remote)))?;
        }
        Ok(())
    }

    fn tell(&self, event: &str, mut detail: Value) {
        detail["event"] = json!(event);
        self.say(detail);
    }

    /// A line to whoever started this; if nobody listens any more, there is nobody to tell.
    fn say(&self, mut line: Value) {
        line["ms"] = json!(self.began.elapsed().as_millis());
        line["at_unix_ms"] = json!(UNIX_EPOCH.elapsed().map(|since| since.as_millis()).unwrap_or_default());
        let _ = writeln!(std::io::stdout(), "{line}");
    }
}

fn is_loopback(address: &Multiaddr) -> bool {
    address.iter().any(|part| {
        matches!(part, Protocol::Ip4(ip) if ip.is_loopback()) || part == Protocol::Ip6(std::net::Ipv6Addr::LOCALHOST)
    })
}

fn peer_of(address: &Multiaddr) -> Option<PeerId> {
    address.iter().find_map(|part| match part {
        Protocol::P2p(peer) => Some(peer),
        _ => None,
    })
}
