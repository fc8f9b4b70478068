//! What is said over one stream.

use std::io;

use asynchronous_codec::Framed;
use futures::{AsyncRead, AsyncWrite, FutureExt, SinkExt, StreamExt};
use kinfolk_core::ProbeVerdict;
use libp2p::{Multiaddr, core::upgrade::NegotiationError};
use prost_codec::Codec;

use super::{
    super::errors,
    nonces::{Arrival, Nonces},
    wire::{Content, DialBack, DialBackResponse, DialDataResponse, DialRequest, DialResponse, Message},
};

/// The longest message from a server: its own have 20 bytes.
const MAX_FROM_SERVER: usize = 256;
/// The longest dial-back: one number.
const MAX_DIAL_BACK: usize = 16;
/// What a server may ask for before it dials, in bytes, and how it is cut: by the specification.
const DATA: std::ops::RangeInclusive<u64> = 30_000..=100_000;
const DATA_PART: u64 = 4096;

/// Answers, by the specification.
const REJECTED: i32 = 100;
const REFUSED: i32 = 101;
const OK: i32 = 200;
const DIAL_ERROR: i32 = 100;
const DIAL_BACK_ERROR: i32 = 101;

/// Asks a server to probe one address. Gives the verdict *as the server says*, and the bytes that it wanted for it.
pub(super) async fn ask<S>(stream: S, address: &Multiaddr, nonce: u64) -> (ProbeVerdict, u64)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut paid = 0;
    let verdict = match asked(stream, address, nonce, &mut paid).await {
        Ok(verdict) => verdict,
        Err(error) => broken(&error),
    };
    (verdict, paid)
}

/// Why there is no verdict.
pub(super) fn broken(error: &io::Error) -> ProbeVerdict {
    // Negotiated lazily, it shows only when the stream is used.
    if error.get_ref().is_some_and(|inner| inner.is::<NegotiationError>()) {
        return ProbeVerdict::NotSupported;
    }
    ProbeVerdict::Broken(errors::text(error))
}

async fn asked<S>(stream: S, address: &Multiaddr, nonce: u64, paid: &mut u64) -> io::Result<ProbeVerdict>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut stream = Framed::new(stream, Codec::<Message>::new(MAX_FROM_SERVER));
    let request = DialRequest { addresses: vec![address.to_vec()], nonce };
    stream.send(Message { content: Some(Content::Request(request)) }).await?;
    let mut answer = next(&mut stream).await?;
    if let Content::DataRequest(wanted) = answer {
        if wanted.index != 0 || !DATA.contains(&wanted.bytes) {
            return Err(invalid("it asks for data that the protocol does not allow"));
        }
        while *paid < wanted.bytes {
            let part = DATA_PART.min(wanted.bytes - *paid);
            let data = DialDataResponse { data: vec![0; part as usize] };
            stream.send(Message { content: Some(Content::Data(data)) }).await?;
            *paid += part;
        }
        answer = next(&mut stream).await?;
    }
    let Content::Response(response) = answer else {
        return Err(invalid("it answers out of turn"));
    };
    // The verdict is known: nobody waits for the stream's end.
    let _ = stream.close().now_or_never();
    verdict(&response)
}

fn verdict(response: &DialResponse) -> io::Result<ProbeVerdict> {
    match (response.status, response.dial_status) {
        (REJECTED | REFUSED, _) => Ok(ProbeVerdict::Refused),
        (OK, _) if response.index != 0 => Err(invalid("it answers about another address")),
        (OK, OK) => Ok(ProbeVerdict::Reachable),
        (OK, DIAL_ERROR) => Ok(ProbeVerdict::DialFailed),
        (OK, DIAL_BACK_ERROR) => Ok(ProbeVerdict::DialBackFailed),
        (0, _) => Err(invalid("it has failed inside")),
        (..) => Err(invalid("its answer has no meaning")),
    }
}

async fn next<S>(stream: &mut Framed<S, Codec<Message>>) -> io::Result<Content>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let message = stream.next().await.ok_or(io::ErrorKind::UnexpectedEof)??;
    message.content.ok_or_else(|| invalid("its message is empty"))
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Hears a dial-back out. `false`: nobody waits for what it says.
pub(super) async fn hear<S>(stream: S, nonces: &Nonces, over: &Arrival) -> bool
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut stream = Framed::new(stream, Codec::<DialBackResponse, DialBack>::new(MAX_DIAL_BACK));
    let Some(Ok(DialBack { nonce })) = stream.next().await else { return false };
    if !nonces.mark(nonce, over) {
        return false;
    }
    // Whatever becomes of the answer, the number has come.
    if stream.send(DialBackResponse { status: 0 }).await.is_ok() {
        let _ = stream.close().await;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_answer_has_its_verdict() {
        let say = |status, dial_status, index| verdict(&DialResponse { status, index, dial_status });
        for (status, dial_status, expected) in [
            (200, 200, ProbeVerdict::Reachable),
            (200, 100, ProbeVerdict::DialFailed),
            (200, 101, ProbeVerdict::DialBackFailed),
            (100, 0, ProbeVerdict::Refused),
            (101, 0, ProbeVerdict::Refused),
        ] {
            assert_eq!(say(status, dial_status, 0).unwrap(), expected);
        }
        for (status, dial_status, index) in [(0, 0, 0), (200, 0, 0), (200, 7, 0), (7, 200, 0), (200, 200, 1)] {
            assert!(say(status, dial_status, index).is_err(), "{status} {dial_status} {index}");
        }
    }
}
