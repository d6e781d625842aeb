//! What happens to a running driver: queues stopped and enabled, memory added and removed, rings moved, the back end lost and found.

use crate::config::MemoryStyle;
use crate::dirty_log::DirtyLog;
use crate::driver::Driver;
use crate::error::Error;
use crate::handshake::{
    barrier, send_address, send_features, send_memory, send_region, settle, start, start_ring,
};
use crate::memory::RegionSpec;
use crate::wire::{Request, protocol, u64_body, vring_state};
use std::net::Shutdown;

impl Driver {
    /// Stops a ring with GET_VRING_BASE and returns its base. The back end no longer touches the ring or its buffers.
    pub fn stop_ring(&mut self, index: u16) -> Result<u32, Error> {
        let request = Request::GET_VRING_BASE;
        let answer = self.session().ask(request, &vring_state(index.into(), 0))?;
        let wrong = |why| Error::BadAnswer { request, why };
        let body: [u8; 8] = answer
            .body
            .try_into()
            .map_err(|b: Vec<u8>| wrong(format!("{} bytes, not 8", b.len())))?;
        let word =
            |at: usize| u32::from_le_bytes([body[at], body[at + 1], body[at + 2], body[at + 3]]);
        if word(0) != u32::from(index) {
            return Err(wrong(format!("ring {} answered, {index} was asked", word(0))));
        }
        Ok(word(4))
    }

    /// Where a ring says the device stands; a back end that stopped cleanly gave the same base.
    pub fn ring_base(&self, index: u16) -> u32 {
        self.base(index).ring.resume_base()
    }

    /// Starts a stopped ring again at `base`, and kicks it.
    pub fn start_ring(&mut self, index: u16, base: u32) -> Result<(), Error> {
        start_ring(self, index, base)?;
        self.send_event(Request::SET_VRING_CALL, index)?;
        settle(self.session())?;
        self.base(index).kick.signal();
        Ok(())
    }

    /// Enables or disables a ring with SET_VRING_ENABLE; its state stays.
    pub fn set_ring_enabled(&mut self, index: u16, on: bool) -> Result<(), Error> {
        self.send_enable(index, on)?;
        settle(self.session())?;
        self.base(index).kick.signal();
        Ok(())
    }

    /// Stops both rings of a pair, as QEMU does, and returns their bases.
    pub fn stop_pair(&mut self, pair: u16) -> Result<[u32; 2], Error> {
        Ok([self.stop_ring(2 * pair)?, self.stop_ring(2 * pair + 1)?])
    }

    /// Starts both rings of a stopped pair.
    ///
    /// DPDK 22.11 moves no frames if one ring was stopped and started while the other ran; other back ends should.
    pub fn start_pair(&mut self, pair: u16, bases: [u32; 2]) -> Result<(), Error> {
        self.start_ring(2 * pair, bases[0])?;
        self.start_ring(2 * pair + 1, bases[1])
    }

    /// Moves the rings of a pair to another region: stopped, copied, started again. Posted buffers stay posted, where they are.
    pub fn move_pair(&mut self, pair: u16, region: u32) -> Result<(), Error> {
        let bases = self.stop_pair(pair)?;
        for index in [2 * pair, 2 * pair + 1] {
            let (memory, queue) = self.split_base(index);
            queue.move_ring(memory, region)?;
        }
        self.start_pair(pair, bases)
    }

    /// Adds a memory region while traffic runs; its id.
    pub fn add_region(&mut self, spec: &RegionSpec) -> Result<u32, Error> {
        let id = self.memory_mut().add(spec)?;
        match self.config().memory_style {
            MemoryStyle::Table => send_memory(self)?,
            MemoryStyle::Slots => send_region(self.session(), self.memory().region(id)?)?,
        }
        Ok(id)
    }

