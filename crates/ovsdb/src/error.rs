//! The error object of OVSDB replies (RFC 7047, section 3.1, `<error>`).

use std::borrow::Cow;
use std::fmt;

use serde_json::{Map, Value};

/// An error as a client sees it: a short fixed `error` string that programs compare, an optional
/// `details` sentence for people, and an optional `syntax` with the JSON that was wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The fixed string, such as `constraint violation` (RFC 7047 lists them per operation).
    pub tag: Cow<'static, str>,
    /// What exactly went wrong.
    pub details: Option<String>,
    /// The JSON text the complaint is about.
    pub syntax: Option<String>,
}

/// Characters of `syntax` shown to people: values can be megabytes long.
const SHOWN_SYNTAX: usize = 100;

/// Result of anything that may be answered with an OVSDB error object.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error with a fixed string and a sentence.
    pub fn new(tag: &'static str, details: impl Into<String>) -> Self {
        Self { tag: Cow::Borrowed(tag), details: Some(details.into()), syntax: None }
    }

    /// An error that is its fixed string only.
    pub fn bare(tag: &'static str) -> Self {
        Self { tag: Cow::Borrowed(tag), details: None, syntax: None }
    }

    /// `syntax error` about `json`.
    pub fn syntax(json: &Value, details: impl Into<String>) -> Self {
        Self::new("syntax error", details).about(json)
    }

    /// `constraint violation`.
    pub fn constraint(details: impl Into<String>) -> Self {
        Self::new("constraint violation", details)
    }

    /// `referential integrity violation`.
    pub fn integrity(details: impl Into<String>) -> Self {
        Self::new("referential integrity violation", details)
    }

    /// The same error, naming the JSON it is about.
    pub fn about(mut self, json: &Value) -> Self {
        self.syntax = Some(sorted_text(json));
        self
    }

    /// The `<error>` object.
    pub fn to_json(&self) -> Value {
        let mut object = Map::new();
        object.insert("error".into(), Value::from(self.tag.as_ref()));
        if let Some(details) = &self.details {
            object.insert("details".into(), Value::from(details.as_str()));
        }
        if let Some(syntax) = &self.syntax {
            object.insert("syntax".into(), Value::from(syntax.as_str()));
        }
        Value::Object(object)
    }

    /// Reads an `<error>` object, or a plain string as some servers send in the JSON-RPC `error`
    /// member. `None` if `json` is neither.
    pub fn from_json(json: &Value) -> Option<Self> {
        if let Value::String(tag) = json {
            return Some(Self { tag: Cow::Owned(tag.clone()), details: None, syntax: None });
        }
        let text = |name: &str| json.get(name).and_then(Value::as_str).map(str::to_owned);
        let tag = Cow::Owned(text("error")?);
        Some(Self { tag, details: text("details"), syntax: text("syntax") })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(syntax) = &self.syntax {
            let shown: String = syntax.chars().take(SHOWN_SYNTAX).collect();
            let cut = if shown.len() < syntax.len() { "..." } else { "" };
            write!(f, "syntax \"{shown}{cut}\": ")?;
        }
        f.write_str(&self.tag)?;
        match &self.details {
            Some(details) => write!(f, ": {details}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

/// JSON text with object members sorted by name, so that the same complaint always reads the same.
fn sorted_text(json: &Value) -> String {
    fn sorted(json: &Value) -> Value {
        match json {
            Value::Array(items) => items.iter().map(sorted).collect(),
            Value::Object(object) => {
                let mut members: Vec<_> = object.iter().collect();
                members.sort_by_key(|(name, _)| *name);
                let sort = |(name, value): (&String, &Value)| (name.clone(), sorted(value));
                Value::Object(members.into_iter().map(sort).collect())
            }
            other => other.clone(),
        }
    }
    sorted(json).to_string()
}
