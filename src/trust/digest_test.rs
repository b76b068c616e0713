//! Tests of the digest.
