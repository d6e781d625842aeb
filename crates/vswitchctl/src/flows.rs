//! Commands of the `ovs-ofctl` family: read what they need, ask the daemon, print its answer.

use std::fs;
use std::io::{IsTerminal, Read};
use std::path::Path;

use anyhow::{Context as _, Result, anyhow, bail};

use crate::cli::Options;
use crate::commands::Exit;
use crate::daemon::{call, print};
use crate::flow_commands::{FlowCommand, Input, find};
use crate::flow_options::Words;
use crate::progress;

/// Largest file read: what the daemon takes in one request, less what the wire adds.
const FILE_BYTES_MAX: u64 = 240 << 20;
/// Exit status of `diff-flows` if there are differences.
const DIFFERENT: u8 = 2;

/// Sends a flow command; `words` begins with its name.
pub fn run(options: &Options, first_options: Vec<String>, words: &[String]) -> Result<()> {
    let name = &words[0];
    let command = find(name).ok_or_else(|| anyhow!("unknown command \"{name}\""))?;
    let Words { mut told, mut args, timeout, .. } =
        Words::sort(command, first_options, &words[1..])?;
    let named = told.iter().any(|o| o == "--names" || o == "--no-names");
    if !named && std::io::stdout().is_terminal() {
        // A person reads names more easily, and a script gets the same as ever (ovs-ofctl(8)).
        told.push("--names".to_owned());
    }
    read(command, &mut told, &mut args)?;
    told.append(&mut args);
    let timeout = timeout.or(options.timeout);
    let answer = progress::during(&format!("vswitchctl: {name}: at work"), || {
        call(options, timeout, &format!("ofctl/{name}"), &told)
    })?;
    match answer {
        Ok(text) => {
            print(&text)?;
            match command.input == Input::Sources && !text.is_empty() {
                true => Err(Exit(DIFFERENT).into()),
                false => Ok(()),
            }
        }
        Err(text) => {
            eprintln!("vswitchctl: {name}: {}", text.trim_end());
            Err(Exit(1).into())
        }
    }
}

/// Puts texts in the place of the files that arguments name. The daemon is told their names for its
/// messages.
fn read(command: &FlowCommand, told: &mut Vec<String>, args: &mut Vec<String>) -> Result<()> {
    let last = args.last_mut();
    match (command.input, last) {
        (Input::File, Some(file)) => {
            told.push(format!("--file={file}"));
            *file = read_file(file)?;
        }
        (Input::Dash, Some(flow)) if flow == "-" => {
            told.push("--file=-".to_owned());
            *flow = read_file("-")?;
        }
        (Input::Sources, _) => {
            let sources = args.iter().map(|name| source(name)).collect::<Result<Vec<_>>>()?;
            *args = sources.concat();
        }
        _ => {}
    }
    Ok(())
}

/// A source of `diff-flows` as the daemon takes it: `bridge` and its name, or `file:` with its name
/// and its text. What it is follows the rules of ovs-ofctl(8); `-` is standard input.
fn source(name: &str) -> Result<[String; 2]> {
    let exists = || !name.contains(':') && fs::metadata(name).is_ok();
    if name == "-" || name.starts_with(['/', '.']) || exists() {
        return Ok([format!("file:{name}"), read_file(name)?]);
    }
    Ok(["bridge".to_owned(), name.to_owned()])
}

fn read_file(name: &str) -> Result<String> {
    let mut text = String::new();
    let read = match name {
        "-" => std::io::stdin().lock().take(FILE_BYTES_MAX + 1).read_to_string(&mut text),
        _ => fs::File::open(Path::new(name))
            .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)),
    };
    let shown = if name == "-" { "standard input" } else { name };
    let bytes = read.with_context(|| format!("{shown}: cannot be read"))?;
    if bytes as u64 > FILE_BYTES_MAX {
        bail!("{shown}: larger than {} MiB; cut it into several files", FILE_BYTES_MAX >> 20);
    }
    Ok(text)
}
