//! SPF, DKIM, ARC, DMARC: verdicts over facts.
//!
//! Nothing here asks or waits. A [`Case`] is judged and says what it finds, or which names must be looked up first;
//! whoever has a DNS client looks them up, tells it the answers and judges again. There is one budget of look-ups
//! and one deadline for a message, and what is not known in time is a temporary failure. A [`Digester`] reads a
//! message once, while it comes in, for the signatures it has and for those that a [`Signer`] adds.
//!
//! mail-auth does the work on signatures, keys, canonical forms and DMARC, behind [`Judge`]: no other room knows it.

mod arc;
mod assertion;
mod bimi;
mod body;
mod case;
mod deception;
mod destination;
mod digest;
mod dkim;
mod dmarc;
mod encoded;
mod facts;
mod fields;
mod hearing;
mod indicator;
mod iprev;
mod judge;
mod keys;
mod known;
mod known_keys;
mod limits;
mod lists;
mod lookalike;
mod mailboxes;
mod results;
mod rotation;
mod rotations;
mod sign;
mod spf;
mod tags;
mod unsubscribe;

#[cfg(test)]
mod zone;

pub use arc::{ArcChain, ArcDmarc, ArcReason, ArcResult, ArcSet, AuthorSigned};
pub use assertion::{
    Asserted, Assertion, Bimi, BimiAuthority, BimiResult, bimi_fields, bimi_weakness, covers,
};
pub use bimi::{BimiError, BimiPlace, BimiRecord, LogoPreference, bimi_record};
pub use case::{Case, Client, EnvelopeVerdict, Judged, Verdict};
pub use deception::{Trick, TrickKind, Tricks};
pub use destination::{Consent, DestinationCase, ReportKind, check as consent};
pub use digest::{Canonicalization, Digest, Digester};
pub use dkim::{Algorithm, Dkim, DkimResult, KeyUse, Reason, verify as verify_signatures};
pub use dmarc::{
    Alignment, AlignmentMode, Author, Dmarc, DmarcFlaw, DmarcPolicy, DmarcResult, Published, ReportAddress,
    Testing, check as check_dmarc, dmarc_flaw,
};
pub use facts::{Facts, Lack};
pub use hearing::Hearing;
pub use indicator::{IndicatorFlaw, IndicatorText, read_indicator, read_logotype};
pub use iprev::{AddressCase, Iprev, IprevResult, check as iprev_of};
pub use judge::Judge;
pub use keys::{KeyKind, NoKey, RecordFlaw, new_key, record, record_flaw};
pub use known::KnownDomains;
pub use limits::{BodyLength, Limits, Sha1Signatures};
pub use lists::{DnsList, ListFindings, ListHit, ListInquiry, ListSubject, ListWord, Sought, list_inquiries};
pub use results::{
    UNSUBSCRIBE_RESULT, WARNING, authentication_results, authentication_results_with, received_spf,
    unsubscribe_result,
};
pub use rotation::{
    Concern, Ending, KeyPhase, Look, Order, Publishing, REVOKED, RotatedKey, Rotation, RotationId,
    RotationRules, Round, Seen,
};
pub use rotations::{NoRotations, Rotations};
pub use sign::{Key, KeyError, SignError, Signer, SignerError, SignerOptions};
pub use spf::{Spf, SpfIdentity, SpfProblem, SpfResult, SpfSurvey, spf_of, survey_spf};
pub use unsubscribe::{
    SignerAligned, Unsubscribe, UnsubscribeFlaw, UnsubscribeWay, is_public, judge as check_unsubscribe,
    unsubscribe_as_sent,
};
