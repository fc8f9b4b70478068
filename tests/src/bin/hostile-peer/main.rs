//! A libp2p peer that misbehaves on command. Options come as the only argument, one JSON object:
//!
//! - `listen`: multiaddrs; default `/ip4/0.0.0.0/tcp/0`
//! - `identify`: whether it introduces itself; default true
//! - `version`: what it calls the protocol version; default `/elohim/id/1.0.0`
//! - `kademlia`: whether it serves the hash table of `elohim`; default false
//! - `mdns`: a peer id that it announces as its own on the LAN, `"own"` for the right one; default: no mDNS
//! - `observed`: an address at which it says it sees everybody; default: where it does see them
//! - `probes`: it offers to probe addresses (AutoNAT v2), and answers each time, unseen, `"yes"` or `"no"`
//! - `relay`: it grants a place on its relay to all who ask, and then `"drops"` each circuit as soon as it is open, `"hangs
//!   up"` on whoever has a place, or `"forgets"` that it was given
//! - `late`: the relay's answers come so many seconds late; default 0
//!
//! Requests come as JSON lines on stdin, answers go to stdout; see `tests/src/foreign.rs`. They are done one after
//! another:
//!
//! - `dial {address}`: connects
//! - `flap {address, times}`: connects, and drops the connection once it stands on both sides, over and over; says how
//!   often it got so far
//! - `flood {rounds}`: tells everyone connected of 30 new addresses, over and over
//! - `crowd {peers}`: says by mDNS that so many peers are on the LAN, none of which exists
//! - `knock {address, times}`: opens TCP connections and never says a word; says how many were opened
//! - `reserve {address, peers, times}`: comes as so many peers, each of which asks a relay for a place so many times; they
//!   stay
//! - `probe {address, peers, times, version, targets, data}`: the same, for probes of these addresses by AutoNAT's version 1
//!   or 2; with `data`, they send what the server may want before it dials
//! - `connections`: how many stand
//!
//! The floods' answer says how many peers got in, and how often each answer came: `{"connected":2,"answers":{"100":2}}`.
//! `none` is none, other words are the protocols' numbers, status before dial status.
#![expect(clippy::wildcard_enum_match_arm, reason = "of the swarm's many events it looks at a few, on purpose")]

mod crowd;
mod floods;
mod lies;
mod messages;
mod raw;

use std::{collections::VecDeque, error::Error, io::Write, net::Ipv4Addr, time::Duration};

use futures::StreamExt;
use libp2p::{
    Multiaddr, PeerId, Swarm, SwarmBuilder, identify,
    identity::Keypair,
    kad, mdns,
    multiaddr::Protocol,
    noise, ping, request_response,
    swarm::{
        NetworkBehaviour, SwarmEvent,
        behaviour::toggle::Toggle,
        dial_opts::{DialOpts, PeerCondition},
    },
    tcp, yamux,
};
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};

use lies::Lies;
use raw::Raw;

/// Everything that is tried is given up after this.
const LIMIT: Duration = Duration::from_secs(10);

#[derive(NetworkBehaviour)]
struct Behaviour {
    identify: Toggle<identify::Behaviour>,
    kademlia: Toggle<kad::Behaviour<kad::store::MemoryStore>>,
    mdns: Toggle<mdns::tokio::Behaviour>,
    ping: ping::Behaviour,
    lies: request_response::Behaviour<Raw>,
}

struct Hostile {
    swarm: Swarm<Behaviour>,
    lies: Lies,
    /// Told with the last flood.
    told: VecDeque<Multiaddr>,
    next: u32,
    /// Connections that are opened and kept, for `knock`.
    silent: Vec<TcpStream>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let options: Value = serde_json::from_str(&std::env::args().nth(1).unwrap_or_else(|| "{}".into()))?;
    let mut hostile = Hostile::new(&options)?;
    let addresses = hostile.listen(&options).await?;
    say(&json!({ "event": "ready", "peer": hostile.swarm.local_peer_id().to_string(), "addresses": addresses }));

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
                match hostile.serve(&request).await {
                    Ok(ok) => say(&json!({ "id": request["id"], "ok": ok })),
                    Err(error) => say(&json!({ "id": request["id"], "error": error.to_string() })),
                }
            }
            event = hostile.next() => report(&event),
        }
    }
}

