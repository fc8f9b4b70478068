//! Redaction leaves no name behind, keeps order, prefixes and scopes, and never writes a trace that replays otherwise.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use kinfolk_core::{
    Action, Address, Ask, Asker, CloseCause, Config, ConnectionId, DialError, Direction, Event, Identity, Origin,
    PeerAddress, PeerId, RequestId, Scope, SignalError, Source, Started, Time,
    trace::{Frame, SegmentReason},
};
use kinfolk_sim::{
    record::Recording,
    redact::{RedactError, Redacted, redact},
    replay::{Options, replay},
    trace::{Entry, Reader},
};
use proptest::prelude::*;
use serde_json::Value;

struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Redacts a recording; the old text and the new.
    fn redacted(&self, recording: &Recording) -> (Redacted, String, String) {
        let (from, to) = (self.path("from.jsonl"), self.path("to.jsonl"));
        recording.save(&from).unwrap();
        let redacted = redact(&from, &to).unwrap();
        (redacted, fs::read_to_string(from).unwrap(), fs::read_to_string(to).unwrap())
    }

    fn names(&self) -> BTreeSet<String> {
        fs::read_dir(self.folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }
}

fn frames(path: &Path) -> Vec<Frame> {
    let items = Reader::<Value>::open(path).unwrap().map(Result::unwrap);
    items.filter_map(|item| if let Entry::Frame(frame) = item.entry { Some(*frame) } else { None }).collect()
}

