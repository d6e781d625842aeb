//! The commands of the `ovs-vsctl` family: their table, and what they all work on.

use anyhow::{Result, anyhow, bail};
use ovsdb::{TableSchema, Uuid};

use crate::cli::Invocation;
use crate::flow_commands::OFCTL;
use crate::suggest::did_you_mean;
use crate::table::{Style, Table};
use crate::text::Names;
use crate::view::View;
use crate::{bond, bridge, controller, daemon, database, flow_options, port, records, show};

/// A command.
pub struct Command {
    /// Its name.
    pub name: &'static str,
    /// Its arguments as help shows them.
    pub usage: &'static str,
    /// What it does, in a line.
    pub about: &'static str,
    /// Fewest arguments.
    pub min: usize,
    /// Most arguments.
    pub max: usize,
    /// Its options without dashes; those ending in `=` take an argument.
    pub options: &'static [&'static str],
    /// Its doing.
    pub run: fn(&mut Context, &Invocation) -> Result<()>,
}

const MANY: usize = usize::MAX;

/// The commands, in the order of the help.
#[rustfmt::skip]
pub const COMMANDS: &[(&str, &[Command])] = &[
    ("Switch", &[
        Command { name: "init", usage: "", about: "initialize the database if it is empty", min: 0, max: 0, options: &[], run: |_, _| Ok(()) },
        Command { name: "show", usage: "", about: "print bridges, ports and interfaces", min: 0, max: 0, options: &[], run: show::show },
        Command { name: "emer-reset", usage: "", about: "remove controllers, mirrors, collectors and other_config", min: 0, max: 0, options: &[], run: controller::emer_reset },
    ]),
    ("Bridges", &[
        Command { name: "add-br", usage: "BRIDGE [PARENT VLAN]", about: "create a bridge, or a fake one on a VLAN of PARENT", min: 1, max: 3, options: &["may-exist"], run: bridge::add_br },
        Command { name: "del-br", usage: "BRIDGE", about: "delete a bridge and all of its ports", min: 1, max: 1, options: &["if-exists"], run: bridge::del_br },
        Command { name: "list-br", usage: "", about: "print the names of the bridges", min: 0, max: 0, options: &["real", "fake"], run: bridge::list_br },
        Command { name: "br-exists", usage: "BRIDGE", about: "exit with status 2 if the bridge does not exist", min: 1, max: 1, options: &[], run: bridge::br_exists },
        Command { name: "br-to-vlan", usage: "BRIDGE", about: "print the VLAN of a fake bridge, 0 for others", min: 1, max: 1, options: &[], run: bridge::br_to_vlan },
        Command { name: "br-to-parent", usage: "BRIDGE", about: "print the parent of a fake bridge", min: 1, max: 1, options: &[], run: bridge::br_to_parent },
        Command { name: "br-set-external-id", usage: "BRIDGE KEY [VALUE]", about: "set an external id, or remove it", min: 2, max: 3, options: &[], run: bridge::br_set_external_id },
        Command { name: "br-get-external-id", usage: "BRIDGE [KEY]", about: "print one external id or all", min: 1, max: 2, options: &[], run: bridge::br_get_external_id },
    ]),
    ("Ports", &[
        Command { name: "list-ports", usage: "BRIDGE", about: "print the names of the ports", min: 1, max: 1, options: &[], run: port::list_ports },
        Command { name: "add-port", usage: "BRIDGE PORT [COLUMN[:KEY]=VALUE]...", about: "add a port with an interface of the same name", min: 2, max: MANY, options: &["may-exist"], run: port::add_port },
        Command { name: "add-bond", usage: "BRIDGE PORT IFACE IFACE... [COLUMN[:KEY]=VALUE]...", about: "add a port of several interfaces", min: 4, max: MANY, options: &["may-exist", "fake-iface"], run: port::add_bond },
        Command { name: "add-bond-iface", usage: "BOND IFACE", about: "add an interface to a bond", min: 2, max: 2, options: &["may-exist"], run: bond::add_bond_iface },
        Command { name: "del-bond-iface", usage: "[BOND] IFACE", about: "remove an interface from a bond", min: 1, max: 2, options: &["if-exists"], run: bond::del_bond_iface },
        Command { name: "del-port", usage: "[BRIDGE] PORT", about: "delete a port", min: 1, max: 2, options: &["if-exists", "with-iface"], run: port::del_port },
        Command { name: "port-to-br", usage: "PORT", about: "print the bridge that has the port", min: 1, max: 1, options: &[], run: port::port_to_br },
        Command { name: "list-ifaces", usage: "BRIDGE", about: "print the names of the interfaces", min: 1, max: 1, options: &[], run: port::list_ifaces },
        Command { name: "iface-to-br", usage: "IFACE", about: "print the bridge that has the interface", min: 1, max: 1, options: &[], run: port::iface_to_br },
    ]),
    ("Controllers", &[
        Command { name: "get-controller", usage: "BRIDGE", about: "print the controllers", min: 1, max: 1, options: &[], run: controller::get_controller },
        Command { name: "del-controller", usage: "BRIDGE", about: "delete the controllers", min: 1, max: 1, options: &[], run: controller::del_controller },
        Command { name: "set-controller", usage: "BRIDGE TARGET...", about: "set the controllers", min: 1, max: MANY, options: &["inactivity-probe="], run: controller::set_controller },
        Command { name: "get-fail-mode", usage: "BRIDGE", about: "print the fail mode", min: 1, max: 1, options: &[], run: controller::get_fail_mode },
        Command { name: "del-fail-mode", usage: "BRIDGE", about: "delete the fail mode", min: 1, max: 1, options: &[], run: controller::del_fail_mode },
        Command { name: "set-fail-mode", usage: "BRIDGE MODE", about: "set the fail mode: standalone or secure", min: 2, max: 2, options: &[], run: controller::set_fail_mode },
        Command { name: "get-manager", usage: "", about: "print the managers", min: 0, max: 0, options: &[], run: controller::get_manager },
        Command { name: "del-manager", usage: "", about: "delete the managers", min: 0, max: 0, options: &[], run: controller::del_manager },
        Command { name: "set-manager", usage: "TARGET...", about: "set the managers", min: 1, max: MANY, options: &["inactivity-probe="], run: controller::set_manager },
        Command { name: "get-ssl", usage: "", about: "print the SSL configuration", min: 0, max: 0, options: &[], run: controller::get_ssl },
        Command { name: "del-ssl", usage: "", about: "delete the SSL configuration", min: 0, max: 0, options: &[], run: controller::del_ssl },
        Command { name: "set-ssl", usage: "PRIVATE-KEY CERTIFICATE CA-CERTIFICATE", about: "set the SSL configuration", min: 3, max: 3, options: &["bootstrap"], run: controller::set_ssl },
    ]),
    ("Database", &[
        Command { name: "list", usage: "TABLE [RECORD]...", about: "print rows, all if none is named", min: 1, max: MANY, options: &["if-exists", "columns="], run: database::list },
        Command { name: "find", usage: "TABLE [COLUMN[:KEY]=VALUE]...", about: "print the rows that meet all conditions; operators: = != < > <= >= and {=} {!=} {<=} {<} {>=} {>} {in} {not-in} for sets", min: 1, max: MANY, options: &["columns="], run: database::find },
        Command { name: "get", usage: "TABLE RECORD [COLUMN[:KEY]]...", about: "print values", min: 2, max: MANY, options: &["if-exists", "id="], run: database::get },
        Command { name: "set", usage: "TABLE RECORD COLUMN[:KEY]=VALUE...", about: "set values", min: 3, max: MANY, options: &["if-exists"], run: database::set },
        Command { name: "add", usage: "TABLE RECORD COLUMN [KEY=]VALUE...", about: "add values to a set or map", min: 4, max: MANY, options: &["if-exists"], run: database::add },
        Command { name: "remove", usage: "TABLE RECORD COLUMN KEY|VALUE|KEY=VALUE...", about: "remove values from a set or map", min: 4, max: MANY, options: &["if-exists"], run: database::remove },
        Command { name: "clear", usage: "TABLE RECORD COLUMN...", about: "empty columns", min: 3, max: MANY, options: &["if-exists"], run: database::clear },
        Command { name: "create", usage: "TABLE COLUMN[:KEY]=VALUE...", about: "create a row and print its UUID", min: 2, max: MANY, options: &["id="], run: database::create },
        Command { name: "destroy", usage: "TABLE RECORD...", about: "delete rows", min: 1, max: MANY, options: &["if-exists", "all"], run: database::destroy },
        Command { name: "wait-until", usage: "TABLE RECORD [COLUMN[:KEY]=VALUE]...", about: "wait until the row exists and meets all conditions", min: 2, max: MANY, options: &[], run: database::wait_until },
        Command { name: "comment", usage: "[ARG]...", about: "do nothing but stand in the database's log", min: 0, max: MANY, options: &[], run: |_, _| Ok(()) },
    ]),
];

