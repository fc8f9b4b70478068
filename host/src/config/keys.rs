//! The table of everything that can be set: one row per key, and nowhere else.
//!
//! Files, environment and flags are read by it, unknown names are compared with it, `config show` walks it, and a test
//! holds `config.example.toml` against it.

use std::{net::SocketAddr, path::PathBuf};

use kinfolk_core::{Config, Role};

use super::{
    DoorwayConfig, Footprint, TraceSettings,
    value::{Raw, Setting, Wrong},
};

/// All settings while they are being put together. Paths that nobody has set are empty.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Draft {
    pub(super) core: Config,
    pub(super) data_dir: PathBuf,
    pub(super) api_socket: PathBuf,
    pub(super) http_listen: Option<SocketAddr>,
    pub(super) signal_tokens: Option<PathBuf>,
    pub(super) doorway: DoorwayConfig,
    pub(super) log: String,
    pub(super) trace: TraceSettings,
    pub(super) footprint: Footprint,
}

impl Draft {
    pub(super) fn of(role: Role) -> Self {
        Self {
            core: Config::of(role),
            data_dir: PathBuf::new(),
            api_socket: PathBuf::new(),
            http_listen: None,
            signal_tokens: None,
            doorway: DoorwayConfig::default(),
            log: "off".to_owned(),
            trace: TraceSettings::default(),
            footprint: Footprint::default(),
        }
    }
}

/// One thing that can be set.
pub(super) struct Key {
    /// Its place in the file: `lifecycle.max_peers`.
    pub(super) path: &'static str,
    pub(super) set: fn(&mut Draft, &Raw) -> Result<(), Wrong>,
    pub(super) get: fn(&Draft) -> toml::Value,
}

impl Key {
    /// The environment variable that sets it: `KINFOLK_LIFECYCLE_MAX_PEERS`.
    pub(super) fn variable(&self) -> String {
        format!("KINFOLK_{}", self.path.replace('.', "_").to_ascii_uppercase())
    }

    /// The last part of its path: `max_peers`.
    fn name(&self) -> &'static str {
        self.path.rsplit('.').next().unwrap_or(self.path)
    }

    pub(super) fn named(path: &str) -> Option<&'static Self> {
        KEYS.iter().find(|key| key.path == path)
    }
}

macro_rules! keys {
    ($($path:literal => $($field:ident).+;)+) => {
        &[$(Key {
            path: $path,
            set: |draft, raw| {
                draft.$($field).+ = Setting::read(raw)?;
                Ok(())
            },
            get: |draft| draft.$($field).+.show(),
        }),+]
    };
}

