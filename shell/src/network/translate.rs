//! libp2p's events, in the core's words.

use std::{collections::BTreeMap, io, time::Instant};

use kinfolk_core::{
    Address, Asker, CloseCause, ConnectionId as CoreConnectionId, DialError, Direction, Event, HeldId, Identity,
    ListenError, ListenerId as CoreListenerId, Origin, PingError, Source, network_of,
};
use libp2p::{
    Multiaddr, PeerId,
    core::{ConnectedPoint, Endpoint, transport::ListenerId},
    identify, mdns,
    multiaddr::Protocol,
    ping,
    swarm::{self, ConnectionError, ConnectionId, NetworkBehaviour, SwarmEvent},
};

use super::{
    Connection, Happened, Held, MAX_HELD, Network,
    behaviour::BehaviourEvent,
    errors,
    governed::Said,
    ids::{self, address_to_core, peer_to_core, real_peer, told_address},
    relay,
    repeats::Pace,
};

/// What one event may hold.
pub(super) const MAX_ADDRESSES: usize = 32;
const MAX_PROTOCOLS: usize = 64;
/// Characters of a protocol's, program's or version's name.
const MAX_NAME: usize = 128;
/// Peers found by mDNS that the core is told of. More on one link are a prank.
const MAX_BY_MDNS: usize = 256;
/// What we remember of how others see us.
const MAX_SEEN_AS: usize = 32;
/// A peer that says the same again is reported no more often.
const SAME_AGAIN: std::time::Duration = std::time::Duration::from_secs(60);
/// A knock with our own identity this soon after we dialled ourselves is our own.
const OWN_ECHO: std::time::Duration = std::time::Duration::from_secs(10);

