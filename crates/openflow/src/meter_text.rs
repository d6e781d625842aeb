//! Meters as text (ovs-ofctl(8), "Meter Syntax").

use crate::error::ParseError;
use crate::meter::{METER_CONTROLLER, METER_MAX, METER_SLOWPATH};
use crate::meter::{Meter, MeterBand, MeterCommand, MeterMod};
use crate::number;
use std::fmt;

/// The meters that have names.
const NAMED: [(&str, u32); 2] = [("controller", METER_CONTROLLER), ("slowpath", METER_SLOWPATH)];

/// What separates words, and names from values.
const SEPARATORS: [char; 5] = ['=', ',', ' ', '\t', '\r'];

/// Reads a meter as `ovs-ofctl` takes it for a command. To delete, or to select what is shown,
/// `meter=ID`, `meter=all` or nothing is enough.
///
/// # Errors
/// A word is not understood, something is missing, or flags and bands do not fit each other.
pub fn parse_meter_mod(line: &str, command: MeterCommand) -> Result<MeterMod, ParseError> {
    read(line, command).map_err(|e| e.locate(line))
}

fn read(line: &str, command: MeterCommand) -> Result<MeterMod, ParseError> {
    let wrong = |reason: &str| ParseError::new(line, reason);
    let (head, bands) = match line.find("band").filter(|_| command != MeterCommand::Delete) {
        Some(at) => {
            let (head, rest) = line.split_at(at);
            (head, Some(rest.split_once('=').ok_or_else(|| wrong("must specify bands"))?.1))
        }
        None if command != MeterCommand::Delete => return Err(wrong("must specify bands")),
        None => (line, None),
    };
    let mut it = Meter { id: 0, pktps: false, burst: false, stats: false, bands: Vec::new() };
    let (mut kbps, mut all) = (false, false);
    let mut words = Words(head);
    while let Some(name) = words.name() {
        match name {
            "kbps" if bands.is_some() => kbps = true,
            "pktps" if bands.is_some() => it.pktps = true,
            "burst" if bands.is_some() => it.burst = true,
            "stats" if bands.is_some() => it.stats = true,
            _ => match (name, words.value(name)?) {
                ("meter", "all") => all = true,
                ("meter", value) => it.id = read_id(value)?,
                _ => return Err(ParseError::new(name, format!("unknown keyword {name}"))),
            },
        }
    }
    if all && command != MeterCommand::Delete {
        return Err(wrong("meter=all is only for deleting (OFPMMFC_INVALID_METER)"));
    }
    let all = all || it.id == 0 && command == MeterCommand::Delete;
    if it.id == 0 && !all {
        return Err(wrong("must specify 'meter'"));
    }
    if let Some(text) = bands {
        match (kbps, it.pktps) {
            (false, false) => return Err(wrong("meter must specify either 'kbps' or 'pktps'")),
            (true, true) => {
                return Err(wrong("meter cannot have both 'kbps' and 'pktps' (OFPMMFC_BAD_FLAGS)"));
            }
            _ => {}
        }
        it.bands = read_bands(text, it.burst)?;
    }
    Ok(MeterMod { command, all, meter: it })
}

fn read_id(word: &str) -> Result<u32, ParseError> {
    if let Some((_, id)) = NAMED.iter().find(|(name, _)| *name == word) {
        return Ok(*id);
    }
    match number::u32(word)? {
        id @ 1..=METER_MAX => Ok(id),
        _ => Err(ParseError::new(word, "invalid value for meter")),
    }
}

/// The words that are left.
struct Words<'a>(&'a str);

impl<'a> Words<'a> {
    fn take(&mut self, ends: &[char]) -> Option<&'a str> {
        let text = self.0.trim_start_matches(ends);
        let (word, rest) = text.split_at(text.find(ends).unwrap_or(text.len()));
        self.0 = rest;
        (!word.is_empty()).then_some(word)
    }

    fn name(&mut self) -> Option<&'a str> {
        self.take(&SEPARATORS)
    }

    fn value(&mut self, name: &str) -> Result<&'a str, ParseError> {
        self.0 = self.0.strip_prefix('=').unwrap_or(self.0);
        let missing = || ParseError::new(name, format!("field {name} missing value"));
        self.take(&SEPARATORS[1..]).ok_or_else(missing)
    }
}

