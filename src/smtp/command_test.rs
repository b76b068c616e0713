//! Commands, good and bad, and what another parser makes of them.
