//! The driver between the real core and a world that does what the test says, on three executors.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]

mod common;

use std::{cell::RefCell, collections::BTreeMap, rc::Rc, time::Duration};

use common::{App, FakeWorld, OPEN, SILENT, SendApp, Strings, at, config, peer, setup};
use futures::{FutureExt, StreamExt, executor::block_on, future::join, stream};
use kinfolk_core::{
    Action, Answer, Ask, AskError, ConnectionId, Event, Node, Notice, PeerAddress, Source, StoredPeer,
    trace::{Frame, Header, SegmentReason},
};
use kinfolk_shell::{
    clock,
    disk::Disk,
    driver::{Driver, Happened, MAX_APP_EVENTS, Setup},
    feed::{Fed, Feed},
    handle::{Handle, MAX_EVENTS, NodeGone, RequestError},
    store::Store,
    trace::{Recorder, TraceLimits},
};

/// Runs a driver and `test` side by side on this thread, until the test is over.
fn run<F: Future<Output = ()>>(setup: Setup, test: impl FnOnce(Handle<App>, Strings, Feed<u32>) -> F) {
    let (world, strings) = FakeWorld::new(App::default());
    let (driver, handle, app_events) = Driver::new(world, setup);
    let test = test(handle.clone(), strings, app_events);
    let guarded = async move {
        test.await;
        handle.shutdown().await;
    };
    let limit = futures_timer::Delay::new(Duration::from_secs(60));
    let both = join(driver.run(), guarded);
    block_on(async {
        futures::select! {
            _ = Box::pin(both).fuse() => {}
            () = limit.fuse() => panic!("the test hangs"),
        }
    });
}

#[test]
fn what_is_asked_is_answered() {
    run(setup(config()), |handle, _, _| async move {
        let answer = handle.connect(at(peer(1), OPEN)).await.unwrap();
        assert!(matches!(answer, Answer::Connected { peer: who, .. } if who == peer(1)), "{answer:?}");
        let refused = handle.connect(at(peer(2), "/ip4/192.0.2.2/tcp/4001")).await;
        let Err(RequestError::Declined(AskError::Failed(text))) = refused else { panic!("{refused:?}") };
        assert!(text.contains("connection refused"), "{text}");
    });
}

#[test]
fn everyone_gets_their_own_answer() {
    run(setup(config()), |handle, _, _| async move {
        let mut long = Box::pin(handle.connect(at(peer(9), SILENT)));
        assert!((&mut long).now_or_never().is_none());
        let short = handle.connect(at(peer(1), OPEN)).await.unwrap();
        assert!(matches!(short, Answer::Connected { peer: who, .. } if who == peer(1)), "{short:?}");
        assert!((&mut long).now_or_never().is_none(), "that was the other's answer");
    });
}

#[test]
fn the_application_tells_of_its_data() {
    run(setup(config()), |handle, strings, _| async move {
        handle.connect(at(peer(1), OPEN)).await.unwrap();
        handle.protect(peer(1)).await.unwrap();
        let unknown = handle.sync(peer(1), Some(41), 2).await;
        assert!(
            matches!(unknown, Err(RequestError::Declined(AskError::Incomplete(_)))),
            "it has not introduced itself: {unknown:?}"
        );
        strings.happen(Happened::Core(Event::Identified {
            connection: ConnectionId(1),
            peer: peer(1),
            identity: Box::default(),
        }));
        while handle.peer(peer(1)).await.unwrap().unwrap().agent.is_none() {}
        handle.sync(peer(1), Some(41), 2).await.unwrap();
        let known = handle.peer(peer(1)).await.unwrap().unwrap();
        assert_eq!((known.sync_position, known.pending_requests), (Some(41), 2));
        handle.unprotect(peer(1)).await.unwrap();
    });
}

#[test]
fn what_is_known_can_be_read() {
    run(setup(config()), |handle, _, _| async move {
        handle.connect(at(peer(1), OPEN)).await.unwrap();
        let snapshot = handle.snapshot().await.unwrap();
        assert_eq!((snapshot.status.connected, snapshot.peers.len()), (1, 1));
        assert_eq!(snapshot.status.agent, "kinfolk/test");
        assert_eq!(handle.status().await.unwrap().peers, 1);
        let known = handle.peer(peer(1)).await.unwrap().unwrap();
        assert_eq!(known, handle.peers().await.unwrap()[0]);
        assert_eq!((known.connections.len(), known.last_seen_s), (1, Some(0)));
        assert_eq!(handle.peer(peer(9)).await.unwrap(), None);
        assert_eq!(handle.config().await.unwrap(), config());

        let why = handle.why(Some(peer(1))).await.unwrap();
        let dialled = why.iter().find(|entry| entry.action.starts_with("dial ")).unwrap();
        assert_eq!(dialled.because, "you asked for it");
        let why = handle.why(None).await.unwrap();
        assert!(why.iter().any(|entry| entry.action.starts_with("listen on")), "{why:?}");
    });
}

