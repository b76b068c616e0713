//! The other driver: same machines, virtual disk, network, DNS and clock.
