use alloc::{
    format,
    string::{String, ToString},
    vec,
    vec::Vec,
};
use core::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::Deref,
    time::Duration,
};

use super::{Address, PeerAddress, PeerId, SignalConfig, SyncConfig, Transport};

/// What a node is for; picks the presets.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Role {
    /// Always on, at home, small: a Raspberry Pi.
    Family,
    /// Somebody's computer: on and off, moved about.
    #[default]
    Desktop,
    /// In a data centre, with a public address: helps others.
    Server,
}

/// Whether the node serves the hash table.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum KademliaMode {
    /// Serve when the node is a server or known to be reachable from the internet.
    #[default]
    Auto,
    /// Only ask.
    Client,
    /// Serve.
    Server,
}

/// Whom a service is for, when the node can be reached.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Service {
    /// Servers: anyone. Others: members, once they are known to be reachable from the internet.
    #[default]
    Auto,
    /// Nobody.
    Off,
    /// Members, whether we are known to be reachable or not.
    Members,
    /// Anyone, whether we are known to be reachable or not.
    Anyone,
}

/// Everything that can be set. The fields' docs give default, unit and what a larger value costs.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
pub struct Config {
    /// What the node is for.
    pub role: Role,
    /// The network's name: letters, digits, `-`, `_`, `.`; default `elohim`.
    pub network: String,
    /// Protocol names; by default made from the network's name.
    pub protocols: Protocols,
    /// Where to listen. Default: port 4001, TCP and QUIC, IPv4 and IPv6, all interfaces.
    pub listen: Vec<Address>,
    /// Whether to look for peers on the home network. On by default, off for servers.
    pub mdns: bool,
    /// Whether to serve the hash table.
    pub kademlia: KademliaMode,
    /// Who is asked first. Three of them are kept up, by a server all. Default: nobody.
    pub bootstrap: Vec<PeerAddress>,
    /// Who is never given up. Default: nobody.
    pub pinned: Vec<PinnedPeer>,
    /// The peer table and the dialler.
    pub lifecycle: LifecycleConfig,
    /// Own addresses, and ways through NATs.
    pub nat: NatConfig,
    /// What others get when this node relays for them.
    pub relay: RelayLimits,
    /// The exchange of logs.
    pub sync: SyncConfig,
    /// Signal servers.
    pub signal: SignalConfig,
    /// First peers, and whether there are enough.
    pub planner: BootstrapConfig,
}

/// Protocol names.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
pub struct Protocols {
    /// `/elohim/id/1.0.0`: what identify calls the protocol version.
    pub identify: String,
    /// `/elohim/kad/1.0.0`.
    pub kademlia: String,
    /// `/elohim/punch/1.0.0`: how a direct connection is proposed between Kinfolk nodes.
    pub punch: String,
    /// `/elohim/kinfolk-sync/1.0.0`: how logs are exchanged between Kinfolk nodes. Others speak `/elohim/sync/1.0.0`.
    pub sync: String,
}

/// A peer that is never given up.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct PinnedPeer {
    /// Who.
    pub peer: PeerId,
    /// Where, if known.
    pub addresses: Vec<Address>,
}

