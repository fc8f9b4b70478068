//! libp2p's errors, in the core's words.
//!
//! Errors come as `io::Error`s around boxed errors around others; what counts lies somewhere inside.

use std::{error::Error, io};

use kinfolk_core::{DialError, ListenError, PingError, PunchError, ReserveError};
use libp2p::{
    TransportError,
    core::upgrade::NegotiationError,
    dns, noise, ping, quic,
    swarm::{self, ConnectionDenied},
};

use super::{
    gate::Refusal,
    guard::GuardError,
    ids::{peer_to_core, real_peer},
    relay::Failure,
};

/// The longest text of an error, in characters.
const MAX_TEXT: usize = 200;

/// A dial as a whole. For one with several addresses, the error that says most.
pub(super) fn of_dial(error: &swarm::DialError) -> DialError {
    match error {
        swarm::DialError::LocalPeerId { .. } => DialError::OwnIdentity,
        swarm::DialError::NoAddresses => DialError::NoAddresses,
        swarm::DialError::DialPeerConditionFalse(_) | swarm::DialError::Aborted => DialError::Cancelled,
        swarm::DialError::WrongPeerId { obtained, .. } => DialError::WrongPeer(peer_to_core(*obtained)),
        swarm::DialError::Denied { cause } => of_denied(cause),
        swarm::DialError::Transport(errors) => {
            telling(errors.iter().map(|(_, error)| of_transport(error))).unwrap_or(DialError::NoAddresses)
        }
    }
}

/// One address of a dial.
pub(super) fn of_transport(error: &TransportError<io::Error>) -> DialError {
    match error {
        TransportError::MultiaddrNotSupported(_) => DialError::Unsupported,
        TransportError::Other(error) => of_io(error),
    }
}

/// Somebody who knocked.
pub(super) fn of_knock(error: &swarm::ListenError) -> DialError {
    match error {
        swarm::ListenError::Aborted => DialError::Cancelled,
        swarm::ListenError::WrongPeerId { obtained, .. } => {
            real_peer(obtained).map_or(DialError::Handshake, DialError::WrongPeer)
        }
        swarm::ListenError::LocalPeerId { .. } => DialError::OwnIdentity,
        swarm::ListenError::Denied { cause } => of_denied(cause),
        swarm::ListenError::Transport(error) => of_transport(error),
    }
}

/// A listener that did not come up.
pub(super) fn of_listen(error: &TransportError<io::Error>) -> ListenError {
    match error {
        TransportError::MultiaddrNotSupported(_) => ListenError::Unsupported,
        TransportError::Other(error) => of_listener(error),
    }
}

/// A listener that is gone.
#[expect(clippy::wildcard_enum_match_arm, reason = "kinds of I/O errors are an open list")]
pub(super) fn of_listener(error: &io::Error) -> ListenError {
    let mut at: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = at {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            let family = error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error());
            match error.kind() {
                io::ErrorKind::AddrInUse => return ListenError::PortTaken,
                io::ErrorKind::PermissionDenied => return ListenError::Forbidden,
                io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported => return ListenError::NoSuchAddress,
                _ if family => return ListenError::NoSuchAddress,
                _ => {}
            }
        }
        at = inside(error);
    }
    ListenError::Other(text(error))
}

/// A reservation that the relay did not give.
pub(super) fn of_reserve(failure: &Failure) -> ReserveError {
    match failure {
        Failure::Refused | Failure::Denied => ReserveError::Forbidden,
        Failure::Full => ReserveError::Full,
        Failure::NotSpoken => ReserveError::Unsupported,
        Failure::TimedOut => ReserveError::TimedOut,
        Failure::Unreachable => ReserveError::ConnectionLost,
        Failure::Nonsense | Failure::NoAnswer | Failure::NoPlace | Failure::NoCircuit => ReserveError::Malformed,
        Failure::Broken(how) => ReserveError::Other(how.clone()),
    }
}

