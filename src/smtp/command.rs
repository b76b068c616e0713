//! Commands (RFC 5321 §4.1), read in place from a line whose CRLF is already removed.
//!
//! Syntax is judged here, order in the session, content by policy. Nothing is copied but the address,
//! which the envelope keeps.

use mail::{Address, Domain, ForwardPath, Node, ReversePath};

use crate::{Claims, Forwarding, Parameters};

/// One command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// `EHLO`: the client names itself and asks for extensions (RFC 5321 §4.1.1.1).
    Ehlo {
        /// The name as the client gave it.
        name: &'a str,
    },
    /// `HELO`: the client names itself (RFC 5321 §4.1.1.1).
    Helo {
        /// The name as the client gave it.
        name: &'a str,
    },
    /// `LHLO`: `EHLO` as LMTP has it (RFC 2033 §4.1).
    Lhlo {
        /// The name as the client gave it.
        name: &'a str,
    },
    /// `MAIL` opens a transaction (RFC 5321 §4.1.1.2).
    Mail {
        /// Where reports go.
        reverse_path: ReversePath,
        /// What follows the path.
        parameters: Parameters<'a>,
    },
    /// `RCPT` adds a recipient (RFC 5321 §4.1.1.3).
    Rcpt {
        /// Where the message goes.
        forward_path: ForwardPath,
        /// What follows the path.
        parameters: Parameters<'a>,
    },
    /// `DATA`: mail data follows, after our 354 (RFC 5321 §4.1.1.4).
    Data,
    /// `BDAT`: this many octets of mail data follow at once (RFC 3030 §2).
    Bdat {
        /// Octets that follow.
        size: u64,
        /// Whether the message ends with them.
        last: bool,
    },
    /// `RSET` ends the transaction (RFC 5321 §4.1.1.5).
    Rset,
    /// `VRFY` asks whether an address exists (RFC 5321 §4.1.1.6).
    Vrfy,
    /// `HELP` (RFC 5321 §4.1.1.8).
    Help,
    /// `NOOP` (RFC 5321 §4.1.1.9).
    Noop,
    /// `QUIT` (RFC 5321 §4.1.1.10).
    Quit,
    /// `STARTTLS` (RFC 3207 §4).
    StartTls,
    /// `ATRN`: the client wants to be the server, and have its mail (RFC 2645 §5.2.1).
    Atrn {
        /// Whose mail; none stands for all that it may have.
        domains: Vec<Domain>,
    },
    /// `XCLIENT`: the client speaks for another one.
    Xclient {
        /// What it says of that one.
        claims: Box<Claims>,
    },
    /// `XFORWARD`: the client says where the next message first came from.
    Xforward {
        /// What it says of that.
        forwarding: Box<Forwarding>,
    },
    /// `ETRN` asks for mail that waits (RFC 1985 §5).
    Etrn {
        /// Whose.
        node: Node,
    },
}

/// Why a line is not a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SyntaxError {
    /// No such verb in SMTP.
    #[error("unknown verb")]
    UnknownVerb,
    /// A verb of SMTP that we do not take.
    #[error("verb not implemented")]
    NotImplemented,
    /// A NUL, another control character, a bare CR or LF.
    #[error("control character")]
    ControlCharacter,
    /// An argument is missing, malformed or too many.
    #[error("malformed argument")]
    Argument,
    /// The argument of `BDAT` is malformed: nobody knows where the next command begins.
    #[error("malformed chunk size")]
    Chunk,
    /// The argument of `MAIL` is not a path.
    #[error("malformed reverse-path")]
    ReversePath,
    /// The argument of `RCPT` is not a path.
    #[error("malformed forward-path")]
    ForwardPath,
    /// A parameter that no offered extension has.
    #[error("unknown parameter")]
    ParameterUnknown,
    /// A parameter that is malformed or given twice.
    #[error("malformed parameter")]
    Parameter,
}

/// Verbs that SMTP has or had, and that we do not take.
const NOT_IMPLEMENTED: [&str; 7] = ["EXPN", "TURN", "SEND", "SOML", "SAML", "AUTH", "BURL"];

// RFC 5321 §4.5.3.1.2.
const NAME_MAX: usize = 255;

