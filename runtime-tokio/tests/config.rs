//! Settings: where they come from, who wins, and what is said when they are wrong.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{fs, path::Path, time::Duration};

use kinfolk::config::{Flag, Place, Settings, Sources};
use kinfolk_core::{Config, KademliaMode, Role};

const PEER: &str = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";

/// Sources in a folder of their own: a home, and a settings file if `file` is not empty.
struct Bench {
    home: tempfile::TempDir,
    sources: Sources,
}

impl Bench {
    fn new(file: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let mut sources = Sources::default();
        sources.environment.push(("HOME".into(), home.path().into()));
        if !file.is_empty() {
            let path = home.path().join("k.toml");
            fs::write(&path, file).unwrap();
            sources.file = Some(path);
        }
        Self { home, sources }
    }

    fn variable(mut self, name: &str, value: &str) -> Self {
        self.sources.environment.push((name.into(), value.into()));
        self
    }

    fn flag(mut self, name: &str, key: &str, value: &str) -> Self {
        self.sources.flags.push(Flag::new(name, key, value));
        self
    }

    fn load(&self) -> Settings {
        Settings::load(&self.sources).unwrap()
    }

    /// What is said, with the folder taken out.
    fn problems(&self) -> String {
        let said = Settings::load(&self.sources).unwrap_err().to_string();
        said.replace(&self.home.path().display().to_string(), "~")
    }
}

fn problems(file: &str) -> String {
    Bench::new(file).problems()
}

#[test]
fn without_anything_the_defaults_are_those_of_a_desktop() {
    let bench = Bench::new("");
    let settings = bench.load();
    assert_eq!(*settings.config, Config::desktop());
    assert_eq!(settings.host.data_dir, bench.home.path().join(".local/share/kinfolk"));
    assert_eq!(settings.host.api_socket, bench.home.path().join(".local/share/kinfolk/api.sock"));
    assert_eq!(settings.file, None);
}

#[test]
fn flags_win_over_environment_over_file_over_role() {
    let file = "role = 'server'\nnetwork = 'file'\nmdns = true\n[lifecycle]\ndial_slots = 7\nhigh_water = 250\n";
    let settings = Bench::new(file)
        .variable("KINFOLK_NETWORK", "environment")
        .variable("KINFOLK_LIFECYCLE_DIAL_SLOTS", "8")
        .flag("--set", "lifecycle.dial_slots", "9")
        .load();
    let config = &settings.config;
    assert_eq!((config.role, config.network.as_str()), (Role::Server, "environment"));
    assert_eq!(config.protocols.kademlia, "/environment/kad/1.0.0", "follows from the network's name");
    assert!(config.mdns, "the file overrides the server's preset");
    let lifecycle = &config.lifecycle;
    assert_eq!((lifecycle.dial_slots, lifecycle.high_water, lifecycle.low_water), (9, 250, 200));

    assert_eq!(settings.origin("lifecycle.dial_slots"), Some(Place::Flag("--set".into())));
    assert_eq!(settings.origin("network"), Some(Place::Variable("KINFOLK_NETWORK".into())));
    assert!(matches!(settings.origin("mdns"), Some(Place::File { line: 3, .. })));
    assert_eq!(settings.origin("lifecycle.low_water"), Some(Place::Preset("server")));
    assert_eq!(settings.origin("protocols.kademlia"), Some(Place::Follows("network")));
}

#[test]
fn a_role_from_a_flag_changes_the_presets_below_the_file() {
    let settings = Bench::new("[lifecycle]\nlow_water = 10\n").flag("--role", "role", "server").load();
    assert_eq!((settings.config.lifecycle.low_water, settings.config.lifecycle.high_water), (10, 300));
}

