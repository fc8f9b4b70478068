//! Protocols of which only the bytes are spoken: what they mean is up to the caller.

use std::{io, time::Duration};

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::{
    StreamProtocol, identify,
    request_response::{self, ProtocolSupport},
};

/// Nobody here has longer messages, or more of them in one stream.
const MAX: u64 = 65_536;

#[derive(Clone, Default)]
pub(super) struct Raw;

/// What was asked, and by which protocol.
pub(super) type Asked = (StreamProtocol, Vec<u8>);

pub(super) fn serving(protocols: Vec<StreamProtocol>) -> request_response::Behaviour<Raw> {
    behaviour(protocols, ProtocolSupport::Inbound)
}

pub(super) fn asking(protocol: StreamProtocol) -> request_response::Behaviour<Raw> {
    behaviour(vec![protocol], ProtocolSupport::Outbound)
}

fn behaviour(protocols: Vec<StreamProtocol>, support: ProtocolSupport) -> request_response::Behaviour<Raw> {
    let config = request_response::Config::default().with_request_timeout(Duration::from_secs(600));
    let protocols = protocols.into_iter().map(|protocol| (protocol, support.clone()));
    request_response::Behaviour::with_codec(Raw, protocols, config)
}

impl request_response::Codec for Raw {
    type Protocol = StreamProtocol;
    type Request = Asked;
    type Response = Vec<u8>;

    /// One message, without its length.
    async fn read_request<T: AsyncRead + Unpin + Send>(
        &mut self,
        protocol: &StreamProtocol,
        io: &mut T,
    ) -> io::Result<Asked> {
        let mut message = Vec::new();
        // There, to open the stream is to ask.
        if *protocol != identify::PROTOCOL_NAME {
            let length = length(io).await?;
            io.take(length.min(MAX)).read_to_end(&mut message).await?;
        }
        Ok((protocol.clone(), message))
    }

    /// Everything until the stream ends.
    async fn read_response<T: AsyncRead + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
    ) -> io::Result<Vec<u8>> {
        let mut messages = Vec::new();
        io.take(MAX).read_to_end(&mut messages).await?;
        Ok(messages)
    }

    async fn write_request<T: AsyncWrite + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        (_, messages): Asked,
    ) -> io::Result<()> {
        io.write_all(&messages).await
    }

    async fn write_response<T: AsyncWrite + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        messages: Vec<u8>,
    ) -> io::Result<()> {
        io.write_all(&messages).await
    }
}

async fn length<T: AsyncRead + Unpin + Send>(io: &mut T) -> io::Result<u64> {
    let mut prefix = Vec::new();
    while prefix.last().is_none_or(|last| last & 0x80 != 0) {
        let mut byte = [0];
        io.read_exact(&mut byte).await?;
        prefix.extend(byte);
    }
    let length = prost::decode_length_delimiter(prefix.as_slice()).map_err(io::Error::other)?;
    Ok(length as u64)
}
