//! What a node at rest costs its machine: memory, wake-ups, processor, writes to disk; alone, and with 20 peers by TCP and by
//! QUIC, with each `power`, and beside it libp2p alone. And how long it takes from the start of the program to the first
//! connection.
//!
//! `cargo bench -p kinfolk-embedded --profile small`; with words behind it (`-- low quic`) only the rows that have them all.
//! `COST_SECONDS` is how long each row is measured (60), `COST_SETTLE` how long it is left alone before (30). Wake-ups are times that one of the process's threads slept and was woken, libp2p's timer
//! included: its own voluntary context switches. The peers are of the same kind, in the process of this benchmark, and in
//! their usual settings.

#![allow(clippy::unwrap_used, reason = "where there is nothing to unwrap, there are no figures")]
#![allow(clippy::print_stdout, reason = "that is what it is for")]

mod bare;

use std::{
    any::Any,
    env, fs,
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use kinfolk_embedded::{NoBehaviour, Node, NodeBuilder, Running, runtime};
use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};
use tokio::sync::oneshot;

const PROGRAM: &str = env!("CARGO_BIN_EXE_kinfolk-embedded");
const PEERS: usize = 20;

/// The argument with which this program is the bare node.
const BARE: &str = "bare-libp2p";

/// What the kernel has counted for a process so far.
#[derive(Clone, Copy)]
struct Counted {
    wake_ups: u64,
    ticks: u64,
    written: u64,
}

fn main() {
    if env::args().any(|argument| argument == BARE) {
        return runtime().unwrap().block_on(bare::listen()).unwrap();
    }
    let words: Vec<String> = env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    if words.is_empty() {
        start_of_the_program();
    }
    println!(
        "{:<14} {:<10} {:>8} {:>10} {:>10} {:>12} {:>12} {:>14}",
        "node", "peers", "threads", "RSS kB", "own kB", "wake-ups/s", "CPU ms/s", "MB written/day"
    );
    for node in ["libp2p", "normal power", "low power"] {
        for transport in [None, Some("/tcp/"), Some("/quic-v1")] {
            let name = format!("{node} {}", transport.unwrap_or("none"));
            if words.iter().all(|word| name.contains(word)) {
                row(node, transport);
            }
        }
    }
}

fn start_of_the_program() {
    let size = fs::metadata(PROGRAM).unwrap().len();
    println!("program: {:.1} MB", size as f64 / 1e6);
    let mut starts: Vec<u128> = (0..9).map(|_| runtime().unwrap().block_on(first_connection()).as_millis()).collect();
    starts.sort_unstable();
    println!(
        "start to first connection (a known peer on this machine): {} ms ({}–{})",
        starts[4], starts[0], starts[8]
    );
}

fn row(name: &str, transport: Option<&str>) {
    let folder = tempfile::tempdir().unwrap();
    let runtime = runtime().unwrap();
    let _here = runtime.enter();
    let mut peers: Vec<Box<dyn Any>> = vec![];
    let mut node = match name.strip_suffix(" power") {
        Some(power) => {
            let node = start(folder.path(), &["--set", &format!("power={power}")]);
            if let Some(transport) = transport {
                let address = address(folder.path(), transport);
                for _ in 0..PEERS {
                    peers.push(Box::new(runtime.block_on(connect(&address))));
                }
            }
            node
        }
        None => {
            let (node, addresses) = start_bare();
            if let Some(transport) = transport {
                let address: Multiaddr =
                    addresses.iter().find(|address| address.contains(transport)).unwrap().parse().unwrap();
                let id = peer_of(&address);
                for _ in 0..PEERS {
                    let peer: oneshot::Sender<()> = runtime.block_on(bare::peer(address.clone(), id)).unwrap();
                    peers.push(Box::new(peer));
                }
            }
            node
        }
    };
    runtime.block_on(tokio::time::sleep(seconds("COST_SETTLE", 30)));
    let before = counted(node.id());
    let span = seconds("COST_SECONDS", 60);
    runtime.block_on(tokio::time::sleep(span));
    let after = counted(node.id());
    let per_second = |before: u64, after: u64| (after - before) as f64 / span.as_secs_f64();
    let with = transport
        .map_or_else(|| "0".to_owned(), |transport| format!("{} {}", peers.len(), transport.trim_matches('/')));
    let memory = |name| status(&format!("/proc/{}/status", node.id()), name);
    println!(
        "{name:<14} {with:<10} {:>8} {:>10} {:>10} {:>12.2} {:>12.2} {:>14.1}",
        fs::read_dir(format!("/proc/{}/task", node.id())).unwrap().count(),
        memory("VmRSS:"),
        memory("RssAnon:"),
        per_second(before.wake_ups, after.wake_ups),
        // A tick is 10 ms.
        10.0 * per_second(before.ticks, after.ticks),
        86_400.0 * per_second(before.written, after.written) / 1e6,
    );
    drop(peers);
    node.kill().unwrap();
    node.wait().unwrap();
}

