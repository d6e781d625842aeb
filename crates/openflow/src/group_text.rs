//! Groups as text (ovs-ofctl(8), "Group Syntax").

use crate::actions::{ListReader, format_actions, settle_actions};
use crate::error::ParseError;
use crate::field::Field;
use crate::flow_text::{keyword, lines};
use crate::group::{Bucket, BucketPlace, GROUP_MAX, Group, GroupCommand, GroupMod};
use crate::group::{GroupType, Selection};
use crate::matching::Match;
use crate::number;
use crate::pairs::{Pair, Pairs};
use crate::port::{OfPort, PortNames};
use crate::port_text::{ShowPort, parse_port};
use crate::registry::field;
use std::collections::HashSet;
use std::fmt;

/// Longest name of a selection method, in bytes (OVS, NTR_MAX_SELECTION_METHOD_LEN).
const MAX_METHOD: usize = 15;

const TYPES: [(&str, GroupType); 5] = [
    ("all", GroupType::All),
    ("select", GroupType::Select),
    ("indirect", GroupType::Indirect),
    ("ff", GroupType::FastFailover),
    ("fast_failover", GroupType::FastFailover),
];

impl GroupCommand {
    fn defines(self) -> bool {
        matches!(self, GroupCommand::Add | GroupCommand::Modify | GroupCommand::AddOrModify)
    }

    fn has_place(self) -> bool {
        matches!(self, GroupCommand::InsertBuckets | GroupCommand::RemoveBuckets)
    }

    fn has_buckets(self) -> bool {
        self.defines() || self == GroupCommand::InsertBuckets
    }
}

/// Reads a group as `ovs-ofctl` takes it for a command.
///
/// # Errors
/// A word is not understood or is not for this command, something is missing, or the buckets are not
/// such as the type of group can have.
pub fn parse_group_mod(
    line: &str,
    command: GroupCommand,
    names: &dyn PortNames,
) -> Result<GroupMod, ParseError> {
    read(line, command, names).map_err(|e| e.locate(line))
}

/// What a line of a file can begin with (ovs-ofctl(8), "add-groups").
const COMMANDS: [(&str, GroupCommand); 6] = [
    ("add", GroupCommand::Add),
    ("delete", GroupCommand::Delete),
    ("modify", GroupCommand::Modify),
    ("add_or_mod", GroupCommand::AddOrModify),
    ("insert_bucket", GroupCommand::InsertBuckets),
    ("remove_bucket", GroupCommand::RemoveBuckets),
];

/// Reads a line of a file, which may begin with a command.
pub(crate) fn read_group_line(line: &str, names: &dyn PortNames) -> Result<GroupMod, ParseError> {
    let (command, rest) = keyword(line, &COMMANDS).unwrap_or((GroupCommand::Add, line));
    read(rest, command, names)
}

/// Reads a file of groups; empty lines and what follows `#` do not count. Lines add groups unless they
/// begin with `modify`, `add_or_mod`, `delete`, `insert_bucket` or `remove_bucket`.
///
/// # Errors
/// The first line that is wrong, by its number from 1, and what is wrong with it.
pub fn parse_group_mods(
    text: &str,
    names: &dyn PortNames,
) -> Result<Vec<GroupMod>, (usize, ParseError)> {
    let read = |line: &str| read_group_line(line, names).map_err(|e| e.locate(line));
    lines(text).map(|(n, line)| read(line).map_err(|e| (n, e))).collect()
}

/// What a line says before its buckets.
#[derive(Default)]
struct Head {
    id: Option<u32>,
    all: bool,
    kind: Option<GroupType>,
    selection: Selection,
    place: Option<BucketPlace>,
}

fn read(line: &str, command: GroupCommand, names: &dyn PortNames) -> Result<GroupMod, ParseError> {
    let start = line.find("bucket=").filter(|_| command.has_buckets()).unwrap_or(line.len());
    let (head_text, buckets_text) = line.split_at(start);
    let mut head = Head::default();
    for pair in Pairs::new(head_text) {
        head.read(pair, command, names)?;
    }
    let wrong = |reason| ParseError::new(line, reason);
    let all = head.all || head.id.is_none() && command == GroupCommand::Delete;
    if head.id.is_none() && !all {
        return Err(wrong("must specify a group_id"));
    }
    if all && command != GroupCommand::Delete {
        return Err(wrong("group_id=all is only for deleting (OFPGMFC_INVALID_GROUP)"));
    }
    if command.defines() && head.kind.is_none() {
        return Err(wrong("must specify a type"));
    }
    if command.has_place() && head.place.is_none() {
        return Err(wrong("must specify a command bucket id"));
    }
    let kind = head.kind.unwrap_or(GroupType::All);
    let mut buckets = Vec::new();
    // The first part is empty.
    for text in buckets_text.split("bucket=").skip(1) {
        buckets.push(DraftBucket::read(text, names)?);
    }
    let selection = head.selection;
    if command.defines() {
        check_buckets(kind, &buckets).map_err(wrong)?;
        check_selection(kind, &selection).map_err(wrong)?;
    }
    let Some(buckets) = number_buckets(buckets) else {
        return Err(wrong("Duplicate bucket id (OFPGMFC_BAD_BUCKET)"));
    };
    let group = Group { id: head.id.unwrap_or(0), kind, buckets, selection };
    Ok(GroupMod { command, all, group, place: head.place.unwrap_or(BucketPlace::All) })
}

