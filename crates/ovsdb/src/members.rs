//! Reading JSON objects strictly: each member is asked for once, by name and kind, and what is left
//! over is an error.

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::value::is_id;

/// What a member may be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Array,
    Object,
    String,
    /// A string of the form of RFC 7047's `<id>`.
    Id,
    Integer,
    Boolean,
}

impl Kind {
    fn accepts(self, json: &Value) -> bool {
        match self {
            Self::Array => json.is_array(),
            Self::Object => json.is_object(),
            Self::String => json.is_string(),
            Self::Id => json.as_str().is_some_and(is_id),
            Self::Integer => json.is_i64(),
            Self::Boolean => json.is_boolean(),
        }
    }
}

/// The members of one object while they are asked for.
pub(crate) struct Members<'a> {
    json: &'a Value,
    object: &'a Map<String, Value>,
    asked: Vec<&'static str>,
    /// What is being read, for messages.
    what: String,
}

impl<'a> Members<'a> {
    /// The members of `json`, which must be an object.
    pub fn of(json: &'a Value, what: String) -> Result<Self> {
        let Some(object) = json.as_object() else {
            let text = format!("Parsing {what} failed: Object expected.");
            return Err(Error::new("syntax error", text));
        };
        Ok(Self { json, object, asked: Vec::new(), what })
    }

    /// The error that something about this object is wrong.
    pub fn wrong(&self, text: &str) -> Error {
        Error::syntax(self.json, format!("Parsing {} failed: {text}", self.what))
    }

    /// The whole object.
    pub fn json(&self) -> &'a Value {
        self.json
    }

    /// A member that may be absent.
    pub fn optional(&mut self, name: &'static str, kind: Kind) -> Result<Option<&'a Value>> {
        self.asked.push(name);
        match self.object.get(name) {
            Some(value) if !kind.accepts(value) => {
                Err(self.wrong(&format!("Type mismatch for member '{name}'.")))
            }
            found => Ok(found),
        }
    }

    /// A member that must be there.
    pub fn required(&mut self, name: &'static str, kind: Kind) -> Result<&'a Value> {
        let found = self.optional(name, kind)?;
        found.ok_or_else(|| self.wrong(&format!("Required '{name}' member is missing.")))
    }

    /// Refuses members that nobody asked for.
    pub fn finish(self) -> Result<()> {
        match self.object.keys().find(|name| !self.asked.contains(&name.as_str())) {
            None => Ok(()),
            Some(name) => {
                Err(self.wrong(&format!("Member '{name}' is present but not allowed here.")))
            }
        }
    }
}
