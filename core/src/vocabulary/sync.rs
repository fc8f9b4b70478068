//! Words for the exchange of logs.
//!
//! A log has one author, named by its peer id: entries numbered from 1 on, signed by the author, each naming the hash of
//! the one before. Its *position* is the number of its last entry, 0 when there is none. An author that has lost its log
//! begins a new one, of a higher *epoch*; the earlier ones stay what they are, and travel like any other.

use alloc::string::{String, ToString};
use core::{fmt, fmt::Write, ops::RangeInclusive, str::FromStr, time::Duration};

use super::{PeerId, Service};

/// The hash of an entry. The core only compares it; which hash it is, the shell knows. Its text is hexadecimal.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "String", into = "String"))]
pub struct EntryHash(pub [u8; 32]);

/// Logs of one author that are exchanged: those of the newest epochs that a node holds. Older ones stay in its store.
/// Whoever begins anew at each start, as with a disk that forgets, does not take the room of all others.
pub const MAX_EPOCHS: usize = 16;

/// Names a log. Its text is the author's id, and after a `/` the epoch if that is not 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "String", into = "String"))]
pub struct LogId {
    /// Whose.
    pub author: PeerId,
    /// The author's count of its beginnings anew, from 0 on.
    pub epoch: u64,
}

/// How far a log goes.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Head {
    /// The last entry's number; 0 for none.
    pub position: u64,
    /// The last entry's hash; all zero for none.
    pub hash: EntryHash,
}

/// How far which log goes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct LogHead {
    /// Which.
    pub log: LogId,
    /// How far.
    pub head: Head,
}

/// What a peer says of its logs.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Told {
    /// It has exactly what we have: the digests of all heads are equal.
    Same,
    /// It has something else than we have, and has not said what.
    Differs,
    /// It has these, at most 64 in one event. As the answer to an exchange: these and no others, once the last event of
    /// the answer is here. Otherwise others stay as they were.
    Heads(alloc::vec::Vec<LogHead>),
}

/// Why an exchange of positions or a range of entries came to nothing.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum SyncError {
    /// No answer in time.
    TimedOut,
    /// The connection has ended.
    ConnectionLost,
    /// The peer does not speak our protocol of logs.
    Unsupported,
    /// The peer says that it has no time now.
    Busy,
    /// The peer says that its data is not for us.
    Denied,
    /// The peer says that it has no such entries.
    NotThere,
    /// Its message can't be read, or is larger than allowed.
    Malformed,
    /// Its entries do not begin where they were to begin, or leave some out.
    Gap,
    /// An entry is not signed by the author, or not of this log.
    Forged,
    /// The author has signed two entries with the same number. Ours stays; the other one is kept apart.
    Forked {
        /// The entries' number.
        position: u64,
    },
    /// Our own store takes no more for now.
    StoreBusy,
    /// Our own store can't write.
    StoreFailed,
    /// Our own store has no room for more of this log.
    LogFull,
    /// It said that it had entries, or another entry than we have, and has not.
    NothingCame,
    /// A log of it has become shorter.
    WentBack,
    /// Anything else; the library's words, at most 200 characters.
    Other(String),
}

/// Settings of the exchange of logs.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
pub struct SyncConfig {
    /// With whom logs are exchanged, both ways; default `auto`: members, which today are the pinned peers. `anyone`
    /// gives all entries to everyone who knows the network's name.
    pub with: Service,
    /// How often positions are compared with a peer when nothing happens, ±20 %; default 5 min: 12 exchanges an hour
    /// and peer, of about 300 bytes each while nothing changes.
    pub every: Duration,
    /// New entries are announced after this, so that many are announced at once; default 100 ms. Entries of others wait
    /// up to ten times as long: by then most peers know them from their author.
    pub announce_after: Duration,
    /// An exchange of positions without answer is given up after this; default 15 s.
    pub exchange_timeout: Duration,
    /// A range of entries that is not here and stored after this is given up, and asked of another peer; default 60 s.
    pub fetch_timeout: Duration,
    /// First wait after something came to nothing with a peer, doubled each time up to `retry_max`; default 5 s.
    pub retry: Duration,
    /// See `retry`; default 10 min. A peer that sends entries which can't be right waits as long at once.
    pub retry_max: Duration,
    /// Entries asked for at once; default 4 096. What they may weigh is the shell's bound on a message: larger values
    /// help only with tiny entries.
    pub range: u32,
    /// Ranges under way at once; default 4 (server 16). Each may hold a message in memory.
    pub max_fetches: u32,
    /// Ranges under way at once from one peer; default 2. A log is fetched from one peer at a time.
    pub max_fetches_per_peer: u32,
    /// Logs known at most, of our own and those that peers speak of; default 256 (server 1 024). Each costs about 200
    /// bytes, and about 100 for each peer that has it.
    pub max_logs: u32,
    /// Relayed connections carry entries only where the relay allows at least so many bytes and ten minutes, or sets no
    /// limit; positions go over any. Default 16 MiB: the library's own relays allow 128 KiB, Kinfolk's 128 MiB and more.
    pub relay_bytes: u64,
    /// What the logs of others may take on the disk; default 4 GiB. One author's may take as much as it leaves free, so half
    /// of it at most. It is the shell's own store that keeps to this.
    pub room: u64,
}

