//! Where mail goes that leaves by no connection of ours: programs, and services that speak HTTP.

use std::{path::PathBuf, time::Duration};

use mail::Domain;

use crate::{
    Config, Host, Via,
    notation::{FilePath, List, Literal, Maybe, Size, Spelled, Text, Time, Whole, Word, YesNo},
    reader::Reader,
    schema::{Entry, choice, section},
};

const SECOND: u64 = 1_000;
const HOUR: u64 = 3_600 * SECOND;
const KIB: u64 = 1 << 10;
const GIB: u64 = 1 << 30;

choice! {
    /// How the lines end that a program reads.
    pub enum ProgramLines {
        /// with LF, as programs of this system have it
        Lf = "lf",
        /// with CR LF, as it is in transport
        CrLf = "crlf",
    }
}

choice! {
    /// What the body of a request is.
    pub enum EndpointBody {
        /// the message (`message/rfc822`); the envelope is in the fields Mail-From and Rcpt-To
        Message = "message",
        /// a JSON object: id, envelope and message
        Json = "json",
    }
}

/// Where a service is: `https://host:port/path`, or `http:` for one on the same host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EndpointUrl {
    /// Whether under TLS.
    pub secure: bool,
    /// The host.
    pub host: Host,
    /// The port.
    pub port: u16,
    /// From the first slash on.
    pub path: String,
}

section! {
    /// A program that is given mail, for routes with via = "pipe"; or one that says a token, for a `[[credential]]`. It is started
    /// without a shell, for each message anew, and reads the message at its standard input. The server cannot start programs
    /// itself: a small process does, which reads this section itself from the files of the configuration, at the start and at each
    /// reload, so that nobody but who writes those says what is run. The first program of a configuration takes a restart.
    pub struct Program {
        /// In messages and logs, and for routes to name it: letters, digits, - and _.
        name: String [Text] = String::new();
        /// The path of the program, and its arguments. In an argument, {sender}, {recipient}, {local-part}, {domain} and {id} stand for what
        /// they say; one that is {recipients} alone becomes one argument for each recipient. An address that would begin an
        /// argument with "-" is not given to a program: the mail comes back.
        command: Vec<String> [List<Text>] = Vec::new();
        /// As which user it runs. Empty: as the server does. Another takes a server that was started as root.
        user: Option<String> [Maybe<Text>] = None;
        /// In which group. Empty: that of the user.
        group: Option<String> [Maybe<Text>] = None;
        /// Where it runs.
        directory: String [Text] = "/".into();
        /// Variables of its environment, "NAME=value", besides PATH, SENDER, RECIPIENT and QUEUE_ID. Nothing else of ours is handed on.
        environment: Vec<String> [List<Text>] = Vec::new();
        /// After so long it is ended, with all that it has started, and the mail is tried again.
        timeout: Duration [Time<{ SECOND }, { 24 * HOUR }>] = Duration::from_secs(1_000);
        /// What of its output is read; what is beyond is thrown away.
        output_max: u64 [Size<{ KIB }, { 1024 * KIB }>] = 8 << 10;
        /// What it has started and left behind may hold its output open: so much longer that is read.
        linger: Duration [Time<0, { 60 * SECOND }>] = Duration::from_millis(200);
        /// So long after `timeout` the process that runs programs is waited for to say how it ended; then the mail is tried again.
        grace: Duration [Time<{ SECOND }, { HOUR }>] = Duration::from_secs(30);
        /// Recipients of a message for whom it is started at once. They all share what comes of it.
        recipients_max: u32 [Whole<1, 50>] = 1;
        /// How lines end that it reads.
        line_ends: ProgramLines [Word] = ProgramLines::Lf;
        /// Whether the field Return-Path with the sender is before the message (RFC 5321 §4.4).
        return_path: bool [YesNo] = true;
        /// Whether the field Delivered-To with the recipient is before the message, where there is one recipient: who finds it there
        /// again has gone in a circle, and the mail comes back.
        delivered_to: bool [YesNo] = true;
        /// Whether a line "From sender date" is before the message, and lines within that look so are quoted with ">" (RFC 4155).
        mbox_from: bool [YesNo] = false;
        /// Exit codes that send mail back, as sysexits.h has them: 65 (bad data), 67 (no such user), 68 (no such host), 69 (not to be had), 76
        /// (protocol), 77 (not allowed). 0 is success; with any other the mail is tried again. What the program writes is the text of the
        /// reply; a code such as "5.2.2" in front of it is its enhanced status.
        permanent: Vec<u8> [List<Whole<1, 255>>] = vec![65, 67, 68, 69, 76, 77];
        /// Memory that it may use. Empty: as much as there is.
        memory_max: Option<u64> [Maybe<Size<{ 1024 * KIB }, { 1024 * GIB }>>] = None;
        /// The longest file that it may write. Empty: any.
        file_max: Option<u64> [Maybe<Size<{ KIB }, { 1024 * GIB }>>] = None;
        /// Processor time that it may use. Empty: as much as it wants, within `timeout`.
        cpu_max: Option<Duration> [Maybe<Time<{ SECOND }, { 24 * HOUR }>>] = None;
        /// Whether it may gain rights from programs that are set-user-ID.
        new_privileges: bool [YesNo] = false;
    }
}