#[test]
fn settings_can_be_changed_while_running() {
    run(setup(config()), |handle, _, _| async move {
        let mut changed = config();
        changed.lifecycle.low_water = 5;
        handle.configure(changed.clone().validate().unwrap()).await.unwrap();
        assert_eq!(handle.config().await.unwrap(), changed);
    });
}

#[test]
fn the_cores_deadlines_are_kept_without_spinning() {
    run(setup(config()), |handle, strings, _| async move {
        handle.pin(at(peer(2), "/ip4/192.0.2.2/tcp/4001")).await.unwrap();
        // Nothing happens but the time: the second and third dial are the timer's work.
        strings.until("the third dial", |_| strings.dials() >= 3).await;
        let counters = handle.status().await.unwrap().counters;
        assert!(counters["driver.inputs"] < 60, "{counters:?}");
        assert_eq!(counters["driver.past_deadlines"], 0, "{counters:?}");
    });
}

#[test]
fn a_slow_listener_loses_events_and_is_told_how_many() {
    let mut config = config();
    config.lifecycle.max_peers = 10_000;
    run(setup(config), |handle, strings, _| async move {
        let (mut slow, mut other) = (handle.events(), handle.events());
        let peers = MAX_EVENTS as u32 + 500;
        let reader = async {
            let mut heard = 0;
            while let Some(event) = other.next().await {
                match event {
                    Fed::Item(told) => heard += u32::from(matches!(told.notice, Notice::PeerDiscovered { .. })),
                    Fed::Lost(lost) => panic!("lost {lost}"),
                }
                if heard == peers {
                    break;
                }
            }
        };
        let writer = async {
            for number in 0..peers {
                let addresses = vec![format!("/ip4/45.10.20.1/tcp/{}", 1_000 + number).parse().unwrap()];
                let found = Event::Found { source: Source::Kademlia, peer: peer(number), addresses, cut: 0 };
                strings.happen(Happened::Core(found));
                if number % 100 == 0 {
                    // Reading the status takes its turn among the events, so the reader gets its own.
                    handle.status().await.unwrap();
                }
            }
        };
        join(reader, writer).await;
        let Some(Fed::Lost(lost)) = slow.next().await else { panic!("nothing was lost") };
        assert!(lost >= 500, "{lost}");
        let Some(Fed::Item(told)) = slow.next().await else { panic!("nothing was kept") };
        assert!(told.notice.peer().is_some(), "{told:?}");
        assert!(told.at_unix_ms > 1_600_000_000_000);
    });
}

#[test]
fn the_application_is_reached_and_heard() {
    run(setup(config()), |handle, strings, mut app_events| async move {
        for call in 1..=3 {
            let calls = handle.with_behaviour(|app: &mut App| {
                app.calls.set(app.calls.get() + 1);
                app.calls.get()
            });
            assert_eq!(calls.await, Ok(call));
        }
        strings.happen(Happened::App(7));
        assert_eq!(app_events.next().await, Some(Fed::Item(7)));
        for item in 0..MAX_APP_EVENTS as u32 + 3 {
            strings.happen(Happened::App(item));
        }
        strings.happen(Happened::Core(Event::Found {
            source: Source::Kademlia,
            peer: peer(1),
            addresses: vec!["/ip4/45.10.20.1/tcp/1".parse().unwrap()],
            cut: 0,
        }));
        while handle.peers().await.unwrap().is_empty() {}
        assert_eq!(app_events.next().await, Some(Fed::Lost(3)));
        assert_eq!(app_events.next().await, Some(Fed::Item(3)));
    });
}

#[test]
fn after_the_end_everything_says_so() {
    run(setup(config()), |handle, _, mut app_events| async move {
        let mut events = handle.events();
        handle.shutdown().await;
        while events.next().await.is_some() {}
        assert_eq!(app_events.next().await, None);
        assert_eq!(handle.status().await, Err(NodeGone));
        assert_eq!(handle.with_behaviour(|_| ()).await, Err(NodeGone));
        assert_eq!(handle.ask(Ask::Block(peer(1))).await, Err(RequestError::Gone(NodeGone)));
        assert_eq!(handle.events().next().await, None);
        handle.shutdown().await;
    });
}

