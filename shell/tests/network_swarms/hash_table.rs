use kinfolk_core::{Action, Address, CommandId, Event, PeerId, Query, Refusal};

use libp2p::{identity::Keypair, swarm::dummy};

use crate::harness::{Peer, connect, in_memory, in_memory_with, until, wait};

/// How a question ended: the peers that were found, by event, and who answered.
pub(crate) type Outcome = (Vec<(PeerId, Vec<Address>)>, Result<(u32, u32), Refusal>);

/// Asks, and releases every dial that is held on the way.
pub(crate) async fn ask(peers: &mut [&mut Peer], who: usize, query: Query) -> Outcome {
    let command = peers[who].run(Action::Query(query));
    answer(peers, who, command).await
}

pub(crate) async fn answer(peers: &mut [&mut Peer], who: usize, command: CommandId) -> Outcome {
    let mut found = vec![];
    loop {
        let event = wait(peers, who, "an answer", |event| match event {
            Event::DialHeld { .. } => Some(event.clone()),
            Event::QueryFound { query, .. } | Event::QueryEnded { query, .. } if *query == command => {
                Some(event.clone())
            }
            Event::Refused { command: of, .. } if *of == command => Some(event.clone()),
            _ => None,
        })
        .await;
        match event {
            Event::DialHeld { held, peer, .. } => {
                peers[who].run(Action::Release { held, peer });
            }
            Event::QueryFound { peers, cut, .. } => {
                assert!(peers.len() <= 32 && cut == 0);
                found.extend(peers);
            }
            Event::QueryEnded { successes, failures, .. } => return (found, Ok((successes, failures))),
            Event::Refused { refusal, .. } => return (found, Err(refusal)),
            _ => unreachable!(),
        }
    }
}

/// A server of the hash table, and where it is.
pub(crate) async fn server() -> (Peer, Address) {
    let mut server = in_memory();
    let address = server.listen("/memory/0").await;
    server.run(Action::SetKademliaServer { server: true });
    (server, address)
}

/// Puts `server` into `client`'s routing table.
pub(crate) async fn route(client: &mut Peer, server: &Peer, address: &Address) {
    let peer = server.id();
    client.run(Action::Route { peer, addresses: vec![address.clone()] });
    client
        .wait("to be routed", |event| match event {
            Event::Routed { peer: routed, present } => {
                assert_eq!((*routed, *present), (peer, true));
                Some(())
            }
            _ => None,
        })
        .await;
}

#[tokio::test]
async fn members_in_client_mode_find_each_other_through_a_server() {
    let (mut s, at) = server().await;
    let (mut a, mut b) = (in_memory(), in_memory());
    let home = a.listen("/memory/0").await;
    for client in [&mut a, &mut b] {
        connect(client, &mut s, &at).await;
        route(client, &s, &at).await;
    }
    a.run(Action::Advertise { address: home.clone() });
    let all = &mut [&mut s, &mut a, &mut b];
    let (_, published) = ask(all, 1, Query::Publish { addresses: vec![home.clone()] }).await;
    assert_eq!(published, Ok((2, 0)), "asked for its neighbours, and told");
    let (_, joined) = ask(all, 1, Query::Join).await;
    assert_eq!(joined, Ok((2, 0)));
    // A membership is told without an answer: the server may still have to read it.
    until(all, "the server to know", |peers| {
        (peers[0].network.counters().get("kademlia.add_provider") == 1).then_some(())
    })
    .await;

    let member = all[1].id();
    let (members, ended) = ask(all, 2, Query::Members).await;
    // Kademlia would ask the member too, and has no address for it that it may dial.
    assert_eq!((members, ended), (vec![(member, vec![home.clone()])], Ok((1, 1))));
    let (records, ended) = ask(all, 2, Query::Record { peer: member }).await;
    assert_eq!((records, ended), (vec![(member, vec![home.clone()])], Ok((1, 0))));
    connect(&mut b, &mut a, &home).await;
}

