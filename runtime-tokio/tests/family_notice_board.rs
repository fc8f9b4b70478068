//! The example: two of the family and their notices.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// A board in a process of its own, on this machine only; killed when dropped.
struct Board {
    child: Child,
    lines: Box<dyn Iterator<Item = String>>,
}

impl Board {
    fn start(folder: &Path, more: &[&str]) -> Self {
        let mut command = Command::new(example());
        command.arg(folder).args(more).env_clear().env("HOME", folder);
        command.env("KINFOLK_LISTEN", "/ip4/127.0.0.1/tcp/0").env("KINFOLK_MDNS", "off");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        Self { child, lines: Box::new(lines) }
    }

    /// The rest of the next line that begins so.
    fn shows(&mut self, beginning: &str) -> String {
        self.lines.find_map(|line| line.strip_prefix(beginning).map(str::to_owned)).unwrap()
    }

    fn types(&mut self, line: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{line}").unwrap();
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Cargo names the program's path to tests, but not the examples'.
fn example() -> PathBuf {
    let path =
        std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().join("examples/family_notice_board");
    assert!(path.exists(), "{} is not built; `cargo build -p kinfolk --examples` builds it", path.display());
    path
}

#[test]
fn a_notice_is_there_for_those_who_come_later() {
    let folder = || tempfile::Builder::new().prefix("k").tempdir_in("/tmp").unwrap();
    let (of_ada, of_bob) = (folder(), folder());
    let mut ada = Board::start(of_ada.path(), &[]);
    let address = ada.shows("* you are at ");
    let short = address[address.len() - 8..].to_owned();
    ada.types("The cat is back \x1b[2J");
    assert_eq!(ada.shows(&format!("…{short}: ")), "The cat is back \u{fffd}[2J");

    let mut bob = Board::start(of_bob.path(), &[&address]);
    assert_eq!(bob.shows(&format!("…{short}: ")), "The cat is back \u{fffd}[2J", "nobody's words move the cursor");
    drop(ada);
    // Nobody else is needed to look at it.
    drop(bob);
    let mut bob = Board::start(of_bob.path(), &[]);
    assert_eq!(bob.shows(&format!("…{short}: ")), "The cat is back \u{fffd}[2J");
    drop(bob.child.stdin.take());
    assert!(bob.child.wait().unwrap().success());
}