/// Settings of `PeerLifecycle`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
pub struct LifecycleConfig {
    /// Peers in the table; default 1 024 (server 20 000). Each costs at most 4 KiB with all its addresses full, about
    /// 600 bytes with three.
    pub max_peers: u32,
    /// Addresses kept per peer; default 16.
    pub max_addresses: u8,
    /// Addresses kept per peer and source that no connection has proven; default 4: TCP and QUIC, IPv4 and IPv6. More
    /// lets whoever speaks about a peer push others' words out.
    pub max_unproven: u8,
    /// Connections that are left when the least useful are closed; default 32 (server 200). With a quarter of it, nobody
    /// new is looked for who is neither pinned, near, a relay, nor asked for.
    pub low_water: u32,
    /// Connections above which the least useful are closed; default 48 (server 300).
    pub high_water: u32,
    /// Dials under way at once; default 16 (server 64). A burst costs about 8 ms of CPU per dial (go: 160 for all).
    pub dial_slots: u32,
    /// A dial without answer is given up after this; default 60 s. The shell's own time-outs are shorter.
    pub dial_timeout: Duration,
    /// First wait after a failed dial; default 5 s (go).
    pub backoff_base: Duration,
    /// The n-th wait is longer by n² of these; default 1 s (go).
    pub backoff_step: Duration,
    /// The longest wait; default 5 min (go).
    pub backoff_max: Duration,
    /// Dials per minute to one /24 or /48 whose addresses are unproven; default 8.
    pub dials_per_network: u32,
    /// A peer that has not introduced itself by then is left; default 30 s.
    pub identify_timeout: Duration,
    /// An address that nobody has vouched for in this time is dropped, when nothing else is known of its worth;
    /// default 2 h, the lifetime of records.
    pub address_ttl: Duration,
    /// How long a disconnected peer that nobody speaks of any more is remembered; default 10 min.
    pub expire_after: Duration,
    /// A second connection counts as proven after two pings and this time for QUIC; default 3 s.
    pub proof_quic: Duration,
    /// The same for TCP; default 15 s: punched TCP connections were seen to die after 10 s.
    pub proof_tcp: Duration,
    /// How often a peer may drop its only connection within `flap_window` before it is turned away; default 5.
    pub flap_limit: u32,
    /// See `flap_limit`; default 1 min.
    pub flap_window: Duration,
    /// How long such a peer is turned away; default 10 min.
    pub flap_ban: Duration,
    /// Failures in a row, with no success, after which a family and transport is held to be blocked and tried only once
    /// in ten; default 20 (go: 100).
    pub black_hole: u32,
    /// A sync that reports nothing in this time is over; default 60 s.
    pub sync_timeout: Duration,
    /// A user's request is answered within this; default 60 s.
    pub ask_timeout: Duration,
}

/// Settings of `NatPolicy`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
pub struct NatConfig {
    /// Addresses that the operator vouches for (1:1 NAT, port forwarding). Default: none.
    pub external: Vec<Address>,
    /// Candidates kept; default 32, 120 bytes each and up to 8 observers of 60.
    pub max_candidates: u8,
    /// Observers in distinct networks that make a candidate worth advertising; default 4 (go).
    pub observers: u8,
    /// An observation counts for this long; default 40 min (go).
    pub observation_ttl: Duration,
    /// A change of what we think of our reachability has to hold this long before it counts; default 15 s.
    pub dwell: Duration,
    /// The first probe of an address comes this long after it was first seen; default 1 s (go). A probe may cost us
    /// 100 kB of upload (AutoNAT v2's protection against abuse).
    pub probe_after: Duration,
    /// First wait after a probe that came to nothing, doubled each time up to `probe_retry_max`; default 5 s (go).
    pub probe_retry: Duration,
    /// See `probe_retry`; default 5 min (go).
    pub probe_retry_max: Duration,
    /// How often a proven address is probed again; default 1 h (go): 2 to 7 MB a day for three addresses.
    pub probe_again: Duration,
    /// A probe without answer is given up after this; default 30 s.
    pub probe_timeout: Duration,
    /// Whether to ask the home router for port mappings (UPnP, NAT-PMP, PCP); on by default, off for servers.
    pub port_mapping: bool,
    /// A router that has given no mapping by then gives none; default 15 s.
    pub port_mapping_timeout: Duration,
    /// Relays that are asked first, each with its peer id. Default: none; others are found by themselves.
    pub relays: Vec<PeerAddress>,
    /// Relays that are held while this node can't be reached directly, or has missed a pinned peer for a minute (not with
    /// role server), in distinct networks; default 2, 0 for none. Each keeps a connection or two.
    pub want_relays: u8,
    /// So long after the start, not knowing whether others can reach us is reason enough for a relay; default 5 s.
    pub relay_after: Duration,
    /// A relay that has not answered by then will not; default 15 s.
    pub reserve_timeout: Duration,
    /// How long a reservation is taken to live at most, whatever the relay's clock says; default 1 h (rust-libp2p's
    /// relay). Renewed at half of it.
    pub reservation_ttl: Duration,
    /// Whether to try for direct connections where only relayed ones stand; on by default.
    pub punching: bool,
    /// A try for a direct connection without result is given up after this; default 12 s: the transports' own time-outs
    /// are 5 s (QUIC) and 10 s.
    pub punch_timeout: Duration,
    /// Wait after the tries of one round have all failed, doubled each time up to `punch_retry_max`; default 30 s.
    pub punch_retry: Duration,
    /// See `punch_retry`; default 1 h.
    pub punch_retry_max: Duration,
    /// Whom to relay for; default `auto`.
    pub relay_service: Service,
    /// Whom to probe for; default `auto`.
    pub probe_service: Service,
}

