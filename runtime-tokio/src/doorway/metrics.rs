//! Figures of a doorway, in Prometheus' form. Nothing in them names a peer or an address.

use std::{
    fmt::Write,
    sync::atomic::AtomicU64,
    time::{Duration, Instant},
};

use axum::http::{Method, StatusCode};
use kinfolk_shell::signal::types::{Backing, ProblemKind};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
        info::Info,
    },
    registry::{Registry, Unit},
};

/// What is counted.
pub(super) struct Metrics {
    registry: Registry,
    started: Instant,
    pub(super) connections: Gauge,
    pub(super) turned_away: Counter,
    requests: Family<Request, Counter>,
    problems: Family<Kind, Counter>,
    duration: Histogram,
    records: Family<Network, Gauge<u64, AtomicU64>>,
    store_up: Gauge,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct Request {
    route: &'static str,
    method: &'static str,
    status: u16,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct Kind {
    r#type: String,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct Network {
    network: String,
}

impl Metrics {
    pub(super) fn new(backing: Backing) -> Self {
        let mut registry = Registry::with_prefix("kinfolk_doorway");
        // From 100 µs to 1.6 s.
        let duration = Histogram::new(exponential_buckets(0.0001, 2.0, 15));
        let metrics = Self {
            started: Instant::now(),
            connections: Gauge::default(),
            turned_away: Counter::default(),
            requests: Family::default(),
            problems: Family::default(),
            duration,
            records: Family::default(),
            store_up: Gauge::default(),
            registry: Registry::default(),
        };
        let backing = match backing {
            Backing::Memory => "memory",
            Backing::Sqlite => "sqlite",
            Backing::Redis => "redis",
        };
        let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION")), ("backing", backing)]);
        registry.register("build", "Version, and what the records are kept in", build);
        registry.register("connections", "Open connections", metrics.connections.clone());
        registry.register(
            "connections_turned_away",
            "Connections of networks that had too many",
            metrics.turned_away.clone(),
        );
        registry.register("requests", "Answered requests", metrics.requests.clone());
        registry.register("problems", "Requests that were refused, by the type of problem", metrics.problems.clone());
        registry.register_with_unit(
            "request",
            "From the head of a request to its answer",
            Unit::Seconds,
            metrics.duration.clone(),
        );
        registry.register("records", "Live records", metrics.records.clone());
        registry.register("store_up", "Whether the store answers", metrics.store_up.clone());
        Self { registry, ..metrics }
    }

    pub(super) fn answered(
        &self,
        route: &'static str,
        method: &Method,
        status: StatusCode,
        problem: Option<ProblemKind>,
        took: Duration,
    ) {
        let method = match *method {
            Method::GET => "GET",
            Method::HEAD => "HEAD",
            Method::PUT => "PUT",
            Method::DELETE => "DELETE",
            _ => "other",
        };
        self.requests.get_or_create(&Request { route, method, status: status.as_u16() }).inc();
        if let Some(kind) = problem {
            self.problems.get_or_create(&Kind { r#type: kind.word() }).inc();
        }
        self.duration.observe(took.as_secs_f64());
    }

    pub(super) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// The figures as text. `records`: live ones per network, if the store answers.
    pub(super) fn tell<'a>(&self, records: Option<impl Iterator<Item = (&'a str, u64)>>) -> String {
        self.store_up.set(i64::from(records.is_some()));
        match records {
            Some(records) => {
                for (network, total) in records {
                    self.records.get_or_create(&Network { network: network.to_owned() }).set(total);
                }
            }
            None => self.records.clear(),
        }
        let mut text = String::new();
        if encode(&mut text, &self.registry).is_err() {
            // A string takes everything.
            let _ = writeln!(text, "# EOF");
        }
        text
    }
}
