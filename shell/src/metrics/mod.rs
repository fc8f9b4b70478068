//! Figures for operators, as Prometheus takes them.
//!
//! What happens is counted as it passes through the driver ([`Metrics::event`], [`Metrics::command`]); how things stand
//! is read from the core's view when somebody asks. A label's values are names of variants or of states, never peers or
//! addresses, so the number of series is bounded: a few hundred.
//!
//! | metric | labels | |
//! |---|---|---|
//! | `kinfolk_build_info` | `version`, `role`, `network` | always 1 |
//! | `kinfolk_uptime_seconds` | | sleep included |
//! | `kinfolk_health`, `kinfolk_reachability` | `state` | 1 for the present state, 0 for the others |
//! | `kinfolk_peers` | `state` | peers that are known |
//! | `kinfolk_connections` | `path`: `local`, `direct`, `relayed`; `transport`: `tcp`, `quic`, `circuit`, `other` | |
//! | `kinfolk_dials_open`, `kinfolk_routing_table_entries` | | |
//! | `kinfolk_bootstrap_peers` | `connected` | |
//! | `kinfolk_signal_servers` | `state` | `not_asked`, `answered`, `failed` |
//! | `kinfolk_relays_held`, `kinfolk_relays_wanted` | | relays that keep a place for this node |
//! | `kinfolk_served_reservations`, `kinfolk_served_circuits` | | what this node relays for others |
//! | `kinfolk_dials_total` | `reason`, `result`: `connected`, or how it failed | dials of the core that have ended |
//! | `kinfolk_knocks_failed_total` | `error` | inbound connections that came to nothing |
//! | `kinfolk_disconnects_total` | `cause` | |
//! | `kinfolk_reservations_total` | `result`: `granted`, or why it ended | at other relays, renewals included |
//! | `kinfolk_punches_total` | `transport`, `try`: `1`, `2`, `3`, `more`; `outcome`: `direct`, or how it failed | |
//! | `kinfolk_probes_total` | `verdict` | probes of own addresses by others |
//! | `kinfolk_events_total`, `kinfolk_commands_total` | `kind` | through the core, named as in traces |
//! | `kinfolk_deadline_lag_seconds` | | how late the core was woken for what was due: a histogram |
//! | `kinfolk_counter` | `name` | what the shell counts; the names are not stable |

mod kinds;
mod process;

use std::{collections::BTreeMap, sync::atomic::AtomicU64, time::Duration};

use kinfolk_core::{
    Action, Command, CommandId, Event, Health, Notice, Origin, Path, Reachability, Role, Transport, View,
    view::{SignalView, State},
};
use prometheus_client::{
    encoding::text::encode_registry,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::{Registry, Unit},
};

use self::kinds::kind_of;
pub(crate) use self::process::Process;

/// Dials whose end is awaited; a core that has more slots loses the reasons of the oldest.
const MAX_DIALS: usize = 4_096;

/// Upper bounds of the deadline lag's buckets, seconds. A driver that is well is in the first two.
const LAGS: [f64; 7] = [0.001, 0.01, 0.05, 0.25, 1.0, 5.0, 60.0];

type Labels<const N: usize> = [(&'static str, &'static str); N];
type Counters<const N: usize> = Family<Labels<N>, Counter>;
type Gauges<const N: usize> = Family<Labels<N>, Gauge>;