fn of_circuit(failure: &Failure) -> DialError {
    match failure {
        Failure::TimedOut => DialError::TimedOut,
        Failure::NoCircuit
        | Failure::Unreachable
        | Failure::NotSpoken
        | Failure::Nonsense
        | Failure::Broken(_)
        | Failure::Refused
        | Failure::Full
        | Failure::Denied
        | Failure::NoAnswer
        | Failure::NoPlace => DialError::Other(text(failure)),
    }
}

/// How a talk with a relay broke.
pub(super) fn of_talk(error: &(dyn Error + 'static)) -> Failure {
    for error in chain(error) {
        // Negotiated lazily, it shows only when the stream is used.
        if error.is::<NegotiationError>() {
            return Failure::NotSpoken;
        }
        match error.downcast_ref::<io::Error>().map(io::Error::kind) {
            Some(io::ErrorKind::TimedOut) => return Failure::TimedOut,
            Some(io::ErrorKind::InvalidData) => return Failure::Nonsense,
            Some(_) | None => {}
        }
    }
    Failure::Broken(text(innermost(error)))
}

/// The error, and all that lies within.
fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| inside(*error))
}

fn innermost<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    chain(error).last().unwrap_or(error)
}

/// A ping that did not come back.
pub(super) fn of_ping(error: &ping::Failure) -> PingError {
    match error {
        ping::Failure::Timeout => PingError::TimedOut,
        ping::Failure::Unsupported => PingError::Unsupported,
        ping::Failure::Other { error } => {
            let error: &(dyn Error + 'static) = error.as_ref();
            let mut at = Some(error);
            while let Some(within) = at {
                // Negotiated lazily, it shows only when the stream is used.
                if within.is::<NegotiationError>() {
                    return PingError::Unsupported;
                }
                if within.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::TimedOut) {
                    return PingError::TimedOut;
                }
                at = inside(within);
            }
            PingError::Other(text(error))
        }
    }
}

/// A talk about a direct connection that broke. The peer's end of the stream is its no.
pub(super) fn of_punch(error: &io::Error) -> PunchError {
    let mut at: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(within) = at {
        // Negotiated lazily, it shows only when the stream is read.
        if let Some(NegotiationError::Failed) = within.downcast_ref::<NegotiationError>() {
            return PunchError::NotSupported;
        }
        // Yamux, when the other side has ended the stream.
        if within.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::WriteZero) {
            return PunchError::Declined;
        }
        at = inside(within);
    }
    if is_remote_close(error) { PunchError::Declined } else { PunchError::Broken(text(error)) }
}

