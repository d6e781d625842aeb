//! The start file: bridges, ports and options in TOML, put into the database when the daemon starts.
//!
//! It adds and changes what it names and removes nothing, so it can be applied again and again, and
//! what was configured by command stays.

use anyhow::{Context, Result, anyhow, bail};
use ovsdb::replica::{Replica, Row};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

type Map = BTreeMap<String, String>;

/// The whole file.
#[derive(Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(crate) struct StartFile {
    /// `Open_vSwitch.other_config`.
    #[serde(default, rename = "other-config")]
    other_config: Map,
    #[serde(default, rename = "bridge")]
    bridges: Vec<Bridge>,
}

#[derive(Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
struct Bridge {
    name: String,
    #[serde(default, rename = "other-config")]
    other_config: Map,
    #[serde(default, rename = "port")]
    ports: Vec<Port>,
}

/// A port with one interface.
#[derive(Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Port {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    options: Map,
    ofport_request: Option<u16>,
    mtu_request: Option<u16>,
}

/// Reads a start file.
///
/// # Errors
/// Naming the file, line and column that are wrong.
pub(crate) fn read(path: &Path) -> Result<StartFile> {
    let file = path.display();
    let text = std::fs::read_to_string(path).with_context(|| format!("start file {file}"))?;
    let start = parse(&text).map_err(|e| anyhow!("start file {file}: {e}"))?;
    start.once().map_err(|what| anyhow!("start file {file}: {what} is there twice"))?;
    Ok(start)
}

/// Reads a start file's text. The error is one line: where, what, and perhaps what was meant.
fn parse(text: &str) -> Result<StartFile, String> {
    toml::from_str(text).map_err(|e| {
        let before = text.get(..e.span().map_or(0, |s| s.start)).unwrap_or(text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |l| l.chars().count()) + 1;
        let what = e.message().replace('\n', ", ");
        let meant = meant(&what).map_or(String::new(), |m| format!("; did you mean `{m}`?"));
        format!("line {line}, column {column}: {what}{meant}")
    })
}

/// Of the keys that a complaint about an unknown one names as possible, the one most like it.
fn meant(complaint: &str) -> Option<&str> {
    let rest = complaint.strip_prefix("unknown field `")?;
    let mut names = rest.split('`').step_by(2);
    let unknown = names.next()?;
    let near = |name: &&str| distance(unknown, name) <= 2;
    names.filter(|n| !n.is_empty()).filter(near).min_by_key(|name| distance(unknown, name))
}

/// Letters to insert, delete or replace to make one word of the other, after Levenshtein.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.chars().enumerate() {
            let cost = (diagonal + usize::from(x != y)).min(row[j] + 1).min(row[j + 1] + 1);
            diagonal = std::mem::replace(&mut row[j + 1], cost);
        }
    }
    row.last().copied().unwrap_or(0)
}

fn map(m: &Map) -> Value {
    let pairs: Vec<Value> = m.iter().map(|(k, v)| json!([k, v])).collect();
    json!(["map", pairs])
}

/// An operation that sets keys of a map column and leaves the others.
fn merge(table: &str, filter: Value, column: &str, m: &Map) -> Vec<Value> {
    if m.is_empty() {
        return Vec::new();
    }
    let keys: Vec<&String> = m.keys().collect();
    vec![json!({
        "op": "mutate", "table": table, "where": filter,
        "mutations": [[column, "delete", ["set", keys]], [column, "insert", map(m)]],
    })]
}

fn named(name: &str) -> Value {
    json!([["name", "==", name]])
}

impl StartFile {
    /// Names are unique in the database: the error is what has one that is there before.
    fn once(&self) -> Result<(), String> {
        let (mut bridges, mut ports) = (BTreeSet::new(), BTreeSet::new());
        for bridge in &self.bridges {
            if !bridges.insert(&bridge.name) {
                return Err(format!("bridge {}", bridge.name));
            }
            if let Some(port) = bridge.ports.iter().find(|p| !ports.insert(&p.name)) {
                return Err(format!("port {} (bridge {})", port.name, bridge.name));
            }
        }
        Ok(())
    }

