//! A scenario's file, key by key.

use std::{collections::BTreeMap, ops::Range, time::Duration};

use kinfolk_core::{Config, ConfigError, Protocols, Role};
use serde::{Deserialize, Deserializer, Serialize, de::Error};
use toml::Spanned;

use crate::{
    internet::{NatKind, Protocol},
    swarm::Malice,
    words,
};

/// See the module.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Scenario {
    /// The file that it comes from, or its name if it is part of the program.
    #[serde(skip)]
    pub file: String,
    /// All of it, as it was read.
    #[serde(skip)]
    pub text: String,
    /// What it is called.
    pub name: String,
    /// What it shows.
    #[serde(default)]
    pub about: String,
    /// How long it runs, in simulated time.
    #[serde(deserialize_with = "span")]
    pub duration: Duration,
    /// What the wall clock says at the begin, seconds since 1970.
    #[serde(default = "unix_time")]
    pub unix_time: u64,
    /// Homes and servers start within this, at random.
    #[serde(default = "start_within", deserialize_with = "span")]
    pub start_within: Duration,
    /// The first servers start by then, in their order.
    #[serde(default)]
    pub weather: Weather,
    /// What is written into logs, and replicated. Without it, nobody keeps any.
    pub logs: Option<Logs>,
    /// Where things are.
    #[serde(default, rename = "region")]
    pub regions: Vec<Region>,
    /// How far apart regions are.
    #[serde(default, rename = "distance")]
    pub distances: Vec<Distance>,
    /// Providers.
    #[serde(default, rename = "isp")]
    pub isps: Vec<Isp>,
    /// Homes with their routers and computers.
    #[serde(default, rename = "home")]
    pub homes: Vec<Home>,
    /// Machines with addresses of their own.
    #[serde(default, rename = "server")]
    pub servers: Vec<Server>,
    /// Signal servers.
    #[serde(default, rename = "doorway")]
    pub doorways: Vec<Doorway>,
    /// What goes wrong at which time.
    #[serde(default, rename = "fault")]
    pub faults: Vec<Fault>,
    /// What goes wrong at random.
    #[serde(default, rename = "random-fault")]
    pub random_faults: Vec<RandomFault>,
    /// What users ask.
    #[serde(default, rename = "ask")]
    pub asks: Vec<UserAsk>,
    /// What must come of it.
    #[serde(default)]
    pub expect: Expect,
    /// A bug that is planted into all nodes.
    #[cfg(feature = "museum")]
    pub plant: Option<crate::swarm::Plant>,
}

/// A user asks a node for a connection.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct UserAsk {
    /// When.
    #[serde(deserialize_with = "span")]
    pub at: Duration,
    /// Which node: a server, or a home's (`home/2`).
    pub who: Spanned<String>,
    /// To which node; somebody whom nobody knows if not said.
    pub to: Option<Spanned<String>>,
}

/// What the ways do at random, everywhere alike.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Weather {
    /// Packets lost, in a million.
    pub loss: u32,
    /// Bad ten seconds, in a million.
    pub bursts: u32,
    /// Packets overtaken, in a million.
    pub reordered: u32,
    /// Packets that come twice, in a million.
    pub duplicated: u32,
    /// The mean of what each packet takes longer.
    #[serde(deserialize_with = "span")]
    pub jitter: Duration,
    /// Wakes of nodes come up to this much late.
    #[serde(deserialize_with = "span")]
    pub wake_slack: Duration,
}

/// Every node has a log, writes into it, and exchanges logs with everybody.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Logs {
    /// The mean time between two times at which a node writes.
    #[serde(deserialize_with = "span")]
    pub every: Duration,
    /// How many entries it writes then.
    #[serde(default = "single")]
    pub entries: u32,
    /// Nobody writes after this; 80 % of the duration if not said.
    #[serde(default, deserialize_with = "maybe_span")]
    pub until: Option<Duration>,
}

/// A part of the earth.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Region {
    /// Its name.
    pub name: Spanned<String>,
    /// One way within it.
    #[serde(default = "within", deserialize_with = "span")]
    pub within: Duration,
}

/// How far apart two regions are.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Distance {
    /// Which two.
    pub between: [Spanned<String>; 2],
    /// One way.
    #[serde(deserialize_with = "span")]
    pub one_way: Duration,
}

