//! A request's JSON to drafts of messages, with every mistake in its place.
//!
//! Nothing is guessed: a field that is not in the tables of `fields`, a value of another kind, a variable that nobody
//! gives, each is told with a JSON pointer (RFC 6901) and what to do. Several mistakes are told at once.

use std::{borrow::Cow, fmt};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use mail::{Address, ReversePath};

use crate::{
    fields::{self, Object},
    json::Json,
    mailbox::{self, Mailbox},
    raw,
    template::{self, Escape, Template, Variables},
};

/// Upper bounds. Everything has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Messages of one request.
    pub messages_max: usize,
    /// Values in its JSON.
    pub values_max: usize,
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Fault {
    /// Where, as a JSON pointer into the request.
    pub pointer: String,
    /// What.
    pub detail: String,
    /// What to do.
    pub remedy: String,
}

/// Why a request cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// It is not JSON.
    Json(String),
    /// It is not what it should be; the first mistakes.
    Faults(Vec<Fault>),
}

/// A request, understood.
#[derive(Debug)]
pub struct Request {
    pub(crate) drafts: Vec<Draft>,
    pub(crate) shape: Shape,
}

/// Whether one message was asked for, or several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    One,
    Many,
}

/// A message, of which there may be several copies.
#[derive(Debug)]
pub(crate) struct Draft {
    /// Its place: empty, or `/messages/3`.
    pub(crate) pointer: String,
    /// Where reports go, when the request says so.
    pub(crate) reverse_path: Option<ReversePath>,
    pub(crate) content: Content,
    pub(crate) copies: Vec<Copy>,
}

/// What a message is made of.
#[derive(Debug)]
pub(crate) enum Content {
    Parts(Box<Parts>),
    /// Whole, with lines that end in CRLF and without Bcc.
    Raw(Vec<u8>),
}

/// What all copies have in common.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) from: Vec<Mailbox>,
    pub(crate) reply_to: Vec<Mailbox>,
    pub(crate) subject: Option<Template>,
    pub(crate) text: Option<Template>,
    pub(crate) html: Option<Template>,
    pub(crate) headers: Vec<(String, Template)>,
    pub(crate) attachments: Vec<Part>,
    pub(crate) inline: Vec<Part>,
}

/// An attachment or an inline part, its octets in base64 and in lines.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) content_type: String,
    pub(crate) filename: Option<String>,
    pub(crate) content_id: Option<String>,
    pub(crate) encoded: Vec<u8>,
}

/// One message of a draft.
#[derive(Debug, Default)]
pub(crate) struct Copy {
    /// Its place: that of the draft, or `/recipients/7` below it.
    pub(crate) pointer: String,
    pub(crate) to: Vec<Mailbox>,
    pub(crate) cc: Vec<Mailbox>,
    pub(crate) bcc: Vec<Mailbox>,
    /// Who gets it, when that is not those three.
    pub(crate) envelope_to: Vec<Address>,
    pub(crate) variables: Variables,
}

/// Mistakes beyond this many are not told.
const FAULTS_MAX: usize = 20;
/// Text of the request in a message about it.
const SHOWN_MAX: usize = 100;

/// Understands a request.
///
/// # Errors
/// [`DecodeError`].
pub fn request(text: &[u8], limits: Limits) -> Result<Request, DecodeError> {
    let value = Json::parse(text, limits.values_max).map_err(|error| DecodeError::Json(error.to_string()))?;
    let mut reader =
        Reader { faults: Vec::new(), messages_left: limits.messages_max, messages_max: limits.messages_max };
    let request = reader.request(value);
    match request {
        Some(request) if reader.faults.is_empty() => Ok(request),
        Some(_) | None => Err(DecodeError::Faults(reader.faults)),
    }
}

/// A request that is one whole message. The envelope comes from the query.
///
/// # Errors
/// [`DecodeError::Faults`].
pub(crate) fn whole(content: Vec<u8>, query: &[(String, String)]) -> Result<Request, DecodeError> {
    let mut reader = Reader { faults: Vec::new(), messages_left: 1, messages_max: 1 };
    let at = At::ROOT;
    let (mut from, mut to) = (None, Vec::new());
    for (name, value) in query {
        match name.as_str() {
            "envelope_from" if from.is_none() => from = reader.reverse_path(at.name("envelope_from"), value),
            "envelope_to" => match mailbox::list(value) {
                Ok(found) => to.extend(found.into_iter().map(|mailbox| mailbox.address)),
                Err(error) => reader.fault(at.name("envelope_to"), error.to_string(), MAILBOX_REMEDY),
            },
            _ => reader.fault(
                at.name(name),
                "this parameter is unknown, or stands twice".into(),
                "the query may have envelope_from once and envelope_to as often as you like",
            ),
        }
    }
    let draft = reader.whole(at, content, from, to);
    match draft {
        Some(draft) if reader.faults.is_empty() => Ok(Request { drafts: vec![draft], shape: Shape::One }),
        Some(_) | None => Err(DecodeError::Faults(reader.faults)),
    }
}

