//! Whatever is asked of them in whatever order: all backings answer alike, and as a plain model says.

use std::{cell::Cell, collections::BTreeMap, net::IpAddr};

use kinfolk::doorway::store::{Ended, FLOOR_KEPT, Memory, Offer, Redis, Room, Services, Sqlite, Store, Taken};
use kinfolk_shell::signal::{key::PeerKey, types::Service};
use proptest::{prelude::*, test_runner::Config};

use crate::harness::RedisServer;

const ROOM: Room = Room { records: 4, per_prefix: 2 };
const START: u64 = 1_800_000_000;

#[derive(Clone, Debug)]
enum Step {
    Put { peer: u8, seq: u64, body: u8, services: u8, lifetime: u64, prefix: u8 },
    End { peer: u8, seq: u64 },
    Look,
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let seq = prop_oneof![0..6_u64, Just(i64::MAX as u64), (1_u64 << 53)..(1 << 53) + 4];
    let put = (0..6_u8, seq.clone(), 0..2_u8, 0..4_u8, 1..40_u64, 0..3_u8).prop_map(
        |(peer, seq, body, services, lifetime, prefix)| Step::Put { peer, seq, body, services, lifetime, prefix },
    );
    prop_oneof![
        6 => put,
        2 => (0..6_u8, seq).prop_map(|(peer, seq)| Step::End { peer, seq }),
        2 => Just(Step::Look),
        2 => (1..30_u64).prop_map(Step::Wait),
    ]
}

/// What is known of a peer: number, body, services, end, where from.
#[derive(Default)]
struct Model(BTreeMap<u8, Known>);

struct Known {
    seq: u64,
    until: u64,
    live: Option<(u8, u8, u64, u8)>,
}

impl Model {
    fn live(&self, now: u64) -> impl Iterator<Item = (u8, (u8, u8, u64, u8))> {
        self.0.iter().filter_map(move |(peer, known)| Some((*peer, known.live.filter(|live| live.2 > now)?)))
    }

    /// Floors that do not fit are forgotten, those first that are due first.
    fn settle(&mut self, now: u64) {
        for known in self.0.values_mut() {
            known.live = known.live.filter(|live| live.2 > now);
        }
        while self.0.values().filter(|known| known.live.is_none()).count() > ROOM.records as usize {
            let floors = self.0.iter().filter(|(_, known)| known.live.is_none());
            let first = floors.min_by_key(|(peer, known)| (known.until, **peer)).map(|(peer, _)| *peer);
            self.0.remove(&first.unwrap());
        }
    }

    fn put(&mut self, now: u64, peer: u8, seq: u64, live: (u8, u8, u64, u8)) -> Taken {
        self.settle(now);
        let before = self.0.get(&peer);
        let alive = before.and_then(|known| known.live);
        match before {
            Some(known) if known.seq == seq && alive.is_some_and(|alive| alive.0 == live.0) => {
                return Taken::Before { expires: alive.unwrap().2 };
            }
            Some(known) if known.seq >= seq => return Taken::Stale { seq: known.seq },
            _ => {}
        }
        if alive.is_none() && self.live(now).count() >= ROOM.records as usize {
            return Taken::Full;
        }
        let there = self.live(now).filter(|(other, known)| *other != peer && known.3 == live.3).count();
        if alive.is_none_or(|alive| alive.3 != live.3) && there >= ROOM.per_prefix as usize {
            return Taken::Crowded;
        }
        self.0.insert(peer, Known { seq, until: live.2 + FLOOR_KEPT.as_secs(), live: Some(live) });
        Taken::Yes
    }

    fn end(&mut self, now: u64, peer: u8, seq: u64) -> Ended {
        self.settle(now);
        let Some(known) = self.0.get_mut(&peer) else { return Ended::Nothing };
        let alive = known.live.is_some();
        if known.seq > seq || (alive && known.seq == seq) {
            return Ended::Stale { seq: known.seq };
        }
        *known = Known { seq, until: now + FLOOR_KEPT.as_secs(), live: None };
        self.settle(now);
        if alive { Ended::Yes } else { Ended::Nothing }
    }
}

