//! A configuration file of any bytes: mistakes are told, never a panic; what is read survives being written.

#![no_main]

use config::{Config, Source};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let source = |text: String| Source { file: "fuzz.toml".into(), text };
    // Two files, so that laying one over the other is tried too.
    let (first, second) = text.split_once("\n---\n").unwrap_or((text, ""));
    match Config::from_sources(&[source(first.into()), source(second.into())]) {
        Ok(config) => {
            drop(config.warnings(2));
            assert_eq!(Config::from_sources(&[source(config.to_toml())]), Ok(config));
        }
        Err(errors) => {
            assert!(!errors.is_empty());
            errors.iter().for_each(|error| drop(error.to_string()));
        }
    }
});
