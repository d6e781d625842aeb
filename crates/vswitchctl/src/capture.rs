//! `capture`: shows or writes the packets of a port as they pass.
//!
//! The daemon says where to connect, and sends pieces: a letter, four bytes of length, and the bytes. Closing our
//! sending side ends the capture; what it had comes before the sums.

use std::fs::File;
use std::io::{self, BufReader, IsTerminal, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::cli::Options;
use crate::daemon;

/// The command as help shows it.
pub const USAGE: &str = "capture PORT [--filter FLOW] [--count N] [--snaplen N] [-w FILE|-]";
/// What it does, in a line.
pub const ABOUT: &str = "show the packets of a port as they pass, or write them to a file";
/// The rest of its help.
pub const HELP: &str = "\
Shows the packets that the switch receives from a port (\"in\") and gives to it (\"out\"), a line for
each, until Ctrl-C. Packets received are seen before ingress policing, packets sent after policing and
before the port finds room for them. Super-frames and checksums that are left to do are shown as such.

  --filter FLOW      only packets that match FLOW, as flows of add-flow do
  -c, --count N      end after N packets
  -s, --snaplen N    keep N bytes of each packet (default: all in a file, 256 for lines)
  -w, --write FILE   write a pcapng file instead, - for standard output

The switch spends no more than a budget on it: packets beyond 500000 a second, or 64 MiB a second, are
forwarded as always and not captured. Their number is told at the end, on standard error. Times are UTC.
-t SECS before the command ends the capture after SECS seconds.

Examples:
  vswitchctl capture vm1
  vswitchctl capture vm1 --filter tcp,tp_dst=80 --count 10
  vswitchctl capture br0 --filter icmp,nw_dst=10.0.0.0/8 -w ping.pcapng
  vswitchctl capture vm1 -w - | tshark -r - -T fields -e frame.comment -e ip.dst
  vswitchctl -t 10 capture vm1 --snaplen 96 -w vm1.pcapng
";

/// Kinds of pieces.
const DATA: u8 = b'd';
const SO_FAR: u8 = b's';
const END: u8 = b'e';
/// Longest piece: what the daemon's rings hold, written out.
const PIECE_MAX: u32 = 1 << 30;
/// Exit status after a second Ctrl-C, as of a shell's for that signal.
const INTERRUPTED: i32 = 130;

/// What is to be done.
#[derive(Debug, Default, PartialEq, Eq)]
struct Call {
    /// Arguments for the daemon.
    daemon: Vec<String>,
    file: Option<String>,
}

/// Reads the words after `capture`.
fn parse(words: &[String]) -> Result<Call> {
    let mut call = Call::default();
    let mut port = None;
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let (name, attached) = match word.split_once('=') {
            Some((name, value)) if name.starts_with("--") => (name, Some(value.to_owned())),
            _ => (word.as_str(), None),
        };
        let told = match name {
            "--filter" => "--filter",
            "-c" | "--count" => "--count",
            "-s" | "--snaplen" => "--snaplen",
            "-w" | "--write" => "",
            _ if name.starts_with('-') => {
                bail!("capture: unknown option {name} (see vswitchctl capture --help)")
            }
            _ if port.is_none() => {
                port = Some(word.clone());
                continue;
            }
            _ => bail!("capture: {word}: one port at a time is captured"),
        };
        let Some(value) = attached.or_else(|| words.next().cloned()) else {
            bail!("capture: option {name} needs an argument");
        };
        match told {
            "" => call.file = Some(value),
            _ => call.daemon.push(format!("{told}={value}")),
        }
    }
    if call.file.is_some() {
        call.daemon.push("--pcapng".to_owned());
    }
    call.daemon.push(port.context("capture: which port? (see vswitchctl capture --help)")?);
    Ok(call)
}

