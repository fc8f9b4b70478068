//! The core's commands, as calls of libp2p.

use std::{collections::VecDeque, io, net::SocketAddr};

use kinfolk_core::{
    Action, Address, Asker, Command, CommandId, ConnectionId as CoreConnectionId, DialError, Event, HeldId,
    ListenError, ListenerId as CoreListenerId, PeerId as CorePeerId, ProbeVerdict, Reason, Refusal, Transport,
};
use libp2p::{
    Multiaddr, PeerId, kad,
    multiaddr::Protocol,
    swarm::{
        self, ConnectionId, NetworkBehaviour,
        dial_opts::{DialOpts, PeerCondition},
    },
};

use super::{
    Dial, Listener, Network, Released, errors,
    gate::Pass,
    guard::Opening,
    ids::{self, address_to_core, address_to_libp2p, peer_to_libp2p},
    members::Audiences,
    translate::MAX_ADDRESSES,
};

impl<A: NetworkBehaviour> Network<A> {
    /// Carries out a command. Never blocks; what fails at once is told as an event.
    ///
    /// Answers to users, notices and what the store does are not the network's: ignored.
    pub fn execute(&mut self, command: &Command) {
        let id = command.id;
        match &command.action {
            Action::Dial { peer, addresses } => {
                // A name that a person wrote may lead into the home network.
                if matches!(command.reason, Reason::Asked | Reason::Settings | Reason::BootstrapPeer) {
                    addresses.iter().for_each(|address| self.trust(address));
                }
                self.dial(id, peer.as_ref(), addresses);
            }
            Action::Close { connection, .. } => self.close(id, *connection),
            Action::Release { held, .. } => self.release(id, *held),
            Action::Refuse { held, .. } => {
                match self.held.iter().position(|waiting| waiting.number == *held).and_then(|at| self.held.remove(at)) {
                    Some(held) => self.refuse(held.asker, held.dial, held.peer),
                    None => self.tell(Event::Refused { command: id, refusal: Refusal::Gone }),
                }
            }
            Action::Deny { peer } => {
                let peer = peer_to_libp2p(peer);
                self.swarm.behaviour_mut().gate.deny(peer);
                // `Err`: there was no connection.
                let _ = self.swarm.disconnect_peer_id(peer);
            }
            Action::Admit { peer } => self.swarm.behaviour_mut().gate.admit(&peer_to_libp2p(peer)),
            Action::Listen { address } => self.listen(id, address),
            Action::Advertise { address } => match address_to_libp2p(address) {
                Some(address) => self.swarm.add_external_address(address),
                None => self.not_an_address(id),
            },
            Action::Withdraw { address } => match address_to_libp2p(address) {
                Some(address) => self.swarm.remove_external_address(&address),
                None => self.not_an_address(id),
            },
            Action::PushIdentity => {
                let peers: Vec<PeerId> = self.swarm.connected_peers().copied().collect();
                self.swarm.behaviour_mut().identify.inner_mut().push(peers);
            }
            Action::SetKademliaServer { server } => {
                let mode = if *server { kad::Mode::Server } else { kad::Mode::Client };
                let kademlia = self.swarm.behaviour_mut().kad.inner_mut();
                if kademlia.mode() != mode {
                    kademlia.set_mode(Some(mode));
                }
            }
            Action::SetServices { relay, probes } => {
                self.services.set(Audiences { relay: *relay, probes: *probes });
                self.swarm.behaviour_mut().relay_server.reconsider(None);
            }
            Action::SetMember { peer, member } => {
                let peer = peer_to_libp2p(peer);
                self.members.set(peer, *member);
                self.swarm.behaviour_mut().relay_server.reconsider(Some(&peer));
            }
            Action::Reserve { relay, address: _ } => self.reserve(id, relay),
            Action::Unreserve { reservation } => self.unreserve(id, *reservation),
            Action::Probe { server, address } => match address_to_libp2p(address) {
                Some(address) => self.swarm.behaviour_mut().reach.probe(id, peer_to_libp2p(server), address),
                None => {
                    let verdict = ProbeVerdict::Broken("this is no multiaddr".to_owned());
                    self.tell(Event::Probed { probe: id, verdict });
                }
            },
            Action::CancelProbe { probe } => self.swarm.behaviour_mut().reach.cancel(*probe),
            Action::Punch { connection, peer, wire, transport, candidates, near } => {
                self.punch(id, *connection, peer, *wire, *transport, candidates, *near);
            }
            Action::AnswerPunch { offer, peer, transport, role, mapping, candidates, targets } => {
                self.answer_punch(id, *offer, peer, *transport, *role, *mapping, candidates, targets);
            }
            Action::RefusePunch { offer, .. } => self.refuse_punch(id, *offer),
            Action::CancelPunch { punch } => self.cancel_punch(*punch),
            Action::MapPort { transport, port } => {
                if !self.ports.ask_for(*transport, *port) {
                    self.tell(Event::Refused { command: id, refusal: Refusal::NotBuiltIn });
                }
            }
            Action::UnmapPort { transport } => {
                self.ports.give_back(*transport);
            }
            Action::Route { peer, addresses } => self.route(id, peer, addresses),
            Action::Unroute { peer } => self.unroute(peer),
            Action::Query(query) => self.query(id, query),
            Action::CancelQuery { query } => self.cancel(*query),
            Action::Remember(stored) => self.remember(stored),
            Action::Forget { peer } => {
                let pinned = self.configured_pins.contains(peer);
                self.swarm.behaviour_mut().gate.pin(peer_to_libp2p(peer), pinned);
            }
            Action::SetSync { with } => self.set_sync(*with),
            Action::SyncExchange { connection, .. } => self.sync_exchange(id, *connection),
            Action::SyncAnnounce { connection, heads, .. } => self.sync_announce(id, *connection, heads),
            Action::SyncFetch { connection, log, since, limit, .. } => {
                self.sync_fetch(id, *connection, *log, *since, *limit);
            }
            Action::SyncCancel { sync, .. } => self.sync_cancel(*sync),
            Action::RememberNat(_)
            | Action::SignalQuery { .. }
            | Action::SignalPublish { .. }
            | Action::SignalCancel { .. }
            | Action::Answer { .. }
            | Action::Tell(_) => {}
        }
        self.wake();
    }

