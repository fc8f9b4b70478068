use std::{
    collections::VecDeque,
    io,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, StreamExt};
use kinfolk_core::{Action, Address, CommandId, Event, PeerId, ReserveError};
use kinfolk_shell::network::ids;
use libp2p::{
    Multiaddr, StreamProtocol, Swarm, Transport,
    core::{transport::MemoryTransport, upgrade::Version},
    identity::Keypair,
    noise, relay,
    request_response::{self, ProtocolSupport, ResponseChannel},
    swarm::{self, SwarmEvent},
    yamux,
};

use crate::{
    harness::{Peer, failed, in_memory},
    reservations::{ask, ended, through},
};

/// Reads one message of the relay protocol, with what a request for a circuit is followed by at once, and answers with
/// any bytes.
#[derive(Clone, Default)]
struct Raw;

impl request_response::Codec for Raw {
    type Protocol = StreamProtocol;
    type Request = Vec<u8>;
    type Response = Vec<u8>;

    async fn read_request<T: AsyncRead + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
    ) -> io::Result<Vec<u8>> {
        let mut length = [0];
        io.read_exact(&mut length).await?;
        let mut message = vec![0; length[0].into()];
        io.read_exact(&mut message).await?;
        if message.starts_with(CONNECT) {
            let mut early = [0; 64];
            let count = io.read(&mut early).await?;
            message.extend(&early[..count]);
        }
        Ok(message)
    }

    async fn read_response<T: AsyncRead + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        _: &mut T,
    ) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    async fn write_request<T: AsyncWrite + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        _: &mut T,
        _: Vec<u8>,
    ) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    async fn write_response<T: AsyncWrite + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        answer: Vec<u8>,
    ) -> io::Result<()> {
        io.write_all(&answer).await
    }
}

/// A relay that says what it is told to say.
struct Liar {
    swarm: Swarm<request_response::Behaviour<Raw>>,
    address: Address,
    asked: VecDeque<ResponseChannel<Vec<u8>>>,
}

impl Liar {
    async fn new() -> Self {
        let key = Keypair::generate_ed25519();
        let transport = MemoryTransport::default()
            .upgrade(Version::V1)
            .authenticate(noise::Config::new(&key).unwrap())
            .multiplex(yamux::Config::default())
            .boxed();
        let protocols = [(relay::HOP_PROTOCOL_NAME, ProtocolSupport::Inbound)];
        let config = request_response::Config::default().with_request_timeout(Duration::from_secs(600));
        let behaviour = request_response::Behaviour::with_codec(Raw, protocols, config);
        let config = swarm::Config::with_tokio_executor().with_idle_connection_timeout(Duration::from_secs(600));
        let mut swarm = Swarm::new(transport, behaviour, key.public().to_peer_id(), config);
        swarm.listen_on("/memory/0".parse().unwrap()).unwrap();
        loop {
            if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
                return Self { swarm, address: ids::address_to_core(&address), asked: VecDeque::new() };
            }
        }
    }

    fn id(&self) -> PeerId {
        ids::peer_to_core(*self.swarm.local_peer_id())
    }

    fn answer(&mut self, answer: Vec<u8>) {
        let channel = self.asked.pop_front().unwrap();
        // `Err`: whoever has asked is gone.
        let _ = self.swarm.behaviour_mut().send_response(channel, answer);
    }

    /// Until somebody asks something.
    async fn wait(&mut self) {
        loop {
            if let SwarmEvent::Behaviour(request_response::Event::Message {
                message: request_response::Message::Request { channel, .. },
                ..
            }) = self.swarm.select_next_some().await
            {
                return self.asked.push_back(channel);
            }
        }
    }
}

/// Runs both until the peer's event is there.
async fn wait<T>(liar: &mut Liar, peer: &mut Peer, what: &str, find: impl FnMut(&Event) -> Option<T>) -> T {
    tokio::select! {
        found = peer.wait(what, find) => found,
        () = async { loop { liar.wait().await } } => unreachable!(),
    }
}

async fn asked(liar: &mut Liar, peer: &mut Peer) {
    if liar.asked.is_empty() {
        tokio::select! {
            _ = peer.wait("never", |_| None::<()>) => unreachable!(),
            () = liar.wait() => {}
        }
    }
}

/// A liar, a peer that is connected to it, and the command by which it has just asked for a place.
async fn asking() -> (Liar, Peer, CommandId) {
    let mut liar = Liar::new().await;
    let mut a = in_memory();
    let (relay, at) = (liar.id(), liar.address.clone());
    a.dial(relay, std::slice::from_ref(&at));
    wait(&mut liar, &mut a, "the connection", |event| matches!(event, Event::Connected { .. }).then_some(())).await;
    let command = ask(&mut a, relay, &at);
    asked(&mut liar, &mut a).await;
    (liar, a, command)
}

const OK: u64 = 100;
/// How a request for a circuit begins.
const CONNECT: &[u8] = &[1 << 3, 1];

