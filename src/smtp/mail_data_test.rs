//! The scanner of mail data against one that looks at single octets.
