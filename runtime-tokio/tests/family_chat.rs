//! The example: two of the family chat.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

/// A chat in a process of its own, on this machine only; killed when dropped.
struct Chat {
    child: Child,
    lines: Box<dyn Iterator<Item = String>>,
}

impl Chat {
    fn start(home: &tempfile::TempDir, arguments: &[&str]) -> Self {
        let mut command = Command::new(example());
        command.args(arguments).env_clear().env("HOME", home.path());
        command.env("KINFOLK_LISTEN", "/ip4/127.0.0.1/tcp/0").env("KINFOLK_MDNS", "off");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        Self { child, lines: Box::new(lines) }
    }

    /// The rest of the next line that begins so.
    fn hears(&mut self, beginning: &str) -> String {
        self.lines.find_map(|line| line.strip_prefix(beginning).map(str::to_owned)).unwrap()
    }

    fn types(&mut self, line: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{line}").unwrap();
    }
}

impl Drop for Chat {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Cargo names the program's path to tests, but not the examples'.
fn example() -> PathBuf {
    let path = std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().join("examples/family_chat");
    assert!(path.exists(), "{} is not built; `cargo build -p kinfolk --examples` builds it", path.display());
    path
}

#[test]
fn what_one_types_the_other_sees() {
    let home = tempfile::tempdir().unwrap();
    let mut ada = Chat::start(&home, &[]);
    let address = ada.hears("* you are at ");
    let name_of_ada = address[address.len() - 8..].to_owned();
    let mut bob = Chat::start(&home, &[&address]);
    let address = bob.hears("* you are at ");
    let name_of_bob = address[address.len() - 8..].to_owned();
    assert_eq!(ada.hears(&format!("* …{name_of_bob} is here, ")), "over the home network by TCP");
    assert_eq!(bob.hears(&format!("* …{name_of_ada} is here, ")), "over the home network by TCP");

    bob.types("Hello, Ada \x1b[2J");
    assert_eq!(ada.hears(&format!("…{name_of_bob}: ")), "Hello, Ada \u{fffd}[2J", "nobody's words move the cursor");
    ada.types("Hello, Bob");
    assert_eq!(bob.hears(&format!("…{name_of_ada}: ")), "Hello, Bob");

    drop(bob.child.stdin.take());
    assert!(bob.child.wait().unwrap().success(), "the end of typing is the end of the chat");
    ada.hears(&format!("* …{name_of_bob} has left: "));
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0, "nothing is left behind");
}
