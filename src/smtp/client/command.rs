//! Commands as bytes, with the parameters that the next hop offers.

use std::io::Write as _;

use mail::{BodyType, DeliverByMode, DeliverByTrace, Notify, OriginalRecipient, Recipient, Ret, TlsDemand};

use super::{Offers, Protocol, Size, Transaction};
use crate::By;

pub(super) const STARTTLS: &[u8] = b"STARTTLS\r\n";
pub(super) const RSET: &[u8] = b"RSET\r\n";
pub(super) const DATA: &[u8] = b"DATA\r\n";
pub(super) const QUIT: &[u8] = b"QUIT\r\n";
/// Mail data of no octets.
pub(super) const LONE_DOT: &[u8] = b".\r\n";

/// `EHLO`, or as LMTP has it (RFC 2033 §4.1).
pub(super) fn hello(protocol: Protocol, hostname: &str, out: &mut Vec<u8>) {
    let verb = match protocol {
        Protocol::Smtp => "EHLO ",
        Protocol::Lmtp => "LHLO ",
    };
    put(out, &[verb, hostname, "\r\n"]);
}

pub(super) fn helo(hostname: &str, out: &mut Vec<u8>) {
    put(out, &["HELO ", hostname, "\r\n"]);
}

pub(super) fn mail(transaction: &Transaction, offers: &Offers, out: &mut Vec<u8>) {
    put(out, &["MAIL FROM:<", transaction.reverse_path.address().map_or("", |a| a.as_str()), ">"]);
    if offers.size != Size::NotOffered {
        number(out, " SIZE=", transaction.size);
    }
    match transaction.body {
        BodyType::SevenBit => {}
        // Where it is not offered, there is no transaction; see `pipeline`.
        BodyType::EightBitMime => put(out, &[" BODY=8BITMIME"]),
        BodyType::BinaryMime => put(out, &[" BODY=BINARYMIME"]),
    }
    // Where it is not offered, nobody is asked for who needs it; see `pipeline`.
    if offers.smtputf8 && transaction.needs_utf8() {
        put(out, &[" SMTPUTF8"]);
    }
    if offers.dsn {
        match transaction.ret {
            Some(Ret::Full) => put(out, &[" RET=FULL"]),
            Some(Ret::Headers) => put(out, &[" RET=HDRS"]),
            None => {}
        }
        if let Some(id) = &transaction.envelope_id {
            put(out, &[" ENVID="]);
            xtext(id, out);
        }
    }
    if let Some(by) = transaction.by.filter(|_| offers.deliver_by.is_some()) {
        deliver_by(by, out);
    }
    // "MUST appear", the default too: the next hop may have another (RFC 6710 §4.2).
    if offers.mt_priority {
        put(out, &[" MT-PRIORITY=", &transaction.priority.get().to_string()]);
    }
    // We vouch for nobody: who submitted it is not known here in a way that another could rely on (RFC 4954 §5).
    if offers.logged_in {
        put(out, &[" AUTH=<>"]);
    }
    if transaction.tls == TlsDemand::Required {
        put(out, &[" REQUIRETLS"]);
    }
    put(out, &["\r\n"]);
}

/// What is left of the time (RFC 2852 §4.1.4).
fn deliver_by(By { seconds, mode, trace }: By, out: &mut Vec<u8>) {
    // Nine digits are all there is room for.
    let seconds = seconds.clamp(-999_999_999, 999_999_999);
    let mode = match mode {
        DeliverByMode::Return => "R",
        DeliverByMode::Notify => "N",
    };
    let trace = match trace {
        DeliverByTrace::No => "",
        DeliverByTrace::Yes => "T",
    };
    put(out, &[" BY=", &seconds.to_string(), ";", mode, trace]);
}

pub(super) fn rcpt(recipient: &Recipient, by: Option<By>, offers: &Offers, out: &mut Vec<u8>) {
    put(out, &["RCPT TO:<", recipient.address.as_str(), ">"]);
    if offers.dsn {
        let untimed = offers.deliver_by.is_none() && by.is_some_and(By::is_to_be_watched);
        notify(if untimed { watched(recipient.notify) } else { recipient.notify }, out);
        if let Some(original) = &recipient.original {
            original_recipient(original, out);
        }
    }
    put(out, &["\r\n"]);
}

pub(super) fn bdat_last(size: u64, out: &mut Vec<u8>) {
    number(out, "BDAT ", size);
    put(out, &[" LAST\r\n"]);
}

