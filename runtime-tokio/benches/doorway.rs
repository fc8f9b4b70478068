//! How much a doorway answers: `cargo bench -p kinfolk --bench doorway`, with `redis-server` on the path for both backings, and
//! `wrk` for a second opinion about reading.
//!
//! The doorway runs in a process of its own, on one thread; this one asks over kept connections and measures. First
//! 100 000 records are published, each with a signature to check; then reading alone, publishing alone, and nine to one.
//! Beside what came in a second stands what came in a second of the doorway's own CPU time: that is the same on a machine
//! that does other things as well.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement that cannot go on fails, and prints")]

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use kinfolk::doorway::{Doorway, DoorwaySettings, Keep};
use kinfolk_shell::signal::record;
use libp2p::{Multiaddr, PeerId, identity::Keypair};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const CONNECTIONS: usize = 32;
const FOR: Duration = Duration::from_secs(10);

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    match (arguments.next().as_deref(), arguments.next()) {
        (Some("serve"), Some(keep)) => serve(&keep),
        (records, _) => {
            // A number in place of 100 000, for a quick look.
            let records = records.and_then(|number| number.parse().ok()).unwrap_or(100_000);
            let peers: Vec<_> = (0..records).map(|_| Keypair::generate_ed25519()).collect();
            let folder = tempfile::tempdir().unwrap();
            measure("SQLite", &folder.path().display().to_string(), &peers, None);
            with_redis(&peers);
        }
    }
}

/// The doorway's process. Ends with its standard input.
fn serve(keep: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let keep = match keep.split_once("://") {
        Some(_) => Keep::Redis(keep.to_owned()),
        None => Keep::Folder(keep.into()),
    };
    let mut settings = DoorwaySettings::new(([127, 0, 0, 1], 0).into(), vec!["elohim".to_owned()], keep);
    let rules = &mut settings.rules;
    (rules.reads, rules.writes, rules.records, rules.records_per_prefix) = (0, 0, 1_000_000, 1_000_000);
    runtime.block_on(async {
        let doorway = Doorway::open(settings).await.unwrap();
        println!("{}", doorway.address());
        doorway
            .serve(async {
                let _ = tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await;
            })
            .await;
    });
}

struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(keep: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let mut child = command.args(["serve", keep]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { child, address: line.trim().to_owned() }
    }

    /// CPU time that it has used, in all its threads.
    fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().unwrap()).sum();
        // Linux counts hundredths of a second for programs, whatever it does inside.
        Duration::from_millis(ticks * 10)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn with_redis(peers: &[Keypair]) {
    let folder = tempfile::Builder::new().prefix("k").tempdir_in("/tmp").unwrap();
    let socket = folder.path().join("redis.sock");
    let mut command = Command::new("redis-server");
    command.args(["--port", "0", "--save", "", "--unixsocket"]).arg(&socket).arg("--dir").arg(folder.path());
    match command.stdout(Stdio::null()).spawn() {
        Ok(mut child) => {
            while std::os::unix::net::UnixStream::connect(&socket).is_err() {
                std::thread::sleep(Duration::from_millis(10));
            }
            measure("Redis", &format!("redis+unix://{}", socket.display()), peers, Some(child.id()));
            let _ = child.kill();
            let _ = child.wait();
        }
        Err(error) => println!("Redis: not measured, redis-server does not start: {error}"),
    }
}

fn measure(name: &str, keep: &str, peers: &[Keypair], redis: Option<u32>) {
    let server = Server::start(keep);
    let holder = redis.unwrap_or(server.child.id());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let puts = |seq| Arc::new(peers.iter().map(|key| put(key, seq)).collect::<Vec<_>>());
    let gets = Arc::new(peers.iter().map(|key| get(&key.public().to_peer_id())).collect::<Vec<_>>());
    let (first, second, third) = (puts(1), puts(2), puts(3));
    println!("\n{name}, {} records, {CONNECTIONS} connections", peers.len());

    let before = resident(holder);
    let filled = runtime.block_on(load(&server, first, None));
    filled.tell("published (new)");
    let per_record = resident(holder).saturating_sub(before) as f64 / peers.len() as f64;
    println!("  memory per record: {per_record:.0} bytes (resident{})", redis.map_or("", |_| ", of redis-server"));

    let measure = |requests, time| runtime.block_on(load(&server, requests, time));
    measure(Arc::clone(&gets), Some(FOR)).tell("GET");
    with_wrk(&server, peers);
    measure(second, None).tell("PUT (replacing)");
    let mixed = (0..peers.len()).map(|at| if at % 10 == 0 { third[at].clone() } else { gets[at].clone() });
    measure(Arc::new(mixed.collect()), Some(FOR)).tell("90 % GET, 10 % PUT");
}

