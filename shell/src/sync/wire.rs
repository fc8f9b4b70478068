//! What nodes say to each other about their logs: a request and an answer per stream, each one CBOR value that ends with
//! its side of the stream, which is the form of libp2p's request-response.

use cbor4ii::serde::{from_slice, to_vec};
use kinfolk_core::{EntryHash, Head, LogHead, LogId, PeerId, SyncError};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_bytes::{ByteArray, ByteBuf};

use super::{
    FRAME, Range, Sent,
    chain::{MAX_EPOCH, MAX_POSITION},
};

/// The longest request, in bytes: an announcement of 64 heads has about 6 000.
pub(crate) const MAX_REQUEST: u64 = 16 * 1024;

/// The longest answer to an exchange or an announcement: 1 024 heads have about 100 000.
pub(crate) const MAX_HEADS_ANSWER: u64 = 256 * 1024;

/// The longest range: 1 MiB of data, one entry more, and its signatures.
pub(crate) const MAX_RANGE_ANSWER: u64 = 2 << 20;

/// Heads in one answer to an exchange.
pub(crate) const PAGE: usize = 1_024;

/// A question.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// How far do your logs go, if not all as far as mine?
    #[serde(rename = "exchange")]
    Exchange {
        /// The digest of all heads of the one who asks.
        digest: ByteArray<32>,
        /// Only logs after this one, by author and epoch: the last of the page before.
        after: Option<WireLog>,
    },
    /// These logs go so far here; how far there?
    #[serde(rename = "announce")]
    Announce { heads: Vec<WireHead> },
    /// Give me the entries after `since`.
    #[serde(rename = "range")]
    Range { log: WireLog, since: u64, limit: u32 },
}

/// An answer.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) enum Response {
    /// To an exchange: all as far as yours.
    #[serde(rename = "same")]
    Same,
    /// To an exchange or an announcement; after an announcement never with more.
    #[serde(rename = "heads")]
    Heads { heads: Vec<WireHead>, has_more: bool },
    /// To a range: the hash of the entry `since`, then data and signatures.
    #[serde(rename = "range")]
    Range { before: ByteArray<32>, entries: Vec<(ByteBuf, Option<ByteBuf>)>, has_more: bool },
    /// No time now.
    #[serde(rename = "busy")]
    Busy,
    /// Not for you.
    #[serde(rename = "denied")]
    Denied,
    /// There are no such entries.
    #[serde(rename = "not-there")]
    NotThere,
}

/// Author, epoch.
pub(crate) type WireLog = (ByteBuf, u64);

/// Author, epoch, position, hash.
pub(crate) type WireHead = (ByteBuf, u64, u64, ByteArray<32>);

/// As bytes.
pub(crate) fn encode(message: &impl Serialize) -> Vec<u8> {
    // Writing to memory does not fail.
    to_vec(vec![], message).unwrap_or_default()
}

/// From bytes.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, SyncError> {
    from_slice(bytes).map_err(|_| SyncError::Malformed)
}

pub(crate) fn from_log(log: &LogId) -> WireLog {
    (ByteBuf::from(log.author.as_bytes()), log.epoch)
}

pub(crate) fn to_log((author, epoch): &WireLog) -> Result<LogId, SyncError> {
    let author = PeerId::from_bytes(author).map_err(|_| SyncError::Malformed)?;
    if *epoch > MAX_EPOCH { Err(SyncError::Malformed) } else { Ok(LogId { author, epoch: *epoch }) }
}

pub(crate) fn from_heads(heads: &[LogHead]) -> Vec<WireHead> {
    let wire = |LogHead { log, head }: &LogHead| {
        let (author, epoch) = from_log(log);
        (author, epoch, head.position, ByteArray::new(head.hash.0))
    };
    heads.iter().map(wire).collect()
}

/// Heads that somebody sent, at most `limit`.
pub(crate) fn to_heads(heads: Vec<WireHead>, limit: usize) -> Result<Vec<LogHead>, SyncError> {
    if heads.len() > limit {
        return Err(SyncError::Malformed);
    }
    let head = |(author, epoch, position, hash): WireHead| {
        if position > MAX_POSITION {
            return Err(SyncError::Malformed);
        }
        let head = Head { position, hash: EntryHash(hash.into_array()) };
        Ok(LogHead { log: to_log(&(author, epoch))?, head })
    };
    heads.into_iter().map(head).collect()
}

