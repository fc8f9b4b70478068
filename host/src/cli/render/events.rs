//! What happens, told as it happens.

use std::collections::BTreeSet;

use kinfolk_core::{Address, CloseCause, Notice, Path, PeerId, Scope};

use crate::{plain_text, short_name};

/// Tells a story of notices to a person: what matters, once.
///
/// A peer that does not answer is told of once, until it is connected again; so is a bootstrap peer. Loopback and
/// link-local addresses of this node are told only where there is nothing better.
#[derive(Debug)]
pub(crate) struct Narrator {
    local: PeerId,
    quiet_peers: BTreeSet<PeerId>,
    quiet_bootstraps: BTreeSet<String>,
    /// Addresses kept back, until it is known whether there are better ones.
    near: Vec<Address>,
    far: bool,
    settled: bool,
}

/// More peers than this are not remembered as told; telling twice is no harm.
const REMEMBERED: usize = 4_096;

impl Narrator {
    /// For the node `local`.
    pub(crate) fn new(local: PeerId) -> Self {
        Self {
            local,
            quiet_peers: BTreeSet::new(),
            quiet_bootstraps: BTreeSet::new(),
            near: Vec::new(),
            far: false,
            settled: false,
        }
    }

    /// The line for a notice, without the time. `None`: not worth one.
    pub(crate) fn tell(&mut self, notice: &Notice, because: &str) -> Option<String> {
        match notice {
            Notice::Listening { address } => return self.listening(address),
            Notice::PeerConnected { peer, .. } => {
                self.quiet_peers.remove(peer);
                self.quiet_bootstraps.clear();
            }
            Notice::PeerDeferred { peer, .. } => {
                if self.quiet_peers.len() >= REMEMBERED {
                    self.quiet_peers.clear();
                }
                if !self.quiet_peers.insert(*peer) {
                    return None;
                }
            }
            Notice::BootstrapFailed { address, .. } => {
                if self.quiet_bootstraps.len() >= REMEMBERED {
                    self.quiet_bootstraps.clear();
                }
                if !self.quiet_bootstraps.insert(address.clone()) {
                    return None;
                }
            }
            // The application's data flow is the application's to tell.
            Notice::PeerSyncing { .. } | Notice::PeerSynced { .. } | Notice::PeerLag { .. } => return None,
            Notice::EntriesReceived { .. } | Notice::SyncFailed { .. } => return None,
            // The end of the story is told, not each try.
            Notice::NotPunched { .. } => return None,
            Notice::PeerDiscovered { .. }
            | Notice::SignalAnswers { .. }
            | Notice::SignalFailed { .. }
            | Notice::PeerIdentified { .. }
            | Notice::PathChanged { .. }
            | Notice::PeerDisconnected { .. }
            | Notice::PeerExpired { .. }
            | Notice::PeerUnreachable { .. }
            | Notice::PeerDistrusted { .. }
            | Notice::OwnIdentitySeen { .. }
            | Notice::LogForked { .. }
            | Notice::Punched { .. }
            | Notice::StaysRelayed { .. }
            | Notice::RelayHeld { .. }
            | Notice::RelayNotHeld { .. }
            | Notice::PortMapped { .. }
            | Notice::PortNotMapped { .. }
            | Notice::NatFound { .. }
            | Notice::NotListening { .. }
            | Notice::PortTaken { .. }
            | Notice::HealthChanged { .. }
            | Notice::ReachabilityChanged { .. } => {}
        }
        let text = words(notice);
        let text = if explained(notice) && !because.is_empty() { format!("{text}, because {because}") } else { text };
        let text = plain_text(&text);
        Some(match notice.peer() {
            Some(peer) => format!("{}  {text}", short_name(peer)),
            None => text,
        })
    }

    /// Listening has settled: gives the addresses that were kept back, if there was nothing better.
    pub(crate) fn settle(&mut self) -> Vec<String> {
        self.settled = true;
        let near = std::mem::take(&mut self.near);
        if self.far { Vec::new() } else { near.iter().map(|address| self.paste(address)).collect() }
    }

    fn listening(&mut self, address: &Address) -> Option<String> {
        let near = matches!(address.scope(), Some(Scope::Loopback | Scope::LinkLocal | Scope::Unspecified));
        self.far |= !near;
        match (near, self.settled) {
            (false, _) => Some(self.paste(address)),
            (true, true) => (!self.far).then(|| self.paste(address)),
            (true, false) => {
                self.near.push(address.clone());
                self.near.truncate(32);
                None
            }
        }
    }

    fn paste(&self, address: &Address) -> String {
        format!("listening on {address}/p2p/{}", self.local)
    }
}

/// A notice in words, with short peer names.
fn words(notice: &Notice) -> String {
    if let Notice::PeerDiscovered { source, .. } = notice {
        return format!("found {source}");
    }
    let text = notice.to_string();
    if let Notice::HealthChanged { .. } = notice {
        return format!("this node is {text}");
    }
    let relays = if let Notice::PeerConnected { path, .. } = notice {
        [relay(path), None]
    } else if let Notice::PathChanged { from, to, .. } = notice {
        [relay(from), relay(to)]
    } else {
        [None, None]
    };
    relays.into_iter().flatten().fold(text, |text, relay| {
        text.replace(&format!("through relay {relay}"), &format!("through relay {}", short_name(&relay)))
    })
}

const fn relay(path: &Path) -> Option<PeerId> {
    match path {
        Path::Relayed { relay } => Some(*relay),
        Path::Local { .. } | Path::Direct { .. } => None,
    }
}

/// Whether the reason says more than the words do.
fn explained(notice: &Notice) -> bool {
    match notice {
        Notice::PeerDeferred { .. } | Notice::PeerDistrusted { .. } | Notice::PeerExpired { .. } => true,
        Notice::PeerUnreachable { .. } => true,
        Notice::PathChanged { .. } | Notice::BootstrapFailed { .. } | Notice::SignalFailed { .. } => true,
        Notice::PeerDisconnected { cause, .. } => matches!(cause, CloseCause::Ours),
        Notice::PeerDiscovered { .. }
        | Notice::SignalAnswers { .. }
        | Notice::PeerConnected { .. }
        | Notice::PeerIdentified { .. }
        | Notice::PeerSyncing { .. }
        | Notice::PeerSynced { .. }
        | Notice::PeerLag { .. }
        | Notice::EntriesReceived { .. }
        | Notice::SyncFailed { .. }
        | Notice::LogForked { .. }
        | Notice::OwnIdentitySeen { .. }
        | Notice::Punched { .. }
        | Notice::NotPunched { .. }
        | Notice::StaysRelayed { .. }
        | Notice::RelayHeld { .. }
        | Notice::RelayNotHeld { .. }
        | Notice::PortMapped { .. }
        | Notice::PortNotMapped { .. }
        | Notice::NatFound { .. }
        | Notice::Listening { .. }
        | Notice::NotListening { .. }
        | Notice::PortTaken { .. }
        | Notice::HealthChanged { .. }
        | Notice::ReachabilityChanged { .. } => false,
    }
}
