//! Health, readiness and figures over real HTTP; the figures are read by a strict reader of their form.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use common::{FakeWorld, OPEN, SILENT, SendApp, Strings, at, config, peer, setup};
use futures::{FutureExt, channel::oneshot};
use kinfolk_core::{
    CloseCause, CommandId, Config, ConnectionId, DialError, Event, ListenerId, ProbeVerdict, ReserveError,
};
use kinfolk_shell::{
    api::operator::{Alive, Operator, Ready},
    driver::{Driver, Happened, Setup},
    handle::Handle,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

struct Running {
    address: SocketAddr,
    handle: Handle<SendApp>,
    strings: Strings,
    _stop: oneshot::Sender<()>,
}

impl Running {
    fn start(config: Config) -> Self {
        let (world, strings) = FakeWorld::new(SendApp::default());
        let (driver, handle, _) = Driver::new(world, Setup { metrics: true, ..setup(config) });
        tokio::spawn(driver.run());
        let operator = Operator::listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = operator.address();
        let (stop, stopped) = oneshot::channel::<()>();
        tokio::spawn(operator.serve(handle.control().clone(), stopped.map(|_| ())));
        Self { address, handle, strings, _stop: stop }
    }

    async fn get(&self, path: &str) -> (u16, String, String) {
        let response = reqwest::get(format!("http://{}{path}", self.address)).await.unwrap();
        let kind = response.headers().get("content-type").map(|kind| kind.to_str().unwrap().to_owned());
        (response.status().as_u16(), kind.unwrap_or_default(), response.text().await.unwrap())
    }

    async fn health(&self) -> (u16, Alive) {
        let (status, _, text) = self.get("/health").await;
        (status, serde_json::from_str(&text).unwrap())
    }

    async fn ready(&self) -> (u16, Ready) {
        let (status, _, text) = self.get("/ready").await;
        (status, serde_json::from_str(&text).unwrap())
    }

    async fn figures(&self) -> Figures {
        let (status, kind, text) = self.get("/metrics").await;
        assert_eq!((status, kind.split(';').next().unwrap()), (200, "application/openmetrics-text"));
        Figures::read(&text).unwrap_or_else(|problem| panic!("{problem}\n{text}"))
    }

    /// Asks again, within bounds, until `condition` holds.
    async fn until(&self, what: &str, condition: impl Fn(&Figures) -> bool) -> Figures {
        for _ in 0..200 {
            let figures = self.figures().await;
            if condition(&figures) {
                return figures;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("waited in vain for {what}: {:#?}", self.figures().await.samples);
    }
}

/// Samples by name and labels, as written: `kinfolk_peers{state="connected"}`.
#[derive(Debug, Default)]
struct Figures {
    samples: BTreeMap<String, f64>,
    /// Types by family.
    families: BTreeMap<String, String>,
}

impl Figures {
    /// Reads OpenMetrics text, and says what is not right with it.
    fn read(text: &str) -> Result<Self, String> {
        let mut all = Self::default();
        let mut family = String::new();
        let mut described = BTreeSet::new();
        let body = text.strip_suffix("# EOF\n").ok_or("no end")?;
        for line in body.lines() {
            let wrong = |what: &str| Err(format!("{what}: {line}"));
            if let Some(rest) = line.strip_prefix("# ") {
                let [word, name, rest] = rest.splitn(3, ' ').collect::<Vec<_>>()[..] else {
                    return wrong("half a line");
                };
                if !is_name(name) || rest.is_empty() {
                    return wrong("no name, or nothing said of it");
                }
                match word {
                    "HELP" if described.insert(name.to_owned()) => family = name.to_owned(),
                    "TYPE" if name == family => {
                        if !["counter", "gauge", "histogram", "info"].contains(&rest) {
                            return wrong("unknown type");
                        }
                        all.families.insert(name.to_owned(), rest.to_owned());
                    }
                    "UNIT" if name == family && name.ends_with(rest) => {}
                    _ => return wrong("out of its place"),
                }
                continue;
            }
            let (series, value) = line.rsplit_once(' ').ok_or_else(|| format!("no value: {line}"))?;
            let value: f64 = value.parse().map_err(|_| format!("no number: {line}"))?;
            let (name, labels) = match series.split_once('{') {
                Some((name, rest)) => {
                    (name, rest.strip_suffix('}').ok_or_else(|| format!("no end of labels: {line}"))?)
                }
                None => (series, ""),
            };
            check_labels(labels).map_err(|problem| format!("{problem}: {line}"))?;
            let kind = all.families.get(&family).map(String::as_str).unwrap_or_default();
            let suffixes: &[&str] = match kind {
                "counter" => &["_total"],
                "gauge" => &[""],
                "histogram" => &["_bucket", "_sum", "_count"],
                "info" => &["_info"],
                _ => return wrong("no type so far"),
            };
            if !is_name(name) || !suffixes.iter().any(|suffix| name == format!("{family}{suffix}")) {
                return wrong("does not belong to the family above");
            }
            if kind == "counter" && value < 0.0 {
                return wrong("a counter below nothing");
            }
            if all.samples.insert(series.to_owned(), value).is_some() {
                return wrong("twice");
            }
        }
        all.check_histograms()?;
        Ok(all)
    }

    fn check_histograms(&self) -> Result<(), String> {
        for (family, _) in self.families.iter().filter(|(_, kind)| *kind == "histogram") {
            let bucket = |series: &str| -> Option<f64> {
                let bound = series.strip_prefix(&format!("{family}_bucket{{le=\""))?.strip_suffix("\"}")?;
                Some(if bound == "+Inf" { f64::INFINITY } else { bound.parse().ok()? })
            };
            let mut buckets: Vec<(f64, f64)> =
                self.samples.iter().filter_map(|(series, count)| Some((bucket(series)?, *count))).collect();
            buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
            let count = self.samples.get(&format!("{family}_count")).ok_or_else(|| format!("{family} has no count"))?;
            let rising = buckets.windows(2).all(|two| two[0].1 <= two[1].1);
            if !rising || buckets.last() != Some(&(f64::INFINITY, *count)) {
                return Err(format!("{family}: {buckets:?}, {count} in all"));
            }
        }
        Ok(())
    }

    fn get(&self, series: &str) -> f64 {
        self.samples.get(series).copied().unwrap_or(0.0)
    }
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn check_labels(labels: &str) -> Result<(), String> {
    let mut rest = labels;
    let mut seen = BTreeSet::new();
    while !rest.is_empty() {
        let (name, after) = rest.split_once("=\"").ok_or("half a label")?;
        if !is_name(name) || !seen.insert(name) {
            return Err(format!("label '{name}'"));
        }
        let end = after.find('"').ok_or("a label without an end")?;
        if after[..end].contains(['\\', '\n']) {
            return Err("a label that needs escaping".into());
        }
        rest = match &after[end + 1..] {
            "" => "",
            more => more.strip_prefix(',').ok_or("no comma between labels")?,
        };
    }
    Ok(())
}

#[test]
fn the_reader_is_strict() {
    let whole = "# HELP a Words.\n# TYPE a counter\na_total{x=\"y\"} 1\n# EOF\n";
    assert_eq!(Figures::read(whole).unwrap().get("a_total{x=\"y\"}"), 1.0);
    for (from, to) in [
        ("# EOF\n", ""),
        ("# TYPE a counter\n", ""),
        ("# TYPE a counter", "# TYPE b counter"),
        ("a_total{", "a{"),
        (" 1\n", " one\n"),
        (" 1\n", " -1\n"),
        ("\"y\"}", "\"y}"),
        ("x=\"y\"", "x=\"y\"z=\"y\""),
        ("x=\"y\"", "x=\"y\",x=\"y\""),
        ("# EOF", "a_total{x=\"y\"} 1\n# EOF"),
    ] {
        assert!(Figures::read(&whole.replace(from, to)).is_err(), "{from} for {to}");
    }
    let lag = "# HELP h Words.\n# TYPE h histogram\nh_sum 1\nh_count 2\nh_bucket{le=\"1.0\"} 1\nh_bucket{le=\"+Inf\"} 2\n# EOF\n";
    assert!(Figures::read(lag).is_ok());
    assert!(Figures::read(&lag.replace("le=\"1.0\"} 1", "le=\"1.0\"} 3")).is_err());
    assert!(Figures::read(&lag.replace("count 2", "count 3")).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_move_with_what_happens() {
    let mut config = config();
    // Figures are up to a second old: who is gone has to stay away for longer.
    config.lifecycle.backoff_base = Duration::from_secs(3);
    let node = Running::start(config);
    let before = node.figures().await;
    for family in [
        "kinfolk_build",
        "kinfolk_uptime_seconds",
        "kinfolk_health",
        "kinfolk_reachability",
        "kinfolk_peers",
        "kinfolk_connections",
        "kinfolk_dials_open",
        "kinfolk_routing_table_entries",
        "kinfolk_bootstrap_peers",
        "kinfolk_signal_servers",
        "kinfolk_relays_held",
        "kinfolk_relays_wanted",
        "kinfolk_served_reservations",
        "kinfolk_served_circuits",
        "kinfolk_dials",
        "kinfolk_knocks_failed",
        "kinfolk_disconnects",
        "kinfolk_reservations",
        "kinfolk_punches",
        "kinfolk_probes",
        "kinfolk_events",
        "kinfolk_commands",
        "kinfolk_deadline_lag_seconds",
        "kinfolk_counter",
        "process_cpu_seconds",
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_start_time_seconds",
    ] {
        assert!(before.families.contains_key(family), "{family}: {:?}", before.families);
    }
    assert_eq!(before.get("kinfolk_build_info{version=\"test\",role=\"desktop\",network=\"elohim\"}"), 1.0);
    assert_eq!(before.get("kinfolk_reachability{state=\"unknown\"}"), 1.0);
    assert!(before.samples.contains_key("kinfolk_connections{path=\"relayed\",transport=\"circuit\"}"), "0 is told");
    assert!(before.get("process_resident_memory_bytes") > 1e6 && before.get("process_open_fds") > 2.0);

    node.handle.connect(at(peer(1), OPEN)).await.unwrap();
    node.handle.connect(at(peer(2), "/ip4/192.0.2.2/udp/4001/quic-v1")).await.unwrap_err();
    let tell = |event| node.strings.happen(Happened::Core(event));
    let address = || "/ip4/192.0.2.7/tcp/1".parse().unwrap();
    tell(Event::InboundFailed { address: address(), peer: None, error: DialError::Handshake, count: 3 });
    tell(Event::Probed { probe: CommandId(7), verdict: ProbeVerdict::Unproven });
    tell(Event::Reserved { reservation: CommandId(8), limit: None, lasts: None });
    tell(Event::ReservationEnded { reservation: CommandId(8), error: ReserveError::Other("words".into()) });
    // Dials that are not ours count for nothing.
    tell(Event::DialFailed { dial: CommandId(4_000), failures: vec![], error: DialError::TimedOut });
    let after =
        node.until("the reservation's end", |now| now.get("kinfolk_reservations_total{result=\"other\"}") > 0.0).await;
    for (series, number) in [
        ("kinfolk_dials_total{reason=\"asked\",result=\"connected\"}", 1.0),
        ("kinfolk_dials_total{reason=\"asked\",result=\"connection_refused\"}", 1.0),
        ("kinfolk_knocks_failed_total{error=\"handshake\"}", 3.0),
        ("kinfolk_probes_total{verdict=\"unproven\"}", 1.0),
        ("kinfolk_reservations_total{result=\"granted\"}", 1.0),
        ("kinfolk_connections{path=\"local\",transport=\"tcp\"}", 1.0),
        ("kinfolk_peers{state=\"connected\"}", 1.0),
        ("kinfolk_health{state=\"connected\"}", 1.0),
        ("kinfolk_health{state=\"alone\"}", 0.0),
        ("kinfolk_events_total{kind=\"asked\"}", 2.0),
        ("kinfolk_commands_total{kind=\"answer\"}", 2.0),
    ] {
        assert_eq!(after.get(series), number, "{series}: {:#?}", after.samples);
    }
    assert!(!after.samples.keys().any(|series| series.contains("timed_out")));
    assert!(
        after.get("kinfolk_counter{name=\"driver.inputs\"}") > before.get("kinfolk_counter{name=\"driver.inputs\"}")
    );

    tell(Event::Disconnected { connection: ConnectionId(1), peer: peer(1), cause: CloseCause::Broken("words".into()) });
    let gone = node.until("the end", |now| now.get("kinfolk_disconnects_total{cause=\"broken\"}") == 1.0).await;
    assert_eq!(gone.get("kinfolk_connections{path=\"local\",transport=\"tcp\"}"), 0.0);
    // It is dialled again after some seconds, which is a deadline of the core.
    node.until("a deadline", |now| now.get("kinfolk_deadline_lag_seconds_count") > 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_name_nobody_and_their_number_is_bounded() {
    let mut config = config();
    config.lifecycle.max_peers = 10_000;
    let node = Running::start(config);
    let tell = |event| node.strings.happen(Happened::Core(event));
    for number in 0..2_000_u32 {
        let [_, a, b, c] = number.to_be_bytes();
        let text = format!("secret words {number}");
        let address = format!("/ip4/45.{a}.{b}.{c}/tcp/4001").parse().unwrap();
        tell(Event::InboundFailed { address, peer: None, error: DialError::Other(text.clone()), count: 1 });
        let cause = CloseCause::Broken(text.clone());
        tell(Event::Disconnected { connection: ConnectionId(number.into()), peer: peer(number), cause });
        tell(Event::Probed { probe: CommandId(number.into()), verdict: ProbeVerdict::Broken(text) });
    }
    let all = node.until("all of them", |now| now.get("kinfolk_probes_total{verdict=\"broken\"}") == 2_000.0).await;
    assert!(all.samples.len() < 200, "{}", all.samples.len());
    for series in all.samples.keys() {
        assert!(!["secret", "/ip4", "45.", "12D3"].iter().any(|private| series.contains(private)), "{series}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_driver_that_hangs_is_not_alive() {
    let node = Running::start(config());
    let (status, alive) = node.health().await;
    assert_eq!((status, alive.alive), (200, true));
    let (go_on, hangs) = std::sync::mpsc::channel::<()>();
    let handle = node.handle.clone();
    let hanging = tokio::spawn(async move { handle.with_behaviour(move |_| hangs.recv()).await });
    while node.health().await.0 == 200 {}
    let (status, alive) = node.health().await;
    assert_eq!((status, alive.text.as_str()), (503, "the node has not answered within 2 s"));
    assert_eq!(node.ready().await.0, 503);
    go_on.send(()).unwrap();
    hanging.await.unwrap().unwrap().unwrap();
    assert_eq!(node.health().await.0, 200, "it has come back");
    node.handle.shutdown().await;
    let (status, alive) = node.health().await;
    assert_eq!((status, alive.text.as_str()), (503, "the node has shut down"));
    assert_eq!(node.get("/metrics").await.0, 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn ready_means_of_use_and_not_just_there() {
    let mut quick = config();
    quick.planner.isolated_after = Duration::from_secs(1);
    let planner = quick.planner.clone();
    let node = Running::start(quick);
    while node.ready().await.1.health == Some(kinfolk_core::Health::Starting) {}
    let (status, ready) = node.ready().await;
    assert_eq!((status, ready.ready, ready.connected), (503, false, 0));
    assert!(ready.text.starts_with("alone"), "{ready:?}");
    node.handle.connect(at(peer(1), OPEN)).await.unwrap();
    let (status, ready) = node.ready().await;
    assert_eq!((status, ready.ready, ready.connected, ready.text.as_str()), (200, true, 1, "connected"));

    let asked = node.handle.clone();
    tokio::spawn(async move { asked.pin(at(peer(3), SILENT)).await });
    while node.ready().await.1.health != Some(kinfolk_core::Health::Partial) {}
    assert_eq!(node.ready().await.0, 200, "of use to those who are there");

    let server = Running::start(Config { listen: vec![], mdns: false, planner, ..Config::server() });
    let (status, ready) = server.ready().await;
    assert_eq!((status, ready.text.as_str()), (503, "this server listens nowhere"));
    let address = "/ip4/192.0.2.9/tcp/4001".parse().unwrap();
    let listening = Event::Listening { listener: ListenerId(1), command: CommandId(1), address };
    server.strings.happen(Happened::Core(listening));
    while server.ready().await.0 == 503 {}
    let (_, ready) = server.ready().await;
    assert_eq!(ready.text, "a server that others can begin with; nobody is here so far");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_paths_and_methods_are_refused() {
    let node = Running::start(config());
    let (status, _, text) = node.get("/v1/status").await;
    assert_eq!(status, 404, "the local API is not here: {text}");
    let http = reqwest::Client::new();
    let posted = http.post(format!("http://{}/metrics", node.address)).body("x").send().await.unwrap();
    assert_eq!(posted.status().as_u16(), 405);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_holds_connections_open_loses_them() {
    let node = Running::start(config());
    let mut idle = vec![];
    for _ in 0..32 {
        idle.push(TcpStream::connect(node.address).await.unwrap());
    }
    let asked = tokio::time::timeout(Duration::from_secs(20), node.health()).await;
    assert_eq!(asked.expect("a place comes free").0, 200);
    assert_eq!(idle[0].read(&mut [0; 8]).await.unwrap_or(0), 0, "the first one was closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_sends_without_end_is_not_read_without_end() {
    let node = Running::start(config());
    let mut stream = TcpStream::connect(node.address).await.unwrap();
    let request = format!("GET /health HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(8 * 1024));
    let mut answered = 0;
    // Each request by itself is fine.
    while answered < 100 && stream.write_all(request.as_bytes()).await.is_ok() {
        match stream.read(&mut [0; 4 * 1024]).await {
            Ok(0) | Err(_) => break,
            Ok(_) => answered += 1,
        }
    }
    assert!((6..=8).contains(&answered), "{answered} of 8 KiB each, 64 KiB may be read");
    assert_eq!(node.health().await.0, 200, "others are answered");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_cannot_be_had_is_told_clearly() {
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap();
    let error = Operator::listen(taken).unwrap_err().to_string();
    assert!(error.contains(&taken.to_string()) && error.contains("http.listen"), "{error}");
    assert!(error.ends_with("another program has the port, choose another one"), "{error}");
    let error = Operator::listen("192.0.2.1:0".parse().unwrap()).unwrap_err().to_string();
    assert!(error.ends_with("no interface of this machine has that address"), "{error}");
}