/// The messages of a request, or what keeps one from being made: for the fuzz target.
pub fn compose_all(request: &Request) -> Vec<Result<Vec<u8>, Fault>> {
    let copies = request.drafts.iter().flat_map(|draft| draft.copies.iter().map(move |copy| (draft, copy)));
    copies.map(|(draft, copy)| crate::compose::message(draft, copy)).collect()
}

/// A place in the request.
#[derive(Clone, Copy)]
struct At<'p> {
    above: Option<&'p At<'p>>,
    step: Step<'p>,
}

#[derive(Clone, Copy)]
enum Step<'p> {
    Root,
    Name(&'p str),
    Place(usize),
}

impl<'p> At<'p> {
    const ROOT: At<'static> = At { above: None, step: Step::Root };

    fn name(&'p self, name: &'p str) -> At<'p> {
        At { above: Some(self), step: Step::Name(name) }
    }

    fn place(&'p self, place: usize) -> At<'p> {
        At { above: Some(self), step: Step::Place(place) }
    }
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.above.map_or(Ok(()), |above| above.fmt(f))?;
        match self.step {
            Step::Root => Ok(()),
            // RFC 6901 §3.
            Step::Name(name) => write!(f, "/{}", shown(name).replace('~', "~0").replace('/', "~1")),
            Step::Place(place) => write!(f, "/{place}"),
        }
    }
}

/// The fields of an object that nobody has asked for yet.
struct Left<'a> {
    of: &'static Object,
    fields: Vec<(Cow<'a, str>, Json<'a>)>,
}

impl<'a> Left<'a> {
    fn take(&mut self, name: &'static str) -> Option<Json<'a>> {
        debug_assert!(self.of.has(name), "{} has no field {name} in its table", self.of.name);
        let at = self.fields.iter().position(|(other, _)| other == name)?;
        Some(self.fields.swap_remove(at).1)
    }

    fn has(&self, name: &str) -> bool {
        self.fields.iter().any(|(other, _)| other == name)
    }
}

struct Reader {
    faults: Vec<Fault>,
    messages_left: usize,
    messages_max: usize,
}

const MAILBOX_REMEDY: &str = "write \"ann@example.org\", \"Ann Example <ann@example.org>\" or \
    {\"address\": \"ann@example.org\", \"name\": \"Ann Example\"}";

impl Reader {
    fn fault(&mut self, at: At<'_>, detail: String, remedy: &str) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(Fault { pointer: at.to_string(), detail, remedy: remedy.to_owned() });
        }
    }

    fn wrong_kind(&mut self, at: At<'_>, found: &Json<'_>, expected: &str) {
        self.fault(at, format!("this is {}", found.kind()), &format!("write {expected}"));
    }

    fn request(&mut self, value: Json<'_>) -> Option<Request> {
        let at = At::ROOT;
        let is_batch =
            matches!(&value, Json::Object(fields) if fields.iter().any(|(name, _)| name == "messages"));
        if !is_batch {
            let several =
                matches!(&value, Json::Object(fields) if fields.iter().any(|(name, _)| name == "recipients"));
            let drafts = vec![self.draft(at, value)?];
            return Some(Request { drafts, shape: if several { Shape::Many } else { Shape::One } });
        }
        let mut left = self.object(at, value, &fields::BATCH)?;
        let messages = left.take("messages");
        self.nothing_left(at, left);
        let (at, before) = (at.name("messages"), self.faults.len());
        let drafts =
            self.list(at, messages?, "an array of messages", |reader, at, value| reader.draft(at, value))?;
        if drafts.is_empty() && self.faults.len() == before {
            self.fault(at, "there is no message".into(), "put at least one into the array");
        }
        Some(Request { drafts, shape: Shape::Many })
    }

