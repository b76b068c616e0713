//! The only door between shards and pool: bounded, typed requests.
