//! The load generator: a source that pours mail and a sink that swallows it.
fn main() {}
