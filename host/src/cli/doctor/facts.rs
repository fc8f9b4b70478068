//! What was seen.

use std::{net::IpAddr, time::Duration};

use kinfolk_core::{Address, Interfaces, PeerId, Role, Transport};
use kinfolk_shell::api::types::{Family, Snapshot, Status};

/// Everything that findings are made of.
#[derive(Debug)]
pub(super) struct Facts {
    /// This machine's addresses and ways out.
    pub(super) interfaces: Interfaces,
    pub(super) settings: Asked,
    /// What the temporary node saw.
    pub(super) temporary: Snapshot,
    /// What the node that runs on the data folder says.
    pub(super) running: Option<Snapshot>,
    /// Known servers, and how each try went.
    pub(super) servers: Vec<Server>,
    /// Home network addresses from which multicast groups were joined, or not.
    pub(super) multicast: Vec<(IpAddr, Result<(), String>)>,
    pub(super) clock: Clock,
    pub(super) took: Duration,
}

/// What the settings say about looking around.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) role: Role,
    pub(super) mdns: bool,
    pub(super) port_mapping: bool,
}

/// What is said of the wall clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    /// Seconds since 1970.
    pub(super) unix: u64,
    /// Whether a time service keeps it right. `None`: nobody here says so.
    pub(super) synced: Option<bool>,
}

/// A server that the settings name.
#[derive(Clone, Debug)]
pub(super) struct Server {
    /// As the settings have it.
    pub(super) given: String,
    pub(super) kind: Kind,
    /// At least one: the address as given.
    pub(super) tries: Vec<Try>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Bootstrap,
    Relay,
}

/// A try to connect to an address of a server.
#[derive(Clone, Debug)]
pub(super) struct Try {
    /// Where; when it is not known beforehand (a name), where the connection came to stand.
    pub(super) address: Option<Address>,
    /// Whether the server is known to be there: by the settings, or by its own word. Else it is only likely.
    pub(super) certain: bool,
    pub(super) result: Result<Reached, String>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Reached {
    pub(super) peer: PeerId,
    pub(super) rtt_us: Option<u64>,
}

impl Facts {
    /// The status that counts for what concerns a node's own ports: the running node's, which others may have met.
    pub(super) fn status(&self) -> &Status {
        &self.running.as_ref().unwrap_or(&self.temporary).status
    }

    pub(super) fn tries(&self) -> impl Iterator<Item = &Try> {
        self.servers.iter().flat_map(|server| &server.tries)
    }

    /// Whether any server was reached.
    pub(super) fn reached(&self) -> bool {
        self.tries().any(|one| one.result.is_ok())
    }
}

impl Try {
    pub(super) fn transport(&self) -> Option<Transport> {
        self.address.as_ref().and_then(Address::transport)
    }

    pub(super) fn family(&self) -> Option<Family> {
        family(self.address.as_ref()?)
    }

    /// Whether it is on the internet, and not in the home network or on this machine.
    pub(super) fn is_far(&self) -> bool {
        self.address.as_ref().and_then(Address::scope).is_some_and(kinfolk_core::Scope::is_global)
    }
}

/// The family of an address. `None`: a name, or something that is neither.
pub(super) fn family(address: &Address) -> Option<Family> {
    Some(if address.host_ip()?.is_ipv4() { Family::Ipv4 } else { Family::Ipv6 })
}
