//! A disk in memory that can stop at any operation and forget what was not synced. For tests.