impl<A: NetworkBehaviour> Network<A> {
    pub(super) fn translate(&mut self, event: SwarmEvent<BehaviourEvent<A>>) {
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour(event),
            SwarmEvent::ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint,
                established_in,
                concurrent_dial_errors,
                ..
            } => {
                let failed = concurrent_dial_errors.map_or(0, |errors| errors.len());
                self.counters.add("dials.addresses_failed_before_success", failed as u64);
                self.on_connected(peer_id, connection_id, &endpoint, established_in);
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, cause, .. } => {
                let cause = self.close_cause(connection_id, cause);
                if let Some(connection) = self.connections.remove(&connection_id) {
                    self.by_number.remove(&connection.number);
                    let connection = CoreConnectionId(connection.number);
                    self.tell(Event::Disconnected { connection, peer: peer_to_core(peer_id), cause });
                }
            }
            SwarmEvent::IncomingConnection { .. } => self.counters.count("connections.knocks"),
            SwarmEvent::IncomingConnectionError { local_addr, send_back_addr, error, peer_id, .. } => {
                // By a relay's word alone, the source of a circuit is somebody.
                let through = relay::relay_of(&local_addr);
                let from = through.map_or(send_back_addr, |relay| {
                    Multiaddr::empty().with(Protocol::P2p(relay)).with(Protocol::P2pCircuit)
                });
                self.on_knock(&from, &error, peer_id);
            }
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                self.on_dial_failed(connection_id, &error);
            }
            SwarmEvent::NewListenAddr { listener_id, address } => match self.listener(listener_id) {
                Some((listener, command)) => {
                    self.tell(Event::Listening { listener, command, address: address_to_core(&address) });
                }
                None => self.counters.count("listeners.others"),
            },
            SwarmEvent::ExpiredListenAddr { listener_id, address } => match self.listener(listener_id) {
                Some((listener, _)) => {
                    self.tell(Event::ListenAddressGone { listener, address: address_to_core(&address) });
                }
                None => self.counters.count("listeners.others"),
            },
            SwarmEvent::ListenerClosed { listener_id, addresses, reason } => {
                self.on_listener_closed(listener_id, &addresses, reason);
            }
            SwarmEvent::ListenerError { error, .. } => {
                self.counters.count("listeners.errors");
                tracing::debug!(%error, "a listener goes on after an error");
            }
            SwarmEvent::Dialing { .. } => self.counters.count("dials.released"),
            SwarmEvent::NewExternalAddrCandidate { .. } => self.counters.count("addresses.candidates"),
            SwarmEvent::ExternalAddrConfirmed { .. } => self.counters.count("addresses.confirmed"),
            SwarmEvent::ExternalAddrExpired { .. } => self.counters.count("addresses.expired"),
            SwarmEvent::NewExternalAddrOfPeer { .. } => self.counters.count("addresses.of_peers"),
            _ => self.counters.count("unknown"),
        }
    }

    fn on_behaviour(&mut self, event: BehaviourEvent<A>) {
        match event {
            BehaviourEvent::Gate(never) => match never {},
            BehaviourEvent::Identify(said) => {
                if let Some(event) = self.on_said(Asker::Identify, said) {
                    self.on_identify(event);
                }
            }
            BehaviourEvent::Ping(ping::Event { peer, connection, result }) => {
                let Some(known) = self.connections.get_mut(&connection) else { return };
                let result = result.map_err(|error| errors::of_ping(&error));
                // Tried again and again, but told once.
                if result == Err(PingError::Unsupported) && std::mem::replace(&mut known.mute, true) {
                    return self.counters.count("pings.unsupported");
                }
                let connection = CoreConnectionId(known.number);
                self.tell(Event::Pinged { connection, peer: peer_to_core(peer), result });
            }
            BehaviourEvent::Kad(said) => {
                if let Some(event) = self.on_said(Asker::Kademlia, said) {
                    self.on_kademlia(event);
                }
            }
            BehaviourEvent::Mdns(Said::Own(mdns::Event::Discovered(found))) => self.on_found(found),
            BehaviourEvent::Mdns(Said::Own(mdns::Event::Expired(lost))) => self.on_lost(lost),
            BehaviourEvent::Mdns(
                Said::Candidate(_)
                | Said::Confirmed(_)
                | Said::Expired(_)
                | Said::Dial { .. }
                | Said::DialFailed { .. },
            ) => self.counters.count("unknown"),
            BehaviourEvent::Relay(said) => {
                if let Some(told) = self.on_said(Asker::Relay, said) {
                    self.on_relay(told);
                }
            }
            BehaviourEvent::RelayServer(served) => self.on_served(served),
            BehaviourEvent::Punch(said) => self.on_punch(said),
            BehaviourEvent::Twin(at) => self.on_copy(&at),
            BehaviourEvent::Reach(told) => self.on_probe(told),
            BehaviourEvent::Sync(said) => self.on_sync(said),
            BehaviourEvent::App(said) => {
                if let Some(event) = self.on_said(Asker::Application, said) {
                    self.out.push_back(Happened::App(event));
                }
            }
            BehaviourEvent::AutonatV2(said) => {
                if let Some(served) = self.on_said(Asker::Autonat, said) {
                    self.on_served_v2(&served);
                }
            }
            BehaviourEvent::AutonatV1(said) => {
                if let Some(served) = self.on_said(Asker::Autonat, said) {
                    self.on_served_v1(&served);
                }
            }
        }
    }

    /// What every governed behaviour may say. Its own event comes back.
    fn on_said<E>(&mut self, asker: Asker, said: Said<E>) -> Option<E> {
        match said {
            Said::Own(event) => return Some(event),
            Said::Candidate(_) if asker == Asker::Identify && !self.heeded => {
                self.counters.count("identify.too_often");
            }
            // As whoever is at the other end of a circuit sees us: at a relay.
            Said::Candidate(address) if ids::is_relayed(&address) => self.counters.count("addresses.relayed"),
            Said::Candidate(address) => {
                if let Some(known) = self.own_address(address) {
                    self.tell(Event::Candidate { asker, address: known });
                }
            }
            Said::Confirmed(address) => {
                if let Some(known) = self.own_address(address) {
                    self.tell(Event::Confirmed { asker, address: known });
                }
            }
            Said::Expired(address) => self.tell(Event::Unconfirmed { asker, address: address_to_core(&address) }),
            Said::Dial { dial, peer } => self.on_wish(asker, dial, peer),
            Said::DialFailed { dial, error } => {
                if let Some(released) = self.end_released(dial) {
                    self.tell(Event::HeldFailed { held: released, error });
                }
            }
        }
        None
    }

    fn own_address(&mut self, address: Multiaddr) -> Option<Address> {
        let known = told_address(&address);
        if known.is_none() {
            self.counters.count("cut.addresses");
        } else if !self.seen_as.contains(&address) {
            if self.seen_as.len() == MAX_SEEN_AS {
                self.seen_as.pop_front();
            }
            self.seen_as.push_back(address);
        }
        known
    }

    /// A behaviour wants to dial.
    fn on_wish(&mut self, asker: Asker, dial: ConnectionId, peer: Option<PeerId>) {
        if asker == Asker::Kademlia
            && let Some(peer) = peer
            && self.swarm.behaviour_mut().kad.addresses(dial, peer).is_empty()
        {
            // Nothing would come of it.
            self.counters.count("dials.without_address");
            self.refuse(asker, dial, Some(peer));
            return;
        }
        if self.held.len() == MAX_HELD
            && let Some(oldest) = self.held.pop_front()
        {
            self.refuse(oldest.asker, oldest.dial, oldest.peer);
            self.tell(Event::HeldFailed { held: oldest.number, error: DialError::Limit });
        }
        self.last_held += 1;
        let number = HeldId(self.last_held);
        self.held.push_back(Held { number, dial, asker, peer });
        self.tell(Event::DialHeld { held: number, asker, peer: peer.map(peer_to_core) });
    }

    fn on_connected(&mut self, peer: PeerId, id: ConnectionId, endpoint: &ConnectedPoint, took: std::time::Duration) {
        let remote = endpoint.get_remote_address();
        let (direction, origin, address) = if let ConnectedPoint::Listener { local_addr, .. } = endpoint {
            let relay = if endpoint.is_relayed() { relay::relay_of(local_addr) } else { None };
            let address = relay.map_or_else(|| address_to_core(remote), |relay| Address::relayed(peer_to_core(relay)));
            let probe = self.swarm.behaviour().reach.expects(&peer).filter(|_| !endpoint.is_relayed());
            let awaited = || self.awaited(peer, endpoint).map_or(Origin::Inbound, Origin::Punch);
            (Direction::Inbound, probe.map_or_else(awaited, Origin::Probe), address)
        } else if let Some(punch) = self.punched(id) {
            // Whose part it was to accept has dialled, too, in a way.
            let accepted = matches!(endpoint, ConnectedPoint::Dialer { role_override: Endpoint::Listener, .. });
            let direction = if accepted { Direction::Inbound } else { Direction::Outbound };
            (direction, Origin::Punch(punch), address_to_core(remote))
        } else if let Some(dial) = self.end_dial(id) {
            (Direction::Outbound, Origin::Dial(dial.command), dial.as_given(remote))
        } else if let Some(held) = self.end_released(id) {
            (Direction::Outbound, Origin::Held(held), address_to_core(remote))
        } else {
            // The gate lets no other dial out.
            self.counters.count("unknown");
            self.swarm.close_connection(id);
            return;
        };
        self.last_connection += 1;
        let number = self.last_connection;
        let known = peer_to_core(peer);
        let connection = Connection {
            number,
            peer: known,
            remote: remote.clone(),
            relayed: endpoint.is_relayed(),
            identity: None,
            pace: Pace::new(Instant::now()),
            mute: false,
        };
        self.connections.insert(id, connection);
        self.by_number.insert(number, id);
        self.tell(Event::Connected {
            connection: CoreConnectionId(number),
            peer: known,
            direction,
            address,
            origin,
            took,
        });
    }

    fn close_cause(&mut self, id: ConnectionId, cause: Option<ConnectionError>) -> CloseCause {
        let ours = self.closing.remove(&id);
        match cause {
            _ if ours => CloseCause::Ours,
            None => CloseCause::Ours,
            Some(ConnectionError::KeepAliveTimeout) => CloseCause::Idle,
            Some(ConnectionError::IO(error)) if errors::is_remote_close(&error) => CloseCause::Remote,
            Some(ConnectionError::IO(error)) => CloseCause::Broken(errors::text(&error)),
        }
    }

    fn on_knock(&mut self, from: &Multiaddr, error: &swarm::ListenError, peer: Option<PeerId>) {
        let address = address_to_core(from);
        let error = errors::of_knock(error);
        if error == DialError::OwnIdentity {
            // Not when we have just dialled ourselves, through a NAT that leads back, say.
            let echo = self.last_self_dial.is_some_and(|at| at.elapsed() < OWN_ECHO);
            let dialling = !self.dials.is_empty() || !self.released.is_empty() || self.punches.is_dialling();
            if echo || dialling {
                self.counters.count("knocks.own");
            } else {
                self.on_copy(from);
            }
            return;
        }
        let network = address.host_ip().map(network_of);
        let whose = if error == DialError::Denied { peer } else { None };
        let kind = format!("{network:?} {:?} {whose:?}", std::mem::discriminant(&error));
        self.counters.count(match error {
            DialError::Denied => "refused.denied_peers",
            DialError::Limit => "refused.over_limit",
            DialError::ConnectionRefused
            | DialError::TimedOut
            | DialError::Unreachable
            | DialError::NameNotFound
            | DialError::WrongPeer(_)
            | DialError::OwnIdentity
            | DialError::Handshake
            | DialError::Unsupported
            | DialError::NoAddresses
            | DialError::Cancelled
            | DialError::Other(_) => "knocks.failed",
        });
        if let Some(count) = self.knocks.note(kind) {
            let peer = peer.as_ref().and_then(real_peer);
            self.tell(Event::InboundFailed { address, peer, error, count });
        }
    }

    /// Somebody else has our key.
    fn on_copy(&mut self, at: &Multiaddr) {
        let at = ids::without_peer(at.clone());
        // Ports of knocks differ each time.
        let kind = ids::endpoint(&at).map_or_else(|| at.to_string(), |(ip, ..)| ip.to_string());
        self.counters.count("copies.seen");
        if self.copies.note(kind).is_some() {
            self.tell(Event::OwnIdentitySeen { address: address_to_core(&at) });
        }
    }

    fn on_dial_failed(&mut self, id: ConnectionId, error: &swarm::DialError) {
        self.note_self(id, error);
        if matches!(error, swarm::DialError::Transport(errors)
            if errors.iter().any(|(_, error)| errors::of_transport(error) == DialError::Denied))
        {
            self.counters.count("refused.by_guard");
        }
        // A behaviour's failed dial is told by its wrapper, also when the swarm shows nothing.
        if self.dials.contains_key(&id) {
            self.dial_failed(id, error);
        } else {
            self.punch_dial_failed(id, error);
        }
    }

    /// When a dial ends at ourselves, it is another machine with our key, unless it was an address of ours.
    fn note_self(&mut self, id: ConnectionId, error: &swarm::DialError) {
        let swarm::DialError::LocalPeerId { address } = error else { return };
        let address = ids::without_peer(address.clone());
        // What a peer proposes may be anything.
        let ours = self.punches.has(id)
            || self.seen_as.contains(&address)
            || self.swarm.listeners().chain(self.swarm.external_addresses()).any(|own| *own == address);
        self.last_self_dial = Some(Instant::now());
        if ours {
            self.counters.count("dials.to_ourselves");
        } else {
            self.on_copy(&address);
        }
    }

    fn on_listener_closed(&mut self, id: ListenerId, addresses: &[Multiaddr], reason: io::Result<()>) {
        let Some(listener) = self.listeners.remove(&id) else {
            self.counters.count("listeners.others");
            return;
        };
        for address in addresses {
            self.tell(Event::ListenAddressGone { listener: listener.number, address: address_to_core(address) });
        }
        let error = match reason {
            Ok(()) => ListenError::Closed,
            Err(error) => errors::of_listener(&error),
        };
        self.tell(Event::ListenFailed { command: listener.command, error });
    }

    fn on_identify(&mut self, event: identify::Event) {
        match event {
            identify::Event::Received { connection_id, peer_id, info } => {
                let Some(number) = self.number(connection_id) else { return };
                let identity = self.identity(peer_id, info);
                let now = Instant::now();
                let Some(connection) = self.connections.get_mut(&connection_id) else { return };
                let news = match &connection.identity {
                    Some((known, at)) => *known != identity || now.saturating_duration_since(*at) >= SAME_AGAIN,
                    None => true,
                };
                self.heeded = !news || connection.pace.take(now);
                if !self.heeded {
                    self.counters.count("identify.too_often");
                } else if !news {
                    self.counters.count("identify.unchanged");
                } else {
                    let peer = connection.peer;
                    connection.identity = Some((identity.clone(), now));
                    self.tell(Event::Identified { connection: number, peer, identity: Box::new(identity) });
                }
            }
            identify::Event::Error { connection_id, peer_id, error } => {
                if let Some(connection) = self.number(connection_id) {
                    let error = errors::plain(&error.to_string(), 200);
                    self.tell(Event::IdentifyFailed { connection, peer: peer_to_core(peer_id), error });
                }
            }
            identify::Event::Sent { .. } => self.counters.count("identify.sent"),
            // What *we* pushed, whatever the name; what others push comes as `Received`.
            identify::Event::Pushed { .. } => self.counters.count("identify.pushed"),
        }
    }

    fn identity(&mut self, peer: PeerId, info: identify::Info) -> Identity {
        let (addresses, cut_addresses) = told(info.listen_addrs.iter(), MAX_ADDRESSES);
        let all = info.protocols.len();
        let protocols: Vec<String> = info
            .protocols
            .iter()
            .filter(|protocol| protocol.as_ref().len() <= MAX_NAME)
            .take(MAX_PROTOCOLS)
            .map(|protocol| errors::plain(protocol.as_ref(), MAX_NAME))
            .collect();
        let cut_protocols = (all - protocols.len()) as u32;
        self.counters.add("cut.addresses", cut_addresses.into());
        self.counters.add("cut.protocols", cut_protocols.into());
        if cut_addresses + cut_protocols > 0 {
            tracing::debug!(%peer, cut_addresses, cut_protocols, "an introduction was cut to size");
        }
        Identity {
            protocol_version: errors::plain(&info.protocol_version, MAX_NAME),
            agent: errors::plain(&info.agent_version, MAX_NAME),
            protocols,
            addresses,
            // By a circuit, one is seen at the relay.
            observed: told_address(&info.observed_addr).filter(|observed| !observed.is_relayed()),
            cut: cut_addresses + cut_protocols,
        }
    }

    fn on_found(&mut self, found: Vec<(PeerId, Multiaddr)>) {
        for (peer, addresses) in by_peer(found) {
            let known = self.by_mdns.contains_key(&peer);
            let Some(core) = real_peer(&peer).filter(|_| known || self.by_mdns.len() < MAX_BY_MDNS) else {
                self.counters.count("cut.mdns_peers");
                continue;
            };
            *self.by_mdns.entry(peer).or_default() += addresses.len() as u32;
            let (addresses, cut) = told(addresses.iter().filter(|address| !is_loopback(address)), MAX_ADDRESSES);
            self.counters.add("cut.addresses", cut.into());
            if !addresses.is_empty() {
                self.tell(Event::Found { source: Source::Mdns, peer: core, addresses, cut });
            }
        }
    }

    fn on_lost(&mut self, lost: Vec<(PeerId, Multiaddr)>) {
        for (peer, addresses) in by_peer(lost) {
            let Some(left) = self.by_mdns.get_mut(&peer) else { continue };
            *left = left.saturating_sub(addresses.len() as u32);
            if *left == 0 {
                self.by_mdns.remove(&peer);
            }
            let Some(core) = real_peer(&peer) else { continue };
            let known: Vec<Address> = addresses.iter().filter_map(told_address).collect();
            // All of them: what is not told as lost would stay.
            for addresses in known.chunks(MAX_ADDRESSES) {
                self.tell(Event::Lost { source: Source::Mdns, peer: core, addresses: addresses.to_vec() });
            }
        }
    }

    pub(super) fn number(&self, id: ConnectionId) -> Option<CoreConnectionId> {
        self.connections.get(&id).map(|connection| CoreConnectionId(connection.number))
    }

    fn listener(&self, id: ListenerId) -> Option<(CoreListenerId, kinfolk_core::CommandId)> {
        self.listeners.get(&id).map(|listener| (listener.number, listener.command))
    }
}