    /// The operations of one transaction that make the database have all of this.
    ///
    /// # Errors
    /// If a port is there already in another bridge.
    pub(crate) fn operations(&self, db: &Replica) -> Result<Vec<Value>> {
        let mut ops = merge("Open_vSwitch", json!([]), "other_config", &self.other_config);
        for (n, bridge) in self.bridges.iter().enumerate() {
            if db.find("Bridge", "name", &bridge.name).is_none() {
                ops.extend(new_bridge(n, bridge));
            }
            ops.extend(merge("Bridge", named(&bridge.name), "other_config", &bridge.other_config));
            for (m, port) in bridge.ports.iter().enumerate() {
                ops.extend(port_operations(db, bridge, port, &format!("{n}_{m}"))?);
            }
        }
        Ok(ops)
    }
}

/// A bridge with its own port, as `add-br` makes it.
fn new_bridge(n: usize, bridge: &Bridge) -> Vec<Value> {
    let (b, p, i) = (format!("bridge{n}"), format!("local{n}"), format!("localif{n}"));
    vec![
        json!({"op": "insert", "table": "Interface", "uuid-name": i,
               "row": {"name": bridge.name, "type": "internal"}}),
        json!({"op": "insert", "table": "Port", "uuid-name": p,
               "row": {"name": bridge.name, "interfaces": ["named-uuid", i]}}),
        json!({"op": "insert", "table": "Bridge", "uuid-name": b,
               "row": {"name": bridge.name, "datapath_type": "netdev",
                       "ports": ["named-uuid", p]}}),
        json!({"op": "mutate", "table": "Open_vSwitch", "where": [],
               "mutations": [["bridges", "insert", ["set", [["named-uuid", b]]]]]}),
    ]
}

fn port_operations(db: &Replica, bridge: &Bridge, port: &Port, n: &str) -> Result<Vec<Value>> {
    let mut row = json!({"type": port.kind, "options": map(&port.options)});
    let optional = [("ofport_request", port.ofport_request), ("mtu_request", port.mtu_request)];
    for (column, value) in optional {
        if let Some(v) = value {
            row[column] = json!(v);
        }
    }
    let Some((uuid, _)) = db.find("Port", "name", &port.name) else {
        let (p, i) = (format!("port{n}"), format!("if{n}"));
        row["name"] = json!(port.name);
        return Ok(vec![
            json!({"op": "insert", "table": "Interface", "uuid-name": i, "row": row}),
            json!({"op": "insert", "table": "Port", "uuid-name": p,
                   "row": {"name": port.name, "interfaces": ["named-uuid", i]}}),
            json!({"op": "mutate", "table": "Bridge", "where": named(&bridge.name),
                   "mutations": [["ports", "insert", ["set", [["named-uuid", p]]]]]}),
        ]);
    };
    let has = |row: &Row| row.uuids("ports").contains(&uuid);
    let owner =
        db.rows("Bridge").values().find(|row| has(row)).map_or("", |row| row.string("name"));
    if owner != bridge.name {
        let (port, bridge) = (&port.name, &bridge.name);
        bail!("port {port} is to be in bridge {bridge}, but is in bridge {owner} already");
    }
    Ok(vec![json!({"op": "update", "table": "Interface", "where": named(&port.name), "row": row})])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_and_mistakes_are_located() {
        let file: StartFile = toml::from_str(
            r#"
            [other-config]
            pmd-cpu-mask = "0x1"
            [[bridge]]
            name = "br0"
            [[bridge.port]]
            name = "vm1"
            type = "dpdkvhostuserclient"
            options = { vhost-server-path = "/run/vm1.sock" }
            ofport-request = 3
            "#,
        )
        .expect("valid");
        assert_eq!(file.other_config["pmd-cpu-mask"], "0x1");
        assert_eq!(file.bridges[0].ports[0].ofport_request, Some(3));
        let error = parse("[[bridge]]\nname = \"b\"\n[[bridge.prot]]\n").expect_err("unknown key");
        let shown = error.contains("line 3, column 10") && error.contains("did you mean `port`?");
        assert!(shown && !error.contains('\n'), "{error}");
        let error = parse("[[bridge]]\nname = 3\n").expect_err("wrong type");
        assert!(error.contains("line 2, column 8"), "{error}");
        let error = parse("x = \u{e9}\n\"").expect_err("no TOML");
        assert!(error.starts_with("line ") && !error.contains('\n'), "{error}");
    }

    #[test]
    fn the_files_in_config_are_valid() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config");
        let mut seen = 0;
        for entry in std::fs::read_dir(dir).expect("config/ is there") {
            let path = entry.expect("readable").path();
            if path.extension().is_some_and(|e| e == "toml") {
                read(&path).expect("valid");
                seen += 1;
            }
        }
        assert!(seen > 0);
    }
}
