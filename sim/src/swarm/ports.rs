//! Port mapping: the home router is asked for an outer port, as `portmapper` does it, and asked again at half time.

use std::net::{IpAddr, SocketAddrV4};

use kinfolk_core::{Address, CommandId, Event, Transport};

use super::{What, World, connections::protocol};
use crate::engine::{MILLI, SECOND};

/// A port that the core wants mapped.
pub(super) struct Lease {
    transport: Transport,
    port: u16,
    external: Option<Address>,
    told: bool,
}

const LIFETIME: u64 = 7_200 * SECOND;
/// A router that speaks none of the protocols is known to do so after this.
const NOBODY: u64 = 3 * SECOND;

impl World {
    /// The core wants a port mapped.
    pub(super) fn map_port(&mut self, node: u32, _command: CommandId, transport: Transport, port: u16) {
        let leases = &mut self.machines[node as usize].leases;
        leases.retain(|lease| lease.transport != transport);
        leases.push(Lease { transport, port, external: None, told: false });
        let gives = self.gives_ports(node);
        let wait = if gives { 300 * MILLI } else { NOBODY };
        self.queue.push(self.now + wait, node, What::Lease(which(transport)));
    }

    pub(super) fn unmap_port(&mut self, node: u32, transport: Transport) {
        let machine = &mut self.machines[node as usize];
        let before = machine.leases.len();
        machine.leases.retain(|lease| lease.transport != transport);
        if machine.leases.len() < before {
            if let Some((router, inside)) = self.nearest_router(node, transport) {
                self.net.router(router).nat.unlease(protocol(transport), inside);
            }
            self.say_now(node, Event::PortUnmapped { transport });
        }
    }

    /// The router is asked, for the first time or again.
    pub(super) fn lease_due(&mut self, node: u32, which_one: u8) {
        let machine = &self.machines[node as usize];
        let lease = machine.leases.iter().find(|lease| which(lease.transport) == which_one);
        let Some((transport, port, before, told)) =
            lease.map(|lease| (lease.transport, lease.port, lease.external.clone(), lease.told))
        else {
            return;
        };
        if !machine.on || machine.asleep {
            return;
        }
        let until = self.now + LIFETIME;
        let given = self.nearest_router(node, transport).and_then(|(router, inside)| {
            let outer = self.net.outer_address(router)?;
            let nat = &mut self.net.router(router).nat;
            let outer_port = nat.lease(self.now, protocol(transport), inside, port, until).ok()?;
            Some(Address::ip(IpAddr::V4(outer), outer_port, transport))
        });
        if !told {
            let gives = self.gives_ports(node);
            self.say_now(node, Event::Gateway { upnp: gives, nat_pmp: gives, pcp: false });
        }
        self.queue.push(self.now + LIFETIME / 2, node, What::Lease(which_one));
        let leases = &mut self.machines[node as usize].leases;
        if let Some(lease) = leases.iter_mut().find(|lease| lease.transport == transport) {
            lease.told = true;
            lease.external.clone_from(&given);
        }
        match given {
            Some(external) if Some(&external) != before.as_ref() => {
                self.say_now(node, Event::PortMapped { transport, external });
            }
            None if before.is_some() => self.say_now(node, Event::PortUnmapped { transport }),
            Some(_) | None => {}
        }
    }

    fn gives_ports(&mut self, node: u32) -> bool {
        let router = self.net.gateway(self.net.host(node).segment);
        router.is_some_and(|router| {
            let router = self.net.router(router);
            router.on && router.nat.kind.gives_ports
        })
    }

    fn nearest_router(&self, node: u32, transport: Transport) -> Option<(u32, SocketAddrV4)> {
        let host = self.net.host(node);
        let router = self.net.gateway(host.segment)?;
        let port = self.machines[node as usize].listens(transport, false)?;
        Some((router, SocketAddrV4::new(host.v4?, port)))
    }
}

const fn which(transport: Transport) -> u8 {
    match transport {
        Transport::Tcp => 0,
        Transport::Quic => 1,
    }
}
