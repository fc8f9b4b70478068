//! What is said over HTTP: JSON, except where a record is sent as it is.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `GET /signal/{peer}?network=` | | [`Record`] |
//! | `GET /signal?network=&limit=&service=` | | [`Records`] |
//! | `PUT /signal/{peer}?network=` | [`Publish`], or the record itself (`application/octet-stream`, with `lifetime_s` and `services` in the query) | [`Published`] |
//! | `DELETE /signal/{peer}?network=` | [`Withdraw`], or the record itself | [`Withdrawn`] |
//! | `GET /health` | | [`Health`] |
//! | `GET /api/v1/federation/p2p-peers?network=&limit=` | | [`FederationPeers`] |
//!
//! `{peer}` is read by [`super::key`]; `network` may be left out where the doorway serves only one. A token goes into
//! `Authorization: Bearer …`. Answers of 400 and above are [`Problem`]s. Numbers that may exceed 2^53 are text.

use data_encoding::BASE64;
use libp2p::PeerId;
use serde::{Deserialize, Serialize};

use super::record::{self, BadRecord, Said};

/// Every answer names what the records are kept in: see [`Health::backing`].
pub const BACKING_HEADER: &str = "kinfolk-backing";

/// The largest body of a request, in bytes: a record in base64 and what stands around it.
pub const MAX_BODY: usize = 4096;

/// Records in one answer at most.
pub const MAX_LIMIT: u32 = 100;

/// Records in one answer where nothing else is asked for.
pub const DEFAULT_LIMIT: u32 = 20;

/// The shortest lifetime of a record, in seconds. Longer than a doorway allows is cut.
pub const MIN_LIFETIME_S: u32 = 60;

/// A live record.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Who, in base58.
    pub peer_id: String,
    /// Where: multiaddrs. The same as in `record`, for those who trust the doorway.
    pub addrs: Vec<String>,
    /// Until when, in seconds since 1970, by the doorway's clock.
    pub expires: u64,
    /// For how long from now on, in seconds: for those whose clock may be wrong.
    pub expires_in_s: u64,
    /// The record's sequence number.
    #[serde(with = "text_u64")]
    pub seq: u64,
    /// What the peer says to do for others.
    pub services: Vec<Service>,
    /// The signed record, base64 (RFC 4648, section 4).
    pub record: String,
}

/// What a peer does for others, by its own word.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Service {
    /// Relays circuits.
    Relay,
    /// Serves the hash table and is there for good: one can begin with it.
    Bootstrap,
    /// Something that a later version knows.
    #[serde(other)]
    Other,
}

/// A sample of the live records of a network.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Records {
    /// Which.
    pub network: String,
    /// At most as many as were asked for; drawn anew each time. A quarter of the places is given first to peers with
    /// services.
    pub peers: Vec<Record>,
    /// Live records in the network.
    pub total: u64,
}

/// What is published.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Publish {
    /// The signed record, base64.
    pub record: String,
    /// For how long, in seconds. Left out: as long as the doorway allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime_s: Option<u32>,
    /// What the peer does for others.
    #[serde(default)]
    pub services: Vec<Service>,
}

/// It is published.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Published {
    /// Who, in base58.
    pub peer_id: String,
    /// The sequence number.
    #[serde(with = "text_u64")]
    pub seq: u64,
    /// Until when, in seconds since 1970, by the doorway's clock.
    pub expires: u64,
    /// For how long from now on, in seconds. Half of it is a good time to publish again, with a higher number.
    pub expires_in_s: u64,
    /// Whether it changed anything; not so if the same record was there already.
    pub changed: bool,
}

/// What is withdrawn.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Withdraw {
    /// A signed record without addresses and with a higher number than the one that it ends, base64.
    pub record: String,
}

/// It is withdrawn.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Withdrawn {
    /// Who, in base58.
    pub peer_id: String,
    /// The sequence number, which a record that is published again has to exceed.
    #[serde(with = "text_u64")]
    pub seq: u64,
    /// Whether there was something to end.
    pub changed: bool,
}

/// How a doorway is. 503 if it is not well.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Health {
    /// Whether it can answer for its records.
    pub ok: bool,
    /// In words.
    pub text: String,
    /// What the records are kept in.
    pub backing: Backing,
    /// Program and version.
    pub agent: String,
    /// For how long it runs, in seconds.
    pub uptime_s: u64,
}

/// What records are kept in. Several doorways behind one name must all say [`Backing::Redis`]: one that does not is an
/// island, whose peers the others don't know.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Backing {
    /// In this process only: gone with it.
    Memory,
    /// On this machine's disk.
    Sqlite,
    /// In a Redis or Valkey server, which several doorways share.
    Redis,
}

