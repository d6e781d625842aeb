//! Column types: what a column may hold (RFC 7047, section 3.2, `<type>` and `<base-type>`).

use std::fmt;

use serde_json::{Map, Value, json};

use crate::datum::Datum;
use crate::error::{Error, Result};

/// `max` of a column that may hold any number of elements (`"unlimited"`).
pub const UNLIMITED: u32 = u32::MAX;

/// The five kinds of atoms (RFC 7047, section 3.2, `<atomic-type>`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AtomType {
    /// 64-bit signed integer.
    Integer,
    /// IEEE 754 double.
    Real,
    /// `true` or `false`.
    Boolean,
    /// Unicode text.
    String,
    /// Row identifier.
    Uuid,
}

impl AtomType {
    /// The name used in schemas.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Integer => "integer",
            Self::Real => "real",
            Self::Boolean => "boolean",
            Self::String => "string",
            Self::Uuid => "uuid",
        }
    }

    /// The type called `name`, if there is one.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Integer, Self::Real, Self::Boolean, Self::String, Self::Uuid]
            .into_iter()
            .find(|kind| kind.name() == name)
    }
}

impl fmt::Display for AtomType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whether a reference keeps its target alive (RFC 7047, section 3.2, `refType`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RefType {
    /// The target must exist and cannot be deleted while referenced.
    #[default]
    Strong,
    /// The reference disappears with its target.
    Weak,
}

/// Type and constraints of the keys or of the values of a column.
#[derive(Clone, Debug, PartialEq)]
pub struct BaseType {
    /// Kind of atom.
    pub kind: AtomType,
    /// The only values allowed, if restricted.
    pub allowed: Option<Datum>,
    /// Smallest integer allowed.
    pub min_integer: Option<i64>,
    /// Largest integer allowed.
    pub max_integer: Option<i64>,
    /// Smallest real allowed.
    pub min_real: Option<f64>,
    /// Largest real allowed.
    pub max_real: Option<f64>,
    /// Shortest string allowed, in characters.
    pub min_length: Option<u32>,
    /// Longest string allowed, in characters.
    pub max_length: Option<u32>,
    /// Table whose rows a uuid names.
    pub ref_table: Option<String>,
    /// How strongly it names them; meaningless without `ref_table`.
    pub ref_type: RefType,
}

impl BaseType {
    /// An unconstrained type.
    pub const fn of(kind: AtomType) -> Self {
        Self {
            kind,
            allowed: None,
            min_integer: None,
            max_integer: None,
            min_real: None,
            max_real: None,
            min_length: None,
            max_length: None,
            ref_table: None,
            ref_type: RefType::Strong,
        }
    }

    /// The table a strong reference of this type points into.
    pub fn strong_target(&self) -> Option<&str> {
        self.ref_table.as_deref().filter(|_| self.ref_type == RefType::Strong)
    }

    /// The table a weak reference of this type points into.
    pub fn weak_target(&self) -> Option<&str> {
        self.ref_table.as_deref().filter(|_| self.ref_type == RefType::Weak)
    }

    /// Reads a `<base-type>`.
    ///
    /// # Errors
    /// `syntax error` for anything RFC 7047 does not allow there.
    pub fn from_json(json: &Value) -> Result<Self> {
        let object = match json {
            Value::String(name) => return Ok(Self::of(kind_named(name, json)?)),
            Value::Object(object) => object,
            _ => return Err(Error::syntax(json, "a base type is a string or an object")),
        };
        let name = object.get("type").and_then(Value::as_str);
        let name = name.ok_or_else(|| Error::syntax(json, "base type lacks \"type\""))?;
        let mut base = Self::of(kind_named(name, json)?);
        for (member, value) in object {
            base.read_member(member, value, json)?;
        }
        base.check_order(json)?;
        Ok(base)
    }

    fn read_member(&mut self, member: &str, value: &Value, json: &Value) -> Result<()> {
        let wrong = || Error::syntax(json, format!("bad \"{member}\" in base type"));
        let length = || value.as_u64().and_then(|n| u32::try_from(n).ok()).ok_or_else(wrong);
        match (member, self.kind) {
            ("type", _) => {}
            ("enum", kind) => {
                let list = ColumnType { key: Self::of(kind), value: None, min: 1, max: UNLIMITED };
                self.allowed = Some(Datum::from_json(value, &list, None)?);
            }
            ("minInteger", AtomType::Integer) => {
                self.min_integer = Some(value.as_i64().ok_or_else(wrong)?);
            }
            ("maxInteger", AtomType::Integer) => {
                self.max_integer = Some(value.as_i64().ok_or_else(wrong)?);
            }
            ("minReal", AtomType::Real) => self.min_real = Some(value.as_f64().ok_or_else(wrong)?),
            ("maxReal", AtomType::Real) => self.max_real = Some(value.as_f64().ok_or_else(wrong)?),
            ("minLength", AtomType::String) => self.min_length = Some(length()?),
            ("maxLength", AtomType::String) => self.max_length = Some(length()?),
            ("refTable", AtomType::Uuid) => {
                self.ref_table = Some(value.as_str().ok_or_else(wrong)?.to_owned());
            }
            ("refType", AtomType::Uuid) => match value.as_str() {
                Some("strong") => self.ref_type = RefType::Strong,
                Some("weak") => self.ref_type = RefType::Weak,
                _ => return Err(wrong()),
            },
            _ => return Err(wrong()),
        }
        Ok(())
    }

    fn check_order(&self, json: &Value) -> Result<()> {
        let crossed = self.min_integer.zip(self.max_integer).is_some_and(|(min, max)| min > max)
            || self.min_real.zip(self.max_real).is_some_and(|(min, max)| min > max)
            || self.min_length.zip(self.max_length).is_some_and(|(min, max)| min > max);
        match crossed {
            true => Err(Error::syntax(json, "minimum exceeds maximum")),
            false => Ok(()),
        }
    }

    /// The `<base-type>`, in its short form where that says everything.
    pub fn to_json(&self) -> Value {
        if *self == Self::of(self.kind) {
            return Value::from(self.kind.name());
        }
        let mut object = Map::new();
        let mut put = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                object.insert(name.into(), value);
            }
        };
        put("type", Some(self.kind.name().into()));
        put("enum", self.allowed.as_ref().map(|allowed| allowed.to_json_list()));
        put("minInteger", self.min_integer.map(Value::from));
        put("maxInteger", self.max_integer.map(Value::from));
        put("minReal", self.min_real.map(Value::from));
        put("maxReal", self.max_real.map(Value::from));
        put("minLength", self.min_length.map(Value::from));
        put("maxLength", self.max_length.map(Value::from));
        put("refTable", self.ref_table.as_deref().map(Value::from));
        put("refType", self.weak_target().map(|_| Value::from("weak")));
        Value::Object(object)
    }
}

