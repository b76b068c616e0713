//! The program: read the configuration, start shards and pool, serve until told to stop.
fn main() {}
