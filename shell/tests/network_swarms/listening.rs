use std::collections::BTreeSet;

use kinfolk_core::{Action, Address, CommandId, Event, ListenError, Transport};

use crate::harness::{Peer, connect, peer};

async fn refused(peer: &mut Peer, address: Address) -> ListenError {
    let command = peer.run(Action::Listen { address });
    peer.wait("a refusal", |event| match event {
        Event::ListenFailed { command: of, error } if *of == command => Some(error.clone()),
        Event::Listening { address, .. } => panic!("listens on {address}"),
        _ => None,
    })
    .await
}

#[tokio::test]
async fn a_port_that_is_taken() {
    let mut other = peer();
    for listen in ["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1", "/ip6/::1/tcp/0", "/ip6/::1/udp/0/quic-v1"] {
        let taken = other.listen(listen).await;
        assert_eq!(refused(&mut peer(), taken).await, ListenError::PortTaken, "{listen}");
    }
    // By a program that does not share ports, and on all interfaces.
    let program = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = program.local_addr().unwrap().port();
    let wanted = format!("/ip4/0.0.0.0/tcp/{port}").parse().unwrap();
    assert_eq!(refused(&mut peer(), wanted).await, ListenError::PortTaken);
}

#[tokio::test]
async fn an_address_that_is_not_ours_or_no_address_for_it() {
    let mut a = peer();
    let refused_for = async |a: &mut Peer, text: &str| refused(a, text.parse().unwrap()).await;
    assert_eq!(refused_for(&mut a, "/ip4/192.0.2.1/tcp/0").await, ListenError::NoSuchAddress);
    assert_eq!(refused_for(&mut a, "/ip4/192.0.2.1/tcp/4001").await, ListenError::NoSuchAddress);
    assert_eq!(refused_for(&mut a, "/ip4/192.0.2.1/udp/4001/quic-v1").await, ListenError::NoSuchAddress);
    assert_eq!(refused_for(&mut a, "/ip4/127.0.0.1/tcp/0/ws").await, ListenError::Unsupported);
    assert_eq!(refused_for(&mut a, "/carrier/pigeon").await, ListenError::Unsupported);
}

#[tokio::test]
async fn a_wildcard_comes_as_one_address_per_interface_on_both_families() {
    let mut a = peer();
    let mut commands: Vec<CommandId> = vec![];
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for listen in [format!("/ip4/0.0.0.0/tcp/{port}"), format!("/ip6/::/tcp/{port}")] {
        commands.push(a.run(Action::Listen { address: listen.parse().unwrap() }));
    }
    let mut loopbacks = BTreeSet::new();
    while loopbacks.len() < 2 {
        let address = a
            .wait("the interfaces", |event| match event {
                Event::Listening { address, command, .. } => {
                    assert!(commands.contains(command));
                    Some(address.clone())
                }
                Event::ListenFailed { error, .. } => panic!("{error}"),
                _ => None,
            })
            .await;
        assert_eq!((address.port(), address.transport()), (Some(port), Some(Transport::Tcp)));
        assert!(!address.host_ip().unwrap().is_unspecified());
        if address.host_ip().unwrap().is_loopback() {
            loopbacks.insert(address);
        }
    }
    let mut b = peer();
    for address in &loopbacks {
        connect(&mut b, &mut a, address).await;
    }
}
