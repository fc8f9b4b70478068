//! All protocols of a node in one behaviour.

use std::{
    collections::HashMap,
    num::NonZeroUsize,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use kinfolk_core::Config;
use libp2p::{
    Multiaddr, PeerId, StreamProtocol, autonat, identify,
    identity::Keypair,
    kad::{self, RecordKey},
    mdns,
    swarm::{FromSwarm, NetworkBehaviour, behaviour::toggle::Toggle},
};

use super::{
    NetworkError, NetworkSettings,
    gate::{Gate, Limits},
    governed::Governed,
    ids,
    pings::Pings,
    punch::Punch,
    reach::{
        Reach,
        serving::{Offered, Terms},
    },
    relay,
    settled::Settled,
    shelf::Shelf,
    sync::Sync,
    twin::Twin,
};

/// How long records and memberships live in the hash table. The core announces them again at a quarter of it.
const RECORD_LIFETIME: Duration = Duration::from_secs(2 * 3600);

/// For others' addresses. The library gives an answer 10 s, of which the client's data may take some; this is enough for
/// three packets of TCP.
const PROBE_PATIENCE: Duration = Duration::from_secs(7);

/// See the module.
#[derive(NetworkBehaviour)]
pub(super) struct Behaviour<A: NetworkBehaviour> {
    /// The first field: it is asked first.
    pub(super) gate: Gate,
    pub(super) identify: Governed<Settled<identify::Behaviour>>,
    pub(super) ping: Pings,
    pub(super) kad: Governed<Settled<kad::Behaviour<Shelf>>>,
    pub(super) punch: Punch,
    pub(super) mdns: Toggle<Governed<mdns::tokio::Behaviour>>,
    pub(super) twin: Toggle<Twin>,
    pub(super) relay: Governed<relay::Client>,
    pub(super) relay_server: relay::Server,
    pub(super) reach: Reach,
    pub(super) sync: Sync,
    pub(super) app: Governed<A>,
    /// The last fields: version 1 remembers each connection that it has a handler for, also if another field turns it
    /// away.
    pub(super) autonat_v2: Governed<Offered<autonat::v2::server::Behaviour>>,
    pub(super) autonat_v1: Governed<Offered<autonat::v1::Behaviour>>,
}

/// The addresses that the core itself has put into the routing table.
#[derive(Clone, Debug, Default)]
pub(super) struct Routed(Arc<Mutex<HashMap<PeerId, Vec<Multiaddr>>>>);

impl Routed {
    pub(super) fn add(&self, peer: PeerId, address: Multiaddr) {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_peer = table.entry(peer).or_default();
        if !of_peer.contains(&address) {
            of_peer.push(address);
        }
    }

    pub(super) fn remove(&self, peer: &PeerId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(peer);
    }

    pub(super) fn of(&self, peer: &PeerId) -> Vec<Multiaddr> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(peer).cloned().unwrap_or_default()
    }

    /// Whether Kademlia may dial, and tell others, this address: an endpoint on the internet, or what the core routed.
    pub(super) fn allows(&self, peer: &PeerId, address: &Multiaddr) -> bool {
        if ids::on_the_internet(address) {
            return true;
        }
        let address = ids::without_peer(address.clone());
        let table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.get(peer).is_some_and(|of_peer| of_peer.contains(&address))
    }
}

/// The keys under which a network's peers announce themselves: each is the SHA-256 of a text as a multihash, which is
/// what other implementations take for a provider's key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct NetworkKeys {
    /// Members: `kinfolk network: NAME`.
    pub(super) members: RecordKey,
    /// Those that relay for the network: `kinfolk relays: NAME`.
    pub(super) relays: RecordKey,
}

impl NetworkKeys {
    pub(super) fn of(name: &str) -> Self {
        let key = |text: String| {
            let mut key = vec![0x12, 0x20];
            key.extend_from_slice(&ids::sha_256(text.as_bytes()));
            RecordKey::from(key)
        };
        Self { members: key(format!("kinfolk network: {name}")), relays: key(format!("kinfolk relays: {name}")) }
    }

    pub(super) fn contain(&self, key: &RecordKey) -> bool {
        [&self.members, &self.relays].contains(&key)
    }
}

