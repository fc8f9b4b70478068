use std::{
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

/// The path of one of this workspace's programs, as built beside the running test.
///
/// # Panics
/// If it was not built, or its sources are newer than it: a test must not pass on yesterday's program.
pub fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a process knows its program");
    let folder = test.parent().and_then(Path::parent).expect("tests lie in target/PROFILE/deps");
    let path = folder.join(name);
    let built = modified(&path).unwrap_or_else(|| {
        panic!("{} is missing: `cargo build --workspace` makes it, `./scripts/test.sh` does all", path.display())
    });
    if let Some(newer) = newer_source(&folder.join(format!("{name}.d")), built) {
        panic!("{} is older than {}: `cargo build --workspace` first", path.display(), newer.display());
    }
    path
}

/// Cargo writes beside each program which files it was made of: `program: file file …`, blanks escaped.
fn newer_source(list: &Path, built: SystemTime) -> Option<PathBuf> {
    let text = fs::read_to_string(list).ok()?;
    let (_, files) = text.split_once(": ")?;
    files
        .replace("\\ ", "\0")
        .split_whitespace()
        .map(|file| PathBuf::from(file.replace('\0', " ")))
        .find(|file| modified(file).is_some_and(|at| at > built))
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|facts| facts.modified()).ok()
}
