use kinfolk_core::{Action, DialError, Event, Notice};

macro_rules! kinds {
    ($(#[$doc:meta])* $all:ident, $(#[$fn_doc:meta])* $of:ident($type:ty) { $($pattern:pat => $name:literal,)* }) => {
        $(#[$doc])*
        pub const $all: &[&str] = &[$($name),*];

        $(#[$fn_doc])*
        pub const fn $of(of: &$type) -> &'static str {
            match of {
                $($pattern => $name,)*
            }
        }
    };
}

kinds! {
    /// The kinds of events, as they are called in a trace.
    EVENTS,
    /// An event's kind.
    event_kind(Event) {
        Event::Wake => "wake",
        Event::Started(_) => "started",
        Event::Configured(_) => "configured",
        Event::StoreLoaded { .. } => "store_loaded",
        Event::Asked { .. } => "asked",
        Event::Interfaces(_) => "interfaces",
        Event::WallClock { .. } => "wall_clock",
        Event::Resumed { .. } => "resumed",
        Event::Listening { .. } => "listening",
        Event::ListenAddressGone { .. } => "listen_address_gone",
        Event::ListenFailed { .. } => "listen_failed",
        Event::Found { .. } => "found",
        Event::Lost { .. } => "lost",
        Event::OwnIdentitySeen { .. } => "own_identity_seen",
        Event::Connected { .. } => "connected",
        Event::Disconnected { .. } => "disconnected",
        Event::DialFailed { .. } => "dial_failed",
        Event::InboundFailed { .. } => "inbound_failed",
        Event::DialHeld { .. } => "dial_held",
        Event::HeldFailed { .. } => "held_failed",
        Event::Identified { .. } => "identified",
        Event::IdentifyFailed { .. } => "identify_failed",
        Event::Pinged { .. } => "pinged",
        Event::Candidate { .. } => "candidate",
        Event::Confirmed { .. } => "confirmed",
        Event::Unconfirmed { .. } => "unconfirmed",
        Event::Probed { .. } => "probed",
        Event::Reserved { .. } => "reserved",
        Event::ReservedAt { .. } => "reserved_at",
        Event::ReservationEnded { .. } => "reservation_ended",
        Event::CircuitLimited { .. } => "circuit_limited",
        Event::CircuitUsed { .. } => "circuit_used",
        Event::Serving { .. } => "serving",
        Event::PunchOffered { .. } => "punch_offered",
        Event::PunchAnswered { .. } => "punch_answered",
        Event::PunchFailed { .. } => "punch_failed",
        Event::Gateway { .. } => "gateway",
        Event::PortMapped { .. } => "port_mapped",
        Event::PortUnmapped { .. } => "port_unmapped",
        Event::Routed { .. } => "routed",
        Event::QueryFound { .. } => "query_found",
        Event::QueryEnded { .. } => "query_ended",
        Event::SignalFound { .. } => "signal_found",
        Event::SignalPublished { .. } => "signal_published",
        Event::SignalFailed { .. } => "signal_failed",
        Event::SyncHeads { .. } => "sync_heads",
        Event::SyncTold { .. } => "sync_told",
        Event::SyncFetched { .. } => "sync_fetched",
        Event::SyncFailed { .. } => "sync_failed",
        Event::SyncPressure { .. } => "sync_pressure",
        Event::Refused { .. } => "refused",
    }
}

kinds! {
    /// The kinds of commands, as they are called in a trace.
    COMMANDS,
    /// A command's kind.
    command_kind(Action) {
        Action::Dial { .. } => "dial",
        Action::Close { .. } => "close",
        Action::Release { .. } => "release",
        Action::Refuse { .. } => "refuse",
        Action::Deny { .. } => "deny",
        Action::Admit { .. } => "admit",
        Action::Listen { .. } => "listen",
        Action::Advertise { .. } => "advertise",
        Action::Withdraw { .. } => "withdraw",
        Action::PushIdentity => "push_identity",
        Action::Probe { .. } => "probe",
        Action::CancelProbe { .. } => "cancel_probe",
        Action::Reserve { .. } => "reserve",
        Action::Unreserve { .. } => "unreserve",
        Action::Punch { .. } => "punch",
        Action::AnswerPunch { .. } => "answer_punch",
        Action::RefusePunch { .. } => "refuse_punch",
        Action::CancelPunch { .. } => "cancel_punch",
        Action::MapPort { .. } => "map_port",
        Action::UnmapPort { .. } => "unmap_port",
        Action::SetServices { .. } => "set_services",
        Action::SetMember { .. } => "set_member",
        Action::SetKademliaServer { .. } => "set_kademlia_server",
        Action::Route { .. } => "route",
        Action::Unroute { .. } => "unroute",
        Action::Query(_) => "query",
        Action::CancelQuery { .. } => "cancel_query",
        Action::SignalQuery { .. } => "signal_query",
        Action::SignalPublish { .. } => "signal_publish",
        Action::SignalCancel { .. } => "signal_cancel",
        Action::SetSync { .. } => "set_sync",
        Action::SyncExchange { .. } => "sync_exchange",
        Action::SyncAnnounce { .. } => "sync_announce",
        Action::SyncFetch { .. } => "sync_fetch",
        Action::SyncCancel { .. } => "sync_cancel",
        Action::Remember(_) => "remember",
        Action::RememberNat(_) => "remember_nat",
        Action::Forget { .. } => "forget",
        Action::Answer { .. } => "answer",
        Action::Tell(_) => "tell",
    }
}

kinds! {
    /// The kinds of notices (the command `tell`), as they are called in a trace.
    NOTICES,
    /// A notice's kind.
    notice_kind(Notice) {
        Notice::PeerDiscovered { .. } => "peer_discovered",
        Notice::PeerConnected { .. } => "peer_connected",
        Notice::PeerIdentified { .. } => "peer_identified",
        Notice::PathChanged { .. } => "path_changed",
        Notice::PeerSyncing { .. } => "peer_syncing",
        Notice::PeerSynced { .. } => "peer_synced",
        Notice::PeerLag { .. } => "peer_lag",
        Notice::EntriesReceived { .. } => "entries_received",
        Notice::SyncFailed { .. } => "sync_failed",
        Notice::LogForked { .. } => "log_forked",
        Notice::PeerDisconnected { .. } => "peer_disconnected",
        Notice::PeerExpired { .. } => "peer_expired",
        Notice::PeerDeferred { .. } => "peer_deferred",
        Notice::PeerUnreachable { .. } => "peer_unreachable",
        Notice::PeerDistrusted { .. } => "peer_distrusted",
        Notice::OwnIdentitySeen { .. } => "own_identity_seen",
        Notice::Punched { .. } => "punched",
        Notice::NotPunched { .. } => "not_punched",
        Notice::StaysRelayed { .. } => "stays_relayed",
        Notice::RelayHeld { .. } => "relay_held",
        Notice::RelayNotHeld { .. } => "relay_not_held",
        Notice::PortMapped { .. } => "port_mapped",
        Notice::PortNotMapped { .. } => "port_not_mapped",
        Notice::NatFound { .. } => "nat_found",
        Notice::Listening { .. } => "listening",
        Notice::NotListening { .. } => "not_listening",
        Notice::PortTaken { .. } => "port_taken",
        Notice::HealthChanged { .. } => "health_changed",
        Notice::ReachabilityChanged { .. } => "reachability_changed",
        Notice::SignalAnswers { .. } => "signal_answers",
        Notice::SignalFailed { .. } => "signal_failed",
        Notice::BootstrapFailed { .. } => "bootstrap_failed",
    }
}

/// How a dial failed, as it is called in a trace.
pub const fn dial_error_kind(error: &DialError) -> &'static str {
    match error {
        DialError::ConnectionRefused => "connection_refused",
        DialError::TimedOut => "timed_out",
        DialError::Unreachable => "unreachable",
        DialError::NameNotFound => "name_not_found",
        DialError::WrongPeer(_) => "wrong_peer",
        DialError::OwnIdentity => "own_identity",
        DialError::Handshake => "handshake",
        DialError::Unsupported => "unsupported",
        DialError::NoAddresses => "no_addresses",
        DialError::Limit => "limit",
        DialError::Denied => "denied",
        DialError::Cancelled => "cancelled",
        DialError::Other(_) => "other",
    }
}
