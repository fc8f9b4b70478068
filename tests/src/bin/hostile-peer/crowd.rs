//! mDNS answers about peers that do not exist.

use std::net::{Ipv4Addr, SocketAddr};

use libp2p::identity::Keypair;
use tokio::net::UdpSocket;

const GROUP: (Ipv4Addr, u16) = (Ipv4Addr::new(224, 0, 0, 251), 5353);
const SERVICE: &str = "_p2p._udp.local";
const TTL: u32 = 360;
/// Sockets that listen hold about this many packets; then they need a moment.
const BURST: u32 = 64;

/// Says of `peers` peers that each is somewhere in the /24 of `own`.
pub(super) async fn announce(own: Ipv4Addr, peers: u32) -> std::io::Result<()> {
    let socket = UdpSocket::bind(SocketAddr::from((own, 0))).await?;
    let [a, b, c, _] = own.octets();
    for number in 0..peers {
        let peer = Keypair::generate_ed25519().public().to_peer_id();
        // Nobody is there: a lab's devices are few and have low numbers.
        let ip = Ipv4Addr::new(a, b, c, 100 + (number % 100) as u8);
        let text = format!("dnsaddr=/ip4/{ip}/tcp/4001/p2p/{peer}");
        socket.send_to(&answer(&format!("nobody{number}"), &text), GROUP).await?;
        if number % BURST == BURST - 1 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }
    Ok(())
}

fn answer(name: &str, text: &str) -> Vec<u8> {
    let (service, name) = (labels(SERVICE), labels(name));
    let mut packet = Vec::new();
    // No id, an answer, no question, one answer, no authority, one additional record.
    for word in [0_u16, 0x8400, 0, 1, 0, 1] {
        packet.extend(word.to_be_bytes());
    }
    record(&mut packet, &service, [0x000c, 0x0001], &name);
    let mut value = vec![text.len() as u8];
    value.extend(text.as_bytes());
    record(&mut packet, &name, [0x0010, 0x8001], &value);
    packet
}

fn record(packet: &mut Vec<u8>, name: &[u8], kind_and_class: [u16; 2], value: &[u8]) {
    packet.extend(name);
    for word in kind_and_class {
        packet.extend(word.to_be_bytes());
    }
    packet.extend(TTL.to_be_bytes());
    packet.extend((value.len() as u16).to_be_bytes());
    packet.extend(value);
}

fn labels(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes
}
