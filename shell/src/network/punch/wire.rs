//! Both protocols' messages: protobufs, each after its length.

use std::task::{Context, Poll};

use asynchronous_codec::Framed;
use futures::{AsyncRead, AsyncWrite, SinkExt, StreamExt};
use kinfolk_core::{Address, Mapping, PunchError, PunchRole, Scope, Transport};
use libp2p::Multiaddr;
use prost::Message;
use prost_codec::Codec;

use super::{Wire, errors, ids};

/// The standard protocol's own bound.
const MAX_DCUTR: usize = 4096;
/// Eight addresses have at most 250 bytes.
const MAX_KINFOLK: usize = 2048;
/// More addresses than these are not sent, and not taken.
pub(super) const MAX_CANDIDATES: usize = 8;

/// What one side tells the other.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Terms {
    /// By which transport; only a proposal in Kinfolk's own protocol says it.
    pub(super) transport: Option<Transport>,
    /// The part of the side that says it; only an answer in Kinfolk's own protocol does.
    pub(super) role: Option<PunchRole>,
    /// The NAT in front of the side that says it; not in the standard protocol.
    pub(super) mapping: Option<Mapping>,
    /// Where the side that says it can be dialled: IP addresses, with TCP or QUIC, at most 8.
    pub(super) candidates: Vec<Address>,
}

/// Which message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// The first one.
    Proposal,
    /// The other side's.
    Answer,
    /// "Now": the last one, without terms.
    Signal,
}

/// A message of `/libp2p/dcutr`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct HolePunch {
    /// 100: CONNECT; 300: SYNC.
    #[prost(int32, optional, tag = "1")]
    kind: Option<i32>,
    #[prost(bytes = "vec", repeated, tag = "2")]
    addresses: Vec<Vec<u8>>,
}

const CONNECT: i32 = 100;
const SYNC: i32 = 300;

/// A message of Kinfolk's own protocol.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Note {
    /// 1: proposal; 2: answer; 3: signal.
    #[prost(uint32, tag = "1")]
    kind: u32,
    /// 1: QUIC; 2: TCP.
    #[prost(uint32, tag = "2")]
    transport: u32,
    /// What the sender does: 1 dials, 2 accepts.
    #[prost(uint32, tag = "3")]
    role: u32,
    /// The sender's NAT: 1 none, 2 one port for all destinations, 3 another one for each; anything else: not known.
    #[prost(uint32, tag = "4")]
    mapping: u32,
    #[prost(bytes = "vec", repeated, tag = "5")]
    addresses: Vec<Vec<u8>>,
}

/// A stream on which one of the protocols is spoken.
pub(super) enum Channel<S> {
    Kinfolk(Framed<S, Codec<Note>>),
    Dcutr(Framed<S, Codec<HolePunch>>),
}

impl<S: AsyncRead + AsyncWrite + Unpin> Channel<S> {
    pub(super) fn new(stream: S, wire: Wire) -> Self {
        match wire {
            Wire::Kinfolk => Self::Kinfolk(Framed::new(stream, Codec::new(MAX_KINFOLK))),
            Wire::Dcutr => Self::Dcutr(Framed::new(stream, Codec::new(MAX_DCUTR))),
        }
    }

    pub(super) async fn send(&mut self, kind: Kind, terms: &Terms) -> Result<(), PunchError> {
        match self {
            Self::Kinfolk(framed) => framed.send(Note::new(kind, terms)).await,
            Self::Dcutr(framed) => framed.send(HolePunch::new(kind, terms)).await,
        }
        .map_err(|error| errors::of_punch(&error.into()))
    }

