//! Whose turn it is to be pinged, and when.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
    time::{Duration, Instant},
};

/// So many share a turn: more would be a burst.
const TOGETHER: usize = 32;

/// A turn may come earlier by this part of its interval, if another one is then: so all connections come to share three
/// turns or fewer.
const EARLIER: u32 = 4;

/// How often a connection is pinged. The first ping is at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Pace {
    /// The second one, which proves it, after this.
    pub(super) second: Duration,
    /// Each further one after this.
    pub(super) later: Duration,
}

/// See the module.
pub(super) struct Turns<C, P> {
    timeout: Duration,
    all: HashMap<C, One<P>>,
    /// Also of connections that are gone since.
    turns: BTreeMap<Instant, Vec<C>>,
}

struct One<P> {
    peer: P,
    pace: Pace,
    turn: Instant,
    /// A ping without an answer is under way since then.
    asked: Option<Instant>,
    /// In a row.
    failures: u32,
}

/// A connection is to be pinged.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Turn<C, P> {
    pub(super) id: C,
    pub(super) peer: P,
    /// The last ping had no answer in time, and that is to be told.
    pub(super) failed: bool,
}

impl<C: Copy + Eq + Hash, P: Copy> Turns<C, P> {
    /// A ping without an answer fails at the first turn after `timeout`.
    pub(super) fn new(timeout: Duration) -> Self {
        Self { timeout, all: HashMap::new(), turns: BTreeMap::new() }
    }

    /// A new connection, which pings by itself now.
    pub(super) fn add(&mut self, now: Instant, id: C, peer: P, pace: Pace) {
        let turn = self.share(now, id, pace.second);
        self.all.insert(id, One { peer, pace, turn, asked: Some(now), failures: 0 });
    }

    pub(super) fn remove(&mut self, id: &C) {
        self.all.remove(id);
    }

    /// The answer, or something that went wrong. Whether to tell: the first failure is forgiven, for those who take one
    /// ping on a stream.
    pub(super) fn ended(&mut self, id: &C, well: bool) -> bool {
        let Some(one) = self.all.get_mut(id) else { return false };
        one.asked = None;
        one.failures = if well { 0 } else { one.failures.saturating_add(1) };
        one.failures != 1
    }

    /// The next turn. It may turn out to be nobody's.
    pub(super) fn next(&self) -> Option<Instant> {
        self.turns.first_key_value().map(|(at, _)| *at)
    }

    /// Those whose turn has come: they are pinged now.
    pub(super) fn take(&mut self, now: Instant) -> Vec<Turn<C, P>> {
        let mut taken = vec![];
        while let Some(first) = self.turns.first_entry().filter(|first| *first.key() <= now) {
            let (at, ids) = first.remove_entry();
            for id in ids {
                let Some(one) = self.all.get_mut(&id).filter(|one| one.turn == at) else { continue };
                let mut failed = false;
                if let Some(asked) = one.asked {
                    let until = asked + self.timeout;
                    if now < until {
                        one.turn = until.min(now + one.pace.later);
                        self.turns.entry(one.turn).or_default().push(id);
                        continue;
                    }
                    one.failures = one.failures.saturating_add(1);
                    failed = one.failures > 1;
                }
                one.asked = Some(now);
                let (peer, later) = (one.peer, one.pace.later);
                let turn = self.share(now, id, later);
                if let Some(one) = self.all.get_mut(&id) {
                    one.turn = turn;
                }
                taken.push(Turn { id, peer, failed });
            }
        }
        taken
    }

