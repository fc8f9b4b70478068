//! From a scenario to a world.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use kinfolk_core::{Address, Config, PeerAddress, PinnedPeer, Service, Transport};
use toml::Spanned;

use super::{
    faults::{Drawn, Step, Undo},
    file::{Home, Mix, NodeRole, Scenario, Server, in_network, kind_of, with_circuits},
};
use crate::{
    engine::{Dice, Moment, Purpose, SECOND},
    internet::{FirewallKind, HostId, INTERNET, Internet, NatKind, RouterId, SegmentId, Site, SiteId, Weather},
    swarm::{Setup, World, Writing, peer_id},
};

/// A home or server of a world.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) name: String,
    pub(super) base: String,
    pub(super) site: SiteId,
    pub(super) segment: SegmentId,
    pub(super) router: Option<RouterId>,
    pub(super) isp: usize,
    pub(super) nodes: Vec<HostId>,
    /// The signal server that it is.
    pub(super) doorway: Option<usize>,
    family: Option<String>,
}

/// A world that is ready to run, with all that will happen to it.
#[derive(Debug)]
pub struct Plan {
    /// The world.
    pub world: World,
    /// When it ends.
    pub end: Moment,
    pub(super) steps: Vec<(Moment, Step)>,
    pub(super) undone: Vec<Undo>,
    pub(super) places: Vec<Place>,
    pub(super) isps: Vec<String>,
    pub(super) regions: Vec<String>,
    pub(super) scenario: Scenario,
    pub(super) new_addresses: u32,
    /// What was drawn of the faults that come at random.
    pub drawn: Vec<Drawn>,
}

/// Where providers' customers, servers and shared addresses are on the internet.
const HOMES: u32 = 0x2e00_0000;
const SERVERS: u32 = 0x2d00_0000;
const SHARED: u32 = 0x2f00_0000;
const DOORWAYS: u32 = 0x2cff_0000;
/// Servers that a node knows by its settings.
const MAX_NAMED: usize = 8;
/// Addresses of one provider, as a power of two.
const PER_ISP: u32 = 18;

impl Plan {
    /// Makes a world from a scenario and a seed.
    pub fn new(scenario: &Scenario, seed: u64) -> Self {
        Builder::new(scenario, seed).build()
    }

    /// The name of a node: `home/1`, `server`.
    pub fn node_name(&self, node: HostId) -> String {
        for place in &self.places {
            if let Some(at) = place.nodes.iter().position(|known| *known == node) {
                return if place.router.is_none() { place.name.clone() } else { format!("{}/{}", place.name, at + 1) };
            }
        }
        format!("node {node}")
    }
}

struct Builder<'a> {
    scenario: &'a Scenario,
    seed: u64,
    dice: Dice,
    net: Internet,
    regions: Vec<String>,
    isps: Vec<String>,
    carriers: Vec<Option<SegmentId>>,
    customers: Vec<u32>,
    places: Vec<Place>,
    setups: Vec<Setup>,
}

impl<'a> Builder<'a> {
    fn new(scenario: &'a Scenario, seed: u64) -> Self {
        let mut regions: Vec<String> = scenario.regions.iter().map(|one| one.name.get_ref().clone()).collect();
        if regions.is_empty() {
            regions.push("earth".to_owned());
        }
        let mut isps: Vec<String> = scenario.isps.iter().map(|one| one.name.get_ref().clone()).collect();
        isps.push("(none)".to_owned());
        Self {
            scenario,
            seed,
            dice: Dice::new(seed, u32::MAX, Purpose::Layout),
            net: Internet::new(Dice::new(seed, u32::MAX, Purpose::Ports)),
            carriers: vec![None; isps.len()],
            customers: vec![0; isps.len()],
            regions,
            isps,
            places: vec![],
            setups: vec![],
        }
    }