impl<'a> Command<'a> {
    /// Reads one line without its CRLF.
    ///
    /// # Errors
    /// [`SyntaxError`] says what is wrong with it.
    pub fn parse(line: &'a [u8]) -> Result<Self, SyntaxError> {
        // RFC 5321 §4.1.1: "receivers SHOULD tolerate trailing white space before the terminating <CRLF>".
        let line = trim_end(line);
        if line.iter().any(u8::is_ascii_control) {
            return Err(if is_like_chunk(line) { SyntaxError::Chunk } else { SyntaxError::ControlCharacter });
        }
        let (verb, argument) = verb(line);
        let is = |name: &str| verb.eq_ignore_ascii_case(name.as_bytes());
        if is("MAIL") {
            let (path, parameters) = parse_path(argument, "FROM:").ok_or(SyntaxError::ReversePath)?;
            let reverse_path = reverse_path(path).ok_or(SyntaxError::ReversePath)?;
            Ok(Self::Mail { reverse_path, parameters })
        } else if is("RCPT") {
            let (path, parameters) = parse_path(argument, "TO:").ok_or(SyntaxError::ForwardPath)?;
            let forward_path = forward_path(path).ok_or(SyntaxError::ForwardPath)?;
            Ok(Self::Rcpt { forward_path, parameters })
        } else if is("BDAT") {
            parse_chunk(argument).ok_or(SyntaxError::Chunk)
        } else if is("EHLO") {
            Ok(Self::Ehlo { name: parse_name(argument)? })
        } else if is("HELO") {
            Ok(Self::Helo { name: parse_name(argument)? })
        } else if is("LHLO") {
            Ok(Self::Lhlo { name: parse_name(argument)? })
        } else if is("DATA") {
            alone(argument, Self::Data)
        } else if is("RSET") {
            alone(argument, Self::Rset)
        } else if is("QUIT") {
            alone(argument, Self::Quit)
        } else if is("STARTTLS") {
            alone(argument, Self::StartTls)
        } else if is("NOOP") {
            // RFC 5321 §4.1.1.9: "If a parameter string is specified, servers SHOULD ignore it."
            Ok(Self::Noop)
        } else if is("HELP") {
            Ok(Self::Help)
        } else if is("VRFY") {
            if argument.is_empty() { Err(SyntaxError::Argument) } else { Ok(Self::Vrfy) }
        } else if is("XCLIENT") {
            let claims = std::str::from_utf8(argument).ok().and_then(Claims::parse);
            claims.map(|claims| Self::Xclient { claims: claims.into() }).ok_or(SyntaxError::Argument)
        } else if is("ATRN") {
            parse_domains(argument).map(|domains| Self::Atrn { domains }).ok_or(SyntaxError::Argument)
        } else if is("XFORWARD") {
            let forwarding = std::str::from_utf8(argument).ok().and_then(Forwarding::parse);
            let command = |forwarding: Forwarding| Self::Xforward { forwarding: forwarding.into() };
            forwarding.map(command).ok_or(SyntaxError::Argument)
        } else if is("ETRN") {
            let node = std::str::from_utf8(argument).ok().and_then(Node::parse);
            node.map(|node| Self::Etrn { node }).ok_or(SyntaxError::Argument)
        } else if NOT_IMPLEMENTED.into_iter().any(is) {
            Err(SyntaxError::NotImplemented)
        } else if is_like_chunk(line) {
            Err(SyntaxError::Chunk)
        } else {
            Err(SyntaxError::UnknownVerb)
        }
    }
}

/// Whether somebody may take this line for a `BDAT`, with an HT for its space, say: a chunk would come behind it.
fn is_like_chunk(line: &[u8]) -> bool {
    let word = line.split(|byte| !byte.is_ascii_alphanumeric()).find(|word| !word.is_empty());
    word.is_some_and(|word| word.eq_ignore_ascii_case(b"BDAT"))
}

fn alone<'a>(argument: &[u8], command: Command<'a>) -> Result<Command<'a>, SyntaxError> {
    if argument.is_empty() { Ok(command) } else { Err(SyntaxError::Argument) }
}

/// The verb and what follows it, without the spaces between.
fn verb(line: &[u8]) -> (&[u8], &[u8]) {
    let end = line.iter().position(|b| *b == b' ').unwrap_or(line.len());
    let (verb, argument) = line.split_at(end);
    (verb, trim_start(argument))
}

/// The client's name for itself.
// Looser than RFC 5321 §4.1.1.1: "SHOULD" is not obeyed by every client, so anything goes that can stand in a
// Received field without being taken for something else.
fn parse_name(argument: &[u8]) -> Result<&str, SyntaxError> {
    let name = std::str::from_utf8(argument).map_err(|_| SyntaxError::Argument)?;
    if is_name(argument) { Ok(name) } else { Err(SyntaxError::Argument) }
}