    /// A turn after `interval`, or a little earlier together with others.
    fn share(&mut self, now: Instant, id: C, interval: Duration) -> Instant {
        let latest = now + interval;
        let mut near = self.turns.range(latest - interval / EARLIER..=latest).rev();
        let turn = near.find(|(_, ids)| ids.len() < TOGETHER).map_or(latest, |(at, _)| *at);
        self.turns.entry(turn).or_default().push(id);
        turn
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const PACE: Pace = Pace { second: Duration::from_secs(15), later: Duration::from_secs(24) };

    fn turns() -> Turns<u32, ()> {
        Turns::new(15 * SECOND)
    }

    fn ids(taken: &[Turn<u32, ()>]) -> Vec<u32> {
        taken.iter().map(|turn| turn.id).collect()
    }

    #[test]
    fn each_is_pinged_in_its_interval_and_all_share_few_turns() {
        let (mut turns, start) = (turns(), Instant::now());
        let mut last: HashMap<u32, Instant> = HashMap::new();
        for id in 0..20 {
            let at = start + SECOND * (id * 7 % 19);
            turns.add(at, id, (), PACE);
            assert!(turns.ended(&id, true));
            last.insert(id, at);
        }
        let mut recent = BTreeSet::new();
        while let Some(now) = turns.next().filter(|at| *at < start + 600 * SECOND) {
            for turn in turns.take(now) {
                assert!(!turn.failed);
                let gap = now - last.insert(turn.id, now).unwrap();
                assert!(gap >= PACE.second * 3 / 4 && gap <= PACE.later, "{gap:?}");
                assert!(turns.ended(&turn.id, true));
                if now >= start + 576 * SECOND {
                    recent.insert(now);
                }
            }
        }
        assert!(last.values().all(|at| *at >= start + 576 * SECOND), "nobody is forgotten");
        assert!(recent.len() <= 3, "{} turns in an interval", recent.len());
    }

    #[test]
    fn a_cut_line_shows_at_the_second_ping_without_an_answer() {
        let (mut turns, start) = (turns(), Instant::now());
        turns.add(start, 1, (), PACE);
        assert!(turns.ended(&1, true));
        let failed = |taken: Vec<Turn<u32, ()>>| taken.into_iter().map(|turn| turn.failed).collect::<Vec<_>>();
        assert_eq!(failed(turns.take(start + 14 * SECOND)), [false; 0]);
        assert_eq!(failed(turns.take(start + 15 * SECOND)), [false]);
        assert_eq!(failed(turns.take(start + 39 * SECOND)), [false], "forgiven, and asked again at once");
        assert_eq!(failed(turns.take(start + 63 * SECOND)), [true]);
        assert!(turns.ended(&1, true));
        assert_eq!(failed(turns.take(start + 87 * SECOND)), [false]);
        assert_eq!(failed(turns.take(start + 111 * SECOND)), [false], "forgiven anew after an answer");
    }

    #[test]
    fn an_answer_has_its_time_also_where_turns_come_sooner() {
        let (mut turns, start) = (turns(), Instant::now());
        turns.add(start, 1, (), Pace { second: SECOND, later: SECOND });
        for second in 1..5 {
            assert_eq!(ids(&turns.take(start + second * SECOND)), [0; 0]);
        }
        assert!(turns.ended(&1, true));
        assert_eq!(ids(&turns.take(start + 5 * SECOND)), [1], "the answer was late, the next ping is not");
        for second in 6..20 {
            assert_eq!(ids(&turns.take(start + second * SECOND)), [0; 0]);
        }
        assert_eq!(ids(&turns.take(start + 20 * SECOND)), [1], "given up after 15 s");
    }

    #[test]
    fn failures_are_told_from_the_second_on() {
        let mut turns = turns();
        turns.add(Instant::now(), 1, (), PACE);
        assert!(!turns.ended(&1, false));
        assert!(turns.ended(&1, false));
        assert!(turns.ended(&1, true));
        assert!(!turns.ended(&1, false), "forgiven anew after an answer");
    }

    #[test]
    fn a_turn_has_room_for_so_many() {
        let (mut turns, start) = (turns(), Instant::now());
        for id in 0..TOGETHER as u32 + 8 {
            turns.add(start + SECOND * (id / TOGETHER as u32), id, (), PACE);
            turns.ended(&id, true);
        }
        assert_eq!(turns.take(start + PACE.second).len(), TOGETHER);
        assert_eq!(turns.take(start + PACE.second + SECOND).len(), 8);
    }

    #[test]
    fn those_that_are_gone_have_no_turn() {
        let (mut turns, start) = (turns(), Instant::now());
        turns.add(start, 1, (), PACE);
        turns.add(start, 2, (), PACE);
        turns.remove(&1);
        assert!(!turns.ended(&1, true), "too late");
        turns.ended(&2, true);
        assert_eq!(ids(&turns.take(start + PACE.second)), [2]);
    }
}