    /// Takes a region away while traffic runs. Refused while a ring or buffer lies in it.
    pub fn remove_region(&mut self, id: u32) -> Result<(), Error> {
        let region = self.memory().region(id)?.descriptor();
        let (from, to) = (region.gpa, region.gpa + region.size);
        if (0..self.ring_count()).any(|index| self.base(index).lies_in(from, to)) {
            return Err(Error::Region { region: id, why: "a ring or buffers lie in it" });
        }
        let removed = self.memory_mut().remove(id)?;
        match self.config().memory_style {
            MemoryStyle::Table => send_memory(self),
            MemoryStyle::Slots => {
                let body = removed.descriptor().single_body();
                self.session().set(Request::REM_MEM_REG, &body, &[removed.fd()])?;
                barrier(self.session())
            }
        }
    }

    /// Announces the memory again, unchanged, as QEMU does on any change of its address space.
    pub fn resend_memory(&mut self) -> Result<(), Error> {
        send_memory(self)
    }

    /// Closes the connection at once, as a front end that dies does.
    pub fn disconnect(&mut self) {
        // An error means that it is closed already.
        let _ = self.session().stream().shutdown(Shutdown::Both);
    }

    /// Connects (or is connected to) again after the back end was lost, with rings as they are: each goes on at its used index, as QEMU
    /// does. Frames the lost back end had read but not returned are sent again.
    pub fn reconnect(&mut self) -> Result<(), Error> {
        self.disconnect();
        self.reopen()?;
        let bases = self.initial_bases();
        start(self, &bases)
    }

    /// Resets the device as a rebooting guest does: rings stopped, status 0, everything begun anew. Frames in flight are gone.
    pub fn reset(&mut self) -> Result<(), Error> {
        for index in 0..self.ring_count() {
            self.stop_ring(index)?;
        }
        if self.agreed().protocol & protocol::STATUS != 0 {
            self.session().set(Request::SET_STATUS, &u64_body(0), &[])?;
            self.status = 0;
        }
        for index in 0..self.ring_count() {
            self.split_base(index).1.reset()?;
        }
        let bases = self.initial_bases();
        if self.config().memory_style == MemoryStyle::Slots {
            for region in self.memory().regions() {
                self.session().set(
                    Request::REM_MEM_REG,
                    &region.descriptor().single_body(),
                    &[region.fd()],
                )?;
            }
        }
        start(self, &bases)
    }

    /// Sends NET_SET_MTU. Bytes.
    pub fn set_mtu(&mut self, mtu: u16) -> Result<(), Error> {
        self.session().set(Request::NET_SET_MTU, &u64_body(mtu.into()), &[])
    }

    /// Asks the back end to announce a guest that has moved here (SEND_RARP).
    pub fn send_rarp(&mut self, mac: [u8; 6]) -> Result<(), Error> {
        let mut body = [0; 8];
        body[..6].copy_from_slice(&mac);
        self.session().set(Request::SEND_RARP, &body, &[])
    }

    /// Starts dirty logging: SET_LOG_BASE, SET_FEATURES with LOG_ALL, and each ring's address again with its log flag.
    pub fn start_log(&mut self) -> Result<(), Error> {
        let log = DirtyLog::new(self.memory().end())?;
        log.announce(self.session())?;
        self.log = Some(log);
        self.resend_logged()
    }

    /// Stops dirty logging and returns the log.
    pub fn stop_log(&mut self) -> Result<Option<DirtyLog>, Error> {
        let log = self.log.take();
        self.resend_logged()?;
        Ok(log)
    }

    fn resend_logged(&mut self) -> Result<(), Error> {
        send_features(self)?;
        for index in 0..self.ring_count() {
            send_address(self, index)?;
        }
        barrier(self.session())
    }

    /// Whether dirty logging is on.
    pub fn is_logging(&self) -> bool {
        self.log.is_some()
    }

    /// The dirty log, while logging is on.
    pub fn log(&self) -> Option<&DirtyLog> {
        self.log.as_ref()
    }

    /// Signals on a ring's error eventfd since the last call; 0 without [`crate::Config::error_events`].
    pub fn ring_errors(&self, index: u16) -> u64 {
        self.base(index).err.as_ref().map_or(0, |event| event.take())
    }
}