/// Runs the command.
pub fn run(options: &Options, words: &[String]) -> Result<()> {
    let call = parse(&words[1..])?;
    let mut out: Box<dyn Write> = match call.file.as_deref() {
        None | Some("-") => Box::new(io::stdout()),
        Some(path) => Box::new(File::create(path).with_context(|| path.to_owned())?),
    };
    let socket = match daemon::call(options, None, "capture/start", &call.daemon)? {
        Ok(socket) => socket,
        Err(why) => bail!("capture: {}", why.trim_end()),
    };
    let socket = socket.trim_end();
    let stream = UnixStream::connect(socket).with_context(|| socket.to_owned())?;
    end_on_signals(stream.try_clone()?)?;
    if let Some(limit) = options.timeout {
        end_after(stream.try_clone()?, limit)?;
    }
    let port = call.daemon.last().map_or("", String::as_str);
    eprintln!("capturing on {port}, Ctrl-C ends");
    // Lines are seen as they come; of a file, how it grows.
    let show = call.file.is_some() && io::stderr().is_terminal();
    let told = copy(&mut BufReader::new(stream), &mut out, show)?;
    eprintln!("{}{told}", if show { "\r\x1b[K" } else { "" });
    Ok(())
}

/// Copies what comes; returns the sums at the end.
fn copy(from: &mut impl Read, out: &mut impl Write, show: bool) -> Result<String> {
    loop {
        let mut head = [0; 5];
        from.read_exact(&mut head).context("the daemon has ended the capture")?;
        let len = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        if len > PIECE_MAX {
            bail!("the daemon sends what is no capture");
        }
        let mut piece = vec![0; len as usize];
        from.read_exact(&mut piece).context("the daemon has ended the capture")?;
        match head[0] {
            DATA => {
                let written = out.write_all(&piece).and_then(|()| out.flush());
                written.context("standard output")?;
            }
            SO_FAR if show => {
                eprint!("\r\x1b[K{}", String::from_utf8_lossy(&piece));
            }
            END => return Ok(String::from_utf8_lossy(&piece).into_owned()),
            _ => {}
        }
    }
}

/// Ends the capture at the first signal, and this program at the second.
fn end_on_signals(stream: UnixStream) -> Result<()> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        let mut came = signals.forever();
        came.next();
        let _ = stream.shutdown(Shutdown::Write);
        came.next();
        std::process::exit(INTERRUPTED);
    })?;
    Ok(())
}

fn end_after(stream: UnixStream, limit: Duration) -> Result<()> {
    thread::Builder::new().name("limit".into()).spawn(move || {
        thread::sleep(limit);
        let _ = stream.shutdown(Shutdown::Write);
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(line: &str) -> Result<Call> {
        parse(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn command_lines() {
        let right = |line| call(line).expect("right");
        assert_eq!(right("vm1"), Call { daemon: vec!["vm1".into()], file: None });
        let full = right("--filter tcp,tp_dst=80 vm1 -c 3 --snaplen=96 -w -");
        let words = ["--filter=tcp,tp_dst=80", "--count=3", "--snaplen=96", "--pcapng", "vm1"];
        assert_eq!(full.daemon, words);
        assert_eq!(full.file.as_deref(), Some("-"));
        for line in ["vm1 vm2", "--loud vm1", "vm1 --count", "--count 1"] {
            assert!(call(line).is_err(), "{line}");
        }
    }

    #[test]
    fn pieces_are_told_apart() {
        let mut sent: Vec<u8> = Vec::new();
        for (kind, text) in [(DATA, "ab"), (SO_FAR, "1"), (DATA, "c"), (END, "3 packets")] {
            sent.push(kind);
            sent.extend((text.len() as u32).to_be_bytes());
            sent.extend(text.as_bytes());
        }
        let mut out = Vec::new();
        assert_eq!(copy(&mut &sent[..], &mut out, false).expect("whole"), "3 packets");
        assert_eq!(out, b"abc");
        assert!(copy(&mut &sent[..9], &mut out, false).is_err());
        assert!(copy(&mut &[DATA, 0xff, 0, 0, 0][..], &mut out, false).is_err());
    }
}
