//! Tests of the case.
