//! One connection to a front end: follows its messages and starts and stops rings (see [`rings`]).
//!
//! A ring runs when its memory, size, addresses and kick descriptor are known and stops on
//! GET_VRING_BASE. It is enabled from the start unless protocol features were negotiated; then
//! SET_VRING_ENABLE says, which QEMU sends before SET_FEATURES, so it is remembered whenever it
//! comes. (Vhost-user specification, "Ring states".) A disabled transmit ring is left as it is; the
//! specification wants its packets discarded, but a guest does not send on a queue that it disabled.

mod rings;

use crate::call::{Call, checked_kick};
use crate::features;
use crate::link::fd;
use crate::mem::{GuestMemory, MAX_SLOTS, RegionSpec};
use crate::message::{Connection, Message, ProtocolError, wait_readable};
use crate::{MAX_QUEUE_PAIRS, MAX_VRINGS, Shared};
use rings::Setup;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use vhost::vhost_user::message::{
    FrontendReq as Req, VhostUserMemory, VhostUserMemoryRegion, VhostUserSingleMemoryRegion,
    VhostUserU64, VhostUserVringAddr, VhostUserVringState,
};
use vm_memory::ByteValued;

/// How often the call descriptors are looked at, see [`Session::check_calls`]: as long as one front
/// end can make a PMD thread wait.
const WATCH: Duration = Duration::from_millis(100);
/// In a SET_VRING_KICK, CALL or ERR: no descriptor comes with it, poll instead.
const NO_FD: u64 = 1 << 8;

/// The answer to a request.
enum Reply {
    /// None of its own; an acknowledgement if asked for.
    Done,
    /// This body.
    Body(Vec<u8>),
}

impl Reply {
    fn u64(value: u64) -> Reply {
        Reply::Body(value.to_ne_bytes().to_vec())
    }
}

/// A connected front end.
pub(crate) struct Session<'p> {
    shared: &'p Shared,
    conn: Connection<'p>,
    features: u64,
    status: u8,
    mem: Arc<GuestMemory>,
    rings: Vec<Setup>,
    /// For requests of ours, of which there are none. User-mode Linux cannot do without it, and would see it close.
    channel: Option<File>,
}

