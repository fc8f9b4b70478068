//! What anybody's build must be able to do.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn cargo(arguments: &[&str], flags: Option<&str>) -> String {
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(workspace()).args(arguments).env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
    if let Some(flags) = flags {
        command.env("RUSTFLAGS", flags);
    }
    let output = command.output().unwrap();
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo {arguments:?} with RUSTFLAGS={flags:?}\n{complained}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// `RUSTFLAGS` of the environment replaces whatever flags a project sets, so a build that needs its own breaks here.
#[test]
fn the_core_builds_with_odd_rustflags() {
    let target = tempfile::tempdir().unwrap();
    let target = target.path().to_str().unwrap();
    let build = ["build", "--locked", "--offline", "-p", "kinfolk-core", "--features", "serde", "--target-dir", target];
    cargo(&build, Some("--cfg kinfolk_odd -C debug-assertions=off -C overflow-checks=off"));
}

#[test]
fn no_settings_of_the_workspace_change_how_it_is_built() {
    for file in [".cargo/config.toml", ".cargo/config"] {
        let settings = fs::read_to_string(workspace().join(file)).unwrap_or_default();
        assert!(!settings.contains("rustflags"), "{file} sets flags, which RUSTFLAGS would undo");
    }
}

/// The core has no operating system under it: `no_std`, and so is all that it stands on.
#[test]
fn the_core_needs_no_operating_system() {
    let source = fs::read_to_string(workspace().join("core/src/lib.rs")).unwrap();
    assert!(source.contains("#![no_std]"), "core/src/lib.rs is no longer no_std");
    let source = source.replace("#[cfg(test)]\nextern crate std;", "");
    assert!(!source.contains("extern crate std"), "core/src/lib.rs takes std in again");
    let tree = ["tree", "--locked", "--offline", "-p", "kinfolk-core", "-e", "normal,features", "--features", "serde"];
    let tree = cargo(&tree, None);
    let with_std: Vec<&str> = tree.lines().filter(|line| line.contains("feature \"std\"")).collect();
    assert!(with_std.is_empty(), "dependencies of the core ask for std: {with_std:?}\n{tree}");
}