impl<A: NetworkBehaviour> Behaviour<A> {
    pub(super) fn new(
        key: &Keypair,
        settings: &NetworkSettings,
        routed: Routed,
        (relay, relay_server): (relay::Client, relay::Server),
        terms: Terms,
        app: A,
    ) -> Result<Self, NetworkError> {
        let local = key.public().to_peer_id();
        let config: &Config = &settings.config;
        let mut gate = Gate::new(limits(settings));
        for pinned in &config.pinned {
            gate.pin(ids::peer_to_libp2p(&pinned.peer), true);
        }
        let (mdns, twin) = if config.mdns {
            let mdns = mdns::tokio::Behaviour::new(mdns_config(settings), local).map_err(NetworkError::Mdns)?;
            let twin = Twin::new(local).inspect_err(|error| {
                tracing::warn!(%error, "another machine with this node's identity will not be noticed by mDNS");
            });
            (Some(Governed::new(mdns, everything, Box::new(|_, _| false))), twin.ok())
        } else {
            (None, None)
        };
        Ok(Self {
            gate,
            identify: Governed::new(
                Settled::new(identify(key, settings), |protocol| protocol == identify::PUSH_PROTOCOL_NAME.as_ref()),
                everything,
                Box::new(|_, _| false),
            ),
            ping: Pings::new(settings),
            kad: Governed::new(
                Settled::new(kademlia(local, config, settings.bucket)?, |_| true),
                nothing_listened,
                Box::new(move |peer, address| routed.allows(peer, address)),
            ),
            punch: Punch::new(protocol("punch", &config.protocols.punch)?),
            mdns: mdns.into(),
            twin: twin.into(),
            relay: Governed::new(relay, everything, Box::new(|_, _| false)),
            relay_server,
            reach: Reach::default(),
            sync: Sync::new(protocol("sync", &config.protocols.sync)?, terms.members.clone()),
            // The guard stops what an application's dials must not reach.
            app: Governed::new(app, everything, Box::new(|_, _| true)),
            autonat_v2: Governed::new(
                Offered::new(autonat::v2::server::Behaviour::default(), terms.clone(), ids::on_the_internet)
                    .within(PROBE_PATIENCE),
                everything,
                Box::new(|_, _| false),
            ),
            autonat_v1: Governed::new(
                Offered::new(autonat::v1::Behaviour::new(local, autonat_v1()), terms, ids::on_the_internet),
                everything,
                Box::new(|_, _| false),
            ),
        })
    }
}

/// The library asks who is there until the first answer, and then every 5 minutes: of ten computers that start at once,
/// whose packets crowd each other out, two did not see each other in that time. Whoever hears a question or an answer
/// waits anew, so a network hears one question in half a minute, however many nodes it has.
fn mdns_config(settings: &NetworkSettings) -> mdns::Config {
    mdns::Config { query_interval: settings.mdns_interval, ..mdns::Config::default() }
}

/// Strangers may fill what the core trims to `high_water`, and a little more, so that trimming and not this wall decides
/// who stays.
fn limits(settings: &NetworkSettings) -> Limits {
    let lifecycle = &settings.config.lifecycle;
    let more = lifecycle.dial_slots.saturating_add(16.min(lifecycle.high_water / 3));
    Limits {
        total: lifecycle.high_water.saturating_add(more),
        per_peer: 8,
        pending: settings.handshakes,
        pending_per_network: settings.handshakes.div_ceil(2),
    }
}

fn identify(key: &Keypair, settings: &NetworkSettings) -> identify::Behaviour {
    // Without the signed record: rust-libp2p signs it in a way that makes js-libp2p drop the whole message.
    let config = identify::Config::new(settings.config.protocols.identify.clone(), key.public())
        .with_agent_version(settings.agent.clone())
        .with_hide_listen_addrs(true)
        .with_interval(settings.identify_interval)
        // Addresses of peers are the core's.
        .with_cache_size(0);
    identify::Behaviour::new(config)
}

/// Version 1 as a server only. Its client shares the code; without servers, and with a clock that never strikes, it does
/// nothing.
fn autonat_v1() -> autonat::v1::Config {
    const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);
    autonat::v1::Config {
        use_connected: false,
        boot_delay: NEVER,
        retry_interval: NEVER,
        refresh_interval: NEVER,
        // Below the quota: here it has words for a refusal.
        throttle_clients_period: Duration::from_secs(60),
        throttle_clients_peer_max: 4,
        throttle_clients_global_max: 30,
        // Tried one after the other, at the IP address from which the client comes.
        max_peer_addresses: 8,
        only_global_ips: true,
        ..autonat::v1::Config::default()
    }
}

fn kademlia(local: PeerId, config: &Config, bucket: NonZeroUsize) -> Result<kad::Behaviour<Shelf>, NetworkError> {
    let mut kademlia = kad::Config::new(protocol("kademlia", &config.protocols.kademlia)?);
    kademlia
        .set_kbucket_inserts(kad::BucketInserts::Manual)
        .set_kbucket_size(bucket)
        .set_record_filtering(kad::StoreInserts::FilterBoth)
        .set_record_ttl(Some(RECORD_LIFETIME))
        .set_provider_record_ttl(Some(RECORD_LIFETIME))
        .set_caching(kad::Caching::Disabled)
        // The core repeats all of these itself.
        .set_replication_interval(None)
        .set_publication_interval(None)
        .set_provider_publication_interval(None)
        .set_periodic_bootstrap_interval(None);
    let max_peers = config.lifecycle.max_peers.clamp(64, 20_000) as usize;
    let shelf = Shelf::new(local, NetworkKeys::of(&config.network), max_peers);
    let mut behaviour = kad::Behaviour::with_config(local, shelf, kademlia);
    // By itself it would serve as soon as an address is advertised.
    behaviour.set_mode(Some(kad::Mode::Client));
    Ok(behaviour)
}

fn protocol(setting: &'static str, name: &str) -> Result<StreamProtocol, NetworkError> {
    StreamProtocol::try_from_owned(name.to_owned())
        .map_err(|_| NetworkError::Protocol { setting, name: name.to_owned() })
}

fn everything(_: &FromSwarm<'_>) -> bool {
    true
}

/// Kademlia is not told where we listen: it would tell others, and begin look-ups by itself.
fn nothing_listened(event: &FromSwarm<'_>) -> bool {
    !matches!(event, FromSwarm::NewListenAddr(_) | FromSwarm::ExpiredListenAddr(_))
}