impl Head {
    fn read(
        &mut self,
        pair: Pair<'_>,
        command: GroupCommand,
        names: &dyn PortNames,
    ) -> Result<(), ParseError> {
        let Pair { key, value } = pair;
        let needless = |what: &str| Err(ParseError::new(key, format!("{what} not needed")));
        let defines = command.defines();
        match key {
            "group_id" if value == "all" => self.all = true,
            "group_id" => {
                let id = number::u32(value)?;
                if id > GROUP_MAX {
                    return Err(ParseError::new(value, format!("invalid group id {id}")));
                }
                self.id = Some(id);
            }
            "type" if !defines => return needless("type is"),
            "type" => {
                let kind = TYPES.iter().find(|(name, _)| *name == value).map(|(_, kind)| *kind);
                let invalid = || ParseError::new(value, format!("invalid group type {value}"));
                self.kind = Some(kind.ok_or_else(invalid)?);
            }
            "command_bucket_id" if !command.has_place() => {
                return needless("command bucket id is");
            }
            "command_bucket_id" => self.place = Some(read_place(value, command)?),
            "selection_method" if !defines => return needless("selection method is"),
            "selection_method" if value.len() > MAX_METHOD => {
                let reason = "selection method is longer than 15 bytes long";
                return Err(ParseError::new(value, reason));
            }
            "selection_method" => {
                self.selection.method = Some(value.to_owned()).filter(|v| !v.is_empty());
            }
            "selection_method_param" if !defines => return needless("selection method param is"),
            "selection_method_param" => self.selection.param = number::u64(value)?,
            "fields" if !defines => return needless("fields are"),
            "fields" => self.selection.fields = read_fields(value, names)?,
            "bucket" if !value.is_empty() && !command.has_buckets() => {
                return needless("bucket is");
            }
            _ => return Err(ParseError::new(key, format!("unknown keyword {key}"))),
        }
        Ok(())
    }
}

fn read_place(word: &str, command: GroupCommand) -> Result<BucketPlace, ParseError> {
    Ok(match word {
        "all" if command != GroupCommand::RemoveBuckets => {
            return Err(ParseError::new(word, "command_bucket_id=all is not permitted"));
        }
        "all" => BucketPlace::All,
        "first" => BucketPlace::First,
        "last" => BucketPlace::Last,
        _ => match number::u32(word)? {
            id if id > GROUP_MAX => {
                return Err(ParseError::new(word, format!("invalid command bucket id {id}")));
            }
            id => BucketPlace::Id(id),
        },
    })
}

/// Reads `NAME` or `NAME=MASK`, and more of them.
fn read_fields(
    text: &str,
    names: &dyn PortNames,
) -> Result<Vec<(&'static Field, u128)>, ParseError> {
    let mut fields: Vec<(&'static Field, u128)> = Vec::new();
    for Pair { key, value } in Pairs::new(text) {
        let Some(field) = field(key) else {
            return Err(ParseError::new(key, format!("{key}: unknown field {key}")));
        };
        if fields.iter().any(|(f, _)| *f == field) {
            return Err(ParseError::new(key, format!("{key}: duplicate field")));
        }
        let mask = match value {
            "" => field.ones(),
            _ => field.parse_value(value, names)?.0,
        };
        fields.push((field, mask));
    }
    // The order of the registry is the one that is printed.
    fields.sort_by_key(|(field, _)| std::ptr::from_ref(*field));
    Ok(fields)
}

/// A bucket whose number may not have been said.
struct DraftBucket {
    id: Option<u32>,
    weight: Option<u16>,
    bucket: Bucket,
}

impl DraftBucket {
    fn read(text: &str, names: &dyn PortNames) -> Result<DraftBucket, ParseError> {
        let mut bucket = Bucket {
            id: 0,
            weight: 1,
            watch_port: OfPort::NONE,
            watch_group: None,
            actions: Vec::new(),
        };
        let (mut id, mut weight, mut said) = (None, None, false);
        let mut reader = ListReader::bucket(names);
        for pair in Pairs::new(text) {
            let Pair { key, value } = pair;
            let wrong = |reason: String| ParseError::new(value, reason);
            match key.to_ascii_lowercase().as_str() {
                "weight" => weight = Some(number::u16(value, "weight")?),
                "watch_port" => {
                    let invalid = || wrong(format!("{value}: invalid watch_port"));
                    bucket.watch_port = parse_port(value, names).ok_or_else(invalid)?;
                }
                "watch_group" => bucket.watch_group = Some(read_id(value, "watch_group")?),
                "bucket_id" => id = Some(read_id(value, "bucket_id")?),
                "action" | "actions" => {
                    said = true;
                    Pairs::new(value).try_for_each(|pair| reader.add(pair))?;
                }
                _ => {
                    said = true;
                    reader.add(pair)?;
                }
            }
        }
        if !said {
            return Err(ParseError::new(text, "bucket must specify actions"));
        }
        bucket.actions = settle_actions(reader.finish()?, &Match::any());
        Ok(DraftBucket { id, weight, bucket })
    }
}

fn read_id(word: &str, what: &str) -> Result<u32, ParseError> {
    match number::u32(word)? {
        id if id > GROUP_MAX => Err(ParseError::new(word, format!("invalid {what} id {id}"))),
        id => Ok(id),
    }
}

/// What a type of group demands of its buckets.
fn check_buckets(kind: GroupType, buckets: &[DraftBucket]) -> Result<(), &'static str> {
    let watches =
        |b: &DraftBucket| b.bucket.watch_port != OfPort::NONE || b.bucket.watch_group.is_some();
    let watching = buckets.iter().any(watches);
    let can_watch = matches!(kind, GroupType::Select | GroupType::FastFailover);
    match kind {
        _ if kind != GroupType::Select && buckets.iter().any(|b| b.weight.is_some()) => {
            Err("Only select groups can have bucket weights.")
        }
        GroupType::Indirect if buckets.len() > 1 => {
            Err("Indirect groups can have at most one bucket.")
        }
        GroupType::Indirect if buckets.is_empty() => {
            Err("Indirect groups must have a bucket. (OFPGMFC_INVALID_GROUP)")
        }
        GroupType::FastFailover if !buckets.iter().all(watches) => {
            Err("fast failover bucket requires watch_port or watch_group")
        }
        _ if watching && !can_watch => {
            Err("only select and fast failover buckets can watch (OFPGMFC_WATCH_UNSUPPORTED)")
        }
        _ => Ok(()),
    }
}

