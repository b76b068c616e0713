//! Mail to addresses for reports (`[reports-in]`): its recipients become one of a domain that is nobody's, whose
//! route leads to whoever keeps reports.
//!
//! Where mail goes is found by domains, in the queue and after a restart. So the recipient says it, as for mail
//! that is led back (SRS): what is accepted as a report is one, whatever becomes of the configuration.

use mail::{Address, Domain, Envelope, OriginalRecipient};

/// The addresses of the configuration.
#[derive(Debug)]
pub(crate) struct ReportsIn {
    addresses: Vec<Address>,
    domain: Domain,
}

/// Nobody has it (RFC 6761 §6.4), so no mail of others is for it.
const DOMAIN: &str = "reports-in.invalid";

/// The domain of recipients that are kept as reports.
pub(crate) fn domain() -> Domain {
    Domain::parse(DOMAIN).expect("our own text")
}

impl ReportsIn {
    pub(crate) fn new(reports: &config::ReportsIn) -> Self {
        Self { addresses: reports.addresses.clone(), domain: domain() }
    }

    /// Whether mail to this address is for whoever keeps reports.
    pub(crate) fn is_for(&self, address: &Address) -> bool {
        self.addresses.iter().any(|one| one.as_str().eq_ignore_ascii_case(address.as_str()))
    }

    /// Whether it is the address that recipients become: nobody writes to it.
    pub(crate) fn is_within(address: &Address) -> bool {
        address.domain_str().eq_ignore_ascii_case(DOMAIN)
    }

    /// Recipients that are for reports become those of that domain. That is known from the reply to RCPT on.
    pub(crate) fn take(&self, envelope: &mut Envelope) {
        if self.addresses.is_empty() {
            return;
        }
        for recipient in &mut envelope.recipients {
            if self.is_for(&recipient.address) {
                let within = self.within(&recipient.address);
                // Whoever is told of it knows the address that he has written to (RFC 3461 §4.2).
                recipient.original.get_or_insert_with(|| OriginalRecipient {
                    address_type: "rfc822".into(),
                    address: recipient.address.as_str().into(),
                });
                recipient.address = within;
            }
        }
    }

    /// dmarc@example.org is dmarc=example.org there, where that is an address.
    fn within(&self, address: &Address) -> Address {
        let local_part = address.as_str().replace('@', "=");
        Address::new(&local_part, &self.domain)
            .or_else(|_| Address::new("reports", &self.domain))
            .expect("our own text")
    }
}

#[cfg(test)]
mod test {
    use mail::{BodyType, Handling, Recipient, ReversePath, Timestamp, Utf8};

    use super::*;

    fn address(text: &str) -> Address {
        Address::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn recipients_become_those_of_nobodys_domain() {
        let config = config::ReportsIn {
            addresses: vec![address("Dmarc@example.org"), address("\"odd one\"@example.org")],
            ..config::ReportsIn::default()
        };
        let reports = ReportsIn::new(&config);
        let recipients = ["dmarc@EXAMPLE.org", "\"odd one\"@example.org", "dmarc@example.net"];
        let mut envelope = Envelope {
            received_at: Timestamp(0),
            reverse_path: ReversePath::Null,
            recipients: recipients.iter().map(|text| Recipient::new(address(text))).collect(),
            body: BodyType::SevenBit,
            utf8: Utf8::NotNeeded,
            ret: None,
            envelope_id: None,
            handling: Handling::default(),
            upstream: None,
        };
        reports.take(&mut envelope);
        let found: Vec<_> = envelope.recipients.iter().map(|one| one.address.as_str()).collect();
        assert_eq!(found[0], "dmarc=example.org@reports-in.invalid");
        assert!(ReportsIn::is_within(&envelope.recipients[1].address));
        assert_eq!(found[2], "dmarc@example.net");
        let original = envelope.recipients[0].original.as_ref().unwrap();
        assert_eq!(&*original.address, "dmarc@example.org");
    }
}