/// At most `max` of what somebody told us, and how many are missing.
pub(super) fn told<'a>(addresses: impl Iterator<Item = &'a Multiaddr>, max: usize) -> (Vec<Address>, u32) {
    let mut known: Vec<Address> = vec![];
    let mut cut = 0u32;
    for address in addresses {
        match told_address(address) {
            Some(address) if known.contains(&address) => {}
            Some(address) if known.len() < max => known.push(address),
            Some(_) | None => cut = cut.saturating_add(1),
        }
    }
    (known, cut)
}

fn by_peer(list: Vec<(PeerId, Multiaddr)>) -> BTreeMap<PeerId, Vec<Multiaddr>> {
    let mut peers: BTreeMap<PeerId, Vec<Multiaddr>> = BTreeMap::new();
    for (peer, address) in list {
        peers.entry(peer).or_default().push(address);
    }
    peers
}

fn is_loopback(address: &Multiaddr) -> bool {
    ids::endpoint(address).is_some_and(|(ip, ..)| ip.is_loopback())
}

#[cfg(test)]
#[expect(clippy::wildcard_enum_match_arm, reason = "a test looks for one event among all")]
mod tests {
    use kinfolk_core::Config;
    use libp2p::{Transport, core::transport::dummy::DummyTransport, identity::Keypair, swarm::dummy};