    /// Waits for a message of this kind.
    ///
    /// # Errors
    /// [`PunchError::Declined`] when the stream ends instead.
    pub(super) async fn read(&mut self, kind: Kind) -> Result<Terms, PunchError> {
        match self {
            Self::Kinfolk(framed) => framed.next().await.map(|note| note.map(|note| note.read(kind))),
            Self::Dcutr(framed) => framed.next().await.map(|note| note.map(|note| note.read(kind))),
        }
        .ok_or(PunchError::Declined)?
        .map_err(|error| errors::of_punch(&error.into()))?
        .ok_or_else(|| PunchError::Broken("the peer's message makes no sense".to_owned()))
    }

    /// Says that nothing more comes. What is wrong with the stream no longer matters.
    pub(super) async fn close(&mut self) {
        let _ = match self {
            Self::Kinfolk(framed) => framed.close().await,
            Self::Dcutr(framed) => framed.close().await,
        };
    }

    /// Ready when the other side has ended the stream, or speaks out of turn.
    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Kinfolk(framed) => framed.poll_next_unpin(cx).map(|_| ()),
            Self::Dcutr(framed) => framed.poll_next_unpin(cx).map(|_| ()),
        }
    }
}

impl Note {
    fn new(kind: Kind, terms: &Terms) -> Self {
        Self {
            kind: match kind {
                Kind::Proposal => 1,
                Kind::Answer => 2,
                Kind::Signal => 3,
            },
            transport: match terms.transport {
                None => 0,
                Some(Transport::Quic) => 1,
                Some(Transport::Tcp) => 2,
            },
            role: match terms.role {
                None => 0,
                Some(PunchRole::Dial) => 1,
                Some(PunchRole::Accept) => 2,
            },
            mapping: match terms.mapping {
                None | Some(Mapping::Unknown) => 0,
                Some(Mapping::None) => 1,
                Some(Mapping::Independent) => 2,
                Some(Mapping::PerDestination) => 3,
            },
            addresses: written(&terms.candidates),
        }
    }

    /// What it says, if it is of this kind and says what that needs.
    fn read(&self, expected: Kind) -> Option<Terms> {
        let kind = match self.kind {
            1 => Kind::Proposal,
            2 => Kind::Answer,
            3 => Kind::Signal,
            _ => return None,
        };
        let transport = match self.transport {
            1 => Some(Transport::Quic),
            2 => Some(Transport::Tcp),
            _ => None,
        };
        let role = match self.role {
            1 => Some(PunchRole::Dial),
            2 => Some(PunchRole::Accept),
            _ => None,
        };
        let complete = match kind {
            Kind::Proposal => transport.is_some(),
            Kind::Answer => role.is_some(),
            Kind::Signal => true,
        };
        if kind != expected || !complete {
            return None;
        }
        let mapping = match self.mapping {
            1 => Mapping::None,
            2 => Mapping::Independent,
            3 => Mapping::PerDestination,
            _ => Mapping::Unknown,
        };
        let candidates = read(&self.addresses, transport);
        Some(Terms { transport, role, mapping: Some(mapping), candidates })
    }
}

impl HolePunch {
    fn new(kind: Kind, terms: &Terms) -> Self {
        let kind = match kind {
            Kind::Proposal | Kind::Answer => CONNECT,
            Kind::Signal => SYNC,
        };
        Self { kind: Some(kind), addresses: written(&terms.candidates) }
    }

    fn read(&self, expected: Kind) -> Option<Terms> {
        let matches = match expected {
            Kind::Proposal | Kind::Answer => self.kind == Some(CONNECT),
            Kind::Signal => self.kind == Some(SYNC),
        };
        matches.then(|| Terms { candidates: read(&self.addresses, None), ..Terms::default() })
    }
}

fn written(candidates: &[Address]) -> Vec<Vec<u8>> {
    let known = candidates.iter().filter_map(ids::address_to_libp2p);
    known
        .filter(|address| ids::endpoint(address).is_some())
        .take(MAX_CANDIDATES)
        .map(|address| address.to_vec())
        .collect()
}

