//! The table of refusals, and the page made from it.