fn check_selection(kind: GroupType, selection: &Selection) -> Result<(), &'static str> {
    let hashed = selection.method.as_deref() == Some("hash");
    match selection.method.as_deref() {
        None if selection.param != 0 => {
            Err("selection_method_param is only allowed with \"selection_method\"")
        }
        _ if !hashed && !selection.fields.is_empty() => {
            Err("fields may only be specified with \"selection_method=hash\"")
        }
        None => Ok(()),
        Some(_) if kind != GroupType::Select => {
            Err("selection method is only allowed for select groups (OFPBPC_BAD_VALUE)")
        }
        Some("hash" | "dp_hash") => Ok(()),
        Some(_) => Err("selection method must be hash or dp_hash (OFPBPC_BAD_VALUE)"),
    }
}

/// Gives the lowest free numbers to buckets without one; `None` if two have the same.
fn number_buckets(drafts: Vec<DraftBucket>) -> Option<Vec<Bucket>> {
    let mut taken = HashSet::new();
    if !drafts.iter().filter_map(|d| d.id).all(|id| taken.insert(id)) {
        return None;
    }
    let mut free = (0..=GROUP_MAX).filter(|id| !taken.contains(id));
    drafts
        .into_iter()
        .map(|d| {
            let id = d.id.or_else(|| free.next())?;
            Some(Bucket { id, weight: d.weight.unwrap_or(1), ..d.bucket })
        })
        .collect()
}

/// A group as `ovs-ofctl dump-groups` prints it.
pub fn format_group(group: &Group, names: &dyn PortNames) -> String {
    ShowGroup { group, names }.to_string()
}

struct ShowGroup<'a> {
    group: &'a Group,
    names: &'a dyn PortNames,
}

impl fmt::Display for ShowGroup<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Group { id, kind, selection, .. } = self.group;
        let kind_name = TYPES.iter().find(|(_, k)| k == kind).map_or("", |(name, _)| name);
        write!(f, "group_id={id},type={kind_name}")?;
        if let Some(method) = &selection.method {
            write!(f, ",selection_method={method}")?;
        }
        if selection.param != 0 {
            write!(f, ",selection_method_param={}", selection.param)?;
        }
        let show_field = |(field, mask): &(&'static Field, u128)| match *mask == field.ones() {
            true => field.name.to_owned(),
            false => format!("{}={}", field.name, field.format(*mask, u128::MAX, self.names)),
        };
        let fields: Vec<String> = selection.fields.iter().map(show_field).collect();
        match &fields[..] {
            [] => {}
            [one] => write!(f, ",fields={one}")?,
            _ => write!(f, ",fields({})", fields.join(","))?,
        }
        self.group.buckets.iter().try_for_each(|bucket| self.show_bucket(f, bucket))
    }
}

impl ShowGroup<'_> {
    fn show_bucket(&self, f: &mut fmt::Formatter<'_>, bucket: &Bucket) -> fmt::Result {
        write!(f, ",bucket=bucket_id:{},", bucket.id)?;
        if self.group.kind == GroupType::Select && bucket.weight != 1 {
            write!(f, "weight:{},", bucket.weight)?;
        }
        if bucket.watch_port != OfPort::NONE {
            write!(f, "watch_port:{},", ShowPort(bucket.watch_port, self.names))?;
        }
        if let Some(group) = bucket.watch_group {
            write!(f, "watch_group:{group},")?;
        }
        write!(f, "actions={}", format_actions(&bucket.actions, self.names))
    }
}