/// The first of those addresses that can be dialled at all.
fn read(addresses: &[Vec<u8>], transport: Option<Transport>) -> Vec<Address> {
    let mut known: Vec<Address> = vec![];
    for bytes in addresses {
        let Ok(address) = Multiaddr::try_from(bytes.clone()) else { continue };
        let Some((ip, port, by)) = ids::endpoint(&address) else { continue };
        let fits = transport.is_none_or(|transport| transport == by) && port != 0 && Scope::of(ip).is_dialable();
        let address = Address::ip(ip, port, by);
        if fits && !known.contains(&address) {
            known.push(address);
        }
        if known.len() == MAX_CANDIDATES {
            break;
        }
    }
    known
}

#[cfg(test)]
mod tests {
    use futures::{executor::block_on, io::Cursor};

    use super::*;

    fn addresses(texts: &[&str]) -> Vec<Address> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    /// What the other side reads of what one side sends.
    fn across(wire: Wire, kind: Kind, terms: &Terms, expected: Kind) -> Result<Terms, PunchError> {
        let mut channel = Channel::new(Cursor::new(vec![]), wire);
        block_on(channel.send(kind, terms)).unwrap();
        let bytes = match channel {
            Channel::Kinfolk(framed) => framed.into_inner().into_inner(),
            Channel::Dcutr(framed) => framed.into_inner().into_inner(),
        };
        of_bytes(wire, bytes, expected)
    }

    fn of_bytes(wire: Wire, bytes: Vec<u8>, expected: Kind) -> Result<Terms, PunchError> {
        block_on(Channel::new(Cursor::new(bytes), wire).read(expected))
    }

    #[test]
    fn what_is_said_is_what_is_heard() {
        let candidates = addresses(&["/ip4/45.10.20.1/udp/4001/quic-v1", "/ip6/2a01:4f8::1/udp/4001/quic-v1"]);
        for transport in [Transport::Quic, Transport::Tcp] {
            for mapping in [Mapping::Unknown, Mapping::None, Mapping::Independent, Mapping::PerDestination] {
                let candidates = if transport == Transport::Quic { candidates.clone() } else { vec![] };
                let said = Terms { transport: Some(transport), role: None, mapping: Some(mapping), candidates };
                assert_eq!(across(Wire::Kinfolk, Kind::Proposal, &said, Kind::Proposal), Ok(said));
            }
        }
        for role in [PunchRole::Dial, PunchRole::Accept] {
            let mapping = Some(Mapping::None);
            let said = Terms { transport: None, role: Some(role), mapping, candidates: candidates.clone() };
            assert_eq!(across(Wire::Kinfolk, Kind::Answer, &said, Kind::Answer), Ok(said));
        }
        let heard = Terms { candidates, ..Terms::default() };
        assert_eq!(across(Wire::Dcutr, Kind::Proposal, &heard, Kind::Answer), Ok(heard));
        for wire in [Wire::Kinfolk, Wire::Dcutr] {
            assert!(across(wire, Kind::Signal, &Terms::default(), Kind::Signal).is_ok());
        }
    }

    #[test]
    fn the_standard_messages_are_those_of_others() {
        let mut channel = Channel::new(Cursor::new(vec![]), Wire::Dcutr);
        let terms = Terms { candidates: addresses(&["/ip4/1.2.3.4/tcp/5"]), ..Terms::default() };
        block_on(channel.send(Kind::Proposal, &terms)).unwrap();
        block_on(channel.send(Kind::Signal, &Terms::default())).unwrap();
        let Channel::Dcutr(framed) = channel else { unreachable!() };
        // CONNECT with one address, SYNC with none.
        let expected = [&[12, 8, 100, 18, 8, 4, 1, 2, 3, 4, 6, 0, 5][..], &[3, 8, 0xac, 2]].concat();
        assert_eq!(framed.into_inner().into_inner(), expected);
    }

