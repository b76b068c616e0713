//! Commands, good and bad, and what another parser makes of them.

use std::{env, fmt::Write as _, fs, path::Path};

use mail::{BodyType, Notify, Ret, Utf8};
use smtp_proto::Request;

use super::*;
use crate::{Extension, Extensions};

/// Both parsers take the line and read the same in it, or both refuse it.
fn agree(line: &str) {
    assert_eq!(ours(line), theirs(line), "{line:?}");
}

/// Where the parsers do not agree: the line, what we read in it, and why we stand by that.
const DIFFERENCES: &[(&str, Option<&str>, &str)] = &[
    ("DATA now", None, ARGUMENT),
    ("RSET now", None, ARGUMENT),
    ("QUIT now", None, ARGUMENT),
    ("EHLO two words", None, "A domain has no space (RFC 5321 §4.1.1.1)."),
    ("EHLO (comment", None, "It will stand in a Received field."),
    ("EXPN staff", None, "We do not implement it."),
    ("MAIL\tFROM:<a@client.example>", None, "HT is not SP (RFC 5321 §4.1.1.2)."),
    ("MAIL FROM:<a@client.example>SIZE=1", None, "Parameters begin with SP (RFC 5321 §4.1.1.2)."),
    ("MAIL FROM:<a@client.example> SIZE=1 SIZE=2", None, "Which one is meant?"),
    ("MAIL FROM:<a@client.example> AUTH=<>", None, "We do not offer it."),
    ("MAIL FROM:<a@client.example> ENVID=a+ZZ", None, "Two hexadecimal digits (RFC 3461 §4)."),
    ("MAIL FROM:<a@-client.example>", None, "No hyphen begins a label (RFC 5321 §4.1.2)."),
    ("MAIL FROM:<\"a b\"@client.example>", Some("MAIL \"a b\"@client.example 0"), QUOTES),
    ("RCPT TO:<\"a>b\"@mx.example>", Some("RCPT \"a>b\"@mx.example"), QUOTES),
    ("MAIL FROM:<ann@[192.0.2.1]>", Some("MAIL ann@[192.0.2.1] 0"), LITERAL),
    ("RCPT TO:<Postmaster>", Some("RCPT postmaster"), "It needs no domain (RFC 5321 §4.5.1)."),
    ("RCPT TO:<>", None, "A forward-path is never null (RFC 5321 §4.1.1.3)."),
    ("RCPT TO:<bob@mx.example> ORCPT=rfc822;a+0ab", None, CONTROL),
    ("RCPT TO:<bob@mx.example> ORCPT=rfc822;a+0Ab", None, CONTROL),
];

const ARGUMENT: &str = "No argument is allowed (RFC 5321 §4.1.1).";
const QUOTES: &str = "The quotes belong to the local-part (RFC 5321 §4.1.2).";
const LITERAL: &str = "Address literals are addresses (RFC 5321 §4.1.3).";
const CONTROL: &str = "A control character would stand in a DSN (RFC 3461 §4.2).";

/// The last part of docs/differences.md begins so; what is before it is written by `tests/peers/differential.rs`.
const HEAD: &str = "## Another parser\n";

fn ours(line: &str) -> Option<String> {
    let all = Extensions::USUAL.with(Extension::Dsn).with(Extension::BinaryMime);
    Some(match Command::parse(line.as_bytes()).ok()? {
        Command::Ehlo { name } => format!("EHLO {name}"),
        Command::Helo { name } => format!("HELO {name}"),
        Command::Lhlo { name } => format!("LHLO {name}"),
        Command::Etrn { node } => format!("ETRN {node}"),
        Command::Xclient { claims } => format!("XCLIENT {claims:?}"),
        Command::Atrn { domains } => format!("ATRN {domains:?}"),
        Command::Xforward { forwarding } => format!("XFORWARD {forwarding:?}"),
        Command::Mail { reverse_path, parameters } => {
            let read = parameters.of_mail(all).ok()?;
            let body = match read.body {
                BodyType::SevenBit => "",
                BodyType::EightBitMime => " 8bit",
                BodyType::BinaryMime => " binary",
            };
            let utf8 = if read.utf8 == Utf8::Needed { " utf8" } else { "" };
            let ret = match read.ret {
                Some(Ret::Full) => " full",
                Some(Ret::Headers) => " headers",
                None => "",
            };
            let id = read.envelope_id.map(|id| format!(" id={id}")).unwrap_or_default();
            let path = reverse_path.address().map_or("", |address| address.as_str());
            format!("MAIL {path} {}{body}{utf8}{ret}{id}", read.size.unwrap_or(0))
        }
        Command::Rcpt { forward_path, parameters } => {
            let read = parameters.of_rcpt(all, Utf8::Needed).ok()?;
            let path = match &forward_path {
                ForwardPath::Postmaster => "postmaster",
                ForwardPath::Address(address) => address.as_str(),
            };
            let notify =
                if read.notify == Notify::default() { String::new() } else { notify_text(read.notify) };
            let original = read.original.map(|o| format!(" for {}", o.address)).unwrap_or_default();
            format!("RCPT {path}{notify}{original}")
        }
        Command::Data => "DATA".into(),
        Command::Bdat { size, last } => format!("BDAT {size} {last}"),
        Command::Rset => "RSET".into(),
        Command::Vrfy => "VRFY".into(),
        Command::Help => "HELP".into(),
        Command::Noop => "NOOP".into(),
        Command::Quit => "QUIT".into(),
        Command::StartTls => "STARTTLS".into(),
    })
}