section! {
    /// A service that is given mail by HTTP, a POST for each message and recipient, for routes with via = "http". Any status from 200 to 299 says that it has
    /// the mail. Redirects are not followed. `Retry-After` is kept to.
    pub struct Endpoint {
        /// In messages and logs, and for routes to name it: letters, digits, - and _.
        name: String [Text] = String::new();
        /// Where it is. "http://" sends mail in clear and is for services on the same host.
        url: Option<EndpointUrl> [Maybe<Literal>] = None;
        /// What a request holds.
        body: EndpointBody [Word] = EndpointBody::Message;
        /// Fields of each request besides ours, "Name: value". What is secret belongs into a credential.
        headers: Vec<String> [List<Text>] = Vec::new();
        /// As whom we log in, the name of a `[[credential]]`: a token is sent as `Bearer` (RFC 6750), user and password as `Basic` (RFC 7617).
        /// Empty: we do not.
        credential: Option<String> [Maybe<Text>] = None;
        /// The file of a secret, one line. Requests are signed with it, as "Standard Webhooks" has it: webhook-id, webhook-timestamp and
        /// webhook-signature, the HMAC-SHA-256 of the two and the body. Others may not read the file. Empty: they are not signed.
        secret_file: Option<PathBuf> [Maybe<FilePath>] = None;
        /// Recipients of a message in one request. They all share what comes of it.
        recipients_max: u32 [Whole<1, 1000>] = 1;
        /// How long a request may take.
        timeout: Duration [Time<{ SECOND }, { HOUR }>] = Duration::from_secs(60);
        /// Statuses that send mail back: with any other (but 200 to 299) it is tried again. 406 is what says "do not send this again" to other
        /// services that post mail; 410 gone, 413 too large, 415 and 422 not understood.
        permanent: Vec<u16> [List<Whole<400, 599>>] = vec![406, 410, 413, 415, 422];
    }
}

impl Entry for Program {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn sample() -> Self {
        let command = ["/usr/lib/dovecot/dovecot-lda", "-f", "{sender}", "-d", "{recipient}"];
        Self {
            name: "lda".into(),
            command: command.map(String::from).to_vec(),
            user: Some("vmail".into()),
            ..Self::default()
        }
    }
}

impl Entry for Endpoint {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn sample() -> Self {
        Self {
            name: "intake".into(),
            url: Some(
                <EndpointUrl as Spelled>::parse("https://intake.example.org/mail").expect("our own text"),
            ),
            secret_file: Some("intake.secret".into()),
            ..Self::default()
        }
    }
}

impl Spelled for EndpointUrl {
    const KIND: &'static str = "URL";
    const EXPECTED: &'static str =
        "a URL such as \"https://intake.example.org/mail\" or \"http://127.0.0.1:8080/mail\"";

