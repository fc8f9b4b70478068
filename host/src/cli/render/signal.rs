//! Signal servers.

use kinfolk_shell::api::types::{SignalServer, SignalState};

use super::text::{count, span};

/// Not asked, asked in vain and asked without an answer are different things.
pub(super) fn lines(servers: &[SignalServer]) -> impl Iterator<Item = String> {
    servers.iter().map(|server| {
        let asked = match (server.state, server.answered_s_ago) {
            (SignalState::NotAsked, _) => "not asked so far".to_owned(),
            (SignalState::Answered, ago) => {
                let peers = match server.peers {
                    0 => "knows nobody else".to_owned(),
                    peers => format!("tells {}", count(peers.into(), "peer", "peers")),
                };
                let ago = ago.map(|ago| format!(" ({} ago)", span(ago))).unwrap_or_default();
                format!("{peers}{ago}")
            }
            (SignalState::Failed, _) => {
                let tries = count(server.failures.into(), "try", "tries");
                let error = server.error.as_deref().unwrap_or("no answer");
                let next = server.retry_in_s.map(|wait| format!(", next in {}", span(wait))).unwrap_or_default();
                format!("failed in {tries} ({error}){next}")
            }
        };
        let ours = match (server.published_for_s, &server.publish_error) {
            (_, Some(error)) => format!("; our record is not taken: {error}"),
            (Some(left), None) => format!("; has our record for {}", span(left)),
            (None, None) => String::new(),
        };
        let backing = server.backing.map(|backing| format!("; keeps them in {backing}")).unwrap_or_default();
        format!("{}: {asked}{ours}{backing}", server.server)
    })
}