/// What a node gives others when it relays. Fixed at the start.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
pub struct RelayLimits {
    /// Reservations at once; default 32 (server 256). Each needs a connection: keep it below `lifecycle.high_water`.
    pub reservations: u32,
    /// Reservations of one network (/24 or /48) at once; default 8 (server 32): a family behind one NAT.
    pub reservations_per_network: u32,
    /// Circuits at once; default 16 (server 256).
    pub circuits: u32,
    /// Circuits from or to one peer at once; default 4 (server 8).
    pub circuits_per_peer: u32,
    /// How long a circuit may stand; default 1 day (server 2 h; the library: 2 min).
    pub duration: Duration,
    /// Bytes that a circuit may carry, both ways together; default 1 GiB (server 128 MiB; the library: 128 KiB).
    pub bytes: u64,
    /// Requests (reservations, circuits) of one peer within a minute; default 30 (the library: 15).
    pub requests_per_peer: u32,
    /// The same of one network (/24 or /48); default 120 (the library: 60, of one address).
    pub requests_per_network: u32,
}

/// Settings of `BootstrapPlanner`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
pub struct BootstrapConfig {
    /// Without any connection for this long, the node is isolated; default 10 s.
    pub isolated_after: Duration,
    /// First wait of a source after a failure; default 1 s.
    pub retry_min: Duration,
    /// Longest wait in the first ten minutes of isolation; default 30 s.
    pub retry_max: Duration,
    /// Longest wait after that; default 5 min.
    pub retry_slow: Duration,
    /// How often the routing table is refreshed; default 5 min.
    pub refresh: Duration,
    /// Routing table entries below which it is refreshed at once; default 4.
    pub small_table: u32,
    /// Random look-ups of a first population at most; default 8.
    pub first_lookups: u32,
    /// How often members are asked for while a pinned one is missing, or none is here; default 30 s. Otherwise at `refresh`.
    pub members: Duration,
    /// How often our record and membership are published; default 30 min, a quarter of their lifetime.
    pub publish: Duration,
    /// A query without an end is given up after this; default 75 s (the library's own limit is 60 s).
    pub query_timeout: Duration,
    /// Queries under way at once; default 3.
    pub max_queries: u32,
}

/// What is wrong with a setting.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ConfigError {
    /// Which: `lifecycle.high_water`.
    pub field: String,
    /// What is wrong, and what would be right.
    pub problem: String,
}

/// A `Config` that was checked.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(try_from = "Config", into = "Config")
)]
pub struct ValidConfig(Config);

impl Config {
    /// For a Raspberry-Pi-class node that is always on.
    pub fn family_node() -> Self {
        Self { role: Role::Family, ..Self::desktop() }
    }

    /// For somebody's computer.
    pub fn desktop() -> Self {
        let network = "elohim";
        Self {
            role: Role::Desktop,
            network: network.to_string(),
            protocols: Protocols::of(network),
            listen: Self::default_listen(),
            mdns: true,
            kademlia: KademliaMode::Auto,
            bootstrap: Vec::new(),
            pinned: Vec::new(),
            lifecycle: LifecycleConfig::default(),
            nat: NatConfig::default(),
            relay: RelayLimits::default(),
            sync: SyncConfig::default(),
            signal: SignalConfig::default(),
            planner: BootstrapConfig::default(),
        }
    }

