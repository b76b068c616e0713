//! Looking at one segment file, record by record, with every checksum.
