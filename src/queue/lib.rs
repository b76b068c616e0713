//! When each recipient is tried next; one partition per shard.
