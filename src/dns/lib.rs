//! Questions, answers, cache; no sockets (RFC 1035).