#[test]
fn every_kind_of_value_is_read() {
    let file = format!(
        "listen = ['/ip4/127.0.0.1/tcp/0']\nkademlia = 'client'\nbootstrap = ['/dns4/node.example/tcp/4001', \
         '/ip6/2001:db8::1/udp/4001/quic-v1/p2p/{PEER}']\npinned = ['{PEER}']\ndata_dir = 'here'\n\
         [protocols]\nkademlia = '/ipfs/kad/1.0.0'\n[lifecycle]\nbackoff_max = '1h30m'\n[trace]\nsegment = '1MiB'\n"
    );
    let bench = Bench::new(&file);
    let settings = bench.load();
    let config = &settings.config;
    assert_eq!(config.listen.len(), 1);
    assert_eq!(config.kademlia, KademliaMode::Client);
    assert_eq!(config.bootstrap.len(), 2);
    assert_eq!(config.pinned[0].peer.to_string(), PEER);
    assert_eq!(config.protocols.kademlia, "/ipfs/kad/1.0.0");
    assert_eq!(config.protocols.identify, "/elohim/id/1.0.0");
    assert_eq!(config.lifecycle.backoff_max, Duration::from_secs(5_400));
    assert_eq!(settings.host.trace.segment.0, 1 << 20);
    assert_eq!(settings.host.data_dir, bench.home.path().join("here"), "relative to the file");
    assert_eq!(settings.host.api_socket, bench.home.path().join("here/api.sock"));
}

#[test]
fn the_environment_holds_lists_and_truths_too() {
    let settings = Bench::new("bootstrap = ['/dns4/file.example/tcp/1']")
        .variable("KINFOLK_BOOTSTRAP", "/dns4/a.example/tcp/1, /dns4/b.example/tcp/1")
        .variable("KINFOLK_MDNS", "off")
        .variable("KINFOLK_LIFECYCLE_ASK_TIMEOUT", "2m")
        .variable("KINFOLK_DATA_DIR", "/data")
        .load();
    assert_eq!(settings.config.bootstrap.len(), 2, "replaced, not joined");
    assert!(!settings.config.mdns);
    assert_eq!(settings.config.lifecycle.ask_timeout, Duration::from_secs(120));
    assert_eq!(settings.host.data_dir, Path::new("/data"));
}

#[test]
fn the_users_folders_follow_xdg() {
    let bench = Bench::new("").variable("XDG_DATA_HOME", "/x/data").variable("XDG_CONFIG_HOME", "relative: ignored");
    assert_eq!(bench.load().host.data_dir, Path::new("/x/data/kinfolk"));
    let folder = bench.home.path().join(".config/kinfolk");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("config.toml"), "network = 'found'").unwrap();
    assert_eq!(bench.load().config.network, "found");

    let homeless = Settings::load(&Sources::default()).unwrap_err().to_string();
    insta::assert_snapshot!(homeless, @"HOME: data_dir: is not set, so there is no default data folder; give one with --data-dir, KINFOLK_DATA_DIR or data_dir in the settings file");
}