/// The tally, and the form it is told in.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    /// Reasons of the dials that are under way.
    dials: BTreeMap<CommandId, &'static str>,
    counted: Counted,
    standing: Standing,
    /// By names that the world gives.
    shell: Family<[(&'static str, String); 1], Gauge>,
}

/// What happened.
#[derive(Debug)]
struct Counted {
    dials: Counters<2>,
    knocks_failed: Counters<1>,
    disconnects: Counters<1>,
    reservations: Counters<1>,
    punches: Counters<3>,
    probes: Counters<1>,
    events: Counters<1>,
    commands: Counters<1>,
    lag: Histogram,
}

/// How things stand.
#[derive(Debug, Default)]
struct Standing {
    uptime: Gauge<u64, AtomicU64>,
    health: Gauges<1>,
    reachability: Gauges<1>,
    peers: Gauges<1>,
    connections: Gauges<2>,
    dials_open: Gauge,
    routing_table: Gauge,
    bootstrap: Gauges<1>,
    signal: Gauges<1>,
    relays_held: Gauge,
    relays_wanted: Gauge,
    served_reservations: Gauge,
    served_circuits: Gauge,
}

impl Metrics {
    /// With everything at nothing.
    pub(crate) fn new(agent: &str, role: Role, network: &str) -> Self {
        let counted = Counted {
            dials: Family::default(),
            knocks_failed: Family::default(),
            disconnects: Family::default(),
            reservations: Family::default(),
            punches: Family::default(),
            probes: Family::default(),
            events: Family::default(),
            commands: Family::default(),
            lag: Histogram::new(LAGS),
        };
        let mut metrics = Self {
            registry: Registry::with_prefix("kinfolk"),
            dials: BTreeMap::new(),
            counted,
            standing: Standing::default(),
            shell: Family::default(),
        };
        let labels = vec![
            ("version", agent.rsplit('/').next().unwrap_or(agent).to_owned()),
            ("role", kind_of(&role).to_owned()),
            ("network", network.to_owned()),
        ];
        metrics.registry.register("build", "Which program this is", Info::new(labels));
        metrics.register();
        metrics.counted.begin();
        metrics
    }

    fn register(&mut self) {
        let Self { registry, counted: count, standing: now, shell, .. } = self;
        registry.register_with_unit("uptime", "Since the start, sleep included", Unit::Seconds, now.uptime.clone());
        registry.register("health", "How the node is doing: 1 for the present state", now.health.clone());
        registry.register(
            "reachability",
            "Whether others can begin connections: 1 for the present state",
            now.reachability.clone(),
        );
        registry.register("peers", "Peers that are known", now.peers.clone());
        registry.register("connections", "Connections that stand", now.connections.clone());
        registry.register("dials_open", "Dials under way", now.dials_open.clone());
        registry.register("routing_table_entries", "Entries of the routing table", now.routing_table.clone());
        registry.register("bootstrap_peers", "Bootstrap peers", now.bootstrap.clone());
        registry.register("signal_servers", "Signal servers", now.signal.clone());
        registry.register("relays_held", "Relays that keep a place for this node", now.relays_held.clone());
        registry.register("relays_wanted", "Relays that are wanted", now.relays_wanted.clone());
        registry.register("served_reservations", "Peers with a reservation here", now.served_reservations.clone());
        registry.register("served_circuits", "Circuits that are open here", now.served_circuits.clone());
        registry.register("dials", "Dials of the core that have ended", count.dials.clone());
        registry.register("knocks_failed", "Inbound connections that came to nothing", count.knocks_failed.clone());
        registry.register("disconnects", "Connections that have ended", count.disconnects.clone());
        registry.register("reservations", "Answers of relays, and ends of reservations", count.reservations.clone());
        registry.register("punches", "Tries for direct connections that have ended", count.punches.clone());
        registry.register("probes", "Probes of own addresses that have ended", count.probes.clone());
        registry.register("events", "What the core was told", count.events.clone());
        registry.register("commands", "What the core has commanded", count.commands.clone());
        registry.register_with_unit(
            "deadline_lag",
            "How late the core was woken for what was due",
            Unit::Seconds,
            count.lag.clone(),
        );
        registry.register("counter", "What the shell counts; the names are not stable", shell.clone());
    }

    /// Before the core is told.
    pub(crate) fn event(&mut self, event: &Event) {
        let Counted { events, dials, knocks_failed, disconnects, reservations, probes, .. } = &self.counted;
        events.get_or_create(&[("kind", kind_of(event))]).inc();
        let mut dialled = |id: &CommandId, result| {
            // What is not there was no dial of ours, or has ended before.
            if let Some(reason) = self.dials.remove(id) {
                dials.get_or_create(&[("reason", reason), ("result", result)]).inc();
            }
        };
        if let Event::Connected { origin: Origin::Dial(dial), .. } = event {
            dialled(dial, "connected");
        } else if let Event::DialFailed { dial, error, .. } = event {
            dialled(dial, kind_of(error));
        } else if let Event::InboundFailed { error, count, .. } = event {
            knocks_failed.get_or_create(&[("error", kind_of(error))]).inc_by((*count).into());
        } else if let Event::Disconnected { cause, .. } = event {
            disconnects.get_or_create(&[("cause", kind_of(cause))]).inc();
        } else if let Event::Reserved { .. } = event {
            reservations.get_or_create(&[("result", "granted")]).inc();
        } else if let Event::ReservationEnded { error, .. } = event {
            reservations.get_or_create(&[("result", kind_of(error))]).inc();
        } else if let Event::Probed { verdict, .. } = event {
            probes.get_or_create(&[("verdict", kind_of(verdict))]).inc();
        }
    }

    /// As it is carried out.
    pub(crate) fn command(&mut self, command: &Command) {
        self.counted.commands.get_or_create(&[("kind", kind_of(&command.action))]).inc();
        if let Action::Dial { .. } = &command.action {
            if self.dials.len() >= MAX_DIALS {
                self.dials.pop_first();
            }
            self.dials.insert(command.id, kind_of(&command.reason));
        } else if let Action::Tell(Notice::Punched { transport, attempt, .. }) = &command.action {
            self.punched(*transport, *attempt, "direct");
        } else if let Action::Tell(Notice::NotPunched { transport, attempt, error, .. }) = &command.action {
            self.punched(*transport, *attempt, kind_of(error));
        }
    }

    fn punched(&self, transport: Transport, attempt: u32, outcome: &'static str) {
        let attempt = match attempt {
            0 | 1 => "1",
            2 => "2",
            3 => "3",
            _ => "more",
        };
        let labels = [("transport", name(Some(transport))), ("try", attempt), ("outcome", outcome)];
        self.counted.punches.get_or_create(&labels).inc();
    }

    /// The core was woken for a deadline, so late.
    pub(crate) fn woken(&self, late: Duration) {
        self.counted.lag.observe(late.as_secs_f64());
    }

    /// Everything in the text form of OpenMetrics, without its end. Costs a walk through all peers.
    pub(crate) fn tell(&self, view: Option<&View<'_>>, uptime: Duration, shell: &BTreeMap<String, u64>) -> String {
        self.standing.uptime.set(uptime.as_secs());
        if let Some(view) = view {
            self.standing.read(view);
        }
        for (name, number) in shell {
            self.shell.get_or_create(&[("name", name.clone())]).set(whole(*number));
        }
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode_registry(&mut text, &self.registry);
        text
    }
}

impl Counted {
    /// A figure that is 0 can be watched, one that is absent can't: so each has its usual series from the start.
    fn begin(&self) {
        let Self { dials, knocks_failed, disconnects, reservations, punches, probes, .. } = self;
        dials.get_or_create(&[("reason", "asked"), ("result", "connected")]).inc_by(0);
        knocks_failed.get_or_create(&[("error", "handshake")]).inc_by(0);
        disconnects.get_or_create(&[("cause", "remote")]).inc_by(0);
        reservations.get_or_create(&[("result", "granted")]).inc_by(0);
        probes.get_or_create(&[("verdict", "reachable")]).inc_by(0);
        for transport in ["tcp", "quic"] {
            for attempt in ["1", "2", "3", "more"] {
                punches.get_or_create(&[("transport", transport), ("try", attempt), ("outcome", "direct")]).inc_by(0);
            }
        }
    }
}

impl Standing {
    fn read(&self, view: &View<'_>) {
        let node = view.node();
        let healths =
            [Health::Starting, Health::Connected, Health::Partial, Health::Alone, Health::Isolated, Health::Offline];
        for health in healths {
            set(&self.health, [("state", kind_of(&health))], u64::from(health == node.health));
        }
        for reachability in [Reachability::Unknown, Reachability::Public, Reachability::Private] {
            let here = u64::from(reachability == node.reachability);
            set(&self.reachability, [("state", kind_of(&reachability))], here);
        }
        let mut peers: BTreeMap<&'static str, u64> = STATES.map(|state| (state.name(), 0)).into();
        let mut connections: BTreeMap<(&'static str, &'static str), u64> = WAYS.map(|way| (way, 0)).into();
        for peer in view.peers() {
            *peers.entry(peer.state.name()).or_default() += 1;
            for connection in &peer.connections {
                *connections.entry(way(&connection.path)).or_default() += 1;
            }
        }
        for (state, number) in peers {
            set(&self.peers, [("state", state)], number);
        }
        for ((path, transport), number) in connections {
            set(&self.connections, [("path", path), ("transport", transport)], number);
        }
        self.dials_open.set(node.dialing.into());
        self.routing_table.set(node.routing_table.into());
        let connected = node.bootstrap.iter().filter(|bootstrap| bootstrap.connected).count() as u64;
        set(&self.bootstrap, [("connected", "yes")], connected);
        set(&self.bootstrap, [("connected", "no")], node.bootstrap.len() as u64 - connected);
        for state in ["not_asked", "answered", "failed"] {
            let is = |server: &&SignalView<'_>| match (server.failures, server.answered) {
                (0, None) => state == "not_asked",
                (0, Some(_)) => state == "answered",
                (_, _) => state == "failed",
            };
            set(&self.signal, [("state", state)], node.signal.iter().filter(is).count() as u64);
        }
        let held = node.relays.iter().filter(|relay| relay.held_since.is_some()).count() as u64;
        self.relays_held.set(whole(held));
        self.relays_wanted.set(node.relays_wanted.into());
        self.served_reservations.set(node.services.reservations.into());
        self.served_circuits.set(node.services.circuits.into());
    }
}

