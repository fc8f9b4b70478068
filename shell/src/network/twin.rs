//! Listens on the home network for another machine that has our identity: a copied data folder or SD card.
//!
//! libp2p's mDNS passes over announcements of our own id, so two copies of one identity would never hear of each other.
//! This behaviour only listens: it joins the group on each interface and looks for our own id in announcements that
//! come from an address which no interface of ours has had.

use std::{
    collections::HashSet,
    convert::Infallible,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    pin::Pin,
    task::{Context, Poll},
};

use futures::Stream;
use if_watch::{IfEvent, tokio::IfWatcher};
use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    multiaddr::Protocol,
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent,
        ToSwarm, dummy,
    },
};
use rustix::net::{AddressFamily, SocketType, bind, socket, sockopt};
use tokio::io::ReadBuf;

use super::ids;

const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
const PORT: u16 = 5353;
/// The longest packet of mDNS.
const MAX_PACKET: usize = 9000;
/// After so many packets in a row, others get a turn.
const FAIR: usize = 16;
/// Own addresses that are remembered, also after they are gone: a packet of ours may still be on its way.
const MAX_OWN: usize = 256;

/// See the module. Says where the other machine is.
#[derive(Debug)]
pub(super) struct Twin {
    local: PeerId,
    socket: tokio::net::UdpSocket,
    interfaces: IfWatcher,
    own: HashSet<IpAddr>,
    packet: Box<[u8]>,
}

impl Twin {
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the system has no socket for it.
    pub(super) fn new(local: PeerId) -> io::Result<Self> {
        let socket = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        sockopt::set_socket_reuseport(&socket, true)?;
        // The group's address, not any: what is sent to this machine alone is for whoever else listens here.
        bind(&socket, &SocketAddr::from((GROUP, PORT)))?;
        let socket = UdpSocket::from(socket);
        socket.set_nonblocking(true)?;
        Ok(Self {
            local,
            socket: tokio::net::UdpSocket::from_std(socket)?,
            interfaces: IfWatcher::new()?,
            own: HashSet::new(),
            packet: vec![0; MAX_PACKET].into(),
        })
    }

    fn watch_interfaces(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(Some(event)) = Pin::new(&mut self.interfaces).poll_next(cx) {
            let Ok(IfEvent::Up(network)) = event else { continue };
            if self.own.len() < MAX_OWN {
                self.own.insert(network.addr());
            }
            if let IpAddr::V4(ip) = network.addr()
                && !ip.is_loopback()
                && let Err(error) = self.socket.join_multicast_v4(GROUP, ip)
            {
                // Also when it was joined before, by another address of the same interface.
                tracing::debug!(%ip, %error, "not joining mDNS here");
            }
        }
    }

    fn twin_in(&self, packet: &[u8], from: IpAddr) -> Option<Multiaddr> {
        if self.own.contains(&from) {
            return None;
        }
        let addresses: Vec<Multiaddr> = announced(packet, &self.local).collect();
        let there = addresses.iter().find(|address| ids::first_ip(address) == Some(from));
        there.or(addresses.first()).cloned()
    }
}

/// The addresses at which `peer` is said to be: character strings of the form `dnsaddr=ADDRESS/p2p/PEER`, wherever in
/// the packet.
fn announced<'a>(packet: &'a [u8], peer: &'a PeerId) -> impl Iterator<Item = Multiaddr> + 'a {
    const MARK: &[u8] = b"dnsaddr=";
    let starts = packet.windows(MARK.len()).enumerate().filter(|(_, window)| *window == MARK);
    starts.filter_map(move |(start, _)| {
        let length = usize::from(*packet.get(start.checked_sub(1)?)?);
        let text = packet.get(start + MARK.len()..start + length)?;
        let address: Multiaddr = std::str::from_utf8(text).ok()?.parse().ok()?;
        match address.iter().last() {
            Some(Protocol::P2p(of)) if of == *peer => Some(ids::without_peer(address)),
            _ => None,
        }
    })
}

impl NetworkBehaviour for Twin {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Multiaddr;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        let never: Infallible = event;
        match never {}
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        self.watch_interfaces(cx);
        for _ in 0..FAIR {
            let mut buffer = ReadBuf::new(&mut self.packet);
            match self.socket.poll_recv_from(cx, &mut buffer) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => tracing::debug!(%error, "mDNS"),
                Poll::Ready(Ok(from)) => {
                    let length = buffer.filled().len();
                    if let Some(at) = self.twin_in(&self.packet[..length], from.ip()) {
                        return Poll::Ready(ToSwarm::GenerateEvent(at));
                    }
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A packet as other programs make them, with these strings somewhere in it.
    fn packet(strings: &[String]) -> Vec<u8> {
        let mut packet = vec![0, 0, 0x84, 0, 0, 0, 0, 1, 0, 0, 0, 1];
        packet.extend_from_slice(b"\x04_p2p\x04_udp\x05local\x00");
        for string in strings {
            packet.extend_from_slice(&[0, 16, 0x80, 1, 0, 0, 0, 120]);
            packet.push(0);
            packet.push(string.len() as u8 + 1);
            packet.push(string.len() as u8);
            packet.extend_from_slice(string.as_bytes());
        }
        packet
    }

    #[test]
    fn only_our_own_id_is_read_out_of_announcements() {
        let (own, other) = (PeerId::random(), PeerId::random());
        let packet = packet(&[
            format!("dnsaddr=/ip4/192.168.1.7/tcp/4001/p2p/{other}"),
            format!("dnsaddr=/ip4/192.168.1.8/tcp/4001/p2p/{own}"),
            "dnsaddr=".to_owned(),
            format!("dnsaddr=/ip4/192.168.1.8/udp/4001/quic-v1/p2p/{own}"),
            format!("dnsaddr=carrier-pigeon/p2p/{own}"),
        ]);
        let found: Vec<String> = announced(&packet, &own).map(|address| address.to_string()).collect();
        assert_eq!(found, ["/ip4/192.168.1.8/tcp/4001", "/ip4/192.168.1.8/udp/4001/quic-v1"]);
        for cut in 0..packet.len() {
            assert!(announced(&packet[..cut], &own).count() <= 2);
        }
        assert_eq!(announced(b"dnsaddr=/ip4/192.168.1.8/tcp/1", &own).count(), 0);
    }

    #[tokio::test]
    async fn what_comes_from_an_address_of_ours_is_ours() {
        let own = PeerId::random();
        let mut twin = Twin::new(own).unwrap();
        let here: IpAddr = "192.168.1.7".parse().unwrap();
        let there: IpAddr = "192.168.1.8".parse().unwrap();
        twin.own.insert(here);
        let packet = packet(&[
            format!("dnsaddr=/ip4/172.17.0.1/tcp/4001/p2p/{own}"),
            format!("dnsaddr=/ip4/192.168.1.8/tcp/4001/p2p/{own}"),
        ]);
        assert_eq!(twin.twin_in(&packet, here), None);
        assert_eq!(twin.twin_in(&packet, there), Some("/ip4/192.168.1.8/tcp/4001".parse().unwrap()));
        assert_eq!(twin.twin_in(&packet[..40], there), None);
    }
}
