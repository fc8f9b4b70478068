use kinfolk_core::{Action, Address, Direction, Event, Origin};

use crate::harness::{Peer, connect, in_memory, peer, wait};

async fn both_sides_see_it(a: &mut Peer, b: &mut Peer, address: Address) {
    let dial = a.dial(b.id(), std::slice::from_ref(&address));
    let (from, to) = (a.id(), b.id());
    let took = wait(&mut [a, b], 0, "to be connected", |event| match event {
        Event::Connected { connection, peer, direction, address: at, origin, took } => {
            assert_eq!((connection.0, *peer, *direction), (1, to, Direction::Outbound));
            assert_eq!((at, *origin), (&address, Origin::Dial(dial)));
            Some(*took)
        }
        _ => None,
    })
    .await;
    assert!(took.as_nanos() > 0);
    wait(&mut [a, b], 1, "to be connected", |event| match event {
        Event::Connected { connection, peer, direction, origin, address: at, .. } => {
            assert_eq!((connection.0, *peer, *direction), (1, from, Direction::Inbound));
            assert_eq!(*origin, Origin::Inbound);
            assert_eq!(at.host_ip().is_some(), address.host_ip().is_some());
            Some(())
        }
        _ => None,
    })
    .await;
}

#[tokio::test]
async fn by_tcp() {
    let (mut a, mut b) = (peer(), peer());
    let address = b.listen("/ip4/127.0.0.1/tcp/0").await;
    both_sides_see_it(&mut a, &mut b, address).await;
}

#[tokio::test]
async fn by_quic() {
    let (mut a, mut b) = (peer(), peer());
    let address = b.listen("/ip4/127.0.0.1/udp/0/quic-v1").await;
    both_sides_see_it(&mut a, &mut b, address).await;
}

#[tokio::test]
async fn by_ipv6() {
    for listen in ["/ip6/::1/tcp/0", "/ip6/::1/udp/0/quic-v1"] {
        let (mut a, mut b) = (peer(), peer());
        let address = b.listen(listen).await;
        both_sides_see_it(&mut a, &mut b, address).await;
    }
}

#[tokio::test]
async fn in_memory_too() {
    let (mut a, mut b) = (in_memory(), in_memory());
    let address = b.listen("/memory/0").await;
    both_sides_see_it(&mut a, &mut b, address).await;
}

#[tokio::test]
async fn whoever_answers_is_taken_when_nobody_is_expected() {
    let (mut a, mut b) = (peer(), peer());
    let address = b.listen("/ip4/127.0.0.1/tcp/0").await;
    let closed = "/ip4/127.0.0.1/tcp/1".parse().unwrap();
    let dial = a.dial(None, &[closed, address.clone()]);
    let to = b.id();
    wait(&mut [&mut a, &mut b], 0, "the second address to answer", |event| match event {
        Event::Connected { peer, origin, address: at, .. } => {
            assert_eq!((*peer, *origin, at), (to, Origin::Dial(dial), &address));
            Some(())
        }
        _ => None,
    })
    .await;
}

#[tokio::test]
async fn one_dial_has_one_winner() {
    let (mut a, mut b) = (peer(), peer());
    let tcp = b.listen("/ip4/127.0.0.1/tcp/0").await;
    let quic = b.listen("/ip4/127.0.0.1/udp/0/quic-v1").await;
    let dial = a.dial(b.id(), &[tcp, quic.clone()]);
    wait(&mut [&mut a, &mut b], 0, "to be connected", |event| match event {
        Event::Connected { origin, address, .. } => {
            assert_eq!((*origin, address), (Origin::Dial(dial), &quic));
            Some(())
        }
        _ => None,
    })
    .await;
    // A dial to somebody who is connected already is a dial all the same.
    let again = b.listen("/ip4/127.0.0.1/udp/0/quic-v1").await;
    let (second, _) = connect(&mut a, &mut b, &again).await;
    assert_eq!(second.0, 2);
}

#[tokio::test]
async fn by_name_when_the_name_is_a_persons() {
    let (mut a, mut b) = (peer(), peer());
    let address = b.listen("/ip4/127.0.0.1/tcp/0").await;
    let named: Address = format!("/dns4/localhost/tcp/{}", address.port().unwrap()).parse().unwrap();
    let dial = Action::Dial { peer: Some(b.id()), addresses: vec![named.clone()] };
    // A name that a stranger told must not lead into this machine.
    let first = a.run(dial.clone());
    let (failures, _) = wait(&mut [&mut a, &mut b], 0, "the guard", crate::harness::failed(first)).await;
    assert_eq!(failures, [(named.clone(), kinfolk_core::DialError::Denied)]);
    let second = a.run_because(dial, kinfolk_core::Reason::Asked);
    wait(&mut [&mut a, &mut b], 0, "to be connected", |event| match event {
        Event::Connected { origin, address, .. } => {
            assert_eq!((*origin, address), (Origin::Dial(second), &named));
            Some(())
        }
        _ => None,
    })
    .await;
}
