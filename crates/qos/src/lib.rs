//! Limits of rate: token buckets, and the policing of ports by them.
//!
//! The principal types are [`Bucket`], which any number of threads share without a lock, and
//! [`Policer`], what one port may receive and send. There is no clock here: `now` is an argument of the
//! bucket, and a policer is given the function that tells the time.
#![forbid(unsafe_code)]

mod bucket;
mod policer;
mod trtcm;

pub use bucket::{Bucket, Limit};
pub use policer::{Limits, Now, Policer, QosDrops, policed_bytes};
pub use trtcm::{QueueCounts, QueueLimits, TwoRates};