    fn draft(&mut self, at: At<'_>, value: Json<'_>) -> Option<Draft> {
        let mut left = self.object(at, value, &fields::MESSAGE)?;
        let reverse_path = match left.take("envelope_from") {
            None => None,
            Some(value) => {
                let at = at.name("envelope_from");
                let text = self.text(at, value)?;
                Some(self.reverse_path(at, &text)?)
            }
        };
        if let Some(raw) = left.take("raw") {
            let encoded = self.text(at.name("raw"), raw);
            let to = left.take("envelope_to").map(|value| self.mailboxes(at.name("envelope_to"), value));
            let to = to.unwrap_or_default().into_iter().map(|mailbox| mailbox.address).collect();
            for (name, _) in std::mem::take(&mut left.fields) {
                let remedy = "write it into the message, or leave `raw` out";
                self.fault(at.name(&name), "it has no meaning beside `raw`".into(), remedy);
            }
            let content = self.base64(at.name("raw"), &encoded?)?;
            return self.whole(at, content, reverse_path, to);
        }
        if left.take("envelope_to").is_some() {
            let remedy = "write who gets the message into to, cc and bcc";
            self.fault(at.name("envelope_to"), "it has a meaning only beside `raw`".into(), remedy);
        }
        let is_template =
            if left.has("recipients") || left.has("variables") { Places::Filled } else { Places::None };
        let variables = self.variables(at.name("variables"), left.take("variables"));
        let copies = self.copies(at, &mut left, variables);
        let parts = self.parts(at, &mut left, is_template);
        self.nothing_left(at, left);
        let parts = parts?;
        self.check_templates(at, &parts, &copies);
        Some(Draft {
            pointer: at.to_string(),
            reverse_path,
            content: Content::Parts(Box::new(parts)),
            copies,
        })
    }