    fn parse(text: &str) -> Result<Self, String> {
        let (secure, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) => return Err("it begins with https:// or http://".into()),
        };
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err("name a `credential` instead of a user in the URL".into());
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) || text.contains('#') {
            return Err("what is no ASCII is written in percent-encoding, and there is no fragment".into());
        }
        let port = if secure { 443 } else { 80 };
        let bracketed = authority.strip_prefix('[').and_then(|rest| rest.split_once(']'));
        let (host, written) = match bracketed {
            Some((address, rest)) => (address, rest.strip_prefix(':')),
            None => match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        let port = match written {
            Some(port) => {
                port.parse().ok().filter(|port| *port > 0).ok_or("the port is a number from 1 to 65535")?
            }
            None => port,
        };
        let host = match host.parse() {
            Ok(address) => Host::Address(address),
            Err(_) => Host::Name(Domain::parse(host).map_err(|error| error.to_string())?),
        };
        let path = if path.is_empty() { "/".into() } else { path.into() };
        Ok(Self { secure, host, port, path })
    }

    fn spell(&self) -> String {
        let scheme = if self.secure { "https" } else { "http" };
        let host = match &self.host {
            Host::Address(std::net::IpAddr::V6(address)) => format!("[{address}]"),
            Host::Address(address) => address.to_string(),
            Host::Name(name) => name.to_string(),
            Host::Unix(path) => path.display().to_string(),
        };
        let port = if self.port == if self.secure { 443 } else { 80 } {
            String::new()
        } else {
            format!(":{}", self.port)
        };
        format!("{scheme}://{host}{port}{}", self.path)
    }
}