fn notify_text(notify: Notify) -> String {
    format!(" notify {} {} {}", notify.success, notify.failure, notify.delay)
}

fn theirs(line: &str) -> Option<String> {
    let line = format!("{line}\r\n");
    let mut bytes = line.as_bytes().iter();
    Some(match Request::parse(&mut bytes).ok()? {
        Request::Ehlo { host } => format!("EHLO {host}"),
        Request::Helo { host } => format!("HELO {host}"),
        Request::Mail { from } => {
            let flag =
                |flag: u64, text: &str| if from.flags & flag != 0 { text.to_owned() } else { String::new() };
            let body = flag(smtp_proto::MAIL_BODY_8BITMIME, " 8bit")
                + &flag(smtp_proto::MAIL_BODY_BINARYMIME, " binary");
            let utf8 = flag(smtp_proto::MAIL_SMTPUTF8, " utf8");
            let ret = flag(smtp_proto::MAIL_RET_FULL, " full") + &flag(smtp_proto::MAIL_RET_HDRS, " headers");
            let id = from.env_id.map(|id| format!(" id={id}")).unwrap_or_default();
            format!("MAIL {} {}{body}{utf8}{ret}{id}", from.address, from.size)
        }
        Request::Rcpt { to } => {
            let has = |flag: u64| to.flags & flag != 0;
            let given = to.flags & 0xf != 0;
            let notify = Notify {
                success: has(smtp_proto::RCPT_NOTIFY_SUCCESS),
                failure: has(smtp_proto::RCPT_NOTIFY_FAILURE),
                delay: has(smtp_proto::RCPT_NOTIFY_DELAY),
                given,
            };
            let notify = if given { notify_text(notify) } else { String::new() };
            let original = to.orcpt.map(|o| format!(" for {o}")).unwrap_or_default();
            format!("RCPT {}{notify}{original}", to.address)
        }
        Request::Bdat { chunk_size, is_last } => format!("BDAT {chunk_size} {is_last}"),
        Request::Vrfy { .. } => "VRFY".into(),
        Request::Noop { .. } => "NOOP".into(),
        Request::Help { .. } => "HELP".into(),
        Request::Data => "DATA".into(),
        Request::Rset => "RSET".into(),
        Request::Quit => "QUIT".into(),
        Request::StartTls => "STARTTLS".into(),
        other @ (Request::Lhlo { .. }
        | Request::Auth { .. }
        | Request::Expn { .. }
        | Request::Etrn { .. }
        | Request::Atrn { .. }
        | Request::Burl { .. }) => format!("{other:?}"),
    })
}