#[test]
fn unknown_names_are_errors_that_name_the_nearest() {
    insta::assert_snapshot!(problems("netwrok = 'x'\n\n[lifecycle]\nmax_pears = 3\n[lifecicle]\nmax_peers = 1\n[nat.external]\n"), @"
    ~/k.toml:1: unknown key 'netwrok'; the nearest known one is 'network'
    ~/k.toml:4: unknown key 'lifecycle.max_pears'; the nearest known one is 'lifecycle.max_peers'
    ~/k.toml:5: unknown table [lifecicle]; the nearest known one is [lifecycle]
    ~/k.toml:7: nat.external: is one value, not a table
    ");
    let bench = Bench::new("").variable("KINFOLK_LISSEN", "x").flag("--set", "lifecycle.maxpeers", "1");
    insta::assert_snapshot!(bench.problems(), @"
    KINFOLK_LISSEN: no setting has this name; the nearest known one is KINFOLK_LISTEN
    --set: unknown key 'lifecycle.maxpeers'; the nearest known one is 'lifecycle.max_peers'
    ");
}

#[test]
fn wrong_values_say_where_and_what_would_be_right() {
    insta::assert_snapshot!(problems(
        "role = 'gateway'\nmdns = 'yes'\nlisten = '/ip4/0.0.0.0/tcp/4001'\nkademlia = 3\nnetwork = 2026-01-01\n\
         bootstrap = [\n  '/ip4/192.0.2.1/tcp/4001',\n  '192.0.2.1:4001',\n]\npinned = ['/ip4/192.0.2.1/tcp/1']\n\
         lifecycle = 5\n"
    ), @r#"
    ~/k.toml:1: role: must be "family", "desktop" or "server", not "gateway"
    ~/k.toml:2: mdns: must be true or false (without quotes), not "yes"
    ~/k.toml:3: listen: must be a list in brackets, such as ["…", "…"], not "/ip4/0.0.0.0/tcp/4001"
    ~/k.toml:4: kademlia: must be "auto", "client" or "server", not 3
    ~/k.toml:5: network: must be text in quotes, not a date
    ~/k.toml:8: bootstrap: '192.0.2.1:4001': an address is a multiaddr and begins with '/', such as /ip4/192.0.2.1/tcp/4001
    ~/k.toml:10: pinned: '/ip4/192.0.2.1/tcp/1' needs to say whom it means: …/p2p/12D3KooW…
    ~/k.toml:11: 'lifecycle' is a table: write [lifecycle] and its keys below
    "#);
    insta::assert_snapshot!(problems(
        "[lifecycle]\ndial_timeout = 60\nmax_addresses = 300\nlow_water = -1\nhigh_water = 1.5\nbackoff_max = '5 parsecs'\n\
         [trace]\nsegment = 4096\n[nat]\nexternal = ['/ip4/45.1.2.3/tcp/99999', '/nonsense/7']\n"
    ), @r#"
    ~/k.toml:2: lifecycle.dial_timeout: must be a span of time with its unit in quotes, such as "5s", "10m" or "2h", not 60
    ~/k.toml:3: lifecycle.max_addresses: must be a whole number from 0 to 255, not 300
    ~/k.toml:4: lifecycle.low_water: must be a whole number from 0 to 4294967295, not -1
    ~/k.toml:5: lifecycle.high_water: must be a whole number from 0 to 4294967295, not a number with a fraction
    ~/k.toml:6: lifecycle.backoff_max: must be a span of time with its unit in quotes, such as "5s", "10m" or "2h", not "5 parsecs"
    ~/k.toml:8: trace.segment: must be a size with its unit in quotes, such as "512KiB" or "4MiB", not 4096
    ~/k.toml:10: nat.external: '/ip4/45.1.2.3/tcp/99999': '99999' is no value for '/tcp'
    "#);
}

#[test]
fn values_that_do_not_fit_together_are_found_at_their_place() {
    insta::assert_snapshot!(problems(
        "network = 'a b'\nlisten = [\n  '/ip4/0.0.0.0/tcp/1',\n  '/dns4/x.example/tcp/1',\n]\nlog = 'kinfolk=loud'\n\
         [lifecycle]\nhigh_water = 20\n[trace]\nsegments = 1\nsegment = '1KiB'\n[planner]\nrefresh = '2d'\n"
    ), @r#"
    preset of role 'desktop': lifecycle.low_water: must be 1 to lifecycle.high_water (it is 32)
    ~/k.toml:1: network: must be 1 to 64 letters, digits, '-', '_' or '.'
    ~/k.toml:4: listen[1]: must be an IP address with TCP or QUIC: /ip4/0.0.0.0/tcp/4001
    ~/k.toml:6: log: must be such as "info" or "kinfolk=debug,libp2p=warn": error parsing level filter: expected one of "off", "error", "warn", "info", "debug", "trace", or a number 0-5
    ~/k.toml:10: trace.segments: must be 2 to 1 000
    ~/k.toml:11: trace.segment: must be "64KiB" to "1GiB"
    ~/k.toml:13: planner.refresh: must be 1 second to 1 day
    "#);
}

#[test]
fn files_that_are_no_settings_file_are_refused() {
    insta::assert_snapshot!(problems("network = \n"), @"~/k.toml:1: not TOML: string values must be quoted, expected literal string");
    insta::assert_snapshot!(problems("mdns = true\nmdns = false\n"), @"~/k.toml:2: not TOML: duplicate key");
    insta::assert_snapshot!(problems("just words"), @"~/k.toml:1: not TOML: key with no value, expected `=`");
    let mut bench = Bench::new("x");
    let path = bench.sources.file.clone().unwrap();
    fs::write(&path, b"network = 'a'\nlog = '\xff'").unwrap();
    insta::assert_snapshot!(bench.problems(), @"~/k.toml: line 2 is not valid UTF-8");
    fs::write(&path, "#".repeat((1 << 20) + 1)).unwrap();
    insta::assert_snapshot!(bench.problems(), @"~/k.toml: is larger than 1 MiB; this is no settings file");
    bench.sources.file = Some(bench.home.path().join("absent.toml"));
    insta::assert_snapshot!(bench.problems(), @"~/absent.toml: can't be read: No such file or directory (os error 2)");
    let bench = Bench::new("").variable("KINFOLK_CONFIG", "/nowhere/k.toml");
    insta::assert_snapshot!(bench.problems(), @"/nowhere/k.toml: can't be read: No such file or directory (os error 2)");
}

#[test]
fn the_example_file_names_every_key_with_its_default() {
    let example = include_str!("../config.example.toml");
    assert!(Bench::new(example).load().shown().settings.iter().all(|setting| !setting.from.contains("k.toml")));

    let uncommented: String = example
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if !rest.is_empty() && !rest.starts_with(' ') => format!("{rest}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let bench = Bench::new(&uncommented);
    let (named, plain) =
        (bench.load(), Bench { sources: Sources { file: None, ..bench.sources.clone() }, home: bench.home }.load());
    for (named, plain) in named.shown().settings.iter().zip(&plain.shown().settings) {
        assert!(named.from.contains("k.toml"), "{} is missing in the example", named.key);
        assert_eq!((named.key, &named.value), (plain.key, &plain.value), "the example states another default");
    }
}

#[test]
fn what_is_shown_is_a_settings_file_with_the_same_effect() {
    let bench = Bench::new(&format!("role = 'family'\npinned = ['/ip4/192.0.2.1/tcp/1/p2p/{PEER}']\n"))
        .variable("KINFOLK_NETWORK", "smith")
        .flag("--listen", "listen", "/ip4/127.0.0.1/tcp/0");
    let settings = bench.load();
    let again = Bench::new(&settings.to_toml()).load();
    assert_eq!(again.config, settings.config);
    assert_eq!(again.host, settings.host);
    let shown = settings.to_toml().replace(&bench.home.path().display().to_string(), "~");
    insta::assert_snapshot!(shown.lines().take(20).collect::<Vec<_>>().join("\n"), @r#"
    role = "family"  # ~/k.toml:1
    power = "normal"
    memory = "off"
    network = "smith"  # KINFOLK_NETWORK
    listen = ["/ip4/127.0.0.1/tcp/0"]  # --listen
    mdns = true
    kademlia = "auto"
    bootstrap = []
    pinned = ["/ip4/192.0.2.1/tcp/1/p2p/12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"]  # ~/k.toml:2
    data_dir = "~/.local/share/kinfolk"
    log = "off"
    slack = "0s"
    batch = "2s"

    [protocols]
    identify = "/smith/id/1.0.0"  # follows from network
    kademlia = "/smith/kad/1.0.0"  # follows from network
    punch = "/smith/punch/1.0.0"  # follows from network
    sync = "/smith/kinfolk-sync/1.0.0"  # follows from network
    "#);
}
