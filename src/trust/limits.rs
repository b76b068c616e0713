//! Upper bounds, and what is accepted.

use std::time::Duration;

/// What judging a message may take, and which signatures count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Questions asked for one message.
    pub lookups_max: usize,
    /// After that time what is missing is a temporary failure; at least 20 seconds (RFC 7208 §4.6.4).
    pub time_max: Duration,
    /// Octets of a header section.
    pub header_size_max: usize,
    /// Fields in it.
    pub fields_max: usize,
    /// Signatures looked at.
    pub signatures_max: usize,
    /// Names in the `h=` of a signature.
    pub signed_fields_max: usize,
    /// The shortest RSA key that counts; 1024 (RFC 8301 §3.2). No shorter ones can be verified.
    pub rsa_bits_min: usize,
    /// What becomes of signatures with SHA-1.
    pub sha1: Sha1Signatures,
    /// What becomes of signatures that cover a part of the body.
    pub body_length: BodyLength,
    /// Terms of an SPF record that need look-ups; 10 (RFC 7208 §4.6.4).
    pub spf_terms_max: usize,
    /// Look-ups of theirs that find nothing; 2 (RFC 7208 §4.6.4).
    pub spf_void_max: usize,
    /// Mail exchanges of one domain; 10 (RFC 7208 §4.6.4).
    pub spf_exchanges_max: usize,
    /// Names of an address that are validated; 10 (RFC 7208 §4.6.4).
    pub spf_names_max: usize,
    /// Octets of an SPF record or an explanation; 512 are few enough for a packet (RFC 7208 §3.4).
    pub spf_record_size_max: usize,
    /// Characters of an explanation.
    pub explanation_len_max: usize,
    /// Names of an address that are tried for `iprev`.
    pub iprev_names_max: usize,
}

/// What becomes of a signature made with SHA-1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sha1Signatures {
    /// It does not count: "verifiers MUST NOT" take it as valid (RFC 8301 §3.1).
    #[default]
    Refused,
    /// It counts like any other.
    Accepted,
}

/// What becomes of a signature with `l=` (RFC 6376 §8.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BodyLength {
    /// It does not count.
    #[default]
    Refused,
    /// It counts if the body is all that it covers.
    Ignored,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            lookups_max: 60,
            time_max: Duration::from_secs(20),
            header_size_max: 1 << 20,
            fields_max: 1000,
            signatures_max: 10,
            signed_fields_max: 100,
            rsa_bits_min: 1024,
            sha1: Sha1Signatures::Refused,
            body_length: BodyLength::Refused,
            spf_terms_max: 10,
            spf_void_max: 2,
            spf_exchanges_max: 10,
            spf_names_max: 10,
            spf_record_size_max: 8 << 10,
            explanation_len_max: 400,
            iprev_names_max: 10,
        }
    }
}
