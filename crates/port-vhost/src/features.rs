//! What is offered to front ends. Only what works is.

use vhost::vhost_user::message::VhostUserProtocolFeatures as Protocol;

/// Feature bits (virtio 1.3, 5.1.3 and 6; bit 30 is vhost-user's own).
pub(crate) mod bit {
    pub(crate) const MTU: u32 = 3;
    pub(crate) const MRG_RXBUF: u32 = 15;
    pub(crate) const CTRL_VQ: u32 = 17;
    pub(crate) const GUEST_ANNOUNCE: u32 = 21;
    pub(crate) const MQ: u32 = 22;
    pub(crate) const ANY_LAYOUT: u32 = 27;
    pub(crate) const INDIRECT_DESC: u32 = 28;
    pub(crate) const EVENT_IDX: u32 = 29;
    pub(crate) const PROTOCOL_FEATURES: u32 = 30;
    pub(crate) const VERSION_1: u32 = 32;
    pub(crate) const RING_PACKED: u32 = 34;
    pub(crate) const IN_ORDER: u32 = 35;
}

/// The virtio features offered. The control queue and announcements are the front end's work, who
/// hides them from the guest unless the back end offers them too.
pub(crate) const OFFERED: u64 = 1 << bit::MTU
    | 1 << bit::MRG_RXBUF
    | 1 << bit::CTRL_VQ
    | 1 << bit::GUEST_ANNOUNCE
    | 1 << bit::MQ
    | 1 << bit::ANY_LAYOUT
    | 1 << bit::INDIRECT_DESC
    | 1 << bit::EVENT_IDX
    | 1 << bit::PROTOCOL_FEATURES
    | 1 << bit::VERSION_1
    | 1 << bit::RING_PACKED
    | 1 << bit::IN_ORDER;

/// The protocol features offered.
pub(crate) const PROTOCOL: Protocol = Protocol::MQ
    .union(Protocol::REPLY_ACK)
    .union(Protocol::MTU)
    .union(Protocol::CONFIGURE_MEM_SLOTS)
    .union(Protocol::STATUS);

/// True if `features` has `bit`.
pub(crate) fn has(features: u64, bit: u32) -> bool {
    features & 1 << bit != 0
}
