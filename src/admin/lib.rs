//! Operations: queue, accounts, configuration; HTTP and CLI.
