//! Bootstrap peers.

use kinfolk_shell::api::types::Bootstrap;

use super::{
    super::program::typed,
    text::{count, span},
};
use crate::{plain_text, short_name};

/// `kinfolk bootstrap list`.
pub(crate) fn bootstrap(peers: &[Bootstrap]) -> String {
    if peers.is_empty() {
        return format!("no bootstrap peers; {} adds one\n", typed("bootstrap add MULTIADDR"));
    }
    lines(peers).map(|line| plain_text(&line) + "\n").collect()
}

pub(super) fn lines(peers: &[Bootstrap]) -> impl Iterator<Item = String> {
    peers.iter().map(|bootstrap| {
        let who = bootstrap.peer.as_ref().map(|peer| format!(", peer {}", short_name(peer))).unwrap_or_default();
        let state = match (bootstrap.connected, bootstrap.failures, bootstrap.retry_in_s) {
            (true, _, _) => "connected".to_owned(),
            (false, 0, None) => "in reserve, enough others are connected".to_owned(),
            (false, 0, Some(_)) => "not connected".to_owned(),
            (false, failures, wait) => {
                let tries = count(failures.into(), "try", "tries");
                let next = wait.map(|wait| format!(", next in {}", span(wait))).unwrap_or_default();
                format!("no answer in {tries}{next}")
            }
        };
        format!("{}: {state}{who}", bootstrap.address)
    })
}
