//! Database values as people type them (ovs-vsctl(8), "Database Values").

use std::collections::BTreeMap;

use anyhow::{Result, anyhow, bail};
use ovsdb::{Atom, AtomType, BaseType, ColumnType, Datum, Real, UNLIMITED, Uuid};

/// Most integers in a range such as `1-4094` (ovs-vsctl(8)).
const RANGE_MAX: i64 = 4096;

/// The `@name`s of one command line and the rows they stand for.
#[derive(Debug, Default)]
pub struct Names {
    by_name: BTreeMap<String, Name>,
}

#[derive(Debug)]
struct Name {
    uuid: Uuid,
    defined: bool,
    used: bool,
}

impl Names {
    /// The row that `@name` stands for; chosen now if a later command defines it.
    pub fn refer(&mut self, name: &str) -> Uuid {
        let name = self.by_name.entry(name.to_owned()).or_insert_with(|| Name {
            uuid: Uuid::random(),
            defined: false,
            used: false,
        });
        name.used = true;
        name.uuid
    }

    /// The row that an `@name` defined before stands for.
    pub fn defined(&self, name: &str) -> Option<Uuid> {
        self.by_name.get(name).filter(|name| name.defined).map(|name| name.uuid)
    }

    /// Defines `@name` as a row being created and gives its identifier.
    pub fn create(&mut self, name: &str) -> Result<Uuid> {
        check_name(name)?;
        let fresh = || Name { uuid: Uuid::random(), defined: false, used: false };
        let entry = self.by_name.entry(name.to_owned()).or_insert_with(fresh);
        if std::mem::replace(&mut entry.defined, true) {
            bail!("row id \"{name}\" is given to two rows; each --id needs a name of its own");
        }
        Ok(entry.uuid)
    }

    /// Defines `@name` as a row that exists.
    pub fn define(&mut self, name: &str, uuid: Uuid) -> Result<()> {
        check_name(name)?;
        let name_is = Name { uuid, defined: true, used: false };
        match self.by_name.insert(name.to_owned(), name_is) {
            None => Ok(()),
            Some(old) if old.defined => {
                bail!("row id \"{name}\" is given to two rows; each --id needs a name of its own")
            }
            Some(_) => bail!("row id \"{name}\": get --id must come before the id is used"),
        }
    }

    /// Fails if a name was used that no command defines.
    pub fn check(&self) -> Result<()> {
        match self.by_name.iter().find(|(_, name)| !name.defined) {
            None => Ok(()),
            Some((name, _)) => bail!(
                "row id \"{name}\" is used but never created (e.g. with \"-- --id={name} create\")"
            ),
        }
    }

    /// The names that were defined and never used.
    pub fn unused(&self) -> impl Iterator<Item = (&str, Uuid)> {
        let unused = self.by_name.iter().filter(|(_, name)| name.defined && !name.used);
        unused.map(|(text, name)| (text.as_str(), name.uuid))
    }
}

fn check_name(name: &str) -> Result<()> {
    match name.strip_prefix('@') {
        Some(rest) if !rest.is_empty() => Ok(()),
        _ => bail!("--id={name}: a row id begins with \"@\", as in --id=@new"),
    }
}

/// Cuts the first word off `text`: up to a delimiter, or a quoted string with its quotes.
pub fn token(text: &str) -> Result<(&str, &str)> {
    if !text.starts_with('"') {
        let end = text.find(is_delimiter).unwrap_or(text.len());
        return Ok(text.split_at(end));
    }
    let mut escaped = false;
    for (at, letter) in text.char_indices().skip(1) {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Ok(text.split_at(at + 1)),
            _ => {}
        }
    }
    bail!("{text}: the quote at its start is never closed")
}

/// Letters that end a word which is not in quotes.
fn is_delimiter(letter: char) -> bool {
    ":=, []{}!<>".contains(letter)
}