    fn build(mut self) -> Plan {
        let scenario = self.scenario;
        self.lay_links();
        self.add_carriers();
        for (at, server) in scenario.servers.iter().enumerate() {
            for number in 1..=*server.count.get_ref() {
                self.add_server(at, number);
            }
        }
        for (at, home) in scenario.homes.iter().enumerate() {
            for number in 1..=*home.count.get_ref() {
                self.add_home(at, number);
            }
        }
        self.settle_who_knows_whom();
        let doorways: Vec<(HostId, String)> = (0..scenario.doorways.len()).map(|at| self.add_doorway(at)).collect();
        let families = self.families();
        let mut world = World::new(self.seed, self.net, scenario.unix_time);
        for setup in self.setups {
            world.add(setup);
        }
        #[cfg(feature = "museum")]
        if let Some(plant) = scenario.plant {
            world.plant(plant);
        }
        for (host, name) in doorways {
            world.add_doorway(host, &name);
        }
        if let Some(logs) = &scenario.logs {
            let until = nanos(logs.until.unwrap_or(scenario.duration / 10 * 8));
            world.keep_logs(Writing { every: nanos(logs.every), until, entries: logs.entries });
        }
        for members in families.values() {
            for (at, a) in members.iter().enumerate() {
                members[at + 1..].iter().for_each(|b| world.follow(*a, *b));
            }
        }
        for (place, home) in self.places.iter().filter_map(|place| {
            let home = scenario.homes.iter().find(|home| *home.name.get_ref() == place.base)?;
            Some((place, home))
        }) {
            if !home.mdns {
                world.mute(place.segment, true);
            }
        }
        let mut plan = Plan {
            world,
            end: nanos(scenario.duration),
            steps: vec![],
            undone: vec![],
            places: self.places,
            isps: self.isps,
            regions: self.regions,
            scenario: scenario.clone(),
            new_addresses: 0,
            drawn: vec![],
        };
        plan.lay_out(&mut Dice::new(self.seed, u32::MAX, Purpose::Faults));
        plan
    }

    fn lay_links(&mut self) {
        let count = self.regions.len();
        let mut distances = vec![nanos(Duration::from_millis(40)); count * count];
        for (at, region) in self.scenario.regions.iter().enumerate() {
            distances[at * count + at] = nanos(region.within);
        }
        if self.scenario.regions.is_empty() {
            distances[0] = nanos(Duration::from_millis(8));
        }
        for distance in &self.scenario.distances {
            let [a, b] = [0, 1].map(|one| position(&self.regions, Some(&distance.between[one])));
            distances[a * count + b] = nanos(distance.one_way);
            distances[b * count + a] = nanos(distance.one_way);
        }
        self.net.links.set_regions(count, distances);
        let weather = &self.scenario.weather;
        self.net.links.weather = Weather {
            loss: weather.loss,
            bursts: weather.bursts,
            reordered: weather.reordered,
            duplicated: weather.duplicated,
            jitter: nanos(weather.jitter),
        };
    }

    fn add_carriers(&mut self) {
        for (at, isp) in self.scenario.isps.iter().enumerate() {
            let Some(nat) = &isp.nat else { continue };
            let region = position(&self.regions, isp.region.as_ref()) as u16;
            let site = self.net.links.add(Site { isp: at as u16, region, access: SECOND / 1_000, up: true });
            let outer = Some(Ipv4Addr::from(SHARED + (at as u32) * 256 + 1));
            let base = (Ipv4Addr::new(100, 64, 0, 0), 10);
            let kind = NatKind { gives_ports: false, capacity: 60_000, ..known(nat.get_ref()) };
            let (segment, _) = self.net.add_network(site, INTERNET, outer, base, kind, FirewallKind::Open);
            self.carriers[at] = Some(segment);
        }
    }

    fn add_server(&mut self, at: usize, number: u32) {
        let server = &self.scenario.servers[at];
        let region = position(&self.regions, server.region.as_ref()) as u16;
        let isp = self.isps.len() - 1;
        let site = self.net.links.add(Site { isp: isp as u16, region, access: SECOND / 2_000, up: true });
        if let Some(blocks) = server.blocks {
            self.net.block(site, blocks.into());
        }
        let nth = self.places.len() as u32;
        let v4 = Ipv4Addr::from(SERVERS + nth * 256 + 1);
        let v6 = server.ipv6.then(|| Ipv6Addr::new(0x2a01, (nth >> 16) as u16, nth as u16, 0, 0, 0, 0, 1));
        let host = self.net.add_host(site, INTERNET, Some(v4), v6);
        let base = server.name.get_ref().clone();
        let name = if *server.count.get_ref() == 1 { base.clone() } else { format!("{base}.{number}") };
        self.net.add_name(&format!("{name}.example"), vec![v4.into()]);
        let place = Place {
            name,
            base,
            site,
            segment: INTERNET,
            router: None,
            isp,
            nodes: vec![host],
            doorway: None,
            family: server.family.clone(),
        };
        self.places.push(place);
        let config = with_circuits(preset(server.role), server.circuits.as_ref());
        let setup = self.setup(in_network(config, server.network.as_ref()));
        self.setups.push(Setup { malice: server.malice, ..setup });
    }

