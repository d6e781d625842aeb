//! Flow keys, masks, datapath actions, and the trait through which the datapath asks the pipeline.
//!
//! [`FlowKey`] is what is read from each packet, [`FlowMask`] says which of its bits a decision
//! depended on, [`Action`] is what to do, and [`Translate`] is answered by the pipeline and asked by
//! the datapath: the two know this crate and not each other.
//!
//! No packet is stored here, nothing is looked up, and there is no `unsafe`.
#![forbid(unsafe_code)]

mod action;
mod compose;
mod extract;
mod key;
pub mod odp;
mod translate;

pub use action::{Action, DpPort, Punt, PuntReason, Rewrite, Snoop};
pub use compose::compose;
pub use extract::{Extracted, Layers, Need, extract, locate, tcp_header_fits};
pub use key::{
    DL_TYPE_NONE, FRAG_ANY, FRAG_LATER, FlowKey, FlowMask, HOT_WORDS, MPLS_LABELS, Mac, Vlan,
    WORDS, ether_type, ip_proto,
};
pub use translate::{Effects, Seen, Translate, Translation};
