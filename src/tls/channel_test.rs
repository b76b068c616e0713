//! Both ends of a channel against each other.