impl<'p> Session<'p> {
    pub(crate) fn new(shared: &'p Shared, conn: Connection<'p>) -> Session<'p> {
        let mem = Arc::default();
        Session { shared, conn, features: 0, status: 0, mem, rings: Vec::new(), channel: None }
    }

    /// Follows messages until the front end goes or the port is closed.
    pub(crate) fn run(mut self, listener: Option<&UnixListener>) -> Result<(), ProtocolError> {
        let (stop, bell) = (fd(&self.shared.stop), fd(&self.shared.bell));
        loop {
            let watch = self.rings.iter().any(|r| r.call.is_some()).then_some(WATCH);
            // The connection comes last: if the listener was ready when it was looked at, an end of
            // the connection before that is seen too. Without a listener the bell stands in for it: a
            // second look at it does no harm.
            let extra = listener.map_or(bell, AsFd::as_fd);
            let [stop, rung, second, message] =
                wait_readable([stop, bell, extra, self.conn.as_fd()], watch)?;
            if stop {
                return Ok(());
            }
            self.check_calls()?;
            if rung {
                let _ = self.shared.bell.read();
                self.report_faults();
                self.mem.check()?;
            }
            if message {
                let message = self.conn.receive()?;
                self.handle(message)?;
            } else if second && let Some(Ok(_)) = listener.map(UnixListener::accept) {
                // Only when the first is silent: one that closes and connects again is not refused,
                // because its end is found before its new beginning.
                self.shared.warn(format_args!("refused a second front end on the socket"));
            }
        }
    }

    /// Handles one message and answers it. An error that can be told to a front end that waits for
    /// an acknowledgement is told; otherwise it ends the connection.
    fn handle(&mut self, message: Message) -> Result<(), ProtocolError> {
        let (code, wants_ack) = (message.code, message.wants_ack);
        match self.dispatch(message) {
            Ok(Reply::Body(body)) => self.conn.reply(code, &body),
            Ok(Reply::Done) if wants_ack => self.conn.reply(code, &0u64.to_ne_bytes()),
            Ok(Reply::Done) => Ok(()),
            Err(e @ (ProtocolError::Memory(_) | ProtocolError::Unsupported { .. }))
                if wants_ack =>
            {
                self.shared.warn(format_args!("refused: {e}"));
                self.shared.protocol_errors.fetch_add(1, Relaxed);
                self.conn.reply(code, &1u64.to_ne_bytes())
            }
            Err(e) => Err(e),
        }
    }

    fn dispatch(&mut self, mut m: Message) -> Result<Reply, ProtocolError> {
        let code = m.code;
        let Some(request) = m.request() else {
            return Err(ProtocolError::Unsupported { code });
        };
        let fds_allowed = match request {
            Req::SET_MEM_TABLE => usize::MAX,
            Req::ADD_MEM_REG | Req::REM_MEM_REG => 1,
            Req::SET_VRING_KICK | Req::SET_VRING_CALL | Req::SET_VRING_ERR => 1,
            Req::SET_BACKEND_REQ_FD => 1,
            _ => 0,
        };
        if m.fds.len() > fds_allowed {
            return Err(ProtocolError::Fds { code, have: m.fds.len(), want: fds_allowed });
        }
        match request {
            Req::GET_FEATURES => return Ok(Reply::u64(self.shared.offered())),
            Req::SET_FEATURES => self.set_features(code, m.body::<VhostUserU64>()?.value)?,
            Req::SET_OWNER => {}
            Req::RESET_OWNER | Req::RESET_DEVICE => self.reset(),
            Req::GET_PROTOCOL_FEATURES => return Ok(Reply::u64(features::PROTOCOL.bits())),
            Req::SET_PROTOCOL_FEATURES => {
                let asked = m.body::<VhostUserU64>()?.value;
                if asked & !features::PROTOCOL.bits() != 0 {
                    let what = format!("protocol features {asked:#x} were not all offered");
                    return Err(ProtocolError::Value { code, what });
                }
            }
            Req::GET_QUEUE_NUM => return Ok(Reply::u64(MAX_QUEUE_PAIRS as u64)),
            Req::GET_MAX_MEM_SLOTS => return Ok(Reply::u64(MAX_SLOTS as u64)),
            Req::SET_MEM_TABLE => self.set_mem_table(m)?,
            Req::ADD_MEM_REG => {
                let spec = region(m.body::<VhostUserSingleMemoryRegion>()?);
                let mem = self.mem.with(spec, m.one_fd()?, &self.shared.bell)?;
                self.change_memory(mem);
            }
            Req::REM_MEM_REG => {
                let r = region(m.body::<VhostUserSingleMemoryRegion>()?);
                let mem = self.mem.without(r.gpa, r.size)?;
                self.change_memory(mem);
            }
            Req::NET_SET_MTU => {
                let mtu = m.body::<VhostUserU64>()?.value;
                let own = self.shared.mtu.load(Relaxed);
                // The guest was told this one, by its front end (`host_mtu` of QEMU): none but that can tell it.
                if mtu > own.into() {
                    self.shared.warn(format_args!(
                        "the front end tells its guest an MTU of {mtu}, and this port has {own}: longer frames to \
                         the guest are dropped (mtu_request={mtu} lets them pass)"
                    ));
                }
            }
            Req::SET_STATUS => {
                self.status = m.body::<VhostUserU64>()?.value as u8;
                // Writing 0 resets the device (virtio 1.3, 2.1).
                if self.status == 0 {
                    self.reset();
                }
            }
            Req::GET_STATUS => return Ok(Reply::u64(self.status.into())),
            Req::SET_BACKEND_REQ_FD => self.channel = Some(m.one_fd()?),
            _ => return self.dispatch_ring(request, m),
        }
        Ok(Reply::Done)
    }

    /// Requests that name a ring.
    fn dispatch_ring(&mut self, request: Req, m: Message) -> Result<Reply, ProtocolError> {
        let code = m.code;
        match request {
            Req::SET_VRING_NUM | Req::SET_VRING_BASE => {
                let s = m.body::<VhostUserVringState>()?;
                let (i, num) = (self.ring(code, s.index)?, s.num);
                let ring = &mut self.rings[i];
                // Checks made when the ring started would no longer hold.
                if ring.running {
                    let what = format!("vring {i} is running");
                    return Err(ProtocolError::Value { code, what });
                }
                if request == Req::SET_VRING_BASE {
                    ring.base = num;
                } else if num == 0 || num > 1 << 15 {
                    let what = format!("vring {i} of size {num}; 1 to 32768 are possible");
                    return Err(ProtocolError::Value { code, what });
                } else {
                    ring.size = num;
                }
            }
            Req::SET_VRING_ADDR => {
                let a = m.body::<VhostUserVringAddr>()?;
                let i = self.ring(code, a.index)?;
                self.rings[i].addrs = Some([a.descriptor, a.available, a.used]);
                self.stop(i);
                self.start(i);
                self.changed();
            }
            Req::GET_VRING_BASE => {
                let s = m.body::<VhostUserVringState>()?;
                let i = self.ring(code, s.index)?;
                self.stop(i);
                self.rings[i].kicked = false;
                self.shared.vring(i).set_kick(None);
                self.changed();
                let state = VhostUserVringState::new(i as u32, self.rings[i].base);
                return Ok(Reply::Body(state.as_slice().to_vec()));
            }
            Req::SET_VRING_ENABLE => {
                let s = m.body::<VhostUserVringState>()?;
                let (i, on) = (self.ring(code, s.index)?, s.num != 0);
                self.rings[i].enabled = Some(on);
                self.shared.vring(i).enable(self.is_enabled(i));
                self.start(i);
                self.changed();
            }
            Req::SET_VRING_KICK | Req::SET_VRING_CALL | Req::SET_VRING_ERR => {
                self.set_vring_fd(request, m)?;
            }
            _ => return Err(ProtocolError::Unsupported { code }),
        }
        Ok(Reply::Done)
    }

    fn set_vring_fd(&mut self, request: Req, mut m: Message) -> Result<(), ProtocolError> {
        let value = m.body::<VhostUserU64>()?.value;
        let i = self.ring(m.code, (value & 0xff) as u32)?;
        let file = if value & NO_FD != 0 { None } else { Some(m.one_fd()?) };
        if request == Req::SET_VRING_KICK {
            let file = file.map(checked_kick).transpose()?;
            // It says that the ring may start; who waits for a guest's packets waits for it.
            if is_transmit(i) {
                self.shared.vring(i).set_kick(file.map(|f| Arc::new(f.into())));
            }
            self.rings[i].kicked = true;
            self.start(i);
            self.changed();
            return Ok(());
        }
        let call = file.map(|f| Call::new(m.code, f)).transpose()?;
        match request {
            Req::SET_VRING_CALL => {
                self.rings[i].call = call.map(Arc::new);
                self.shared.vring(i).set_call(self.rings[i].call.clone());
            }
            _ => self.rings[i].err = call,
        }
        Ok(())
    }

    /// Checks a ring index, and makes room for what will be said of that ring.
    fn ring(&mut self, code: u32, index: u32) -> Result<usize, ProtocolError> {
        let i = index as usize;
        if i >= MAX_VRINGS {
            let what = format!("vring {index}; there are {MAX_VRINGS} at most");
            return Err(ProtocolError::Value { code, what });
        }
        if self.rings.len() <= i {
            self.rings.resize_with(i + 1, Setup::default);
        }
        Ok(i)
    }

    fn set_features(&mut self, code: u32, asked: u64) -> Result<(), ProtocolError> {
        // What was offered before a change of settings holds for a guest that was there then.
        let wrong = asked & !(features::PLAIN | features::CHECKSUMS | features::SUPER_FRAMES);
        if wrong != 0 {
            let what = format!("features {wrong:#x} were not offered");
            return Err(ProtocolError::Value { code, what });
        }
        let before = std::mem::replace(&mut self.features, asked);
        // The ring layout and header may be others now; what runs starts again with them.
        if before != asked {
            self.restart_rings();
        }
        Ok(())
    }

    fn set_mem_table(&mut self, mut m: Message) -> Result<(), ProtocolError> {
        let code = m.code;
        let size = m.body.len();
        let table = m.body.get(..8).map(|b| {
            let mut head = VhostUserMemory::default();
            head.as_mut_slice().copy_from_slice(b);
            head.num_regions as usize
        });
        // Linux' own front end (user-mode Linux) sends room for two regions, however many there are.
        let Some(n) = table.filter(|&n| size >= 8 + n * size_of::<VhostUserMemoryRegion>()) else {
            return Err(ProtocolError::Size { code, size });
        };
        if m.fds.len() != n {
            return Err(ProtocolError::Fds { code, have: m.fds.len(), want: n });
        }
        let mut mem = GuestMemory::default();
        for (bytes, file) in m.body[8..].chunks_exact(32).zip(m.fds.drain(..)) {
            let mut r = VhostUserMemoryRegion::default();
            r.as_mut_slice().copy_from_slice(bytes);
            mem = mem.with(plain_region(&r), file, &self.shared.bell)?;
        }
        self.change_memory(mem);
        Ok(())
    }

    /// Puts new memory under all rings. Each is stopped while that happens and goes on where it was;
    /// one whose memory is gone stays stopped.
    fn change_memory(&mut self, mem: GuestMemory) {
        self.mem = Arc::new(mem);
        self.shared.status().mem_regions = self.mem.len();
        self.restart_rings();
    }
}

impl Drop for Session<'_> {
    /// The front end is gone: no ring may touch its memory from here on.
    fn drop(&mut self) {
        for i in 0..self.rings.len() {
            self.stop(i);
            self.report_fault(i);
            self.shared.vring(i).set_call(None);
            self.shared.vring(i).set_kick(None);
        }
        self.shared.rx_queues.store(1, Relaxed);
        self.shared.tx_queues.store(0, Relaxed);
    }
}

fn plain_region(r: &VhostUserMemoryRegion) -> RegionSpec {
    RegionSpec {
        gpa: r.guest_phys_addr,
        size: r.memory_size,
        user_addr: r.user_addr,
        offset: r.mmap_offset,
    }
}

fn region(r: VhostUserSingleMemoryRegion) -> RegionSpec {
    plain_region(&r)
}

/// True if ring `i` is one that the guest transmits on.
fn is_transmit(i: usize) -> bool {
    i % 2 == 1
}
