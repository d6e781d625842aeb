//! Conditions on rows: the `where` of operations and monitors (RFC 7047, section 5.1,
//! `<condition>`).

use serde_json::Value;

use crate::datum::Datum;
use crate::db::Row;
use crate::error::{Error, Result};
use crate::schema::{ColumnId, TableSchema, UUID_COLUMN};
use crate::types::{AtomType, ColumnType, UNLIMITED};
use crate::uuid::Uuid;
use crate::value::Symbols;

/// A list of clauses.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition(Vec<Clause>);

#[derive(Clone, Debug, PartialEq)]
enum Clause {
    Constant(bool),
    Compare { column: ColumnId, function: Function, argument: Datum },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Function {
    Less,
    LessOrEqual,
    Equal,
    NotEqual,
    GreaterOrEqual,
    Greater,
    Includes,
    Excludes,
}

impl Function {
    fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "<" => Self::Less,
            "<=" => Self::LessOrEqual,
            "==" => Self::Equal,
            "!=" => Self::NotEqual,
            ">=" => Self::GreaterOrEqual,
            ">" => Self::Greater,
            "includes" => Self::Includes,
            "excludes" => Self::Excludes,
            _ => return None,
        })
    }

    fn is_relational(self) -> bool {
        matches!(self, Self::Less | Self::LessOrEqual | Self::GreaterOrEqual | Self::Greater)
    }
}

impl Condition {
    /// The condition that every row satisfies.
    pub const fn always() -> Self {
        Self(Vec::new())
    }

    /// Reads a `<condition>`; besides clauses, `true` and `false` stand for themselves.
    ///
    /// # Errors
    /// `syntax error`, `unknown column`, `unknown function` or `constraint violation`.
    pub fn from_json(
        json: &[Value],
        table: &TableSchema,
        mut symbols: Option<&mut Symbols>,
    ) -> Result<Self> {
        let mut clauses = Vec::with_capacity(json.len());
        for clause in json {
            clauses.push(Clause::from_json(clause, table, symbols.as_deref_mut())?);
        }
        Ok(Self(clauses))
    }

    /// True if `row` satisfies every clause: the meaning in operations.
    pub fn all(&self, row: &Row) -> bool {
        self.0.iter().all(|clause| clause.holds(row))
    }

    /// True if there is no clause or `row` satisfies one: the meaning in monitors.
    pub fn any(&self, row: &Row) -> bool {
        self.0.is_empty() || self.0.iter().any(|clause| clause.holds(row))
    }

    /// The only row that can satisfy every clause, where one asks for a certain `_uuid`.
    pub fn only_row(&self) -> Option<Uuid> {
        self.0.iter().find_map(|clause| match clause {
            Clause::Compare { column: UUID_COLUMN, function: Function::Equal, argument } => {
                argument.as_uuid()
            }
            _ => None,
        })
    }
}

impl Clause {
    fn from_json(json: &Value, table: &TableSchema, symbols: Option<&mut Symbols>) -> Result<Self> {
        if let Value::Bool(constant) = json {
            return Ok(Self::Constant(*constant));
        }
        let parts = json.as_array().map(Vec::as_slice).unwrap_or_default();
        let [Value::String(column), Value::String(function), argument] = parts else {
            return Err(Error::syntax(json, "Parse error in condition."));
        };
        let column = column_named(column, table, json)?;
        let ty = &table.columns[column].ty;
        let Some(function_id) = Function::from_name(function) else {
            return Err(Error::new("unknown function", format!("No function named {function}.")));
        };
        let argument = if function_id.is_relational() {
            let number = matches!(ty.key.kind, AtomType::Integer | AtomType::Real);
            if !number || ty.is_map() || !(ty.is_scalar() || ty.is_optional()) {
                return Err(mismatch(function, &table.columns[column].name, ty, json));
            }
            let one = ColumnType { min: 1, ..ty.clone() };
            Datum::from_json(argument, &one, symbols)?
        } else if matches!(function_id, Function::Equal | Function::NotEqual) || ty.is_scalar() {
            Datum::from_json(argument, ty, symbols)?
        } else {
            let any = ColumnType { min: 0, max: UNLIMITED, ..ty.clone() };
            Datum::from_json(argument, &any, symbols)?
        };
        Ok(Self::Compare { column, function: function_id, argument })
    }

    fn holds(&self, row: &Row) -> bool {
        let (column, function, argument) = match self {
            Self::Constant(constant) => return *constant,
            Self::Compare { column, function, argument } => (*column, *function, argument),
        };
        let value = row.get(column);
        // Only one-element sets of the same type meet here, where the order of sets is that of
        // their elements; an empty optional column compares as false.
        let ordered = |yes: bool| !value.is_empty() && yes;
        match function {
            Function::Less => ordered(value < argument),
            Function::LessOrEqual => ordered(value <= argument),
            Function::Equal => value == argument,
            Function::NotEqual => value != argument,
            Function::GreaterOrEqual => ordered(value >= argument),
            Function::Greater => ordered(value > argument),
            Function::Includes => value.includes_all(argument),
            Function::Excludes => value.excludes_all(argument),
        }
    }
}

/// The position of a column that `json` names.
pub(crate) fn column_named(name: &str, table: &TableSchema, json: &Value) -> Result<ColumnId> {
    table.column_id(name).ok_or_else(|| {
        let text = format!("No column {name} in table {}.", table.name);
        Error::new("unknown column", text).about(json)
    })
}

/// The complaint about an operator that a column's type does not have.
pub(crate) fn mismatch(operator: &str, column: &str, ty: &ColumnType, json: &Value) -> Error {
    let text = format!(
        "Type mismatch: \"{operator}\" operator may not be applied to column {column} of type {ty}."
    );
    Error::syntax(json, text)
}
