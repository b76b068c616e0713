//! Sled behind a small trait: ordered trees, checkpoints, rebuild.