fn kind_named(name: &str, json: &Value) -> Result<AtomType> {
    AtomType::from_name(name)
        .ok_or_else(|| Error::syntax(json, format!("\"{name}\" is not an atomic type")))
}

/// Type of a column: a set of keys, or a map from keys to values, with a size range.
#[derive(Clone, Debug, PartialEq)]
pub struct ColumnType {
    /// Type of the set's elements or of the map's keys.
    pub key: BaseType,
    /// Type of the map's values; `None` for a set.
    pub value: Option<BaseType>,
    /// Fewest elements: 0 or 1.
    pub min: u32,
    /// Most elements: at least 1; [`UNLIMITED`] for no limit.
    pub max: u32,
}

impl ColumnType {
    /// Exactly one atom of `kind`.
    pub const fn scalar(kind: AtomType) -> Self {
        Self { key: BaseType::of(kind), value: None, min: 1, max: 1 }
    }

    /// True for maps.
    pub fn is_map(&self) -> bool {
        self.value.is_some()
    }

    /// Exactly one atom: RFC 7047's "scalar".
    pub fn is_scalar(&self) -> bool {
        self.min == 1 && self.max == 1 && self.value.is_none()
    }

    /// Zero or one atom.
    pub fn is_optional(&self) -> bool {
        self.min == 0 && self.max == 1
    }

    /// More than one element possible; such columns travel as differences in `update2`, `update3`
    /// and in the file.
    pub fn is_composite(&self) -> bool {
        self.max > 1
    }

    /// Reads a `<type>`.
    ///
    /// # Errors
    /// `syntax error` for anything RFC 7047 does not allow there.
    pub fn from_json(json: &Value) -> Result<Self> {
        let object = match json {
            Value::String(_) => {
                let key = BaseType::from_json(json)?;
                return Ok(Self { key, value: None, min: 1, max: 1 });
            }
            Value::Object(object) => object,
            _ => return Err(Error::syntax(json, "a type is a string or an object")),
        };
        let key = object.get("key").ok_or_else(|| Error::syntax(json, "type lacks \"key\""))?;
        let key = BaseType::from_json(key)?;
        let value = object.get("value").map(BaseType::from_json).transpose()?;
        let min = match object.get("min").map(Value::as_u64) {
            None => 1,
            Some(Some(min @ 0..=1)) => min as u32,
            _ => return Err(Error::syntax(json, "\"min\" must be 0 or 1")),
        };
        let max = match object.get("max") {
            None => 1,
            Some(Value::String(text)) if text == "unlimited" => UNLIMITED,
            Some(max) => max
                .as_u64()
                .and_then(|max| u32::try_from(max).ok())
                .filter(|&max| max >= 1)
                .ok_or_else(|| Error::syntax(json, "\"max\" must be at least 1"))?,
        };
        Ok(Self { key, value, min, max })
    }

    /// The `<type>`, in its short form where that says everything.
    pub fn to_json(&self) -> Value {
        if self.is_scalar() && self.key == BaseType::of(self.key.kind) {
            return self.key.to_json();
        }
        let mut json = json!({ "key": self.key.to_json() });
        if let Some(value) = &self.value {
            json["value"] = value.to_json();
        }
        if self.min != 1 {
            json["min"] = self.min.into();
        }
        if self.max == UNLIMITED {
            json["max"] = "unlimited".into();
        } else if self.max != 1 {
            json["max"] = self.max.into();
        }
        json
    }
}

/// The type in words, for error messages: "integer", "set of up to 4096 integers", "map of
/// (string, string) pairs".
impl fmt::Display for ColumnType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_scalar() {
            return write!(f, "{}", self.key.kind);
        }
        f.write_str(if self.is_map() { "map of" } else { "set of" })?;
        match (self.min, self.max) {
            (0, UNLIMITED) => {}
            (min, UNLIMITED) => write!(f, " {min} or more")?,
            (0, max) => write!(f, " up to {max}")?,
            (min, max) => write!(f, " {min} to {max}")?,
        }
        match &self.value {
            Some(value) => write!(f, " ({}, {}) pairs", self.key.kind, value.kind),
            None => write!(f, " {}s", self.key.kind),
        }
    }
}