    fn parts(&mut self, at: At<'_>, left: &mut Left<'_>, places: Places) -> Option<Parts> {
        let before = self.faults.len();
        let from = match left.take("from") {
            Some(from) => self.mailboxes(at.name("from"), from),
            None => Vec::new(),
        };
        if from.is_empty() && self.faults.len() == before {
            self.fault(at.name("from"), "nobody is named".into(), MAILBOX_REMEDY);
        }
        let has_content = ["text", "html", "attachments", "inline"].iter().any(|name| left.has(name));
        let reply_to = left.take("reply_to").map(|value| self.mailboxes(at.name("reply_to"), value));
        let mut template = |reader: &mut Self, name: &'static str, escape| {
            let value = left.take(name)?;
            let at = at.name(name);
            let text = reader.text(at, value)?.into_owned();
            reader.template(at, text, places, escape)
        };
        let subject = template(self, "subject", Escape::None);
        let text = template(self, "text", Escape::None);
        let html = template(self, "html", Escape::Html);
        let headers = self.headers(at.name("headers"), left.take("headers"), places);
        let mut files = |reader: &mut Self, name: &'static str, inline| match left.take(name) {
            Some(value) => reader.files(at.name(name), value, inline),
            None => Vec::new(),
        };
        let attachments = files(self, "attachments", Inline::No);
        let inline = files(self, "inline", Inline::Yes);
        if !has_content {
            self.fault(at, "the message has no content".into(), "give it `text`, `html` or `attachments`");
        }
        Some(Parts {
            from,
            reply_to: reply_to.unwrap_or_default(),
            subject,
            text,
            html,
            headers,
            attachments,
            inline,
        })
    }

    fn copies(&mut self, at: At<'_>, left: &mut Left<'_>, variables: Variables) -> Vec<Copy> {
        let Some(recipients) = left.take("recipients") else {
            let copy = self.copy(at, left, variables);
            return copy.into_iter().collect();
        };
        for name in ["to", "cc", "bcc"] {
            if left.take(name).is_some() {
                let remedy = "write it into each of `recipients`, or leave `recipients` out";
                self.fault(at.name(name), "it has no meaning beside `recipients`".into(), remedy);
            }
        }
        let (at, before) = (at.name("recipients"), self.faults.len());
        let copies = self.list(at, recipients, "an array of recipients", |reader, at, value| {
            let mut left = reader.object(at, value, &fields::COPY)?;
            let mut own = variables.clone();
            own.extend(reader.variables(at.name("variables"), left.take("variables")));
            let copy = reader.copy(at, &mut left, own);
            reader.nothing_left(at, left);
            copy
        });
        let copies = copies.unwrap_or_default();
        if copies.is_empty() && self.faults.len() == before {
            self.fault(at, "there is nobody in it".into(), "put at least one recipient into the array");
        }
        copies
    }

    fn copy(&mut self, at: At<'_>, left: &mut Left<'_>, variables: Variables) -> Option<Copy> {
        self.count_message(at)?;
        let before = self.faults.len();
        let mut of = |name: &'static str| match left.take(name) {
            Some(value) => self.mailboxes(at.name(name), value),
            None => Vec::new(),
        };
        let (to, cc, bcc) = (of("to"), of("cc"), of("bcc"));
        if to.is_empty() && cc.is_empty() && bcc.is_empty() && self.faults.len() == before {
            self.fault(at.name("to"), "the message has no recipient".into(), "name one in to, cc or bcc");
        }
        Some(Copy { pointer: at.to_string(), to, cc, bcc, envelope_to: Vec::new(), variables })
    }

    fn whole(
        &mut self,
        at: At<'_>,
        content: Vec<u8>,
        reverse_path: Option<ReversePath>,
        envelope_to: Vec<Address>,
    ) -> Option<Draft> {
        self.count_message(at)?;
        let place = if matches!(at.step, Step::Root) && self.messages_max == 1 { at } else { at.name("raw") };
        let whole = match raw::prepare(content) {
            Ok(whole) => whole,
            Err(error) => {
                self.fault(place, error.to_string(), error.remedy());
                return None;
            }
        };
        let envelope_to = if envelope_to.is_empty() { whole.recipients } else { envelope_to };
        if envelope_to.is_empty() {
            let remedy = "name somebody in `envelope_to`, or in To, Cc or Bcc of the message";
            self.fault(place, "the message has no recipient".into(), remedy);
        }
        let reverse_path = reverse_path.or(whole.sender.map(ReversePath::Address));
        if reverse_path.is_none() {
            self.fault(
                place,
                "the message has no From that could be read".into(),
                "write one, or `envelope_from`",
            );
        }
        let copy = Copy { pointer: at.to_string(), envelope_to, ..Copy::default() };
        let content = Content::Raw(whole.content);
        Some(Draft { pointer: at.to_string(), reverse_path, content, copies: vec![copy] })
    }

    fn count_message(&mut self, at: At<'_>) -> Option<()> {
        match self.messages_left.checked_sub(1) {
            Some(left) => {
                self.messages_left = left;
                Some(())
            }
            None => {
                let detail = format!("these are more than {} messages", self.messages_max);
                if !self.faults.iter().any(|fault| fault.detail == detail) {
                    self.fault(at, detail, "send several requests, or raise http.batch-max");
                }
                None
            }
        }
    }

    fn headers(&mut self, at: At<'_>, value: Option<Json<'_>>, places: Places) -> Vec<(String, Template)> {
        let fields = match value {
            None => return Vec::new(),
            Some(Json::Object(fields)) => fields,
            Some(other) => {
                self.wrong_kind(at, &other, "an object of names and values");
                return Vec::new();
            }
        };
        let mut headers = Vec::new();
        for (name, value) in fields {
            let at = at.name(&name);
            if let Err((detail, remedy)) = may_be_given(&name) {
                self.fault(at, detail.into(), remedy);
                continue;
            }
            let values = match value {
                Json::List(values) => values,
                other @ (Json::Text(_) | Json::Null | Json::Bool(_) | Json::Number(_) | Json::Object(_)) => {
                    vec![other]
                }
            };
            for value in values {
                let template = self
                    .text(at, value)
                    .and_then(|text| self.template(at, text.into_owned(), places, Escape::None));
                headers.extend(template.map(|template| (name.to_string(), template)));
            }
        }
        headers
    }

    fn files(&mut self, at: At<'_>, value: Json<'_>, inline: Inline) -> Vec<Part> {
        let parts = self.list(at, value, "an array of parts", |reader, at, value| {
            let mut left = reader.object(at, value, &fields::PART)?;
            let mut text = |reader: &mut Self, name: &'static str| {
                let value = left.take(name)?;
                reader.word(at.name(name), value)
            };
            let content_type = text(reader, "content_type");
            let filename = text(reader, "filename");
            let content_id = text(reader, "content_id");
            let content = left.take("content");
            reader.nothing_left(at, left);
            let content_type = match content_type {
                None => "application/octet-stream".to_owned(),
                Some(text) => match media_type(&text) {
                    Ok(()) => text,
                    Err((detail, remedy)) => {
                        reader.fault(at.name("content_type"), detail.into(), remedy);
                        return None;
                    }
                },
            };
            match &content_id {
                None if inline == Inline::Yes => {
                    let remedy = "give it one, and name it in the HTML by \"cid:\"";
                    reader.fault(at.name("content_id"), "an inline part needs one".into(), remedy);
                }
                Some(id) if !is_content_id(id) => {
                    let remedy =
                        "visible ASCII characters without angle brackets, such as \"logo@example.org\"";
                    reader.fault(at.name("content_id"), "this is no Content-ID".into(), remedy);
                }
                Some(_) | None => {}
            }
            let Some(content) = content else {
                reader.fault(at.name("content"), "it has no content".into(), "write its octets in base64");
                return None;
            };
            let at = at.name("content");
            let text = reader.text(at, content)?;
            let octets = reader.base64(at, &text)?;
            Some(Part { content_type, filename, content_id, encoded: in_lines(&octets) })
        });
        parts.unwrap_or_default()
    }

    fn variables(&mut self, at: At<'_>, value: Option<Json<'_>>) -> Variables {
        let fields = match value {
            None => return Variables::new(),
            Some(Json::Object(fields)) => fields,
            Some(other) => {
                self.wrong_kind(at, &other, "an object of names and values");
                return Variables::new();
            }
        };
        let mut variables = Variables::new();
        for (name, value) in fields {
            let at = at.name(&name);
            if !template::is_name(&name) {
                let remedy = "letters, digits, \"_\", \"-\" and \".\", with a letter or \"_\" in front";
                self.fault(at, "this is no name of a variable".into(), remedy);
            }
            let text = match value {
                Json::Text(text) => text.into_owned(),
                Json::Number(number) => number,
                Json::Bool(value) => value.to_string(),
                other @ (Json::Null | Json::List(_) | Json::Object(_)) => {
                    self.wrong_kind(at, &other, "a string, a number or a boolean");
                    continue;
                }
            };
            variables.insert(name.into_owned(), text);
        }
        variables
    }

    /// That every copy gives every variable.
    fn check_templates(&mut self, at: At<'_>, parts: &Parts, copies: &[Copy]) {
        let named = [("subject", &parts.subject), ("text", &parts.text), ("html", &parts.html)];
        let named = named.iter().filter_map(|(name, template)| Some((*name, template.as_ref()?)));
        let headers = at.name("headers");
        let all: Vec<(At<'_>, &Template)> = named
            .map(|(name, template)| (at.name(name), template))
            .chain(parts.headers.iter().map(|(name, template)| (headers.name(name), template)))
            .collect();
        for copy in copies {
            for (place, template) in &all {
                if let Err(error) = template.check(&copy.variables) {
                    let of = if copy.pointer == at.to_string() { "" } else { &copy.pointer };
                    let detail = if of.is_empty() { error.to_string() } else { format!("{error}, for {of}") };
                    let remedy =
                        "give it a value in `variables`; two braces that are no place are written \\{{";
                    self.fault(*place, detail, remedy);
                }
            }
        }
    }

    fn template(&mut self, at: At<'_>, text: String, places: Places, escape: Escape) -> Option<Template> {
        if text.contains('\0') {
            let remedy = "take it out: a message cannot have it";
            self.fault(at, "there is a NUL in it".into(), remedy);
            return None;
        }
        match places {
            Places::None => Some(Template::literal(text)),
            Places::Filled => match Template::parse(text, escape) {
                Ok(template) => Some(template),
                Err(error) => {
                    let remedy = "write {{name}}; two braces that are no place are written \\{{";
                    self.fault(at, error.to_string(), remedy);
                    None
                }
            },
        }
    }

    fn reverse_path(&mut self, at: At<'_>, text: &str) -> Option<ReversePath> {
        if text.is_empty() || text == "<>" {
            return Some(ReversePath::Null);
        }
        match Address::parse(text.as_bytes()) {
            Ok(address) => Some(ReversePath::Address(address)),
            Err(error) => {
                let remedy = "write an address without a name, or \"\" for the null reverse-path";
                self.fault(at, format!("{:?}: {error}", shown(text)), remedy);
                None
            }
        }
    }

    /// A mailbox or an array of them; each string may have several.
    fn mailboxes(&mut self, at: At<'_>, value: Json<'_>) -> Vec<Mailbox> {
        let values = match value {
            Json::List(values) => values,
            Json::Text(text) => {
                return mailbox::list(&text).unwrap_or_else(|error| {
                    self.fault(at, error.to_string(), MAILBOX_REMEDY);
                    Vec::new()
                });
            }
            other @ (Json::Null | Json::Bool(_) | Json::Number(_) | Json::Object(_)) => {
                return self.mailbox(at, other).into_iter().collect();
            }
        };
        let mut found = Vec::with_capacity(values.len());
        for (place, value) in values.into_iter().enumerate() {
            found.extend(self.mailbox(at.place(place), value));
        }
        found
    }

    fn mailbox(&mut self, at: At<'_>, value: Json<'_>) -> Option<Mailbox> {
        let (text, name) = match value {
            Json::Text(text) => (text, None),
            object @ Json::Object(_) => {
                let mut left = self.object(at, object, &fields::MAILBOX)?;
                let (address, name) = (left.take("address"), left.take("name"));
                self.nothing_left(at, left);
                let name = name.and_then(|name| self.word(at.name("name"), name));
                let Some(address) = address else {
                    self.fault(at.name("address"), "it has no address".into(), MAILBOX_REMEDY);
                    return None;
                };
                (self.text(at.name("address"), address)?, Some(name.unwrap_or_default()))
            }
            other @ (Json::Null | Json::Bool(_) | Json::Number(_) | Json::List(_)) => {
                self.fault(at, format!("this is {}", other.kind()), MAILBOX_REMEDY);
                return None;
            }
        };
        let found = match name {
            None => mailbox::one(&text),
            Some(name) => Address::parse(text.as_bytes())
                .map(|address| Mailbox { name, address })
                .map_err(|error| mailbox::MailboxError::Address(shown(&text).into(), error)),
        };
        found.map_err(|error| self.fault(at, error.to_string(), MAILBOX_REMEDY)).ok()
    }

    fn object<'a>(&mut self, at: At<'_>, value: Json<'a>, of: &'static Object) -> Option<Left<'a>> {
        match value {
            Json::Object(fields) => Some(Left { of, fields }),
            other @ (Json::Null | Json::Bool(_) | Json::Number(_) | Json::Text(_) | Json::List(_)) => {
                self.wrong_kind(at, &other, &format!("an object with some of the fields {}", of.names()));
                None
            }
        }
    }

    fn nothing_left(&mut self, at: At<'_>, left: Left<'_>) {
        for (name, _) in &left.fields {
            let remedy = format!("the fields are {}", left.of.names());
            self.fault(at.name(name), "this field is unknown".into(), &remedy);
        }
    }

    fn list<'a, T>(
        &mut self,
        at: At<'_>,
        value: Json<'a>,
        expected: &str,
        mut one: impl FnMut(&mut Self, At<'_>, Json<'a>) -> Option<T>,
    ) -> Option<Vec<T>> {
        match value {
            Json::List(values) => {
                let mut found = Vec::with_capacity(values.len());
                for (place, value) in values.into_iter().enumerate() {
                    found.extend(one(self, at.place(place), value));
                    if self.faults.len() >= FAULTS_MAX {
                        break;
                    }
                }
                Some(found)
            }
            other @ (Json::Null | Json::Bool(_) | Json::Number(_) | Json::Text(_) | Json::Object(_)) => {
                self.wrong_kind(at, &other, expected);
                None
            }
        }
    }

    fn text<'a>(&mut self, at: At<'_>, value: Json<'a>) -> Option<Cow<'a, str>> {
        match value {
            Json::Text(text) => Some(text),
            other @ (Json::Null | Json::Bool(_) | Json::Number(_) | Json::List(_) | Json::Object(_)) => {
                self.wrong_kind(at, &other, "a string");
                None
            }
        }
    }

    /// A text of one line.
    fn word(&mut self, at: At<'_>, value: Json<'_>) -> Option<String> {
        const LENGTH_MAX: usize = 500;
        let text = self.text(at, value)?;
        if text.len() > LENGTH_MAX || text.contains(char::is_control) {
            let remedy = format!("one line of at most {LENGTH_MAX} octets, without control characters");
            self.fault(
                at,
                "this is too long, or has a line end or another control character".into(),
                &remedy,
            );
            return None;
        }
        Some(text.into_owned())
    }

    fn base64(&mut self, at: At<'_>, text: &str) -> Option<Vec<u8>> {
        // Many encoders make lines of it (RFC 2045 §6.8).
        let joined = if text.contains(['\r', '\n']) {
            Cow::Owned(text.replace(['\r', '\n'], ""))
        } else {
            Cow::Borrowed(text)
        };
        match STANDARD.decode(joined.as_bytes()) {
            Ok(octets) => Some(octets),
            Err(error) => {
                let remedy = "the alphabet with \"+\" and \"/\", filled up with \"=\" (RFC 4648 §4)";
                self.fault(at, format!("this is no base64: {error}"), remedy);
                None
            }
        }
    }
}