/// A status message, with its length in front.
fn status(code: u64, place: Option<(u64, &[Multiaddr])>) -> Vec<u8> {
    let mut message = vec![];
    number(&mut message, 1, 2);
    if let Some((expire, addresses)) = place {
        let mut reservation = vec![];
        number(&mut reservation, 1, expire);
        addresses.iter().for_each(|address| bytes(&mut reservation, 2, &address.to_vec()));
        bytes(&mut message, 3, &reservation);
    }
    number(&mut message, 5, code);
    let mut framed = vec![];
    varint(&mut framed, message.len() as u64);
    framed.extend(message);
    framed
}

fn number(message: &mut Vec<u8>, field: u8, value: u64) {
    message.push(field << 3);
    varint(message, value);
}

fn bytes(message: &mut Vec<u8>, field: u8, value: &[u8]) {
    message.push(field << 3 | 2);
    varint(message, value.len() as u64);
    message.extend(value);
}

fn varint(message: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        message.push(value as u8 | 0x80);
        value >>= 7;
    }
    message.push(value as u8);
}

fn in_seconds(seconds: u64) -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + seconds
}

fn own(liar: &Liar) -> Multiaddr {
    ids::address_to_libp2p(&liar.address).unwrap().with_p2p(*liar.swarm.local_peer_id()).unwrap()
}

fn reserved(event: &Event) -> Option<CommandId> {
    match event {
        Event::Reserved { reservation, .. } => Some(*reservation),
        _ => None,
    }
}

#[tokio::test]
async fn a_circuits_first_words_follow_the_request_and_each_answer_has_its_word() {
    let nonsense = "the relay's answer makes no sense";
    for (answer, word) in [
        (status(201, None), "the relay has no room for another circuit"),
        (status(202, None), "the relay refuses to relay to the peer"),
        (status(203, None), "the relay can't get through to the peer"),
        (status(204, None), "the peer has no place at the relay"),
        (status(200, None), nonsense),
        (b"\x04\x08\x01\x28\x64".to_vec(), nonsense),
        (b"\x02\x08\x02".to_vec(), nonsense),
        (b"\x05hello".to_vec(), nonsense),
        (vec![0xff; 64], nonsense),
        // A yes, and then something that is no peer.
        ([status(OK, None), b"\x05hello".to_vec()].concat(), "the handshake failed"),
    ] {
        let mut liar = Liar::new().await;
        let mut a = in_memory();
        let (relay, at) = (liar.id(), liar.address.clone());
        a.dial(relay, std::slice::from_ref(&at));
        wait(&mut liar, &mut a, "the connection", |event| matches!(event, Event::Connected { .. }).then_some(())).await;
        let nobody = ids::peer_to_core(libp2p::PeerId::random());
        let dial = a.dial(nobody, &[through(&relay, &at)]);
        asked(&mut liar, &mut a).await;
        liar.answer(answer.clone());
        let (_, error) = wait(&mut liar, &mut a, "the failure", failed(dial)).await;
        assert_eq!(error.to_string(), word, "{answer:?}");
    }
}

#[tokio::test]
async fn each_refusal_has_its_word() {
    for (answer, word) in [
        (status(200, None), ReserveError::Forbidden),
        (status(201, None), ReserveError::Full),
        (status(202, None), ReserveError::Forbidden),
        (status(300, None), ReserveError::Malformed),
        (status(9_999, None), ReserveError::Malformed),
        (status(OK, None), ReserveError::Malformed),
        (status(OK, Some((in_seconds(3_600), &[]))), ReserveError::Malformed),
        (b"\x05hello".to_vec(), ReserveError::Malformed),
    ] {
        let (mut liar, mut a, command) = asking().await;
        liar.answer(answer.clone());
        assert_eq!(wait(&mut liar, &mut a, "the refusal", ended(command)).await, word, "{answer:?}");
    }
    let (mut liar, mut a, command) = asking().await;
    liar.answer(vec![]);
    let word = wait(&mut liar, &mut a, "the refusal", ended(command)).await;
    assert!(matches!(word, ReserveError::Other(_)), "{word:?}");
}

