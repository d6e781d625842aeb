//! Atoms: the single values of which columns are made (RFC 7047, section 5.1, `<atom>`), their
//! JSON and text forms and the constraints a column type puts on them.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::types::{AtomType, BaseType};
use crate::uuid::Uuid;

/// A finite double with a total order; negative zero is stored as zero, so equal means identical.
#[derive(Clone, Copy, Debug)]
pub struct Real(f64);

impl Real {
    /// `value` as an atom can hold it. Not-a-number, which JSON cannot express, becomes zero.
    pub fn new(value: f64) -> Self {
        Self(if value == 0.0 || value.is_nan() { 0.0 } else { value })
    }

    /// The number.
    pub const fn get(self) -> f64 {
        self.0
    }
}

impl PartialEq for Real {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Real {}
impl PartialOrd for Real {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Real {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}
impl std::hash::Hash for Real {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.to_bits().hash(state);
    }
}

/// One value. The order is by type, then by value, as `select` results and sets are sorted.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Atom {
    /// 64-bit signed integer.
    Integer(i64),
    /// Finite double.
    Real(Real),
    /// Truth value.
    Boolean(bool),
    /// Text without NUL.
    String(String),
    /// Row identifier.
    Uuid(Uuid),
}

/// The `named-uuid`s of one transaction: names of rows that it inserts, usable before the insert.
#[derive(Debug, Default)]
pub struct Symbols(BTreeMap<String, Symbol>);

#[derive(Debug)]
struct Symbol {
    uuid: Uuid,
    created: bool,
}

impl Symbols {
    /// The row identifier that `name` stands for; chosen now if `name` is new.
    pub fn resolve(&mut self, name: &str) -> Uuid {
        let symbol = self.0.entry(name.to_owned());
        symbol.or_insert_with(|| Symbol { uuid: Uuid::random(), created: false }).uuid
    }

    /// Marks the row called `name` as inserted and gives its identifier; `None` when an earlier
    /// insert had the same name.
    pub fn create(&mut self, name: &str) -> Option<Uuid> {
        let uuid = self.resolve(name);
        let symbol = self.0.get_mut(name)?;
        (!std::mem::replace(&mut symbol.created, true)).then_some(uuid)
    }

    /// As [`Symbols::create`] where the inserter chose the identifier itself; `None` also when
    /// the name was used before and so stands for another row.
    pub fn create_as(&mut self, name: &str, uuid: Uuid) -> Option<Uuid> {
        if self.0.contains_key(name) {
            return None;
        }
        self.0.insert(name.to_owned(), Symbol { uuid, created: true });
        Some(uuid)
    }
}

