//! unixctl: the control protocol that `ovs-appctl` speaks, as a server for the daemon and a client
//! for the command line.
//!
//! A request is a method name and string parameters, a reply is one text, either a result or an
//! error. On the wire it is JSON-RPC 1.0 without framing over a Unix stream socket. The crate knows
//! no command but `list-commands` and `version`; the embedder registers the others.
#![forbid(unsafe_code)]

mod client;
mod commands;
mod message;
mod server;

pub use client::{Client, Error};
pub use commands::Commands;
pub use server::Server;
