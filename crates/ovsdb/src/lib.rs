//! The Open vSwitch Database protocol (RFC 7047): a server that keeps one database in the
//! standalone OVSDB file format, and the types a client of it needs.
//!
//! | module | is |
//! |---|---|
//! | [`uuid`], [`value`], [`datum`] | row identifiers, single values, column values |
//! | [`types`], [`schema`] | what columns may hold, tables, databases |
//! | [`jsonrpc`] | messages on a byte stream |
//! | [`db`], [`txn`], [`condition`], [`mutation`], [`transact`] | rows, transactions on them, and the operations that clients ask for |
//! | [`monitor`], [`lock`], [`service`] | what clients watch and hold, and the methods they call |
//! | [`file`](mod@file) | the file that keeps the database |
//! | [`server`] | sockets: one thread serves all clients |
//! | [`client`], [`replica`] | the other side: calls, and a copy of the database kept up to date |
//!
//! A transaction goes this way: [`server`] cuts a message out of a client's bytes, [`service`]
//! executes it ([`transact`]) on a [`txn::Transaction`], which collects changes over an unchanged
//! database and completes them so that references and indexes are consistent; the changes go to the
//! [`file`](mod@file), then into [`db::Database`], then to everyone whose [`monitor`] shows them, and
//! last the reply goes out. Whatever fails on the way, before the file is written, changes nothing.
//!
//! Where this server differs from ovsdb-server: no clusters, relays, SSL or TCP; no history, so that
//! `monitor_cond_since` always answers with the full contents; no schema conversion; messages have a
//! size limit ([`jsonrpc::MAX_MESSAGE_BYTES`]), clients have quotas ([`service`]); a damaged file is
//! refused instead of used up to the damage; and a monitor is not told of a change when all that
//! changed is in columns of which it did not select `modify`.

#![forbid(unsafe_code)]

pub mod client;
pub mod condition;
pub mod datum;
pub mod db;
pub mod error;
pub mod file;
mod integrity;
pub mod jsonrpc;
pub mod lock;
mod members;
#[cfg(test)]
mod model_tests;
pub mod monitor;
pub mod mutation;
mod record;
pub mod replica;
pub mod schema;
pub mod server;
pub mod service;
mod store;
pub mod transact;
pub mod txn;
pub mod types;
pub mod uuid;
pub mod value;

pub use datum::Datum;
pub use error::Error;
pub use schema::{ColumnSchema, DatabaseSchema, TableSchema};
pub use types::{AtomType, BaseType, ColumnType, RefType, UNLIMITED};
pub use uuid::Uuid;
pub use value::{Atom, Real};
