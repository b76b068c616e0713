//! Files of certificates, good and bad.