    use super::*;
    use crate::network::NetworkSettings;

    /// A network that can do nothing.
    fn network() -> Network<dummy::Behaviour> {
        let config = Config { mdns: false, ..Config::desktop() }.validate().unwrap();
        let transport = DummyTransport::new().boxed();
        let settings = NetworkSettings::new(config, "test");
        Network::with_transport(Keypair::generate_ed25519(), settings, drop, transport, dummy::Behaviour).unwrap()
    }

    fn told(network: &mut Network<dummy::Behaviour>) -> Vec<Event> {
        let events = network.out.drain(..).map(|happened| match happened {
            Happened::Core(event) => event,
            Happened::App(never) => match never {},
        });
        events.collect()
    }

    fn mdns(peer: PeerId, addresses: &[&str]) -> Vec<(PeerId, Multiaddr)> {
        addresses.iter().map(|address| (peer, address.parse().unwrap())).collect()
    }

    #[test]
    fn what_mdns_finds_is_told_by_peer_and_without_what_only_the_finder_can_reach() {
        let mut network = network();
        let (a, b) = (PeerId::random(), PeerId::random());
        let a_at = format!("/ip4/192.168.1.7/tcp/4001/p2p/{a}");
        let mut found = mdns(a, &[&a_at, "/ip4/127.0.0.1/tcp/4001"]);
        found.extend(mdns(b, &["/ip4/192.168.1.8/udp/4001/quic-v1"]));
        found.extend(mdns(a, &["/ip4/192.168.1.7/udp/4001/quic-v1"]));
        network.on_found(found);
        let mut expected = [
            (a, vec!["/ip4/192.168.1.7/tcp/4001", "/ip4/192.168.1.7/udp/4001/quic-v1"]),
            (b, vec!["/ip4/192.168.1.8/udp/4001/quic-v1"]),
        ];
        expected.sort();
        let event = |(peer, addresses): &(PeerId, Vec<&str>)| {
            let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
            (peer_to_core(*peer), addresses)
        };
        let expected: Vec<(_, Vec<Address>)> = expected.iter().map(event).collect();
        let found: Vec<Event> = expected
            .iter()
            .map(|(peer, addresses)| Event::Found {
                source: Source::Mdns,
                peer: *peer,
                addresses: addresses.clone(),
                cut: 0,
            })
            .collect();
        assert_eq!(told(&mut network), found);

        network.on_lost(mdns(b, &["/ip4/192.168.1.8/udp/4001/quic-v1"]));
        network.on_lost(mdns(PeerId::random(), &["/ip4/192.168.1.9/tcp/1"]));
        let lost = told(&mut network);
        assert_eq!(lost.len(), 1, "nobody is lost who was not found");
        assert!(matches!(&lost[0], Event::Lost { source: Source::Mdns, peer, .. } if *peer == peer_to_core(b)));
        assert_eq!(network.by_mdns.len(), 1);
    }