    #[test]
    fn the_wrong_message_makes_no_sense() {
        let whole = Terms { transport: Some(Transport::Quic), role: Some(PunchRole::Dial), ..Terms::default() };
        for (kind, expected) in
            [(Kind::Proposal, Kind::Answer), (Kind::Signal, Kind::Answer), (Kind::Answer, Kind::Signal)]
        {
            assert!(matches!(across(Wire::Kinfolk, kind, &whole, expected), Err(PunchError::Broken(_))));
        }
        for kind in [Kind::Proposal, Kind::Answer] {
            assert!(matches!(across(Wire::Kinfolk, kind, &Terms::default(), kind), Err(PunchError::Broken(_))));
        }
        assert!(matches!(across(Wire::Dcutr, Kind::Signal, &whole, Kind::Answer), Err(PunchError::Broken(_))));
        assert!(matches!(across(Wire::Dcutr, Kind::Answer, &whole, Kind::Signal), Err(PunchError::Broken(_))));
        assert!(matches!(of_bytes(Wire::Dcutr, vec![0], Kind::Signal), Err(PunchError::Broken(_))));
    }

    #[test]
    fn only_addresses_that_can_be_dialled_are_heard() {
        let peer = libp2p::PeerId::random();
        let mut said: Vec<Multiaddr> = [
            "/dns4/node.example/tcp/1",
            "/ip4/45.10.20.1/tcp/0",
            "/ip4/0.0.0.0/tcp/1",
            "/ip4/224.0.0.1/udp/1/quic-v1",
            "/ip4/45.10.20.1/tcp/1/ws",
            "/ip4/45.10.20.1/tcp/1",
            "/ip4/45.10.20.1/tcp/1",
        ]
        .iter()
        .map(|text| text.parse().unwrap())
        .collect();
        said.push(format!("/ip4/45.10.20.1/tcp/1/p2p/{peer}/p2p-circuit").parse().unwrap());
        said.push(format!("/ip4/45.10.20.1/udp/1/quic-v1/p2p/{peer}").parse().unwrap());
        let mut bytes: Vec<Vec<u8>> = said.iter().map(Multiaddr::to_vec).collect();
        bytes.push(b"carrier pigeon".to_vec());
        assert_eq!(read(&bytes, None), addresses(&["/ip4/45.10.20.1/tcp/1", "/ip4/45.10.20.1/udp/1/quic-v1"]));
        assert_eq!(read(&bytes, Some(Transport::Quic)), addresses(&["/ip4/45.10.20.1/udp/1/quic-v1"]));
        let many: Vec<Vec<u8>> = (1..=20u16)
            .map(|port| {
                ids::address_to_libp2p(&format!("/ip4/45.10.20.1/tcp/{port}").parse().unwrap()).unwrap().to_vec()
            })
            .collect();
        assert_eq!(read(&many, None).len(), MAX_CANDIDATES);
    }

    #[test]
    fn what_is_too_long_or_no_message_is_an_error() {
        for (wire, max) in [(Wire::Kinfolk, MAX_KINFOLK), (Wire::Dcutr, MAX_DCUTR)] {
            let mut long = prost::bytes::BytesMut::new();
            prost::encoding::encode_varint(max as u64 + 1, &mut long);
            for bytes in [
                long.to_vec(),
                // A length that never ends.
                vec![0xff; 64],
                // A field that goes beyond the message.
                vec![3, 18, 200, 1],
                vec![5, 0, 0, 0, 0, 0],
            ] {
                let read = of_bytes(wire, bytes.clone(), Kind::Proposal);
                assert!(matches!(read, Err(PunchError::Broken(_))), "{bytes:?}: {read:?}");
            }
            assert_eq!(of_bytes(wire, vec![], Kind::Answer), Err(PunchError::Declined));
            // The stream ends within a message.
            assert_eq!(of_bytes(wire, vec![9, 8], Kind::Answer), Err(PunchError::Declined));
        }
    }
}
