//! Reports as they come, by the standard and by nobody's.

use super::*;

fn content(text: &str) -> Vec<Bytes> {
    // As it lies in the queue: lines that end with CRLF.
    vec![Bytes::from(text.replace("\r\n", "\n").replace('\n', "\r\n"))]
}

fn read_text(text: &str) -> Incoming {
    read(&content(text), &IncomingLimits::default())
}

fn bounce(text: &str) -> Bounce {
    match read_text(text) {
        Incoming::Bounce(bounce) => bounce,
        other @ (Incoming::Complaint(_) | Incoming::AutoReply | Incoming::Other) => panic!("{other:?}"),
    }
}

fn address(text: &str) -> Option<Address> {
    Some(text.parse().unwrap())
}

const STANDARD: &str = "\
From: Mail Delivery System <MAILER-DAEMON@mx.example.net>
To: bounces+abc@example.org
Subject: Undelivered Mail Returned to Sender
Auto-Submitted: auto-replied
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status;
	boundary=\"B/1\"

This is a MIME-encapsulated message.

--B/1
Content-Type: text/plain

It did not work.

--B/1
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.example.net
Original-Envelope-Id: our-7
Arrival-Date: Fri, 20 Nov 2026 13:00:00 +0000

Final-Recipient: rfc822; bob@other.example
Original-Recipient: rfc822;bob@example.net
Action: failed
Status: 5.1.1
Remote-MTA: dns; mx.other.example
Diagnostic-Code: smtp; 550 5.1.1 <bob@other.example>:
    Recipient address rejected: User unknown

Final-Recipient: rfc822; eve@example.net
Action: delayed
Status: 4.2.2 (mailbox full)

--B/1
Content-Type: message/rfc822

Return-Path: <bounces+abc@example.org>
Message-ID: <7@example.org>
To: Bob <bob@example.net>
Subject: hello

body
--B/1--
";

#[test]
fn a_report_by_the_standard() {
    let bounce = bounce(STANDARD);
    assert_eq!(bounce.form, Form::Standard);
    assert_eq!(bounce.reporting_mta.as_deref(), Some("mx.example.net"));
    assert_eq!(bounce.envelope_id.as_deref(), Some("our-7"));
    assert_eq!(bounce.original.message_id.as_deref(), Some("<7@example.org>"));
    assert_eq!(bounce.original.return_path, address("bounces+abc@example.org"));
    assert_eq!(bounce.original.to, address("bob@example.net"));
    let [bob, eve] = &bounce.recipients[..] else { panic!("{bounce:?}") };
    assert_eq!(bob.recipient, address("bob@other.example"));
    assert_eq!(bob.original, address("bob@example.net"));
    assert_eq!((bob.action, bob.status), (ReturnedAction::Failed, Some(Status(5, 1, 1))));
    assert_eq!(bob.remote_mta.as_deref(), Some("mx.other.example"));
    let said = "550 5.1.1 <bob@other.example>: Recipient address rejected: User unknown";
    assert_eq!(bob.diagnostic.as_deref(), Some(said));
    assert_eq!((eve.action, eve.status), (ReturnedAction::Delayed, Some(Status(4, 2, 2))));
}

#[test]
fn what_we_write_we_can_read() {
    use mail::{Envelope, QueueId, Recipient, ReversePath, Timestamp};
    let host = mail::Domain::parse("mx.example.org").unwrap();
    let recipient = Recipient::new("bob@example.net".parse().unwrap());
    let envelope = Envelope {
        received_at: Timestamp::from_secs(1_763_629_500),
        reverse_path: ReversePath::Address("ann@example.org".parse().unwrap()),
        recipients: vec![recipient.clone()],
        body: mail::BodyType::SevenBit,
        utf8: mail::Utf8::NotNeeded,
        ret: None,
        envelope_id: Some("q+1".into()),
        handling: mail::Handling::default(),
        upstream: None,
    };
    let facts = crate::RecipientFacts {
        recipient: &recipient,
        outcome: crate::Outcome::Failed,
        status: Status(5, 2, 2),
        remote_mta: Some("mx.example.net"),
        diagnostic: Some(crate::Diagnostic::Smtp(b"552 5.2.2 mailbox full")),
        last_attempt: None,
    };
    let told = crate::Facts {
        report_id: QueueId::from_bits(2),
        message_id: QueueId::from_bits(1),
        host: &host,
        now: envelope.received_at,
        envelope: &envelope,
        recipients: &[facts],
    };
    let original = [Bytes::from_static(b"Message-ID: <1@example.org>\r\nSubject: x\r\n\r\nbody\r\n")];
    let report = crate::dsn(&told, &original, &crate::Limits::default()).unwrap().unwrap();
    let Incoming::Bounce(bounce) = read(&report.content, &IncomingLimits::default()) else { panic!() };
    assert_eq!(bounce.envelope_id.as_deref(), Some("q+1"));
    assert_eq!(bounce.original.message_id.as_deref(), Some("<1@example.org>"));
    let [one] = &bounce.recipients[..] else { panic!("{bounce:?}") };
    assert_eq!((one.recipient.clone(), one.status), (address("bob@example.net"), Some(Status(5, 2, 2))));
    assert_eq!(one.diagnostic.as_deref(), Some("552 5.2.2 mailbox full"));
}

