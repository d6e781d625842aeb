//! `cargo xtask instructions`: how many instructions the switch executes for a packet, beside what is recorded.
//!
//! Callgrind counts the switch's side of each case of `benches/instructions.rs`. No clock is involved: on one build the
//! counts are the same to the last instruction, however busy the machine. They say nothing of cache misses, so they
//! guard against regressions and are no measure of speed; that is `cargo xtask bench`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use lab::{packages, process, wait};
use serde::{Deserialize, Serialize};

use crate::build;

/// A change of more than this fails, in percent of what is recorded.
const LIMIT_PERCENT: f64 = 5.0;

/// The function whose instructions count, with all that it calls. The pattern is callgrind's.
const COUNTED: &str = "*instructions::measured*";

/// Lets the C library copy and fill memory with the instructions that every x86-64 processor has. Left alone it takes
/// what the processor at hand does best, and counts would depend on where they were taken.
const TUNABLES: &str =
    "glibc.cpu.hwcaps=-AVX512F,-AVX2,-AVX_Fast_Unaligned_Load,-SSSE3,-ERMS,-FSRM";

/// What is recorded, from the workspace's root.
const RECORD: &str = "benches/results/instructions.json";

/// Count the instructions that a packet takes on the hot path and compare with benches/results/instructions.json.
///
/// A change of more than 5 % fails, either way. Needs no root once valgrind is installed, and no idle machine.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cargo xtask instructions                  all cases
  cargo xtask instructions --only flood     cases with \"flood\" in their names
  cargo xtask instructions --record         accept what is counted now")]
pub struct Arguments {
    /// Accept what is counted now: rewrites benches/results/instructions.json
    #[arg(long, conflicts_with = "only")]
    record: bool,
    /// Only the cases with this in their names
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
}

/// The file's content: records by processor architecture.
type Records = BTreeMap<String, Record>;

#[derive(Debug, Default, Serialize, Deserialize)]
struct Record {
    /// The compiler, which has its part in every count.
    rustc: String,
    /// Instructions per packet (per poll, for the idle queue) by case.
    instructions: BTreeMap<String, f64>,
}

/// One case: instructions per packet.
#[derive(Debug)]
struct Outcome {
    case: String,
    recorded: Option<f64>,
    now: f64,
}

impl Outcome {
    /// In percent of what is recorded; positive if it takes more now.
    fn change(&self) -> Option<f64> {
        self.recorded.map(|recorded| (self.now / recorded - 1.0) * 100.0)
    }

    /// What is wrong with it.
    fn fault(&self) -> Option<String> {
        let Outcome { case, now, .. } = self;
        let (Some(recorded), Some(change)) = (self.recorded, self.change()) else {
            return Some(format!("{case}: {now:.1} now, not recorded"));
        };
        let beyond = change.abs() > LIMIT_PERCENT;
        beyond.then(|| format!("{case}: {recorded:.1} recorded, {now:.1} now ({change:+.1} %)"))
    }

    fn print(&self) {
        let recorded = self.recorded.map_or("-".to_owned(), |r| format!("{r:.1}"));
        let change = self.change().map_or("-".to_owned(), |c| format!("{c:+.2} %"));
        let mark = if self.fault().is_some() { "  <--" } else { "" };
        println!("{:40} {recorded:>9} {:9.1} {change:>10}{mark}", self.case, self.now);
    }
}

/// Counts, and compares or records.
pub fn run(arguments: &Arguments) -> Result<()> {
    packages::ensure(packages::FOR_INSTRUCTIONS)?;
    let program = build_program()?;
    let mut records = read_records()?;
    let compiler = process::output(Command::new("rustc").arg("--version"))?.trim().to_owned();
    let here = std::env::consts::ARCH;
    let outcomes = count_all(&program, arguments.only.as_deref(), records.get(here))?;
    if arguments.record {
        let instructions = outcomes.into_iter().map(|o| (o.case, o.now)).collect();
        records.insert(here.to_owned(), Record { rustc: compiler, instructions });
        return write_records(&records);
    }
    let mut faults: Vec<String> = outcomes.iter().filter_map(Outcome::fault).collect();
    if let (None, Some(record)) = (&arguments.only, records.get(here)) {
        faults.extend(gone(record, &outcomes));
    }
    let recorded_with = records.get(here).map(|r| r.rustc.as_str());
    verdict(&faults, recorded_with.filter(|r| *r != compiler), &compiler)
}

/// Recorded cases that are not there any more.
fn gone(record: &Record, outcomes: &[Outcome]) -> Vec<String> {
    let is_gone = |case: &&String| !outcomes.iter().any(|o| o.case == **case);
    let cases = record.instructions.keys().filter(is_gone);
    cases.map(|case| format!("{case}: recorded, but there is no such case")).collect()
}

/// Fails if there are faults, saying what to do. `other_compiler` is what was recorded with, if not with `compiler`.
fn verdict(faults: &[String], other_compiler: Option<&str>, compiler: &str) -> Result<()> {
    if faults.is_empty() {
        return Ok(());
    }
    let cause = other_compiler.map_or(String::new(), |other| {
        format!("\nThe record is from another compiler: {other}; this is {compiler}.")
    });
    bail!(
        "instructions per packet are not within {LIMIT_PERCENT} % of {RECORD}:\n  {}{cause}\n\
         Where they are executed says callgrind_annotate with a case's file in instructions/ of the build directory.\n\
         If this is meant to be, accept it and commit the file:\n\n    cargo xtask instructions --record\n",
        faults.join("\n  ")
    );
}