#[tokio::test]
async fn a_newer_record_replaces_an_older_one_within_the_same_second() {
    let (mut s, at) = server().await;
    let (mut a, mut b) = (in_memory(), in_memory());
    for client in [&mut a, &mut b] {
        connect(client, &mut s, &at).await;
        route(client, &s, &at).await;
    }
    let member = a.id();
    let all = &mut [&mut s, &mut a, &mut b];
    for port in 1..=3 {
        let addresses = vec![format!("/ip4/45.10.20.1/tcp/{port}").parse().unwrap()];
        ask(all, 1, Query::Publish { addresses: addresses.clone() }).await.1.unwrap();
        let (records, _) = ask(all, 2, Query::Record { peer: member }).await;
        assert_eq!(records, [(member, addresses)]);
    }
    assert_eq!(all[0].network.counters().get("refused.old_records"), 0);
}

#[tokio::test]
async fn after_a_restart_with_the_clock_set_back_a_record_can_still_be_replaced() {
    let (mut s, at) = server().await;
    let key = Keypair::generate_ed25519();
    let addresses = |port: u16| vec![format!("/ip4/45.10.20.1/tcp/{port}").parse().unwrap()];
    let mut before = in_memory_with(key.clone(), dummy::Behaviour);
    connect(&mut before, &mut s, &at).await;
    route(&mut before, &s, &at).await;
    // Each of these is at least a second ahead of the one before, so the last one's clock is ahead of ours.
    for port in 1..=60 {
        ask(&mut [&mut s, &mut before], 1, Query::Publish { addresses: addresses(port) }).await.1.unwrap();
    }
    drop(before);

    let mut after = in_memory_with(key, dummy::Behaviour);
    let own = after.id();
    connect(&mut after, &mut s, &at).await;
    route(&mut after, &s, &at).await;
    let all = &mut [&mut s, &mut after];
    ask(all, 1, Query::Publish { addresses: addresses(61) }).await.1.unwrap();
    assert_eq!(all[0].network.counters().get("refused.old_records"), 1);
    let (found, _) = ask(all, 1, Query::Record { peer: own }).await;
    assert_eq!(found.last(), Some(&(own, addresses(60))), "the server has the old one");
    ask(all, 1, Query::Publish { addresses: addresses(62) }).await.1.unwrap();
    assert_eq!(all[0].network.counters().get("refused.old_records"), 1);

    let mut b = in_memory();
    connect(&mut b, &mut s, &at).await;
    route(&mut b, &s, &at).await;
    let (found, _) = ask(&mut [&mut s, &mut b], 1, Query::Record { peer: own }).await;
    assert_eq!(found, [(own, addresses(62))]);
}

#[tokio::test]
async fn a_server_knows_its_own_members() {
    let (mut s, at) = server().await;
    let mut a = in_memory();
    let home = a.listen("/memory/0").await;
    connect(&mut a, &mut s, &at).await;
    route(&mut a, &s, &at).await;
    a.run(Action::Advertise { address: home.clone() });
    ask(&mut [&mut s, &mut a], 1, Query::Join).await.1.unwrap();
    until(&mut [&mut s, &mut a], "the server to know", |peers| {
        (peers[0].network.counters().get("kademlia.add_provider") == 1).then_some(())
    })
    .await;
    let member = a.id();
    let (members, ended) = ask(&mut [&mut s, &mut a], 0, Query::Members).await;
    assert_eq!((members, ended), (vec![(member, vec![home])], Ok((0, 0))));
}

#[tokio::test]
async fn look_ups_find_servers_with_their_addresses() {
    let (mut first, first_at) = server().await;
    let (mut second, second_at) = server().await;
    let mut a = in_memory();
    route(&mut first, &second, &second_at).await;
    route(&mut a, &first, &first_at).await;
    let (one, two) = (first.id(), second.id());
    let all = &mut [&mut first, &mut second, &mut a];
    // It hears of the second server, but may not dial a stranger's word about an address that is not global.
    for query in [Query::LookUp { near: two }, Query::LookUpRandom { place: 7 }] {
        assert_eq!(ask(all, 2, query).await, (vec![(one, vec![])], Ok((1, 1))));
    }
    assert!(all[2].network.counters().get("dials.without_address") >= 2);
    connect(&mut a, &mut second, &second_at).await;
    let all = &mut [&mut first, &mut second, &mut a];
    for query in [Query::LookUp { near: two }, Query::LookUpRandom { place: 7 }] {
        let (mut found, ended) = ask(all, 2, query).await;
        found.sort();
        let mut expected = vec![(one, vec![]), (two, vec![second_at.clone()])];
        expected.sort();
        assert_eq!((found, ended), (expected, Ok((2, 0))));
    }
}

