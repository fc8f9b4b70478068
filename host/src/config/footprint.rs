//! What a node may cost its machine: memory, wake-ups, writes to the disk.
//!
//! `power` and `memory` are presets like a role: they change other settings, which can still be set one by one.

use std::{num::NonZeroUsize, time::Duration};

use kinfolk_core::Config;
use kinfolk_shell::network::NetworkSettings;

use super::Bytes;

/// The least that a node can do with.
pub(super) const LEAST_MEMORY: Bytes = Bytes(32 << 20);

/// What a node takes without any connection: the program, its libraries, SQLite, the compressor of traces, and what the
/// allocator does not give back after a busy time.
const BASE: u64 = 24 << 20;

/// What one connection may take: about 100 KiB at rest (QUIC), the rest for what is on the way on it.
const CONNECTION: u64 = 512 << 10;

/// Peers in a bucket of the hash table where memory is bounded: as many as BitTorrent's nodes have.
const SMALL_BUCKET: NonZeroUsize = NonZeroUsize::new(8).expect("8 is not 0");

/// What a node may cost its machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Footprint {
    /// How eagerly it looks around. Default: normal.
    pub power: Power,
    /// How much memory the process may take; limits follow from it. Default: no limit, in `kinfolk-embedded` 64 MiB.
    pub memory: Option<Bytes>,
    /// Timers may be late by this, so that several go off together; those that are near, by an eighth of what is left at
    /// most. Default: 0 s; with low power 5 s.
    pub slack: Duration,
    /// The trace, and peers that can be found again, are written to disk this long after, together. What was put into a
    /// log or said by hand is written at once. Default: 2 s; with low power 5 min.
    pub batch: Duration,
}

/// How eagerly a node looks around.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Power {
    /// As quickly as is useful.
    #[default]
    Normal,
    /// As seldom as is enough: for machines that run day and night. What changes is noticed later, by minutes at most.
    Low,
}

impl Default for Footprint {
    fn default() -> Self {
        Self { power: Power::Normal, memory: None, slack: Duration::ZERO, batch: Duration::from_secs(2) }
    }
}

impl Footprint {
    /// What goes with `power`, and no limit to memory.
    pub fn of(power: Power) -> Self {
        match power {
            Power::Normal => Self::default(),
            Power::Low => Self { power, memory: None, slack: Duration::from_secs(5), batch: Duration::from_secs(300) },
        }
    }

    /// Changes what follows from `power`.
    pub(crate) fn apply_power(&self, config: &mut Config) {
        if self.power == Power::Normal {
            return;
        }
        let minutes = |number: u64| Duration::from_secs(60 * number);
        let planner = &mut config.planner;
        planner.refresh = planner.refresh.max(minutes(30));
        planner.publish = planner.publish.max(minutes(60));
        planner.members = planner.members.max(minutes(2));
        planner.retry_slow = planner.retry_slow.max(minutes(15));
        config.nat.probe_again = config.nat.probe_again.max(minutes(6 * 60));
        config.sync.every = config.sync.every.max(minutes(15));
    }

    /// Lowers what does not fit into `memory`.
    pub(crate) fn apply_memory(&self, config: &mut Config) {
        let Some((room, connections)) = self.room() else { return };
        let lifecycle = &mut config.lifecycle;
        let (high, slots) = (share(connections, 3, 5), share(connections, 1, 5));
        lifecycle.high_water = lifecycle.high_water.min(high);
        lifecycle.low_water = lifecycle.low_water.min(share(lifecycle.high_water, 2, 3));
        lifecycle.dial_slots = lifecycle.dial_slots.min(slots.max(4));
        lifecycle.max_peers = lifecycle.max_peers.min(number(room / (64 << 10)).max(64));
        config.relay.reservations = config.relay.reservations.min(share(connections, 1, 3));
        config.relay.circuits = config.relay.circuits.min(slots);
        let sync = &mut config.sync;
        sync.max_fetches = sync.max_fetches.min(number(room / (8 << 20)).max(1));
        sync.max_fetches_per_peer = sync.max_fetches_per_peer.min(sync.max_fetches);
    }

    /// The same for what is no setting of the core.
    pub(crate) fn shape(&self, settings: &mut NetworkSettings) {
        if self.power == Power::Low {
            settings.ping_interval = Duration::from_secs(60);
            // The core takes two minutes of silence for the end.
            settings.quic_ping_interval = Duration::from_secs(100);
            settings.quic_ping_heard = Duration::from_secs(100);
            settings.ping_timeout = Duration::from_secs(60);
            settings.identify_interval = Duration::from_secs(900);
            settings.mdns_interval = Duration::from_secs(300);
        }
        if let Some((_, connections)) = self.room() {
            settings.streams = 64;
            settings.negotiating = 16;
            settings.stream_window = 128 << 10;
            settings.connection_window = 256 << 10;
            settings.bucket = SMALL_BUCKET;
            settings.handshakes = settings.handshakes.min(share(connections, 1, 2));
        }
    }

    /// What is left for connections and all that grows with them, and how many there may be.
    fn room(&self) -> Option<(u64, u32)> {
        let room = self.memory?.0.max(LEAST_MEMORY.0) - BASE;
        Some((room, number(room / CONNECTION)))
    }
}

fn number(of: u64) -> u32 {
    u32::try_from(of).unwrap_or(u32::MAX)
}

/// This part of it, at least one.
fn share(of: u32, part: u64, whole: u64) -> u32 {
    number(u64::from(of) * part / whole).max(1)
}

#[cfg(test)]
mod tests {
    use kinfolk_core::Role;

    use super::*;

    fn with_memory(mib: u64, role: Role) -> Config {
        let mut config = Config::of(role);
        Footprint { memory: Some(Bytes(mib << 20)), ..Footprint::default() }.apply_memory(&mut config);
        config
    }

    #[test]
    fn limits_follow_from_memory_and_make_sense_at_any_size() {
        let limits =
            |config: &Config| (config.lifecycle.low_water, config.lifecycle.high_water, config.lifecycle.dial_slots);
        assert_eq!(limits(&with_memory(64, Role::Family)), (32, 48, 16), "the family's presets fit");
        assert_eq!(limits(&with_memory(32, Role::Family)), (6, 9, 4));
        assert_eq!(limits(&with_memory(4_096, Role::Server)), (200, 300, 64), "nothing is raised");
        for mib in [1, 32, 40, 64, 100, 1 << 20] {
            for role in [Role::Family, Role::Server] {
                let config = with_memory(mib, role);
                assert!(config.clone().validate().is_ok(), "{mib} MiB: {config:?}");
            }
        }
    }

    #[test]
    fn low_power_changes_only_how_often() {
        let mut config = Config::family_node();
        Footprint::of(Power::Low).apply_power(&mut config);
        assert_ne!(config, Config::family_node());
        let plain = Config::family_node();
        assert_eq!((&config.lifecycle, &config.relay), (&plain.lifecycle, &plain.relay));
        assert!(config.validate().is_ok());
    }
}
