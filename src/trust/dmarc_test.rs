//! Tests of the dmarc.