/// True if `name` may be a `named-uuid`: the C identifiers of RFC 7047's `<id>`.
pub fn is_id(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

impl Atom {
    /// What type the atom has.
    pub const fn kind(&self) -> AtomType {
        match self {
            Self::Integer(_) => AtomType::Integer,
            Self::Real(_) => AtomType::Real,
            Self::Boolean(_) => AtomType::Boolean,
            Self::String(_) => AtomType::String,
            Self::Uuid(_) => AtomType::Uuid,
        }
    }

    /// Zero, `false`, the empty string or the zero UUID (RFC 7047, section 5.2.1).
    pub fn default_of(kind: AtomType) -> Self {
        match kind {
            AtomType::Integer => Self::Integer(0),
            AtomType::Real => Self::Real(Real::new(0.0)),
            AtomType::Boolean => Self::Boolean(false),
            AtomType::String => Self::String(String::new()),
            AtomType::Uuid => Self::Uuid(Uuid::ZERO),
        }
    }

    /// Reads an `<atom>` of type `base` and checks the type's constraints. `symbols` resolves
    /// `["named-uuid", …]`; without it those are refused.
    ///
    /// # Errors
    /// `syntax error` for the wrong JSON type, `constraint violation` for a value out of bounds.
    pub fn from_json(json: &Value, base: &BaseType, symbols: Option<&mut Symbols>) -> Result<Self> {
        let atom = Self::from_json_unchecked(json, base.kind, symbols)?;
        atom.check(base)?;
        Ok(atom)
    }

    /// As [`Atom::from_json`] without constraints.
    ///
    /// # Errors
    /// `syntax error` for the wrong JSON type.
    pub fn from_json_unchecked(
        json: &Value,
        kind: AtomType,
        symbols: Option<&mut Symbols>,
    ) -> Result<Self> {
        let atom = match kind {
            AtomType::Integer => integer(json).map(Self::Integer),
            AtomType::Real => json.as_f64().map(|real| Self::Real(Real::new(real))),
            AtomType::Boolean => json.as_bool().map(Self::Boolean),
            // OVS's own programs cannot read a NUL back from the file.
            AtomType::String => {
                json.as_str().filter(|s| !s.contains('\0')).map(|s| Self::String(s.to_owned()))
            }
            AtomType::Uuid => return uuid_from_json(json, symbols).map(Self::Uuid),
        };
        atom.ok_or_else(|| Error::syntax(json, format!("expected {kind}")))
    }

    /// The `<atom>`.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Integer(integer) => Value::from(*integer),
            // RFC 7047 does not tell 1.0 from 1; OVS writes the shorter.
            Self::Real(Real(real)) if real.fract() == 0.0 && real.abs() < MAX_EXACT => {
                Value::from(*real as i64)
            }
            Self::Real(Real(real)) => Value::from(*real),
            Self::Boolean(boolean) => Value::from(*boolean),
            Self::String(string) => Value::from(string.as_str()),
            Self::Uuid(uuid) => json!(["uuid", uuid.to_string()]),
        }
    }

    /// Checks enumeration, range and length.
    ///
    /// # Errors
    /// `constraint violation` saying which bound is broken.
    pub fn check(&self, base: &BaseType) -> Result<()> {
        if let Some(allowed) = &base.allowed {
            if allowed.contains(self) {
                return Ok(());
            }
            let list: Vec<String> = allowed.keys().map(Self::to_string).collect();
            return Err(Error::constraint(format!(
                "{self} is not one of the allowed values ([{}])",
                list.join(", ")
            )));
        }
        match self {
            Self::Integer(integer) => in_range(integer, base.min_integer, base.max_integer, ""),
            Self::Real(Real(real)) => in_range(real, base.min_real, base.max_real, ""),
            Self::String(string) if base.min_length.is_some() || base.max_length.is_some() => {
                let length = u32::try_from(string.chars().count()).unwrap_or(u32::MAX);
                in_range(&length, base.min_length, base.max_length, string)
            }
            _ => Ok(()),
        }
    }

    /// The integer, if it is one.
    pub const fn as_integer(&self) -> Option<i64> {
        if let Self::Integer(integer) = self { Some(*integer) } else { None }
    }

    /// The text, if it is a string.
    pub fn as_str(&self) -> Option<&str> {
        if let Self::String(string) = self { Some(string) } else { None }
    }

    /// The truth value, if it is one.
    pub const fn as_bool(&self) -> Option<bool> {
        if let Self::Boolean(boolean) = self { Some(*boolean) } else { None }
    }

    /// The row identifier, if it is one.
    pub const fn as_uuid(&self) -> Option<Uuid> {
        if let Self::Uuid(uuid) = self { Some(*uuid) } else { None }
    }
}

impl From<&str> for Atom {
    fn from(string: &str) -> Self {
        Self::String(string.to_owned())
    }
}
impl From<String> for Atom {
    fn from(string: String) -> Self {
        Self::String(string)
    }
}
impl From<i64> for Atom {
    fn from(integer: i64) -> Self {
        Self::Integer(integer)
    }
}
impl From<bool> for Atom {
    fn from(boolean: bool) -> Self {
        Self::Boolean(boolean)
    }
}
impl From<Uuid> for Atom {
    fn from(uuid: Uuid) -> Self {
        Self::Uuid(uuid)
    }
}

/// The text form of `ovs-vsctl` and of error messages: strings are quoted, as JSON, unless they
/// look like a word and like nothing else.
impl fmt::Display for Atom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(integer) => write!(f, "{integer}"),
            Self::Real(Real(real)) => write!(f, "{real}"),
            Self::Boolean(boolean) => write!(f, "{boolean}"),
            Self::String(string) if is_word(string) => f.write_str(string),
            Self::String(string) => write!(f, "{}", Value::from(string.as_str())),
            Self::Uuid(uuid) => write!(f, "{uuid}"),
        }
    }
}

/// Largest magnitude below which every whole double is one exact integer (2^53).
const MAX_EXACT: f64 = 9_007_199_254_740_992.0;

fn is_word(text: &str) -> bool {
    let mut bytes = text.bytes();
    let word = bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte));
    word && text != "true" && text != "false" && text.parse::<Uuid>().is_err()
}

fn integer(json: &Value) -> Option<i64> {
    json.as_i64().or_else(|| {
        let real = json.as_f64().filter(|real| real.fract() == 0.0 && real.abs() <= MAX_EXACT)?;
        Some(real as i64)
    })
}

