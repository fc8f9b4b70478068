//! libp2p alone, as the benchmark `cost` holds Kinfolk against it, as a program of its own: how large that is.
//!
//! `cargo build -p kinfolk-embedded --profile small --example bare`

use std::error::Error;

#[path = "../benches/cost/bare.rs"]
#[expect(dead_code, reason = "its peers are in the benchmark")]
mod bare;

fn main() -> Result<(), Box<dyn Error>> {
    runtime()?.block_on(bare::listen())
}

/// As `kinfolk_embedded::runtime`, without anything of Kinfolk.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}
