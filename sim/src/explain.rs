//! What became of a node, or of two, in words and in order: what was told to their cores, what they decided, and why.

use std::{collections::BTreeSet, fmt, sync::atomic::AtomicBool};

use kinfolk_core::PeerId;

use crate::{
    engine::{MILLI, Moment, SECOND},
    internet::{HostId, Reach},
    run::{self, Report},
    scenario::{Plan, Scenario},
    show::{Filter, Links},
    swarm::peer_id,
    words,
};

/// What is to be explained.
#[derive(Clone, Debug)]
pub struct Question {
    /// Which node, by its name in the scenario.
    pub node: String,
    /// With whom.
    pub peer: Option<String>,
    /// Nothing before this.
    pub from: Moment,
    /// Nothing after this.
    pub to: Moment,
    /// Also what is of no consequence: pings, introductions, look-ups.
    pub all: bool,
}

/// One thing that happened.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Line {
    /// When, in nanoseconds since the begin.
    pub at: Moment,
    /// To which node; none: it is the scenario's doing.
    pub node: Option<String>,
    /// What.
    pub text: String,
    /// What came of it.
    pub commands: Vec<String>,
}

/// The answer.
#[derive(Debug)]
pub struct Story {
    /// What all of it comes to.
    pub summary: Vec<String>,
    /// What happened.
    pub lines: Vec<Line>,
    /// What the run came to.
    pub report: Report,
}

/// What a node's story is told by: what changes anything for its user.
const KINDS: [&str; 18] = [
    "started",
    "asked",
    "interfaces",
    "resumed",
    "connected",
    "disconnected",
    "dial_failed",
    "reserved",
    "reservation_ended",
    "circuit_limited",
    "punch_offered",
    "punch_answered",
    "punch_failed",
    "port_mapped",
    "port_unmapped",
    "own_identity_seen",
    "tell",
    "dial",
];
/// What says little between two.
const NOISE: [&str; 6] = ["pinged", "identified", "query_found", "candidate", "remember", "routed"];

/// Runs a scenario once more and tells of one node, or of what is between two.
///
/// # Errors
/// When the scenario has no node of that name; in words.
pub fn explain(scenario: &Scenario, seed: u64, question: &Question, stop: &AtomicBool) -> Result<Story, String> {
    let plan = Plan::new(scenario, seed);
    let find = |name: &str| {
        let names = || {
            let names: Vec<String> = (0..scenario.nodes().min(12) as u32).map(|node| plan.node_name(node)).collect();
            format!("{}{}", names.join(", "), if scenario.nodes() > 12 { ", …" } else { "" })
        };
        plan.node(name).ok_or_else(|| format!("no node is called '{name}'; there are {}", names()))
    };
    let node = find(&question.node)?;
    let peer = question.peer.as_deref().map(find).transpose()?;
    if peer == Some(node) {
        return Err(format!("'{}' is one node, and it takes two", question.node));
    }
    let watched: Vec<HostId> = std::iter::once(node).chain(peer).collect();
    let (report, plan) = run::run_watched(scenario, seed, stop, &watched, &mut |_| {}, u64::MAX);
    let mut lines = vec![];
    for one in &watched {
        let other = if *one == node { peer } else { Some(node) };
        lines.extend(told(&plan, *one, other.map(peer_id), question));
    }
    lines.extend(plan.troubles(&watched).into_iter().map(|(at, text)| Line { at, node: None, text, commands: vec![] }));
    for found in &report.findings {
        let text = format!("found: {}", found.finding);
        lines.push(Line { at: found.finding.at, node: found.name.clone(), text, commands: vec![] });
    }
    lines.retain(|line| (question.from..=question.to).contains(&line.at));
    lines.sort_by_key(|line| line.at);
    let mut names = Names::new(&plan, scenario.nodes() as u32);
    for line in &mut lines {
        names.put(&mut line.text);
        line.commands.iter_mut().for_each(|command| names.put(command));
    }
    Ok(Story { summary: summary(&plan, node, peer), lines, report })
}