    #[test]
    fn a_prank_on_the_home_network_stays_small() {
        let mut network = network();
        let crowd: Vec<PeerId> = (0..300).map(|_| PeerId::random()).collect();
        for peer in &crowd {
            let addresses: Vec<String> = (1..=40).map(|port| format!("/ip4/192.168.1.7/tcp/{port}")).collect();
            network.on_found(mdns(*peer, &addresses.iter().map(String::as_str).collect::<Vec<_>>()));
        }
        let events = told(&mut network);
        assert_eq!(events.len(), MAX_BY_MDNS);
        for event in events {
            assert!(matches!(event, Event::Found { addresses, cut: 8, .. } if addresses.len() == MAX_ADDRESSES));
        }
        assert_eq!(network.counters.get("cut.mdns_peers"), 300 - MAX_BY_MDNS as u64);
        // All that was told is taken back.
        let first = crowd[0];
        let addresses: Vec<String> = (1..=40).map(|port| format!("/ip4/192.168.1.7/tcp/{port}")).collect();
        network.on_lost(mdns(first, &addresses.iter().map(String::as_str).collect::<Vec<_>>()));
        let lost: usize = told(&mut network)
            .iter()
            .map(|event| match event {
                Event::Lost { addresses, .. } => addresses.len(),
                _ => panic!("{event:?}"),
            })
            .sum();
        assert_eq!(lost, 40);
    }

