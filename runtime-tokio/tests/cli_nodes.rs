//! Real nodes in processes of their own, and the program asking them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    os::unix::fs::PermissionsExt,
    process::Stdio,
};

use common::{Home, UpNode};
use serde_json::{Value, json};

/// What differs from run to run, put in place of itself.
fn settled(text: &str, nodes: &[(&UpNode, &str)]) -> String {
    let mut text = text.to_owned();
    for (node, name) in nodes {
        text = text.replace(&node.address, &format!("{name}'s address"));
        let bare = node.address.split("/p2p/").next().unwrap();
        text = text.replace(bare, &format!("/{name}'s port")).replace(&node.peer, name);
        text = text.replace(&format!("…{}", &node.peer[node.peer.len() - 8..]), &format!("…{name}"));
    }
    text
}

#[test]
fn two_nodes_meet_and_can_be_asked() {
    let (home_a, home_b) = (Home::new(), Home::new());
    let mut ada = UpNode::start(&home_a, &[]);
    let mut bob = UpNode::start(&home_b, &["--role", "family"]);
    let short = ada.peer[ada.peer.len() - 8..].to_owned();

    assert_eq!(home_a.run("id").out.trim(), ada.peer);
    assert_eq!(home_a.run("id --addresses").out.trim(), ada.address);
    assert_eq!(home_b.run("peers --json").json(), json!({ "peers": [] }));

    let connected = home_b.run(&format!("connect {} --json", ada.address)).json();
    assert_eq!((&connected["result"], &connected["peer"]), (&json!("connected"), &json!(ada.peer)));
    assert_eq!(bob.wait_for("peer_connected")["peer"], ada.peer);
    assert_eq!(bob.wait_for("peer_identified")["detail"]["agent"], kinfolk::AGENT);
    assert_eq!(ada.wait_for("peer_connected")["peer"], bob.peer);

    let peers = home_b.run("peers").out;
    assert!(peers.contains(&format!("…{short}  identified  local TCP")), "{peers}");
    let peer = home_b.run(&format!("peers {short} --json")).json();
    assert_eq!(peer["path"], json!({ "kind": "local", "transport": "tcp", "relay": null }));
    assert_eq!(peer["connections"][0]["direction"], "outbound");
    assert_eq!(peer["addresses"][0]["sources"], json!(["manual"]));
    let status = home_b.run("status --json").json();
    assert_eq!(
        (&status["connected"], &status["role"], &status["health"]),
        (&json!(1), &json!("family"), &json!("connected"))
    );

    let why = home_b.run(&format!("why {short}"));
    assert!(why.out.contains("dial") && why.out.contains("because you asked for it"), "{}", why.seen());
    let entries = home_b.run(&format!("why {short} --json")).json();
    assert!(entries["entries"].as_array().unwrap().len() >= 2, "{entries}");

    for (line, said) in [
        (format!("pin {short}"), format!("…{short} is pinned\n")),
        (format!("pin {short}"), format!("…{short} is pinned (as before)\n")),
        (format!("block {short}"), format!("…{short} is blocked\n")),
    ] {
        let ran = home_b.run(&line);
        assert_eq!((ran.code, ran.out), (0, said), "{line}: {}", ran.err);
    }
    assert_eq!(ada.wait_for("peer_disconnected")["peer"], bob.peer);
    let blocked = home_b.run(&format!("connect {}", ada.address));
    assert_eq!(blocked.code, 4, "{}", blocked.seen());
    assert!(blocked.err.contains("blocked"), "{}", blocked.seen());
    assert_eq!(home_b.run(&format!("allow {short}")).code, 0);
    assert_eq!(ada.wait_for("peer_connected")["peer"], bob.peer, "a pinned peer is not given up");
    assert_eq!(home_b.run(&format!("disconnect {short}")).code, 0);
    assert_eq!(ada.wait_for("peer_disconnected")["peer"], bob.peer);
    assert_eq!(home_b.run(&format!("forget {short}")).code, 0);
}

#[test]
fn the_shapes_of_json_stay() {
    let (home_a, home_b) = (Home::new(), Home::new());
    let ada = UpNode::start(&home_a, &[]);
    let mut bob = UpNode::start(&home_b, &["--bootstrap", &ada.address]);
    bob.wait_for("peer_identified");
    let short = &ada.peer[ada.peer.len() - 8..];
    let mut shapes = serde_json::Map::new();
    for line in ["status", "id", "peers", "why", "bootstrap list", "trace stop", &format!("why {short}")] {
        let mut value = home_b.run(&format!("{line} --json")).json();
        shape(&mut value);
        shapes.insert(line.replace(short, "PEER"), value);
    }
    insta::assert_json_snapshot!(shapes);
}