#[tokio::test]
async fn a_late_answer_to_a_request_that_was_given_up_harms_nobody() {
    let (mut liar, mut a, first) = asking().await;
    a.run(Action::Unreserve { reservation: first });
    assert_eq!(wait(&mut liar, &mut a, "the end", ended(first)).await, ReserveError::Ours);
    let place = status(OK, Some((in_seconds(3_600), &[own(&liar)])));
    liar.answer(place.clone());
    let late = async {
        while a.network.counters().get("relays.late_answers") == 0 {
            tokio::select! {
                _ = a.wait("never", |_| None::<()>) => unreachable!(),
                () = tokio::time::sleep(Duration::from_millis(5)) => {}
                () = liar.wait() => unreachable!("it asks again"),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), late).await.unwrap();
    // And again with a place that was already there, whose renewal is given up.
    let (relay, at) = (liar.id(), liar.address.clone());
    for _ in 0..2 {
        let command = ask(&mut a, relay, &at);
        asked(&mut liar, &mut a).await;
        liar.answer(place.clone());
        assert_eq!(wait(&mut liar, &mut a, "a place", reserved).await, command);
        let at_relay = |event: &Event| matches!(event, Event::ReservedAt { .. }).then_some(());
        wait(&mut liar, &mut a, "its address", at_relay).await;
        let renewal = ask(&mut a, relay, &at);
        asked(&mut liar, &mut a).await;
        a.run(Action::Unreserve { reservation: renewal });
        assert_eq!(wait(&mut liar, &mut a, "the end", ended(renewal)).await, ReserveError::Ours);
        liar.answer(place.clone());
    }
    let command = ask(&mut a, relay, &at);
    asked(&mut liar, &mut a).await;
    liar.answer(place);
    assert_eq!(wait(&mut liar, &mut a, "a place", reserved).await, command);
}

#[tokio::test]
async fn a_request_that_nobody_answers_ends_with_the_connection() {
    let (liar, mut a, command) = asking().await;
    drop(liar);
    assert_eq!(a.wait("the end", ended(command)).await, ReserveError::ConnectionLost);
}

#[tokio::test]
async fn a_relay_that_accepts_and_then_hangs_up_is_lost() {
    let (mut liar, mut a, command) = asking().await;
    liar.answer(status(OK, Some((in_seconds(3_600), &[own(&liar)]))));
    assert_eq!(wait(&mut liar, &mut a, "a place", reserved).await, command);
    drop(liar);
    let lost = a.wait("the loss", |event| match event {
        Event::ReservationEnded { reservation, error } => Some((*reservation, error.clone())),
        _ => None,
    });
    assert_eq!(lost.await, (command, ReserveError::ConnectionLost));
}

#[tokio::test]
async fn a_place_lasts_as_long_as_the_relay_says_if_that_can_be() {
    const HOUR: u64 = 3_600;
    for (expire, lasts) in [
        (in_seconds(600), Some(590..=600)),
        // Our clock, or the relay's, is a year ahead, or stands in 1970.
        (in_seconds(0) - 365 * 24 * HOUR, None),
        (in_seconds(365 * 24 * HOUR), Some(364 * 24 * HOUR..=365 * 24 * HOUR)),
        (HOUR, None),
        (u64::MAX, Some(u64::MAX / 2..=u64::MAX)),
    ] {
        let (mut liar, mut a, command) = asking().await;
        liar.answer(status(OK, Some((expire, &[own(&liar)]))));
        let told = wait(&mut liar, &mut a, "a place", |event| match event {
            Event::Reserved { reservation, lasts, .. } if *reservation == command => Some(*lasts),
            Event::ReservationEnded { error, .. } => panic!("{error:?}"),
            _ => None,
        })
        .await;
        match (told, &lasts) {
            (None, None) => {}
            (Some(told), Some(expected)) => assert!(expected.contains(&told.as_secs()), "{told:?} of {expire}"),
            (told, _) => panic!("{told:?} of {expire}"),
        }
    }
}

#[tokio::test]
async fn addresses_that_lead_elsewhere_and_too_many_of_them_are_not_told() {
    let (mut liar, mut a, command) = asking().await;
    let other = "/ip4/45.10.20.1/tcp/1".parse::<Multiaddr>().unwrap().with_p2p(libp2p::PeerId::random()).unwrap();
    let port = |port: u16| -> Multiaddr {
        format!("/ip4/45.10.20.1/tcp/{port}/p2p/{}", liar.swarm.local_peer_id()).parse().unwrap()
    };
    let mut addresses = vec![other];
    addresses.extend((1..60).map(port));
    liar.answer(status(OK, Some((in_seconds(3_600), &addresses))));
    wait(&mut liar, &mut a, "a place", reserved).await;
    let relay = liar.id();
    for port in 1..8u16 {
        let at: Address = format!("/ip4/45.10.20.1/tcp/{port}").parse().unwrap();
        let told = wait(&mut liar, &mut a, "an address", |event| match event {
            Event::ReservedAt { reservation, address } => Some((*reservation, address.clone())),
            _ => None,
        })
        .await;
        assert_eq!(told, (command, through(&relay, &at)));
    }
    // Something that comes after all of them.
    a.run(Action::Unreserve { reservation: command });
    let end = wait(&mut liar, &mut a, "the end", |event| match event {
        Event::ReservedAt { .. } | Event::ReservationEnded { .. } => Some(event.clone()),
        _ => None,
    });
    assert!(matches!(end.await, Event::ReservationEnded { error: ReserveError::Ours, .. }));
    assert_eq!(a.network.counters().get("relays.bad_addresses"), 1);
}
