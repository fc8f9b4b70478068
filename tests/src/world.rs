use std::{
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use patchbay::Lab;
use tempfile::TempDir;
use tokio::process::Command;

use crate::{Device, Node, NodeBuilder, Side, Site, program, side};

/// An internet of a test's own. Everything in it ends with it.
#[derive(Debug)]
pub struct World {
    lab: LabBox,
    folder: TempDir,
    nodes: Mutex<Vec<Node>>,
    reported: AtomicBool,
}

/// `Lab` has no `Debug`.
struct LabBox(Lab);

impl std::fmt::Debug for LabBox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.prefix())
    }
}

impl World {
    /// An empty one.
    ///
    /// # Panics
    /// If this machine can't have network namespaces, or lacks the programs that make them.
    pub async fn new() -> Self {
        let lab = Lab::new().await.unwrap_or_else(|error| {
            panic!("no network namespaces here: {error:#}; `./scripts/test.sh` says what is missing")
        });
        Site::pin_exchange(&lab);
        // Sockets' paths are at most 107 bytes long, so the folder's is short.
        let folder = tempfile::Builder::new().prefix("kf").tempdir().expect("a temporary folder");
        Self { lab: LabBox(lab), folder, nodes: Mutex::default(), reported: AtomicBool::new(false) }
    }

    /// A network of public addresses, `45.10.NUMBER.0/24` and `2a0e:b107:NUMBER::/64`, with no NAT and no firewall.
    pub async fn public(&self, name: &str, number: u8) -> Site {
        Site::public(&self.lab.0, name, number).await
    }

    /// A home behind a port-restricted NAT, a customer of that provider.
    pub async fn home(&self, name: &str, provider: &Site) -> Site {
        side::home(&self.lab.0, name, provider).await
    }

    /// A network of that kind, with a provider of its own that has `45.10.NUMBER.0/24`. IPv4 only, but for public ones.
    pub async fn side(&self, name: &str, side: Side, number: u8) -> Site {
        let provider = self.public(&format!("{name}-isp"), number).await;
        side.build(&self.lab.0, name, provider, number).await
    }

    /// The name server that all devices ask. `names` are hosts with their addresses.
    pub fn name_server(&self) -> patchbay::DnsServer {
        self.lab.0.dns_server().expect("a name server")
    }

    /// A node that runs in a device.
    pub fn node(&self, name: &str, device: &Device) -> NodeBuilder {
        let builder = NodeBuilder::new(name, device, self.folder.path().join(name));
        self.nodes.lock().expect("no panic under the lock").push(builder.node());
        builder
    }

    /// Waits until a condition holds, and gives what it found.
    ///
    /// # Panics
    /// If it does not hold in time; with everything that there is to know about every node.
    pub async fn eventually<T>(&self, what: &str, within: Duration, condition: impl AsyncFn() -> Option<T>) -> T {
        self.eventually_or(within, condition, async || what.to_owned()).await
    }

    /// The same, where what is wrong is known only when it is.
    ///
    /// # Panics
    /// If it does not hold in time; with everything that there is to know about every node.
    pub async fn eventually_or<T>(
        &self,
        within: Duration,
        condition: impl AsyncFn() -> Option<T>,
        what: impl AsyncFn() -> String,
    ) -> T {
        let start = Instant::now();
        loop {
            if let Some(found) = condition().await {
                return found;
            }
            if start.elapsed() > within {
                let (what, report) = (what().await, self.report().await);
                panic!("not within {within:?}: {what}\n{report}");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until each of these nodes is connected with each other one, and all have introduced themselves.
    ///
    /// # Panics
    /// If they are not in time.
    pub async fn all_connected(&self, nodes: &[&Node], within: Duration) {
        let names: Vec<&str> = nodes.iter().map(|node| node.name()).collect();
        let what = format!("{names:?} are connected with each other");
        let met = async || {
            for node in nodes {
                let peers = node.peers().await;
                for other in nodes.iter().filter(|other| other.name() != node.name()) {
                    let id = other.peer_id();
                    peers.iter().find(|peer| peer.peer == id && peer.path.is_some() && peer.agent.is_some())?;
                }
            }
            Some(())
        };
        self.eventually(&what, within, met).await;
    }

    /// Makes sure that a condition goes on holding for a time.
    ///
    /// # Panics
    /// As soon as it does not; with everything that there is to know about every node.
    pub async fn always(&self, what: &str, during: Duration, condition: impl AsyncFn() -> bool) {
        let start = Instant::now();
        while start.elapsed() < during {
            if !condition().await {
                let report = self.report().await;
                panic!("no longer, after {:?}: {what}\n{report}", start.elapsed());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Ends the test: every node that runs gives its trace, which is replayed, and is stopped in order.
    ///
    /// # Panics
    /// If a trace does not give the same commands again to the bit, has gaps, or a node does not end with exit code 0.
    pub async fn finish(self) {
        self.finish_with_golden(&[]).await;
    }

    /// The same; with `KINFOLK_BLESS=1` in the environment, the traces of these nodes, redacted, become golden ones
    /// under these names.
    ///
    /// # Panics
    /// As `finish`.
    pub async fn finish_with_golden(self, golden: &[(&Node, &str)]) {
        let nodes = self.nodes.lock().expect("no panic under the lock").clone();
        for node in nodes.iter().filter(|node| node.runs()) {
            let file = node.export().await;
            replay(node.name(), &file).await;
            if std::env::var_os("KINFOLK_BLESS").is_some_and(|bless| bless == "1") {
                for (_, name) in golden.iter().filter(|(chosen, _)| chosen.name() == node.name()) {
                    make_golden(&file, name).await;
                }
            }
            node.stop().await;
        }
    }

    /// All that can be said about all nodes.
    pub async fn report(&self) -> String {
        self.reported.store(true, Ordering::Relaxed);
        let nodes = self.nodes.lock().expect("no panic under the lock").clone();
        let mut text = String::new();
        for node in nodes {
            text += &node.report().await;
        }
        text
    }
}

impl Drop for World {
    /// A test that failed says what its nodes said, unless it has done so. `KINFOLK_KEEP=1` keeps their folders.
    #[expect(clippy::print_stderr, reason = "the runner shows it with the failed test")]
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        if std::env::var_os("KINFOLK_KEEP").is_some() {
            self.folder.disable_cleanup(true);
            eprintln!("the nodes' folders are kept in {}", self.folder.path().display());
        }
        if !self.reported.load(Ordering::Relaxed) {
            for node in self.nodes.lock().iter().flat_map(|nodes| nodes.iter()) {
                eprintln!("{}", node.said());
            }
        }
    }
}

async fn replay(name: &str, file: &Path) {
    if let Err(difference) = sim(&["replay"], file).await {
        panic!("{name}: the trace {} does not replay\n{difference}", file.display());
    }
}

async fn make_golden(file: &Path, name: &str) {
    let golden: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("traces").join(format!("{name}.jsonl"));
    let mut command = Command::new(program("kinfolk-sim"));
    command.args(["trace", "redact"]).arg(file).arg(&golden).stdin(Stdio::null());
    let output = command.output().await.expect("a program that can be started");
    assert!(output.status.success(), "{}: {}", golden.display(), String::from_utf8_lossy(&output.stderr));
}

async fn sim(arguments: &[&str], file: &Path) -> Result<String, String> {
    let mut command = Command::new(program("kinfolk-sim"));
    command.args(arguments).arg(file).stdin(Stdio::null());
    let output = command.output().await.expect("a program that can be started");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complained = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(said) } else { Err(format!("{said}{complained}")) }
}