impl Hostile {
    fn new(options: &Value) -> Result<Self, Box<dyn Error>> {
        let key = Keypair::generate_ed25519();
        let peer = key.public().to_peer_id();
        let version = options["version"].as_str().unwrap_or("/elohim/id/1.0.0").to_owned();
        let lies = Lies::new(options, &key, &version)?;
        let identify = (options["identify"] != json!(false) && !lies.introduces()).then(|| {
            identify::Behaviour::new(
                identify::Config::new(version, key.public()).with_agent_version("hostile/1".to_owned()),
            )
        });
        let kademlia = (options["kademlia"] == json!(true)).then(|| {
            let config = kad::Config::new(libp2p::StreamProtocol::new("/elohim/kad/1.0.0"));
            let mut kademlia = kad::Behaviour::with_config(peer, kad::store::MemoryStore::new(peer), config);
            kademlia.set_mode(Some(kad::Mode::Server));
            kademlia
        });
        let mdns = match options["mdns"].as_str() {
            None => None,
            Some("own") => Some(mdns::tokio::Behaviour::new(mdns::Config::default(), peer)?),
            Some(other) => Some(mdns::tokio::Behaviour::new(mdns::Config::default(), other.parse()?)?),
        };
        let behaviour = Behaviour {
            identify: identify.into(),
            kademlia: kademlia.into(),
            mdns: mdns.into(),
            ping: ping::Behaviour::default(),
            lies: raw::serving(lies.protocols()),
        };
        let swarm = SwarmBuilder::with_existing_identity(key)
            .with_tokio()
            .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)?
            .with_quic()
            .with_behaviour(|_| behaviour)?
            .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(3_600)))
            .build();
        Ok(Self { swarm, lies, told: VecDeque::new(), next: 0, silent: Vec::new() })
    }

    /// The next event that is not about lies.
    async fn next(&mut self) -> SwarmEvent<BehaviourEvent> {
        loop {
            tokio::select! {
                event = self.swarm.select_next_some() => match event {
                    SwarmEvent::Behaviour(BehaviourEvent::Lies(event)) => self.lies.hear(event, &mut self.swarm),
                    other => return other,
                },
                () = self.lies.due() => self.lies.tell_late(&mut self.swarm),
            }
        }
    }

    async fn listen(&mut self, options: &Value) -> Result<Vec<String>, Box<dyn Error>> {
        let listen = options["listen"].as_array().cloned().unwrap_or_else(|| vec![json!("/ip4/0.0.0.0/tcp/0")]);
        let mut addresses = Vec::new();
        for address in listen.iter().filter_map(Value::as_str) {
            self.swarm.listen_on(address.parse()?)?;
            let heard = async {
                loop {
                    if let SwarmEvent::NewListenAddr { address, .. } = self.next().await
                        && !is_loopback(&address)
                    {
                        return address;
                    }
                }
            };
            addresses.push(timeout(LIMIT, heard).await?.to_string());
        }
        Ok(addresses)
    }

    async fn serve(&mut self, request: &Value) -> Result<Value, Box<dyn Error>> {
        let address = || request["address"].as_str().unwrap_or_default().parse::<Multiaddr>();
        let times = request["times"].as_u64().unwrap_or(1);
        match request["do"].as_str().unwrap_or_default() {
            "dial" => Ok(json!(self.dial(address()?).await?.to_string())),
            "flap" => {
                let mut got_in = 0;
                for _ in 0..times {
                    if let Ok(peer) = self.dial(address()?).await {
                        got_in += u32::from(self.is_let_in(peer).await);
                        self.hang_up(peer).await;
                    }
                }
                Ok(json!(got_in))
            }
            "flood" => {
                let rounds = request["rounds"].as_u64().unwrap_or(1);
                for _ in 0..rounds {
                    self.flood().await?;
                }
                Ok(json!(rounds * 30))
            }
            "crowd" => {
                let peers = request["peers"].as_u64().unwrap_or(1);
                crowd::announce(self.own_ip()?, u32::try_from(peers)?).await?;
                Ok(json!(peers))
            }
            "knock" => {
                let (ip, port) = socket(&address()?).ok_or("needs /ip4/…/tcp/…")?;
                let before = self.silent.len();
                for _ in 0..times {
                    if let Ok(Ok(stream)) = timeout(LIMIT, TcpStream::connect((ip, port))).await {
                        self.silent.push(stream);
                    }
                }
                Ok(json!(self.silent.len() - before))
            }
            "reserve" => floods::reserve(&address()?, &floods::Size::of(request)).await,
            "probe" => floods::probe(&address()?, &floods::Size::of(request), request).await,
            "connections" => Ok(json!(self.swarm.network_info().connection_counters().num_established())),
            other => Err(format!("no such request: {other}").into()),
        }
    }

    fn own_ip(&self) -> Result<Ipv4Addr, Box<dyn Error>> {
        let ip = self.swarm.listeners().filter(|address| !is_loopback(address)).find_map(socket);
        Ok(ip.ok_or("listens nowhere")?.0)
    }

    async fn dial(&mut self, address: Multiaddr) -> Result<PeerId, Box<dyn Error>> {
        // From the listener's port the same dial can't be made again at once: the system remembers the last one.
        let options = match address.iter().last() {
            Some(Protocol::P2p(peer)) => DialOpts::peer_id(peer)
                .condition(PeerCondition::Always)
                .addresses(vec![address])
                .allocate_new_port()
                .build(),
            _ => DialOpts::unknown_peer_id().address(address).allocate_new_port().build(),
        };
        let connection = options.connection_id();
        self.swarm.dial(options)?;
        let answer = async {
            loop {
                let event = self.next().await;
                report(&event);
                match event {
                    SwarmEvent::ConnectionEstablished { peer_id, connection_id, .. } if connection_id == connection => {
                        return Ok(peer_id);
                    }
                    SwarmEvent::OutgoingConnectionError { connection_id, error, .. } if connection_id == connection => {
                        return Err(error.to_string().into());
                    }
                    _ => {}
                }
            }
        };
        timeout(LIMIT, answer).await?
    }

    /// Whether the other side takes the connection for one too: it introduces itself, or hangs up.
    async fn is_let_in(&mut self, peer: PeerId) -> bool {
        let introduced = async {
            while self.swarm.is_connected(&peer) {
                let event = self.next().await;
                report(&event);
                if let SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received { .. })) = event {
                    return true;
                }
            }
            false
        };
        timeout(LIMIT, introduced).await.unwrap_or(false)
    }

    async fn hang_up(&mut self, peer: PeerId) {
        // Without a connection there is nothing to hang up: the other side was faster.
        let _ = self.swarm.disconnect_peer_id(peer);
        let gone = async {
            while self.swarm.is_connected(&peer) {
                let event = self.next().await;
                report(&event);
            }
        };
        let _ = timeout(LIMIT, gone).await;
    }

    /// 30 addresses are what fits into one message.
    async fn flood(&mut self) -> Result<(), Box<dyn Error>> {
        for old in self.told.drain(..) {
            self.swarm.remove_external_address(&old);
        }
        for _ in 0..30 {
            self.next += 1;
            // Somewhere in 45.x.y.z, none of it this lab's.
            let ip = Ipv4Addr::from(0x2d80_0000 + self.next);
            let address = Multiaddr::from(ip).with(Protocol::Tcp(4001));
            self.swarm.add_external_address(address.clone());
            self.told.push_back(address);
        }
        let peers: Vec<PeerId> = self.swarm.connected_peers().copied().collect();
        let wanted = peers.len();
        self.swarm.behaviour_mut().identify.as_mut().ok_or("does not identify")?.push(peers);
        let sent = async {
            let mut done = 0;
            while done < wanted {
                let event = self.next().await;
                report(&event);
                if let SwarmEvent::Behaviour(BehaviourEvent::Identify(
                    identify::Event::Pushed { .. } | identify::Event::Error { .. },
                ))
                | SwarmEvent::ConnectionClosed { .. } = event
                {
                    done += 1;
                }
            }
        };
        timeout(LIMIT, sent).await?;
        Ok(())
    }
}

fn report(event: &SwarmEvent<BehaviourEvent>) {
    match event {
        SwarmEvent::ConnectionEstablished { peer_id, endpoint, .. } => {
            let direction = if endpoint.is_dialer() { "outbound" } else { "inbound" };
            say(&json!({ "event": "connected", "peer": peer_id.to_string(), "direction": direction }));
        }
        SwarmEvent::ConnectionClosed { peer_id, .. } => {
            say(&json!({ "event": "disconnected", "peer": peer_id.to_string() }));
        }
        SwarmEvent::IncomingConnectionError { .. } => say(&json!({ "event": "refused" })),
        _ => {}
    }
}

fn is_loopback(address: &Multiaddr) -> bool {
    address.iter().any(|part| matches!(part, Protocol::Ip4(ip) if ip.is_loopback()))
}

fn socket(address: &Multiaddr) -> Option<(Ipv4Addr, u16)> {
    let mut parts = address.iter();
    match (parts.next(), parts.next()) {
        (Some(Protocol::Ip4(ip)), Some(Protocol::Tcp(port))) => Some((ip, port)),
        _ => None,
    }
}

/// A line to whoever started this; if nobody listens any more, there is nobody to tell.
fn say(line: &Value) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
