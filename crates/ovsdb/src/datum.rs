//! Column values: sorted sets and maps of atoms (RFC 7047, section 5.1, `<value>`), and the
//! differences between two of them as `update2`, `update3` and the file carry them.

use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::types::{ColumnType, UNLIMITED};
use crate::uuid::Uuid;
use crate::value::{Atom, Symbols};

/// The value of one column of one row: a set (a scalar is a set of one) or a map. Elements are
/// sorted and unique, so two equal values are identical.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Datum(Repr);

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Repr {
    Set(Vec<Atom>),
    Map(Vec<(Atom, Atom)>),
}

impl Datum {
    /// A set; of equal atoms one is kept.
    pub fn set(atoms: impl IntoIterator<Item = Atom>) -> Self {
        let mut atoms: Vec<Atom> = atoms.into_iter().collect();
        atoms.sort_unstable();
        atoms.dedup();
        Self(Repr::Set(atoms))
    }

    /// A map; of pairs with equal keys the first is kept.
    pub fn map(pairs: impl IntoIterator<Item = (Atom, Atom)>) -> Self {
        let mut pairs: Vec<(Atom, Atom)> = pairs.into_iter().collect();
        pairs.sort_by(|a, b| a.0.cmp(&b.0));
        pairs.dedup_by(|later, first| later.0 == first.0);
        Self(Repr::Map(pairs))
    }

    /// A map of strings.
    pub fn string_map<K: Into<String>, V: Into<String>>(
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        let atom = |(key, value): (K, V)| (Atom::String(key.into()), Atom::String(value.into()));
        Self::map(pairs.into_iter().map(atom))
    }

    /// One atom.
    pub fn scalar(atom: impl Into<Atom>) -> Self {
        Self(Repr::Set(vec![atom.into()]))
    }

    /// The empty set.
    pub const fn empty_set() -> Self {
        Self(Repr::Set(Vec::new()))
    }

    /// The empty map.
    pub const fn empty_map() -> Self {
        Self(Repr::Map(Vec::new()))
    }

    /// What a column of type `ty` holds in a fresh row (RFC 7047, section 5.2.1).
    pub fn default_of(ty: &ColumnType) -> Self {
        match (&ty.value, ty.min) {
            (None, 0) => Self::empty_set(),
            (Some(_), 0) => Self::empty_map(),
            (None, _) => Self(Repr::Set(vec![Atom::default_of(ty.key.kind)])),
            (Some(value), _) => {
                Self(Repr::Map(vec![(Atom::default_of(ty.key.kind), Atom::default_of(value.kind))]))
            }
        }
    }

    /// True for maps, also empty ones.
    pub const fn is_map(&self) -> bool {
        matches!(self.0, Repr::Map(_))
    }

    /// Number of elements or pairs.
    pub const fn len(&self) -> usize {
        match &self.0 {
            Repr::Set(atoms) => atoms.len(),
            Repr::Map(pairs) => pairs.len(),
        }
    }

    /// True if there are no elements.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The set's elements or the map's keys, in order.
    pub fn keys(&self) -> impl Iterator<Item = &Atom> {
        let (set, map): (&[Atom], &[(Atom, Atom)]) = match &self.0 {
            Repr::Set(atoms) => (atoms, &[]),
            Repr::Map(pairs) => (&[], pairs),
        };
        set.iter().chain(map.iter().map(|(key, _)| key))
    }

    /// The map's values in the order of their keys; nothing for a set.
    pub fn values(&self) -> impl Iterator<Item = &Atom> {
        self.pairs().map(|(_, value)| value)
    }

    /// The map's pairs in the order of their keys; nothing for a set.
    pub fn pairs(&self) -> impl Iterator<Item = (&Atom, &Atom)> {
        let pairs: &[(Atom, Atom)] = match &self.0 {
            Repr::Set(_) => &[],
            Repr::Map(pairs) => pairs,
        };
        pairs.iter().map(|(key, value)| (key, value))
    }

    /// True if `key` is an element of the set or a key of the map.
    pub fn contains(&self, key: &Atom) -> bool {
        match &self.0 {
            Repr::Set(atoms) => atoms.binary_search(key).is_ok(),
            Repr::Map(pairs) => pairs.binary_search_by(|pair| pair.0.cmp(key)).is_ok(),
        }
    }

    /// The map's value for `key`.
    pub fn get(&self, key: &Atom) -> Option<&Atom> {
        match &self.0 {
            Repr::Set(_) => None,
            Repr::Map(pairs) => {
                let at = pairs.binary_search_by(|pair| pair.0.cmp(key)).ok()?;
                Some(&pairs[at].1)
            }
        }
    }