/// Heads of an announcement.
pub(crate) fn announced(heads: Vec<WireHead>) -> Result<Vec<LogHead>, SyncError> {
    match to_heads(heads, FRAME)? {
        heads if heads.is_empty() => Err(SyncError::Malformed),
        heads => Ok(heads),
    }
}

pub(crate) fn from_range(range: Range) -> Response {
    let entries = range
        .entries
        .into_iter()
        .map(|entry| (ByteBuf::from(entry.data), entry.signature.map(ByteBuf::from)))
        .collect();
    Response::Range { before: ByteArray::new(range.before.0), entries, has_more: range.has_more }
}

/// A range that somebody sent: what is to be stored, and whether there is more.
pub(crate) fn to_range(
    log: LogId,
    since: u64,
    before: ByteArray<32>,
    entries: Vec<(ByteBuf, Option<ByteBuf>)>,
) -> Sent {
    let items = entries.into_iter().map(|(data, signature)| (data.into_vec(), signature.map(ByteBuf::into_vec)));
    Sent { log, since, before: EntryHash(before.into_array()), items: items.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn author_of(byte: u8) -> PeerId {
        PeerId::from_bytes(&[&[0x12, 0x20][..], &[byte; 32]].concat()).unwrap()
    }

    #[test]
    fn an_idle_exchange_is_small() {
        let request = Request::Exchange { digest: ByteArray::new([7; 32]), after: None };
        assert!(encode(&request).len() < 70, "{}", encode(&request).len());
        assert!(encode(&Response::Same).len() < 10);
        assert_eq!(decode::<Request>(&encode(&request)), Ok(request));
    }

    #[test]
    fn bytes_are_bytes_on_the_wire() {
        let range = Range {
            before: EntryHash([3; 32]),
            entries: vec![super::super::log::Entry {
                position: 1,
                hash: EntryHash::default(),
                signature: Some(vec![0xff; 64]),
                data: vec![0xff; 100],
            }],
            has_more: false,
        };
        let bytes = encode(&from_range(range));
        assert!(bytes.len() < 100 + 64 + 32 + 50, "{}", bytes.len());
        assert!(matches!(decode(&bytes), Ok(Response::Range { has_more: false, .. })));
    }

    #[test]
    fn the_largest_messages_fit() {
        let head = LogHead {
            log: LogId { author: author_of(1), epoch: MAX_EPOCH },
            head: Head { position: MAX_POSITION, hash: EntryHash([9; 32]) },
        };
        let page = Response::Heads { heads: from_heads(&vec![head; PAGE]), has_more: true };
        assert!((encode(&page).len() as u64) < MAX_HEADS_ANSWER);
        let announcement = Request::Announce { heads: from_heads(&vec![head; FRAME]) };
        assert!((encode(&announcement).len() as u64) < MAX_REQUEST);
    }

    #[test]
    fn heads_beyond_all_bounds_are_refused() {
        let good = (ByteBuf::from(author_of(1).as_bytes()), 0, 1, ByteArray::new([0; 32]));
        assert!(to_heads(vec![good.clone()], 1).is_ok());
        let mut heads = vec![good.clone(); 2];
        assert_eq!(to_heads(heads.clone(), 1), Err(SyncError::Malformed));
        heads[1].2 = MAX_POSITION + 1;
        assert_eq!(to_heads(heads.clone(), 2), Err(SyncError::Malformed));
        heads[1] = (ByteBuf::from(vec![1, 2, 3]), 0, 1, good.3);
        assert_eq!(to_heads(heads, 2), Err(SyncError::Malformed));
        assert_eq!(announced(vec![]), Err(SyncError::Malformed));
    }

    #[test]
    fn garbage_is_no_message() {
        for bytes in
            [&b""[..], b"\xff\xff", b"\xa1", &[0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], &[0x81; 5000]]
        {
            assert!(decode::<Request>(bytes).is_err());
            assert!(decode::<Response>(bytes).is_err());
        }
    }
}