    fn not_an_address(&mut self, command: CommandId) {
        self.tell(Event::Refused { command, refusal: Refusal::Other("this is no multiaddr".to_owned()) });
    }

    fn dial(&mut self, command: CommandId, peer: Option<&CorePeerId>, addresses: &[Address]) {
        let mut failures = vec![];
        let mut usable: VecDeque<(Multiaddr, Address)> = VecDeque::new();
        self.counters.add("cut.addresses", addresses.len().saturating_sub(MAX_ADDRESSES) as u64);
        for address in addresses.iter().take(MAX_ADDRESSES) {
            match self.dialable(address) {
                Err(error) => failures.push((address.clone(), error)),
                // libp2p drops these without a word.
                Ok(known) if self.swarm.listeners().any(|own| *own == known) => {
                    failures.push((address.clone(), DialError::OwnIdentity));
                }
                Ok(known) => usable.push_back((known, address.clone())),
            }
        }
        let peer = peer.map(peer_to_libp2p);
        let rest = if peer.is_some() { VecDeque::new() } else { usable.split_off(1.min(usable.len())) };
        let dial = Dial { command, addresses: usable.into(), rest, failures, openings: vec![] };
        if dial.addresses.is_empty() {
            self.dial_over(dial, DialError::NoAddresses);
        } else {
            self.begin_dial(peer, dial);
        }
    }

    fn begin_dial(&mut self, peer: Option<PeerId>, mut dial: Dial) {
        let addresses: Vec<Multiaddr> = dial.addresses.iter().map(|(known, _)| known.clone()).collect();
        let opts = match (peer, addresses.first()) {
            // Always: the core alone decides what is worth a dial.
            (Some(peer), _) => DialOpts::peer_id(peer).condition(PeerCondition::Always).addresses(addresses).build(),
            (None, Some(first)) => DialOpts::unknown_peer_id().address(first.clone()).build(),
            (None, None) => return self.dial_over(dial, DialError::NoAddresses),
        };
        let id = opts.connection_id();
        dial.openings = dial.addresses.iter().filter_map(|(known, address)| self.opening(known, address)).collect();
        dial.openings.iter().for_each(|opening| self.open.open(opening));
        self.dials.insert(id, dial);
        self.swarm.behaviour_mut().gate.pass(id, Pass::Core);
        if let Err(error) = self.swarm.dial(opts) {
            self.dial_failed(id, &error);
        }
    }