    /// The value for a string key of a map of strings, such as `options:vhost-server-path`.
    pub fn get_str(&self, key: &str) -> Option<&str> {
        self.pairs().find(|(k, _)| k.as_str() == Some(key)).and_then(|(_, value)| value.as_str())
    }

    /// The only element of a set of one.
    pub fn as_atom(&self) -> Option<&Atom> {
        match &self.0 {
            Repr::Set(atoms) if atoms.len() == 1 => atoms.first(),
            _ => None,
        }
    }

    /// The only element, if it is an integer.
    pub fn as_integer(&self) -> Option<i64> {
        self.as_atom().and_then(Atom::as_integer)
    }

    /// The only element, if it is a string.
    pub fn as_str(&self) -> Option<&str> {
        self.as_atom().and_then(Atom::as_str)
    }

    /// The only element, if it is a truth value.
    pub fn as_bool(&self) -> Option<bool> {
        self.as_atom().and_then(Atom::as_bool)
    }

    /// The only element, if it is a row identifier.
    pub fn as_uuid(&self) -> Option<Uuid> {
        self.as_atom().and_then(Atom::as_uuid)
    }

    /// All row identifiers among the keys.
    pub fn uuids(&self) -> impl Iterator<Item = Uuid> {
        self.keys().filter_map(Atom::as_uuid)
    }

    /// Reads a `<value>` for a column of type `ty`, checking sizes and constraints.
    ///
    /// # Errors
    /// `syntax error` for the wrong form, number of elements or a duplicate; `constraint
    /// violation` for an element out of bounds.
    pub fn from_json(json: &Value, ty: &ColumnType, symbols: Option<&mut Symbols>) -> Result<Self> {
        let datum = Self::from_json_any_size(json, ty, symbols)?;
        datum.check_size(ty, json)?;
        Ok(datum)
    }

    /// As [`Datum::from_json`] for any number of elements: what differences and the arguments of
    /// `mutate` and `includes` may be.
    ///
    /// # Errors
    /// As [`Datum::from_json`], but for the number of elements.
    pub fn from_json_any_size(
        json: &Value,
        ty: &ColumnType,
        mut symbols: Option<&mut Symbols>,
    ) -> Result<Self> {
        if let Some(value_type) = &ty.value {
            let mut pairs = Vec::new();
            for pair in tagged(json, "map")? {
                let [key, value] = pair.as_array().map(Vec::as_slice).unwrap_or_default() else {
                    return Err(Error::syntax(pair, "expected 2-element array"));
                };
                let key = Atom::from_json(key, &ty.key, symbols.as_deref_mut())?;
                pairs.push((key, Atom::from_json(value, value_type, symbols.as_deref_mut())?));
            }
            let given = pairs.len();
            let datum = Self::map(pairs);
            return match datum.len() == given {
                true => Ok(datum),
                false => Err(Error::new("ovsdb error", "map contains duplicate key")),
            };
        }
        if json.get(0).and_then(Value::as_str) != Some("set") {
            return Ok(Self(Repr::Set(vec![Atom::from_json(json, &ty.key, symbols)?])));
        }
        let mut atoms = Vec::new();
        for atom in tagged(json, "set")? {
            atoms.push(Atom::from_json(atom, &ty.key, symbols.as_deref_mut())?);
        }
        let given = atoms.len();
        let datum = Self::set(atoms);
        match datum.len() == given {
            true => Ok(datum),
            false => Err(Error::new("ovsdb error", "set contains duplicate")),
        }
    }

    fn check_size(&self, ty: &ColumnType, json: &Value) -> Result<()> {
        if self.fits(ty) {
            return Ok(());
        }
        let class = if ty.is_map() { "map" } else { "set" };
        let want = match (ty.min, ty.max) {
            (1, 1) => "exactly one member".to_owned(),
            (min, max) => format!("{min} to {max} members"),
        };
        let text = format!("{class} must have {want} but {} are present", self.len());
        Err(Error::syntax(json, text))
    }

    /// Checks every element against the constraints of `ty`.
    ///
    /// # Errors
    /// `constraint violation` for the first element out of bounds.
    pub fn check(&self, ty: &ColumnType) -> Result<()> {
        self.keys().try_for_each(|key| key.check(&ty.key))?;
        let values = ty.value.iter().flat_map(|base| self.values().map(move |v| (v, base)));
        values.into_iter().try_for_each(|(value, base)| value.check(base))
    }

    /// True if the number of elements is one that `ty` allows.
    pub fn fits(&self, ty: &ColumnType) -> bool {
        self.len() >= ty.min as usize && (ty.max == UNLIMITED || self.len() <= ty.max as usize)
    }

