//! Whatever order answers come in, whatever is lost, doubled or made up: what honest peers have is fetched, nothing is
//! skipped, and nothing is fetched for ever.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "tests")]

mod common;

use std::collections::BTreeMap;

use common::{logs::*, *};
use kinfolk_core::{
    Action, CloseCause, CommandId, ConnectionId, Event, LogHead, LogId, Node, PeerId, SyncError, Told, view::State,
};
use proptest::{prelude::*, sample::select};

/// The model: what each peer has, what our store holds, and who answers how.
struct World {
    rig: Rig,
    /// By peer, then log: the position.
    peers: BTreeMap<u64, BTreeMap<u64, u64>>,
    /// Peer 9 lies about its positions.
    liar: bool,
    store: BTreeMap<u64, u64>,
    connections: BTreeMap<u64, ConnectionId>,
    /// Commands that wait for an answer, in the order of their ids.
    open: BTreeMap<CommandId, Action>,
    /// Ranges asked for so far.
    fetches: usize,
    /// Logs under way, by which command and from whom.
    under_way: BTreeMap<LogId, (CommandId, PeerId)>,
}

#[derive(Clone, Debug)]
enum Step {
    /// Answer the n-th open command in a way.
    Answer(usize, Way),
    /// The n-th author's log grows at home.
    Grow(u64, u64),
    Announce(u64),
    Disconnect(u64),
    Connect(u64),
    Pressure(bool),
    Pass(u64),
    /// The node is written down and read again.
    Checkpoint,
}

#[derive(Clone, Copy, Debug)]
enum Way {
    Well,
    /// Only part of it.
    Partly,
    /// And the same answer again.
    Twice,
    /// Never.
    Lost,
    Fails,
}

const LOGS: std::ops::RangeInclusive<u64> = 11..=13;
const PEERS: [u64; 4] = [1, 2, 3, 9];

impl World {
    fn new(liar: bool) -> Self {
        let rig = Rig::with_logs(open_to_all(), &[]);
        let empty = || LOGS.map(|log| (log, 0)).collect::<BTreeMap<_, _>>();
        Self {
            rig,
            peers: PEERS.map(|peer| (peer, empty())).into(),
            liar,
            store: empty(),
            connections: BTreeMap::new(),
            open: BTreeMap::new(),
            fetches: 0,
            under_way: BTreeMap::new(),
        }
    }

    /// Takes what was commanded, and holds it against the rules.
    fn collect(&mut self) {
        for command in self.rig.take() {
            match &command.action {
                Action::SyncFetch { log, since, peer, connection, .. } => {
                    let doubled = self.under_way.insert(*log, (command.id, *peer));
                    assert_eq!(doubled, None, "{log} is fetched twice at once");
                    assert_eq!(*since, self.store[&number(&log.author)], "a range begins where the store ends");
                    assert_eq!(self.connections.get(&number(peer)), Some(connection));
                    self.fetches += 1;
                    self.open.insert(command.id, command.action);
                }
                Action::SyncExchange { .. } | Action::SyncAnnounce { .. } => {
                    self.open.insert(command.id, command.action);
                }
                Action::SyncCancel { sync, .. } => {
                    // A late answer may still come: it stays open.
                    self.under_way.retain(|_, (fetch, _)| fetch != sync);
                }
                _ => {}
            }
        }
        let view = self.rig.node.view().unwrap().sync();
        assert!(view.fetching <= 4 && view.logs.len() <= 16);
        for log in &view.logs {
            assert_eq!(log.position, self.store[&number(&log.log.author)]);
        }
    }

    fn tell(&mut self, event: Event) {
        self.rig.tell(event);
        self.collect();
    }

    fn says(&self, n: u64) -> Vec<LogHead> {
        let lie = |position: u64| if self.liar && n == 9 { position + 1_000 } else { position };
        self.peers[&n].iter().map(|(log_of, position)| log(*log_of, lie(*position))).collect()
    }