/// Everything found in JSON that is a text, by place: two traces of the same shape can be compared text by text.
fn texts(text: &str) -> Vec<String> {
    fn walk(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::String(text) => found.push(text.clone()),
            Value::Array(items) => items.iter().for_each(|item| walk(item, found)),
            Value::Object(fields) => fields.values().for_each(|item| walk(item, found)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
    let mut found = vec![];
    text.lines().for_each(|line| walk(&serde_json::from_str(line).unwrap(), &mut found));
    found
}

/// What became of each value that can be read as a `T`; fails unless always the same did.
fn renamed<T: std::str::FromStr + Ord>(old: &[String], new: &[String]) -> BTreeMap<T, T> {
    let mut map = BTreeMap::new();
    for (old, new) in old.iter().zip(new) {
        if let (Ok(old_value), Ok(new_value)) = (old.parse(), new.parse::<T>()) {
            let other = map.insert(old_value, new_value);
            assert!(other.is_none_or(|other| Some(other) == new.parse().ok()), "{old} became two things");
        }
    }
    map
}

fn keeps_order<T: Ord>(map: &BTreeMap<T, T>) -> bool {
    map.values().is_sorted_by(|a, b| a < b)
}

fn common_bits(a: IpAddr, b: IpAddr) -> u32 {
    match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => 0,
    }
}

#[test]
fn nothing_of_the_old_names_is_left() {
    let files = Files::new();
    let (redacted, old, new) = files.redacted(&common::family());
    assert!(redacted.problem.is_none());
    assert!(redacted.peers >= 6 && redacted.addresses >= 9 && redacted.names == 2, "{redacted}");
    let mut names: Vec<String> = (1..10).map(|number| common::peer(number).to_string()).collect();
    names.extend(
        ["192.168.1.", "45.10.20.30", "91.64.7.8", "2a01:4f8", "10.11.12.13", "fe80::7", "smith", "boot."]
            .map(String::from),
    );
    let present = names.iter().filter(|name| old.contains(name.as_str())).count();
    assert!(present >= 12, "the test looks for what was there");
    for name in names {
        assert!(!new.contains(&name), "{name} is left");
    }
    // What is nobody's stays.
    for kept in ["kinfolk/0.1.0", "/elohim/kad/1.0.0", "/ip4/0.0.0.0/tcp/4001", "/ip6/::/udp/4001/quic-v1", "reset"] {
        assert_eq!(old.matches(kept).count(), new.matches(kept).count(), "{kept}");
    }
}

#[test]
fn order_prefixes_and_scopes_stay() {
    let files = Files::new();
    let (_, old, new) = files.redacted(&common::family());
    let (old, new) = (texts(&old), texts(&new));
    assert_eq!(old.len(), new.len());

    let peers = renamed::<PeerId>(&old, &new);
    assert!(peers.len() >= 6 && keeps_order(&peers));
    let addresses = renamed::<Address>(&old, &new);
    assert!(addresses.len() >= 10 && keeps_order(&addresses));
    for (old, new) in &addresses {
        assert_eq!((old.scope(), old.port(), old.transport()), (new.scope(), new.port(), new.transport()));
    }

    let ips = addresses.iter().filter_map(|(old, new)| Some((old.host_ip()?, new.host_ip()?)));
    let mut ips: BTreeMap<IpAddr, IpAddr> = ips.collect();
    ips.extend(renamed::<IpAddr>(&old, &new));
    assert!(ips.len() >= 9 && keeps_order(&ips));
    for (a, new_a) in &ips {
        assert_eq!(Scope::of(*a), Scope::of(*new_a));
        for (b, new_b) in &ips {
            assert_eq!(common_bits(*a, *b), common_bits(*new_a, *new_b), "{a} and {b}");
        }
    }
}

#[test]
fn what_is_redacted_replays_and_tells_the_same_story() {
    let files = Files::new();
    let (redacted, ..) = files.redacted(&common::family());
    let report = replay(&mut Reader::open(&files.path("to.jsonl")).unwrap(), Options::default());
    assert!(report.is_good(), "{report}");
    assert_eq!((report.inputs, report.commands, report.segments), (redacted.inputs, redacted.commands, 3));
    let (old, new) = (frames(&files.path("from.jsonl")), frames(&files.path("to.jsonl")));
    let story = |frames: &[Frame]| -> Vec<_> {
        let told = |frame: &Frame| (frame.t, std::mem::discriminant(&frame.r#in), frame.out.len());
        frames.iter().map(told).collect()
    };
    assert_eq!(story(&old), story(&new));
}

#[test]
fn twice_gives_two_different_traces() {
    let files = Files::new();
    let (_, _, first) = files.redacted(&common::family());
    let (_, _, second) = files.redacted(&common::family());
    assert_ne!(first, second);
}

#[test]
fn compression_and_a_checkpoint_at_the_head_are_no_matter() {
    let files = Files::new();
    let text = String::from_utf8(common::family().text().unwrap()).unwrap();
    let second = text.match_indices("{\"kinfolk_trace\"").nth(1).unwrap().0;
    let (from, to) = (files.path("from.jsonl.zst"), files.path("to.jsonl.zst"));
    fs::write(&from, zstd::encode_all(&text.as_bytes()[second..], 3).unwrap()).unwrap();
    redact(&from, &to).unwrap();
    let new = fs::read(&to).unwrap();
    assert_eq!(new[..4], [0x28, 0xb5, 0x2f, 0xfd]);
    let new = String::from_utf8(zstd::decode_all(new.as_slice()).unwrap()).unwrap();
    assert!(text[second..].contains("192.168.1.9") && !new.contains("192.168.1.9"));
    assert_eq!(new.lines().count(), text[second..].lines().count());
}

/// Addresses that the core keeps as text are ordered as text: "/ip4/9…" comes after "/ip4/10…".
#[test]
fn addresses_that_are_compared_as_text_keep_their_order_too() {
    let files = Files::new();
    let mut recording = common::quiet();
    let ips = ["8.1.1.1", "9.9.9.9", "45.10.20.30", "91.64.7.8", "99.1.2.3", "101.1.1.1", "192.168.1.9", "203.0.114.1"];
    let addresses = ips.map(|ip| common::address(&format!("/ip4/{ip}/tcp/443/tls/ws")));
    let found = Event::Found { source: Source::Kademlia, peer: common::peer(2), addresses: addresses.to_vec(), cut: 0 };
    recording.tell(Time::from_secs(5), found).unwrap();
    let (_, old, new) = files.redacted(&recording);
    let addresses = renamed::<Address>(&texts(&old), &texts(&new));
    assert!(keeps_order(&addresses));
}

#[test]
fn a_trace_that_does_not_replay_is_not_redacted() {
    let files = Files::new();
    let (from, to) = (files.path("from.jsonl"), files.path("to.jsonl"));
    let text = String::from_utf8(common::family().text().unwrap()).unwrap();
    fs::write(&from, text.replacen("\"why\":\"settings\"", "\"why\":\"asked\"", 1)).unwrap();
    fs::write(&to, "what was there before").unwrap();
    let error = redact(&from, &to).unwrap_err();
    assert!(matches!(error, RedactError::DoesNotReplay(_)), "{error}");
    assert!(error.to_string().contains("Input 1 (line 2, segment 1"), "{error}");
    assert_eq!(fs::read_to_string(&to).unwrap(), "what was there before");
    assert_eq!(files.names(), ["from.jsonl", "to.jsonl"].map(String::from).into());
}

#[test]
fn a_network_that_is_called_like_a_host_is_renamed_with_it() {
    let files = Files::new();
    let (from, to) = (files.path("from.jsonl"), files.path("to.jsonl"));
    let mut config = Config::desktop();
    config.bootstrap = vec!["/dns4/elohim.example/tcp/4001".parse().unwrap()];
    config.network = "elohim.example".into();
    let started = Started { config: config.validate().unwrap(), ..common::started() };
    let (mut recording, _) = Recording::start(started);
    recording.segment(SegmentReason::Rotation, 0);
    recording.save(&from).unwrap();
    redact(&from, &to).unwrap();
    let new = fs::read_to_string(&to).unwrap();
    assert!(!new.contains("elohim.example"));
}

#[test]
fn signal_servers_are_renamed_wherever_they_stand() {
    let files = Files::new();
    let mut config = Config::desktop();
    let servers = ["https://doorway.smith.example:8443/village/signal", "http://45.10.20.30:4080", "http://nas/signal"];
    config.signal.servers = servers.map(String::from).into();
    let started = Started { config: config.validate().unwrap(), ..common::started() };
    let (mut recording, commands) = Recording::start(started);
    let query = commands.iter().find(|command| matches!(command.action, Action::SignalQuery { .. })).unwrap().id;
    let reason = "it is at https://other.smith.example/village/signal now; put that into the settings".to_owned();
    let error = SignalError::Refused { reason, retry_after: None };
    recording.tell(Time::from_secs(1), Event::SignalFailed { command: query, error }).unwrap();
    recording.rest_until(Time::from_secs(60)).unwrap();
    recording.segment(SegmentReason::Rotation, 0);
    let (_, old, new) = files.redacted(&recording);
    for name in ["smith", "village", "45.10.20.30", "//nas"] {
        assert!(old.contains(name) && !new.contains(name), "{name}: {new}");
    }
    for kept in [":8443/", ":4080", "/signal"] {
        assert_eq!(old.matches(kept).count(), new.matches(kept).count(), "{kept}");
    }
}

#[test]
fn a_trace_that_is_cut_off_is_redacted_as_far_as_it_goes() {
    let files = Files::new();
    let (from, to) = (files.path("from.jsonl"), files.path("to.jsonl"));
    let text = common::family().text().unwrap();
    fs::write(&from, &text[..text.len() - 20]).unwrap();
    let redacted = redact(&from, &to).unwrap();
    assert_eq!(redacted.problem.unwrap().problem.kind(), "cut_off");
    let lines = text.iter().filter(|byte| **byte == b'\n').count();
    assert_eq!(fs::read_to_string(&to).unwrap().lines().count(), lines - 1);

    fs::write(&from, "no trace").unwrap();
    fs::remove_file(&to).unwrap();
    assert!(matches!(redact(&from, &to), Err(RedactError::Read(_))));
    assert!(!to.exists());
}

#[test]
fn the_trace_itself_is_never_overwritten() {
    let files = Files::new();
    let from = files.path("from.jsonl");
    common::quiet().save(&from).unwrap();
    let before = fs::read(&from).unwrap();
    assert!(matches!(redact(&from, &from), Err(RedactError::SameFile(_))));
    #[cfg(unix)]
    {
        let link = files.path("link.jsonl");
        std::os::unix::fs::symlink(&from, &link).unwrap();
        assert!(matches!(redact(&from, &link), Err(RedactError::SameFile(_))));
    }
    assert_eq!(fs::read(&from).unwrap(), before);
    assert!(matches!(redact(Path::new("-"), &from), Err(RedactError::NoFile)));
    assert!(matches!(redact(&from, &files.path("no/such/folder.jsonl")), Err(RedactError::Write(_))));
}

/// What a node may be told, with many peers and addresses that are near each other.
fn told() -> impl Strategy<Value = Event> {
    let hosts = prop_oneof![
        (0_u8..4, 0_u8..4).prop_map(|(net, host)| format!("/ip4/192.168.{net}.{host}")),
        (0_u8..4, any::<u8>()).prop_map(|(net, host)| format!("/ip4/45.10.{net}.{host}")),
        (any::<u8>(), any::<u8>()).prop_map(|(a, b)| format!("/ip4/{a}.{b}.7.7")),
        (0_u16..4, 0_u16..4).prop_map(|(net, host)| format!("/ip6/2a01:4f8:{net}::{host}")),
        (0_u16..4).prop_map(|host| format!("/ip6/fe80::{host}")),
        (0_u8..9).prop_map(|host| format!("/dns4/host{host}.smith.example")),
    ];
    let ports = prop_oneof![Just("/tcp/4001"), Just("/udp/4001/quic-v1"), Just("/tcp/443/tls/ws")];
    let address = (hosts, ports).prop_map(|(host, port)| common::address(&format!("{host}{port}")));
    let addresses = proptest::collection::vec(address.clone(), 1..6);
    let peer = || (2_u8..12).prop_map(common::peer);
    let source = prop_oneof![Just(Source::Mdns), Just(Source::Kademlia), Just(Source::Identify), Just(Source::Store)];
    let connection = || (1_u64..6).prop_map(ConnectionId);
    prop_oneof![
        4 => (source.clone(), peer(), addresses.clone())
            .prop_map(|(source, peer, addresses)| Event::Found { source, peer, addresses, cut: 0 }),
        1 => (source, peer(), addresses.clone())
            .prop_map(|(source, peer, addresses)| Event::Lost { source, peer, addresses }),
        4 => (connection(), peer(), address.clone()).prop_map(|(connection, peer, address)| Event::Connected {
            connection,
            peer,
            direction: Direction::Inbound,
            address,
            origin: Origin::Inbound,
            took: Duration::from_millis(9),
        }),
        2 => (connection(), peer(), addresses, address.clone()).prop_map(|(connection, peer, addresses, observed)| {
            let protocols = vec!["/elohim/kad/1.0.0".into(), "/ipfs/ping/1.0.0".into()];
            let agent = format!("kinfolk at {observed}");
            let protocol_version = "/elohim/id/1.0.0".into();
            let observed = Some(observed);
            let identity = Identity { protocol_version, agent, protocols, addresses, observed, cut: 0 };
            Event::Identified { connection, peer, identity: Box::new(identity) }
        }),
        2 => (connection(), peer())
            .prop_map(|(connection, peer)| Event::Disconnected { connection, peer, cause: CloseCause::Remote }),
        1 => (peer(), address.clone()).prop_map(|(peer, address)| Event::Asked {
            request: RequestId(1),
            ask: Ask::Connect(PeerAddress::new(peer, address)),
        }),
        1 => peer().prop_map(|peer| Event::Asked { request: RequestId(2), ask: Ask::Block(peer) }),
        1 => address.prop_map(|address| Event::Candidate { asker: Asker::Identify, address }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]
    /// The core looks at nothing that redaction does not keep: any run at all can be redacted.
    #[test]
    fn any_run_can_be_redacted(told in proptest::collection::vec((0_u64..40, told(), any::<bool>()), 1..60)) {
        let files = Files::new();
        let (mut recording, _) = Recording::start(common::started());
        let mut at = 0;
        for (wait, event, segment) in told {
            at += wait;
            for command in recording.tell(Time::from_secs(at), event).unwrap() {
                if let Action::Dial { addresses, .. } = command.action {
                    let failures = addresses.into_iter().map(|address| (address, DialError::TimedOut)).collect();
                    let failed = Event::DialFailed { dial: command.id, failures, error: DialError::TimedOut };
                    recording.tell(Time::from_secs(at + 1), failed).unwrap();
                }
            }
            if segment {
                recording.segment(SegmentReason::Rotation, 0);
            }
        }
        let (redacted, _, new) = files.redacted(&recording);
        prop_assert!(redacted.problem.is_none());
        prop_assert!(!new.contains("smith") && !new.contains(&common::peer(1).to_string()));
    }
}