    /// The `<value>`: a set of one is its atom, everything else is tagged.
    pub fn to_json(&self) -> Value {
        match &self.0 {
            Repr::Set(atoms) if atoms.len() == 1 => atoms[0].to_json(),
            Repr::Set(_) => self.to_json_list(),
            Repr::Map(pairs) => {
                let pairs: Vec<Value> = pairs
                    .iter()
                    .map(|(key, value)| json!([key.to_json(), value.to_json()]))
                    .collect();
                json!(["map", pairs])
            }
        }
    }

    /// `["set", […]]` whatever the number of elements, as schemas list enumerations.
    pub fn to_json_list(&self) -> Value {
        json!(["set", self.keys().map(Atom::to_json).collect::<Vec<_>>()])
    }

    /// The text of `ovs-vsctl`: `{key=value, …}`, `[a, b]`, or a bare atom where `ty` holds at
    /// most one.
    pub fn to_text(&self, ty: &ColumnType) -> String {
        let list = match &self.0 {
            Repr::Set(atoms) => atoms.iter().map(Atom::to_string).collect::<Vec<_>>(),
            Repr::Map(pairs) => pairs.iter().map(|(key, value)| format!("{key}={value}")).collect(),
        };
        let list = list.join(", ");
        match &self.0 {
            Repr::Map(_) => format!("{{{list}}}"),
            Repr::Set(atoms) if ty.max > 1 || atoms.is_empty() => format!("[{list}]"),
            Repr::Set(_) => list,
        }
    }

    /// Union. In maps, pairs of `self` win over those of `other` with the same key.
    pub fn union(&self, other: &Self) -> Self {
        match (&self.0, &other.0) {
            (Repr::Map(mine), Repr::Map(others)) => Self::map(mine.iter().chain(others).cloned()),
            _ => Self::set(self.keys().chain(other.keys()).cloned()),
        }
    }

    /// `self` without what `other` names: elements of a set; for a map, pairs equal to one of
    /// `other`'s, or all pairs with a key in `other` when that is a set.
    pub fn subtract(&self, other: &Self) -> Self {
        match (&self.0, &other.0) {
            (Repr::Map(mine), Repr::Map(_)) => {
                let keep = |(key, value): &&(Atom, Atom)| other.get(key) != Some(value);
                Self(Repr::Map(mine.iter().filter(keep).cloned().collect()))
            }
            (Repr::Map(mine), Repr::Set(_)) => {
                let keep = |(key, _): &&(Atom, Atom)| !other.contains(key);
                Self(Repr::Map(mine.iter().filter(keep).cloned().collect()))
            }
            (Repr::Set(mine), _) => {
                let keep = |atom: &&Atom| !other.contains(atom);
                Self(Repr::Set(mine.iter().filter(keep).cloned().collect()))
            }
        }
    }

    /// True if every element or pair of `other` is in `self`.
    pub fn includes_all(&self, other: &Self) -> bool {
        match &other.0 {
            Repr::Set(atoms) => atoms.iter().all(|atom| self.contains(atom)),
            Repr::Map(pairs) => pairs.iter().all(|(key, value)| self.get(key) == Some(value)),
        }
    }

    /// True if no element or pair of `other` is in `self`.
    pub fn excludes_all(&self, other: &Self) -> bool {
        match &other.0 {
            Repr::Set(atoms) => !atoms.iter().any(|atom| self.contains(atom)),
            Repr::Map(pairs) => !pairs.iter().any(|(key, value)| self.get(key) == Some(value)),
        }
    }

    /// The difference that [`Datum::apply_diff`] turns `self` into `new` with. For columns of at
    /// most one element it is `new`; for sets the elements in only one of the two; for maps the
    /// new pair of every key added or changed and the old pair of every key removed.
    pub fn diff(&self, new: &Self, ty: &ColumnType) -> Self {
        if !ty.is_composite() {
            return new.clone();
        }
        match (&self.0, &new.0) {
            (Repr::Map(old_pairs), Repr::Map(new_pairs)) => {
                let removed = old_pairs.iter().filter(|(key, _)| !new.contains(key));
                let put = new_pairs.iter().filter(|(key, value)| self.get(key) != Some(value));
                Self::map(removed.chain(put).cloned())
            }
            _ => {
                let removed = self.keys().filter(|key| !new.contains(key));
                let added = new.keys().filter(|key| !self.contains(key));
                Self::set(removed.chain(added).cloned())
            }
        }
    }

    /// Applies a difference made by [`Datum::diff`].
    ///
    /// # Errors
    /// `constraint violation` if the result has a number of elements that `ty` does not allow.
    pub fn apply_diff(&self, diff: &Self, ty: &ColumnType) -> Result<Self> {
        let result = match (&self.0, &diff.0) {
            _ if !ty.is_composite() => diff.clone(),
            (Repr::Map(old), Repr::Map(changes)) => {
                let kept = old.iter().filter(|(key, _)| !diff.contains(key));
                let put = changes.iter().filter(|(key, value)| self.get(key) != Some(value));
                Self::map(kept.chain(put).cloned())
            }
            _ => self.diff(diff, ty),
        };
        if !result.fits(ty) {
            let text = format!("the change leaves {} elements in the column", result.len());
            return Err(Error::constraint(text));
        }
        Ok(result)
    }
}