/// What one of them was told, and what it commanded.
fn told(plan: &Plan, node: HostId, other: Option<PeerId>, question: &Question) -> Vec<Line> {
    let kinds: BTreeSet<String> =
        if question.all || other.is_some() { BTreeSet::new() } else { KINDS.iter().map(ToString::to_string).collect() };
    let filter = Filter { peer: other, from: None, to: None, kinds };
    let drift = plan.world.machines()[node as usize].setup.drift;
    let mut lines = vec![];
    for life in plan.world.lives(node) {
        let mut links = Links::default();
        for frame in life.recording.frames() {
            let peers = links.peers(frame);
            links.learn(frame);
            let Some(commands) = filter.pick(frame, &peers) else { continue };
            let noise = NOISE.contains(&words::event_kind(&frame.r#in)) && !question.all;
            let commands: Vec<String> = commands
                .into_iter()
                .filter(|command| question.all || !NOISE.contains(&words::command_kind(&command.action)))
                .map(words::command)
                .collect();
            if noise && commands.is_empty() {
                continue;
            }
            let passed = i128::from(frame.t.as_nanos()) * 1_000_000 / (1_000_000 + i128::from(drift));
            let at = life.began.saturating_add(u64::try_from(passed).unwrap_or(u64::MAX));
            let text = words::event(&frame.r#in);
            lines.push(Line { at, node: Some(plan.node_name(node)), text, commands });
        }
    }
    lines
}

fn summary(plan: &Plan, node: HostId, peer: Option<HostId>) -> Vec<String> {
    let name = |node| plan.node_name(node);
    let span = |nanos: u64| words::span(std::time::Duration::from_nanos(nanos));
    let mut said = vec![];
    let Some(peer) = peer else {
        let machine = &plan.world.machines()[node as usize];
        said.push(format!("{} was started {}", name(node), words::count(machine.run.into(), "time", "times")));
        let connected = machine.core.view().map_or(0, |view| view.node().connected);
        if machine.on {
            said.push(format!("at the end it is connected with {}", words::count(connected.into(), "peer", "peers")));
        } else {
            said.push("at the end it does not run".to_owned());
        }
        return said;
    };
    let reach = match plan.world.net().reach(node, peer, true) {
        Reach::Never => "their routers allow no direct connection",
        Reach::Punched => "their routers allow a direct connection through a punched hole",
        Reach::Dialled => "one of them can be dialled by the other",
        Reach::Near => "they share a network",
    };
    said.push(format!("{} and {}: {reach}", name(node), name(peer)));
    let both = (node.min(peer), node.max(peer));
    if let Some(pair) = plan.world.pairs().iter().find(|pair| pair.nodes == both) {
        said.push(match (pair.first, pair.direct) {
            (None, _) => "they have never met".to_owned(),
            (Some(first), None) => format!("they met after {}, and were never direct", span(first)),
            (Some(first), Some(direct)) if direct <= first => format!("they met after {}, directly", span(first)),
            (Some(first), Some(direct)) => {
                format!("they met after {} through a relay, and were direct after {}", span(first), span(direct))
            }
        });
        let relayed = pair.relayed(plan.world.now());
        if relayed > 0 {
            said.push(format!("they were connected through relays only for {} in all", span(relayed)));
        }
    }
    said.push(match plan.world.paths(node, peer) {
        (true, _) => "at the end they are directly connected".to_owned(),
        (false, true) => "at the end they are connected through a relay".to_owned(),
        (false, false) => "at the end they are not connected".to_owned(),
    });
    said
}

/// Names instead of ids.
struct Names(Vec<(String, String)>);

impl Names {
    fn new(plan: &Plan, nodes: u32) -> Self {
        Self((0..nodes).map(|node| (peer_id(node).to_string(), plan.node_name(node))).collect())
    }

    fn put(&mut self, text: &mut String) {
        // All ids begin alike.
        const BEGIN: &str = "12D3KooW";
        if text.contains(BEGIN) {
            for (id, name) in &self.0 {
                if text.contains(id.as_str()) {
                    *text = text.replace(id.as_str(), name);
                }
            }
        }
    }
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wide = self.lines.iter().filter_map(|line| line.node.as_ref().map(String::len)).max().unwrap_or(0);
        for line in &self.lines {
            let (seconds, millis) = (line.at / SECOND, line.at / MILLI % 1_000);
            let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
            let name = line.node.as_deref().unwrap_or("*");
            writeln!(f, "{hours:02}:{minutes:02}:{seconds:02}.{millis:03}  {name:<wide$}  {}", line.text)?;
            for command in &line.commands {
                writeln!(f, "{:>14}{:wide$}  → {command}", "", "")?;
            }
        }
        if !self.lines.is_empty() {
            writeln!(f)?;
        }
        self.summary.iter().try_for_each(|said| writeln!(f, "{said}"))
    }
}
