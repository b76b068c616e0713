//! Tests of the sign.
