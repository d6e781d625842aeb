//! `--sort` and `--rsort`: the order in which flows are printed.

use openflow::Field;
use std::cmp::Ordering;
use tables::Rule;

/// What flows are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Criterion {
    /// `None` is the priority.
    field: Option<&'static Field>,
    falling: bool,
}

impl Criterion {
    pub(super) fn priority(falling: bool) -> Criterion {
        Criterion { field: None, falling }
    }

    /// # Errors
    /// If there is no such field.
    pub(super) fn of(name: &str, falling: bool) -> Result<Criterion, String> {
        match openflow::field(name) {
            Some(field) => Ok(Criterion { field: Some(field), falling }),
            None if name == "priority" => Ok(Criterion::priority(falling)),
            None => Err(format!("{name}: unknown field name")),
        }
    }

    /// Flows that do not look at the field come last whichever the order is.
    fn compare(self, a: &Rule, b: &Rule) -> Ordering {
        let order = match self.field {
            None => a.priority.cmp(&b.priority),
            Some(field) => {
                let (ma, mb) = (a.matches(), b.matches());
                let looks = |m: &openflow::Match| field.get(&m.mask.0) != 0;
                match (looks(&ma), looks(&mb)) {
                    (true, false) => return Ordering::Less,
                    (false, true) => return Ordering::Greater,
                    _ => field.get(&ma.value).cmp(&field.get(&mb.value)),
                }
            }
        };
        if self.falling { order.reverse() } else { order }
    }
}

/// Sorts flows; those that the criteria do not tell apart go by falling priority, as in `ovs-ofctl`,
/// and then stay in the order that they have. Without criteria nothing changes.
pub(super) fn sort<R: std::ops::Deref<Target = Rule>>(rules: &mut [R], criteria: &[Criterion]) {
    if criteria.is_empty() {
        return;
    }
    let last = Criterion::priority(true);
    rules.sort_by(|a, b| {
        let mut each = criteria.iter().chain([&last]).map(|c| c.compare(a, b));
        each.find(|o| o.is_ne()).unwrap_or(Ordering::Equal)
    });
}
