//! Every command of the core, and what the shell makes of it.

use std::net::IpAddr;

use kinfolk_core::{
    Action, Address, Command, CommandId, Event, HeldId, ListenError, ListenerId, PeerId, Refusal, Scope, Transport,
};

use super::{
    World,
    dialing::Asker,
    logs::Question,
    machine::Listener,
    peer_id,
    punch::{Proposal, Taken},
};
use crate::engine::{Key, MILLI};

impl World {
    pub(super) fn execute(&mut self, node: u32, command: &Command) {
        let id = command.id;
        match &command.action {
            Action::Dial { peer, addresses } => self.dial(node, Asker::Core(id), *peer, addresses),
            Action::Close { connection, .. } => match self.machines[node as usize].conn(*connection) {
                Some(key) => self.close(node, key),
                None => self.gone(node, id),
            },
            Action::Release { held, .. } => self.release(node, id, *held),
            Action::Refuse { held, .. } => self.refuse(node, id, *held),
            Action::Deny { peer } => self.deny(node, peer),
            Action::Admit { peer } => {
                if let Some(peer) = self.index(peer) {
                    self.machines[node as usize].denied.retain(|denied| *denied != peer);
                }
            }
            Action::Listen { address } => self.listen(node, id, address),
            Action::Advertise { address } => {
                let advertised = &mut self.machines[node as usize].advertised;
                if !advertised.contains(address) {
                    advertised.push(address.clone());
                }
            }
            Action::Withdraw { address } => {
                self.machines[node as usize].advertised.retain(|known| known != address);
            }
            Action::PushIdentity => self.push_identity(node),
            Action::Probe { server, address } => self.probe(node, id, server, address),
            Action::CancelProbe { probe } => self.cancel_probe(node, *probe),
            Action::Reserve { relay, .. } => self.reserve(node, id, relay),
            Action::Unreserve { reservation } => self.unreserve(node, id, *reservation),
            Action::Punch { connection, wire, transport, candidates, near, .. } => {
                let (connection, wire, transport, near) = (*connection, *wire, *transport, *near);
                self.punch(node, id, &Proposal { connection, wire, transport, candidates, near });
            }
            Action::AnswerPunch { offer, transport, role, mapping, candidates, targets, .. } => {
                let (offer, transport, role, mapping) = (*offer, *transport, *role, *mapping);
                self.answer_punch(node, id, &Taken { offer, transport, role, mapping, candidates, targets });
            }
            Action::RefusePunch { offer, .. } => self.refuse_punch(node, id, *offer),
            Action::CancelPunch { punch } => self.cancel_punch(node, *punch),
            Action::MapPort { transport, port } => self.map_port(node, id, *transport, *port),
            Action::UnmapPort { transport } => self.unmap_port(node, *transport),
            Action::SetServices { relay, probes } => {
                let machine = &mut self.machines[node as usize];
                if machine.services != (*relay, *probes) {
                    machine.services = (*relay, *probes);
                    // The library always tells of changed protocols.
                    self.push_identity(node);
                }
            }
            Action::SetMember { peer, member } => {
                if let Some(peer) = self.index(peer) {
                    let members = &mut self.machines[node as usize].members;
                    members.retain(|known| *known != peer);
                    if *member {
                        members.push(peer);
                    }
                }
            }
            Action::SetKademliaServer { server } => {
                let machine = &mut self.machines[node as usize];
                if std::mem::replace(&mut machine.server, *server) != *server {
                    self.push_identity(node);
                }
            }
            Action::Route { peer, addresses } => self.route(node, id, peer, addresses),
            Action::Unroute { peer } => self.unroute(node, peer),
            Action::Query(query) => self.query(node, id, query),
            Action::CancelQuery { query } => self.cancel_query(node, *query),
            Action::Remember(stored) => {
                self.machines[node as usize].store.insert(stored.peer, stored.clone());
            }
            Action::RememberNat(nat) => self.machines[node as usize].nat = Some(nat.clone()),
            Action::Forget { peer } => {
                self.machines[node as usize].store.remove(peer);
            }
            Action::SignalQuery { .. } | Action::SignalPublish { .. } => self.signal(node, command),
            Action::SignalCancel { command } => self.cancel_signal(node, *command),
            Action::SetSync { with } => self.machines[node as usize].logs.with = *with,
            Action::SyncExchange { connection, .. } => self.compare_logs(node, id, *connection),
            Action::SyncAnnounce { connection, heads, .. } => {
                self.ask_about_logs(node, id, *connection, Question::Announce(heads.clone()));
            }
            Action::SyncFetch { connection, log, since, limit, .. } => {
                let (log, since, limit) = (*log, *since, *limit);
                self.ask_about_logs(node, id, *connection, Question::Fetch { log, since, limit });
            }
            Action::SyncCancel { sync, .. } => self.cancel_sync(node, *sync),
            Action::Answer { .. } | Action::Tell(_) => {}
        }
    }

