//! Mutations: changes to column values (RFC 7047, section 5.1, `<mutation>`).

use serde_json::Value;

use crate::condition::{column_named, mismatch};
use crate::datum::Datum;
use crate::db::Row;
use crate::error::{Error, Result};
use crate::schema::{ColumnId, TableSchema};
use crate::types::{AtomType, BaseType, ColumnType, UNLIMITED};
use crate::value::{Atom, Real, Symbols};

/// One change to one column.
#[derive(Clone, Debug)]
pub struct Mutation {
    column: ColumnId,
    mutator: Mutator,
    argument: Datum,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mutator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Insert,
    Delete,
}

const MUTATORS: [(&str, Mutator); 7] = [
    ("+=", Mutator::Add),
    ("-=", Mutator::Subtract),
    ("*=", Mutator::Multiply),
    ("/=", Mutator::Divide),
    ("%=", Mutator::Remainder),
    ("insert", Mutator::Insert),
    ("delete", Mutator::Delete),
];

impl Mutator {
    fn from_name(name: &str) -> Option<Self> {
        MUTATORS.iter().find(|(known, _)| *known == name).map(|(_, mutator)| *mutator)
    }

    fn name(self) -> &'static str {
        MUTATORS.iter().find(|(_, known)| *known == self).map_or("", |(name, _)| name)
    }

    fn is_arithmetic(self) -> bool {
        !matches!(self, Self::Insert | Self::Delete)
    }

    fn suits(self, ty: &ColumnType) -> bool {
        match (self, ty.key.kind) {
            (Self::Insert | Self::Delete, _) => !ty.is_scalar(),
            (Self::Remainder, kind) => kind == AtomType::Integer && !ty.is_map(),
            (_, kind) => matches!(kind, AtomType::Integer | AtomType::Real) && !ty.is_map(),
        }
    }
}

impl Mutation {
    /// Reads a `<mutation>` of a row of `table`.
    ///
    /// # Errors
    /// `syntax error`, `unknown column`, `unknown mutator`, or `constraint violation` for an
    /// immutable column or an argument out of bounds.
    pub fn from_json(
        json: &Value,
        table: &TableSchema,
        symbols: Option<&mut Symbols>,
    ) -> Result<Self> {
        let parts = json.as_array().map(Vec::as_slice).unwrap_or_default();
        let [Value::String(column), Value::String(name), argument] = parts else {
            return Err(Error::syntax(json, "Parse error in mutation."));
        };
        let column = column_named(column, table, json)?;
        let schema = &table.columns[column];
        if !schema.mutable {
            let text =
                format!("Cannot mutate immutable column {} in table {}.", schema.name, table.name);
            return Err(Error::constraint(text).about(json));
        }
        let Some(mutator) = Mutator::from_name(name) else {
            return Err(Error::new("unknown mutator", format!("No mutator named {name}.")));
        };
        if !mutator.suits(&schema.ty) {
            return Err(mismatch(name, &schema.name, &schema.ty, json));
        }
        let argument = read_argument(argument, mutator, &schema.ty, symbols)?;
        Ok(Self { column, mutator, argument })
    }

    /// Changes `row`.
    ///
    /// # Errors
    /// `domain error`, `range error` or `constraint violation`; `row` is unchanged then.
    pub fn apply(&self, row: &mut Row, table: &TableSchema) -> Result<()> {
        let ty = &table.columns[self.column].ty;
        let value = row.get(self.column);
        let new = match self.mutator {
            Mutator::Insert => value.union(&self.argument),
            Mutator::Delete => value.subtract(&self.argument),
            mutator => self.compute(mutator, value, ty)?,
        };
        if !new.fits(ty) {
            let text = format!("Attempted to store {} elements in {ty}.", new.len());
            return Err(Error::constraint(text));
        }
        row.set(self.column, new);
        Ok(())
    }

    fn compute(&self, mutator: Mutator, value: &Datum, ty: &ColumnType) -> Result<Datum> {
        let Some(operand) = self.argument.as_atom() else { return Ok(value.clone()) };
        let atoms = value.keys().map(|atom| {
            let result = arithmetic(mutator, atom, operand)?;
            result.check(&ty.key)?;
            Ok(result)
        });
        let new = Datum::set(atoms.collect::<Result<Vec<Atom>>>()?);
        if new.len() != value.len() {
            let text = format!("Result of \"{}\" operation contains duplicates.", mutator.name());
            return Err(Error::constraint(text));
        }
        Ok(new)
    }
}

fn read_argument(
    json: &Value,
    mutator: Mutator,
    ty: &ColumnType,
    symbols: Option<&mut Symbols>,
) -> Result<Datum> {
    if mutator.is_arithmetic() {
        // The operand is a number like any other; the bounds are for the result.
        return Datum::from_json(json, &ColumnType::scalar(ty.key.kind), symbols);
    }
    let mut any = ColumnType { min: 0, max: UNLIMITED, ..ty.clone() };
    if mutator == Mutator::Delete {
        // What is deleted need not be what could be stored.
        any.key = BaseType::of(ty.key.kind);
        any.value = ty.value.as_ref().map(|base| BaseType::of(base.kind));
        // A set of keys deletes pairs whatever their values.
        if ty.is_map() && json.get(0).and_then(Value::as_str) != Some("map") {
            any.value = None;
        }
    }
    Datum::from_json(json, &any, symbols)
}

fn arithmetic(mutator: Mutator, left: &Atom, right: &Atom) -> Result<Atom> {
    let out_of_range = || {
        let text = format!("Result of \"{}\" operation is out of range.", mutator.name());
        Error::new("range error", text)
    };
    match (left, right) {
        (Atom::Integer(left), Atom::Integer(right)) => {
            if *right == 0 && matches!(mutator, Mutator::Divide | Mutator::Remainder) {
                return Err(Error::new("domain error", "Division by zero."));
            }
            let result = match mutator {
                Mutator::Add => left.checked_add(*right),
                Mutator::Subtract => left.checked_sub(*right),
                Mutator::Multiply => left.checked_mul(*right),
                Mutator::Divide => left.checked_div(*right),
                _ => left.checked_rem(*right),
            };
            result.map(Atom::Integer).ok_or_else(out_of_range)
        }
        (Atom::Real(left), Atom::Real(right)) => {
            let (left, right) = (left.get(), right.get());
            if right == 0.0 && mutator == Mutator::Divide {
                return Err(Error::new("domain error", "Division by zero."));
            }
            let result = match mutator {
                Mutator::Add => left + right,
                Mutator::Subtract => left - right,
                Mutator::Multiply => left * right,
                _ => left / right,
            };
            let finite = result.is_finite();
            finite.then(|| Atom::Real(Real::new(result))).ok_or_else(out_of_range)
        }
        _ => Err(Error::new("internal error", "mutation of atoms of different types")),
    }
}