/// Reads one atom from all of `text`.
pub fn atom(text: &str, base: &BaseType, names: &mut Names) -> Result<Atom> {
    let atom = match base.kind {
        AtomType::Integer => {
            let number = text.parse().map(Atom::Integer);
            number.map_err(|_| anyhow!("\"{text}\" is not an integer"))?
        }
        AtomType::Real => match text.parse::<f64>() {
            Ok(real) if real.is_finite() => Atom::Real(Real::new(real)),
            _ => bail!("\"{text}\" is not a number"),
        },
        AtomType::Boolean => match text {
            "true" | "yes" | "on" | "1" => Atom::Boolean(true),
            "false" | "no" | "off" | "0" => Atom::Boolean(false),
            _ => bail!("\"{text}\" is not true or false"),
        },
        AtomType::String => Atom::String(string(text)?),
        AtomType::Uuid if text.starts_with('@') => Atom::Uuid(names.refer(text)),
        AtomType::Uuid => match text.parse() {
            Ok(uuid) => Atom::Uuid(uuid),
            Err(_) => bail!("\"{text}\" is not a row: give its UUID or the @name of an --id"),
        },
    };
    atom.check(base).map_err(|error| anyhow!("{error}"))?;
    Ok(atom)
}

/// Reads a string: in quotes as in JSON, or as it stands.
fn string(text: &str) -> Result<String> {
    if text.is_empty() {
        bail!(
            "a value is missing; write \"\" (in quotes for your shell: '\"\"') for an empty string"
        );
    }
    if !text.starts_with('"') {
        return Ok(text.to_owned());
    }
    let read: Result<String, _> = serde_json::from_str(text);
    read.map_err(|error| anyhow!("{text}: not a string in double quotes: {error}"))
}

/// Reads all of `text` as a value for a column of type `ty`.
pub fn datum(text: &str, ty: &ColumnType, names: &mut Names) -> Result<Datum> {
    let datum = parse_datum(text, ty, names)?;
    let count = datum.len();
    if !datum.fits(ty) {
        let (bound, limit) = match count < ty.min as usize {
            true => ("at least", ty.min),
            false => ("at most", ty.max),
        };
        bail!("{text}: {count} values given, the column takes {bound} {limit}");
    }
    Ok(datum)
}

/// As [`datum`] for any number of values.
pub fn datum_any_size(text: &str, ty: &ColumnType, names: &mut Names) -> Result<Datum> {
    parse_datum(text, &ColumnType { min: 0, max: UNLIMITED, ..ty.clone() }, names)
}

fn parse_datum(text: &str, ty: &ColumnType, names: &mut Names) -> Result<Datum> {
    let (open, close) = if ty.is_map() { ('{', '}') } else { ('[', ']') };
    let mut rest = text.trim_start();
    let bracketed = rest.starts_with(open);
    if bracketed {
        rest = rest[1..].trim_start();
    }
    let (mut keys, mut values) = (Vec::new(), Vec::new());
    while !rest.is_empty() && !rest.starts_with(close) {
        let (word, after) = word(rest, text)?;
        rest = after;
        match &ty.value {
            None => keys.extend(atoms(word, &ty.key, names)?),
            Some(value) => {
                keys.push(atom(word, &ty.key, names)?);
                let Some(after) = rest.strip_prefix('=') else {
                    bail!("{text}: \"{word}\" lacks a value; a map is written key=value,key=value");
                };
                let (word, after) = self::word(after, text)?;
                values.push(atom(word, value, names)?);
                rest = after;
            }
        }
        rest = rest.trim_start();
        rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
    }
    if bracketed {
        let Some(after) = rest.strip_prefix(close) else {
            bail!("{text}: \"{open}\" is not closed by \"{close}\"");
        };
        rest = after.trim_start();
    }
    if !rest.is_empty() {
        bail!("{text}: \"{rest}\" at its end does not belong there");
    }
    let given = keys.len();
    let datum = match ty.is_map() {
        true => Datum::map(keys.into_iter().zip(values)),
        false => Datum::set(keys),
    };
    if datum.len() != given {
        bail!("{text}: a {} is given twice", if ty.is_map() { "key" } else { "value" });
    }
    Ok(datum)
}

