//! Help texts.

use std::fmt::Write;

use anyhow::Result;

use crate::capture;
use crate::commands::{self, COMMANDS};
use crate::daemon;
use crate::flow_commands::{Input, OFCTL};

const HEAD: &str = "\
vswitchctl: configures and inspects the switch

Usage: vswitchctl [OPTION]... COMMAND [ARG]... [-- [OPTION]... COMMAND [ARG]...]...

Examples:
  vswitchctl add-br br0 -- set Bridge br0 datapath_type=netdev
  vswitchctl add-port br0 vm1 -- set Interface vm1 type=dpdkvhostuserclient \\
      options:vhost-server-path=/run/vm1.sock
  vswitchctl --may-exist add-port br0 vm2 tag=100
  vswitchctl show
  vswitchctl -f table --columns=name,ofport,error list Interface
  vswitchctl --id=@q create QoS type=egress-policer other_config:cir=625000000 \\
      other_config:cbs=2048 -- set Port vm1 qos=@q
  vswitchctl add-flow br0 in_port=vm1,actions=NORMAL
  vswitchctl dump-flows br0
  vswitchctl dpif/show
  vswitchctl dpif-netdev/pmd-rxq-show
  vswitchctl capture vm1 --filter tcp,tp_dst=80 -w vm1.pcapng
";

const OPTIONS: &str = "
Options, before the first command:
  --rundir DIR       directory of the daemon's sockets (default /run/vswitch, or
                     what the environment variable VSWITCH_RUNDIR says)
  --db unix:PATH     socket of the database (default RUNDIR/db.sock)
  --no-wait          do not wait for the daemon to take over what changed
  -t, --timeout SECS give up after SECS seconds (default: never)
  --retry            keep trying to connect to the database
  --dry-run          change nothing
  --oneline          one line of output for each command
  -f, --format FMT   tables as table, list, csv, json or html (default list)
  -d, --data FORM    values as string, bare or json (default string)
  --no-headings      no column names
  --pretty           indent JSON
  --bare             the same as --format=list --data=bare --no-headings
  --max-column-width N  cut the columns of tables to N letters
  --target SOCKET    send to this control socket instead of the daemon's
  -h, --help         this text; COMMAND --help tells about one command
  -V, --version      print the version
";

const FLOW_OPTIONS: &str = "
Options of flow commands, anywhere on the line:
  --strict           mod-flows, del-flows: the flow with exactly this match and priority
  --bundle           all changes or none
  --names, --no-names  ports by name (default at a terminal) or by number
  --no-stats         dump-flows: without what changes by itself
  --sort[=FIELD], --rsort[=FIELD]  dump-flows: by priority or FIELD, rising or falling
  --readd            replace-flows: also flows that are the same
  --may-create       mod-group: the group need not exist
  --read-only        refuse to change anything
  -t, --timeout SECS give up after SECS seconds
  -O, -F, -P, -m, --timestamp, --color  accepted as by ovs-ofctl, without effect
";

/// The help about everything.
pub fn all() -> String {
    let mut text = HEAD.to_owned();
    for (title, commands) in COMMANDS {
        let _ = writeln!(text, "\n{title}:");
        for command in *commands {
            let line = format!("{} {}", command.name, command.usage);
            let _ = writeln!(text, "  {line:42} {}", command.about);
        }
    }
    text.push_str("\nFlows (answered by the daemon; FILE may be - for standard input):\n");
    for command in OFCTL {
        let line = format!("{} {}", command.name, command.usage);
        let _ = writeln!(text, "  {line:42} {}", command.about);
    }
    let _ = writeln!(text, "\nPackets:\n  {:42} {}", capture::USAGE, capture::ABOUT);
    text.push_str(
        "\nOperations (answered by the daemon; list-commands prints all of them):\n  \
         version, list-commands, exit, and every command with a / in its name\n",
    );
    text.push_str(OPTIONS);
    text.push_str(FLOW_OPTIONS);
    text
}

/// The help about one command.
pub fn about(name: &str) -> Result<String> {
    let mut text = String::new();
    if name == "capture" {
        return Ok(format!("Usage: vswitchctl [OPTION]... {}\n{}", capture::USAGE, capture::HELP));
    }
    if let Some(command) = OFCTL.iter().find(|command| command.name == name) {
        let _ = writeln!(text, "Usage: vswitchctl [OPTION]... {name} {}", command.usage);
        let _ = writeln!(text, "{}", command.about);
        text.push_str(match command.input {
            Input::None => "",
            Input::File => "FILE may be - for standard input.\n",
            Input::Dash => "The last argument may be -: one on each line of standard input.\n",
            Input::Sources => "What begins with / or . is a file, and what exists as one.\n",
        });
        let _ = writeln!(text, "Example: vswitchctl {name} {}", command.example);
        text.push_str(FLOW_OPTIONS);
        if name != "show" {
            return Ok(text);
        }
    }
    if daemon::is_operation(name) {
        return Ok(format!(
            "{name} is answered by the daemon; vswitchctl {name} --help prints its arguments\n"
        ));
    }
    let command = commands::find(name)?;
    let options: Vec<String> = command
        .options
        .iter()
        .map(|option| match option.strip_suffix('=') {
            Some(name) => format!("[--{name}=…] "),
            None => format!("[--{option}] "),
        })
        .collect();
    let _ = writeln!(
        text,
        "Usage: vswitchctl [OPTION]... {}{name} {}\n{}",
        options.concat(),
        command.usage,
        command.about
    );
    Ok(text)
}
