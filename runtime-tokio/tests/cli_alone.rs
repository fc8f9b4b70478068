//! The program where no node runs: help, settings, bad input.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::{fs, io::Read, process::Stdio};

use common::Home;

#[test]
fn help_is_there_for_everything() {
    let home = Home::new();
    let help = home.run("--help");
    assert_eq!((help.code, help.err.as_str()), (0, ""));
    insta::assert_snapshot!(help.out);
    for line in [
        "up",
        "id",
        "status",
        "peers",
        "connect",
        "disconnect",
        "pin",
        "forget",
        "allow",
        "block",
        "why",
        "doctor",
        "bootstrap add",
        "bootstrap remove",
        "bootstrap list",
        "config check",
        "config show",
        "trace start",
        "trace stop",
        "trace export",
        "completions",
    ] {
        let help = home.run(&format!("{line} --help"));
        assert_eq!(help.code, 0, "{line}");
        assert!(help.out.contains("Usage: kinfolk"), "{line}: {}", help.out);
    }
    insta::assert_snapshot!(home.run("--version").seen(), @"
    exit 0
    kinfolk 0.1.0
    ");
}

#[test]
fn without_a_node_every_question_says_how_to_get_one() {
    let home = Home::new();
    insta::assert_snapshot!(home.run("status").seen(), @"
    exit 3
    on the error stream:
    error: no node is running on ~/.local/share/kinfolk; start one with `kinfolk up`
    ");
    insta::assert_snapshot!(home.run("status --json").seen(), @r#"
    exit 3
    on the error stream:
    {"error":"no_node","detail":"no node is running on ~/.local/share/kinfolk; start one with `kinfolk up`","exit":3}
    "#);
    let peer = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";
    for line in [
        "id --addresses",
        "peers",
        "peers --watch",
        "peers AJU5SA",
        "connect /ip4/127.0.0.1/tcp/1",
        "disconnect AJU5SA",
        &format!("pin {peer}"),
        "forget AJU5SA",
        "allow AJU5SA",
        "block AJU5SA",
        "why",
        "why AJU5SA",
        "bootstrap list",
        "bootstrap add /ip4/127.0.0.1/tcp/1",
        "bootstrap remove /ip4/127.0.0.1/tcp/1",
        "trace start",
        "trace stop",
        "trace export x.zst",
    ] {
        let ran = home.run(line);
        assert_eq!((ran.code, ran.out.as_str()), (3, ""), "{line}: {}", ran.err);
        assert_eq!(ran.err, home.run("status").err, "{line}");
    }
    assert!(!home.data().exists(), "asking makes nothing");
}

#[test]
fn a_socket_that_a_killed_node_left_behind_is_no_node() {
    let home = Home::new();
    fs::create_dir_all(home.data()).unwrap();
    drop(std::os::unix::net::UnixListener::bind(home.data().join("api.sock")).unwrap());
    insta::assert_snapshot!(home.run("peers").seen(), @"
    exit 3
    on the error stream:
    error: no node is running on ~/.local/share/kinfolk; start one with `kinfolk up`
    ");
}

#[test]
fn bad_usage_says_what_is_known() {
    let home = Home::new();
    insta::assert_snapshot!(home.run("peeers").seen(), @"
    exit 2
    on the error stream:
    error: unrecognized subcommand 'peeers'

      tip: a similar subcommand exists: 'peers'

    Usage: kinfolk [OPTIONS] [COMMAND]

    For more information, try '--help'.
    ");
    insta::assert_snapshot!(home.run("--lisen /ip4/0.0.0.0/tcp/1").seen(), @"
    exit 2
    on the error stream:
    error: unexpected argument '--lisen' found

      tip: a similar argument exists: '--listen'

    Usage: kinfolk --listen <MULTIADDR>

    For more information, try '--help'.
    ");
    insta::assert_snapshot!(home.run("up --role gateway").seen(), @"
    exit 2
    on the error stream:
    error: invalid value 'gateway' for '--role <ROLE>'
      [possible values: family, desktop, server]

    For more information, try '--help'.
    ");
    insta::assert_snapshot!(home.run("why a b").seen(), @"
    exit 2
    on the error stream:
    error: unexpected argument 'b' found

    Usage: kinfolk why [OPTIONS] [PEER]

    For more information, try '--help'.
    ");
    insta::assert_snapshot!(home.run("--network smith status").seen(), @"
    exit 2
    on the error stream:
    error: --network has no place before a command; it belongs behind `up` or `config`

    Usage: kinfolk [OPTIONS] [COMMAND]

    For more information, try '--help'.
    ");
    insta::assert_snapshot!(home.run("connect --json").seen(), @r#"
    exit 2
    on the error stream:
    {"error":"usage","detail":"the following required arguments were not provided:\n  <MULTIADDR>\n\nUsage: kinfolk connect --json <MULTIADDR>\n\nFor more information, try '--help'.","exit":2}
    "#);
}

#[test]
fn bad_settings_are_all_told_at_once() {
    let home = Home::new();
    fs::create_dir_all(home.path().join(".config/kinfolk")).unwrap();
    fs::write(home.path().join(".config/kinfolk/config.toml"), "netwrok = 'x'\nmdns = 'maybe'\n").unwrap();
    let mut command = home.command(["up", "--listen", "/ip4/0.0.0.0/tcp/x", "--set", "lifecycle.max_pears=3"]);
    let ran = home.ran(command.env("KINFOLK_ROLL", "server").output().unwrap());
    insta::assert_snapshot!(ran.seen(), @r#"
    exit 2
    on the error stream:
    error: ~/.config/kinfolk/config.toml:1: unknown key 'netwrok'; the nearest known one is 'network'
           ~/.config/kinfolk/config.toml:2: mdns: must be true or false (without quotes), not "maybe"
           KINFOLK_ROLL: no setting has this name; the nearest known one is KINFOLK_ROLE
           --listen: listen: '/ip4/0.0.0.0/tcp/x': 'x' is no value for '/tcp'
           --set: unknown key 'lifecycle.max_pears'; the nearest known one is 'lifecycle.max_peers'
    "#);
    insta::assert_snapshot!(home.run("status").seen(), @r#"
    exit 2
    on the error stream:
    error: ~/.config/kinfolk/config.toml:1: unknown key 'netwrok'; the nearest known one is 'network'
           ~/.config/kinfolk/config.toml:2: mdns: must be true or false (without quotes), not "maybe"
    "#);
    insta::assert_snapshot!(home.run("config check --json").seen(), @r#"
    exit 2
    on the error stream:
    {"error":"bad_settings","detail":"~/.config/kinfolk/config.toml:1: unknown key 'netwrok'; the nearest known one is 'network'\n~/.config/kinfolk/config.toml:2: mdns: must be true or false (without quotes), not \"maybe\"","exit":2}
    "#);
    assert!(!home.data().exists(), "nothing half made");
}

#[test]
fn malformed_arguments_are_refused_before_anybody_is_asked() {
    let home = Home::new();
    insta::assert_snapshot!(home.run("connect 192.0.2.1:4001").seen(), @"
    exit 2
    on the error stream:
    error: '192.0.2.1:4001' is no multiaddr: those begin with '/', such as /ip4/192.0.2.1/tcp/4001
    ");
    insta::assert_snapshot!(home.run("connect /ip4/192.0.2.256/tcp/4001").seen(), @"
    exit 2
    on the error stream:
    error: '/ip4/192.0.2.256/tcp/4001': '192.0.2.256' is no value for '/ip4'
    ");
    insta::assert_snapshot!(home.run("connect /ip4/192.0.2.1/tcp/4001/p2p/12D3KooWno0pe").seen(), @"
    exit 2
    on the error stream:
    error: '/ip4/192.0.2.1/tcp/4001/p2p/12D3KooWno0pe': '12D3KooWno0pe' after '/p2p' is no peer id: a peer id is base58 text, such as 12D3KooW…; this has other characters
    ");
    insta::assert_snapshot!(home.run("connect /nonsense/7").seen(), @"
    exit 2
    on the error stream:
    error: '/nonsense/7': not a multiaddr (unknown protocol string: nonsense); one looks like /ip4/192.0.2.1/tcp/4001
    ");
    insta::assert_snapshot!(home.run("pin /ip4/192.0.2.1/tcp/4001").seen(), @"
    exit 2
    on the error stream:
    error: say whom to pin: a peer id, or an address that ends in /p2p/PEER
    ");
    insta::assert_snapshot!(home.run("block me").seen(), @"
    exit 2
    on the error stream:
    error: 'me' is no peer: give a peer id, or at least 6 characters of its beginning or end
    ");
    insta::assert_snapshot!(home.run("bootstrap add node.example").seen(), @"
    exit 2
    on the error stream:
    error: 'node.example': an address is a multiaddr and begins with '/', such as /ip4/192.0.2.1/tcp/4001
    ");
    insta::assert_snapshot!(home.run("--config absent.toml status").seen(), @"
    exit 2
    on the error stream:
    error: absent.toml: can't be read: No such file or directory (os error 2)
    ");
    insta::assert_snapshot!(home.run("peers AJU5SA --watch").seen(), @"
    exit 2
    on the error stream:
    error: --watch shows all peers; leave the PEER out
    ");
    insta::assert_snapshot!(home.run("--set network status").seen(), @"
    exit 2
    on the error stream:
    error: invalid value 'network' for '--set <KEY=VALUE>': write KEY=VALUE, such as lifecycle.high_water=100

    For more information, try '--help'.
    ");
}

#[test]
fn the_id_is_read_from_the_data_folder() {
    let home = Home::new();
    insta::assert_snapshot!(home.run("id").seen(), @"
    exit 1
    on the error stream:
    error: there is no identity in ~/.local/share/kinfolk so far; `kinfolk up` makes one
    ");
    fs::create_dir_all(home.data()).unwrap();
    fs::write(home.data().join("identity"), "garbage").unwrap();
    insta::assert_snapshot!(home.run("id").seen(), @"
    exit 1
    on the error stream:
    error: ~/.local/share/kinfolk/identity is damaged (no private key in it); put a copy of it back if you have one, or delete it to get a new identity (other peers then know this node no more)
    ");
}

#[test]
fn settings_can_be_looked_at() {
    let home = Home::new();
    let file = home.path().join("k.toml");
    fs::write(&file, "role = 'family'\nmdns = false\n").unwrap();
    insta::assert_snapshot!(home.run("config check k.toml").seen(), @"
    exit 0
    k.toml: the settings are right
    ");
    insta::assert_snapshot!(home.run("config check k.toml --json").seen(), @r#"
    exit 0
    {"file":"k.toml","ok":true}
    "#);
    insta::assert_snapshot!(home.run("config check k.toml --network smith").seen(), @"
    exit 2
    on the error stream:
    error: `config check FILE` looks at the file alone; leave --network out
    ");
    insta::assert_snapshot!(home.run("config check").seen(), @"
    exit 0
    the settings are right (there is no settings file)
    ");
    let shown = home.run("--config k.toml config show --network smith");
    insta::assert_snapshot!(shown.out.lines().take(14).collect::<Vec<_>>().join("\n"), @r#"
    role = "family"  # k.toml:1
    power = "normal"
    memory = "off"
    network = "smith"  # --network
    listen = [
      "/ip4/0.0.0.0/tcp/4001",
      "/ip4/0.0.0.0/udp/4001/quic-v1",
      "/ip6/::/tcp/4001",
      "/ip6/::/udp/4001/quic-v1",
    ]
    mdns = false  # k.toml:2
    kademlia = "auto"
    bootstrap = []
    pinned = []
    "#);
    let json = home.run("--config k.toml config show --network smith --json").json();
    assert_eq!(json["file"], "k.toml");
    insta::assert_json_snapshot!(json["settings"].as_array().unwrap()[..6], @r#"
    [
      {
        "from": "k.toml:1",
        "key": "role",
        "value": "family"
      },
      {
        "from": "preset of role 'family'",
        "key": "power",
        "value": "normal"
      },
      {
        "from": "preset of role 'family'",
        "key": "memory",
        "value": "off"
      },
      {
        "from": "--network",
        "key": "network",
        "value": "smith"
      },
      {
        "from": "preset of role 'family'",
        "key": "listen",
        "value": [
          "/ip4/0.0.0.0/tcp/4001",
          "/ip4/0.0.0.0/udp/4001/quic-v1",
          "/ip6/::/tcp/4001",
          "/ip6/::/udp/4001/quic-v1"
        ]
      },
      {
        "from": "k.toml:2",
        "key": "mdns",
        "value": false
      }
    ]
    "#);

    fs::write(&file, shown.out).unwrap();
    assert_eq!(home.run("config check k.toml").code, 0, "what is shown is a settings file");
    fs::write(&file, "mdns = maybe").unwrap();
    let ran = home.ran(home.command(["config", "check", "k.toml"]).env("KINFOLK_NONSENSE", "1").output().unwrap());
    insta::assert_snapshot!(ran.seen(), @"
    exit 2
    on the error stream:
    error: k.toml:1: not TOML: string values must be quoted, expected literal string
    ");
}

#[test]
fn completions_are_there_for_the_shells() {
    let home = Home::new();
    for (shell, sign) in
        [("bash", "complete -F _kinfolk"), ("zsh", "#compdef kinfolk"), ("fish", "complete -c kinfolk")]
    {
        let ran = home.run(&format!("completions {shell}"));
        assert_eq!(ran.code, 0);
        assert!(ran.out.contains(sign) && ran.out.contains("bootstrap"), "{shell}: {}", ran.out);
    }
    assert_eq!(home.run("completions tcsh").code, 2);
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let home = Home::new();
    for line in ["config show", "completions bash", "--help"] {
        let mut child = home.command(line.split(' ')).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!((child.wait().unwrap().code(), said.as_str()), (Some(0), ""), "{line}");
    }
}
