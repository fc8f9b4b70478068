//! The program, as a person has it.

#![allow(dead_code, reason = "no test uses all of it")]

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
};

/// It ends when nobody reads what it prints.
pub(crate) struct Node(pub(crate) Child, BufReader<ChildStdout>);

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// With this data folder, in an environment that says nothing to it.
pub(crate) fn program(data: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kinfolk-embedded"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"KINFOLK_")) {
        command.env_remove(name);
    }
    command.env("HOME", data).args(arguments).arg("--data-dir").arg(data).stdin(Stdio::null());
    command
}

/// A node on this machine only.
pub(crate) fn start(data: &Path) -> Node {
    let flags = ["up", "--json", "--listen", "/ip4/127.0.0.1/tcp/0", "--listen", "/ip4/127.0.0.1/udp/0/quic-v1"];
    let mut child = program(data, &flags).stdout(Stdio::piped()).spawn().unwrap();
    let mut printed = BufReader::new(child.stdout.take().unwrap());
    let mut first = String::new();
    printed.read_line(&mut first).unwrap();
    let node = Node(child, printed);
    assert!(first.contains("\"started\"") && first.contains("\"family\""), "{first}");
    node
}

/// What the node on this folder answers.
pub(crate) fn ask(data: &Path, arguments: &[&str]) -> String {
    let output = program(data, arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