    /// For a cloud machine with a public address.
    pub fn server() -> Self {
        let lifecycle = LifecycleConfig {
            max_peers: 20_000,
            low_water: 200,
            high_water: 300,
            dial_slots: 64,
            ..LifecycleConfig::default()
        };
        let relay = RelayLimits {
            reservations: 256,
            reservations_per_network: 32,
            circuits: 256,
            circuits_per_peer: 8,
            duration: Duration::from_secs(7_200),
            bytes: 128 << 20,
            ..RelayLimits::default()
        };
        let nat = NatConfig { port_mapping: false, ..NatConfig::default() };
        let sync = SyncConfig { max_fetches: 16, max_logs: 1_024, ..SyncConfig::default() };
        Self { role: Role::Server, mdns: false, lifecycle, nat, relay, sync, ..Self::desktop() }
    }

    /// The preset of a role.
    pub fn of(role: Role) -> Self {
        match role {
            Role::Family => Self::family_node(),
            Role::Desktop => Self::desktop(),
            Role::Server => Self::server(),
        }
    }

    /// Port 4001, TCP and QUIC, IPv4 and IPv6, all interfaces.
    pub fn default_listen() -> Vec<Address> {
        let all = |ip| [Transport::Tcp, Transport::Quic].map(|transport| Address::ip(ip, 4001, transport));
        let mut listen = vec![];
        listen.extend(all(IpAddr::V4(Ipv4Addr::UNSPECIFIED)));
        listen.extend(all(IpAddr::V6(Ipv6Addr::UNSPECIFIED)));
        listen
    }

