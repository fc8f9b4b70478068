//! Options of the linker for the program as it is packaged.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let is = |variable: &str, value: &str| env::var(variable).is_ok_and(|found| found == value);
    let glibc = is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ENV", "gnu");
    // Where addresses are to be put in when the program is loaded takes 650 kB, packed 10 kB. glibc reads that from 2.36 on,
    // which Debian 12 has; its linker can't do it for ARM.
    if is("OPT_LEVEL", "z") && glibc && is("CARGO_CFG_TARGET_ARCH", "x86_64") {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}