/// A provider.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Isp {
    /// Its name.
    pub name: Spanned<String>,
    /// Where it is.
    pub region: Option<Spanned<String>>,
    /// One way from a home to it.
    #[serde(default = "access", deserialize_with = "span")]
    pub access: Duration,
    /// Its own NAT, if all its homes share an address.
    pub nat: Option<Spanned<String>>,
    /// Whether homes have IPv6.
    #[serde(default)]
    pub ipv6: bool,
}

/// A home, or many alike.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Home {
    /// Its name; of many, the n-th is called `NAME.n`.
    pub name: Spanned<String>,
    /// How many.
    #[serde(default = "one")]
    pub count: Spanned<u32>,
    /// Its provider.
    pub isp: Option<Spanned<String>>,
    /// The router's NAT: a kind, or kinds with their shares.
    #[serde(default = "usual")]
    pub nat: Spanned<Mix>,
    /// Whether the router gives port mappings.
    #[serde(default)]
    pub gives_ports: bool,
    /// Whether the router lets IPv6 in from everywhere.
    #[serde(default)]
    pub open_ipv6: bool,
    /// Computers that run Kinfolk.
    #[serde(default = "single")]
    pub nodes: u32,
    /// What they are.
    #[serde(default = "family_role")]
    pub role: NodeRole,
    /// Whose home it is: nodes of one family pin each other.
    pub family: Option<String>,
    /// The network that it belongs to, if not the one of all who name none.
    pub network: Option<Spanned<String>>,
    /// The servers that are asked first.
    #[serde(default)]
    pub bootstrap: Vec<Spanned<String>>,
    /// The relays that are asked first.
    #[serde(default)]
    pub relays: Vec<Spanned<String>>,
    /// The signal servers that it asks.
    #[serde(default)]
    pub doorways: Vec<Spanned<String>>,
    /// Whether multicasts get through.
    #[serde(default = "yes")]
    pub mdns: bool,
    /// Whether other programs have the ports on which its nodes would listen.
    #[serde(default)]
    pub ports_taken: bool,
    /// Seconds by which the wall clock is wrong.
    #[serde(default)]
    pub clock_offset: i64,
    /// Millionths by which the clock runs fast.
    #[serde(default)]
    pub clock_drift: i32,
    /// A protocol that its line does not carry.
    pub blocks: Option<Blocked>,
    /// Whether its nodes are hostile, and how.
    pub malice: Option<Malice>,
}

/// A server, or many alike.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Server {
    /// Its name; of many, the n-th is called `NAME.n`.
    pub name: Spanned<String>,
    /// How many.
    #[serde(default = "one")]
    pub count: Spanned<u32>,
    /// Where it is.
    pub region: Option<Spanned<String>>,
    /// Whether it has IPv6.
    #[serde(default = "yes")]
    pub ipv6: bool,
    /// Other servers that it asks first.
    #[serde(default)]
    pub bootstrap: Vec<Spanned<String>>,
    /// The relays that it asks first, if it is no server.
    #[serde(default)]
    pub relays: Vec<Spanned<String>>,
    /// The signal servers that it asks.
    #[serde(default)]
    pub doorways: Vec<Spanned<String>>,
    /// What its relay allows a circuit.
    pub circuits: Option<Spanned<Circuits>>,
    /// What it is.
    #[serde(default = "server_role")]
    pub role: NodeRole,
    /// Whose it is: nodes of one family pin each other.
    pub family: Option<String>,
    /// The network that it belongs to, if not the one of all who name none.
    pub network: Option<Spanned<String>>,
    /// A protocol that its line does not carry.
    pub blocks: Option<Blocked>,
    /// Whether it is hostile, and how.
    pub malice: Option<Malice>,
}

/// What a relay allows a circuit; what is not said is the role's.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Circuits {
    /// How long it may stand.
    #[serde(rename = "for", deserialize_with = "maybe_span")]
    pub lasts: Option<Duration>,
    /// Bytes that it may carry, both ways together.
    pub bytes: Option<u64>,
}

/// A signal server, on a machine of its own.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Doorway {
    /// Its name; it is at `https://NAME.example/signal`.
    pub name: Spanned<String>,
    /// Where it is.
    pub region: Option<Spanned<String>>,
}