/// A band as far as it has been read.
struct Draft<'a> {
    word: &'a str,
    remarks: bool,
    prec_level: Option<u8>,
    rate: u32,
    burst: u32,
}

fn read_bands(text: &str, burst: bool) -> Result<Vec<MeterBand>, ParseError> {
    let mut drafts: Vec<Draft<'_>> = Vec::new();
    let mut words = Words(text);
    while let Some(name) = words.name() {
        let value = words.value(name)?;
        if name == "type" {
            let remarks = match value {
                "drop" => false,
                "dscp_remark" => true,
                _ => {
                    let reason = format!("field {name} unknown value {value}");
                    return Err(ParseError::new(value, reason));
                }
            };
            drafts.push(Draft { word: name, remarks, prec_level: None, rate: 0, burst: 0 });
            continue;
        }
        let Some(draft) = drafts.last_mut() else {
            return Err(ParseError::new(name, "band must start with the 'type' keyword"));
        };
        match name {
            "rate" => draft.rate = number::u32(value)?,
            "burst_size" => draft.burst = number::u32(value)?,
            "prec_level" => draft.prec_level = Some(number::u8(value, name)?),
            _ => return Err(ParseError::new(name, format!("unknown keyword {name}"))),
        }
    }
    match drafts.is_empty() {
        true => Err(ParseError::new(text, "meter must have bands")),
        false => drafts.iter().map(|draft| draft.finish(burst)).collect(),
    }
}

impl Draft<'_> {
    fn finish(&self, burst: bool) -> Result<MeterBand, ParseError> {
        let reason = match () {
            () if self.remarks && self.prec_level.is_none() => {
                "'dscp_remark' band must have 'prec_level'"
            }
            () if !self.remarks && self.prec_level.is_some() => {
                "Only 'dscp_remark' band may have 'prec_level'"
            }
            () if self.rate == 0 => "band must have 'rate'",
            () if burst && self.burst == 0 => {
                "band must have 'burst_size' when 'burst' flag is set"
            }
            () if !burst && self.burst != 0 => {
                "band may have 'burst_size' only when 'burst' flag is set"
            }
            () => {
                return Ok(MeterBand {
                    remark: self.prec_level,
                    rate: self.rate,
                    burst: self.burst,
                });
            }
        };
        Err(ParseError::new(self.word, reason))
    }
}

/// A meter as `ovs-ofctl dump-meters` prints it: a line, then a line for each band.
pub fn format_meter(meter: &Meter) -> String {
    ShowMeter(meter).to_string()
}

/// `meter=1`, `meter=controller`
pub fn format_meter_id(id: u32) -> String {
    match NAMED.iter().find(|(_, named)| *named == id) {
        Some((name, _)) => format!("meter={name}"),
        None => format!("meter={id}"),
    }
}

struct ShowMeter<'a>(&'a Meter);

impl fmt::Display for ShowMeter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let it = self.0;
        let unit = if it.pktps { "pktps" } else { "kbps" };
        write!(f, "{} {unit}", format_meter_id(it.id))?;
        f.write_str(if it.burst { " burst" } else { "" })?;
        f.write_str(if it.stats { " stats" } else { "" })?;
        f.write_str(" bands=\n")?;
        for band in &it.bands {
            let kind = if band.remark.is_some() { "dscp_remark" } else { "drop" };
            write!(f, "type={kind} rate={}", band.rate)?;
            if it.burst {
                write!(f, " burst_size={}", band.burst)?;
            }
            if let Some(level) = band.remark {
                write!(f, " prec_level={level}")?;
            }
            f.write_str("\n")?;
        }
        Ok(())
    }
}