/// In the order in which they take effect: role, power and memory pick the presets, the network's name gives the
/// protocols' names.
pub(super) static KEYS: &[Key] = keys! {
    "role" => core.role;
    "power" => footprint.power;
    "memory" => footprint.memory;
    "network" => core.network;
    "listen" => core.listen;
    "mdns" => core.mdns;
    "kademlia" => core.kademlia;
    "bootstrap" => core.bootstrap;
    "pinned" => core.pinned;
    "data_dir" => data_dir;
    "log" => log;
    "slack" => footprint.slack;
    "batch" => footprint.batch;
    "protocols.identify" => core.protocols.identify;
    "protocols.kademlia" => core.protocols.kademlia;
    "protocols.punch" => core.protocols.punch;
    "protocols.sync" => core.protocols.sync;
    "api.socket" => api_socket;
    "http.listen" => http_listen;
    "signal.servers" => core.signal.servers;
    "signal.tokens" => signal_tokens;
    "signal.publish" => core.signal.publish;
    "signal.every" => core.signal.every;
    "signal.lonely" => core.signal.lonely;
    "signal.sample" => core.signal.sample;
    "signal.lifetime" => core.signal.lifetime;
    "signal.timeout" => core.signal.timeout;
    "doorway.listen" => doorway.listen;
    "doorway.networks" => doorway.networks;
    "doorway.redis" => doorway.redis;
    "doorway.tokens" => doorway.tokens;
    "doorway.proxies" => doorway.rules.proxies;
    "doorway.private" => doorway.rules.private;
    "doorway.lifetime" => doorway.rules.lifetime;
    "doorway.records" => doorway.rules.records;
    "doorway.records_per_prefix" => doorway.rules.records_per_prefix;
    "doorway.reads" => doorway.rules.reads;
    "doorway.writes" => doorway.rules.writes;
    "doorway.connections" => doorway.rules.connections;
    "doorway.connections_per_prefix" => doorway.rules.connections_per_prefix;
    "trace.record" => trace.record;
    "trace.segment" => trace.segment;
    "trace.segments" => trace.segments;
    "trace.total" => trace.total;
    "lifecycle.max_peers" => core.lifecycle.max_peers;
    "lifecycle.max_addresses" => core.lifecycle.max_addresses;
    "lifecycle.max_unproven" => core.lifecycle.max_unproven;
    "lifecycle.low_water" => core.lifecycle.low_water;
    "lifecycle.high_water" => core.lifecycle.high_water;
    "lifecycle.dial_slots" => core.lifecycle.dial_slots;
    "lifecycle.dial_timeout" => core.lifecycle.dial_timeout;
    "lifecycle.backoff_base" => core.lifecycle.backoff_base;
    "lifecycle.backoff_step" => core.lifecycle.backoff_step;
    "lifecycle.backoff_max" => core.lifecycle.backoff_max;
    "lifecycle.dials_per_network" => core.lifecycle.dials_per_network;
    "lifecycle.identify_timeout" => core.lifecycle.identify_timeout;
    "lifecycle.address_ttl" => core.lifecycle.address_ttl;
    "lifecycle.expire_after" => core.lifecycle.expire_after;
    "lifecycle.proof_quic" => core.lifecycle.proof_quic;
    "lifecycle.proof_tcp" => core.lifecycle.proof_tcp;
    "lifecycle.flap_limit" => core.lifecycle.flap_limit;
    "lifecycle.flap_window" => core.lifecycle.flap_window;
    "lifecycle.flap_ban" => core.lifecycle.flap_ban;
    "lifecycle.black_hole" => core.lifecycle.black_hole;
    "lifecycle.sync_timeout" => core.lifecycle.sync_timeout;
    "lifecycle.ask_timeout" => core.lifecycle.ask_timeout;
    "nat.external" => core.nat.external;
    "nat.max_candidates" => core.nat.max_candidates;
    "nat.observers" => core.nat.observers;
    "nat.observation_ttl" => core.nat.observation_ttl;
    "nat.dwell" => core.nat.dwell;
    "nat.probe_after" => core.nat.probe_after;
    "nat.probe_retry" => core.nat.probe_retry;
    "nat.probe_retry_max" => core.nat.probe_retry_max;
    "nat.probe_again" => core.nat.probe_again;
    "nat.probe_timeout" => core.nat.probe_timeout;
    "nat.port_mapping" => core.nat.port_mapping;
    "nat.port_mapping_timeout" => core.nat.port_mapping_timeout;
    "nat.relays" => core.nat.relays;
    "nat.want_relays" => core.nat.want_relays;
    "nat.relay_after" => core.nat.relay_after;
    "nat.reserve_timeout" => core.nat.reserve_timeout;
    "nat.reservation_ttl" => core.nat.reservation_ttl;
    "nat.punching" => core.nat.punching;
    "nat.punch_timeout" => core.nat.punch_timeout;
    "nat.punch_retry" => core.nat.punch_retry;
    "nat.punch_retry_max" => core.nat.punch_retry_max;
    "nat.relay_service" => core.nat.relay_service;
    "nat.probe_service" => core.nat.probe_service;
    "relay.reservations" => core.relay.reservations;
    "relay.reservations_per_network" => core.relay.reservations_per_network;
    "relay.circuits" => core.relay.circuits;
    "relay.circuits_per_peer" => core.relay.circuits_per_peer;
    "relay.duration" => core.relay.duration;
    "relay.bytes" => core.relay.bytes;
    "relay.requests_per_peer" => core.relay.requests_per_peer;
    "relay.requests_per_network" => core.relay.requests_per_network;
    "sync.with" => core.sync.with;
    "sync.every" => core.sync.every;
    "sync.announce_after" => core.sync.announce_after;
    "sync.exchange_timeout" => core.sync.exchange_timeout;
    "sync.fetch_timeout" => core.sync.fetch_timeout;
    "sync.retry" => core.sync.retry;
    "sync.retry_max" => core.sync.retry_max;
    "sync.range" => core.sync.range;
    "sync.max_fetches" => core.sync.max_fetches;
    "sync.max_fetches_per_peer" => core.sync.max_fetches_per_peer;
    "sync.max_logs" => core.sync.max_logs;
    "sync.relay_bytes" => core.sync.relay_bytes;
    "sync.room" => core.sync.room;
    "planner.isolated_after" => core.planner.isolated_after;
    "planner.retry_min" => core.planner.retry_min;
    "planner.retry_max" => core.planner.retry_max;
    "planner.retry_slow" => core.planner.retry_slow;
    "planner.refresh" => core.planner.refresh;
    "planner.small_table" => core.planner.small_table;
    "planner.first_lookups" => core.planner.first_lookups;
    "planner.members" => core.planner.members;
    "planner.publish" => core.planner.publish;
    "planner.query_timeout" => core.planner.query_timeout;
    "planner.max_queries" => core.planner.max_queries;
};

