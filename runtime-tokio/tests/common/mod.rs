//! Running the program as a person would, in a home of its own.
#![allow(dead_code, unused_imports, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod node;

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{Arc, Mutex},
    thread,
};

pub(crate) use self::node::UpNode;

/// A home folder, and the program run in it with nothing else in its environment.
pub(crate) struct Home {
    pub(crate) folder: tempfile::TempDir,
}

/// What came of a run.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Home {
    pub(crate) fn new() -> Self {
        // Short: a socket's path has at most 107 bytes.
        Self { folder: tempfile::Builder::new().prefix("k").tempdir_in("/tmp").unwrap() }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.path().join(".local/share/kinfolk")
    }

    pub(crate) fn command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kinfolk"));
        command.args(arguments).env_clear().env("HOME", self.path()).env("TZ", "UTC").current_dir(self.path());
        command.stdin(Stdio::null());
        command
    }

    /// Runs a command line to its end. No argument may hold a space.
    pub(crate) fn run(&self, line: &str) -> Ran {
        self.ran(self.command(line.split_whitespace()).output().unwrap())
    }

    pub(crate) fn ran(&self, output: Output) -> Ran {
        let home = self.path().display().to_string();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().replace(&home, "~");
        Ran { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
    }
}

impl Ran {
    /// What a person sees, for snapshots.
    pub(crate) fn seen(&self) -> String {
        let mut text = format!("exit {}\n", self.code);
        if !self.out.is_empty() {
            text.push_str(&format!("{}\n", self.out.trim_end()));
        }
        if !self.err.is_empty() {
            text.push_str(&format!("on the error stream:\n{}\n", self.err.trim_end()));
        }
        text
    }

    /// The output, which must be JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}", self.seen()))
    }
}

/// A node that is none: answers each request with what it was given, and remembers what was asked.
pub(crate) struct FakeNode {
    asked: Arc<Mutex<Vec<String>>>,
}

impl FakeNode {
    /// Listens on the socket of `home`'s node. `answers`: method and path to status and body.
    pub(crate) fn start(home: &Home, answers: impl Fn(&str) -> (u16, String) + Send + 'static) -> Self {
        std::fs::create_dir_all(home.data()).unwrap();
        let listener = UnixListener::bind(home.data().join("api.sock")).unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        // Ends with the test's process.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                // A client that leaves early is no business of a fake.
                let _ = serve(&stream, &answers, &log);
            }
        });
        Self { asked }
    }

    /// All requests so far, each as `METHOD /path body`.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn serve(
    stream: &UnixStream,
    answers: &impl Fn(&str) -> (u16, String),
    log: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let Some(target) = first.trim_end().strip_suffix(" HTTP/1.1").map(str::to_owned) else { return Ok(()) };
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        if let Some(value) = header.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if header.trim_end().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    log.lock().unwrap().push(format!("{target} {}", String::from_utf8_lossy(&body)).trim_end().to_owned());
    let (status, body) = answers(&target);
    let kind = if status < 400 { "application/json" } else { "application/problem+json" };
    let mut writer = stream;
    write!(
        writer,
        "HTTP/1.1 {status} x\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}