/// Builds the program that has the cases, as the switch is built for users; returns its path.
fn build_program() -> Result<PathBuf> {
    let arguments = ["build", "--release", "-p", "benches", "--bin", "instructions"];
    build::cargo("the build failed", &arguments, &[])?;
    Ok(build::target()?.join("release/instructions"))
}

/// Counts case by case, printing a table.
fn count_all(program: &Path, only: Option<&str>, record: Option<&Record>) -> Result<Vec<Outcome>> {
    let profiles = build::target()?.join("instructions");
    std::fs::create_dir_all(&profiles)?;
    let names = process::output(&mut Command::new(program))?;
    let mut outcomes = Vec::new();
    println!("\n{:40} {:>9} {:>9} {:>10}", "instructions per packet", "recorded", "now", "change");
    for case in names.lines().filter(|name| only.is_none_or(|text| name.contains(text))) {
        wait::check_interrupted()?;
        let recorded = record.and_then(|r| r.instructions.get(case)).copied();
        let profile = profiles.join(file_name(case));
        let now = count(program, case, &profile).with_context(|| format!("case {case}"))?;
        let outcome = Outcome { case: case.to_owned(), recorded, now };
        outcome.print();
        outcomes.push(outcome);
    }
    ensure!(!outcomes.is_empty(), "no case has that in its name; there are:\n{names}");
    Ok(outcomes)
}

/// Runs one case under callgrind, which leaves its findings in `profile`. Returns instructions per packet,
/// to a hundredth.
fn count(program: &Path, case: &str, profile: &Path) -> Result<f64> {
    let mut out = std::ffi::OsString::from("--callgrind-out-file=");
    out.push(profile);
    let mut command = process::command(packages::VALGRIND.file);
    command
        .arg("--tool=callgrind")
        .arg(format!("--toggle-collect={COUNTED}"))
        .arg(out)
        .arg(program)
        .arg(case);
    // Nothing of the caller's environment: its size moves the stack.
    command.env_clear().env("GLIBC_TUNABLES", TUNABLES);
    let packets: f64 = process::output(&mut command)?.trim().parse().context("packets")?;
    let total = total(&std::fs::read_to_string(profile)?)?;
    ensure!(total > 0, "callgrind saw nothing of {COUNTED}");
    Ok((total as f64 / packets * 100.0).round() / 100.0)
}

/// Instructions in all, from a file of callgrind's.
fn total(profile: &str) -> Result<u64> {
    let found = profile.lines().find_map(|line| line.strip_prefix("totals: "));
    let found = found.context("no totals in callgrind's file")?;
    found.trim().parse().with_context(|| format!("totals of callgrind: {found}"))
}

/// A case's name as the name of a file.
fn file_name(case: &str) -> String {
    let words = case.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("-") + ".callgrind"
}

fn record_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(RECORD)
}

/// What is recorded; nothing if there is no file yet.
fn read_records() -> Result<Records> {
    let path = record_path();
    if !path.exists() {
        return Ok(Records::default());
    }
    let text = std::fs::read_to_string(path).context(RECORD)?;
    serde_json::from_str(&text).context(RECORD)
}

fn write_records(records: &Records) -> Result<()> {
    let text = serde_json::to_string_pretty(records)? + "\n";
    std::fs::write(record_path(), text).context(RECORD)?;
    println!("\nRecorded in {RECORD}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(recorded: Option<f64>, now: f64) -> Outcome {
        Outcome { case: "64 B".into(), recorded, now }
    }

    #[test]
    fn five_percent_either_way_are_tolerated_and_no_more() {
        assert_eq!(outcome(Some(400.0), 419.9).fault(), None);
        assert_eq!(outcome(Some(400.0), 380.1).fault(), None);
        let slower = outcome(Some(400.0), 424.0).fault();
        assert_eq!(slower.as_deref(), Some("64 B: 400.0 recorded, 424.0 now (+6.0 %)"));
        let faster = outcome(Some(400.0), 372.0).fault();
        assert_eq!(faster.as_deref(), Some("64 B: 400.0 recorded, 372.0 now (-7.0 %)"));
    }

    #[test]
    fn cases_and_records_must_match() {
        assert_eq!(outcome(None, 1.0).fault().as_deref(), Some("64 B: 1.0 now, not recorded"));
        let instructions = [("64 B".to_owned(), 1.0), ("65 B".to_owned(), 1.0)].into();
        let record = Record { rustc: String::new(), instructions };
        let gone = gone(&record, &[outcome(Some(1.0), 1.0)]);
        assert_eq!(gone, ["65 B: recorded, but there is no such case"]);
    }

    #[test]
    fn a_failure_says_the_figure_and_how_to_accept_it() {
        let faults = ["64 B: 400.0 recorded, 424.0 now (+6.0 %)".to_owned()];
        let said = verdict(&faults, Some("rustc 1"), "rustc 2").expect_err("a fault").to_string();
        for part in [faults[0].as_str(), "--record", "another compiler: rustc 1; this is rustc 2"] {
            assert!(said.contains(part), "{part} in {said}");
        }
        assert!(verdict(&[], Some("rustc 1"), "rustc 2").is_ok());
    }

    #[test]
    fn totals_are_read() {
        let profile =
            "version: 1\nevents: Ir\nsummary: 7\n\nfn=(1) walk\n1 7\n\ntotals: 13720125\n";
        assert_eq!(total(profile).expect("a number"), 13_720_125);
        assert!(total("version: 1\n").is_err());
        assert_eq!(file_name("64 B, 1,000 flows"), "64-B-1-000-flows.callgrind");
    }
}
