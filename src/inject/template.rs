//! Texts with places for variables: `{{name}}`, and in HTML `{{{name}}}` for what is HTML already.
//!
//! A variable nobody has given is a mistake, never an empty place in somebody's mail. `\{{` is two braces.

use std::fmt;

use hashbrown::HashMap;

/// What a copy puts in the places.
pub(crate) type Variables = HashMap<String, String>;

/// A text, looked through for places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template {
    source: String,
    pieces: Vec<Piece>,
}

/// What a value is made safe for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Escape {
    /// It stands as it is.
    None,
    /// HTML: it cannot end the text or the attribute it stands in.
    Html,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    /// From the source.
    Text(std::ops::Range<usize>),
    Variable {
        name: std::ops::Range<usize>,
        escape: Escape,
    },
}

/// The text has a place that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}, in line {line}, column {column}")]
pub(crate) struct TemplateError {
    problem: TemplateProblem,
    line: usize,
    column: usize,
}

/// What is wrong at a place.
#[derive(Clone, Debug, PartialEq, Eq)]
enum TemplateProblem {
    Open,
    Name(String),
    Unknown(String),
}

impl fmt::Display for TemplateProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open => f.write_str("\"{{\" without \"}}\" behind it"),
            Self::Name(name) => write!(f, "{name:?} is no name of a variable"),
            Self::Unknown(name) => write!(f, "the variable {name:?} is not given"),
        }
    }
}

impl Template {
    /// A text without places, whatever is in it.
    pub(crate) fn literal(source: String) -> Self {
        let pieces = vec![Piece::Text(0..source.len())];
        Self { source, pieces }
    }

    /// Finds the places.
    pub(crate) fn parse(source: String, escape: Escape) -> Result<Self, TemplateError> {
        let mut pieces = Vec::new();
        let (mut from, mut at) = (0, 0);
        while let Some(found) = source[at..].find("{{") {
            let open = at + found;
            if source[..open].ends_with('\\') {
                pieces.push(Piece::Text(from..open - 1));
                from = open;
                at = open + 2;
                continue;
            }
            pieces.push(Piece::Text(from..open));
            let triple = escape == Escape::Html && source[open..].starts_with("{{{");
            let (brackets, escape) = if triple { ("}}}", Escape::None) } else { ("}}", escape) };
            let start = open + brackets.len();
            let error = |problem| TemplateError::at(&source, open, problem);
            let end = source[start..].find(brackets).ok_or_else(|| error(TemplateProblem::Open))? + start;
            let inner = &source[start..end];
            let name = inner.trim_matches([' ', '\t']);
            if !is_name(name) {
                const SHOWN: usize = 60;
                return Err(error(TemplateProblem::Name(inner.chars().take(SHOWN).collect())));
            }
            let begin = start + (inner.len() - inner.trim_start_matches([' ', '\t']).len());
            pieces.push(Piece::Variable { name: begin..begin + name.len(), escape });
            at = end + brackets.len();
            from = at;
        }
        pieces.push(Piece::Text(from..source.len()));
        Ok(Self { source, pieces })
    }

    /// Octets of the text as it was given.
    pub(crate) fn source_len(&self) -> usize {
        self.source.len()
    }

    /// Whether every variable is given.
    pub(crate) fn check(&self, variables: &Variables) -> Result<(), TemplateError> {
        for piece in &self.pieces {
            if let Piece::Variable { name, .. } = piece
                && !variables.contains_key(&self.source[name.clone()])
            {
                let problem = TemplateProblem::Unknown(self.source[name.clone()].to_owned());
                return Err(TemplateError::at(&self.source, name.start, problem));
            }
        }
        Ok(())
    }

    /// The text with the values in their places.
    pub(crate) fn fill(&self, variables: &Variables) -> Result<String, TemplateError> {
        self.check(variables)?;
        let mut text = String::with_capacity(self.source.len());
        for piece in &self.pieces {
            match piece {
                Piece::Text(range) => text += &self.source[range.clone()],
                Piece::Variable { name, escape } => {
                    let value = variables.get(&self.source[name.clone()]).map_or("", String::as_str);
                    match escape {
                        Escape::None => text += value,
                        Escape::Html => escape_html(&mut text, value),
                    }
                }
            }
        }
        Ok(text)
    }
}

impl TemplateError {
    fn at(source: &str, offset: usize, problem: TemplateProblem) -> Self {
        let before = &source[..offset];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line = before.matches('\n').count() + 1;
        Self { problem, line, column: before[line_start..].chars().count() + 1 }
    }
}

/// Letters, digits, `_`, `-` and `.`, with a letter or `_` in front.
pub(crate) fn is_name(name: &str) -> bool {
    const LENGTH_MAX: usize = 100;
    let first = |c: char| c.is_ascii_alphabetic() || c == '_';
    name.len() <= LENGTH_MAX
        && name.starts_with(first)
        && name.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'-' | b'.'))
}

fn escape_html(text: &mut String, value: &str) {
    for character in value.chars() {
        match character {
            '&' => *text += "&amp;",
            '<' => *text += "&lt;",
            '>' => *text += "&gt;",
            '"' => *text += "&quot;",
            '\'' => *text += "&#39;",
            other => text.push(other),
        }
    }
}

#[cfg(test)]
mod test {
    use super::*;

    fn variables() -> Variables {
        [("name", "Bob & <Co>"), ("order.id", "17")].map(|(k, v)| (k.to_owned(), v.to_owned())).into()
    }

    fn check(source: &str, escape: Escape, expected: Result<&str, &str>) {
        let filled = Template::parse(source.to_owned(), escape).and_then(|t| t.fill(&variables()));
        assert_eq!(
            filled.as_deref().map_err(ToString::to_string),
            expected.map_err(str::to_owned),
            "{source:?}"
        );
    }

    #[test]
    fn values_stand_in_their_places() {
        check("", Escape::None, Ok(""));
        check("Dear {{name}}!", Escape::None, Ok("Dear Bob & <Co>!"));
        check("{{ name }}{{order.id}}", Escape::None, Ok("Bob & <Co>17"));
        check("<b>{{name}}</b>", Escape::Html, Ok("<b>Bob &amp; &lt;Co&gt;</b>"));
        check("{{{name}}}", Escape::Html, Ok("Bob & <Co>"));
        check(r"\{{name}} {{name}}", Escape::None, Ok("{{name}} Bob & <Co>"));
        check("a { b } }} c", Escape::None, Ok("a { b } }} c"));
        // A value is not looked through again.
        let nested: Variables = [("a".to_owned(), "{{b}}".to_owned())].into();
        let template = Template::parse("{{a}}".into(), Escape::None).unwrap();
        assert_eq!(template.fill(&nested).unwrap(), "{{b}}");
    }

    #[test]
    fn mistakes_have_a_place() {
        check("Dear {{nme}}", Escape::None, Err("the variable \"nme\" is not given, in line 1, column 8"));
        check("a\nö {{", Escape::None, Err("\"{{\" without \"}}\" behind it, in line 2, column 3"));
        check("{{}}", Escape::None, Err("\"\" is no name of a variable, in line 1, column 1"));
        check("{{#if x}}", Escape::None, Err("\"#if x\" is no name of a variable, in line 1, column 1"));
        check("{{{name}}", Escape::Html, Err("\"{{\" without \"}}\" behind it, in line 1, column 1"));
    }

    #[test]
    fn a_text_without_places_is_left_alone() {
        let text = Template::literal("{{name}} {{".into());
        assert_eq!(text.fill(&Variables::new()).unwrap(), "{{name}} {{");
    }
}
