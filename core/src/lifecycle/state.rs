use core::fmt;

/// A peer's place in its life.
///
/// The state follows from what stands; it is never set by hand:
///
/// | state | holds while |
/// |---|---|
/// | `Discovered` | known, never connected, no dial under way |
/// | `Dialing` | no connection, a dial under way |
/// | `Connected` | a connection, the peer has not introduced itself |
/// | `Identified` | a connection, and it has |
/// | `Syncing` | the same, and requests for data are open |
/// | `Disconnected` | was connected, is not, no dial under way |
/// | `Expired` | left the table |
///
/// | from | event | to |
/// |---|---|---|
/// | `Discovered`, `Disconnected` | it is dialled | `Dialing` |
/// | `Discovered`, `Dialing`, `Disconnected` | a connection stands | `Connected` |
/// | `Dialing` | the dial fails, or nobody answers in `dial_timeout` | `Discovered`, or `Disconnected` if it was connected |
/// | `Connected` | it introduces itself | `Identified` |
/// | `Connected` | it does not in `identify_timeout` | closed: `Disconnected` |
/// | `Identified` | a sync begins | `Syncing` |
/// | `Syncing` | the sync ends, or reports nothing in `sync_timeout` | `Identified` |
/// | `Connected`, `Identified`, `Syncing` | the last connection ends, or pings are lost | `Disconnected` |
/// | `Discovered`, `Disconnected` | nobody speaks of it for `expire_after` | `Expired` |
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum State {
    /// Known, and not connected so far.
    Discovered,
    /// A connection is being tried.
    Dialing,
    /// A connection stands.
    Connected,
    /// It has introduced itself.
    Identified,
    /// Data is being exchanged.
    Syncing,
    /// Was connected.
    Disconnected,
    /// Given up; it is not in the table any more.
    Expired,
}

impl State {
    /// Its name, in lower case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Discovered => "discovered",
            Self::Dialing => "dialing",
            Self::Connected => "connected",
            Self::Identified => "identified",
            Self::Syncing => "syncing",
            Self::Disconnected => "disconnected",
            Self::Expired => "expired",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
