//! Logging: to standard error and, if asked, to a file; levels can be changed while it runs.

use anyhow::{Context, Result};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Mutex, OnceLock, PoisonError};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

type Handle = reload::Handle<EnvFilter, Registry>;

/// Level of everything, and of modules set apart.
#[derive(Debug, Clone)]
struct Levels {
    all: LevelFilter,
    modules: Vec<(String, LevelFilter)>,
}

static LEVELS: Mutex<Levels> = Mutex::new(Levels { all: LevelFilter::INFO, modules: Vec::new() });
static HANDLE: OnceLock<Handle> = OnceLock::new();

/// The daemon's crates, which are its log modules.
const MODULES: &[&str] =
    &["datapath", "ovsdb", "pipeline", "pmd", "port_vhost", "unixctl", "vswitchd"];

/// Who may read the log file: as OVS's.
const FILE_MODE: u32 = 0o640;

/// Starts logging. With `quiet` standard error gets only what went wrong, as befits a process on its
/// way to the background.
///
/// # Errors
/// If the file cannot be opened for appending.
pub(crate) fn start(file: Option<&Path>, quiet: bool) -> Result<()> {
    let (filter, handle) = reload::Layer::new(EnvFilter::new("info"));
    let to_file = match file {
        Some(path) => {
            let open =
                std::fs::OpenOptions::new().create(true).append(true).mode(FILE_MODE).open(path);
            let file = open.with_context(|| format!("log file {}", path.display()))?;
            Some(fmt::layer().with_ansi(false).with_writer(Mutex::new(file)).boxed())
        }
        None => None,
    };
    let console = if quiet { LevelFilter::WARN } else { LevelFilter::TRACE };
    let to_stderr = fmt::layer().with_ansi(false).with_writer(std::io::stderr).with_filter(console);
    tracing_subscriber::registry()
        .with(filter)
        .with(to_stderr)
        .with(to_file)
        .try_init()
        .context("logging")?;
    let _ = HANDLE.set(handle);
    Ok(())
}

/// Changes levels as `vlog/set` says: words of `MODULE`, destination and level joined by colons, each
/// of which may be left out or `ANY`. Destinations share one level here.
///
/// # Errors
/// A line that says which part is unknown.
pub(crate) fn set(specs: &[String]) -> Result<(), String> {
    let mut levels = LEVELS.lock().unwrap_or_else(PoisonError::into_inner);
    let mut new = levels.clone();
    for spec in specs {
        let (mut module, mut level) = (None, LevelFilter::DEBUG);
        for word in spec.split(':') {
            let name = word.replace('-', "_").to_lowercase();
            if let Some(l) = level_of(&name) {
                level = l;
            } else if MODULES.contains(&&*name) {
                module = Some(name);
            } else if !["any", "console", "file", "syslog"].contains(&&*name) {
                return Err(format!(
                    "no destination, level, or module \"{word}\" (levels: off, emer, err, warn, \
                     info, dbg; modules: {})",
                    MODULES.join(", ")
                ));
            }
        }
        match module {
            None => {
                new.all = level;
                new.modules.clear();
            }
            Some(m) => {
                new.modules.retain(|(other, _)| *other != m);
                new.modules.push((m, level));
            }
        }
    }
    let mut text = new.all.to_string();
    for (module, level) in &new.modules {
        text += &format!(",{module}={level}");
    }
    if let Some(handle) = HANDLE.get() {
        handle.reload(EnvFilter::new(text)).map_err(|e| e.to_string())?;
    }
    *levels = new;
    Ok(())
}

fn level_of(name: &str) -> Option<LevelFilter> {
    Some(match name {
        "off" => LevelFilter::OFF,
        "emer" | "err" => LevelFilter::ERROR,
        "warn" => LevelFilter::WARN,
        "info" => LevelFilter::INFO,
        "dbg" => LevelFilter::DEBUG,
        _ => return None,
    })
}

/// The levels as `vlog/list` prints them.
pub(crate) fn list() -> String {
    let levels = LEVELS.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut out = String::from("                 console    syslog    file\n");
    out += "                 -------    ------    ------\n";
    for module in MODULES {
        let own = levels.modules.iter().find(|(m, _)| m == module);
        let level = match own.map_or(levels.all, |(_, l)| *l) {
            LevelFilter::OFF => "OFF",
            LevelFilter::ERROR => "ERR",
            LevelFilter::WARN => "WARN",
            LevelFilter::INFO => "INFO",
            _ => "DBG",
        };
        out += &format!("{module:<16} {level:^7}    {:^6}    {level:^6}\n", "OFF");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specs() {
        let set = |s: &str| set(&[s.to_owned()]);
        assert_eq!(set("dbg"), Ok(()));
        assert_eq!(set("port-vhost:file:warn"), Ok(()));
        assert!(list().contains("port_vhost        WARN"));
        assert!(list().contains("vswitchd           DBG"));
        assert!(set("nonsense:dbg").is_err_and(|e| e.contains("nonsense")));
        assert!(list().contains("port_vhost        WARN"), "a wrong spec changes nothing");
        assert_eq!(set("ANY:ANY:info"), Ok(()));
        assert!(!list().contains("WARN"));
    }
}