    fn opening(&self, known: &Multiaddr, address: &Address) -> Option<Opening> {
        match address {
            Address::Ip { .. } | Address::Other(_) => Some(Opening::Exact(known.clone())),
            Address::Name { port, transport, .. } => {
                self.names.contains(address).then_some(Opening::Port(*port, *transport))
            }
            Address::DnsAddr(_) => self.names.contains(address).then_some(Opening::Any),
            Address::Relayed(circuit) => {
                let via = circuit.via.as_ref()?;
                self.opening(&address_to_libp2p(via)?, via)
            }
        }
    }

    /// The address as the transports take it. One that leads through a relay has to name the relay's address, though
    /// the connection to the relay is used that stands.
    fn dialable(&self, address: &Address) -> Result<Multiaddr, DialError> {
        let whole = match address {
            Address::Relayed(circuit) if circuit.via.is_none() => {
                let Some((_, remote)) = self.direct_connection(&circuit.relay) else {
                    return Err(DialError::Other("there is no connection to the relay".to_owned()));
                };
                let relay = peer_to_libp2p(&circuit.relay);
                Some(ids::without_peer(remote.clone()).with(Protocol::P2p(relay)).with(Protocol::P2pCircuit))
            }
            Address::Relayed(_)
            | Address::Ip { .. }
            | Address::Name { .. }
            | Address::DnsAddr(_)
            | Address::Other(_) => address_to_libp2p(address),
        };
        whole.ok_or(DialError::Unsupported)
    }

    /// A dial of the core, or one address of it, has failed.
    pub(super) fn dial_failed(&mut self, id: ConnectionId, error: &swarm::DialError) {
        let Some(mut dial) = self.end_dial(id) else { return };
        let whole = errors::of_dial(error);
        let failures: Vec<(Address, DialError)> = match error {
            swarm::DialError::Transport(errors) => {
                errors.iter().map(|(tried, error)| (dial.as_given(tried), errors::of_transport(error))).collect()
            }
            swarm::DialError::WrongPeerId { address, .. } | swarm::DialError::LocalPeerId { address } => {
                vec![(dial.as_given(address), whole.clone())]
            }
            swarm::DialError::NoAddresses
            | swarm::DialError::DialPeerConditionFalse(_)
            | swarm::DialError::Aborted
            | swarm::DialError::Denied { .. } => vec![],
        };
        dial.failures.extend(failures);
        match dial.rest.pop_front() {
            Some(next) if !matches!(error, swarm::DialError::Aborted) => {
                dial.addresses = vec![next];
                self.begin_dial(None, dial);
            }
            Some(_) | None => self.dial_over(dial, whole),
        }
    }

    fn dial_over(&mut self, dial: Dial, error: DialError) {
        // Of what was not even tried, the reasons say more.
        let telling = || errors::telling(dial.failures.iter().map(|(_, error)| error.clone()));
        let error = if error == DialError::NoAddresses { telling().unwrap_or(error) } else { error };
        self.tell(Event::DialFailed { dial: dial.command, failures: dial.failures, error });
    }

    /// Takes a dial of the core out of the tables, whatever came of it.
    pub(super) fn end_dial(&mut self, id: ConnectionId) -> Option<Dial> {
        let mut dial = self.dials.remove(&id)?;
        self.swarm.behaviour_mut().gate.done(id);
        dial.openings.drain(..).for_each(|opening| self.open.close(&opening));
        Some(dial)
    }

    fn close(&mut self, command: CommandId, connection: CoreConnectionId) {
        let id = self.by_number.get(&connection.0).copied();
        match id.filter(|id| self.swarm.close_connection(*id)) {
            Some(id) => {
                self.closing.insert(id);
            }
            None => self.tell(Event::Refused { command, refusal: Refusal::Gone }),
        }
    }

