use alloc::{
    collections::{BTreeSet, VecDeque},
    vec::Vec,
};
use core::net::IpAddr;

use crate::{
    bootstrap::TargetId,
    peers::Slot,
    vocabulary::{
        Action, Address, Command, CommandId, Config, DialError, Event, Interfaces, Notice, PeerId, Prefix, Reason,
        Scope, Time,
    },
};

/// What the machines work with while one event is handled.
pub(crate) struct Cx<'a> {
    pub(crate) now: Time,
    pub(crate) config: &'a Config,
    pub(crate) seed: u64,
    pub(crate) local: PeerId,
    pub(crate) here: &'a Here,
    pub(crate) out: &'a mut Out,
    pub(crate) signals: &'a mut Vec<Signal>,
}

/// What one machine's work means to the others, within the handling of one event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Signal {
    /// A dial to a bootstrap target has led to this peer.
    TargetConnected(TargetId, PeerId),
    /// A dial to a bootstrap target came to nothing.
    TargetFailed(TargetId, Option<Address>, DialError),
    /// A bootstrap target can't be dialled now, and that is no failure of it.
    TargetPutOff(TargetId),
    /// A peer's first connection stands.
    Up(Slot),
    /// A peer's last connection has ended.
    Down(PeerId),
    /// A peer has introduced itself.
    Identified(Slot),
    /// A peer has left the table.
    Removed(PeerId),
    /// A user looks for a peer whose addresses are not known.
    Sought(PeerId),
    /// A look-up for such a peer has ended.
    SeekEnded(PeerId),
    /// A peer more is known.
    Known,
    /// Somebody more is missed until it is here.
    Pinned,
    /// What we tell others about ourselves has changed.
    AddressesChanged,
}

/// Where this machine stands in the networks.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Here {
    pub(crate) interfaces: Interfaces,
    /// Where the node listens, interface by interface.
    pub(crate) listening: BTreeSet<Address>,
    /// The event that is being handled says that a network was left, not only that one more is there.
    pub(crate) left: bool,
    /// What the wall clock last said, in seconds since 1970, and when.
    #[cfg_attr(feature = "serde", serde(default))]
    pub(crate) wall_clock: (u64, Time),
}

/// Commands on their way out.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Out {
    queue: VecDeque<Command>,
    minted: u64,
}

/// Commands for which room is kept while there are none: a burst's room would stay for ever.
const KEPT: usize = 4;

impl Out {
    pub(crate) fn pop(&mut self) -> Option<Command> {
        let first = self.queue.pop_front();
        if self.queue.is_empty() && self.queue.capacity() > KEPT {
            self.queue = VecDeque::new();
        }
        first
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

impl Cx<'_> {
    pub(crate) fn command(&mut self, action: Action, reason: Reason) -> CommandId {
        self.out.minted += 1;
        let id = CommandId(self.out.minted);
        self.out.queue.push_back(Command { id, action, reason });
        id
    }

    pub(crate) fn tell(&mut self, notice: Notice, reason: Reason) {
        self.command(Action::Tell(notice), reason);
    }

    pub(crate) fn signal(&mut self, signal: Signal) {
        self.signals.push(signal);
    }
}

impl Here {
    /// Whether the event says what is known: a renewed lease is no change of network.
    pub(crate) fn knows(&self, event: &Event) -> bool {
        matches!(event, Event::Interfaces(interfaces) if *interfaces == self.interfaces)
    }

    pub(crate) fn absorb(&mut self, now: Time, event: &Event) {
        self.left = false;
        if let Event::WallClock { unix_time, synced: _ } = event {
            self.wall_clock = (*unix_time, now);
        }
        if let Event::Interfaces(interfaces) = event {
            self.left = has_left(&self.interfaces.addresses, interfaces);
            self.interfaces = interfaces.clone();
        } else if let Event::Listening { address, .. } = event {
            self.listening.insert(address.clone());
        } else if let Event::ListenAddressGone { address, .. } = event {
            self.listening.remove(address);
        }
    }

    /// Whether an address lies in a network that this machine is part of.
    pub(crate) fn is_near(&self, ip: IpAddr) -> bool {
        self.interfaces.addresses.iter().any(|own| own.contains(ip) && !Scope::of(own.ip).is_loopback())
    }

    /// Whether this machine has not left the networks in which it had these addresses.
    pub(crate) fn is_where(&self, addresses: &[Prefix]) -> bool {
        !has_left(addresses, &self.interfaces)
    }

    /// What the wall clock said at that time, right or wrong: for people, and to tell older from newer.
    pub(crate) fn unix_time(&self, at: Time) -> u64 {
        let (said, when) = self.wall_clock;
        said.saturating_add(at.since(when).as_secs()).saturating_sub(when.since(at).as_secs())
    }

    pub(crate) fn has_route(&self, ip: IpAddr) -> bool {
        if ip.is_ipv4() { self.interfaces.default_v4 } else { self.interfaces.default_v6 }
    }

    pub(crate) fn is_online(&self) -> bool {
        self.interfaces.addresses.iter().any(|own| !Scope::of(own.ip).is_loopback())
    }

    pub(crate) fn is_own(&self, address: &Address) -> bool {
        self.listening.contains(address)
    }
}

/// Whether an own address is gone with which connections were made. Temporary addresses of IPv6 come and go within a
/// network that stays.
fn has_left(before: &[Prefix], now: &Interfaces) -> bool {
    let lost = |own: &&Prefix| {
        let matters = !matches!(Scope::of(own.ip), Scope::Loopback | Scope::LinkLocal);
        let stays = |other: &Prefix| if own.ip.is_ipv4() { other.ip == own.ip } else { other.contains(own.ip) };
        matters && !now.addresses.iter().any(stays)
    };
    before.iter().any(|own| lost(&own))
}

/// Why a failure says that packets get through nowhere, rather than that one host said no.
pub(crate) const fn is_silence(error: &DialError) -> bool {
    matches!(error, DialError::TimedOut | DialError::Unreachable)
}
