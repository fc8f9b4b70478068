//! What a node at rest costs its machine: memory, wake-ups, processor, writes to disk; alone, and with 20 peers by TCP and by
//! QUIC, with each `power`.
//!
//! `cargo bench -p kinfolk-embedded`; `COST_SECONDS` is how long each row is measured (60), `COST_SETTLE` how long it is left
//! alone before (30). Wake-ups are times that one of the process's threads slept and was woken, libp2p's timer included:
//! its own voluntary context switches. The peers are nodes in the process of this benchmark.

#![allow(clippy::unwrap_used, reason = "where there is nothing to unwrap, there are no figures")]
#![allow(clippy::print_stdout, reason = "that is what it is for")]

use std::{
    env, fs,
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use kinfolk_embedded::{NoBehaviour, Node, Running, runtime};

const PROGRAM: &str = env!("CARGO_BIN_EXE_kinfolk-embedded");
const PEERS: usize = 20;

/// What the kernel has counted for a process so far.
#[derive(Clone, Copy)]
struct Counted {
    wake_ups: u64,
    ticks: u64,
    written: u64,
}

fn main() {
    let size = fs::metadata(PROGRAM).unwrap().len();
    println!("program: {:.1} MB", size as f64 / 1e6);
    println!(
        "{:<8} {:<10} {:>8} {:>10} {:>12} {:>12} {:>14}",
        "power", "peers", "threads", "RSS kB", "wake-ups/s", "CPU ms/s", "MB written/day"
    );
    for power in ["normal", "low"] {
        for transport in [None, Some("/tcp/"), Some("/quic-v1")] {
            row(power, transport);
        }
    }
}

fn row(power: &str, transport: Option<&'static str>) {
    let folder = tempfile::tempdir().unwrap();
    let mut node = start(folder.path(), power);
    let runtime = runtime().unwrap();
    let peers = match transport {
        None => vec![],
        Some(transport) => {
            let address = address(folder.path(), transport);
            runtime.block_on(connect(&address))
        }
    };
    runtime.block_on(tokio::time::sleep(seconds("COST_SETTLE", 30)));
    let before = counted(node.id());
    let span = seconds("COST_SECONDS", 60);
    runtime.block_on(tokio::time::sleep(span));
    let after = counted(node.id());
    let per_second = |before: u64, after: u64| (after - before) as f64 / span.as_secs_f64();
    let name = transport
        .map_or_else(|| "0".to_owned(), |transport| format!("{} {}", peers.len(), transport.trim_matches('/')));
    println!(
        "{power:<8} {name:<10} {:>8} {:>10} {:>12.2} {:>12.2} {:>14.1}",
        fs::read_dir(format!("/proc/{}/task", node.id())).unwrap().count(),
        status(&format!("/proc/{}/status", node.id()), "VmRSS:"),
        per_second(before.wake_ups, after.wake_ups),
        // A tick is 10 ms.
        10.0 * per_second(before.ticks, after.ticks),
        86_400.0 * per_second(before.written, after.written) / 1e6,
    );
    for peer in peers {
        runtime.block_on(peer.shutdown());
    }
    node.kill().unwrap();
    node.wait().unwrap();
}

fn seconds(variable: &str, default: u64) -> Duration {
    Duration::from_secs(env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default))
}

fn start(data: &Path, power: &str) -> Child {
    let mut command = Command::new(PROGRAM);
    command.args(["up", "--json", "--listen", "/ip4/127.0.0.1/tcp/0", "--listen", "/ip4/127.0.0.1/udp/0/quic-v1"]);
    command.args(["--set", &format!("power={power}"), "--data-dir"]).arg(data).env("HOME", data);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut printed = BufReader::new(child.stdout.take().unwrap());
    printed.read_line(&mut String::new()).unwrap();
    // Somebody has to read on, until it ends.
    thread::spawn(move || printed.read_to_end(&mut vec![]));
    child
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

async fn connect(address: &str) -> Vec<Running<NoBehaviour>> {
    let mut peers = vec![];
    for _ in 0..PEERS {
        let peer = Node::builder()
            .ephemeral()
            .mdns(false)
            .listen("/ip4/127.0.0.1/tcp/0")
            .listen("/ip4/127.0.0.1/udp/0/quic-v1");
        let peer = peer.start().await.unwrap();
        peer.connect(address.parse().unwrap()).await.unwrap();
        peers.push(peer);
    }
    peers
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