    #[test]
    fn own_addresses_are_claims_and_come_with_an_introduction_that_was_heeded() {
        let mut network = network();
        let address: Multiaddr = "/ip4/45.10.20.1/tcp/4001".parse().unwrap();
        let say = |network: &mut Network<_>, asker, said: Said<()>| {
            assert!(network.on_said(asker, said).is_none());
            told(network)
        };
        let known = address_to_core(&address);
        for (said, event) in [
            (Said::Candidate(address.clone()), Event::Candidate { asker: Asker::Identify, address: known.clone() }),
            (Said::Confirmed(address.clone()), Event::Confirmed { asker: Asker::Identify, address: known.clone() }),
            (Said::Expired(address.clone()), Event::Unconfirmed { asker: Asker::Identify, address: known.clone() }),
        ] {
            assert_eq!(say(&mut network, Asker::Identify, said), [event]);
        }
        assert_eq!(network.swarm.external_addresses().count(), 0);
        network.heeded = false;
        assert_eq!(say(&mut network, Asker::Identify, Said::Candidate(address.clone())), []);
        assert_eq!(say(&mut network, Asker::Application, Said::Candidate(address)).len(), 1);
        let long = format!("/dns4/{}/tcp/1", "a".repeat(ids::MAX_ADDRESS_TEXT)).parse().unwrap();
        assert_eq!(say(&mut network, Asker::Application, Said::Candidate(long)), []);
    }

