use std::{collections::BTreeMap, fs, net::Ipv4Addr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{Node, NodeBuilder};

/// Where nodes answer operators, in their own networks.
const OPERATORS: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 9_464);

/// What a node tells operators: samples by name and labels, as written.
#[derive(Clone, Debug)]
pub struct Figures(BTreeMap<String, f64>);

impl Figures {
    /// `kinfolk_peers{state="connected"}`; what is not told is 0.
    pub fn get(&self, series: &str) -> u64 {
        self.0.get(series).copied().unwrap_or_default() as u64
    }

    /// What the shell counts under this name.
    pub fn counted(&self, name: &str) -> u64 {
        self.get(&format!("kinfolk_counter{{name=\"{name}\"}}"))
    }
}

impl NodeBuilder {
    /// It answers operators, and so can be asked for `figures`.
    pub fn with_figures(self) -> Self {
        let (ip, port) = OPERATORS;
        self.set("http.listen", format!("\"{ip}:{port}\""))
    }
}

impl Node {
    /// What it tells operators: at most a second old.
    ///
    /// # Panics
    /// If it was not built `with_figures`.
    pub async fn figures(&self) -> Figures {
        let get = async {
            let mut socket = TcpStream::connect(OPERATORS).await?;
            socket.write_all(b"GET /metrics HTTP/1.1\r\nhost: kinfolk\r\nconnection: close\r\n\r\n").await?;
            let mut answer = String::new();
            socket.read_to_string(&mut answer).await?;
            Ok::<_, std::io::Error>(answer)
        };
        let get = self.device().with(async { timeout(Duration::from_secs(20), get).await });
        let answer = get.await.expect("an answer in time").expect("a node that answers operators");
        let sample = |line: &str| {
            let (series, value) = line.rsplit_once(' ')?;
            Some((series.to_owned(), value.parse().ok()?))
        };
        let samples: BTreeMap<_, _> = answer.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect();
        assert!(samples.contains_key("kinfolk_uptime_seconds"), "{answer}");
        Figures(samples)
    }

    /// Memory that its process has in use (resident set size), in kB.
    ///
    /// # Panics
    /// If it does not run.
    pub fn memory_kb(&self) -> u64 {
        self.in_status("VmRSS:")
    }

    fn in_status(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("a process that runs");
        number(&status, name).unwrap_or_else(|| panic!("no {name} in {status}"))
    }

    /// What its process has cost so far.
    ///
    /// # Panics
    /// If it does not run.
    pub fn usage(&self) -> Usage {
        let pid = self.pid();
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("a process that runs");
        // A thread may end meanwhile.
        let status = tasks.flatten().filter_map(|task| fs::read_to_string(task.path().join("status")).ok());
        let wake_ups = status.filter_map(|status| number(&status, "voluntary_ctxt_switches:")).sum();
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process that runs");
        // After the name, which may hold blanks: the state is the third field, the times are the 14th and 15th, 10 ms each.
        let fields: Vec<&str> = stat.rsplit_once(") ").expect("a name in brackets").1.split(' ').collect();
        let ticks: u64 = fields[11..13].iter().map(|ticks| ticks.parse::<u64>().expect("a number")).sum();
        let own_kb = self.in_status("RssAnon:");
        Usage { memory_kb: self.memory_kb(), own_kb, wake_ups, processor: Duration::from_millis(10 * ticks) }
    }
}

/// What a process has cost.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// Memory in use now, with what of the program and its libraries is loaded.
    pub memory_kb: u64,
    /// What of that is its own: heap and stacks.
    pub own_kb: u64,
    /// How often one of the threads that it has now slept and was woken.
    pub wake_ups: u64,
    /// Time of the processor.
    pub processor: Duration,
}

fn number(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}
