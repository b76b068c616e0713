//! The tokio side: listeners, TLS, HTTP plumbing for the rooms above.
