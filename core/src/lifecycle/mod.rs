//! lifecycle

use core::fmt;

/// A peer's place in its life.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum State {
    /// Known, and not connected so far.
    Discovered,
    /// A first connection is being tried.
    Dialing,
    /// A connection stands.
    Connected,
    /// It has introduced itself.
    Identified,
    /// Data is being exchanged.
    Syncing,
    /// Was connected.
    Disconnected,
    /// Given up; the next moment it is not in the table any more.
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
