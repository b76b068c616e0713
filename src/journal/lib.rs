//! The segments: a record is ours once its group is durable.