/// The error's words, cut to 200 characters, without control characters.
pub(super) fn text(error: &(dyn Error + 'static)) -> String {
    plain(&error.to_string(), MAX_TEXT)
}

/// `text` cut to `max` characters, with what could move a terminal's cursor replaced.
pub(super) fn plain(text: &str, max: usize) -> String {
    let replace = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    text.chars().take(max).map(replace).collect()
}

/// The one of several errors that says most about why nothing came of a dial.
pub(super) fn telling(errors: impl Iterator<Item = DialError>) -> Option<DialError> {
    errors.min_by_key(|error| match error {
        DialError::OwnIdentity => 0,
        DialError::WrongPeer(_) => 1,
        DialError::Denied => 2,
        DialError::Limit => 3,
        DialError::Handshake => 4,
        DialError::ConnectionRefused => 5,
        DialError::TimedOut => 6,
        DialError::NameNotFound => 7,
        DialError::Unreachable => 8,
        DialError::Other(_) => 9,
        DialError::Cancelled => 10,
        DialError::Unsupported => 11,
        DialError::NoAddresses => 12,
    })
}

fn of_denied(cause: &ConnectionDenied) -> DialError {
    match cause.downcast_ref::<Refusal>() {
        Some(Refusal::TooMany(_)) => DialError::Limit,
        // Also what an application's behaviour refuses.
        Some(Refusal::Denied | Refusal::NotReleased) | None => DialError::Denied,
    }
}

fn of_io(error: &io::Error) -> DialError {
    // What a relay said comes through the encryption that waited for it.
    if let Some(refused) = chain(error).find_map(|error| error.downcast_ref::<Failure>()) {
        return of_circuit(refused);
    }
    let mut at: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = at {
        if let Some(known) = known(error) {
            return known;
        }
        at = inside(error);
    }
    DialError::Other(text(error))
}

/// The error within. Some pass over their own content when asked for their source.
fn inside<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    if let Some(error) = error.downcast_ref::<io::Error>() {
        error.get_ref().map(|inner| inner as &(dyn Error + 'static))
    } else if let Some(quic::Error::Io(error)) = error.downcast_ref::<quic::Error>() {
        Some(error)
    } else {
        error.source()
    }
}

/// Whether a connection ended because the other side, or its operating system, ended it.
pub(super) fn is_remote_close(error: &io::Error) -> bool {
    let mut at: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = at {
        let by_kind = error.downcast_ref::<io::Error>().is_some_and(|error| {
            use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
            matches!(error.kind(), UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe)
        });
        // Yamux and QUIC tell it in words only.
        if by_kind || matches!(error.to_string().as_str(), "connection is closed" | "closed by peer: 0") {
            return true;
        }
        at = inside(error);
    }
    false
}

#[expect(clippy::wildcard_enum_match_arm, reason = "kinds of I/O errors are an open list")]
fn known(error: &(dyn Error + 'static)) -> Option<DialError> {
    if let Some(error) = error.downcast_ref::<io::Error>() {
        return match error.kind() {
            io::ErrorKind::ConnectionRefused => Some(DialError::ConnectionRefused),
            io::ErrorKind::TimedOut => Some(DialError::TimedOut),
            io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::AddrNotAvailable => Some(DialError::Unreachable),
            // Whoever is there hangs up on our handshake.
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe => Some(DialError::Handshake),
            // A firewall of this machine; an address of a link without saying which.
            io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput => Some(DialError::Unreachable),
            _ => None,
        };
    }
    if let Some(error) = error.downcast_ref::<GuardError>() {
        return match error {
            GuardError::NotAllowed(_) => Some(DialError::Denied),
            GuardError::TimedOut => Some(DialError::TimedOut),
            GuardError::Lookup => Some(DialError::Other(text(error))),
            GuardError::Transport(_) => None,
        };
    }
    if let Some(error) = error.downcast_ref::<dns::Error<GuardError>>() {
        return of_dns(error);
    }
    if let Some(error) = error.downcast_ref::<quic::Error>() {
        return match error {
            quic::Error::HandshakeTimedOut => Some(DialError::TimedOut),
            quic::Error::Connection(error) => Some(match error.to_string().as_str() {
                "timed out" => DialError::TimedOut,
                _ => DialError::Handshake,
            }),
            quic::Error::Reach(_) => Some(DialError::Unreachable),
            quic::Error::Io(_) => None,
            quic::Error::NoActiveListenerForDialAsListener | quic::Error::HolePunchInProgress(_) => {
                Some(DialError::Other(text(error)))
            }
        };
    }
    let handshake = error.is::<noise::Error>() || error.is::<NegotiationError>();
    handshake.then_some(DialError::Handshake)
}

fn of_dns(error: &dns::Error<GuardError>) -> Option<DialError> {
    match error {
        dns::Error::Transport(_) => None,
        dns::Error::ResolveError(error) => Some(if error.is_no_records_found() {
            DialError::NameNotFound
        } else {
            DialError::Other(plain(&format!("the name can't be looked up: {error}"), MAX_TEXT))
        }),
        dns::Error::MultiaddrNotSupported(_) => Some(DialError::Unsupported),
        dns::Error::TooManyLookups => Some(DialError::Other(text(error))),
        dns::Error::Dial(errors) => telling(errors.iter().map(|error| {
            let mut at: Option<&(dyn Error + 'static)> = Some(error);
            while let Some(error) = at {
                if let Some(known) = known(error) {
                    return known;
                }
                at = inside(error);
            }
            DialError::Other(text(error))
        })),
    }
}
