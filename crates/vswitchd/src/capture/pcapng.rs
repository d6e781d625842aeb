//! Captured packets as a pcapng file (draft-ietf-opsawg-pcapng): one section, one interface.

use super::describe::offload;
use datapath::{Captured, Counts, Direction};
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::blocks::interface_statistics::{
    InterfaceStatisticsBlock, InterfaceStatisticsOption,
};
use pcap_file::pcapng::blocks::section_header::{SectionHeaderBlock, SectionHeaderOption};
use pcap_file::{DataLink, Endianness, PcapResult};
use std::borrow::Cow;
use std::time::Duration;

/// Time stamps are nanoseconds: ten to the power of minus this.
const RESOLUTION: u8 = 9;
/// `epb_flags`: the direction, from the switch's point of view.
const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;

/// A file that is being written.
pub(super) struct File(PcapNgWriter<Vec<u8>>);

impl File {
    /// A file for one port, of whose packets `filter` says which were wanted.
    pub(super) fn new(port: &str, filter: &str) -> PcapResult<File> {
        let program = concat!("vswitchd ", env!("CARGO_PKG_VERSION"));
        let section = SectionHeaderBlock {
            // The words of statistics' time stamps come in the right order only so.
            endianness: Endianness::Big,
            options: vec![SectionHeaderOption::UserApplication(program.into())],
            ..SectionHeaderBlock::default()
        };
        let mut writer = PcapNgWriter::with_section_header(Vec::new(), section)?;
        let mut options = vec![
            InterfaceDescriptionOption::IfName(port.to_owned().into()),
            InterfaceDescriptionOption::IfTsResol(RESOLUTION),
        ];
        if !filter.is_empty() {
            // Its first byte says that it is text.
            let text = [b"\0", filter.as_bytes()].concat();
            options.push(InterfaceDescriptionOption::IfFilter(text.into()));
        }
        let interface = InterfaceDescriptionBlock {
            options,
            ..InterfaceDescriptionBlock::new(DataLink::ETHERNET, 0)
        };
        writer.write_pcapng_block(interface)?;
        Ok(File(writer))
    }

    /// Adds a packet.
    pub(super) fn packet(&mut self, time: Duration, packet: &Captured) -> PcapResult<()> {
        let way = if packet.direction == Direction::In { INBOUND } else { OUTBOUND };
        let mut options = vec![EnhancedPacketOption::Flags(way)];
        options.extend(offload(&packet.offload).map(|o| EnhancedPacketOption::Comment(o.into())));
        self.0.write_pcapng_block(EnhancedPacketBlock {
            interface_id: 0,
            timestamp: time,
            original_len: packet.len as u32,
            data: Cow::Borrowed(&packet.frame),
            options,
        })?;
        Ok(())
    }

    /// Adds the sums at the end.
    pub(super) fn statistics(
        &mut self,
        time: Duration,
        captured: u64,
        c: &Counts,
    ) -> PcapResult<()> {
        let missed = c.over_budget + c.no_room;
        self.0.write_pcapng_block(InterfaceStatisticsBlock {
            interface_id: 0,
            timestamp: time.as_nanos() as u64,
            options: vec![
                InterfaceStatisticsOption::IsbOsDrop(missed),
                InterfaceStatisticsOption::IsbUsrDeliv(captured),
            ],
        })?;
        Ok(())
    }

    /// What was written since the last call.
    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(self.0.get_mut())
    }
}