/// What goes wrong at a time.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Fault {
    /// When.
    #[serde(deserialize_with = "span")]
    pub at: Duration,
    /// What.
    pub what: Spanned<FaultKind>,
    /// To whom: a home, a server, a provider, a region, or a node (`home/2`).
    pub who: Option<Spanned<String>>,
    /// From whom to whom, for `cut`.
    pub to: Option<Spanned<String>>,
    /// How long, where it ends.
    #[serde(default, rename = "for", deserialize_with = "maybe_span")]
    pub lasts: Option<Duration>,
}

/// What goes wrong at random.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RandomFault {
    /// What.
    pub what: Spanned<FaultKind>,
    /// To whom: a name of homes or servers; each of them on its own.
    pub who: Spanned<String>,
    /// The mean time between two, for each.
    #[serde(deserialize_with = "span")]
    pub every: Duration,
    /// The mean of how long it lasts.
    #[serde(rename = "for", default = "minute", deserialize_with = "span")]
    pub lasts: Duration,
    /// None of them after this.
    #[serde(default, deserialize_with = "maybe_span")]
    pub until: Option<Duration>,
}

/// A protocol that a line does not carry.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Blocked {
    /// Datagrams: QUIC.
    Udp,
    /// Streams.
    Tcp,
}

/// What can go wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// The router forgets its mappings and is away for `for` (30 s).
    RouterReboot,
    /// The router gets another address.
    NewAddress,
    /// The uplink is down.
    UplinkDown,
    /// A provider is down.
    IspDown,
    /// Nothing gets from one region or site to another, in this direction.
    Cut,
    /// Nothing gets between two regions or sites.
    Partition,
    /// The program is killed, and started again after `for`.
    Kill,
    /// The program ends politely, and is started again after `for`.
    Stop,
    /// The power is gone for `for`.
    PowerOff,
    /// As `kill`, and its store is lost.
    Lose,
    /// The machine sleeps.
    Sleep,
    /// The cable is pulled.
    Unplug,
    /// Names can't be looked up.
    DnsDown,
    /// Multicasts don't get through.
    Mute,
    /// The settings allow half as many connections, and one relay.
    Thrift,
    /// The store of logs can't follow.
    SlowDisk,
    /// A signal server takes long to answer.
    Slow,
    /// A signal server tells old records and invented addresses.
    Lie,
}

/// What must come of a scenario, at its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Expect {
    /// How families are together.
    pub families: Meet,
    /// Whether every running node has a connection.
    pub nobody_alone: bool,
    /// All of it holds so long after the last fault is over already, not only at the end.
    #[serde(deserialize_with = "maybe_span")]
    pub within: Option<Duration>,
    /// Whether all running nodes have the same entries.
    pub same_logs: bool,
}

/// How nodes that belong together are connected.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Meet {
    /// However it comes.
    #[default]
    Anyhow,
    /// Those of whom one can be dialled by the other, or who share a network, directly.
    WhereDialled,
    /// Everyone, directly or through a relay.
    Connected,
    /// Everyone, and directly wherever the routers between them allow it.
    Best,
}

/// What a node is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeRole {
    /// Always on, small.
    Family,
    /// On and off.
    Desktop,
    /// Helps others.
    Server,
}

/// One kind of NAT, or several with their shares.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Mix {
    /// All alike.
    One(String),
    /// Shares.
    Several(BTreeMap<String, u32>),
}

impl From<Blocked> for Protocol {
    fn from(blocked: Blocked) -> Self {
        match blocked {
            Blocked::Udp => Self::Udp,
            Blocked::Tcp => Self::Tcp,
        }
    }
}

impl From<NodeRole> for Role {
    fn from(role: NodeRole) -> Self {
        match role {
            NodeRole::Family => Self::Family,
            NodeRole::Desktop => Self::Desktop,
            NodeRole::Server => Self::Server,
        }
    }
}

type Wrong = (Range<usize>, String);

/// The same settings in another network.
pub(super) fn in_network(mut config: Config, network: Option<&Spanned<String>>) -> Config {
    if let Some(network) = network {
        config.protocols = Protocols::of(network.get_ref());
        config.network.clone_from(network.get_ref());
    }
    config
}