#[test]
fn the_driver_ends_when_nobody_holds_it() {
    let (world, _strings) = FakeWorld::new(App::default());
    let (driver, handle, _) = Driver::new(world, setup(config()));
    let mut events = handle.events();
    drop(handle);
    block_on(driver.run());
    block_on(async { while events.next().await.is_some() {} });
}

#[test]
fn a_dropped_driver_leaves_nobody_waiting() {
    let (world, _strings) = FakeWorld::new(App::default());
    let (driver, handle, mut app_events) = Driver::new(world, setup(config()));
    let mut events = handle.events();
    drop(driver);
    block_on(async {
        assert_eq!(events.next().await, None);
        assert_eq!(app_events.next().await, None);
        assert_eq!(handle.status().await, Err(NodeGone));
    });
}

#[test]
fn what_was_said_by_hand_survives() {
    let folder = tempfile::tempdir().unwrap();
    let with_store = || {
        let opened = Store::open(folder.path(), 0, &Disk::default()).unwrap();
        let inputs = stream::iter(opened.remembered.frames()).boxed();
        Setup { store: Some(opened.store), inputs, ..setup(config()) }
    };
    let path = folder.path().to_owned();
    run(with_store(), |handle, _, _| async move {
        handle.pin(at(peer(1), OPEN)).await.unwrap();
        handle.block(peer(2)).await.unwrap();
        handle.pin(PeerAddress { peer: Some(peer(3)), address: None }).await.unwrap();
        handle.forget(peer(3)).await.unwrap();
        // Whoever has the answer may pull the plug: a copy of the folder is what another run would find.
        let copy = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(path).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
        }
        let peers = Store::open(copy.path(), 0, &Disk::default()).unwrap().remembered.peers;
        let find = |who: u32| peers.iter().find(|stored: &&StoredPeer| stored.peer == peer(who));
        assert!(find(1).is_some_and(|stored| stored.pinned), "{peers:?}");
        assert!(find(2).is_some_and(|stored| stored.blocked), "{peers:?}");
        assert!(!find(3).is_some_and(|stored| stored.pinned), "{peers:?}");
    });
    run(with_store(), |handle, strings, _| async move {
        strings.until("a dial of the pinned peer", |_| strings.dials() >= 1).await;
        let peers = handle.peers().await.unwrap();
        assert!(peers.iter().any(|known| known.peer == peer(1) && known.pinned), "{peers:?}");
        assert!(peers.iter().any(|known| known.peer == peer(2) && known.blocked), "{peers:?}");
    });
}

