//! Tests of the docs.