/// Reading, as wrk sees it.
fn with_wrk(server: &Server, peers: &[Keypair]) {
    let folder = tempfile::tempdir().unwrap();
    let (paths, script) = (folder.path().join("paths"), folder.path().join("script.lua"));
    let lines: String = peers.iter().map(|key| format!("/signal/{}\n", key.public().to_peer_id())).collect();
    std::fs::write(&paths, lines).unwrap();
    let lua = format!(
        "local paths, at = {{}}, 0\n\
         for path in io.lines({:?}) do paths[#paths + 1] = path end\n\
         request = function() at = (at + 7919) % #paths; return wrk.format('GET', paths[at + 1]) end\n",
        paths.display().to_string()
    );
    std::fs::write(&script, lua).unwrap();
    let mut command = Command::new("wrk");
    command.args(["--threads", "1", "--latency", "--connections", &CONNECTIONS.to_string()]);
    command.args(["--duration", &format!("{}s", FOR.as_secs()), "--script"]).arg(&script);
    let before = server.cpu();
    match command.arg(format!("http://{}", server.address)).output() {
        Ok(output) => {
            let (text, cpu) = (String::from_utf8(output.stdout).unwrap(), server.cpu() - before);
            let line = |name| text.lines().find_map(|line| Some(line.trim().strip_prefix(name)?.trim())).unwrap_or("?");
            let asked: f64 =
                text.lines().find_map(|line| line.trim().split_once(" requests in")?.0.parse().ok()).unwrap();
            let per_cpu = asked / cpu.as_secs_f64();
            assert!(!text.contains("Non-2xx"), "{text}");
            println!("  GET, by wrk: {}/s ({per_cpu:.0} per CPU-second), p99 {}", line("Requests/sec:"), line("99%"));
        }
        Err(error) => println!("  GET, by wrk: not measured, wrk does not start: {error}"),
    }
}

/// What a peer behind a NAT publishes: two addresses through relays, and one of its own.
fn put(key: &Keypair, seq: u64) -> Vec<u8> {
    let relay = PeerId::random();
    let addresses: [Multiaddr; 3] = [
        format!("/ip4/45.10.20.1/udp/4001/quic-v1/p2p/{relay}/p2p-circuit").parse().unwrap(),
        format!("/ip6/2a01:4f8:1::1/udp/4001/quic-v1/p2p/{relay}/p2p-circuit").parse().unwrap(),
        "/ip4/46.10.20.1/udp/4001/quic-v1".parse().unwrap(),
    ];
    let record = record::sign(key, seq, &addresses).unwrap();
    let head = format!(
        "PUT /signal/{} HTTP/1.1\r\nhost: x\r\ncontent-type: application/octet-stream\r\ncontent-length: {}\r\n\r\n",
        key.public().to_peer_id(),
        record.len()
    );
    [head.as_bytes(), &record].concat()
}

fn get(peer: &PeerId) -> Vec<u8> {
    format!("GET /signal/{peer} HTTP/1.1\r\nhost: x\r\n\r\n").into_bytes()
}

struct Measured {
    took: Duration,
    /// Of the doorway.
    cpu: Duration,
    times: Vec<Duration>,
}

impl Measured {
    fn tell(&self, what: &str) {
        let at = |part: f64| self.times[((self.times.len() - 1) as f64 * part) as usize].as_micros();
        let rate = |time: Duration| self.times.len() as f64 / time.as_secs_f64();
        println!(
            "  {what}: {:.0}/s ({:.0} per CPU-second), p50 {} µs, p99 {} µs, p99.9 {} µs",
            rate(self.took),
            rate(self.cpu),
            at(0.5),
            at(0.99),
            at(0.999)
        );
    }
}

/// Sends all requests once, or, for a time, again and again in a scattered order.
async fn load(server: &Server, requests: Arc<Vec<Vec<u8>>>, time: Option<Duration>) -> Measured {
    let (next, begun, cpu) = (Arc::new(AtomicUsize::new(0)), Instant::now(), server.cpu());
    let tasks: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let (address, requests, next) = (server.address.clone(), Arc::clone(&requests), Arc::clone(&next));
            tokio::spawn(async move {
                let mut stream = TcpStream::connect(address).await.unwrap();
                stream.set_nodelay(true).unwrap();
                let (mut times, mut buffer) = (Vec::new(), vec![0; 8_192]);
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if time.map_or(at >= requests.len(), |time| begun.elapsed() >= time) {
                        return times;
                    }
                    // 7919 is prime: each is asked for in turn, far from the one before.
                    let at = if time.is_some() { at.wrapping_mul(7_919) % requests.len() } else { at };
                    let asked = Instant::now();
                    stream.write_all(&requests[at]).await.unwrap();
                    answer(&mut stream, &mut buffer).await;
                    times.push(asked.elapsed());
                }
            })
        })
        .collect();
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await.unwrap());
    }
    let took = begun.elapsed();
    times.sort_unstable();
    Measured { took, cpu: server.cpu() - cpu, times }
}

/// Reads one answer, which must be a good one; or, when replaced records are sent again, that they are there.
async fn answer(stream: &mut TcpStream, buffer: &mut [u8]) {
    let mut have = 0;
    loop {
        let read = stream.read(&mut buffer[have..]).await.unwrap();
        assert!(read > 0, "the doorway hung up");
        have += read;
        let Some(end) = buffer[..have].windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = std::str::from_utf8(&buffer[..end]).unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        if have >= end + 4 + length.parse::<usize>().unwrap() {
            return;
        }
    }
}

/// Bytes that the process has in memory.
fn resident(process: u32) -> usize {
    let status = std::fs::read_to_string(Path::new("/proc").join(process.to_string()).join("status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1_024
}