/// The form in which Elohim's doorways tell their peers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FederationPeers {
    /// Some of them.
    pub peers: Vec<FederationPeer>,
    /// How many there are.
    pub total: u64,
}

/// A peer in that form. Nothing of it is signed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FederationPeer {
    /// Who.
    pub peer_id: String,
    /// Where.
    #[serde(default)]
    pub multiaddrs: Vec<String>,
    /// What it can do.
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// Whether it can be reached directly (`public`) or only through relays (`private`), where that is known.
    #[serde(default)]
    pub nat_status: Option<String>,
}

/// Every answer with a status of 400 and above (`application/problem+json`, RFC 9457).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Problem {
    /// A word for programs; see [`ProblemKind`].
    #[serde(rename = "type")]
    pub kind: ProblemKind,
    /// What kind of problem, for people.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What is wrong here, where, and what to do.
    pub detail: String,
    /// For [`ProblemKind::Stale`]: the sequence number that is to be exceeded.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "some_text_u64")]
    pub seq: Option<u64>,
    /// When to try again, in seconds; the header `Retry-After` says the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_s: Option<u64>,
}

/// Kinds of problems, each with its HTTP status.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemKind {
    /// 400: query or body can't be read.
    BadRequest,
    /// 400: the path names no peer.
    BadPeer,
    /// 401: the network needs a token, or another one.
    Unauthorized,
    /// 404: there is no such path.
    NoSuchEndpoint,
    /// 404: the doorway does not serve this network.
    UnknownNetwork,
    /// 404: there is no live record of this peer.
    NotFound,
    /// 405: the path is right, the method is not.
    WrongMethod,
    /// 408: the request did not come whole in time.
    TimedOut,
    /// 409: a record with a higher number, or another one with the same, was there already.
    Stale,
    /// 413: the body, the record or its list of addresses is too long.
    TooLarge,
    /// 415: a body of another kind.
    WrongMediaType,
    /// 422: it is no record, or not signed by this peer.
    BadSignature,
    /// 422: the sequence number is one that nobody could exceed any more.
    BadSequence,
    /// 422: an address that may not be published, or none, or one where there should be none.
    BadAddress,
    /// 429: too many requests from this network.
    TooManyRequests,
    /// 429: too many live records from this network.
    TooManyRecords,
    /// 503: there is no room for more records.
    Full,
    /// 503: the store does not answer.
    StoreDown,
    /// Something that a later version knows.
    #[serde(other)]
    Other,
}

impl ProblemKind {
    /// All kinds but the unknown one.
    pub const ALL: [Self; 18] = [
        Self::BadRequest,
        Self::BadPeer,
        Self::Unauthorized,
        Self::NoSuchEndpoint,
        Self::UnknownNetwork,
        Self::NotFound,
        Self::WrongMethod,
        Self::TimedOut,
        Self::Stale,
        Self::TooLarge,
        Self::WrongMediaType,
        Self::BadSignature,
        Self::BadSequence,
        Self::BadAddress,
        Self::TooManyRequests,
        Self::TooManyRecords,
        Self::Full,
        Self::StoreDown,
    ];

    /// The HTTP status.
    pub const fn status(self) -> u16 {
        match self {
            Self::BadRequest | Self::BadPeer => 400,
            Self::Unauthorized => 401,
            Self::NoSuchEndpoint | Self::UnknownNetwork | Self::NotFound => 404,
            Self::WrongMethod => 405,
            Self::TimedOut => 408,
            Self::Stale => 409,
            Self::TooLarge => 413,
            Self::WrongMediaType => 415,
            Self::BadSignature | Self::BadSequence | Self::BadAddress => 422,
            Self::TooManyRequests | Self::TooManyRecords => 429,
            Self::Other => 500,
            Self::Full | Self::StoreDown => 503,
        }
    }

    /// What kind of problem, for people.
    pub const fn title(self) -> &'static str {
        match self {
            Self::BadRequest => "the request can't be read",
            Self::BadPeer => "no peer's name",
            Self::Unauthorized => "a token is needed",
            Self::NoSuchEndpoint => "no such path",
            Self::UnknownNetwork => "unknown network",
            Self::NotFound => "no live record",
            Self::WrongMethod => "wrong method",
            Self::TimedOut => "timed out",
            Self::Stale => "not newer than what is there",
            Self::TooLarge => "too large",
            Self::WrongMediaType => "wrong media type",
            Self::BadSignature => "not signed by this peer",
            Self::BadSequence => "unusable sequence number",
            Self::BadAddress => "unfit address",
            Self::TooManyRequests => "too many requests",
            Self::TooManyRecords => "too many records",
            Self::Full => "no room",
            Self::StoreDown => "the store does not answer",
            Self::Other => "unknown problem",
        }
    }

    /// The word for programs.
    pub fn word(self) -> String {
        match serde_json::to_value(self) {
            Ok(serde_json::Value::String(word)) => word,
            Ok(_) | Err(_) => "other".to_owned(),
        }
    }
}