#[test]
fn both_parsers_agree() {
    for line in [
        "EHLO client.example",
        "ehlo client.example",
        "EHLO [192.0.2.1]",
        "EHLO",
        "HELO client.example",
        "HELO",
        "MAIL FROM:<ann@client.example>",
        "mail from:<ann@client.example>",
        "MAIL FROM:<>",
        "MAIL FROM: <ann@client.example>",
        "MAIL FROM:<ann@client.example> SIZE=1000",
        "MAIL FROM:<ann@client.example> BODY=8BITMIME SIZE=12",
        "MAIL FROM:<ann@client.example> body=binarymime",
        "MAIL FROM:<ann@client.example> BODY=7BIT",
        "MAIL FROM:<ann@client.example> BODY=9BIT",
        "MAIL FROM:<ann@client.example> SMTPUTF8",
        "MAIL FROM:<ann@client.example> RET=FULL ENVID=abc",
        "MAIL FROM:<ann@client.example> RET=HDRS",
        "MAIL FROM:<ann@client.example> RET=BOTH",
        "MAIL FROM:<ann@client.example> SIZE=abc",
        "MAIL FROM:<ann@client.example> FOO=BAR",
        "MAIL FROM:<ann+x.y@client.example>",
        "MAIL FROM:<jörg@bücher.example> SMTPUTF8",
        "MAIL FROM:<@a.example,@b.example:ann@client.example>",
        "MAIL FROM:<ann@client.example",
        "MAIL FROM:<ann @client.example>",
        "MAIL TO:<ann@client.example>",
        "MAIL",
        "MAIL <ann@client.example>",
        "RCPT TO:<bob@mx.example>",
        "RCPT TO:<bob@mx.example> NOTIFY=SUCCESS,FAILURE",
        "RCPT TO:<bob@mx.example> NOTIFY=NEVER",
        "RCPT TO:<bob@mx.example> NOTIFY=NOW",
        "RCPT TO:<bob@mx.example> ORCPT=rfc822;dan+40mx.example",
        "RCPT FROM:<bob@mx.example>",
        "RCPT",
        "DATA",
        "data",
        "BDAT 100",
        "BDAT 100 LAST",
        "bdat 0 last",
        "BDAT",
        "BDAT x",
        "BDAT 1 2",
        "RSET",
        "NOOP",
        "NOOP hello",
        "VRFY bob",
        "HELP",
        "HELP MAIL",
        "QUIT",
        "STARTTLS",
        "FOO",
        "MAILFROM:<ann@client.example>",
        "MAIL FROM:ann@client.example",
        "MAIL FROM:<a..b@client.example>",
        "MAIL FROM:<a\0@client.example>",
        "MAIL FROM:<a@client.example> SIZE=-1",
        "BDAT 99999999999999999999",
        "BDAT -1",
        "BDAT +1",
        "NOOP\rNOOP",
        "DATA ",
        "",
    ] {
        agree(line);
    }
}

#[test]
fn lines_of_any_octets_are_judged() {
    use SyntaxError::*;
    let check =
        |line: &[u8], expected| assert_eq!(Command::parse(line), Err(expected), "{}", line.escape_ascii());
    check(b"\xff\xfe", UnknownVerb);
    check(b"\0", ControlCharacter);
    check(b"NOOP\x7f", ControlCharacter);
    check(b"BDAT 5\0", Chunk);
    check(b"BDAT", Chunk);
    // Where a chunk may come behind it, it is not read as commands.
    check(b"BDAT\t5 LAST", Chunk);
    check(b" BDAT 5 LAST", Chunk);
    check(b"\0bdat\t5", Chunk);
    check(b"BDAT:5", Chunk);
    check(b"BDATA 5", UnknownVerb);
    check(b"XBDAT\t5", ControlCharacter);
    check(b"MAIL FROM:<\xfc@client.example>", ReversePath);
    check(b"MAIL FROM:", ReversePath);
    check(b"MAIL FROM:<\"", ReversePath);
    check(b"MAIL FROM:<\"\\>", ReversePath);
    check(b"MAIL FROM:<@>", ReversePath);
    check(b"MAIL FROM:<@a", ReversePath);
    check(b"MAIL FROM:<@[:a@b>", ReversePath);
    check(b"RCPT TO:<@a.example:>", ForwardPath);
    check(b"EHLO \xfc", Argument);
    check(&[b"EHLO ", &[b'x'; 256][..]].concat(), Argument);
    assert_eq!(Command::parse(b"MAIL FROM:<> \xff").map(|_| ()), Ok(()), "parameters are judged later");
    let Ok(Command::Mail { parameters, .. }) = Command::parse(b"MAIL FROM:<> SIZE=\xff") else { panic!() };
    assert_eq!(parameters.of_mail(Extensions::USUAL), Err(Parameter));
}