    /// Checks what can be wrong.
    ///
    /// # Errors
    /// Everything that is wrong, at least one.
    pub fn validate(self) -> Result<ValidConfig, Vec<ConfigError>> {
        let mut errors = vec![];
        let mut check = |ok: bool, field: &str, problem: &str| {
            if !ok {
                errors.push(ConfigError { field: field.to_string(), problem: problem.to_string() });
            }
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        check(
            !self.network.is_empty() && self.network.len() <= 64 && self.network.chars().all(plain),
            "network",
            "must be 1 to 64 letters, digits, '-', '_' or '.'",
        );
        for (field, name) in [
            ("protocols.identify", &self.protocols.identify),
            ("protocols.kademlia", &self.protocols.kademlia),
            ("protocols.punch", &self.protocols.punch),
            ("protocols.sync", &self.protocols.sync),
        ] {
            check(
                name.starts_with('/') && name.len() > 1 && name.len() <= 128 && !name.contains(char::is_whitespace),
                field,
                "must begin with '/', be at most 128 bytes, and hold no spaces: /elohim/kad/1.0.0",
            );
        }
        check(self.listen.len() <= 16, "listen", "at most 16 addresses");
        for (at, address) in self.listen.iter().enumerate() {
            let ok = matches!(address, Address::Ip { .. });
            check(ok, &format!("listen[{at}]"), "must be an IP address with TCP or QUIC: /ip4/0.0.0.0/tcp/4001");
        }
        for (at, first) in self.listen.iter().enumerate() {
            let twin = |other: &Address| {
                first.transport() == other.transport()
                    && first.host_ip().map(|ip| ip.is_ipv4()) == other.host_ip().map(|ip| ip.is_ipv4())
                    && first.transport() == Some(Transport::Tcp)
            };
            check(
                !self.listen[at + 1..].iter().any(twin),
                &format!("listen[{at}]"),
                "a second TCP listener of the same family: dials would leave from either port, so no address that others \
                 see would be worth anything",
            );
        }
        check(self.bootstrap.len() <= 64, "bootstrap", "at most 64 peers");
        for (at, bootstrap) in self.bootstrap.iter().enumerate() {
            let field = format!("bootstrap[{at}]");
            check(bootstrap.address.is_some(), &field, "needs an address, not only a peer id");
            let nowhere = bootstrap.address.as_ref().is_some_and(|address| {
                address.port() == Some(0) || address.scope().is_some_and(|scope| !scope.is_dialable())
            });
            check(!nowhere, &field, "nobody can be at such an address");
            let relayed = bootstrap.address.as_ref().is_some_and(Address::is_relayed);
            check(
                !relayed || bootstrap.peer.is_some(),
                &field,
                "a circuit needs the peer's id: …/p2p-circuit/p2p/PEER",
            );
        }
        check(self.pinned.len() <= 256, "pinned", "at most 256 peers");
        check(self.nat.external.len() <= 16, "nat.external", "at most 16 addresses");
        for (at, address) in self.nat.external.iter().enumerate() {
            let global = address.scope().is_none_or(super::Scope::is_global) && address.port() != Some(0);
            check(global, &format!("nat.external[{at}]"), "must be an address that everyone on the internet can use");
        }

        let lifecycle = &self.lifecycle;
        check((16..=10_000_000).contains(&lifecycle.max_peers), "lifecycle.max_peers", "must be 16 to 10 000 000");
        check((4..=64).contains(&lifecycle.max_addresses), "lifecycle.max_addresses", "must be 4 to 64");
        check(
            (1..=lifecycle.max_addresses).contains(&lifecycle.max_unproven),
            "lifecycle.max_unproven",
            "must be 1 to lifecycle.max_addresses",
        );
        check((2..=100_000).contains(&lifecycle.high_water), "lifecycle.high_water", "must be 2 to 100 000");
        check(
            (1..=lifecycle.high_water).contains(&lifecycle.low_water),
            "lifecycle.low_water",
            "must be 1 to lifecycle.high_water",
        );
        check(
            self.pinned.len() < lifecycle.high_water as usize,
            "lifecycle.high_water",
            "must be above the number of pinned peers",
        );
        check(
            self.bootstrap.len() < lifecycle.high_water as usize,
            "lifecycle.high_water",
            "must be above the number of bootstrap peers",
        );
        check((4..=1_024).contains(&lifecycle.dial_slots), "lifecycle.dial_slots", "must be 4 to 1 024");
        check(
            (1..=10_000).contains(&lifecycle.dials_per_network),
            "lifecycle.dials_per_network",
            "must be 1 to 10 000",
        );
        check((2..=1_000).contains(&lifecycle.flap_limit), "lifecycle.flap_limit", "must be 2 to 1 000");
        check((2..=10_000).contains(&lifecycle.black_hole), "lifecycle.black_hole", "must be 2 to 10 000");
        let day = Duration::from_secs(86_400);
        let second = Duration::from_secs(1);
        for (field, span) in [
            ("lifecycle.dial_timeout", lifecycle.dial_timeout),
            ("lifecycle.backoff_base", lifecycle.backoff_base),
            ("lifecycle.backoff_max", lifecycle.backoff_max),
            ("lifecycle.identify_timeout", lifecycle.identify_timeout),
            ("lifecycle.address_ttl", lifecycle.address_ttl),
            ("lifecycle.expire_after", lifecycle.expire_after),
            ("lifecycle.flap_window", lifecycle.flap_window),
            ("lifecycle.flap_ban", lifecycle.flap_ban),
            ("lifecycle.sync_timeout", lifecycle.sync_timeout),
            ("lifecycle.ask_timeout", lifecycle.ask_timeout),
            ("nat.observation_ttl", self.nat.observation_ttl),
            ("nat.probe_after", self.nat.probe_after),
            ("nat.probe_retry", self.nat.probe_retry),
            ("nat.probe_retry_max", self.nat.probe_retry_max),
            ("nat.probe_again", self.nat.probe_again),
            ("nat.probe_timeout", self.nat.probe_timeout),
            ("nat.port_mapping_timeout", self.nat.port_mapping_timeout),
            ("nat.reserve_timeout", self.nat.reserve_timeout),
            ("nat.reservation_ttl", self.nat.reservation_ttl),
            ("nat.punch_timeout", self.nat.punch_timeout),
            ("nat.punch_retry", self.nat.punch_retry),
            ("nat.punch_retry_max", self.nat.punch_retry_max),
            ("sync.every", self.sync.every),
            ("sync.exchange_timeout", self.sync.exchange_timeout),
            ("sync.fetch_timeout", self.sync.fetch_timeout),
            ("sync.retry", self.sync.retry),
            ("sync.retry_max", self.sync.retry_max),
            ("signal.every", self.signal.every),
            ("signal.lonely", self.signal.lonely),
            ("signal.timeout", self.signal.timeout),
            ("planner.isolated_after", self.planner.isolated_after),
            ("planner.retry_min", self.planner.retry_min),
            ("planner.retry_max", self.planner.retry_max),
            ("planner.retry_slow", self.planner.retry_slow),
            ("planner.refresh", self.planner.refresh),
            ("planner.members", self.planner.members),
            ("planner.publish", self.planner.publish),
            ("planner.query_timeout", self.planner.query_timeout),
        ] {
            check((second..=day).contains(&span), field, "must be 1 second to 1 day");
        }
        for (field, span) in [
            ("lifecycle.backoff_step", lifecycle.backoff_step),
            ("lifecycle.proof_quic", lifecycle.proof_quic),
            ("lifecycle.proof_tcp", lifecycle.proof_tcp),
            ("nat.dwell", self.nat.dwell),
            ("nat.relay_after", self.nat.relay_after),
            ("sync.announce_after", self.sync.announce_after),
        ] {
            check(span <= day, field, "must be at most 1 day");
        }
        check((4..=255).contains(&self.nat.max_candidates), "nat.max_candidates", "must be 4 to 255");
        check((1..=8).contains(&self.nat.observers), "nat.observers", "must be 1 to 8");
        check(self.nat.relays.len() <= 16, "nat.relays", "at most 16 relays");
        for (at, relay) in self.nat.relays.iter().enumerate() {
            let field = format!("nat.relays[{at}]");
            let address = relay.address.as_ref();
            check(
                relay.peer.is_some() && address.is_some_and(|address| !address.is_relayed()),
                &field,
                "needs an address and the relay's peer id: /dns4/relay.example/udp/4001/quic-v1/p2p/PEER",
            );
            let nowhere = address.is_some_and(|address| {
                address.port() == Some(0) || address.scope().is_some_and(|scope| !scope.is_dialable())
            });
            check(!nowhere, &field, "nobody can be at such an address");
        }
        check(self.nat.want_relays <= 8, "nat.want_relays", "must be at most 8");
        let limits = &self.relay;
        check(limits.reservations <= 100_000, "relay.reservations", "must be at most 100 000");
        check(limits.circuits <= 100_000, "relay.circuits", "must be at most 100 000");
        check(
            limits.duration >= Duration::from_secs(10) && limits.duration <= Duration::from_secs(31 * 86_400),
            "relay.duration",
            "must be 10 seconds to 31 days",
        );
        check(limits.bytes >= 1 << 16, "relay.bytes", "must be at least 65 536");
        let sync = &self.sync;
        check((1..=1 << 20).contains(&sync.range), "sync.range", "must be 1 to 1 048 576");
        check((1..=256).contains(&sync.max_fetches), "sync.max_fetches", "must be 1 to 256");
        check(
            (1..=sync.max_fetches).contains(&sync.max_fetches_per_peer),
            "sync.max_fetches_per_peer",
            "must be 1 to sync.max_fetches",
        );
        check((4..=65_536).contains(&sync.max_logs), "sync.max_logs", "must be 4 to 65 536");
        let signal = &self.signal;
        check(signal.servers.len() <= 8, "signal.servers", "at most 8 signal servers");
        for (at, server) in signal.servers.iter().enumerate() {
            check(
                SignalConfig::is_place(server),
                &format!("signal.servers[{at}]"),
                "must be a URL of at most 256 characters without user or query: https://doorway.example/signal",
            );
            check(!signal.servers[..at].contains(server), &format!("signal.servers[{at}]"), "is named twice");
        }
        check((1..=32).contains(&signal.sample), "signal.sample", "must be 1 to 32");
        check(
            (Duration::from_secs(60)..=day).contains(&signal.lifetime),
            "signal.lifetime",
            "must be 1 minute to 1 day",
        );
        check((1..=64).contains(&self.planner.max_queries), "planner.max_queries", "must be 1 to 64");
        check(self.planner.first_lookups <= 64, "planner.first_lookups", "must be at most 64");
        if errors.is_empty() { Ok(ValidConfig(self)) } else { Err(errors) }
    }
}

impl Protocols {
    /// The names that a network's name gives.
    pub fn of(network: &str) -> Self {
        Self {
            identify: format!("/{network}/id/1.0.0"),
            kademlia: format!("/{network}/kad/1.0.0"),
            punch: format!("/{network}/punch/1.0.0"),
            sync: format!("/{network}/kinfolk-sync/1.0.0"),
        }
    }
}

/// What an older trace does not say.
impl Default for Config {
    fn default() -> Self {
        Self::desktop()
    }
}

impl Default for Protocols {
    fn default() -> Self {
        Self::of("elohim")
    }
}

impl Default for LifecycleConfig {
    fn default() -> Self {
        Self {
            max_peers: 1_024,
            max_addresses: 16,
            max_unproven: 4,
            low_water: 32,
            high_water: 48,
            dial_slots: 16,
            dial_timeout: Duration::from_secs(60),
            backoff_base: Duration::from_secs(5),
            backoff_step: Duration::from_secs(1),
            backoff_max: Duration::from_secs(300),
            dials_per_network: 8,
            identify_timeout: Duration::from_secs(30),
            address_ttl: Duration::from_secs(7_200),
            expire_after: Duration::from_secs(600),
            proof_quic: Duration::from_secs(3),
            proof_tcp: Duration::from_secs(15),
            flap_limit: 5,
            flap_window: Duration::from_secs(60),
            flap_ban: Duration::from_secs(600),
            black_hole: 20,
            sync_timeout: Duration::from_secs(60),
            ask_timeout: Duration::from_secs(60),
        }
    }
}

impl Default for NatConfig {
    fn default() -> Self {
        Self {
            external: Vec::new(),
            max_candidates: 32,
            observers: 4,
            observation_ttl: Duration::from_secs(2_400),
            dwell: Duration::from_secs(15),
            probe_after: Duration::from_secs(1),
            probe_retry: Duration::from_secs(5),
            probe_retry_max: Duration::from_secs(300),
            probe_again: Duration::from_secs(3_600),
            probe_timeout: Duration::from_secs(30),
            port_mapping: true,
            port_mapping_timeout: Duration::from_secs(15),
            relays: Vec::new(),
            want_relays: 2,
            relay_after: Duration::from_secs(5),
            reserve_timeout: Duration::from_secs(15),
            reservation_ttl: Duration::from_secs(3_600),
            punching: true,
            punch_timeout: Duration::from_secs(12),
            punch_retry: Duration::from_secs(30),
            punch_retry_max: Duration::from_secs(3_600),
            relay_service: Service::Auto,
            probe_service: Service::Auto,
        }
    }
}

impl Default for RelayLimits {
    fn default() -> Self {
        Self {
            reservations: 32,
            reservations_per_network: 8,
            circuits: 16,
            circuits_per_peer: 4,
            duration: Duration::from_secs(86_400),
            bytes: 1 << 30,
            requests_per_peer: 30,
            requests_per_network: 120,
        }
    }
}

impl Default for BootstrapConfig {
    fn default() -> Self {
        Self {
            isolated_after: Duration::from_secs(10),
            retry_min: Duration::from_secs(1),
            retry_max: Duration::from_secs(30),
            retry_slow: Duration::from_secs(300),
            refresh: Duration::from_secs(300),
            small_table: 4,
            first_lookups: 8,
            members: Duration::from_secs(30),
            publish: Duration::from_secs(1_800),
            query_timeout: Duration::from_secs(75),
            max_queries: 3,
        }
    }
}

impl Deref for ValidConfig {
    type Target = Config;

    fn deref(&self) -> &Config {
        &self.0
    }
}

impl From<ValidConfig> for Config {
    fn from(valid: ValidConfig) -> Self {
        valid.0
    }
}

impl TryFrom<Config> for ValidConfig {
    type Error = ConfigError;

    fn try_from(config: Config) -> Result<Self, ConfigError> {
        config.validate().map_err(|mut errors| errors.swap_remove(0))
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.problem)
    }
}

impl core::error::Error for ConfigError {}
