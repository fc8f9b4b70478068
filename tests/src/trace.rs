use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead, BufReader},
    path::Path,
    time::Duration,
};

use kinfolk_core::{
    Action, Command, PeerId, Time,
    trace::{Frame, Header},
};
use serde::de::IgnoredAny;

/// What a node was told and what it commanded, from its own recorder.
#[derive(Debug, Default)]
pub struct Trace {
    /// Inputs with the commands that came of them, oldest first, all runs together.
    pub frames: Vec<Frame>,
    /// Inputs that the recorder lost.
    pub lost: u64,
}

impl Trace {
    /// Reads an uncompressed trace.
    ///
    /// # Panics
    /// At the first line that is none.
    pub fn read(file: &Path) -> Self {
        let open = File::open(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let mut trace = Self::default();
        for (at, line) in BufReader::new(open).lines().enumerate() {
            let line = line.expect("text");
            if line.starts_with("{\"kinfolk_trace\"") {
                let header: Header<IgnoredAny> = read(file, at, &line);
                trace.lost += header.lost;
            } else {
                trace.frames.push(read(file, at, &line));
            }
        }
        trace
    }

    /// All commands with their time, oldest first.
    pub fn commands(&self) -> impl Iterator<Item = (Time, &Command)> {
        self.frames.iter().flat_map(|frame| frame.out.iter().map(|command| (frame.t, command)))
    }

    /// When dials were commanded: the core's own, and those of others that it released.
    pub fn dials(&self) -> Vec<(Time, Option<PeerId>)> {
        let dial = |(at, command): (Time, &Command)| {
            let (Action::Dial { peer, .. } | Action::Release { peer, .. }) = &command.action else { return None };
            Some((at, *peer))
        };
        self.commands().filter_map(dial).collect()
    }

    /// The most dials that were commanded within any span of this length.
    pub fn most_dials_within(&self, span: Duration) -> usize {
        let times: Vec<Time> = self.dials().into_iter().map(|(at, _)| at).collect();
        let mut first = 0;
        let mut most = 0;
        for (last, at) in times.iter().enumerate() {
            while at.since(times[first]) > span {
                first += 1;
            }
            most = most.max(last + 1 - first);
        }
        most
    }

    /// How often each peer was dialled.
    pub fn dials_by_peer(&self) -> BTreeMap<PeerId, usize> {
        let mut counts = BTreeMap::new();
        for peer in self.dials().into_iter().filter_map(|(_, peer)| peer) {
            *counts.entry(peer).or_default() += 1;
        }
        counts
    }
}

fn read<T: serde::de::DeserializeOwned>(file: &Path, at: usize, line: &str) -> T {
    serde_json::from_str(line).unwrap_or_else(|error| {
        let start: String = line.chars().take(200).collect();
        panic!("{}:{}: {error}: {start}", file.display(), at + 1)
    })
}