    /// A signal server's host comes after all machines.
    fn add_doorway(&mut self, at: usize) -> (HostId, String) {
        let doorway = &self.scenario.doorways[at];
        let region = position(&self.regions, doorway.region.as_ref()) as u16;
        let isp = self.isps.len() - 1;
        let site = self.net.links.add(Site { isp: isp as u16, region, access: SECOND / 2_000, up: true });
        let v4 = Ipv4Addr::from(DOORWAYS + at as u32 * 256 + 1);
        let host = self.net.add_host(site, INTERNET, Some(v4), None);
        let name = doorway.name.get_ref().clone();
        let dns = format!("{name}.example");
        self.net.add_name(&dns, vec![v4.into()]);
        self.places.push(Place {
            base: name.clone(),
            name,
            site,
            segment: INTERNET,
            router: None,
            isp,
            nodes: vec![],
            doorway: Some(at),
            family: None,
        });
        (host, dns)
    }

    fn add_home(&mut self, at: usize, number: u32) {
        let home = &self.scenario.homes[at];
        let isp = position_or_last(&self.isps, home.isp.as_ref());
        let provider = self.scenario.isps.get(isp);
        let region = position(&self.regions, provider.and_then(|isp| isp.region.as_ref())) as u16;
        let access = nanos(provider.map_or(Duration::from_millis(7), |isp| isp.access));
        // Lines of one provider differ.
        let access = access / 2 + self.dice.below(access.max(1));
        let site = self.net.links.add(Site { isp: isp as u16, region, access, up: true });
        if let Some(blocks) = home.blocks {
            self.net.block(site, blocks.into());
        }
        self.customers[isp] += 1;
        let customer = self.customers[isp];
        let mut kind = self.draw(home.nat.get_ref());
        kind.gives_ports |= home.gives_ports;
        let firewall = if home.open_ipv6 { FirewallKind::Open } else { FirewallKind::Stateful };
        let base = (Ipv4Addr::new(192, 168, 1, 0), 24);
        let (outside, outer) = match self.carriers[isp] {
            Some(carrier) => (carrier, None),
            None => (INTERNET, Some(Ipv4Addr::from(HOMES + ((isp as u32) << PER_ISP) + customer))),
        };
        let (segment, router) = self.net.add_network(site, outside, outer, base, kind, firewall);
        let ipv6 = provider.is_some_and(|isp| isp.ipv6);
        let prefix = |node: u32| {
            let [high, low] = [(customer >> 16) as u16, customer as u16];
            Ipv6Addr::new(0x2a00, isp as u16, high, low, 0, 0, 0, node as u16)
        };
        let nodes: Vec<HostId> =
            (1..=home.nodes).map(|node| self.net.add_host(site, segment, None, ipv6.then(|| prefix(node)))).collect();
        let base = home.name.get_ref().clone();
        let name = if *home.count.get_ref() == 1 { base.clone() } else { format!("{base}.{number}") };
        let family = home.family.clone();
        let count = nodes.len();
        let router = Some(router);
        self.places.push(Place { name, base, site, segment, router, isp, nodes, doorway: None, family });
        for _ in 0..count {
            let setup = self.setup(in_network(preset(home.role), home.network.as_ref()));
            self.setups.push(Setup {
                clock_offset: home.clock_offset,
                synced: home.clock_offset == 0,
                drift: home.clock_drift,
                ports_taken: home.ports_taken,
                malice: home.malice,
                ..setup
            });
        }
    }

    fn setup(&self, mut config: Config) -> Setup {
        if self.scenario.logs.is_some() {
            config.sync.with = Service::Anyone;
        }
        #[expect(clippy::expect_used, reason = "presets are valid")]
        let config = config.validate().expect("a preset");
        let slack = nanos(self.scenario.weather.wake_slack);
        Setup { config, slack, clock_offset: 0, synced: true, drift: 0, ports_taken: false, malice: None }
    }

    fn draw(&mut self, mix: &Mix) -> NatKind {
        match mix {
            Mix::One(name) => known(name),
            Mix::Several(all) => {
                let sum: u32 = all.values().sum();
                let mut left = self.dice.below(sum.into()) as u32;
                for (name, share) in all {
                    if left < *share {
                        return known(name);
                    }
                    left -= share;
                }
                NatKind::port_restricted()
            }
        }
    }