    fn answer(&mut self, nth: usize, way: Way) {
        let Some((&id, action)) = self.open.iter().nth(nth % self.open.len().max(1)) else { return };
        let action = action.clone();
        match way {
            Way::Lost => return drop(self.open.remove(&id)),
            Way::Twice => {}
            Way::Well | Way::Partly | Way::Fails => drop(self.open.remove(&id)),
        }
        match action {
            Action::SyncExchange { peer, connection } => {
                let told = Told::Heads(self.says(number(&peer)));
                if let Way::Fails = way {
                    return self.tell(Event::SyncFailed { sync: id, error: SyncError::Busy });
                }
                self.tell(Event::SyncTold { peer, connection, sync: Some(id), told, last: true });
            }
            Action::SyncAnnounce { peer, connection, heads } => {
                let they = self.peers.get_mut(&number(&peer)).unwrap();
                for head in heads {
                    // It fetches at once.
                    let position = they.get_mut(&number(&head.log.author)).unwrap();
                    *position = head.head.position.max(*position);
                }
                let told = Told::Heads(self.says(number(&peer)));
                self.tell(Event::SyncTold { peer, connection, sync: Some(id), told, last: true });
            }
            Action::SyncFetch { peer, log, since, limit, .. } => {
                self.under_way.retain(|_, (fetch, _)| *fetch != id);
                let theirs = self.peers[&number(&peer)][&number(&log.author)];
                let store = self.store.get_mut(&number(&log.author)).unwrap();
                let upto = theirs.min(since + u64::from(limit));
                let upto = if let Way::Partly = way { since + (upto.saturating_sub(since)).div_ceil(2) } else { upto };
                if let Way::Fails = way {
                    return self.tell(Event::SyncFailed { sync: id, error: SyncError::ConnectionLost });
                }
                assert!(*store >= since, "a gap");
                let entries = u32::try_from(upto.saturating_sub(*store)).unwrap();
                *store = upto.max(*store);
                let head = head(number(&log.author), 0, *store);
                let has_more = upto < theirs || (self.liar && number(&peer) == 9);
                self.tell(Event::SyncFetched { fetch: id, log, head, entries, has_more });
            }
            _ => {}
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Answer(nth, way) => self.answer(nth, way),
            Step::Grow(n, by) => {
                let log = 11 + n % 3;
                let author = PEERS[(n % 3) as usize];
                *self.peers.get_mut(&author).unwrap().get_mut(&log).unwrap() += by;
            }
            Step::Announce(n) => {
                let n = PEERS[(n % 4) as usize];
                if let Some(connection) = self.connections.get(&n) {
                    let (connection, told) = (*connection, Told::Heads(self.says(n)));
                    self.tell(Event::SyncTold { peer: peer(n), connection, sync: None, told, last: true });
                }
            }
            Step::Disconnect(n) => {
                let n = PEERS[(n % 4) as usize];
                if let Some(connection) = self.connections.remove(&n) {
                    let gone = |action: &Action| match action {
                        Action::SyncExchange { peer, .. }
                        | Action::SyncAnnounce { peer, .. }
                        | Action::SyncFetch { peer, .. } => number(peer) == n,
                        _ => false,
                    };
                    let ids: Vec<CommandId> =
                        self.open.iter().filter(|(_, action)| gone(action)).map(|(id, _)| *id).collect();
                    self.under_way.retain(|_, (_, from)| number(from) != n);
                    self.open.retain(|id, _| !ids.contains(id));
                    self.tell(Event::Disconnected { connection, peer: peer(n), cause: CloseCause::Remote });
                }
            }
            Step::Connect(n) => self.connect(PEERS[(n % 4) as usize]),
            Step::Pressure(busy) => self.tell(Event::SyncPressure { busy }),
            Step::Pass(seconds) => self.pass(seconds),
            Step::Checkpoint => {
                let text = serde_json::to_string(&self.rig.node).unwrap();
                self.rig.node = serde_json::from_str::<Node>(&text).unwrap();
            }
        }
    }

    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.rig.live(secs(1));
            self.collect();
        }
    }

    fn connect(&mut self, n: u64) {
        if !self.connections.contains_key(&n) {
            let connection = self.rig.inbound(n, near(n));
            self.connections.insert(n, connection);
            self.rig.identified_as(connection, n, keeper());
            self.collect();
        }
    }

    /// From now on all goes well: is everything that honest peers have here in the end?
    fn heal(&mut self) {
        self.tell(Event::SyncPressure { busy: false });
        for n in PEERS {
            self.connect(n);
        }
        for _ in 0..1_000 {
            self.pass(1);
            for _ in 0..self.open.len() {
                self.answer(0, Way::Well);
            }
            let most = |log: u64| [1, 2, 3].iter().map(|peer| self.peers[peer][&log]).max().unwrap();
            if LOGS.into_iter().all(|log| self.store[&log] >= most(log)) {
                break;
            }
        }
        for log in LOGS {
            let most = [1, 2, 3].iter().map(|peer| self.peers[peer][&log]).max().unwrap();
            assert!(self.store[&log] >= most, "log {log}: {} of {most}", self.store[&log]);
        }
        let before = self.fetches;
        for _ in 0..600 {
            self.pass(1);
            for _ in 0..self.open.len() {
                self.answer(0, Way::Well);
            }
        }
        assert!(
            self.fetches <= before + if self.liar { 30 } else { 0 },
            "{} ranges for nothing",
            self.fetches - before
        );
        for n in [1, 2, 3] {
            assert_eq!(self.rig.state(n), State::Identified);
            assert_eq!((self.rig.sync_view(n).ours, self.rig.sync_view(n).theirs), (0, 0), "peer {n}");
        }
    }
}

fn steps() -> impl Strategy<Value = Step> {
    let ways = || select(vec![Way::Well, Way::Well, Way::Partly, Way::Twice, Way::Lost, Way::Fails]);
    prop_oneof![
        12 => (0..8usize, ways()).prop_map(|(nth, way)| Step::Answer(nth, way)),
        4 => (0..3u64, select(vec![1, 7, 5_000])).prop_map(|(n, by)| Step::Grow(n, by)),
        4 => (0..4u64).prop_map(Step::Announce),
        1 => (0..4u64).prop_map(Step::Disconnect),
        3 => (0..4u64).prop_map(Step::Connect),
        1 => any::<bool>().prop_map(Step::Pressure),
        3 => select(vec![1, 3, 70]).prop_map(Step::Pass),
        1 => Just(Step::Checkpoint),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn in_any_order_of_answers(all in prop::collection::vec(steps(), 1..80), liar: bool) {
        let mut world = World::new(liar);
        for step in &all {
            world.step(step);
        }
        world.heal();
    }
}

#[test]
fn a_restored_checkpoint_goes_on_in_the_same_way() {
    let mut world = World::new(false);
    world.connect(1);
    for step in [Step::Grow(0, 9_000), Step::Announce(0), Step::Grow(1, 3), Step::Announce(1)] {
        world.step(&step);
    }
    let text = serde_json::to_string(&world.rig.node).unwrap();
    let mut copy: Node = serde_json::from_str(&text).unwrap();
    assert_eq!(serde_json::to_string(&copy).unwrap(), text);
    assert_eq!(copy.next_deadline(), world.rig.node.next_deadline());
    let at = copy.next_deadline().unwrap().at;
    copy.handle(at, Event::Wake);
    world.rig.node.handle(at, Event::Wake);
    while let Some(command) = copy.next_command() {
        assert_eq!(Some(command), world.rig.node.next_command());
    }
}