pub(crate) fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && name.len() <= NAME_MAX && name.iter().copied().all(is_plain)
}

/// Whether it can stand in a header field without being taken for something else.
pub(crate) const fn is_plain(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'"' | b'(' | b')' | b',' | b';' | b'<' | b'>' | b'\\')
}

/// `[domain *("," domain)]` (RFC 2645 §5.2.1).
fn parse_domains(argument: &[u8]) -> Option<Vec<Domain>> {
    let text = std::str::from_utf8(argument).ok()?;
    if text.is_empty() {
        return Some(Vec::new());
    }
    text.split(',').map(|domain| Domain::parse(domain).ok()).collect()
}

/// `chunk-size [SP "LAST"]` (RFC 3030 §2).
fn parse_chunk(argument: &[u8]) -> Option<Command<'_>> {
    let (size, rest) = verb(argument);
    let last = match rest {
        b"" => false,
        rest if rest.eq_ignore_ascii_case(b"LAST") => true,
        _ => return None,
    };
    Some(Command::Bdat { size: parse_number(size)?, last })
}

/// `1*DIGIT` without a sign.
pub(crate) fn parse_number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// Parts `FROM:<path> parameters` into what stands between the angle brackets and the parameters.
fn parse_path<'a>(argument: &'a [u8], keyword: &str) -> Option<(&'a [u8], Parameters<'a>)> {
    let (given, rest) = argument.split_at_checked(keyword.len())?;
    if !given.eq_ignore_ascii_case(keyword.as_bytes()) {
        return None;
    }
    // Looser than RFC 5321 §4.1.1.2: some clients leave a space after the colon.
    let rest = trim_start(rest).strip_prefix(b"<")?;
    let end = path_end(rest)?;
    let parameters = &rest[end + 1..];
    match parameters {
        [] | [b' ', ..] => Some((&rest[..end], Parameters::new(trim_start(parameters)))),
        _ => None,
    }
}

/// Where the `>` is that is not inside a quoted string.
fn path_end(path: &[u8]) -> Option<usize> {
    let mut quoted = false;
    let mut i = 0;
    while let Some(byte) = path.get(i) {
        match byte {
            b'\\' if quoted => i += 1,
            b'"' => quoted = !quoted,
            b'>' if !quoted => return Some(i),
            _ => {}
        }
        i += 1;
    }
    None
}

fn reverse_path(path: &[u8]) -> Option<ReversePath> {
    match path {
        b"" => Some(ReversePath::Null),
        path => Address::parse(skip_route(path)?).ok().map(ReversePath::Address),
    }
}

fn forward_path(path: &[u8]) -> Option<ForwardPath> {
    // RFC 5321 §4.1.1.3: "the reserved mailbox name "postmaster" without domain specification".
    if path.eq_ignore_ascii_case(b"postmaster") {
        return Some(ForwardPath::Postmaster);
    }
    Address::parse(skip_route(path)?).ok().map(ForwardPath::Address)
}

/// A source route `@a,@b:` "MUST be accepted, SHOULD NOT be generated, and SHOULD be ignored"
/// (RFC 5321 §4.1.2, appendix C).
fn skip_route(path: &[u8]) -> Option<&[u8]> {
    let mut rest = path;
    if !rest.starts_with(b"@") {
        return Some(path);
    }
    loop {
        rest = rest.strip_prefix(b"@")?;
        // A colon inside an address literal does not end the route.
        let literal = if rest.starts_with(b"[") { rest.iter().position(|b| *b == b']')? } else { 0 };
        let end = literal + rest[literal..].iter().position(|b| matches!(b, b',' | b':'))?;
        Domain::parse(std::str::from_utf8(&rest[..end]).ok()?).ok()?;
        let separator = rest[end];
        rest = &rest[end + 1..];
        if separator == b':' {
            return Some(rest);
        }
    }
}

pub(crate) fn trim_start(bytes: &[u8]) -> &[u8] {
    let start = bytes.iter().position(|b| *b != b' ').unwrap_or(bytes.len());
    &bytes[start..]
}

fn trim_end(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|b| !matches!(b, b' ' | b'\t')).map_or(0, |last| last + 1);
    &bytes[..end]
}

#[cfg(test)]
#[path = "command_test.rs"]
mod test;