/// From the start of the program until it has a connection to a peer that it knows, on an empty folder.
async fn first_connection() -> Duration {
    let folder = tempfile::tempdir().unwrap();
    let known = peer().start().await.unwrap();
    let listens = async || {
        let listening = known.status().await.unwrap().listening;
        let mut listening = listening.iter().map(ToString::to_string);
        listening.find(|address| address.contains("/quic-v1") && !address.contains("/udp/0/"))
    };
    let at = loop {
        match listens().await {
            Some(at) => break format!("{}/p2p/{}", at.split("/p2p/").next().unwrap(), known.peer_id()),
            None => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    };
    let began = Instant::now();
    let mut node = start(folder.path(), &["--bootstrap", &at]);
    while known.status().await.unwrap().connected == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let took = began.elapsed();
    node.kill().unwrap();
    node.wait().unwrap();
    known.shutdown().await;
    took
}

fn seconds(variable: &str, default: u64) -> Duration {
    Duration::from_secs(env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default))
}

fn start(data: &Path, more: &[&str]) -> Child {
    let mut command = Command::new(PROGRAM);
    command.args(["up", "--json", "--listen", "/ip4/127.0.0.1/tcp/0", "--listen", "/ip4/127.0.0.1/udp/0/quic-v1"]);
    command.args(more).arg("--data-dir").arg(data).env("HOME", data);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut printed = BufReader::new(child.stdout.take().unwrap());
    printed.read_line(&mut String::new()).unwrap();
    // Somebody has to read on, until it ends.
    thread::spawn(move || printed.read_to_end(&mut vec![]));
    child
}

/// This program as the bare node, and its addresses, one for each transport.
fn start_bare() -> (Child, [String; 2]) {
    let mut command = Command::new(env::current_exe().unwrap());
    let mut child = command.arg(BARE).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut printed = BufReader::new(child.stdout.take().unwrap()).lines();
    let addresses = [0; 2].map(|_| printed.next().unwrap().unwrap());
    (child, addresses)
}

fn peer_of(address: &Multiaddr) -> PeerId {
    address.iter().find_map(|part| if let Protocol::P2p(peer) = part { Some(peer) } else { None }).unwrap()
}

/// Where others find it by this transport.
fn address(data: &Path, transport: &str) -> String {
    loop {
        let output =
            Command::new(PROGRAM).args(["status", "--json", "--data-dir"]).arg(data).env("HOME", data).output();
        let output = String::from_utf8(output.unwrap().stdout).unwrap();
        let addresses =
            output.split('"').filter(|text| text.starts_with("/ip4/127.0.0.1/") && text.contains(transport));
        if let Some(address) = addresses.max_by_key(|address| !address.ends_with("/0")) {
            let id = Command::new(PROGRAM).args(["id", "--data-dir"]).arg(data).env("HOME", data).output().unwrap();
            let address = address.split("/p2p/").next().unwrap_or(address);
            return format!("{address}/p2p/{}", String::from_utf8(id.stdout).unwrap().trim());
        }
        thread::sleep(Duration::from_millis(100));
    }
}

async fn connect(address: &str) -> Running<NoBehaviour> {
    let peer = peer().start().await.unwrap();
    peer.connect(address.parse().unwrap()).await.unwrap();
    peer
}

fn peer() -> NodeBuilder<NoBehaviour> {
    Node::builder().ephemeral().mdns(false).listen("/ip4/127.0.0.1/tcp/0").listen("/ip4/127.0.0.1/udp/0/quic-v1")
}

fn counted(pid: u32) -> Counted {
    let mut wake_ups = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        wake_ups += status(&format!("{}/status", task.unwrap().path().display()), "voluntary_ctxt_switches:");
    }
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // After the name, which may hold blanks: state is the third field, the times are the 14th and 15th.
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Counted { wake_ups, ticks, written: status(&format!("/proc/{pid}/io"), "write_bytes:") }
}

fn status(file: &str, name: &str) -> u64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.split_whitespace().next()).and_then(|number| number.parse().ok()).unwrap_or_default()
}