#[test]
fn what_is_recorded_replays_to_the_bit_in_every_segment() {
    let folder = tempfile::tempdir().unwrap();
    let limits = TraceLimits { segment_bytes: 500, segments: 1_000, ..TraceLimits::default() };
    let recorder = Recorder::open(folder.path(), common::LOCAL.parse().unwrap(), limits, &Disk::default()).unwrap();
    let file = folder.path().join("trace.jsonl");
    let exported = file.clone();
    run(Setup { recorder: Some(recorder), ..setup(config()) }, |handle, strings, _| async move {
        for number in 0..40 {
            handle.connect(at(peer(number), OPEN)).await.unwrap();
            handle.trace_export(exported.clone()).await.unwrap();
        }
        handle.pin(at(peer(50), "/ip4/192.0.2.2/tcp/4001")).await.unwrap();
        let dials = strings.dials();
        strings.until("a dial by the timer", |_| strings.dials() > dials).await;
        handle.trace_stop().await.unwrap();
        handle.block(peer(1)).await.unwrap();
        let status = handle.trace_start().await.unwrap();
        assert!(status.recording && status.segments > 2, "{status:?}");
        handle.block(peer(2)).await.unwrap();
        handle.trace_export(exported).await.unwrap();
    });

    let text = std::fs::read_to_string(&file).unwrap();
    let (mut node, mut reasons, mut frames) = (Node::new(), BTreeMap::new(), 0);
    for line in text.lines() {
        if line.starts_with("{\"kinfolk_trace\"") {
            let header: Header = serde_json::from_str(line).unwrap();
            if header.reason == SegmentReason::Rotation {
                let (replayed, kept) = (serde_json::to_value(&node).unwrap(), serde_json::to_value(&header.checkpoint));
                assert_eq!(replayed, kept.unwrap(), "a rotation loses nothing");
            }
            *reasons.entry(header.reason).or_insert(0) += 1;
            node = header.checkpoint.map_or_else(Node::new, |checkpoint| *checkpoint);
        } else {
            let frame: Frame = serde_json::from_str(line).unwrap();
            node.handle(frame.t, frame.r#in);
            let mut out = vec![];
            while let Some(command) = node.next_command() {
                out.push(command);
            }
            assert_eq!(out, frame.out);
            frames += 1;
        }
    }
    assert_eq!((reasons[&SegmentReason::Start], reasons[&SegmentReason::Asked]), (1, 1), "{reasons:?}");
    assert!(reasons[&SegmentReason::Rotation] > 1 && frames > 80, "{reasons:?} {frames}");
}

#[test]
fn a_node_without_a_folder_says_that_it_cannot_record() {
    run(setup(config()), |handle, _, _| async move {
        let error = handle.trace_start().await.unwrap_err().to_string();
        assert!(error.contains("no data folder"), "{error}");
        assert!(!handle.status().await.unwrap().trace.recording);
    });
}

#[test]
fn the_wall_clock_is_told_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let recorder =
        Recorder::open(folder.path(), common::LOCAL.parse().unwrap(), TraceLimits::default(), &Disk::default())
            .unwrap();
    let file = folder.path().join("trace.jsonl");
    let exported = file.clone();
    run(Setup { recorder: Some(recorder), ..setup(config()) }, |handle, _, _| async move {
        while handle.status().await.unwrap().counters["driver.inputs"] < 3 {}
        handle.trace_export(exported).await.unwrap();
    });
    let text = std::fs::read_to_string(file).unwrap();
    let told = text.lines().filter(|line| line.contains("\"wall_clock\"")).count();
    assert_eq!(told, 1, "{text}");
    assert!(clock::unix_secs() > 1_600_000_000);
}

#[test]
fn it_runs_on_smols_single_thread() {
    let executor = Rc::new(smol::LocalExecutor::new());
    let (world, strings) = FakeWorld::new(App::default());
    let (driver, handle, _) = Driver::new(world, setup(config()));
    let driven = executor.spawn(driver.run());
    let done = Rc::new(RefCell::new(false));
    let test = {
        let done = Rc::clone(&done);
        executor.spawn(async move {
            handle.connect(at(peer(1), OPEN)).await.unwrap();
            handle.pin(at(peer(2), "/ip4/192.0.2.2/tcp/4001")).await.unwrap();
            strings.until("a dial by the timer", |_| strings.dials() >= 3).await;
            assert_eq!(handle.with_behaviour(|app: &mut App| app.calls.get()).await, Ok(0));
            handle.shutdown().await;
            *done.borrow_mut() = true;
        })
    };
    smol::block_on(executor.run(async {
        test.await;
        driven.await;
    }));
    assert!(*done.borrow());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_runs_on_tokios_threads() {
    let (world, strings) = FakeWorld::new(SendApp::default());
    let (driver, handle, _) = Driver::new(world, setup(config()));
    let driven = tokio::spawn(driver.run());
    let mut asked = vec![];
    for number in 0..20 {
        let handle = handle.clone();
        asked.push(tokio::spawn(async move {
            handle.with_behaviour(|app: &mut SendApp| app.calls += 1).await.unwrap();
            handle.connect(at(peer(number), OPEN)).await.unwrap()
        }));
    }
    for asked in asked {
        assert!(matches!(asked.await.unwrap(), Answer::Connected { .. }));
    }
    assert_eq!(handle.with_behaviour(|app: &mut SendApp| app.calls).await, Ok(20));
    assert!(strings.commands().iter().any(|command| matches!(command.action, Action::Answer { .. })));
    handle.shutdown().await;
    driven.await.unwrap();
}

#[test]
fn a_caller_who_leaves_is_no_trouble() {
    run(setup(config()), |handle, strings, _| async move {
        assert!(handle.connect(at(peer(2), "/ip4/192.0.2.2/tcp/4001")).now_or_never().is_none());
        assert!(handle.with_behaviour(|_| ()).now_or_never().is_none());
        strings.until("the dial all the same", |_| strings.dials() >= 1).await;
        handle.connect(at(peer(1), OPEN)).await.unwrap();
    });
}