/// Whether `name` begins the path of some key: `lifecycle`.
pub(super) fn is_table(name: &str) -> bool {
    KEYS.iter().any(|key| key.path.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')))
}

/// The known key that `path` most resembles, as a whole or in its last part.
pub(super) fn nearest_key(path: &str) -> &'static str {
    let last = path.rsplit('.').next().unwrap_or(path);
    let like = |key: &Key| likeness((path, key.path), (last, key.name()));
    nearest(KEYS.iter().map(|key| (like(key), key.path))).unwrap_or("network")
}

/// The known table that `name` most resembles.
pub(super) fn nearest_table(name: &str) -> &'static str {
    let tables = KEYS.iter().filter_map(|key| key.path.split_once('.')).map(|(table, _)| table);
    nearest(tables.map(|table| (likeness((name, table), (name, table)), table))).unwrap_or("lifecycle")
}

/// The known environment variable that `name` most resembles.
pub(super) fn nearest_variable(name: &str) -> String {
    let name = name.trim_start_matches("KINFOLK_").to_ascii_lowercase();
    let like = |key: &Key| likeness((&name, &key.path.replace('.', "_")), (&name, key.name()));
    let known = KEYS.iter().map(|key| (like(key), key.variable()));
    let file = likeness((&name, "config"), (&name, "config"));
    nearest(known.chain([(file, super::FILE_VARIABLE.to_owned())])).unwrap_or_default()
}

/// How much one name resembles another, each given as a whole and in its last part.
fn likeness(whole: (&str, &str), part: (&str, &str)) -> f64 {
    let begun = whole.0.starts_with(whole.1) || whole.1.starts_with(whole.0);
    let alike = |(a, b)| strsim::normalized_damerau_levenshtein(a, b);
    alike(whole).max(alike(part) * 0.95) + if begun { 0.3 } else { 0.0 }
}

fn nearest<T>(candidates: impl Iterator<Item = (f64, T)>) -> Option<T> {
    candidates.max_by(|(a, _), (b, _)| a.total_cmp(b)).map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_understood() {
        for (typed, meant) in [
            ("netwrok", "network"),
            ("Network", "network"),
            ("listen_addresses", "listen"),
            ("max_peers", "lifecycle.max_peers"),
            ("lifecycle.maxpeers", "lifecycle.max_peers"),
            ("lifecycle.high-water", "lifecycle.high_water"),
            ("limits.dial_slots", "lifecycle.dial_slots"),
            ("nat.extern", "nat.external"),
            ("bootstraps", "bootstrap"),
            ("datadir", "data_dir"),
        ] {
            assert_eq!(nearest_key(typed), meant, "{typed}");
        }
        assert_eq!(nearest_variable("KINFOLK_LISTN"), "KINFOLK_LISTEN");
        assert_eq!(nearest_variable("KINFOLK_CONFG"), "KINFOLK_CONFIG");
        assert_eq!(nearest_variable("KINFOLK_MAX_PEERS"), "KINFOLK_LIFECYCLE_MAX_PEERS");
    }

    #[test]
    fn every_setting_of_the_core_has_a_key() {
        let core = serde_json::to_value(Config::desktop()).unwrap();
        let mut paths = Vec::new();
        for (name, value) in core.as_object().unwrap() {
            match value.as_object() {
                Some(table) => paths.extend(table.keys().map(|inner| format!("{name}.{inner}"))),
                None => paths.push(name.clone()),
            }
        }
        assert!(paths.len() > 40, "{paths:?}");
        for path in paths {
            assert!(Key::named(&path).is_some(), "{path}");
        }
    }

    #[test]
    fn what_is_shown_can_be_read_back() {
        let draft = Draft { data_dir: "/d".into(), api_socket: "/s".into(), ..Draft::of(Role::Server) };
        let mut copy = Draft::of(Role::Desktop);
        for key in KEYS {
            let shown = (key.get)(&draft);
            let text = format!("v = {shown}");
            let table = toml::de::DeTable::parse(&text).unwrap();
            let raw = Raw::from_toml(table.get_ref()["v"].get_ref());
            (key.set)(&mut copy, &raw).unwrap();
        }
        assert_eq!(copy, draft);
    }
}