/// Names are parts of the keys by which the queue knows where mail goes.
fn is_plain(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 64
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

impl Config {
    /// The program of that name.
    pub fn program(&self, name: &str) -> Option<&Program> {
        self.programs.iter().find(|program| program.name.eq_ignore_ascii_case(name))
    }

    /// The service of that name.
    pub fn endpoint(&self, name: &str) -> Option<&Endpoint> {
        self.endpoints.iter().find(|endpoint| endpoint.name.eq_ignore_ascii_case(name))
    }

    pub(crate) fn check_means(&self, reader: &mut Reader<'_>) {
        for program in &self.programs {
            let key = format!("program.{}", program.name.to_ascii_lowercase());
            check_plain(&key, &program.name, reader);
            check_command(&key, program, reader);
            if !program.directory.starts_with('/') {
                let problem = format!("\"{}\" is no path from the root on", program.directory);
                reader.conflict(
                    &[&format!("{key}.directory")],
                    problem,
                    "write the whole path of a directory",
                );
            }
            if program.group.is_some() && program.user.is_none() {
                reader.missing(&key, "user = \"vmail\"", "a group goes with a user");
            }
            for variable in &program.environment {
                let name = variable.split_once('=').map_or("", |(name, _)| name);
                let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
                if name.is_empty() || !name.bytes().all(is_name) || variable.contains('\0') {
                    let problem = format!("\"{variable}\" is no variable");
                    reader.conflict(&[&format!("{key}.environment")], problem, "write \"NAME=value\"");
                }
            }
        }
        for endpoint in &self.endpoints {
            let key = format!("endpoint.{}", endpoint.name.to_ascii_lowercase());
            check_plain(&key, &endpoint.name, reader);
            let Some(url) = &endpoint.url else {
                reader.missing(&key, "url = \"https://intake.example.org/mail\"", "say where it is");
                continue;
            };
            for header in &endpoint.headers {
                if !is_header(header) {
                    let problem = format!("\"{header}\" is no field of a request that may be set here");
                    let remedy = "write \"Name: value\", with a name that is not one of ours";
                    reader.conflict(&[&format!("{key}.headers")], problem, remedy);
                }
            }
            let Some(name) = &endpoint.credential else { continue };
            let at = format!("{key}.credential");
            if self.credential(name).is_none() {
                let problem = format!("there is no `[[credential]]` with the name {name}");
                reader.conflict(&[&at], problem, "name one that there is");
            } else if !url.secure && !url.is_loopback() {
                let problem = "a secret would be sent in clear".to_owned();
                reader.conflict(&[&format!("{key}.url"), &at], problem, "use https://, or log in nowhere");
            }
        }
        for route in &self.routes {
            let key = format!("route.{}", route.name.to_ascii_lowercase());
            let named = [
                (
                    "program",
                    Via::Pipe,
                    &route.program,
                    route.program.as_ref().map(|name| self.program(name).is_some()),
                ),
                (
                    "endpoint",
                    Via::Http,
                    &route.endpoint,
                    route.endpoint.as_ref().map(|name| self.endpoint(name).is_some()),
                ),
            ];
            for (what, via, name, exists) in named {
                let at = format!("{key}.{what}");
                match (route.via == via, name, exists) {
                    (true, None, _) => {
                        let wanted = format!("{what} = \"name\"");
                        let remedy = format!("via = \"{via}\" needs one; name a `[[{what}]]`");
                        reader.missing(&key, &wanted, &remedy);
                    }
                    (true, Some(name), Some(false)) => {
                        let problem = format!("there is no `[[{what}]]` with the name {name}");
                        reader.conflict(&[&at], problem, "name one that there is");
                    }
                    (false, Some(_), _) => {
                        let problem =
                            format!("this is for via = \"{via}\", and not for via = \"{}\"", route.via);
                        reader.conflict(&[&at], problem, "change `via`, or leave it out");
                    }
                    (true, Some(_), Some(true) | None) | (false, None, _) => {}
                }
            }
        }
    }
}

impl EndpointUrl {
    /// Whether what is sent there does not leave the host.
    pub fn is_loopback(&self) -> bool {
        match &self.host {
            Host::Address(address) => address.is_loopback(),
            Host::Name(name) => name.as_str() == "localhost",
            Host::Unix(_) => true,
        }
    }
}

fn check_plain(key: &str, name: &str, reader: &mut Reader<'_>) {
    if !is_plain(name) {
        let problem = format!("\"{name}\" is no name of letters, digits, - and _, 64 at most");
        reader.conflict(&[&format!("{key}.name")], problem, "name it by one such word");
    }
}

fn check_command(key: &str, program: &Program, reader: &mut Reader<'_>) {
    let Some(path) = program.command.first() else {
        return reader.missing(key, "command = [\"/usr/bin/program\"]", "say what is to be run");
    };
    let at = format!("{key}.command");
    if !path.starts_with('/') {
        let problem = format!("\"{path}\" is no path from the root on");
        return reader.conflict(&[&at], problem, "write the whole path of the program");
    }
    for argument in &program.command {
        let unknown = placeholders(argument).find(|name| !PLACEHOLDERS.contains(name));
        if let Some(unknown) = unknown {
            let problem = format!("{{{unknown}}} stands for nothing");
            let remedy = "there are {sender}, {recipient}, {recipients}, {local-part}, {domain} and {id}";
            reader.conflict(&[&at], problem, remedy);
        }
        let is_alone = argument == "{recipients}";
        if !is_alone && argument.contains("{recipients}") {
            let problem = "{recipients} is an argument by itself, which becomes several".to_owned();
            reader.conflict(&[&at], problem, "let it stand alone, or write {recipient}");
        }
        let of_one = ["{recipient}", "{local-part}", "{domain}"];
        if program.recipients_max > 1 && of_one.iter().any(|one| argument.contains(one)) {
            let problem =
                format!("\"{argument}\" is for one recipient, and there may be {}", program.recipients_max);
            let remedy = "set recipients-max = 1, or use {recipients}";
            reader.conflict(&[&at, &format!("{key}.recipients-max")], problem, remedy);
        }
    }
}

/// What may stand in braces.
const PLACEHOLDERS: [&str; 6] = ["sender", "recipient", "recipients", "local-part", "domain", "id"];

/// What stands in braces in an argument, as far as it looks like a name.
fn placeholders(argument: &str) -> impl Iterator<Item = &str> {
    argument.split('{').skip(1).filter_map(|rest| {
        let (name, _) = rest.split_once('}')?;
        let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
        is_name.then_some(name)
    })
}

/// Whether it is a field that a request may have besides ours (RFC 9110 §5.1).
fn is_header(header: &str) -> bool {
    const OURS: [&str; 9] = [
        "host",
        "content-type",
        "content-length",
        "transfer-encoding",
        "connection",
        "authorization",
        "mail-from",
        "rcpt-to",
        "idempotency-key",
    ];
    let Some((name, value)) = header.split_once(':') else { return false };
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let is_ours =
        OURS.contains(&&*name.to_ascii_lowercase()) || name.to_ascii_lowercase().starts_with("webhook-");
    let is_text = |byte: u8| byte == b'\t' || (b' '..=b'~').contains(&byte);
    !name.is_empty() && name.bytes().all(is_token) && !is_ours && value.bytes().all(is_text)
}