#[test]
fn reports_that_are_nearly_by_the_standard() {
    // The recipient's fields with those of the message, no action, an encoded part, bare line feeds.
    let text = "Content-Type: multipart/report; boundary=x\n\n--x\nContent-Type: message/delivery-status\n\
        Content-Transfer-Encoding: base64\n\n\
        UmVwb3J0aW5nLU1UQTogZG5zOyBhCkZpbmFsLVJlY2lwaWVudDogUkZDODIyOyA8Ym9iQGV4YW1wbGUubmV0PgpTdGF0dXM6IDUuNC4xCg==\n\
        --x--\n";
    let Incoming::Bounce(bounce) = read(&[Bytes::from_static(text.as_bytes())], &IncomingLimits::default())
    else {
        panic!()
    };
    let [one] = &bounce.recipients[..] else { panic!("{bounce:?}") };
    assert_eq!(one.recipient, address("bob@example.net"));
    assert_eq!((one.action, one.status), (ReturnedAction::Failed, Some(Status(5, 4, 1))));
}

#[test]
fn qmail_is_understood() {
    let bounce = bounce(
        "From: MAILER-DAEMON@mx.example.net\nTo: ann@example.org\nSubject: failure notice\n\n\
         Hi. This is the qmail-send program at mx.example.net.\n\
         I'm afraid I wasn't able to deliver your message to the following addresses.\n\
         This is a permanent error; I've given up. Sorry it didn't work out.\n\n\
         <bob@example.net>:\n192.0.2.7 does not like recipient.\n\
         Remote host said: 550 5.1.1 no mailbox here by that name\nGiving up on 192.0.2.7.\n\n\
         <eve@example.net>:\n\
         Remote host said: 552 user is over quota (#5.2.2)\n\n\
         --- Below this line is a copy of the message.\n\nFrom: <ann@example.org>\nTo: zoe@example.net\n",
    );
    assert_eq!(bounce.form, Form::Guessed);
    let [bob, eve] = &bounce.recipients[..] else { panic!("{bounce:?}") };
    assert_eq!((bob.recipient.clone(), bob.status), (address("bob@example.net"), Some(Status(5, 1, 1))));
    assert!(bob.diagnostic.as_deref().unwrap().starts_with("550 5.1.1 no mailbox here by that name"));
    assert_eq!((eve.recipient.clone(), eve.status), (address("eve@example.net"), Some(Status(5, 2, 2))));
}

#[test]
fn exim_is_understood() {
    let bounce = bounce(
        "X-Failed-Recipients: bob@example.net, eve@example.net\nAuto-Submitted: auto-replied\n\
         From: Mail Delivery System <Mailer-Daemon@mx.example.net>\n\
         Subject: Mail delivery failed: returning message to sender\n\n\
         A message that you sent could not be delivered to one or more of its recipients.\n\n\
         \x20 bob@example.net\n    host mx.example.net [192.0.2.7]\n    SMTP error from remote mail server after RCPT TO:\n\
         \x20   550 No such user here\n\n\
         \x20 eve@example.net\n    retry timeout exceeded\n",
    );
    let [bob, eve] = &bounce.recipients[..] else { panic!("{bounce:?}") };
    assert_eq!(bob.diagnostic.as_deref(), Some("550 No such user here"));
    assert_eq!((bob.action, eve.action), (ReturnedAction::Failed, ReturnedAction::Failed));
    assert_eq!(eve.diagnostic, None);
}