/// The same settings with what the relay allows a circuit.
pub(super) fn with_circuits(mut config: Config, circuits: Option<&Spanned<Circuits>>) -> Config {
    if let Some(circuits) = circuits.map(Spanned::get_ref) {
        config.relay.duration = circuits.lasts.unwrap_or(config.relay.duration);
        config.relay.bytes = circuits.bytes.unwrap_or(config.relay.bytes);
    }
    config
}

impl Scenario {
    /// How many nodes it has.
    pub fn nodes(&self) -> u64 {
        let homes = self.homes.iter().map(|home| u64::from(*home.count.get_ref()) * u64::from(home.nodes));
        let servers = self.servers.iter().map(|server| u64::from(*server.count.get_ref()));
        homes.chain(servers).sum()
    }

    /// Checks what the format can't.
    pub(super) fn check(&self) -> Result<(), Wrong> {
        let mut names: BTreeMap<&str, &str> = BTreeMap::new();
        let regions = self.regions.iter().map(|one| (&one.name, "region"));
        let isps = self.isps.iter().map(|one| (&one.name, "provider"));
        let homes = self.homes.iter().map(|one| (&one.name, "home"));
        let servers = self.servers.iter().map(|one| (&one.name, "server"));
        let doorways = self.doorways.iter().map(|one| (&one.name, "doorway"));
        for (name, kind) in regions.chain(isps).chain(homes).chain(servers).chain(doorways) {
            let text = name.get_ref().as_str();
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
            if text.is_empty() || !text.chars().all(plain) {
                return Err((name.span(), format!("'{text}' is no name: letters, digits, '-' and '_' make one")));
            }
            if let Some(before) = names.insert(text, kind) {
                return Err((name.span(), format!("'{text}' is already the name of a {before}")));
            }
        }
        let is = |name: &Spanned<String>, kind: &str| match names.get(name.get_ref().as_str()) {
            Some(found) if *found == kind => Ok(()),
            Some(found) => Err((name.span(), format!("'{}' is a {found}, not a {kind}", name.get_ref()))),
            None => Err((name.span(), self.unknown(name.get_ref(), kind, &names))),
        };
        for distance in &self.distances {
            distance.between.iter().try_for_each(|name| is(name, "region"))?;
        }
        for isp in &self.isps {
            isp.region.iter().try_for_each(|name| is(name, "region"))?;
            isp.nat.iter().try_for_each(|nat| kind_of(nat.get_ref()).map(|_| ()).map_err(|e| (nat.span(), e)))?;
        }
        for doorway in &self.doorways {
            doorway.region.iter().try_for_each(|name| is(name, "region"))?;
        }
        let networks = self.homes.iter().map(|home| &home.network);
        for network in networks.chain(self.servers.iter().map(|server| &server.network)).flatten() {
            let wrong = |errors: Vec<ConfigError>| {
                let error = errors.into_iter().find(|error| error.field == "network");
                error.map_or_else(String::new, |error| format!("'{}' {}", network.get_ref(), error.problem))
            };
            in_network(Config::desktop(), Some(network))
                .validate()
                .map_err(|errors| (network.span(), wrong(errors)))?;
        }
        let few = |names: &[Spanned<String>]| match names.get(MAX_DOORWAYS) {
            Some(one) => Err((one.span(), format!("at most {MAX_DOORWAYS} doorways"))),
            None => Ok(()),
        };
        for home in &self.homes {
            home.isp.iter().try_for_each(|name| is(name, "provider"))?;
            home.bootstrap.iter().chain(&home.relays).try_for_each(|name| is(name, "server"))?;
            home.doorways.iter().try_for_each(|name| is(name, "doorway"))?;
            few(&home.doorways)?;
            let wrong = |problem: String| (home.nat.span(), problem);
            match home.nat.get_ref() {
                Mix::One(name) => kind_of(name).map(|_| ()).map_err(wrong)?,
                Mix::Several(all) if all.values().all(|share| *share == 0) => {
                    return Err(wrong("no kind of NAT has a share".to_owned()));
                }
                Mix::Several(all) => {
                    all.keys().try_for_each(|name| kind_of(name).map(|_| ()).map_err(&wrong))?;
                }
            }
            if *home.count.get_ref() == 0 || home.nodes == 0 || home.nodes > 200 {
                return Err((home.count.span(), "a home needs a count of at least 1, and 1 to 200 nodes".to_owned()));
            }
        }
        for server in &self.servers {
            server.region.iter().try_for_each(|name| is(name, "region"))?;
            server.bootstrap.iter().chain(&server.relays).try_for_each(|name| is(name, "server"))?;
            server.doorways.iter().try_for_each(|name| is(name, "doorway"))?;
            few(&server.doorways)?;
            if let Some(circuits) = &server.circuits {
                let problem = |errors: Vec<ConfigError>| {
                    errors
                        .iter()
                        .map(|error| format!("{} {}", error.field, error.problem))
                        .collect::<Vec<_>>()
                        .join("; ")
                };
                with_circuits(Config::server(), Some(circuits))
                    .validate()
                    .map_err(|errors| (circuits.span(), problem(errors)))?;
            }
            if !(1..=60_000).contains(server.count.get_ref()) {
                return Err((server.count.span(), "1 to 60 000 servers".to_owned()));
            }
        }
        let limits = [(self.regions.len(), 64, "regions"), (self.isps.len(), 60, "providers")];
        for (count, most, what) in limits {
            if count > most {
                return Err((0..0, format!("{count} {what}, at most {most}")));
            }
        }
        self.check_faults(&names)?;
        let needed = self.nodes() * MEMORY_PER_NODE;
        if let Some(there) = memory().filter(|there| needed > *there) {
            let (needed, there) = (needed >> 20, there >> 20);
            let text = format!("{} nodes need about {needed} MiB of memory; {there} MiB are free", self.nodes());
            let at = self.homes.first().map_or(0..0, |home| home.count.span());
            return Err((at, text));
        }
        Ok(())
    }