impl Default for SyncConfig {
    fn default() -> Self {
        Self {
            with: Service::Auto,
            every: Duration::from_secs(300),
            announce_after: Duration::from_millis(100),
            exchange_timeout: Duration::from_secs(15),
            fetch_timeout: Duration::from_secs(60),
            retry: Duration::from_secs(5),
            retry_max: Duration::from_secs(600),
            range: 4_096,
            max_fetches: 4,
            max_fetches_per_peer: 2,
            max_logs: 256,
            relay_bytes: 16 << 20,
            room: 4 << 30,
        }
    }
}

impl fmt::Display for EntryHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for EntryHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<EntryHash> for String {
    fn from(hash: EntryHash) -> Self {
        let mut text = Self::with_capacity(64);
        let written = write!(text, "{hash}");
        debug_assert!(written.is_ok(), "a string takes everything");
        text
    }
}

impl TryFrom<String> for EntryHash {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        const WRONG: &str = "an entry's hash is 64 hexadecimal digits";
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return Err(WRONG);
        }
        let digit = |at: usize| char::from(digits[at]).to_digit(16).ok_or(WRONG);
        let mut hash = [0; 32];
        for (at, byte) in hash.iter_mut().enumerate() {
            *byte = (digit(2 * at)? << 4 | digit(2 * at + 1)?) as u8;
        }
        Ok(Self(hash))
    }
}

impl LogId {
    /// All that an author may have, for the range of an ordered map.
    pub const fn all_of(author: PeerId) -> RangeInclusive<Self> {
        Self { author, epoch: 0 }..=Self { author, epoch: u64::MAX }
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.epoch {
            0 => write!(f, "{}", self.author),
            epoch => write!(f, "{}/{epoch}", self.author),
        }
    }
}

impl FromStr for LogId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        const WRONG: &str = "a log is named by its author's peer id, and after a / by its epoch";
        let (author, epoch) = text.split_once('/').unwrap_or((text, "0"));
        Ok(Self { author: author.parse().map_err(|_| WRONG)?, epoch: epoch.parse().map_err(|_| WRONG)? })
    }
}

impl From<LogId> for String {
    fn from(log: LogId) -> Self {
        log.to_string()
    }
}

impl TryFrom<String> for LogId {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        text.parse()
    }
}

impl fmt::Display for LogHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} up to {}", self.log, self.head.position)
    }
}

impl fmt::Display for SyncError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut => f.write_str("no answer in time"),
            Self::ConnectionLost => f.write_str("the connection has ended"),
            Self::Unsupported => f.write_str("it does not exchange logs"),
            Self::Busy => f.write_str("it has no time now"),
            Self::Denied => f.write_str("its data is not for this node"),
            Self::NotThere => f.write_str("it has no such entries"),
            Self::Malformed => f.write_str("its message can't be read"),
            Self::Gap => f.write_str("its entries leave some out"),
            Self::Forged => f.write_str("an entry is not signed by its author"),
            Self::Forked { position } => {
                write!(f, "its entry {position} is another one than ours, and both are signed")
            }
            Self::StoreBusy => f.write_str("the store of this node is busy"),
            Self::StoreFailed => f.write_str("the store of this node can't write"),
            Self::LogFull => f.write_str("this node has no room for more of that log (sync.room)"),
            Self::NothingCame => f.write_str("it has not what it said it had"),
            Self::WentBack => f.write_str("it has less than it had"),
            Self::Other(text) => f.write_str(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_s_name_is_read_as_it_is_written() {
        let author: PeerId = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN".parse().unwrap();
        let first = LogId { author, epoch: 0 };
        assert_eq!(first.to_string(), author.to_string());
        let later = LogId { author, epoch: 1_700_000_000 };
        assert!(later.to_string().ends_with("nXTN/1700000000"));
        for log in [first, later] {
            assert_eq!(log.to_string().parse(), Ok(log));
        }
        for wrong in ["", "/", "nobody", "nobody/3", &alloc::format!("{author}/"), &alloc::format!("{author}/-1")] {
            assert!(wrong.parse::<LogId>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_hash_is_read_as_it_is_written() {
        let mut hash = EntryHash([0xa7; 32]);
        hash.0[0] = 0x05;
        let text = hash.to_string();
        assert!(text.starts_with("05a7") && text.len() == 64);
        assert_eq!(EntryHash::try_from(text), Ok(hash));
        for wrong in ["", "05a7", &"g".repeat(64), &"é".repeat(32)] {
            assert!(EntryHash::try_from(wrong.to_string()).is_err(), "{wrong}");
        }
    }
}