/// Whether texts have places for variables.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Places {
    None,
    Filled,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Inline {
    Yes,
    No,
}

/// Whether a header field may be given by its name.
fn may_be_given(name: &str) -> Result<(), (&'static str, &'static str)> {
    const OWN_FIELD: [&str; 6] = ["From", "To", "Cc", "Bcc", "Reply-To", "Subject"];
    const OURS: [&str; 4] = ["Received", "Return-Path", "Delivered-To", "MIME-Version"];
    let is = |other: &&str| name.eq_ignore_ascii_case(other);
    let begins =
        |prefix: &str| name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    if OWN_FIELD.iter().any(&is) {
        return Err((
            "this header field has a field of its own",
            "use from, to, cc, bcc, reply_to or subject",
        ));
    }
    if OURS.iter().any(is) || begins("Content-") || begins("Resent-") {
        return Err(("this header field is written by servers, or follows from the parts", "leave it out"));
    }
    if name.is_empty() || name.len() > 100 || !name.bytes().all(|c| c.is_ascii_graphic() && c != b':') {
        return Err(("this is no name of a header field", "visible ASCII characters without a colon"));
    }
    Ok(())
}

/// Whether a media type can stand in Content-Type (RFC 2045 §5.1), its parameters included.
fn media_type(text: &str) -> Result<(), (&'static str, &'static str)> {
    const REMEDY: &str = "such as application/pdf, or text/csv; charset=utf-8";
    let (essence, parameters) = text.split_once(';').unwrap_or((text, ""));
    let token = |text: &str| {
        !text.is_empty() && text.bytes().all(|c| c.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?=".contains(&c))
    };
    let known = essence.trim().split_once('/').is_some_and(|(kind, subtype)| token(kind) && token(subtype));
    if !known || !parameters.is_ascii() {
        return Err(("this is no media type", REMEDY));
    }
    let begins =
        |prefix: &str| essence.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    if begins("multipart/") || begins("message/") {
        // RFC 2046 §5.2.1: base64 is not for these.
        return Err(("a part of this type cannot be sent in base64", "use application/octet-stream"));
    }
    for parameter in parameters.split(';').map(str::trim).filter(|parameter| !parameter.is_empty()) {
        let Some((name, value)) = parameter.split_once('=') else {
            return Err(("a parameter of the media type has no value", REMEDY));
        };
        let quoted = value.len() >= 2 && value.starts_with('"') && value.ends_with('"');
        let inner = if quoted { &value[1..value.len() - 1] } else { value };
        let fits = if quoted { !inner.contains(['"', '\\']) } else { token(inner) };
        if !token(name) || !fits {
            return Err(("a parameter of the media type is malformed", REMEDY));
        }
    }
    Ok(())
}

fn is_content_id(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 250
        && text.bytes().all(|c| c.is_ascii_graphic() && !b"<>()\"\\,;".contains(&c))
}

/// Base64 in lines of 76 (RFC 2045 §6.8).
fn in_lines(octets: &[u8]) -> Vec<u8> {
    const OCTETS_A_LINE: usize = 57;
    let lines = octets.len().div_ceil(OCTETS_A_LINE);
    let mut out = Vec::with_capacity(octets.len().div_ceil(3) * 4 + lines * 2);
    let mut line = [0; 76];
    for chunk in octets.chunks(OCTETS_A_LINE) {
        let len = STANDARD.encode_slice(chunk, &mut line).expect("57 octets make 76 characters");
        out.extend_from_slice(&line[..len]);
        out.extend_from_slice(b"\r\n");
    }
    out
}

fn shown(text: &str) -> &str {
    text.char_indices().nth(SHOWN_MAX).map_or(text, |(end, _)| &text[..end])
}

#[cfg(test)]
#[path = "decode_test.rs"]
mod test;
