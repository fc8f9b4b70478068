use core::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $letter:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
        pub struct $name(pub u64);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($letter, "{}"), self.0)
            }
        }
    };
}

id! {
    /// A command, numbered by the core from 1 on. Answers name it.
    CommandId, "c"
}
id! {
    /// A connection, numbered by the shell from 1 on, never used twice in one run.
    ConnectionId, "n"
}
id! {
    /// A listener, numbered by the shell from 1 on, never used twice in one run.
    ListenerId, "l"
}
id! {
    /// A dial that some behaviour wanted and the shell holds back until the core has answered.
    HeldId, "h"
}
id! {
    /// A request of a user or of the application, numbered by the shell. `Action::Answer` names it.
    RequestId, "r"
}
id! {
    /// A peer's proposal of a direct connection, numbered by the shell. `Action::AnswerPunch` and `RefusePunch` name it.
    OfferId, "o"
}
