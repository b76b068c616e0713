//! Tests of the iprev.