    #[test]
    fn a_knock_with_our_own_identity_is_a_copy_unless_it_is_our_own_dial() {
        let mut network = network();
        let from: Multiaddr = "/ip4/192.168.1.9/tcp/40000".parse().unwrap();
        let error = swarm::ListenError::LocalPeerId { address: from.clone() };
        network.on_knock(&from, &error, None);
        assert_eq!(told(&mut network), [Event::OwnIdentitySeen { address: address_to_core(&from) }]);
        // Its next ports are the same machine.
        network.on_knock(&"/ip4/192.168.1.9/tcp/40001".parse().unwrap(), &error, None);
        assert_eq!(told(&mut network), []);
        network.last_self_dial = Some(Instant::now());
        network.on_knock(&"/ip4/192.168.1.10/tcp/1".parse().unwrap(), &error, None);
        assert_eq!(told(&mut network), []);
        assert_eq!((network.counters.get("copies.seen"), network.counters.get("knocks.own")), (2, 1));
    }

    #[test]
    fn each_kind_of_knock_has_its_word() {
        let mut network = network();
        let from: Multiaddr = "/ip4/45.10.20.1/tcp/40000".parse().unwrap();
        let refused = |refusal| swarm::ListenError::Denied { cause: swarm::ConnectionDenied::new(refusal) };
        let io = |kind: io::ErrorKind| swarm::ListenError::Transport(libp2p::TransportError::Other(kind.into()));
        use crate::network::gate::Refusal;
        for (error, word) in [
            (refused(Refusal::Denied), DialError::Denied),
            (refused(Refusal::TooMany("of something")), DialError::Limit),
            (swarm::ListenError::Aborted, DialError::Cancelled),
            (io(io::ErrorKind::TimedOut), DialError::TimedOut),
            (io(io::ErrorKind::UnexpectedEof), DialError::Handshake),
        ] {
            network.on_knock(&from, &error, None);
            let events = told(&mut network);
            assert!(
                matches!(&events[..], [Event::InboundFailed { error, count: 1, .. }] if *error == word),
                "{events:?} is not {word:?}"
            );
        }
    }

