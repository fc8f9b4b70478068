use kinfolk_core::{Action, CloseCause, ConnectionId, DialError, Event, Refusal};

use crate::harness::{connect, failed, peer, until, wait};

fn gone(event: &Event) -> Option<(ConnectionId, CloseCause)> {
    match event {
        Event::Disconnected { connection, cause, .. } => Some((*connection, cause.clone())),
        _ => None,
    }
}

#[tokio::test]
async fn both_sides_know_who_closed() {
    for listen in ["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"] {
        let (mut a, mut b) = (peer(), peer());
        let address = b.listen(listen).await;
        let (at_a, at_b) = connect(&mut a, &mut b, &address).await;
        a.run(Action::Close { connection: at_a, peer: b.id() });
        assert_eq!(wait(&mut [&mut a, &mut b], 0, "the end", gone).await, (at_a, CloseCause::Ours));
        assert_eq!(wait(&mut [&mut a, &mut b], 1, "the end", gone).await, (at_b, CloseCause::Remote), "{listen}");
        let again = a.run(Action::Close { connection: at_a, peer: b.id() });
        let refused = |event: &Event| match event {
            Event::Refused { command, refusal } if *command == again => Some(refusal.clone()),
            _ => None,
        };
        assert_eq!(wait(&mut [&mut a, &mut b], 0, "a refusal", refused).await, Refusal::Gone);
    }
}

#[tokio::test]
async fn a_denied_peer_is_neither_dialled_nor_let_in() {
    let (mut a, mut b) = (peer(), peer());
    let to_a = a.listen("/ip4/127.0.0.1/tcp/0").await;
    let to_b = b.listen("/ip4/127.0.0.1/tcp/0").await;
    let (at_a, _) = connect(&mut a, &mut b, &to_b).await;

    a.run(Action::Deny { peer: b.id() });
    assert_eq!(wait(&mut [&mut a, &mut b], 0, "the end", gone).await, (at_a, CloseCause::Ours));

    // Whether it is expected, or turns out to be there.
    let dial = a.dial(b.id(), std::slice::from_ref(&to_b));
    assert_eq!(wait(&mut [&mut a, &mut b], 0, "a refusal", failed(dial)).await, (vec![], DialError::Denied));
    let dial = a.dial(None, std::slice::from_ref(&to_b));
    assert_eq!(wait(&mut [&mut a, &mut b], 0, "a refusal", failed(dial)).await, (vec![], DialError::Denied));

    // Of 65 knocks, the first and the last are told.
    let knocker = b.id();
    let mut counts = vec![];
    for knock in 1..=65 {
        b.dial(a.id(), std::slice::from_ref(&to_a));
        until(&mut [&mut a, &mut b], "a knock", |peers| {
            (peers[0].network.counters().get("refused.denied_peers") == knock).then_some(())
        })
        .await;
        counts.extend(a.take(|event| match event {
            Event::InboundFailed { peer, error, count, address } => {
                assert_eq!((*peer, error), (Some(knocker), &DialError::Denied));
                assert_eq!(address.host_ip(), to_a.host_ip());
                Some((knock, *count))
            }
            _ => None,
        }));
    }
    assert_eq!(counts, [(1, 1), (65, 64)]);

    a.run(Action::Admit { peer: b.id() });
    connect(&mut b, &mut a, &to_a).await;
}