fn uuid_from_json(json: &Value, symbols: Option<&mut Symbols>) -> Result<Uuid> {
    let pair = json.as_array().filter(|array| array.len() == 2);
    let pair = pair.and_then(|pair| Some((pair[0].as_str()?, pair[1].as_str()?)));
    match (pair, symbols) {
        (Some(("uuid", text)), _) => {
            text.parse().map_err(|_| Error::syntax(json, format!("\"{text}\" is not a valid UUID")))
        }
        (Some(("named-uuid", name)), Some(symbols)) if is_id(name) => Ok(symbols.resolve(name)),
        (Some(("named-uuid", _)), Some(_)) => {
            Err(Error::syntax(json, "named-uuid string is not a valid <id>"))
        }
        _ => Err(Error::syntax(json, "expected [\"uuid\", <string>]")),
    }
}

/// Range check shared by numbers and string lengths; `string` is the text when a length is meant.
fn in_range<T>(value: &T, min: Option<T>, max: Option<T>, string: &str) -> Result<()>
where
    T: PartialOrd + fmt::Display,
{
    let low = min.as_ref().is_some_and(|min| value < min);
    let high = max.as_ref().is_some_and(|max| value > max);
    let (what, noun) = match string {
        "" => (format!("{value}"), "value"),
        text => (format!("\"{text}\" length {value}"), "length"),
    };
    match (min, max) {
        (Some(min), Some(max)) if (low || high) && noun == "value" => Err(Error::constraint(
            format!("{what} is not in the valid range {min} to {max} (inclusive)"),
        )),
        (Some(min), _) if low => {
            Err(Error::constraint(format!("{what} is less than minimum allowed {noun} {min}")))
        }
        (_, Some(max)) if high => {
            Err(Error::constraint(format!("{what} is greater than maximum allowed {noun} {max}")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_quotes_what_is_not_a_word() {
        let check = |text: &str, shown: &str| assert_eq!(Atom::from(text).to_string(), shown);
        check("br0", "br0");
        check("vhost-user.1", "vhost-user.1");
        check("", "\"\"");
        check("true", "\"true\"");
        check("0x1", "\"0x1\"");
        check("a b\n", "\"a b\\n\"");
        check("aa0e8400-e29b-41d4-a716-446655440000", "\"aa0e8400-e29b-41d4-a716-446655440000\"");
    }

    #[test]
    fn json_of_each_kind() {
        let read = |json: Value, kind| Atom::from_json_unchecked(&json, kind, None);
        assert_eq!(read(json!(5), AtomType::Integer), Ok(Atom::Integer(5)));
        assert_eq!(read(json!(5.0), AtomType::Integer), Ok(Atom::Integer(5)));
        assert_eq!(read(json!(i64::MIN), AtomType::Integer), Ok(Atom::Integer(i64::MIN)));
        assert!(read(json!(5.5), AtomType::Integer).is_err());
        assert!(read(json!(u64::MAX), AtomType::Integer).is_err());
        assert_eq!(read(json!(-0.0), AtomType::Real), Ok(Atom::Real(Real::new(0.0))));
        assert!(read(json!("a\0b"), AtomType::String).is_err());
        assert!(read(json!("true"), AtomType::Boolean).is_err());
        assert!(read(json!(["uuid", "x"]), AtomType::Uuid).is_err());
        assert!(read(json!(["named-uuid", "x"]), AtomType::Uuid).is_err());
    }

    #[test]
    fn a_name_is_created_once_and_means_one_row() {
        let mut symbols = Symbols::default();
        let json = json!(["named-uuid", "row"]);
        let used = Atom::from_json_unchecked(&json, AtomType::Uuid, Some(&mut symbols)).unwrap();
        assert_eq!(symbols.create("row"), used.as_uuid());
        assert_eq!(symbols.create("row"), None);
        assert_eq!(symbols.resolve("row"), used.as_uuid().unwrap());
    }

    #[test]
    fn bounds_are_inclusive() {
        let base = BaseType {
            min_integer: Some(0),
            max_integer: Some(4095),
            ..BaseType::of(AtomType::Integer)
        };
        for good in [0, 4095] {
            assert!(Atom::Integer(good).check(&base).is_ok());
        }
        let error = Atom::Integer(4096).check(&base).unwrap_err();
        assert_eq!(error.details.unwrap(), "4096 is not in the valid range 0 to 4095 (inclusive)");
    }
}
