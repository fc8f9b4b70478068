//! What doorways keep records in. Each backing behaves the same; the tests hold them against one table.

mod memory;
mod redis;
mod sqlite;

use std::{net::IpAddr, path::PathBuf, time::Duration};

use futures::future::BoxFuture;
use kinfolk_shell::signal::{
    key::PeerKey,
    types::{Backing, Service},
};

pub use self::{memory::Memory, redis::Redis, sqlite::Sqlite};

/// For how long it is remembered which sequence number a record had that is over: so long it can't be brought back by
/// somebody who has kept it.
pub const FLOOR_KEPT: Duration = Duration::from_secs(24 * 3_600);

/// How much is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Room {
    /// Live records per network. As many sequence numbers of records that are over are remembered beside them.
    pub records: u32,
    /// Live records per network that were published from one /24 or, for IPv6, /48.
    pub per_prefix: u32,
}

/// What a peer does for others, packed.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Services(u8);

/// A record that is to be kept, checked.
#[derive(Clone, Copy, Debug)]
pub struct Offer<'a> {
    /// In which network.
    pub network: &'a str,
    /// Whose.
    pub key: PeerKey,
    /// Its number.
    pub seq: u64,
    /// Itself.
    pub record: &'a [u8],
    /// What the peer does for others.
    pub services: Services,
    /// Until when, in seconds since 1970.
    pub expires: u64,
    /// Where it was published from: a /24 or /48.
    pub prefix: IpAddr,
}

/// A live record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Kept {
    /// Whose.
    pub key: PeerKey,
    /// Itself.
    pub record: Vec<u8>,
    /// What the peer does for others.
    pub services: Services,
    /// Until when, in seconds since 1970.
    pub expires: u64,
}

/// What became of an offer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Taken {
    /// It is kept now.
    Yes,
    /// It was there already, until then.
    Before {
        /// In seconds since 1970.
        expires: u64,
    },
    /// This number has to be exceeded.
    Stale {
        /// The highest so far.
        seq: u64,
    },
    /// There is no room for more from this prefix.
    Crowded,
    /// There is no room for more.
    Full,
}

/// What became of a withdrawal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// The record is gone.
    Yes,
    /// There was none.
    Nothing,
    /// This number has to be exceeded.
    Stale {
        /// The highest so far.
        seq: u64,
    },
}

/// Some live records, and how many there are.
pub type Sample = (Vec<Kept>, u64);

/// The backing does not answer. The text is for operators, not for clients.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Down(pub String);

/// Why a backing can't be used at all.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another doorway has the file.
    #[error("{} is in use by another doorway; stop that one, or choose another folder with --data-dir", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// A later version's.
    #[error("{} was written by a newer version of Kinfolk; use that version, or move the file away", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
    },
    /// Anything else about a file.
    #[error("can't open {}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No Redis server's.
    #[error("{0}")]
    Redis(String),
}

/// The answer of a backing.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, Down>>;

/// A backing. `now` is in seconds since 1970; networks are named as they are served.
pub trait Store: Send + Sync {
    /// Which.
    fn backing(&self) -> Backing;

    /// Keeps a record, if it is newer than what is known of its peer in the network, and there is room.
    fn put<'a>(&'a self, offer: Offer<'a>, now: u64) -> Answer<'a, Taken>;

    /// Ends a record by a newer number.
    fn end<'a>(&'a self, network: &'a str, key: PeerKey, seq: u64, now: u64) -> Answer<'a, Ended>;

    /// The live record of a peer.
    fn get<'a>(&'a self, network: &'a str, key: PeerKey, now: u64) -> Answer<'a, Option<Kept>>;

    /// At most `limit` live records, each as likely as any other, but for a quarter of the places, which peers with
    /// services are drawn for first. With `service`, only such peers.
    fn sample<'a>(&'a self, network: &'a str, limit: usize, service: Option<Service>, now: u64) -> Answer<'a, Sample>;

    /// How many live records there are.
    fn total<'a>(&'a self, network: &'a str, now: u64) -> Answer<'a, u64>;

    /// Whether it answers.
    fn check(&self) -> Answer<'_, ()>;

    /// Puts everything where it stays.
    fn close(&self) -> Answer<'_, ()>;
}

impl Services {
    const KNOWN: [(Service, u8); 2] = [(Service::Relay, 1), (Service::Bootstrap, 2)];

    /// Packs them; unknown ones are left out.
    pub fn of(services: &[Service]) -> Self {
        let known = Self::KNOWN.iter().filter(|(service, _)| services.contains(service));
        Self(known.fold(0, |all, (_, bit)| all | bit))
    }

    /// What they are.
    pub fn list(self) -> Vec<Service> {
        Self::KNOWN.iter().filter(|(_, bit)| self.0 & bit != 0).map(|(service, _)| *service).collect()
    }

    /// Whether this one is among them.
    pub fn has(self, service: Service) -> bool {
        Self::KNOWN.iter().any(|(known, bit)| *known == service && self.0 & bit != 0)
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    fn bits(self) -> u8 {
        self.0
    }

    fn from_bits(bits: u8) -> Self {
        Self(bits & 3)
    }
}

/// How many of the places peers with services are drawn for first.
fn first_places(limit: usize) -> usize {
    limit.div_ceil(4)
}