    fn families(&self) -> BTreeMap<String, Vec<HostId>> {
        let mut families: BTreeMap<String, Vec<HostId>> = BTreeMap::new();
        for place in &self.places {
            if let Some(family) = &place.family {
                families.entry(family.clone()).or_default().extend(&place.nodes);
            }
        }
        families
    }

    fn settle_who_knows_whom(&mut self) {
        let families = self.families();
        let scenario = self.scenario;
        let homes: BTreeMap<&str, &Home> =
            scenario.homes.iter().map(|home| (home.name.get_ref().as_str(), home)).collect();
        let servers: BTreeMap<&str, &Server> =
            scenario.servers.iter().map(|server| (server.name.get_ref().as_str(), server)).collect();
        let mut served: BTreeMap<&str, Vec<&Place>> = BTreeMap::new();
        for place in self.places.iter().filter(|place| place.router.is_none()) {
            served.entry(&place.base).or_default().push(place);
        }
        for place in &self.places {
            let home = homes.get(place.base.as_str());
            let server = servers.get(place.base.as_str());
            let none: &[Spanned<String>] = &[];
            let bootstrap = home.map_or(none, |home| &home.bootstrap);
            let bootstrap = server.map_or(bootstrap, |server| &server.bootstrap);
            let relays = home.map_or(none, |home| &home.relays);
            let relays = server.map_or(relays, |server| &server.relays);
            let doorways = home.map_or(none, |home| &home.doorways);
            let doorways = server.map_or(doorways, |server| &server.doorways);
            let doorways: Vec<String> =
                doorways.iter().map(|name| format!("https://{}.example/signal", name.get_ref())).collect();
            let named = |names: &[Spanned<String>], dns: bool| -> Vec<PeerAddress> {
                let places = names.iter().flat_map(|name| served.get(name.get_ref().as_str()).into_iter().flatten());
                let both = places.take(MAX_NAMED).filter_map(|other| {
                    let host = *other.nodes.first()?;
                    let ip = self.net.host(host).v4?;
                    Some([("udp/4001/quic-v1", Transport::Quic), ("tcp/4001", Transport::Tcp)].map(
                        |(text, transport)| {
                            let name = format!("/dns4/{}.example/{text}", other.name);
                            let named = name.parse().ok().filter(|_| dns);
                            PeerAddress::new(peer_id(host), named.unwrap_or(Address::ip(ip.into(), 4001, transport)))
                        },
                    ))
                });
                both.flatten().collect()
            };
            let (bootstrap, relays) = (named(bootstrap, true), named(relays, false));
            let family = place.family.as_ref().and_then(|family| families.get(family));
            for node in &place.nodes {
                let mut config = Config::from(self.setups[*node as usize].config.clone());
                config.bootstrap = bootstrap.iter().filter(|one| one.peer != Some(peer_id(*node))).cloned().collect();
                config.nat.relays.clone_from(&relays);
                config.signal.servers.clone_from(&doorways);
                let others = family.into_iter().flatten().filter(|other| *other != node);
                config.pinned =
                    others.map(|other| PinnedPeer { peer: peer_id(*other), addresses: vec![] }).take(40).collect();
                #[expect(clippy::expect_used, reason = "what is named was checked")]
                let config = config.validate().expect("a scenario's settings");
                self.setups[*node as usize].config = config;
            }
        }
    }
}

fn preset(role: NodeRole) -> Config {
    match role {
        NodeRole::Family => Config::family_node(),
        NodeRole::Desktop => Config::desktop(),
        NodeRole::Server => Config::server(),
    }
}

fn known(name: &str) -> NatKind {
    kind_of(name).unwrap_or(NatKind::port_restricted())
}

pub(super) fn position(names: &[String], name: Option<&Spanned<String>>) -> usize {
    name.and_then(|name| names.iter().position(|known| known == name.get_ref())).unwrap_or(0)
}

fn position_or_last(names: &[String], name: Option<&Spanned<String>>) -> usize {
    name.and_then(|name| names.iter().position(|known| known == name.get_ref())).unwrap_or(names.len() - 1)
}

pub(super) const fn nanos(span: Duration) -> u64 {
    span.as_nanos() as u64
}
