//! A peer that misbehaves.
fn main() {}