#[test]
fn an_address_without_a_reply_is_nobody_who_failed() {
    let text =
        "From: postmaster@example.net\nSubject: Delivery of parcels\n\nbob@example.net\nwrote to us.\n";
    assert_eq!(read_text(text), Incoming::Other);
    assert_eq!(
        read_text("From: bob@example.net\nSubject: hello\n\n<eve@example.net>:\n550 5.1.1 no\n"),
        Incoming::Other
    );
    assert_eq!(read_text(""), Incoming::Other);
}

#[test]
fn answers_of_programs_are_told_apart() {
    for head in
        ["Auto-Submitted: auto-replied (vacation)", "Subject: Out of Office: hello", "X-Autoreply: yes"]
    {
        assert_eq!(read_text(&format!("From: bob@example.net\n{head}\n\nI am away.\n")), Incoming::AutoReply);
    }
    let text = "From: bob@example.net\nAuto-Submitted: no\nSubject: Re: office\n\nhello\n";
    assert_eq!(read_text(text), Incoming::Other);
}

#[test]
fn a_complaint() {
    let text = "From: <abusedesk@example.com>\nTo: fbl@example.org\nSubject: FW: Earn money\nMIME-Version: 1.0\n\
        Content-Type: multipart/report; report-type=feedback-report; boundary=\"p\"\n\n\
        --p\nContent-Type: text/plain\n\nThis is an email abuse report.\n\n\
        --p\nContent-Type: message/feedback-report\n\n\
        Feedback-Type: Abuse\nUser-Agent: SomeGenerator/1.0\nVersion: 1\n\
        Original-Mail-From: <bounces+abc@example.org>\nOriginal-Rcpt-To: <user@example.com>\n\
        Source-IP: 192.0.2.1\nReported-Domain: example.org\nReported-Domain: example.net\nIncidents: 3\n\n\
        --p\nContent-Type: message/rfc822\n\n\
        Return-Path: <bounces+abc@example.org>\nMessage-ID: <7@example.org>\nTo: <user@example.com>\n\nbuy\n--p--\n";
    let Incoming::Complaint(complaint) = read_text(text) else { panic!() };
    assert_eq!((&*complaint.feedback_type, complaint.incidents), ("abuse", 3));
    assert_eq!(complaint.user_agent.as_deref(), Some("SomeGenerator/1.0"));
    assert_eq!(complaint.mail_from, address("bounces+abc@example.org"));
    assert_eq!(complaint.recipients, [address("user@example.com").unwrap()]);
    assert_eq!(complaint.source_ip.as_deref(), Some("192.0.2.1"));
    assert_eq!(complaint.domains.iter().map(|d| &**d).collect::<Vec<_>>(), ["example.org", "example.net"]);
    assert_eq!(complaint.original.message_id.as_deref(), Some("<7@example.org>"));
}

#[test]
fn everything_has_a_bound() {
    let limits = IncomingLimits { recipients_max: 3, value_max: 20, ..IncomingLimits::default() };
    let many = "Final-Recipient: rfc822; bob@example.net\nAction: failed\nDiagnostic-Code: smtp; 550 "
        .to_owned()
        + &"é".repeat(500)
        + "\n\n";
    let head = "Content-Type: multipart/report; boundary=x\n\n--x\nContent-Type: message/delivery-status\n\nA: b\n\n";
    let Incoming::Bounce(bounce) = read(&content(&(head.to_owned() + &many.repeat(50))), &limits) else {
        panic!()
    };
    assert_eq!(bounce.recipients.len(), 3);
    assert!(bounce.recipients.iter().all(|one| one.diagnostic.as_ref().unwrap().len() <= 20));
    let list = "<bob@example.net>: 550 no\n<eve@example.net>: 550 no\n".repeat(9999);
    let text = format!("From: mailer-daemon@x.test\nSubject: failure notice\n\n{list}");
    let Incoming::Bounce(bounce) = read(&content(&text), &limits) else { panic!() };
    assert_eq!(bounce.recipients.len(), 2, "each once");
}
