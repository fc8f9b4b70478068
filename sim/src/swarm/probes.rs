//! AutoNAT v2: a server dials an address of its client from a port of its own, and delivers a number there.

use std::{net::SocketAddr, time::Duration};

use kinfolk_core::{
    Address, Asker as Behaviour, Audience, CommandId, DialError, Event, HeldId, Origin, PeerId, ProbeVerdict, Transport,
};

use super::{Malice, What, World, dialing::Asker, machine::Held, peer_id};
use crate::engine::{Key, MILLI};

/// A probe under way.
pub(super) struct Probe {
    client: u32,
    server: u32,
    command: CommandId,
    address: Address,
    rtt: u64,
    verdict: Option<ProbeVerdict>,
    /// The server has been asked.
    asked: bool,
}

impl World {
    /// The core has an address probed.
    pub(super) fn probe(&mut self, node: u32, command: CommandId, server: &PeerId, address: &Address) {
        let conns = self.machines[node as usize].conns.iter();
        let server = self.index(server);
        let dialled = conns.filter_map(|one| self.conns.get(one.key)).find(|conn| {
            // Servers answer on connections that the client has dialled, and on no others.
            conn.via.is_none() && conn.ends[0].node == node && Some(conn.ends[1].node) == server
        });
        let (Some(server), Some(conn)) = (server, dialled) else {
            let verdict = ProbeVerdict::NotConnected;
            return self.say_now(node, Event::Probed { probe: command, verdict });
        };
        let rtt = conn.rtt;
        // Whoever asks for another address than the one that the server sees has to send it 30 to 100 kB first.
        let seen = conn.ends[1].remote.ip();
        self.counts.bytes += if address.host_ip() == Some(seen) { 500 } else { 60_000 };
        let offers = {
            let machine = &self.machines[server as usize];
            match machine.services.1 {
                Audience::Nobody => false,
                Audience::Members => machine.members.contains(&node),
                Audience::Anyone => true,
            }
        };
        let verdict = (!offers).then_some(ProbeVerdict::NotSupported);
        let probe = Probe { client: node, server, command, address: address.clone(), rtt, verdict, asked: false };
        let key = self.probes.insert(probe);
        self.machines[node as usize].probes.push(key);
        let wait = if offers { rtt / 2 } else { rtt };
        self.queue.push(self.now + wait, server, What::Probe(key));
    }

    pub(super) fn cancel_probe(&mut self, node: u32, command: CommandId) {
        let keys = &self.machines[node as usize].probes;
        let found = keys.iter().copied().find(|key| self.probes.get(*key).is_some_and(|one| one.command == command));
        if let Some(key) = found {
            self.probes.remove(key);
            self.machines[node as usize].probes.retain(|other| *other != key);
        }
    }

    /// The server is asked; or what it has to say is there.
    pub(super) fn probe_step(&mut self, key: Key) {
        let Some(probe) = self.probes.get_mut(key) else { return };
        let (client, server) = (probe.client, probe.server);
        if let Some(verdict) = probe.verdict.clone() {
            let command = probe.command;
            self.probes.remove(key);
            self.machines[client as usize].probes.retain(|other| *other != key);
            return self.tell(client, Event::Probed { probe: command, verdict });
        }
        if std::mem::replace(&mut probe.asked, true) {
            return;
        }
        let address = probe.address.clone();
        if self.malice(server) == Some(Malice::LyingProbes) {
            return self.probe_refused(key);
        }
        let machine = &mut self.machines[server as usize];
        if !machine.on {
            return;
        }
        machine.last_held += 1;
        let number = machine.last_held;
        machine.held.push(Held { number, peer: client, addresses: vec![address], probe: Some(key) });
        let peer = Some(peer_id(client));
        self.say_now(server, Event::DialHeld { held: HeldId(number), asker: Behaviour::Autonat, peer });
    }

    /// The server's core lets it dial.
    pub(super) fn dial_back(&mut self, server: u32, held: HeldId, key: Key, client: u32, addresses: &[Address]) {
        self.dial(server, Asker::Probe(key, held), Some(peer_id(client)), addresses);
    }

    /// It has reached the client, and delivers its number.
    #[expect(clippy::too_many_arguments, reason = "everything that makes a connection")]
    pub(super) fn probe_connected(
        &mut self,
        key: Key,
        held: HeldId,
        server: u32,
        client: u32,
        ports: [u16; 2],
        remotes: [SocketAddr; 2],
        transport: Transport,
        address: Address,
        rtt: u64,
        took: Duration,
    ) {
        let waiting = self.probes.get(key).filter(|probe| probe.client == client).map(|probe| probe.command);
        let origin = waiting.map_or(Origin::Inbound, Origin::Probe);
        let origins = [Origin::Held(held), origin];
        self.establish(server, client, transport, ports, remotes, address, origins, rtt, took, None);
        self.conclude(key, ProbeVerdict::Reachable, rtt * 3 / 2 + 2 * MILLI);
    }

    pub(super) fn probe_dial_failed(&mut self, server: u32, key: Key, held: HeldId, error: DialError) {
        self.say_now(server, Event::HeldFailed { held, error });
        self.probe_refused(key);
    }

    /// The server says that it could not connect, also when its core did not let it.
    pub(super) fn probe_refused(&mut self, key: Key) {
        let half = self.probes.get(key).map_or(0, |probe| probe.rtt / 2);
        self.conclude(key, ProbeVerdict::DialFailed, half + 1);
    }

    fn conclude(&mut self, key: Key, verdict: ProbeVerdict, after: u64) {
        let Some(probe) = self.probes.get_mut(key) else { return };
        probe.verdict = Some(verdict);
        let client = probe.client;
        self.queue.push(self.now + after, client, What::Probe(key));
    }
}
