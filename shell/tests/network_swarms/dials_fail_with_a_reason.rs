use kinfolk_core::{Action, Address, DialError, Event, Reason};
use libp2p::identity::Keypair;

use crate::harness::{failed, in_memory, peer, peer_with, settings, wait};

fn address(text: &str) -> Address {
    text.parse().unwrap()
}

#[tokio::test]
async fn nothing_listens_there() {
    let mut a = peer();
    let closed = address("/ip4/127.0.0.1/tcp/1");
    let dial = a.dial(peer().id(), std::slice::from_ref(&closed));
    assert_eq!(a.dial_failed(dial).await, (vec![(closed, DialError::ConnectionRefused)], DialError::ConnectionRefused));
}

#[tokio::test]
async fn nothing_answers() {
    let mut a = peer();
    let closed = address("/ip4/127.0.0.1/udp/1/quic-v1");
    let dial = a.dial(peer().id(), std::slice::from_ref(&closed));
    assert_eq!(a.dial_failed(dial).await, (vec![(closed, DialError::TimedOut)], DialError::TimedOut));
}

#[tokio::test]
async fn there_is_no_way() {
    let mut a = peer();
    // An address of a link, without saying which.
    let nowhere = address("/ip6/fe80::1/tcp/4001");
    let dial = a.dial(peer().id(), std::slice::from_ref(&nowhere));
    assert_eq!(a.dial_failed(dial).await, (vec![(nowhere, DialError::Unreachable)], DialError::Unreachable));
}

#[tokio::test]
async fn somebody_else_is_there() {
    for listen in ["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"] {
        let (mut a, mut b) = (peer(), peer());
        let address = b.listen(listen).await;
        let dial = a.dial(peer().id(), std::slice::from_ref(&address));
        let wrong = DialError::WrongPeer(b.id());
        let failure = wait(&mut [&mut a, &mut b], 0, "the wrong peer", failed(dial)).await;
        assert_eq!(failure, (vec![(address, wrong.clone())], wrong));
    }
}

#[tokio::test]
async fn it_is_ourselves() {
    let mut a = peer();
    let own = a.listen("/ip4/127.0.0.1/tcp/0").await;
    for peer in [None, Some(peer().id())] {
        let dial = a.dial(peer, std::slice::from_ref(&own));
        let failure = a.dial_failed(dial).await;
        assert_eq!(failure, (vec![(own.clone(), DialError::OwnIdentity)], DialError::OwnIdentity));
    }
    assert!(a.take(|event| matches!(event, Event::OwnIdentitySeen { .. }).then_some(())).is_none());
}

#[tokio::test]
async fn somebody_has_our_identity() {
    let key = Keypair::generate_ed25519();
    let (mut original, mut copy) = (peer_with(key.clone(), settings()), peer_with(key, settings()));
    for listen in ["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"] {
        let address = copy.listen(listen).await;
        let dial = original.dial(None, std::slice::from_ref(&address));
        let failure = wait(&mut [&mut original, &mut copy], 0, "ourselves", failed(dial)).await;
        assert_eq!(failure, (vec![(address.clone(), DialError::OwnIdentity)], DialError::OwnIdentity));
    }
    // Told once per host, however often we meet it.
    let seen = |event: &Event| match event {
        Event::OwnIdentitySeen { address } => address.host_ip(),
        _ => None,
    };
    assert!(original.take(seen).is_some_and(|ip| ip.is_loopback()));
    assert_eq!(original.take(seen), None);
    assert_eq!(original.network.counters().get("copies.seen"), 2);
}

#[tokio::test]
async fn it_hangs_up_on_our_handshake() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            drop(stream);
        }
    });
    let mut a = peer();
    let address = address(&format!("/ip4/127.0.0.1/tcp/{port}"));
    let dial = a.dial(None, std::slice::from_ref(&address));
    assert_eq!(a.dial_failed(dial).await, (vec![(address, DialError::Handshake)], DialError::Handshake));
}

#[tokio::test]
async fn it_speaks_something_else() {
    use tokio::io::AsyncWriteExt;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let mut a = peer();
    let address = address(&format!("/ip4/127.0.0.1/tcp/{port}"));
    let dial = a.dial(None, std::slice::from_ref(&address));
    assert_eq!(a.dial_failed(dial).await, (vec![(address, DialError::Handshake)], DialError::Handshake));
}

#[tokio::test]
async fn the_name_is_not_known() {
    let mut a = peer();
    let named = address("/dns4/no-such-host.invalid/tcp/4001");
    let dial = a.run_because(Action::Dial { peer: None, addresses: vec![named.clone()] }, Reason::Asked);
    let (failures, error) = a.dial_failed(dial).await;
    assert_eq!(failures, [(named, error.clone())]);
    // Without a name server nobody knows whether there is such a name.
    assert!(matches!(error, DialError::NameNotFound | DialError::Other(_)), "{error:?}");
}

#[tokio::test]
async fn no_transport_goes_there() {
    let mut a = peer();
    let addresses = ["/ip4/127.0.0.1/tcp/1/ws", "/memory/1", "/carrier/pigeon"].map(address);
    let dial = a.dial(peer().id(), &addresses);
    let (mut failures, error) = a.dial_failed(dial).await;
    failures.sort_by_key(|(address, _)| addresses.iter().position(|given| given == address));
    assert_eq!(failures, addresses.map(|address| (address, DialError::Unsupported)));
    assert_eq!(error, DialError::Unsupported);
}

#[tokio::test]
async fn there_is_nothing_to_dial() {
    let mut a = peer();
    for peer in [None, Some(peer().id())] {
        let dial = a.dial(peer, &[]);
        assert_eq!(a.dial_failed(dial).await, (vec![], DialError::NoAddresses));
    }
}

#[tokio::test]
async fn each_address_has_its_own_error() {
    let (mut a, mut b) = (peer(), peer());
    let closed = address("/ip4/127.0.0.1/tcp/1");
    let silent = address("/ip4/127.0.0.1/udp/1/quic-v1");
    let dial = a.dial(peer().id(), &[closed.clone(), silent.clone()]);
    let (mut failures, error) = a.dial_failed(dial).await;
    failures.sort_by_key(|(address, _)| address.clone());
    assert_eq!(failures, [(closed.clone(), DialError::ConnectionRefused), (silent, DialError::TimedOut)]);
    assert_eq!(error, DialError::ConnectionRefused);

    // With nobody expected, one after the other; what cannot be tried is told first.
    let denied = b.listen("/ip4/127.0.0.1/tcp/0").await;
    a.run(Action::Deny { peer: b.id() });
    let pigeon = address("/carrier/pigeon");
    let dial = a.dial(None, &[closed.clone(), denied, pigeon.clone(), closed.clone()]);
    let (failures, error) = wait(&mut [&mut a, &mut b], 0, "all to fail", failed(dial)).await;
    let refused = (closed, DialError::ConnectionRefused);
    assert_eq!(failures, [(pigeon, DialError::Unsupported), refused.clone(), refused]);
    assert_eq!(error, DialError::ConnectionRefused);
}

#[tokio::test]
async fn in_memory_nobody_is_there() {
    let mut a = in_memory();
    let nobody = address("/memory/123456789");
    let dial = a.dial(None, std::slice::from_ref(&nobody));
    let (failures, _) = a.dial_failed(dial).await;
    assert_eq!(failures.len(), 1);
}