    fn gone(&mut self, node: u32, command: CommandId) {
        self.say_now(node, Event::Refused { command, refusal: Refusal::Gone });
    }

    fn deny(&mut self, node: u32, peer: &PeerId) {
        let Some(index) = self.index(peer) else { return };
        let machine = &mut self.machines[node as usize];
        if !machine.denied.contains(&index) {
            machine.denied.push(index);
        }
        let conns: Vec<Key> = machine.conns_to(index).map(|one| one.key).collect();
        for key in conns {
            self.close(node, key);
        }
    }

    fn listen(&mut self, node: u32, command: CommandId, address: &Address) {
        let (Some(ip), Some(port), Some(transport)) = (address.host_ip(), address.port(), address.transport()) else {
            return self.say_now(node, Event::ListenFailed { command, error: ListenError::Unsupported });
        };
        let machine = &mut self.machines[node as usize];
        let named = port != 0;
        let port = if named { port } else { machine.free_port() };
        let ipv6 = ip.is_ipv6();
        if (named && machine.setup.ports_taken) || machine.listens_at(transport, ipv6, port) {
            return self.say_now(node, Event::ListenFailed { command, error: ListenError::PortTaken });
        }
        machine.last_listener += 1;
        let number = machine.last_listener;
        let listener = Listener { number, command, transport, ipv6, port, addresses: vec![] };
        machine.listeners.push(listener);
        self.relisten(node);
    }

    /// Listeners follow the interfaces.
    pub(super) fn relisten(&mut self, node: u32) {
        let interfaces = self.net.interfaces(node);
        let machine = &mut self.machines[node as usize];
        let mut told = vec![];
        for listener in &mut machine.listeners {
            let like = |ip: &IpAddr| ip.is_ipv6() == listener.ipv6;
            let own = interfaces.addresses.iter().map(|own| own.ip).filter(like);
            let now: Vec<Address> = own.map(|ip| Address::ip(ip, listener.port, listener.transport)).collect();
            let number = ListenerId(listener.number);
            for address in listener.addresses.iter().filter(|address| !now.contains(address)) {
                told.push(Event::ListenAddressGone { listener: number, address: address.clone() });
            }
            for address in now.iter().filter(|address| !listener.addresses.contains(address)) {
                let command = listener.command;
                told.push(Event::Listening { listener: number, command, address: address.clone() });
            }
            listener.addresses = now;
        }
        let mut at = self.now + 2 * MILLI + machine.dice.below(10 * MILLI);
        for event in told {
            self.say(at, node, event);
            at += MILLI / 10;
        }
    }

    fn release(&mut self, node: u32, command: CommandId, id: HeldId) {
        let Some(held) = self.machines[node as usize].held(id) else { return self.gone(node, command) };
        match held.probe {
            Some(probe) => self.dial_back(node, id, probe, held.peer, &held.addresses),
            None => self.look_up_dials(node, id, &held),
        }
    }

    fn refuse(&mut self, node: u32, command: CommandId, id: HeldId) {
        let Some(held) = self.machines[node as usize].held(id) else { return self.gone(node, command) };
        match held.probe {
            Some(probe) => self.probe_refused(probe),
            None => self.kademlia_unreachable(node, held.peer),
        }
    }

    /// A peer's id, for the tools.
    pub fn id_of(&self, node: u32) -> PeerId {
        peer_id(node)
    }

    /// Whether a listener of this transport is up for IPv4 on something else than loopback.
    pub fn is_listening(&self, node: u32, transport: Transport) -> bool {
        let mut all = self.machines[node as usize].listeners.iter().filter(|one| one.transport == transport);
        all.any(|one| one.addresses.iter().any(|address| address.scope().is_some_and(|scope| scope != Scope::Loopback)))
    }
}
