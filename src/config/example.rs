//! The example file and the reference page, printed from the types.

use std::path::PathBuf;

use mail::Domain;

use crate::Config;

/// What `ringpost init` knows about the host it makes a configuration for.
#[derive(Clone, Debug)]
pub struct ExampleOptions {
    /// The name of the host.
    pub hostname: Domain,
    /// As PEM.
    pub certificate: PathBuf,
    /// As PEM.
    pub key: PathBuf,
}

impl Config {
    /// A configuration to begin with, with every key explained: ports that need no privilege, relaying for
    /// this host alone, everything sent by MX.
    pub fn example(options: &ExampleOptions) -> String {
        Self { hostname: options.hostname.clone(), ..Self::default() }.to_toml()
    }

    /// This configuration as a file that explains every key. What holds by default is commented out.
    pub fn to_toml(&self) -> String {
        String::new()
    }

    /// The reference page, in Markdown.
    pub fn reference() -> String {
        String::new()
    }
}
