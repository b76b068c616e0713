//! Every field of every object that a request may have: the decoder reads no other, and `openapi` prints these.

/// A field.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) name: &'static str,
    /// Its schema, as JSON.
    pub(crate) schema: &'static str,
    /// What it is for.
    pub(crate) doc: &'static str,
}

/// An object, by its name in the description.
#[derive(Debug)]
pub(crate) struct Object {
    pub(crate) name: &'static str,
    pub(crate) doc: &'static str,
    pub(crate) fields: &'static [Field],
    pub(crate) required: &'static [&'static str],
}

const fn field(name: &'static str, schema: &'static str, doc: &'static str) -> Field {
    Field { name, schema, doc }
}

const MAILBOX_SCHEMA: &str = r##"{"$ref": "#/components/schemas/Mailbox"}"##;
const MAILBOXES_SCHEMA: &str = r##"{"$ref": "#/components/schemas/Mailboxes"}"##;
const PARTS_SCHEMA: &str = r##"{"type": "array", "items": {"$ref": "#/components/schemas/Part"}}"##;
const VARIABLES_SCHEMA: &str =
    r#"{"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}}"#;
const TEXT_SCHEMA: &str = r#"{"type": "string"}"#;
const BASE64_SCHEMA: &str = r#"{"type": "string", "contentEncoding": "base64"}"#;

/// Many messages.
pub(crate) const BATCH: Object = Object {
    name: "Batch",
    doc: "Several messages in one request. A mistake in one refuses all; after that, each is taken or refused alone.",
    fields: &[field(
        "messages",
        r##"{"type": "array", "minItems": 1, "items": {"$ref": "#/components/schemas/Message"}}"##,
        "The messages.",
    )],
    required: &["messages"],
};

/// A message made of its parts, or whole.
pub(crate) const MESSAGE: Object = Object {
    name: "Message",
    doc: "One message, from its parts; or whole, as `raw`. With `recipients`, one message for each of them.",
    fields: &[
        field("from", MAILBOXES_SCHEMA, "Whom it is from: the field From."),
        field(
            "envelope_from",
            TEXT_SCHEMA,
            "Where reports go, the reverse-path. Empty: nowhere. Without it: the address of Sender, or the first of From.",
        ),
        field("to", MAILBOXES_SCHEMA, "Recipients, shown in To."),
        field("cc", MAILBOXES_SCHEMA, "Recipients, shown in Cc."),
        field("bcc", MAILBOXES_SCHEMA, "Recipients, shown nowhere."),
        field("reply_to", MAILBOXES_SCHEMA, "Where answers go: the field Reply-To."),
        field("subject", TEXT_SCHEMA, "The field Subject. A template, where there are variables."),
        field("text", TEXT_SCHEMA, "The text for plain readers. A template, where there are variables."),
        field(
            "html",
            TEXT_SCHEMA,
            "The text as HTML. A template, where there are variables: `{{name}}` is escaped, `{{{name}}}` is not.",
        ),
        field("attachments", PARTS_SCHEMA, "Files."),
        field("inline", PARTS_SCHEMA, "Parts that the HTML shows, by `cid:` and their `content_id`."),
        field(
            "headers",
            r#"{"type": "object", "additionalProperties": {"type": ["string", "array"], "items": {"type": "string"}}}"#,
            "Other header fields, each with a value or several. A template, where there are variables.",
        ),
        field(
            "recipients",
            r##"{"type": "array", "minItems": 1, "items": {"$ref": "#/components/schemas/Copy"}}"##,
            "One message for each of these, with its own variables; `to`, `cc` and `bcc` stand there.",
        ),
        field(
            "variables",
            VARIABLES_SCHEMA,
            "What `{{name}}` stands for where a recipient does not say it. An unknown name refuses the request.",
        ),
        field("raw", BASE64_SCHEMA, "A whole message (RFC 5322); beside it only the two envelope fields."),
        field(
            "envelope_to",
            MAILBOXES_SCHEMA,
            "With `raw`: who gets it. Without it: whoever stands in To, Cc and Bcc. Bcc is taken out.",
        ),
    ],
    required: &[],
};

/// One of many copies.
pub(crate) const COPY: Object = Object {
    name: "Copy",
    doc: "Who gets one copy of a message, and what stands in it.",
    fields: &[
        field("to", MAILBOXES_SCHEMA, "Recipients, shown in To."),
        field("cc", MAILBOXES_SCHEMA, "Recipients, shown in Cc."),
        field("bcc", MAILBOXES_SCHEMA, "Recipients, shown nowhere."),
        field("variables", VARIABLES_SCHEMA, "What `{{name}}` stands for in this copy."),
    ],
    required: &[],
};

/// An attachment or an inline part.
pub(crate) const PART: Object = Object {
    name: "Part",
    doc: "A file in a message.",
    fields: &[
        field("content", BASE64_SCHEMA, "Its octets."),
        field("content_type", TEXT_SCHEMA, "Its media type. Without it: application/octet-stream."),
        field("filename", TEXT_SCHEMA, "Its name."),
        field(
            "content_id",
            TEXT_SCHEMA,
            "By which the HTML names it, without angle brackets. An inline part needs one.",
        ),
    ],
    required: &["content"],
};

/// A mailbox as an object.
pub(crate) const MAILBOX: Object = Object {
    name: "MailboxObject",
    doc: "An address, and the name it is shown with.",
    fields: &[
        field("address", TEXT_SCHEMA, "The address."),
        field("name", TEXT_SCHEMA, "The name, as it is: without quotes of its own."),
    ],
    required: &["address"],
};

/// Every object.
pub(crate) const OBJECTS: &[&Object] = &[&BATCH, &MESSAGE, &COPY, &PART, &MAILBOX];

/// A mailbox, in either form; for the description.
pub(crate) const MAILBOX_ONE: &str = MAILBOX_SCHEMA;

impl Object {
    pub(crate) fn has(&self, name: &str) -> bool {
        self.fields.iter().any(|field| field.name == name)
    }

    /// `from, to, cc`: for messages.
    pub(crate) fn names(&self) -> String {
        self.fields.iter().map(|field| field.name).collect::<Vec<_>>().join(", ")
    }
}
