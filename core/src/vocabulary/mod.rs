//! The words that the core shares with the world around it.
//!
//! Plain data only: everything here can be cloned, compared, printed and (feature `serde`) recorded. A trace is made
//! of nothing else, so a change here is a change of the trace format.

mod address;
mod command;
mod config;
mod event;
mod ids;
mod notice;
mod peer_id;
mod reason;
mod scope;
mod signal;
mod sync;
mod time;
mod traversal;

pub use address::{Address, AddressError, Circuit, NameKind, PeerAddress, Transport};
pub use command::{Action, Answer, AskError, Command, PunchWire, Query};
pub use config::{
    BootstrapConfig, Config, ConfigError, KademliaMode, LifecycleConfig, NatConfig, PinnedPeer, Protocols, RelayLimits,
    Role, Service, ValidConfig,
};
pub use event::{
    Ask, Asker, CircuitLimit, CloseCause, DialError, Direction, Event, Identity, Interfaces, ListenError, Origin,
    PingError, Prefix, Refusal, Source, Started, StoredAddress, StoredMapping, StoredNat, StoredPeer,
};
pub use ids::{CommandId, ConnectionId, HeldId, ListenerId, OfferId, RequestId};
pub use notice::{Health, Notice, Path, Reachability};
pub use peer_id::{PeerId, PeerIdError};
pub use reason::Reason;
pub use scope::{Scope, network_of};
pub use signal::{SignalBacking, SignalConfig, SignalErrand, SignalError, SignalPeer, SignalServices};
pub use sync::{EntryHash, Head, LogHead, LogId, MAX_EPOCHS, SyncConfig, SyncError, Told};
pub use time::Time;
pub use traversal::{Audience, Impasse, Mapping, NatFinding, ProbeVerdict, PunchError, PunchRole, ReserveError};