/// The next word of a value, which must not be empty.
fn word<'a>(rest: &'a str, whole: &str) -> Result<(&'a str, &'a str)> {
    let (word, after) = token(rest)?;
    if !word.is_empty() {
        return Ok((word, after));
    }
    match rest.chars().next() {
        Some(letter) => bail!(
            "{whole}: unexpected \"{letter}\"; a value with special letters needs double quotes"
        ),
        None => bail!("{whole}: a value is missing at its end"),
    }
}

/// One atom, or all of a range of integers such as `1-10`.
fn atoms(word: &str, base: &BaseType, names: &mut Names) -> Result<Vec<Atom>> {
    let dash = word.get(1..).and_then(|rest| rest.find('-')).map(|at| at + 1);
    let range = dash.map(|at| (word[..at].parse::<i64>(), word[at + 1..].parse::<i64>()));
    match (base.kind, range) {
        (AtomType::Integer, Some((Ok(first), Ok(last)))) => {
            let size = last.checked_sub(first).and_then(|size| size.checked_add(1));
            if !size.is_some_and(|size| (1..=RANGE_MAX).contains(&size)) {
                bail!("{word}: a range goes upwards and has at most {RANGE_MAX} values");
            }
            let atoms: Vec<Atom> = (first..=last).map(Atom::Integer).collect();
            for atom in &atoms {
                atom.check(base).map_err(|error| anyhow!("{error}"))?;
            }
            Ok(atoms)
        }
        _ => Ok(vec![atom(word, base, names)?]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(table: &str, column: &str) -> ColumnType {
        let schema = ovsdb::DatabaseSchema::open_vswitch().unwrap();
        schema.table(table).unwrap().column(column).unwrap().ty.clone()
    }

    /// The value as it is printed again, or the error.
    fn read(table: &str, name: &str, text: &str) -> String {
        let ty = column(table, name);
        match datum(text, &ty, &mut Names::default()) {
            Ok(datum) => datum.to_text(&ty),
            Err(error) => format!("error: {error}"),
        }
    }

    #[test]
    fn values_read_back() {
        for (name, text, expect) in [
            ("trunks", "1,2 7-9", "[1, 2, 7, 8, 9]"),
            ("trunks", "[]", "[]"),
            ("trunks", " [ 5 , 4 ] ", "[4, 5]"),
            ("tag", "[7]", "7"),
            ("bond_fake_iface", "yes", "true"),
            ("other_config", "a=b,c=\"d,e\"", "{a=b, c=\"d,e\"}"),
            ("other_config", "{}", "{}"),
            ("vlan_mode", "access", "access"),
            ("bond_updelay", "-5", "-5"),
        ] {
            assert_eq!(read("Port", name, text), expect, "{name}={text}");
        }
    }

    #[test]
    fn mistakes_say_what_is_wrong() {
        for (name, text, expect) in [
            ("tag", "x", "\"x\" is not an integer"),
            ("tag", "1,2", "at most 1"),
            ("tag", "5000", "valid range"),
            ("trunks", "1,1", "given twice"),
            ("trunks", "9-1", "upwards"),
            ("trunks", "[1", "not closed"),
            ("trunks", "[1]x", "does not belong"),
            ("other_config", "a", "lacks a value"),
            ("other_config", "a=", "missing"),
            ("other_config", "a=b:c", "unexpected \":\""),
            ("vlan_mode", "trunc", "allowed values"),
            ("bond_fake_iface", "maybe", "not true or false"),
            ("mac", "\"x", "never closed"),
            ("interfaces", "p1", "not a row"),
            ("name", "[]", "at least 1"),
        ] {
            let text = read("Port", name, text);
            assert!(text.contains(expect), "{name}: {text} lacks {expect}");
        }
    }

    #[test]
    fn names_must_be_defined_once_and_not_late() {
        let mut names = Names::default();
        let uuid = names.refer("@a");
        assert!(names.check().is_err());
        assert!(names.define("@a", Uuid::random()).is_err());
        let mut names = Names::default();
        assert_eq!(names.refer("@a"), names.refer("@a"));
        assert_ne!(names.refer("@a"), uuid);
        names.create("@a").unwrap();
        assert!(names.check().is_ok());
        assert!(names.create("@a").is_err() && names.create("a").is_err());
    }
}