/// Who gave a time in mode `N` is to hear of delays from behind a hop that does not keep times: "this explicitly
/// overrides" what RFC 3461 says (RFC 2852 §4.1.4.2).
const fn watched(notify: Notify) -> Notify {
    if notify.is_never() {
        return notify;
    }
    Notify { delay: true, given: true, ..notify }
}

/// What the sender gave is passed on, and nothing else (RFC 3461 §5.2.1).
fn notify(notify: Notify, out: &mut Vec<u8>) {
    if !notify.given {
        return;
    }
    if notify.is_never() {
        return put(out, &[" NOTIFY=NEVER"]);
    }
    let wishes = [(notify.success, "SUCCESS"), (notify.failure, "FAILURE"), (notify.delay, "DELAY")];
    let mut separator = " NOTIFY=";
    for (_, name) in wishes.iter().filter(|(wished, _)| *wished) {
        put(out, &[separator, name]);
        separator = ",";
    }
}

fn original_recipient(original: &OriginalRecipient, out: &mut Vec<u8>) {
    // The type is an atom (RFC 3461 §4.2); what is none would break the command.
    let atom = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-/?^_`{|}~".contains(&b);
    if !original.address_type.bytes().all(atom) {
        return;
    }
    put(out, &[" ORCPT=", &original.address_type, ";"]);
    if original.address_type.eq_ignore_ascii_case("utf-8") {
        utf8_xtext(&original.address, out);
    } else {
        xtext(&original.address, out);
    }
}

/// RFC 3461 §4: octets outside of `!` to `~`, and `+` and `=`, are written in hexadecimal.
pub(super) fn xtext(text: &str, out: &mut Vec<u8>) {
    for byte in text.bytes() {
        match byte {
            b'+' | b'=' => hexadecimal(out, byte),
            b'!'..=b'~' => out.push(byte),
            _ => hexadecimal(out, byte),
        }
    }
}

/// utf-8-addr-xtext (RFC 6533 §3): characters outside of `!` to `~`, and `\`, `+` and `=`, as `\x{HEX}`.
fn utf8_xtext(text: &str, out: &mut Vec<u8>) {
    for c in text.chars() {
        match c {
            '!'..='~' if !matches!(c, '\\' | '+' | '=') => out.push(c as u8),
            _ => write!(out, "\\x{{{:X}}}", u32::from(c)).expect("a Vec takes all"),
        }
    }
}

fn hexadecimal(out: &mut Vec<u8>, byte: u8) {
    write!(out, "+{byte:02X}").expect("a Vec takes all");
}

fn number(out: &mut Vec<u8>, label: &str, number: u64) {
    write!(out, "{label}{number}").expect("a Vec takes all");
}

pub(super) fn put(out: &mut Vec<u8>, pieces: &[&str]) {
    pieces.iter().for_each(|piece| out.extend_from_slice(piece.as_bytes()));
}

#[cfg(test)]
mod test {
    use mail::{ReversePath, TransferPriority, Utf8};

    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn mail_carries_what_is_offered_and_needed() {
        let mut transaction = Transaction {
            reverse_path: ReversePath::Null,
            recipients: vec![Recipient::new("bob@mx.example".parse().unwrap())],
            size: 42,
            body: BodyType::SevenBit,
            unconverted: None,
            utf8: Utf8::NotNeeded,
            ret: Some(Ret::Headers),
            envelope_id: Some("a+b=c d\u{e9}".into()),
            by: None,
            priority: TransferPriority::default(),
            tls: TlsDemand::None,
            upstream: None,
        };
        let none = Offers::default();
        let all = Offers { size: Size::Unbounded, eight_bit_mime: true, dsn: true, ..none };
        let mut check = |body, offers: &Offers, expected: &str| {
            transaction.body = body;
            assert_eq!(written(|out| mail(&transaction, offers, out)), format!("MAIL FROM:<>{expected}\r\n"));
        };
        check(BodyType::SevenBit, &none, "");
        let dsn = "RET=HDRS ENVID=a+2Bb+3Dc+20d+C3+A9";
        check(BodyType::SevenBit, &all, &format!(" SIZE=42 {dsn}"));
        check(BodyType::EightBitMime, &all, &format!(" SIZE=42 BODY=8BITMIME {dsn}"));
        check(BodyType::BinaryMime, &all, &format!(" SIZE=42 BODY=BINARYMIME {dsn}"));
        transaction.recipients.push(Recipient::new("j\u{f6}rg@mx.example".parse().unwrap()));
        let utf8 = Offers { smtputf8: true, ..none };
        assert_eq!(
            written(|out| mail(&transaction, &utf8, out)),
            "MAIL FROM:<> BODY=BINARYMIME SMTPUTF8\r\n"
        );
        transaction.body = BodyType::SevenBit;
        transaction.recipients.pop();
        transaction.priority = TransferPriority::new(-3).unwrap();
        transaction.tls = TlsDemand::Required;
        let new = Offers { deliver_by: Some(0), mt_priority: true, require_tls: true, ..none };
        let mut check = |seconds, mode, trace, offers: &Offers, expected: &str| {
            transaction.by = Some(By { seconds, mode, trace });
            assert_eq!(written(|out| mail(&transaction, offers, out)), format!("MAIL FROM:<>{expected}\r\n"));
        };
        check(9, DeliverByMode::Return, DeliverByTrace::No, &new, " BY=9;R MT-PRIORITY=-3 REQUIRETLS");
        check(-9, DeliverByMode::Notify, DeliverByTrace::Yes, &new, " BY=-9;NT MT-PRIORITY=-3 REQUIRETLS");
        check(9, DeliverByMode::Notify, DeliverByTrace::No, &none, " REQUIRETLS");
        // RFC 6710 §4.2: the parameter "MUST appear", whatever its value.
        transaction.priority = TransferPriority::default();
        transaction.by = None;
        assert_eq!(written(|out| mail(&transaction, &new, out)), "MAIL FROM:<> MT-PRIORITY=0 REQUIRETLS\r\n");
    }

    #[test]
    fn rcpt_carries_wishes_where_dsn_is_offered() {
        let mut recipient = Recipient::new("bob@mx.example".parse().unwrap());
        let dsn = Offers { dsn: true, ..Offers::default() };
        let mut check = |notify, original: Option<(&str, &str)>, offers: &Offers, expected: &str| {
            recipient.notify = notify;
            recipient.original = original.map(|(address_type, address)| OriginalRecipient {
                address_type: address_type.into(),
                address: address.into(),
            });
            let line = written(|out| rcpt(&recipient, None, offers, out));
            assert_eq!(line, format!("RCPT TO:<bob@mx.example>{expected}\r\n"));
        };
        let default = Notify::default();
        check(Notify::NEVER, None, &Offers::default(), "");
        check(default, None, &dsn, "");
        check(Notify::NEVER, None, &dsn, " NOTIFY=NEVER");
        check(Notify { given: true, ..default }, None, &dsn, " NOTIFY=FAILURE,DELAY");
        check(Notify { success: true, given: true, ..default }, None, &dsn, " NOTIFY=SUCCESS,FAILURE,DELAY");
        check(Notify { delay: false, given: true, ..default }, None, &dsn, " NOTIFY=FAILURE");
        check(default, Some(("rfc822", "a+b@x")), &dsn, " ORCPT=rfc822;a+2Bb@x");
        check(default, Some(("utf-8", "j\u{f6}+\\@x")), &dsn, " ORCPT=utf-8;j\\x{F6}\\x{2B}\\x{5C}@x");
        check(default, Some(("x_y", "a")), &dsn, " ORCPT=x_y;a");
        check(default, Some(("x\r\nQUIT", "a")), &dsn, "");
    }

    /// RFC 2852 §4.1.4.2: over a hop with DSN and without DELIVERBY, delays are to be told.
    #[test]
    fn a_time_in_mode_n_asks_for_news_of_delays() {
        let mut recipient = Recipient::new("bob@mx.example".parse().unwrap());
        let mut check = |notify, seconds, mode, deliver_by, expected: &str| {
            recipient.notify = notify;
            let by = Some(By { seconds, mode, trace: DeliverByTrace::No });
            let offers = Offers { dsn: true, deliver_by, ..Offers::default() };
            let line = written(|out| rcpt(&recipient, by, &offers, out));
            assert_eq!(line, format!("RCPT TO:<bob@mx.example>{expected}\r\n"));
        };
        let (default, n) = (Notify::default(), DeliverByMode::Notify);
        let success = Notify { success: true, failure: false, delay: false, given: true };
        check(default, 9, n, None, " NOTIFY=FAILURE,DELAY");
        check(success, 9, n, None, " NOTIFY=SUCCESS,DELAY");
        check(Notify::NEVER, 9, n, None, " NOTIFY=NEVER");
        check(success, 9, n, Some(0), " NOTIFY=SUCCESS");
        check(success, -9, n, None, " NOTIFY=SUCCESS");
        check(default, 9, DeliverByMode::Return, Some(0), "");
    }
}
