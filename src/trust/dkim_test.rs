//! Tests of the dkim.