fn all() -> impl Iterator<Item = &'static Command> {
    COMMANDS.iter().flat_map(|(_, commands)| commands.iter())
}

/// The command called `name`.
pub fn find(name: &str) -> Result<&'static Command> {
    if daemon::family(name, 1) != daemon::Family::Database && name != "show" {
        bail!(
            "{name} is answered by the daemon and not by the database, so it cannot be joined \
             with other commands by --; run it by itself"
        );
    }
    let known = all().map(|command| command.name).chain(OFCTL.iter().map(|c| c.name));
    all()
        .find(|command| command.name == name)
        .ok_or_else(|| anyhow!("unknown command \"{name}\"{}", did_you_mean(name, known)))
}

/// True if some command takes the option `word` (as typed).
pub fn is_option(word: &str) -> bool {
    let name = word.trim_start_matches('-').split('=').next().unwrap_or_default();
    let of_database = all().flat_map(|c| c.options).any(|o| o.trim_end_matches('=') == name);
    of_database || flow_options::is_option(word)
}

impl Command {
    /// Reads an option of this command: its name and argument.
    pub fn option(&self, word: &str) -> Result<(String, String)> {
        let given = word.strip_prefix("--").unwrap_or(word);
        let (name, value) = match given.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (given, None),
        };
        let option = self.options.iter().find(|option| option.trim_end_matches('=') == name);
        let Some(option) = option.filter(|_| word.starts_with("--")) else {
            let known = self.options.iter().map(|option| option.trim_end_matches('='));
            bail!("command {} has no option {word}{}", self.name, did_you_mean(name, known));
        };
        match (option.ends_with('='), value) {
            (true, Some(value)) => Ok((name.to_owned(), value.to_owned())),
            (false, None) => Ok((name.to_owned(), String::new())),
            (true, None) => bail!("option --{name} of {} needs an argument: --{name}=…", self.name),
            (false, Some(_)) => bail!("option --{name} of {} takes no argument", self.name),
        }
    }

    /// Refuses a wrong number of arguments.
    pub fn check_count(&self, count: usize) -> Result<()> {
        let what = match count {
            _ if count < self.min => "too few",
            _ if count > self.max => "too many",
            _ => return Ok(()),
        };
        bail!("{what} arguments to {}; usage: {} {}", self.name, self.name, self.usage)
    }
}

