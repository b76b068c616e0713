//! What is right key by key and wrong together.

use crate::{Config, reader::Reader};

/// Tells the reader of every contradiction.
pub(crate) fn check(_config: &Config, _reader: &mut Reader<'_>) {}
