//! The laboratory: real peers for the switch on one machine.
//!
//! [`switch::Switch`] is the switch under test, ours or OVS-DPDK, behind the same operations.
//! [`testpmd::Testpmd`] is DPDK's virtio driver as load; [`guest::Guest`] is a virtual machine.
//! Everything started here dies with its owner: at drop, and through the kernel if the owner is killed.
#![forbid(unsafe_code)]

pub mod cpio;
pub mod cpu;
pub mod floor;
pub mod guest;
pub mod guest_image;
pub mod hugepages;
pub mod netns;
pub mod ovs;
pub mod packages;
pub mod process;
pub mod progress;
mod relay;
pub mod scene;
pub mod switch;
pub mod testpmd;
mod user_mode;
pub mod wait;

use std::sync::{Mutex, MutexGuard, PoisonError};

static ALONE: Mutex<()> = Mutex::new(());

/// Held by each test that polls cores: two at once on one core would only wait for each other.
pub fn alone() -> MutexGuard<'static, ()> {
    // A test that failed while holding it leaves nothing behind that the next one would see.
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}
