//! vswitchctl as a program: against Debian's `ovs-vsctl`, against database servers and daemons.

mod against_ovs_vsctl;
mod common;
mod daemon;
