//! How a peer is reached, and why not better, for somebody who has never heard of NATs.

use kinfolk_shell::api::types::{PathKind, Peer, Punching};

use super::text::{count, span};
use crate::short_name;

/// Where things stand with a peer, in a sentence: "relayed through …zHZrFxk2: your NAT gives each destination another
/// port, and so does theirs".
pub(crate) fn situation(peer: &Peer) -> String {
    let Some(path) = &peer.path else {
        let next = peer.next_dial_in_s.map(|wait| format!("; dialled in {}", span(wait))).unwrap_or_default();
        let blocked = if peer.blocked { " (it is blocked)" } else { "" };
        return format!("not connected{blocked}{next}");
    };
    match (path.kind, &path.relay) {
        (PathKind::Local | PathKind::Direct, _) => format!("connected {path}"),
        (PathKind::Relayed, relay) => {
            let relay = relay.as_ref().map_or_else(|| "a relay".to_owned(), short_name);
            format!("relayed through {relay}: {}", why_relayed(peer.punching.as_ref()))
        }
    }
}

/// Why a peer stays on a relay, or what is being done about it.
pub(super) fn why_relayed(punching: Option<&Punching>) -> String {
    let Some(punching) = punching else { return "no direct connection was tried so far".to_owned() };
    let next = punching.next_in_s.map(|wait| format!("next try in {}", span(wait)));
    let said = match (punching.trying, &punching.impasse_text, &punching.last_error, punching.attempts) {
        (true, _, _, _) => return "a direct connection is being tried".to_owned(),
        (false, Some(impasse), _, _) => impasse.clone(),
        (false, None, Some(error), 0 | 1) => format!("a direct connection was tried and failed ({error})"),
        (false, None, Some(error), tries) => {
            format!("{} of a direct connection failed ({error})", count(tries.into(), "try", "tries"))
        }
        (false, None, None, _) => match &next {
            Some(next) => return format!("no direct connection so far, {next}"),
            None => "no direct connection was tried so far".to_owned(),
        },
    };
    match next {
        Some(next) => format!("{said}; {next}"),
        None => said,
    }
}