async fn hold(store: &dyn Store, network: &str, steps: &[Step]) {
    let (mut model, mut now) = (Model::default(), START);
    for (at, step) in steps.iter().enumerate() {
        match *step {
            Step::Wait(seconds) => now += seconds,
            Step::Put { peer, seq, body, services, lifetime, prefix } => {
                let list = [Service::Relay, Service::Bootstrap];
                let list: Vec<_> = (0..2).filter(|bit| services >> bit & 1 == 1).map(|bit| list[bit]).collect();
                let offer = Offer {
                    network,
                    key: PeerKey([peer; 32]),
                    seq,
                    record: &[body, 0, 255, b'\n'],
                    services: Services::of(&list),
                    expires: now + lifetime,
                    prefix: IpAddr::from([45, 0, prefix, 0]),
                };
                let expected = model.put(now, peer, seq, (body, services, now + lifetime, prefix));
                assert_eq!(store.put(offer, now).await, Ok(expected), "step {at} of {steps:?}");
            }
            Step::End { peer, seq } => {
                let expected = model.end(now, peer, seq);
                assert_eq!(
                    store.end(network, PeerKey([peer; 32]), seq, now).await,
                    Ok(expected),
                    "step {at} of {steps:?}"
                );
            }
            Step::Look => {
                let live: BTreeMap<_, _> = model.live(now).collect();
                assert_eq!(store.total(network, now).await, Ok(live.len() as u64), "step {at} of {steps:?}");
                for peer in 0..6 {
                    let found = store.get(network, PeerKey([peer; 32]), now).await.unwrap();
                    let found = found.map(|kept| (kept.record[0], kept.expires, kept.services.list().len()));
                    let expected = live.get(&peer).map(|live| (live.0, live.2, live.1.count_ones() as usize));
                    assert_eq!(found, expected, "peer {peer} at step {at} of {steps:?}");
                }
                let (sample, total) = store.sample(network, 100, None, now).await.unwrap();
                let mut drawn: Vec<_> = sample.iter().map(|kept| kept.key.0[0]).collect();
                drawn.sort_unstable();
                assert_eq!(
                    (drawn, total),
                    (live.keys().copied().collect(), live.len() as u64),
                    "step {at} of {steps:?}"
                );
                let (relays, _) = store.sample(network, 100, Some(Service::Relay), now).await.unwrap();
                assert_eq!(relays.len(), live.values().filter(|live| live.1 & 1 == 1).count());
                assert_eq!(store.sample(network, 1, None, now).await.unwrap().0.len(), live.len().min(1));
            }
        }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn in_memory_and_on_disk() {
    let (runtime, networks) = (runtime(), ["n".to_owned()]);
    proptest!(Config::with_cases(400), |(steps in prop::collection::vec(step(), 1..60))| {
        runtime.block_on(hold(&Memory::new(&networks, ROOM), "n", &steps));
    });
    proptest!(Config::with_cases(20), |(steps in prop::collection::vec(step(), 1..60))| {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = Sqlite::open(folder.path(), &networks, ROOM, 7_200, START).unwrap();
        runtime.block_on(hold(&store, "n", &steps));
    });
}

#[test]
fn in_redis() {
    let runtime = runtime();
    let server = runtime.block_on(RedisServer::start());
    let store = runtime.block_on(async { Redis::open(&server.url(), ROOM).unwrap() });
    let run = Cell::new(0);
    proptest!(Config::with_cases(150), |(steps in prop::collection::vec(step(), 1..60))| {
        run.set(run.get() + 1);
        runtime.block_on(hold(&store, &format!("n{}", run.get()), &steps));
    });
}

#[test]
fn what_was_on_disk_is_what_was_known() {
    let (runtime, networks) = (runtime(), ["n".to_owned()]);
    proptest!(Config::with_cases(20), |(steps in prop::collection::vec(step(), 1..40), more in prop::collection::vec(step(), 1..20))| {
        let folder = tempfile::tempdir().unwrap();
        let memory = Memory::new(&networks, ROOM);
        let (store, _) = Sqlite::open(folder.path(), &networks, ROOM, 7_200, START).unwrap();
        let now = runtime.block_on(both(&memory, &store, &steps, START));
        runtime.block_on(store.close()).unwrap();
        drop(store);
        let (store, _) = Sqlite::open(folder.path(), &networks, ROOM, 7_200, now).unwrap();
        runtime.block_on(both(&memory, &store, &more, now));
    });
}

/// Both are told the same, and say the same.
async fn both(one: &dyn Store, other: &dyn Store, steps: &[Step], mut now: u64) -> u64 {
    for step in steps {
        match *step {
            Step::Wait(seconds) => now += seconds,
            Step::Put { peer, seq, body, lifetime, prefix, .. } => {
                let offer = Offer {
                    network: "n",
                    key: PeerKey([peer; 32]),
                    seq,
                    record: &[body],
                    services: Services::default(),
                    expires: now + lifetime,
                    prefix: IpAddr::from([45, 0, prefix, 0]),
                };
                assert_eq!(one.put(offer, now).await, other.put(offer, now).await, "{step:?}");
            }
            Step::End { peer, seq } => {
                let key = PeerKey([peer; 32]);
                assert_eq!(one.end("n", key, seq, now).await, other.end("n", key, seq, now).await, "{step:?}");
            }
            Step::Look => assert_eq!(one.total("n", now).await, other.total("n", now).await),
        }
    }
    now
}