/// Leaves names and kinds, and takes the values away; of a list, the first. What may or may not be known after a second
/// is said so.
fn shape(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match name.as_str() {
                    "rtt_us" => *value = json!("number or null"),
                    "counters" => *value = json!("numbers by name"),
                    _ => shape(value),
                }
            }
        }
        Value::Array(items) => {
            items.truncate(1);
            items.iter_mut().for_each(shape);
        }
        Value::Number(_) => *value = json!("number"),
        Value::String(_) => *value = json!("text"),
        Value::Bool(_) => *value = json!("truth"),
        Value::Null => {}
    }
}

#[test]
fn bootstrap_peers_come_and_go() {
    let (home_a, home_b) = (Home::new(), Home::new());
    let mut ada = UpNode::start(&home_a, &[]);
    let bob = UpNode::start(&home_b, &[]);
    assert_eq!(home_b.run(&format!("bootstrap add {}", ada.address)).code, 0);
    assert_eq!(ada.wait_for("peer_connected")["peer"], bob.peer);
    let list = home_b.run("bootstrap list");
    insta::assert_snapshot!(settled(&list.seen(), &[(&ada, "Ada")]), @"
    exit 0
    Ada's address: connected, peer …Ada
    ");
    assert_eq!(home_b.run(&format!("bootstrap remove {}", ada.address)).code, 0);
    insta::assert_snapshot!(home_b.run("bootstrap list").seen(), @"
    exit 0
    no bootstrap peers; `kinfolk bootstrap add MULTIADDR` adds one
    ");
    insta::assert_snapshot!(settled(&home_b.run(&format!("bootstrap remove {}", ada.address)).seen(), &[(&ada, "Ada")]), @"
    exit 0
    Ada's address is no bootstrap peer any more (as before)
    ");
}

#[test]
fn what_comes_to_nothing_says_why() {
    let home = Home::new();
    let node = UpNode::start(&home, &[]);
    let seen = |line: String| settled(&home.run(&line).seen(), &[(&node, "Ada")]);
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let refused = seen(format!("connect /ip4/127.0.0.1/tcp/{closed}")).replace(&closed.to_string(), "PORT");
    insta::assert_snapshot!(refused, @"
    exit 4
    on the error stream:
    error: /ip4/127.0.0.1/tcp/PORT: connection refused: nothing listens there
    ");
    insta::assert_snapshot!(seen(format!("connect {}", node.address)), @"
    exit 4
    on the error stream:
    error: that is this node itself
    ");
    insta::assert_snapshot!(seen(format!("block {}", node.peer)), @"
    exit 4
    on the error stream:
    error: that is this node itself
    ");
    let stranger = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";
    insta::assert_snapshot!(seen(format!("peers {stranger}")), @"
    exit 4
    on the error stream:
    error: no peer 12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA is known here
    ");
    insta::assert_snapshot!(seen(format!("why {stranger}")), @"
    exit 4
    on the error stream:
    error: no peer 12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA is known here
    ");
    insta::assert_snapshot!(seen("peers nobody1".to_owned()), @"
    exit 4
    on the error stream:
    error: no peer is known whose id begins or ends with 'nobody1'; `kinfolk peers --long` lists all
    ");
    let export = home.run("trace export /absent/t.jsonl");
    assert_eq!((export.code, export.out.as_str()), (1, ""));
    assert!(export.err.starts_with("error: can't write /absent/t.jsonl: No such file or directory"), "{}", export.err);
}

#[test]
fn a_second_node_on_the_same_folder_is_refused() {
    let home = Home::new();
    let node = UpNode::start(&home, &[]);
    let pid = node.child.id().to_string();
    let second = home.run("up --listen /ip4/127.0.0.1/tcp/0 --no-mdns");
    insta::assert_snapshot!(second.seen().replace(&pid, "PID"), @"
    exit 5
    on the error stream:
    error: ~/.local/share/kinfolk is in use by another node (process PID); stop that one, or choose another folder with --data-dir
    ");
    let second = home.run("--listen /ip4/127.0.0.1/tcp/0 --no-mdns --json");
    insta::assert_snapshot!(second.seen().replace(&pid, "PID"), @r#"
    exit 5
    on the error stream:
    {"error":"node_running","detail":"~/.local/share/kinfolk is in use by another node (process PID); stop that one, or choose another folder with --data-dir","exit":5}
    "#);
    assert_eq!(home.run("id").out.trim(), node.peer, "the first one goes on");
}

#[test]
fn a_node_ends_cleanly_and_comes_back_as_the_same() {
    let home = Home::new();
    let mut first = UpNode::start(&home, &[]);
    for (name, signal) in [("SIGINT", "INT"), ("SIGTERM", "TERM"), ("SIGHUP", "HUP")] {
        first.signal(signal);
        first.wait_for("stopped");
        assert_eq!(first.child.wait().unwrap().code(), Some(0), "{name}");
        assert!(!home.data().join("api.sock").exists(), "{name}");
        assert_eq!(home.run("status").code, 3);
        assert_eq!(home.run("id").out.trim(), first.peer, "read from disk");
        let second = UpNode::start(&home, &[]);
        assert_eq!(second.peer, first.peer);
        first = second;
    }
    let mode = |name: &str| fs::metadata(home.data().join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("identity"), mode("api.sock"), mode("")), (0o600, 0o600, 0o700));
}

#[test]
fn a_signal_that_comes_twice_at_once_is_one() {
    let home = Home::new();
    let mut node = UpNode::start(&home, &[]);
    node.signal("TERM");
    node.signal("TERM");
    node.wait_for("stopped");
    assert_eq!(node.child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_key_that_others_could_read_is_told_of() {
    let home = Home::new();
    drop(UpNode::start(&home, &[]));
    fs::set_permissions(home.data().join("identity"), fs::Permissions::from_mode(0o644)).unwrap();
    let mut node = UpNode::unready(&home, &[]);
    let warning = node.wait_for("warning");
    assert!(warning["text"].as_str().unwrap().contains("was open to other users"), "{warning}");
}

#[test]
fn manual_peers_survive_a_kill() {
    let (home_a, home_b) = (Home::new(), Home::new());
    let mut ada = UpNode::start(&home_a, &[]);
    let bob = UpNode::start(&home_b, &[]);
    assert_eq!(home_b.run(&format!("connect {}", ada.address)).code, 0);
    ada.wait_for("peer_connected");
    drop(bob);
    ada.wait_for("peer_disconnected");
    let again = UpNode::start(&home_b, &[]);
    assert_eq!(ada.wait_for("peer_connected")["peer"], again.peer);
}

#[test]
fn lines_for_people_have_the_time_and_short_names() {
    let home = Home::new();
    let mut child = home
        .command(["--listen", "/ip4/127.0.0.1/tcp/0", "--no-mdns"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let first = lines.next().unwrap();
    assert_eq!(first, format!("{}, network elohim, data in {}", kinfolk::AGENT, home.data().display()));
    let peer = lines.next().unwrap();
    let peer = peer.strip_prefix("peer id ").unwrap().to_owned();
    let listening = lines.find(|line| line.contains("listening on")).unwrap();
    let (time, rest) = listening.split_at(8);
    assert!(
        time.bytes().enumerate().all(|(at, b)| if at % 3 == 2 { b == b':' } else { b.is_ascii_digit() }),
        "{listening}"
    );
    let address = rest.strip_prefix("  listening on ").unwrap();
    assert!(address.starts_with("/ip4/127.0.0.1/tcp/") && address.ends_with(&peer), "{listening}");

    let home_b = Home::new();
    let bob = UpNode::start(&home_b, &["--bootstrap", address]);
    let short = bob.peer[bob.peer.len() - 8..].to_owned();
    let connected = lines.find(|line| line.contains("connected")).unwrap();
    assert!(
        connected[8..].starts_with(&format!("  …{short}  connected over the home network by TCP (inbound")),
        "{connected}"
    );
    drop(bob);
    let lost = lines.find(|line| line.contains("disconnected")).unwrap();
    assert!(lost[8..].starts_with(&format!("  …{short}  disconnected: ")), "{lost}");

    // Nobody reads any more: with the next thing to tell, the node ends, and that is no failure.
    drop(lines);
    let _bob = UpNode::start(&home_b, &["--bootstrap", address]);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(said, "", "no log unless asked for");
}

#[test]
fn the_log_is_there_when_asked_for() {
    let home = Home::new();
    let mut command =
        home.command(["up", "--listen", "/ip4/127.0.0.1/tcp/0", "--no-mdns", "--log", "kinfolk_shell=trace"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let line = BufReader::new(child.stderr.take().unwrap()).lines().next().unwrap().unwrap();
    assert!(line.contains("kinfolk_shell"), "{line}");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn watching_shows_every_change() {
    let (home_a, home_b) = (Home::new(), Home::new());
    let ada = UpNode::start(&home_a, &[]);
    let mut watch =
        home_a.command(["peers", "--watch", "--json"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut pictures = BufReader::new(watch.stdout.take().unwrap())
        .lines()
        .map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
    assert_eq!(pictures.next().unwrap(), json!({ "peers": [] }));
    let bob = UpNode::start(&home_b, &["--bootstrap", &ada.address]);
    let met = pictures.find(|picture| picture["peers"][0]["state"] == "identified").unwrap();
    assert_eq!(met["peers"][0]["peer"], bob.peer);
    drop(ada);
    assert_eq!(pictures.count(), 0, "the watch ends with its node");
    let mut said = String::new();
    watch.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(watch.wait().unwrap().code(), Some(3));
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["error"], "no_node");
}

#[test]
fn a_trace_is_exported_whole() {
    let home = Home::new();
    let _node = UpNode::start(&home, &[]);
    let exported = home.run("trace export t.jsonl --json").json();
    assert_eq!(exported["segments"], 1);
    let text = fs::read_to_string(home.path().join("t.jsonl")).unwrap();
    assert_eq!(text.len() as u64, exported["bytes"].as_u64().unwrap());
    let first: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(first["kinfolk_trace"], 1);
    assert_eq!(home.run("trace export t.jsonl.zst").code, 0);
    assert_eq!(fs::read(home.path().join("t.jsonl.zst")).unwrap()[..4], [0x28, 0xb5, 0x2f, 0xfd]);
    assert!(home.run("trace stop").out.starts_with("not recording"), "it says so");
    assert!(home.run("trace start").out.starts_with("recording"), "it says so");
}

#[test]
fn a_port_that_is_taken_is_no_obstacle() {
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = format!("/ip4/127.0.0.1/tcp/{}", holder.local_addr().unwrap().port());
    let home = Home::new();
    let mut child =
        home.command(["up", "--json", "--no-mdns", "--listen", &taken]).stdout(Stdio::piped()).spawn().unwrap();
    let mut events = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
    let told = events.find(|event| event["event"] == "port_taken").unwrap();
    assert_eq!(told["detail"]["address"], taken);
    let listening = events.find(|event| event["event"] == "listening").unwrap();
    assert_ne!(listening["detail"]["address"], taken);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn settings_of_the_host_take_effect() {
    let home = Home::new();
    let set = ["--set", "trace.record=false", "--set", "api.socket=s", "--network", "smith"];
    let _node = UpNode::start(&home, &set);
    assert_eq!(home.run("status").code, 3, "the socket is elsewhere");
    let mut asked = home.command(["status", "--json"]);
    let status = home.ran(asked.env("KINFOLK_API_SOCKET", home.path().join("s")).output().unwrap()).json();
    assert_eq!((&status["trace"]["recording"], &status["network"]), (&json!(false), &json!("smith")));
}

#[test]
fn a_data_folder_that_cannot_be_used_is_left_as_it_is() {
    let home = Home::new();
    fs::create_dir_all(home.data()).unwrap();
    fs::write(home.data().join("identity"), "not a key").unwrap();
    let ran = home.run("up --listen /ip4/127.0.0.1/tcp/0 --no-mdns");
    assert_eq!((ran.code, ran.out.as_str()), (1, ""));
    assert!(ran.err.starts_with("error: ~/.local/share/kinfolk/identity is damaged"), "{}", ran.err);
    assert_eq!(fs::read(home.data().join("identity")).unwrap(), b"not a key");

    let file = home.path().join("file");
    fs::write(&file, "").unwrap();
    let ran = home.run("up --data-dir file --no-mdns");
    assert_eq!((ran.code, ran.out.as_str()), (1, ""));
    assert!(ran.err.contains("~/file"), "{}", ran.err);

    let ran = home.run(&format!("up --no-mdns --data-dir {}", "long/".repeat(30)));
    assert_eq!((ran.code, ran.out.as_str()), (1, ""));
    assert!(ran.err.contains("longer than 107 bytes"), "{}", ran.err);
}
