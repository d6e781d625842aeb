//! The daemon as a process, with Debian's programs of OVS as its clients and peers, `vswitchctl`, and
//! guest-side drivers on its ports.

mod bad_rows;
mod balance;
mod bench;
mod capture;
mod commands;
mod configure;
mod flows;
mod idle;
mod mirrors;
mod mtu;
mod multicast;
mod numa;
mod numbers;
mod ofctl;
mod ovs;
mod police;
mod process;
mod remote;
mod restart;
mod startfile;
mod threads;
mod traffic;
mod vlans;
