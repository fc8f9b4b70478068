//! systemd hears that the node runs, again and again that it answers, and that it ends.

#![allow(clippy::unwrap_used, reason = "where there is nothing to unwrap, the test has failed")]

mod common;

use std::{
    os::unix::net::UnixDatagram,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use common::program;

#[test]
fn is_told_how_it_goes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let hear = || {
        let mut bytes = [0; 256];
        let length = manager.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    };
    let mut node = program(&folder.path().join("data"), &["up", "--no-mdns", "--listen", "/ip4/127.0.0.1/tcp/0"]);
    node.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "1000000").stdout(Stdio::null());
    let mut node = node.spawn().unwrap();
    assert_eq!(hear(), "READY=1");
    let since = Instant::now();
    for _ in 0..4 {
        assert_eq!(hear(), "WATCHDOG=1");
    }
    assert!(since.elapsed() > Duration::from_secs(1), "twice in the time that it has, not without end");
    assert!(Command::new("kill").arg(node.id().to_string()).status().unwrap().success());
    let last = loop {
        let heard = hear();
        if heard != "WATCHDOG=1" {
            break heard;
        }
    };
    assert_eq!(last, "STOPPING=1");
    assert!(node.wait().unwrap().success());
}