/// The list in `["set", […]]` or `["map", […]]`.
fn tagged<'a>(json: &'a Value, tag: &str) -> Result<&'a [Value]> {
    let pair = json.as_array().filter(|pair| pair.len() == 2 && pair[0].as_str() == Some(tag));
    let list = pair.and_then(|pair| pair[1].as_array());
    list.map(Vec::as_slice)
        .ok_or_else(|| Error::syntax(json, format!("expected [\"{tag}\", <array>]")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{AtomType, BaseType};
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn integers() -> ColumnType {
        ColumnType { key: BaseType::of(AtomType::Integer), value: None, min: 0, max: UNLIMITED }
    }

    fn integer_map() -> ColumnType {
        ColumnType { value: Some(BaseType::of(AtomType::Integer)), ..integers() }
    }

    fn set_of(model: &BTreeSet<i64>) -> Datum {
        Datum::set(model.iter().map(|&n| Atom::Integer(n)))
    }

    fn map_of(model: &BTreeMap<i64, i64>) -> Datum {
        Datum::map(model.iter().map(|(&k, &v)| (Atom::Integer(k), Atom::Integer(v))))
    }

    fn small_set() -> impl Strategy<Value = BTreeSet<i64>> {
        proptest::collection::btree_set(0..8i64, 0..8)
    }

    fn small_map() -> impl Strategy<Value = BTreeMap<i64, i64>> {
        proptest::collection::btree_map(0..6i64, 0..3i64, 0..6)
    }

    proptest! {
        #[test]
        fn sets_behave_as_btree_sets(a in small_set(), b in small_set()) {
            let (x, y) = (set_of(&a), set_of(&b));
            prop_assert_eq!(x.union(&y), set_of(&a.union(&b).copied().collect()));
            prop_assert_eq!(x.subtract(&y), set_of(&a.difference(&b).copied().collect()));
            prop_assert_eq!(x.includes_all(&y), a.is_superset(&b));
            prop_assert_eq!(x.excludes_all(&y), a.is_disjoint(&b));
            let diff = x.diff(&y, &integers());
            prop_assert_eq!(&diff, &set_of(&a.symmetric_difference(&b).copied().collect()));
            prop_assert_eq!(x.apply_diff(&diff, &integers()).unwrap(), y);
            prop_assert_eq!(Datum::from_json(&x.to_json(), &integers(), None).unwrap(), x);
        }

        #[test]
        fn maps_behave_as_btree_maps(a in small_map(), b in small_map()) {
            let (x, y) = (map_of(&a), map_of(&b));
            let mut union = b.clone();
            union.extend(a.clone());
            prop_assert_eq!(x.union(&y), map_of(&union));
            let mut without = a.clone();
            without.retain(|key, value| b.get(key) != Some(value));
            prop_assert_eq!(x.subtract(&y), map_of(&without));
            let diff = x.diff(&y, &integer_map());
            prop_assert_eq!(x.apply_diff(&diff, &integer_map()).unwrap(), y);
            prop_assert_eq!(diff.is_empty(), a == b);
            prop_assert_eq!(Datum::from_json(&x.to_json(), &integer_map(), None).unwrap(), x);
        }
    }

    #[test]
    fn json_refusals() {
        let refuse = |json: Value, ty: &ColumnType| Datum::from_json(&json, ty, None).unwrap_err();
        let error = refuse(json!(["set", [1, 2, 1]]), &integers());
        assert_eq!(error.details.as_deref(), Some("set contains duplicate"));
        refuse(json!(["map", [[1, 2], [1, 3]]]), &integer_map());
        refuse(json!(["map", [[1]]]), &integer_map());
        refuse(json!([]), &integers());
        refuse(json!({}), &integers());
        refuse(json!(["set", []]), &ColumnType::scalar(AtomType::Integer));
        refuse(json!(["set", [1, 2]]), &ColumnType::scalar(AtomType::Integer));
    }

    #[test]
    fn text_form() {
        let datum = Datum::string_map([("b", "2"), ("a", "x")]);
        assert_eq!(datum.to_text(&integer_map()), "{a=x, b=\"2\"}");
        assert_eq!(Datum::scalar(7).to_text(&integers()), "[7]");
        assert_eq!(Datum::scalar(7).to_text(&ColumnType::scalar(AtomType::Integer)), "7");
        assert_eq!(Datum::empty_set().to_text(&integers()), "[]");
    }
}
