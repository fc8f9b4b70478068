//! A node in a process of its own, killed in the middle of its work.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]
#![allow(clippy::print_stderr, reason = "that is how the child speaks")]

mod common;

use std::{
    env,
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, Command as Process, Stdio},
};

use common::{FakeWorld, OPEN, SendApp, at, config, peer};
use kinfolk_core::{
    Event, Node, Source,
    trace::{Frame, Header},
};
use kinfolk_shell::{
    driver::Happened,
    node::{Folder, NodeSettings, Place, prepare},
};

const FOLDER: &str = "KINFOLK_TEST_FOLDER";

fn settings(path: &Path) -> NodeSettings {
    let place = Place::Folder(Folder::new(path));
    NodeSettings::new(config().validate().unwrap(), "kinfolk/test", place)
}

/// Works without end, and says how far it is.
#[test]
#[ignore = "it is started, and killed, by the test beside it"]
fn the_node() {
    let folder = env::var(FOLDER).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let prepared = prepare(settings(Path::new(&folder))).unwrap();
        let (world, strings) = FakeWorld::new(SendApp::default());
        let (life, node, _) = prepared.drive(world);
        tokio::spawn(life);
        node.pin(at(peer(1), OPEN)).await.unwrap();
        eprintln!("pinned");
        for round in 0_u32.. {
            for number in 2..100 {
                let addresses = vec![format!("/ip4/45.10.{number}.{}/tcp/4001", round % 200).parse().unwrap()];
                let found = Event::Found { source: Source::Kademlia, peer: peer(number), addresses, cut: 0 };
                strings.happen(Happened::Core(found));
                // Manual, so that it is remembered at once.
                let _ = node.block(peer(number)).await;
                let _ = node.allow(peer(number)).await;
            }
            eprintln!("round {round}");
        }
    });
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It may be dead already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn it_is_killed_in_the_middle_of_its_work() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    for rounds in ["pinned", "round 0", "round 3"] {
        let child = Process::new(env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture", "the_node"])
            .env(FOLDER, &data)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut child = Killed(child);
        let lines = BufReader::new(child.0.stderr.take().unwrap()).lines();
        let last = lines.map(Result::unwrap).find(|line| line == rounds);
        assert_eq!(last.as_deref(), Some(rounds), "the node has died by itself");
        child.0.kill().unwrap();
        child.0.wait().unwrap();

        // Its lock, its socket and its half-written batch are no obstacle.
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let _inside = runtime.enter();
        let prepared = prepare(settings(&data)).unwrap();
        assert_eq!(prepared.warnings, [""; 0], "nothing is damaged");
        let (world, _) = FakeWorld::new(SendApp::default());
        let (life, node, _) = prepared.drive(world);
        runtime.spawn(life);
        futures::executor::block_on(async {
            let pinned = loop {
                if let Some(pinned) = node.peer(peer(1)).await.unwrap() {
                    break pinned;
                }
            };
            assert!(pinned.pinned, "what was answered is kept: {pinned:?}");
            let file = folder.path().join("trace.jsonl");
            node.trace_export(file.clone()).await.unwrap();
            replay(&file);
            node.shutdown().await;
        });
    }
}

fn replay(file: &Path) {
    let mut text = String::new();
    std::fs::File::open(file).unwrap().read_to_string(&mut text).unwrap();
    let (mut node, mut segments, mut inputs) = (Node::new(), 0, 0);
    for line in text.lines() {
        if line.starts_with("{\"kinfolk_trace\"") {
            let header: Header = serde_json::from_str(line).unwrap();
            node = header.checkpoint.map_or_else(Node::new, |checkpoint| *checkpoint);
            segments += 1;
            continue;
        }
        let frame: Frame = serde_json::from_str(line).unwrap();
        node.handle(frame.t, frame.r#in);
        let out: Vec<_> = std::iter::from_fn(|| node.next_command()).collect();
        assert_eq!(out, frame.out);
        inputs += 1;
    }
    assert!(segments >= 1 && inputs >= 1, "{segments} segments, {inputs} inputs");
}