const STATES: [State; 7] = [
    State::Discovered,
    State::Dialing,
    State::Connected,
    State::Identified,
    State::Syncing,
    State::Disconnected,
    State::Expired,
];

/// Every way there is, so that a series with nothing in it is 0 and not absent.
const WAYS: [(&str, &str); 7] = [
    ("local", "tcp"),
    ("local", "quic"),
    ("local", "other"),
    ("direct", "tcp"),
    ("direct", "quic"),
    ("direct", "other"),
    ("relayed", "circuit"),
];

fn way(path: &Path) -> (&'static str, &'static str) {
    match path {
        Path::Local { transport } => ("local", name(*transport)),
        Path::Direct { transport } => ("direct", name(*transport)),
        Path::Relayed { .. } => ("relayed", "circuit"),
    }
}

const fn name(transport: Option<Transport>) -> &'static str {
    match transport {
        Some(Transport::Tcp) => "tcp",
        Some(Transport::Quic) => "quic",
        None => "other",
    }
}

fn set<const N: usize>(gauges: &Gauges<N>, labels: Labels<N>, number: u64) {
    gauges.get_or_create(&labels).set(whole(number));
}

fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use kinfolk_core::{DialError, PeerId, PunchError, Reason};

    use super::*;

    fn tell(metrics: &mut Metrics, notice: Notice) {
        let reason = Reason::StateChanged;
        metrics.command(&Command { id: CommandId(1), action: Action::Tell(notice), reason });
    }

    #[test]
    fn tries_for_direct_connections_are_counted_by_transport_try_and_outcome() {
        let mut metrics = Metrics::new("kinfolk/1.2.3", Role::Family, "smith");
        let peer: PeerId = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA".parse().unwrap();
        let failed = |transport, attempt, error| Notice::NotPunched { peer, transport, attempt, error };
        tell(&mut metrics, failed(Transport::Quic, 1, PunchError::Dial(DialError::TimedOut)));
        tell(&mut metrics, failed(Transport::Tcp, 2, PunchError::Declined));
        tell(&mut metrics, Notice::Punched { peer, transport: Transport::Quic, attempt: 3 });
        for attempt in [4, 17, u32::MAX] {
            tell(&mut metrics, Notice::Punched { peer, transport: Transport::Quic, attempt });
        }
        let text = metrics.tell(None, Duration::from_secs(90), &BTreeMap::from([("cut.addresses".into(), u64::MAX)]));
        let told: Vec<&str> =
            text.lines().filter(|line| line.starts_with("kinfolk_punches") && !line.ends_with(" 0")).collect();
        let punches = |transport, attempt, outcome, number: u32| {
            format!(
                "kinfolk_punches_total{{transport=\"{transport}\",try=\"{attempt}\",outcome=\"{outcome}\"}} {number}"
            )
        };
        for line in [
            punches("quic", "1", "dial", 1),
            punches("tcp", "2", "declined", 1),
            punches("quic", "3", "direct", 1),
            punches("quic", "more", "direct", 3),
        ] {
            assert!(told.contains(&&*line), "{line}: {told:?}");
        }
        assert_eq!(told.len(), 4, "{told:?}");
        assert!(text.contains("kinfolk_build_info{version=\"1.2.3\",role=\"family\",network=\"smith\"} 1"), "{text}");
        assert!(text.contains("kinfolk_uptime_seconds 90\n"), "{text}");
        assert!(text.contains(&format!("kinfolk_counter{{name=\"cut.addresses\"}} {}", i64::MAX)), "{text}");
    }

    #[test]
    fn dials_without_an_end_do_not_pile_up() {
        let mut metrics = Metrics::new("x", Role::Server, "x");
        for id in 0..10_000 {
            let action = Action::Dial { peer: None, addresses: vec![] };
            metrics.command(&Command { id: CommandId(id), action, reason: Reason::Pinned });
        }
        assert_eq!(metrics.dials.len(), MAX_DIALS);
        assert!(metrics.dials.contains_key(&CommandId(9_999)), "the newest are kept");
    }
}
