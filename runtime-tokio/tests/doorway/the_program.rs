//! `kinfolk doorway`, and a doorway beside a node, as processes.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
};

use serde_json::Value;

struct Program {
    child: Child,
    /// A node ends when nobody reads what it says.
    _said: BufReader<ChildStdout>,
    _home: tempfile::TempDir,
    http: String,
}

fn command(home: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kinfolk"));
    command.args(arguments).env_clear().env("HOME", home).stdin(Stdio::null());
    command
}

fn start(arguments: &[&str], field: &str) -> Program {
    // Short: a socket's path has at most 107 bytes.
    let home = tempfile::Builder::new().prefix("k").tempdir_in("/tmp").unwrap();
    let mut child = command(home.path(), arguments).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    let mut said = BufReader::new(child.stdout.take().unwrap());
    said.read_line(&mut line).unwrap();
    let started: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(started["event"], "started", "{line}");
    let http = started["detail"][field].as_str().unwrap().to_owned();
    Program { child, _said: said, _home: home, http }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn it_serves_until_it_is_told_to_end() {
    let mut program = start(&["doorway", "--json", "--listen", "127.0.0.1:0", "--network", "smith"], "http");
    assert!(get(&program.http, "/health").contains("\"backing\":\"sqlite\""));
    assert!(get(&program.http, "/signal?network=smith").contains("\"total\":0"));
    let sent = Command::new("kill").args(["-TERM", &program.child.id().to_string()]).status();
    assert!(sent.unwrap().success());
    assert_eq!(program.child.wait().unwrap().code(), Some(0));
    assert!(TcpStream::connect(&program.http).is_err());
}

#[test]
fn it_runs_beside_a_node() {
    let node = ["up", "--json", "--listen", "/ip4/127.0.0.1/tcp/0", "--no-mdns", "--network", "smith"];
    let program = start(&[&node[..], &["--set", "doorway.listen=127.0.0.1:0"]].concat(), "doorway");
    assert!(get(&program.http, "/signal?network=smith").contains("\"total\":0"));
}

#[test]
fn what_is_wrong_with_its_settings_is_told() {
    let home = tempfile::tempdir().unwrap();
    let said = |arguments: &[&str]| {
        let output = command(home.path(), &[&["doorway"], arguments].concat()).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, text) = said(&["--redis", "http://x"]);
    assert!(code == 2 && text.contains("doorway.redis: must be such as"), "{text}");
    let (code, text) = said(&["--network", "a/b"]);
    assert!(code == 2 && text.contains("doorway.networks: must each be"), "{text}");
    let (code, text) = said(&["--tokens", "/nowhere"]);
    assert!(code == 2 && text.contains("/nowhere: can't be read"), "{text}");
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap().to_string();
    let (code, text) = said(&["--listen", &taken]);
    assert!(code == 1 && text.contains("setting doorway.listen"), "{text}");
    let shown = command(home.path(), &["config", "show", "--set", "doorway.redis=redis://:secret@10.0.0.1/0"])
        .output()
        .unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("redis://***@10.0.0.1/0") && !shown.contains("secret"), "{shown}");
}
