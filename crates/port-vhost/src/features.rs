//! What is offered to front ends. Only what works is.

use packet::Abilities;
use vhost::vhost_user::message::VhostUserProtocolFeatures as Protocol;

/// Feature bits (virtio 1.3, 5.1.3 and 6; bit 30 is vhost-user's own).
pub(crate) mod bit {
    pub(crate) const CSUM: u32 = 0;
    pub(crate) const GUEST_CSUM: u32 = 1;
    pub(crate) const MTU: u32 = 3;
    pub(crate) const GUEST_TSO4: u32 = 7;
    pub(crate) const GUEST_TSO6: u32 = 8;
    pub(crate) const GUEST_ECN: u32 = 9;
    pub(crate) const HOST_TSO4: u32 = 11;
    pub(crate) const HOST_TSO6: u32 = 12;
    pub(crate) const HOST_ECN: u32 = 13;
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
    pub(crate) const GUEST_USO4: u32 = 54;
    pub(crate) const GUEST_USO6: u32 = 55;
    pub(crate) const HOST_USO: u32 = 56;
}

/// The virtio features offered always. The control queue and announcements are the front end's work, who
/// hides them from the guest unless the back end offers them too.
pub(crate) const PLAIN: u64 = 1 << bit::MTU
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

/// Checksums.
pub(crate) const CHECKSUMS: u64 = 1 << bit::CSUM | 1 << bit::GUEST_CSUM;

/// Super-frames, which go with checksums.
pub(crate) const SUPER_FRAMES: u64 = 1 << bit::GUEST_TSO4
    | 1 << bit::GUEST_TSO6
    | 1 << bit::GUEST_ECN
    | 1 << bit::HOST_TSO4
    | 1 << bit::HOST_TSO6
    | 1 << bit::HOST_ECN
    | 1 << bit::GUEST_USO4
    | 1 << bit::GUEST_USO6
    | 1 << bit::HOST_USO;

/// What a guest may ask for in what it transmits. Segmentation includes checksums (virtio 1.3, 5.1.3.1).
pub(crate) fn may_ask(features: u64) -> Abilities {
    let on = |bit| has(features, bit::CSUM) && has(features, bit);
    Abilities::NONE
        .with(Abilities::CSUM, on(bit::CSUM))
        .with(Abilities::TSO4, on(bit::HOST_TSO4))
        .with(Abilities::TSO6, on(bit::HOST_TSO6))
        .with(Abilities::ECN, on(bit::HOST_ECN))
        .with(Abilities::USO, on(bit::HOST_USO))
}

/// What a guest can be given.
pub(crate) fn can_take(features: u64) -> Abilities {
    let on = |bit| has(features, bit::GUEST_CSUM) && has(features, bit);
    Abilities::NONE
        .with(Abilities::CSUM, on(bit::GUEST_CSUM))
        .with(Abilities::TSO4, on(bit::GUEST_TSO4))
        .with(Abilities::TSO6, on(bit::GUEST_TSO6))
        .with(Abilities::ECN, on(bit::GUEST_ECN))
        // Of both versions of IP or none, as drivers have it.
        .with(Abilities::USO, on(bit::GUEST_USO4) && on(bit::GUEST_USO6))
}

/// The protocol features offered.
pub(crate) const PROTOCOL: Protocol = Protocol::MQ
    .union(Protocol::REPLY_ACK)
    .union(Protocol::MTU)
    .union(Protocol::BACKEND_REQ)
    .union(Protocol::CONFIGURE_MEM_SLOTS)
    .union(Protocol::STATUS);

/// True if `features` has `bit`.
pub(crate) fn has(features: u64, bit: u32) -> bool {
    features & 1 << bit != 0
}