    fn check_faults(&self, names: &BTreeMap<&str, &str>) -> Result<(), Wrong> {
        for fault in &self.faults {
            let kind = *fault.what.get_ref();
            let wanted = kind.wants();
            let both = [Some(&fault.who), kind.has_two().then_some(&fault.to)];
            for who in both.into_iter().flatten() {
                match who {
                    Some(who) => self.fits(who, wanted, names)?,
                    None if wanted.is_empty() => {}
                    None => {
                        let text = format!(
                            "this needs a 'who' (and 'to', where two are concerned): a {}",
                            wanted.join(" or a ")
                        );
                        return Err((fault.what.span(), text));
                    }
                }
            }
            if let Some(to) = fault.to.as_ref().filter(|_| !kind.has_two()) {
                return Err((to.span(), "only 'cut' and 'partition' have a 'to'".to_owned()));
            }
            if fault.at > self.duration {
                return Err((fault.what.span(), "this comes after the scenario's end".to_owned()));
            }
        }
        for ask in &self.asks {
            for who in [Some(&ask.who), ask.to.as_ref()].into_iter().flatten() {
                self.fits(who, &["server", "node"], names)?;
            }
            if ask.at > self.duration {
                return Err((ask.who.span(), "this comes after the scenario's end".to_owned()));
            }
        }
        for fault in &self.random_faults {
            let kind = *fault.what.get_ref();
            if kind.has_two() || kind == FaultKind::IspDown || kind == FaultKind::DnsDown {
                return Err((fault.what.span(), "this can't come at random".to_owned()));
            }
            self.fits(&fault.who, kind.wants(), names)?;
            if fault.every.is_zero() {
                return Err((fault.what.span(), "'every' must be more than nothing".to_owned()));
            }
        }
        Ok(())
    }

    fn fits(&self, who: &Spanned<String>, wanted: &[&str], names: &BTreeMap<&str, &str>) -> Result<(), Wrong> {
        let text = who.get_ref().as_str();
        let base = text.split(['/', '.']).next().unwrap_or(text);
        let node = text.contains('/');
        match names.get(base) {
            Some(kind) if wanted.contains(kind) || (node && wanted.contains(&"node")) => {
                let known = self.numbers_exist(text);
                known.then_some(()).ok_or_else(|| (who.span(), format!("there is no '{text}': so many there are not")))
            }
            Some(kind) => Err((who.span(), format!("'{text}' is a {kind}; this is for a {}", wanted.join(" or a ")))),
            None => Err((who.span(), self.unknown(base, wanted.first().copied().unwrap_or("name"), names))),
        }
    }

