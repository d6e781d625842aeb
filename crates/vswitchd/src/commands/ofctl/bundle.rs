//! `bundle`: changes of flows and groups, and packets, all or nothing.

use super::flows::{self, origin, said};
use super::lines::{self, Line};
use super::packet_out;
use super::{Answer, Call, groups};

/// Packets are sent when all changes are made, through the tables as these leave them.
pub(super) fn run(call: &Call<'_>) -> Answer {
    let mut packets = Vec::new();
    call.pipeline.change(call.bridge(), call.now_ms, |changes| {
        for line in said(call) {
            let (kind, text) = line.text.split_once(char::is_whitespace).unwrap_or((line.text, ""));
            let line = Line { text: text.trim_start(), ..line };
            match kind {
                "flow" => {
                    let (command, text) = lines::command(line.text);
                    let line = Line { text, ..line };
                    let m = flows::parse(call, line, command)?;
                    flows::apply(call, changes, line, &m)?;
                }
                "group" => {
                    let (command, text) = groups::command(line.text);
                    let line = Line { text, ..line };
                    let m = groups::parse(call, line, command)?;
                    groups::apply(call, changes, line, &m)?;
                }
                "packet-out" => packets.push(packet_out::parse(call, line)?),
                _ => {
                    let prefix = origin(call, line).prefix();
                    return Err(format!("{prefix}Unsupported bundle message type: {kind}"));
                }
            }
        }
        Ok(())
    })?;
    for packet in packets {
        packet_out::send(call, packet)?;
    }
    Ok(String::new())
}