#[test]
fn where_we_are_stricter_or_looser() {
    let mut page = format!(
        "{HEAD}\n\
        smtp-proto, the parser of another mail server, reads the same lines (`src/smtp/command_test.rs`, which writes this\n\
        part of the page). What a parser reads in a line that it takes is shown; a number is that of SIZE.\n\n\
        | input | ringpost | smtp-proto | why |\n|---|---|---|---|\n"
    );
    let visible = |text: &str| text.trim_end().replace('\t', "\\t").replace('\n', "\\n");
    let shown =
        |reading: Option<&str>| reading.map_or("refused".to_owned(), |text| format!("`{}`", visible(text)));
    for (line, reading, why) in DIFFERENCES {
        let (ours, theirs) = (ours(line), theirs(line));
        assert_eq!(ours.as_deref(), *reading, "{line:?}: {why}");
        assert_ne!(ours, theirs, "{line:?}: no longer different");
        let (ours, theirs) = (shown(ours.as_deref()), shown(theirs.as_deref()));
        writeln!(page, "| `{}` | {ours} | {theirs} | {why} |", visible(line)).unwrap();
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/differences.md");
    let whole = fs::read_to_string(&file).unwrap_or_default();
    let (before, there) = whole.split_at(whole.find(HEAD).unwrap_or(whole.len()));
    if env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&file, format!("{}\n\n{page}", before.trim_end())).unwrap();
        return;
    }
    assert!(there == page, "docs/differences.md is out of date: run this test with UPDATE_GOLDEN=1");
}

/// What we take although the suite would not.
const LOOSER: [&str; 5] = [
    // More than the 64 octets of a local-part that everybody must take (RFC 5321 §4.5.3.1).
    "\"abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghiklmn@iana.org\" ISEMAIL_RFC5322_LOCAL_TOOLONG",
    r#""\"abcdefghijklmnopqrstuvwxyz abcdefghijklmnopqrstuvwxyz abcdefghj\"@iana.org" ISEMAIL_RFC5322_LOCAL_TOOLONG"#,
    r#""\"abcdefghijklmnopqrstuvwxyz abcdefghijklmnopqrstuvwxyz abcdefg\\h\"@iana.org" ISEMAIL_RFC5322_LOCAL_TOOLONG"#,
    // A General-address-literal by its grammar (RFC 5321 §4.1.3), if an unregistered one.
    "\"test@[1111:2222:3333:4444:5555:6666:7777:8888]\" ISEMAIL_RFC5322_DOMAINLITERAL",
    // RFC 4291 §2.2 lets `::` stand for a single group.
    "\"test@[IPv6:1111:2222:3333:4444:5555:6666::8888]\" ISEMAIL_RFC5321_IPV6DEPRECATED",
];

#[test]
fn addresses_of_the_isemail_suite() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/suites/address/isemail-tests.xml");
    let Ok(suite) = fs::read_to_string(&file) else {
        println!("not run: the isemail suite is not there ({})", file.display());
        return;
    };
    let mut wrong = Vec::new();
    for test in suite.split("<test id=\"").skip(1) {
        let field = |name: &str| {
            let (_, rest) = test.split_once(&format!("<{name}>"))?;
            Some(rest.split_once(&format!("</{name}>"))?.0)
        };
        let address = decode(field("address").unwrap_or_default());
        let category = field("category").expect("each test has a category");
        let expected = matches!(category, "ISEMAIL_VALID_CATEGORY" | "ISEMAIL_DNSWARN" | "ISEMAIL_RFC5321");
        let line = format!("MAIL FROM:<{address}>");
        // The null reverse-path is no address, but a reverse-path.
        let taken = !address.is_empty() && Command::parse(line.as_bytes()).is_ok();
        if taken != expected {
            wrong.push(format!("{address:?} {}", field("diagnosis").unwrap_or_default()));
        }
    }
    assert_eq!(wrong, LOOSER);
}

/// Entities of XML; control characters stand there as the symbols for them.
fn decode(text: &str) -> String {
    let mut decoded = String::new();
    let mut rest = text;
    while let Some((plain, entity)) = rest.split_once('&') {
        let (name, behind) = entity.split_once(';').expect("an entity ends");
        decoded.push_str(plain);
        decoded.push(match name {
            "lt" => '<',
            "gt" => '>',
            "amp" => '&',
            "quot" => '"',
            "apos" => '\'',
            number => {
                let code = u32::from_str_radix(number.strip_prefix("#x").expect("hexadecimal"), 16);
                char::from_u32(code.expect("hexadecimal")).expect("a character")
            }
        });
        rest = behind;
    }
    decoded.push_str(rest);
    decoded
        .chars()
        .map(|c| if ('\u{2400}'..'\u{2420}').contains(&c) { char::from(c as u8) } else { c })
        .collect()
}
