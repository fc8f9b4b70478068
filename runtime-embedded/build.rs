//! Options of the linker for the program as it is packaged.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let is = |variable: &str, value: &str| env::var(variable).is_ok_and(|found| found == value);
    let glibc = is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ENV", "gnu");
    if !is("OPT_LEVEL", "z") || !glibc {
        return;
    }
    // Where addresses are to be put in when the program is loaded takes 650 kB, packed 10 kB. glibc reads that from 2.36 on,
    // which Debian 12 has; its linker can't do it for ARM, the one that comes with Rust can.
    let packs = if is("CARGO_CFG_TARGET_ARCH", "aarch64") {
        let folder = lld();
        if let Some(folder) = &folder {
            println!("cargo::rustc-link-arg-bins=-B{}", folder.display());
            println!("cargo::rustc-link-arg-bins=-fuse-ld=lld");
        }
        folder.is_some()
    } else {
        is("CARGO_CFG_TARGET_ARCH", "x86_64")
    };
    if packs {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

/// The folder of Rust's own linker, as a C compiler looks for it. Not every Rust has it.
fn lld() -> Option<PathBuf> {
    let output = Command::new(env::var_os("RUSTC")?).args(["--print", "sysroot"]).output().ok()?;
    let sysroot = String::from_utf8(output.stdout).ok()?;
    let folder = Path::new(sysroot.trim()).join("lib/rustlib").join(env::var_os("HOST")?).join("bin/gcc-ld");
    folder.join("ld.lld").exists().then_some(folder)
}
