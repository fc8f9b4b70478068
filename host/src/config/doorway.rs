//! The settings of a doorway.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

/// How a doorway serves, if one is to be run: `kinfolk doorway`, or beside a node.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct DoorwayConfig {
    /// Where; with it, a node runs one beside it. Default: nowhere.
    pub listen: Option<SocketAddr>,
    /// Which networks. Default: none, which means the node's own.
    pub networks: Vec<String>,
    /// The Redis or Valkey server that keeps the records. Default: none; they are kept in the data folder.
    pub redis: Option<RedisUrl>,
    /// The file of tokens. Default: none; anybody may read and write.
    pub tokens: Option<PathBuf>,
    /// How it serves.
    pub rules: DoorwayRules,
}

/// What a doorway takes, from whom, and how much of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DoorwayRules {
    /// Reverse proxies whose `X-Forwarded-For` says who asks. Default: `127.0.0.1` and `::1`.
    pub proxies: Vec<IpAddr>,
    /// Whether addresses of private networks may be published: for networks without the internet. Default: no.
    pub private: bool,
    /// The longest lifetime of a record. Default: 2 h.
    pub lifetime: Duration,
    /// Live records per network. Each takes about 550 bytes. Default: 100 000.
    pub records: u32,
    /// Live records per network that come from one /24 or /48. Default: 256.
    pub records_per_prefix: u32,
    /// Requests of one /24 or /48 within a minute that read; 0 for no limit. Default: 1 200.
    pub reads: u32,
    /// The same for those that write. Each costs a check of a signature, about 50 µs. Default: 120.
    pub writes: u32,
    /// Connections at once; the next ones wait. Default: 1 024.
    pub connections: u32,
    /// Connections of one /24 or /48 at once, proxies aside; the next ones are turned away. Default: 64.
    pub connections_per_prefix: u32,
}

/// A Redis server's URL. Its password is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl(pub String);

impl Default for DoorwayRules {
    fn default() -> Self {
        Self {
            proxies: vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
            private: false,
            lifetime: Duration::from_secs(7_200),
            records: 100_000,
            records_per_prefix: 256,
            reads: 1_200,
            writes: 120,
            connections: 1_024,
            connections_per_prefix: 64,
        }
    }
}

impl DoorwayConfig {
    /// What is wrong: which key, and what would be right.
    pub(super) fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        let mut check = |ok: bool, key, problem: &str| {
            if !ok {
                problems.push((key, problem.to_owned()));
            }
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let named = |name: &String| (1..=64).contains(&name.len()) && name.chars().all(plain);
        let networks = &self.networks;
        check(networks.iter().all(named), "doorway.networks", "must each be 1 to 64 letters, digits, '-', '_' or '.'");
        check(networks.len() <= 64, "doorway.networks", "at most 64 networks");
        let known = |url: &RedisUrl| ["redis://", "redis+unix://"].iter().any(|scheme| url.0.starts_with(scheme));
        let redis = "must be such as \"redis://127.0.0.1:6379/0\" or \"redis+unix:///run/redis.sock\"";
        check(self.redis.as_ref().is_none_or(known), "doorway.redis", redis);
        let lifetimes = Duration::from_secs(60)..=Duration::from_secs(86_400);
        let rules = &self.rules;
        check(lifetimes.contains(&rules.lifetime), "doorway.lifetime", "must be \"1m\" to \"1d\"");
        check((1..=10_000_000).contains(&rules.records), "doorway.records", "must be 1 to 10 000 000");
        for (key, number) in [
            ("doorway.records_per_prefix", rules.records_per_prefix),
            ("doorway.connections", rules.connections),
            ("doorway.connections_per_prefix", rules.connections_per_prefix),
        ] {
            check((1..=1_000_000).contains(&number), key, "must be 1 to 1 000 000");
        }
        problems
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once('@')?.1))) {
            Some((scheme, place)) => write!(f, "{scheme}://***@{place}"),
            None => f.write_str(&self.0),
        }
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
