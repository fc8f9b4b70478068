//! What a person types for a peer.

use kinfolk_core::PeerId;

use super::{
    failure::{Exit, Failure},
    program::typed,
};
use crate::short_name;

/// Fewer characters than this name nobody.
const SHORTEST: usize = 6;

/// How many are listed when a name fits several.
const LISTED: usize = 8;

/// A name for a peer, as it was typed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum PeerName {
    /// A whole id.
    Whole(PeerId),
    /// The end of an id, or its beginning if `end_only` is not set.
    Part {
        /// At least [`SHORTEST`] characters.
        part: String,
        /// It was typed as the program prints short names: `…zHZrFxk2`.
        end_only: bool,
    },
}

impl PeerName {
    pub(super) fn read(name: &str) -> Result<Self, Failure> {
        if let Ok(peer) = name.parse() {
            return Ok(Self::Whole(peer));
        }
        let (end_only, part) = match name.strip_prefix('…') {
            Some(rest) => (true, rest),
            None => (false, name),
        };
        if part.chars().count() < SHORTEST || !part.chars().all(|c| c.is_ascii_alphanumeric()) {
            return Err(Failure::bad_input(format!(
                "'{}' is no peer: give a peer id, or at least {SHORTEST} characters of its beginning or end",
                name.escape_debug()
            )));
        }
        Ok(Self::Part { part: part.to_owned(), end_only })
    }

    /// The one of the `known` peers that is meant; a whole id need not be known.
    pub(super) fn find(&self, known: impl IntoIterator<Item = PeerId>) -> Result<PeerId, Failure> {
        let (part, end_only) = match self {
            Self::Whole(peer) => return Ok(*peer),
            Self::Part { part, end_only } => (part.as_str(), *end_only),
        };
        let fits = |peer: &PeerId| {
            let id = peer.to_string();
            id.ends_with(part) || (!end_only && id.starts_with(part))
        };
        let found: Vec<PeerId> = known.into_iter().filter(fits).collect();
        match found.as_slice() {
            [] => Err(Failure::new(
                Exit::Declined,
                "unknown_peer",
                format!("no peer is known whose id begins or ends with '{part}'; {} lists all", typed("peers --long")),
            )),
            [peer] => Ok(*peer),
            several => Err(ambiguous(part, several)),
        }
    }
}

fn ambiguous(part: &str, peers: &[PeerId]) -> Failure {
    let mut text = format!("'{part}' fits {} peers:", peers.len());
    for peer in peers.iter().take(LISTED) {
        text.push_str(&format!("\n  {peer} ({})", short_name(peer)));
    }
    if peers.len() > LISTED {
        text.push_str(&format!("\n  and {} more", peers.len() - LISTED));
    }
    Failure::new(Exit::BadInput, "ambiguous_peer", text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Vec<PeerId> {
        [
            "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA",
            "12D3KooWQYhTNQdmr3ArTeUHRYzFg94BKyTkoWBDWez9kSCVe2Xo",
            "12D3KooWLJtG8fd2hkQzTn96MrLvThmnNQjTUFZwGEsLRz5EmSzc",
        ]
        .map(|id| id.parse().unwrap())
        .to_vec()
    }

    fn find(name: &str) -> Result<PeerId, String> {
        PeerName::read(name).and_then(|name| name.find(known())).map_err(|failure| match failure {
            Failure::Said(said) => format!("{} ({}): {}", said.error, said.exit, said.detail),
            Failure::PipeClosed | Failure::Found => unreachable!("nothing is printed"),
        })
    }

    #[test]
    fn an_end_or_a_beginning_is_enough() {
        for name in ["AJU5SA", "…eQAJU5SA", "12D3KooWD3eck", &known()[0].to_string()] {
            assert_eq!(find(name), Ok(known()[0]), "{name}");
        }
        let stranger = "12D3KooWR9AF5xYi3LtEjAsKiWsbSUhjSV8gZzRxRBH8JuY3Nca9";
        assert_eq!(find(stranger), Ok(stranger.parse().unwrap()), "a whole id need not be known");
    }

    #[test]
    fn what_fits_nobody_or_several_says_so() {
        insta::assert_snapshot!(find("5SA").unwrap_err(), @"bad_input (2): '5SA' is no peer: give a peer id, or at least 6 characters of its beginning or end");
        insta::assert_snapshot!(find("../../etc").unwrap_err(), @"bad_input (2): '../../etc' is no peer: give a peer id, or at least 6 characters of its beginning or end");
        insta::assert_snapshot!(find("nobody1").unwrap_err(), @"unknown_peer (4): no peer is known whose id begins or ends with 'nobody1'; `kinfolk peers --long` lists all");
        insta::assert_snapshot!(find("…12D3KooW").unwrap_err(), @"unknown_peer (4): no peer is known whose id begins or ends with '12D3KooW'; `kinfolk peers --long` lists all");
        insta::assert_snapshot!(find("12D3KooW").unwrap_err(), @"
        ambiguous_peer (2): '12D3KooW' fits 3 peers:
          12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA (…eQAJU5SA)
          12D3KooWQYhTNQdmr3ArTeUHRYzFg94BKyTkoWBDWez9kSCVe2Xo (…kSCVe2Xo)
          12D3KooWLJtG8fd2hkQzTn96MrLvThmnNQjTUFZwGEsLRz5EmSzc (…Rz5EmSzc)
        ");
    }
}