/// A condition of `wait-until` does not hold yet: run the line again when the database changed.
#[derive(Debug, thiserror::Error)]
#[error("the condition is not met yet")]
pub struct NotYet;

/// Ends the program at once with this status and without a message.
#[derive(Debug, thiserror::Error)]
#[error("exit status {0}")]
pub struct Exit(pub u8);

/// What a command printed.
#[derive(Debug, Default)]
pub struct Output {
    /// Lines.
    pub text: String,
    /// A table, which `--oneline` leaves as it is.
    pub table: Option<String>,
}

/// What commands work on.
pub struct Context<'a> {
    /// The database with the line's changes.
    pub view: View<'a>,
    /// The line's `@name`s.
    pub names: Names,
    /// Warnings for standard error.
    pub warnings: Vec<String>,
    style: &'a Style,
    output: Output,
    tables: usize,
}

impl<'a> Context<'a> {
    /// A context for one run of a line.
    pub fn new(view: View<'a>, style: &'a Style) -> Self {
        let names = Names::default();
        Self { view, names, warnings: Vec::new(), style, output: Output::default(), tables: 0 }
    }

    /// Runs one command.
    pub fn run(&mut self, call: &Invocation) -> Result<Output> {
        (find(&call.name)?.run)(self, call)?;
        Ok(std::mem::take(&mut self.output))
    }

    /// Prints a line.
    pub fn print(&mut self, line: &str) {
        self.output.text.push_str(line);
        self.output.text.push('\n');
    }

    /// Prints a table.
    pub fn print_table(&mut self, table: &Table) {
        let text = table.render(self.style, self.tables == 0);
        self.tables += 1;
        self.output.table = Some(text);
    }

    /// Warns, once the line has succeeded.
    pub fn warn(&mut self, text: String) {
        self.warnings.push(text);
    }

    /// The row meant by `given`; `None` only if there is none and that is allowed.
    pub fn row(&self, table: &TableSchema, given: &str, optional: bool) -> Result<Option<Uuid>> {
        match optional {
            true => records::find_row(&self.view, &self.names, table, given),
            false => records::row(&self.view, &self.names, table, given).map(Some),
        }
    }
}