    #[test]
    fn pings_fail_in_words() {
        let other = |kind: io::ErrorKind| ping::Failure::Other { error: Box::new(io::Error::from(kind)) };
        assert_eq!(errors::of_ping(&ping::Failure::Timeout), PingError::TimedOut);
        assert_eq!(errors::of_ping(&ping::Failure::Unsupported), PingError::Unsupported);
        assert_eq!(errors::of_ping(&other(io::ErrorKind::TimedOut)), PingError::TimedOut);
        assert!(matches!(errors::of_ping(&other(io::ErrorKind::BrokenPipe)), PingError::Other(_)));
    }

    #[test]
    fn names_are_cut_and_harmless_on_a_terminal() {
        let mut network = network();
        let info = identify::Info {
            public_key: Keypair::generate_ed25519().public(),
            protocol_version: "v".repeat(1000),
            agent_version: "evil\x1b[2Jagent\n".to_owned(),
            listen_addrs: vec![],
            protocols: (0..100).map(|n| libp2p::StreamProtocol::try_from_owned(format!("/{n}")).unwrap()).collect(),
            observed_addr: Multiaddr::empty(),
            signed_peer_record: None,
        };
        let identity = network.identity(PeerId::random(), info);
        assert_eq!(identity.protocol_version.len(), MAX_NAME);
        assert_eq!(identity.agent, "evil\u{fffd}[2Jagent\u{fffd}");
        assert_eq!((identity.protocols.len(), identity.cut), (MAX_PROTOCOLS, 36));
        assert_eq!(identity.observed, None);
    }
}