    /// Whether `home.3/2` has a third home and a second node.
    fn numbers_exist(&self, text: &str) -> bool {
        let (site, node) = text.split_once('/').map_or((text, None), |(site, node)| (site, Some(node)));
        let (base, number) = site.split_once('.').map_or((site, None), |(base, number)| (base, Some(number)));
        let home = self.homes.iter().find(|home| home.name.get_ref() == base);
        let server = self.servers.iter().find(|server| server.name.get_ref() == base);
        let count = home.map(|home| *home.count.get_ref()).or(server.map(|server| *server.count.get_ref()));
        let nodes = home.map_or(1, |home| home.nodes);
        let within = |text: Option<&str>, most: u32| {
            text.is_none_or(|text| text.parse().is_ok_and(|number: u32| (1..=most).contains(&number)))
        };
        within(number, count.unwrap_or(1)) && within(node, nodes)
    }

    fn unknown(&self, name: &str, kind: &str, names: &BTreeMap<&str, &str>) -> String {
        let of_kind: Vec<&str> = names.iter().filter(|(_, of)| **of == kind).map(|(name, _)| *name).collect();
        let there =
            if of_kind.is_empty() { "there is none".to_owned() } else { format!("there are {}", of_kind.join(", ")) };
        format!("no {kind} is called '{name}'; {there}")
    }
}

impl FaultKind {
    /// To what it can happen.
    const fn wants(self) -> &'static [&'static str] {
        match self {
            Self::RouterReboot | Self::NewAddress | Self::Mute => &["home"],
            Self::UplinkDown => &["home", "server", "doorway"],
            Self::IspDown => &["provider"],
            Self::Cut | Self::Partition => &["region", "home", "server", "doorway"],
            Self::Kill | Self::Stop | Self::PowerOff | Self::Lose => &["home", "server", "node", "doorway"],
            Self::Sleep | Self::Unplug | Self::Thrift | Self::SlowDisk => &["home", "server", "node"],
            Self::Slow | Self::Lie => &["doorway"],
            Self::DnsDown => &[],
        }
    }

    /// Its name in the file.
    pub fn name(self) -> String {
        let name = serde_json::to_value(self).ok();
        name.as_ref().and_then(serde_json::Value::as_str).unwrap_or_default().to_owned()
    }

    const fn has_two(self) -> bool {
        matches!(self, Self::Cut | Self::Partition)
    }
}

/// The core takes no more.
const MAX_DOORWAYS: usize = 8;
/// Roughly; a node with 30 known peers.
const MEMORY_PER_NODE: u64 = 48 << 10;

/// A kind of NAT by its name.
pub(super) fn kind_of(name: &str) -> Result<NatKind, String> {
    let found = NatKind::NAMES.iter().find(|(known, _)| *known == name).map(|(_, kind)| kind.clone());
    let names = || NatKind::NAMES.map(|(name, _)| name).join(", ");
    found.ok_or_else(|| format!("no kind of NAT is called '{name}'; there are {}", names()))
}

/// What Linux says is free. `None`: nobody says.
fn memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("MemAvailable:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib << 10)
}

fn span<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    words::parse_span(&text).map_err(D::Error::custom)
}

fn maybe_span<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    span(deserializer).map(Some)
}

const fn unix_time() -> u64 {
    1_790_000_000
}

const fn start_within() -> Duration {
    Duration::from_secs(5)
}

const fn within() -> Duration {
    Duration::from_millis(8)
}

const fn access() -> Duration {
    Duration::from_millis(7)
}

const fn minute() -> Duration {
    Duration::from_secs(60)
}

fn one() -> Spanned<u32> {
    Spanned::new(0..0, 1)
}

const fn single() -> u32 {
    1
}

const fn yes() -> bool {
    true
}

const fn family_role() -> NodeRole {
    NodeRole::Family
}

const fn server_role() -> NodeRole {
    NodeRole::Server
}

fn usual() -> Spanned<Mix> {
    Spanned::new(0..0, Mix::One("port-restricted".to_owned()))
}