impl Problem {
    /// A problem of this kind.
    pub fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        let (title, status) = (kind.title().into(), kind.status());
        Self { kind, title, status, detail: detail.into(), seq: None, retry_after_s: None }
    }
}

impl Record {
    /// What the peer itself has said, its signature checked. Everything else in here is only the doorway's word.
    ///
    /// # Errors
    /// Why it is not to be believed.
    pub fn verify(&self) -> Result<Said, BadRecord> {
        let peer: PeerId = self.peer_id.parse().map_err(|_| BadRecord::Key)?;
        let bytes = bytes_of(&self.record)?;
        let record = record::verify(&peer, &bytes)?;
        Ok(Said { peer, seq: record.seq(), addresses: record.addresses().to_vec() })
    }
}

/// A record as the text that stands in a body.
pub fn text_of(record: &[u8]) -> String {
    BASE64.encode(record)
}

/// The record that stands as text in a body.
///
/// # Errors
/// [`BadRecord::Size`] before anything is decoded, [`BadRecord::Signature`] for what is not base64.
pub fn bytes_of(text: &str) -> Result<Vec<u8>, BadRecord> {
    if text.len() > BASE64.encode_len(record::MAX_RECORD) {
        return Err(BadRecord::Size);
    }
    BASE64.decode(text.as_bytes()).map_err(|_| BadRecord::Signature)
}

mod text_u64 {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(number: &u64, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(number)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

mod some_text_u64 {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    #[expect(clippy::ref_option, reason = "serde's signature")]
    pub(super) fn serialize<S: Serializer>(number: &Option<u64>, to: S) -> Result<S::Ok, S::Error> {
        match number {
            Some(number) => to.collect_str(number),
            None => to.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
        Option::<String>::deserialize(from)?.map(|text| text.parse().map_err(D::Error::custom)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use libp2p::identity::Keypair;

    use super::*;

    #[test]
    fn a_record_of_a_lying_doorway_is_not_believed() {
        let key = Keypair::generate_ed25519();
        let bytes = record::sign(&key, 5, &["/ip4/45.10.20.1/tcp/1".parse().unwrap()]).unwrap();
        let honest = Record {
            peer_id: key.public().to_peer_id().to_string(),
            addrs: vec!["/ip4/45.9.9.9/tcp/9".to_owned()],
            expires: 1,
            expires_in_s: 1,
            seq: 99,
            services: Vec::new(),
            record: text_of(&bytes),
        };
        let said = honest.verify().unwrap();
        assert_eq!((said.seq, said.addresses[0].to_string()), (5, "/ip4/45.10.20.1/tcp/1".to_owned()));
        let other = Keypair::generate_ed25519().public().to_peer_id().to_string();
        assert_eq!(Record { peer_id: other, ..honest.clone() }.verify(), Err(BadRecord::Signature));
        assert_eq!(Record { record: "%".to_owned(), ..honest.clone() }.verify(), Err(BadRecord::Signature));
        assert_eq!(Record { record: "A".repeat(4000), ..honest.clone() }.verify(), Err(BadRecord::Size));
        assert_eq!(Record { peer_id: String::new(), ..honest }.verify(), Err(BadRecord::Key));
    }

    #[test]
    fn large_numbers_are_text_and_unknown_words_are_read() {
        let problem = Problem { seq: Some(u64::MAX), ..Problem::new(ProblemKind::Stale, "x") };
        let text = serde_json::to_string(&problem).unwrap();
        assert!(text.contains(r#""type":"stale""#) && text.contains(r#""seq":"18446744073709551615""#), "{text}");
        assert_eq!(serde_json::from_str::<Problem>(&text).unwrap(), problem);
        let without = serde_json::to_string(&Problem::new(ProblemKind::Full, "x")).unwrap();
        assert_eq!(serde_json::from_str::<Problem>(&without).unwrap().seq, None);
        assert_eq!(serde_json::from_str::<Service>("\"teleport\"").unwrap(), Service::Other);
        assert_eq!(serde_json::from_str::<ProblemKind>("\"bored\"").unwrap(), ProblemKind::Other);
    }
}
