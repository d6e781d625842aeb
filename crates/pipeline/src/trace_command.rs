//! The words of `ofproto/trace` and `ofproto/trace-packet-out`, as a person gives them.

use crate::pipeline::Pipeline;
use crate::trace::Wanted;
use flow::odp;
use openflow::fld;

/// Names that the datapath goes by.
const DATAPATHS: [&str; 2] = ["ovs-netdev", "netdev@ovs-netdev"];
/// Options that have a value.
const WITH_VALUE: [&str; 3] = ["--ct-next", "--l7", "--l7-len"];

/// What was asked for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Asked<'a> {
    /// Bridge or datapath, if one is named, and the flow.
    words: Vec<&'a str>,
    packet: Option<Vec<u8>>,
    generate: bool,
    named: bool,
}

impl Pipeline {
    /// `ofproto/trace BRIDGE BR_FLOW [-generate|PACKET]` and `ofproto/trace [DP] ODP_FLOW
    /// [-generate|PACKET]`, where the packet is in hexadecimal; with `--names`, ports are called by
    /// their names. `--ct-next STATE` is understood; no packet comes back from connection tracking yet.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn trace_command(&self, args: &[&str], now_ms: u64) -> Result<String, String> {
        self.trace_asked(&read(args)?, None, now_ms)
    }

    /// `ofproto/trace-packet-out`: as [`Pipeline::trace_command`], with actions that are run instead of
    /// the tables as the last word.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn trace_packet_out_command(&self, args: &[&str], now_ms: u64) -> Result<String, String> {
        match args.split_last() {
            Some((actions, args)) => self.trace_asked(&read(args)?, Some(actions), now_ms),
            None => Err("Syntax error".to_owned()),
        }
    }

    fn trace_asked(
        &self,
        asked: &Asked<'_>,
        actions: Option<&str>,
        now_ms: u64,
    ) -> Result<String, String> {
        let (generate, named) = (asked.generate, asked.named);
        let wanted = Wanted { packet: asked.packet.as_deref(), generate, named, actions, now_ms };
        let trace = match asked.words[..] {
            [flow] => {
                let key = parse_datapath_flow(self, flow).map_err(|e| {
                    format!("syntax error at {flow} (or the bridge name was omitted): {e}")
                })?;
                self.trace_datapath(&key, &wanted)
            }
            [place, flow] => match parse_datapath_flow(self, flow) {
                Ok(key) if DATAPATHS.contains(&place) => self.trace_datapath(&key, &wanted),
                Ok(_) => {
                    let name = DATAPATHS[0];
                    return Err(format!("Cannot find the datapath {place}; there is {name}"));
                }
                Err(_) if self.bridge(place).is_err() => {
                    return Err(format!("{place}: unknown bridge"));
                }
                Err(_) => self.trace_bridge(place, flow, &wanted),
            },
            _ => return Err("Syntax error".to_owned()),
        };
        trace.map_err(|e| e.to_string())
    }
}

fn parse_datapath_flow(pipeline: &Pipeline, flow: &str) -> Result<flow::FlowKey, String> {
    let by_name = |name: &str| {
        let bridges = pipeline.bridges();
        let mut ports = bridges.iter().filter_map(|b| pipeline.ports(b).ok()).flatten();
        ports.find(|p| p.name == name).map(|p| p.dp)
    };
    odp::parse_match(flow, &by_name).map(|(key, _)| key)
}

fn read<'a>(args: &[&'a str]) -> Result<Asked<'a>, String> {
    let mut asked = Asked::default();
    let mut args = args.iter().copied();
    while let Some(arg) = args.next() {
        match arg {
            "-generate" | "--generate" => asked.generate = true,
            "--names" => asked.named = true,
            "--no-names" => asked.named = false,
            option if WITH_VALUE.contains(&option) => {
                let Some(value) = args.next() else {
                    return Err(format!("Missing argument for option {option}"));
                };
                if option == "--ct-next" {
                    check_state(value)?;
                }
            }
            word => asked.words.push(word),
        }
    }
    // A packet stands last, after a bridge and a flow or after a flow in the datapath's words.
    let last_is_packet = match asked.words[..] {
        [_, _, last] => Some(last),
        [flow, last] if flow.contains('(') && hex(last).is_ok() => Some(last),
        _ => None,
    };
    if let Some(last) = last_is_packet {
        if asked.generate {
            return Err("Syntax error".to_owned());
        }
        asked.packet = Some(hex(last)?);
        asked.words.pop();
    }
    Ok(asked)
}

/// `trk,new` and the like.
fn check_state(text: &str) -> Result<(), String> {
    for word in text.split([',', '|', ' ']).filter(|w| !w.is_empty()) {
        if fld::CT_STATE.parse_value(word, &()).is_err() {
            return Err(format!("{word}: unknown connection tracking state flag"));
        }
    }
    Ok(())
}

/// A frame in hexadecimal; white space and colons between bytes are allowed.
fn hex(text: &str) -> Result<Vec<u8>, String> {
    let digits: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace() && *b != b':').collect();
    let byte = |pair: &[u8]| {
        let text = std::str::from_utf8(pair).ok().filter(|_| pair.len() == 2)?;
        pair.iter().all(u8::is_ascii_hexdigit).then_some(())?;
        u8::from_str_radix(text, 16).ok()
    };
    let bytes: Option<Vec<u8>> = digits.chunks(2).map(byte).collect();
    match bytes {
        Some(bytes) if bytes.len() >= 14 => Ok(bytes),
        Some(_) => Err("Ethernet frame is shorter than its header of 14 bytes".to_owned()),
        None => Err("Trailing garbage in packet data".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        let frame = "ffffffffffff0200000000010800";
        let asked = read(&["br0", "in_port=1", frame, "--ct-next", "trk,est"]).expect("fine");
        assert_eq!((asked.words.len(), asked.packet.map(|p| p.len())), (2, Some(14)));
        assert_eq!(read(&["in_port(1)", frame]).expect("fine").words, ["in_port(1)"]);
        assert!(read(&["br0", "in_port=1", "-generate"]).expect("fine").generate);
        let wrong = |args: &[&str]| read(args).expect_err("wrong");
        assert_eq!(wrong(&["br0", "f", "--ct-next"]), "Missing argument for option --ct-next");
        assert_eq!(wrong(&["br0", "f", "zz"]), "Trailing garbage in packet data");
        assert_eq!(wrong(&["br0", "f", frame, "-generate"]), "Syntax error");
        let state = wrong(&["br0", "f", "--ct-next", "zz"]);
        assert_eq!(state, "zz: unknown connection tracking state flag");
    }
}