    fn release(&mut self, command: CommandId, number: HeldId) {
        let Some(held) =
            self.held.iter().position(|waiting| waiting.number == number).and_then(|at| self.held.remove(at))
        else {
            return self.tell(Event::Refused { command, refusal: Refusal::Gone });
        };
        // Kademlia adds what the core itself has routed to anybody's dial: open for it, wherever it is. Not for those who
        // ask for probes: these are for the internet only.
        let opens = |_: &PeerId| held.asker != Asker::Autonat;
        let routed = held.peer.filter(opens).map(|peer| self.routed.of(&peer)).unwrap_or_default();
        let openings: Vec<Opening> = routed.into_iter().map(Opening::Exact).collect();
        openings.iter().for_each(|opening| self.open.open(opening));
        self.released.insert(held.dial, Released { number, openings });
        let behaviour = self.swarm.behaviour_mut();
        behaviour.gate.pass(held.dial, Pass::Released);
        let there = match held.asker {
            Asker::Kademlia => behaviour.kad.release(held.dial),
            Asker::Application => behaviour.app.release(held.dial),
            Asker::Identify => behaviour.identify.release(held.dial),
            Asker::Relay => behaviour.relay.release(held.dial),
            Asker::Autonat => behaviour.autonat_v2.release(held.dial) || behaviour.autonat_v1.release(held.dial),
        };
        if !there {
            self.end_released(held.dial);
            self.tell(Event::Refused { command, refusal: Refusal::Gone });
        }
    }

    pub(super) fn refuse(&mut self, asker: Asker, dial: ConnectionId, peer: Option<PeerId>) {
        let connected = peer.is_some_and(|peer| self.swarm.is_connected(&peer));
        let behaviour = self.swarm.behaviour_mut();
        match asker {
            Asker::Kademlia => behaviour.kad.refuse(dial, connected),
            Asker::Application => behaviour.app.refuse(dial, connected),
            Asker::Identify => behaviour.identify.refuse(dial, connected),
            Asker::Relay => behaviour.relay.refuse(dial, connected),
            Asker::Autonat => {
                behaviour.autonat_v2.refuse(dial, connected);
                behaviour.autonat_v1.refuse(dial, connected);
            }
        }
        self.counters.count("dials.refused");
    }

    /// Takes a released dial out of the tables, whatever came of it.
    pub(super) fn end_released(&mut self, id: ConnectionId) -> Option<HeldId> {
        let released = self.released.remove(&id)?;
        self.swarm.behaviour_mut().gate.done(id);
        released.openings.iter().for_each(|opening| self.open.close(opening));
        Some(released.number)
    }

    fn listen(&mut self, command: CommandId, address: &Address) {
        let listened = match address_to_libp2p(address) {
            None => Err(ListenError::Unsupported),
            Some(known) => port_is_free(address)
                .map_err(|error| errors::of_listener(&error))
                .and_then(|()| self.swarm.listen_on(known).map_err(|error| errors::of_listen(&error))),
        };
        match listened {
            Ok(id) => {
                self.last_listener += 1;
                let number = CoreListenerId(self.last_listener);
                self.listeners.insert(id, Listener { number, command });
            }
            Err(error) => self.tell(Event::ListenFailed { command, error }),
        }
    }
}

impl Dial {
    /// The address as the core has written it.
    pub(super) fn as_given(&self, tried: &Multiaddr) -> Address {
        let tried = ids::without_peer(tried.clone());
        let given = self.addresses.iter().find(|(known, _)| *known == tried);
        given.map_or_else(|| address_to_core(&tried), |(_, address)| address.clone())
    }
}

/// Whether nobody listens on this TCP port. libp2p shares ports for the sake of hole punching, so it would share one
/// with another program too, and each would get half of the connections.
fn port_is_free(address: &Address) -> io::Result<()> {
    use rustix::net::{AddressFamily, SocketType, bind, socket, sockopt};

    let Address::Ip { ip, port, transport: Transport::Tcp } = address else { return Ok(()) };
    if *port == 0 {
        return Ok(());
    }
    let family = if ip.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let probe = socket(family, SocketType::STREAM, None)?;
    sockopt::set_socket_reuseaddr(&probe, true)?;
    if ip.is_ipv6() {
        sockopt::set_ipv6_v6only(&probe, true)?;
    }
    bind(&probe, &SocketAddr::new(*ip, *port))?;
    Ok(())
}
