//! A node in a process of its own, on this machine only.

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader, Lines},
    process::{Child, ChildStdout, Stdio},
};

use serde_json::Value;

use super::Home;

/// `kinfolk up --json` in a home; killed when dropped.
pub(crate) struct UpNode {
    pub(crate) child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    pub(crate) peer: String,
    /// With the peer's id at its end.
    pub(crate) address: String,
}

impl UpNode {
    /// Starts it and waits until it listens.
    pub(crate) fn start(home: &Home, more: &[&str]) -> Self {
        let mut node = Self::unready(home, more);
        node.peer = node.wait_for("started")["detail"]["peer"].as_str().unwrap().to_owned();
        let listening = node.wait_for("listening");
        node.address = format!("{}/p2p/{}", listening["detail"]["address"].as_str().unwrap(), node.peer);
        node
    }

    /// Starts it, and leaves its first lines to the test.
    pub(crate) fn unready(home: &Home, more: &[&str]) -> Self {
        let mut arguments = vec!["up", "--json", "--listen", "/ip4/127.0.0.1/tcp/0", "--no-mdns"];
        arguments.extend(more);
        Self::run(home, &arguments)
    }

    /// Starts it with these arguments alone.
    pub(crate) fn run<S: AsRef<OsStr>>(home: &Home, arguments: &[S]) -> Self {
        let mut child = home.command(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines, peer: String::new(), address: String::new() }
    }

    /// The next line of this kind; those before it are passed over.
    pub(crate) fn wait_for(&mut self, event: &str) -> Value {
        let mut passed = String::new();
        for line in self.lines.by_ref() {
            let line = line.unwrap();
            let value: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
            if value["event"] == event {
                return value;
            }
            passed.push_str(&format!("{line}\n"));
        }
        panic!("no {event} came, but:\n{passed}");
    }

    pub(crate) fn signal(&self, name: &str) {
        let sent = std::process::Command::new("kill").args([format!("-{name}"), self.child.id().to_string()]).status();
        assert!(sent.unwrap().success());
    }
}

impl Drop for UpNode {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