#[tokio::test]
async fn with_nobody_to_ask_every_question_says_so() {
    let mut a = in_memory();
    let home: Address = "/ip4/45.10.20.1/tcp/1".parse().unwrap();
    let near = in_memory().id();
    for query in [
        Query::LookUp { near },
        Query::LookUpRandom { place: 1 },
        Query::Members,
        Query::Join,
        Query::Publish { addresses: vec![home] },
        Query::Record { peer: near },
    ] {
        let all = &mut [&mut a];
        assert_eq!(ask(all, 0, query.clone()).await, (vec![], Err(Refusal::NobodyToAsk)), "{query:?}");
    }
    // Except about what we know ourselves.
    let own = a.id();
    let (found, ended) = ask(&mut [&mut a], 0, Query::Record { peer: own }).await;
    assert_eq!((found.len(), ended), (1, Ok((0, 0))));
}

#[tokio::test]
async fn the_routing_table_does_what_it_is_told() {
    let (s, at) = server().await;
    let mut a = in_memory();
    let peer = s.id();
    route(&mut a, &s, &at).await;
    route(&mut a, &s, &at).await;
    a.run(Action::Unroute { peer });
    let gone = |event: &Event| match event {
        Event::Routed { peer, present: false } => Some(*peer),
        _ => None,
    };
    assert_eq!(a.wait("to be taken out", gone).await, peer);
    let own = a.id();
    let refused = a.run(Action::Route { peer: own, addresses: vec![at] });
    let no_address = a.run(Action::Route { peer, addresses: vec![] });
    for expected in [refused, no_address] {
        let command = a
            .wait("a refusal", |event| match event {
                Event::Refused { command, .. } => Some(*command),
                _ => None,
            })
            .await;
        assert_eq!(command, expected);
    }
}

#[tokio::test]
async fn the_address_by_which_we_reach_a_server_is_not_told_to_others() {
    let (mut s, public) = server().await;
    let (mut b, b_at) = server().await;
    let mut c = in_memory();
    let private = s.listen("/memory/0").await;
    route(&mut b, &s, &public).await;
    connect(&mut b, &mut s, &private).await;
    until(&mut [&mut s, &mut b], "the private address to be taken out", |peers| {
        (peers[1].network.counters().get("kademlia.addresses_pruned") == 1).then_some(())
    })
    .await;
    connect(&mut c, &mut b, &b_at).await;
    route(&mut c, &b, &b_at).await;
    connect(&mut c, &mut s, &public).await;
    let near = s.id();
    let (found, ended) = ask(&mut [&mut s, &mut b, &mut c], 2, Query::LookUp { near }).await;
    assert_eq!(ended, Ok((2, 0)));
    assert!(found.contains(&(near, vec![public])), "{found:?}");
}

#[tokio::test]
async fn a_client_serves_nobody() {
    let mut a = in_memory();
    let mut b = in_memory();
    let at = b.listen("/memory/0").await;
    connect(&mut a, &mut b, &at).await;
    route(&mut a, &b, &at).await;
    let near = b.id();
    let (found, ended) = ask(&mut [&mut a, &mut b], 0, Query::LookUp { near }).await;
    assert_eq!((found, ended), (vec![], Ok((0, 1))));
}

#[tokio::test]
async fn relays_are_found_apart_from_members() {
    let (mut s, at) = server().await;
    let (mut r, mut a) = (in_memory(), in_memory());
    let home = r.listen("/memory/0").await;
    for client in [&mut r, &mut a] {
        connect(client, &mut s, &at).await;
        route(client, &s, &at).await;
    }
    r.run(Action::Advertise { address: home.clone() });
    let relay = r.id();
    let all = &mut [&mut s, &mut r, &mut a];
    assert_eq!(ask(all, 2, Query::Relays).await.0, []);
    assert_eq!(ask(all, 1, Query::OfferRelay).await.1, Ok((2, 0)));
    until(all, "the server to know", |peers| {
        (peers[0].network.counters().get("kademlia.add_provider") == 1).then_some(())
    })
    .await;
    assert_eq!(ask(all, 2, Query::Relays).await.0, [(relay, vec![home])]);
    assert_eq!(ask(all, 2, Query::Members).await.0, []);
}
