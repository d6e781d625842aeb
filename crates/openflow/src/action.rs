//! Actions and instructions, as a flow lists them (ovs-actions(7)).

use crate::field::Field;
use crate::port::OfPort;
use crate::subfield::Subfield;

/// A list of actions and instructions, in the order in which they are run and printed.
pub type Actions = Vec<Action>;

/// Flows are kept by the million, so what few of them use is boxed.
const _: () = assert!(size_of::<Action>() <= 48);

/// One action or instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "fields are named as in ovs-actions(7)")]
pub enum Action {
    /// `output:PORT`, also `NORMAL`, `FLOOD`, `ALL`, `LOCAL`, `IN_PORT` by their reserved numbers (but
    /// not `CONTROLLER`); with `max_len`, at least 14, as `output(port=…,max_len=…)`.
    Output { port: OfPort, max_len: Option<u32> },
    /// `output:SUBFIELD`.
    OutputField { src: Subfield, max_len: u16 },
    /// `controller(…)`.
    Controller(Box<Controller>),
    /// `enqueue(PORT,QUEUE)`.
    Enqueue { port: OfPort, queue: u32 },
    /// `group:ID`.
    Group(u32),
    /// `bundle(…)` and `bundle_load(…)`.
    Bundle(Box<Bundle>),
    /// `set_field:VALUE[/MASK]->FIELD`, right-aligned in the field.
    SetField { field: &'static Field, value: u128, mask: u128 },
    /// `load:VALUE->SUBFIELD`.
    Load { dst: Subfield, value: u128 },
    /// `move:SUBFIELD->SUBFIELD`, of the same width.
    Move { src: Subfield, dst: Subfield },
    /// `mod_vlan_vid:VID`; pushes a tag if there is none.
    SetVlanVid(u16),
    /// `mod_vlan_pcp:PCP`; pushes a tag if there is none.
    SetVlanPcp(u8),
    /// `strip_vlan`, `pop_vlan`.
    StripVlan,
    /// `push_vlan:ETHERTYPE`.
    PushVlan(u16),
    /// `mod_dl_src:MAC`.
    SetEthSrc(flow::Mac),
    /// `mod_dl_dst:MAC`.
    SetEthDst(flow::Mac),
    /// `mod_nw_src:IP`.
    SetIpv4Src(u32),
    /// `mod_nw_dst:IP`.
    SetIpv4Dst(u32),
    /// `mod_nw_tos:TOS`; the two lowest bits are 0.
    SetIpDscp(u8),
    /// `mod_nw_ecn:ECN`.
    SetIpEcn(u8),
    /// `mod_nw_ttl:TTL`.
    SetIpTtl(u8),
    /// `mod_tp_src:PORT`.
    SetTpSrc(u16),
    /// `mod_tp_dst:PORT`.
    SetTpDst(u16),
    /// `dec_ttl`, `dec_ttl(ID,…)`: controllers to tell when the TTL ends; `[0]` for the plain form.
    DecTtl(Vec<u16>),
    /// `set_mpls_label:LABEL`.
    SetMplsLabel(u32),
    /// `set_mpls_tc:TC`.
    SetMplsTc(u8),
    /// `set_mpls_ttl:TTL`.
    SetMplsTtl(u8),
    /// `dec_mpls_ttl`.
    DecMplsTtl,
    /// `push_mpls:ETHERTYPE`.
    PushMpls(u16),
    /// `pop_mpls:ETHERTYPE`.
    PopMpls(u16),
    /// `set_tunnel:ID`, `set_tunnel64:ID`.
    SetTunnel { id: u64, wide: bool },
    /// `set_queue:QUEUE`.
    SetQueue(u32),
    /// `pop_queue`.
    PopQueue,
    /// `fin_timeout(…)`, in seconds; 0 leaves the flow's own.
    FinTimeout { idle: u16, hard: u16 },
    /// `resubmit:PORT`, `resubmit([PORT],[TABLE][,ct])`.
    Resubmit { port: Option<OfPort>, table: Option<u8>, ct: bool },
    /// `learn(…)`.
    Learn(Box<Learn>),
    /// `multipath(…)`.
    Multipath(Box<Multipath>),
    /// `conjunction(ID,CLAUSE/N)`; `clause` counts from 0.
    Conjunction { id: u32, clause: u8, n_clauses: u8 },
    /// `push:SUBFIELD`.
    Push(Subfield),
    /// `pop:SUBFIELD`.
    Pop(Subfield),
    /// `clone(…)`.
    Clone(Actions),
    /// `note:HEX`.
    Note(Vec<u8>),
    /// `exit`.
    Exit,
    /// `check_pkt_larger(LEN)->BIT`.
    CheckPktLarger { len: u16, dst: Subfield },
    /// `sample(…)`.
    Sample(Sample),
    /// `delete_field:FIELD`.
    DeleteField(&'static Field),
    /// `ct(…)`.
    Ct(Box<Ct>),
    /// `ct_clear`.
    CtClear,
    /// `meter:ID`.
    Meter(u32),
    /// `clear_actions`.
    ClearActions,
    /// `write_actions(…)`.
    WriteActions(Actions),
    /// `write_metadata:VALUE[/MASK]`.
    WriteMetadata { value: u64, mask: u64 },
    /// `goto_table:TABLE`.
    GotoTable(u8),
}

/// `controller(…)`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "fields are named as in ovs-actions(7)")]
pub struct Controller {
    pub reason: ControllerReason,
    /// Bytes of the packet to send; 65535 for all.
    pub max_len: u16,
    pub id: u16,
    pub userdata: Vec<u8>,
    pub pause: bool,
    pub meter_id: Option<u32>,
}

impl Controller {
    /// True if there is nothing but `max_len`, which prints as `CONTROLLER:LEN`.
    pub fn is_plain(&self) -> bool {
        let plain = Controller { max_len: self.max_len, ..Controller::default() };
        *self == plain
    }
}

impl Default for Controller {
    /// All of the packet to controller 0, as `controller` without arguments does.
    fn default() -> Controller {
        Controller {
            reason: ControllerReason::Action,
            max_len: u16::MAX,
            id: 0,
            userdata: Vec::new(),
            pause: false,
            meter_id: None,
        }
    }
}

/// Why a packet goes to the controller (OpenFlow 1.0 to 1.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are OpenFlow's")]
pub enum ControllerReason {
    NoMatch,
    Action,
    InvalidTtl,
    ActionSet,
    Group,
    PacketOut,
}

/// `bundle(…)`, `bundle_load(…)`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "fields are named as in ovs-actions(7)")]
pub struct Bundle {
    pub fields: HashFields,
    pub basis: u16,
    /// `hrw` if true, else `active_backup`.
    pub highest_random_weight: bool,
    /// Where `bundle_load` puts the port.
    pub dst: Option<Subfield>,
    pub members: Vec<OfPort>,
}

/// Which fields a hash is made of (ovs-actions(7), "multipath").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are ovs-actions(7)'s")]
pub enum HashFields {
    EthSrc,
    SymmetricL4,
    SymmetricL3L4,
    SymmetricL3L4Udp,
    NwSrc,
    NwDst,
    SymmetricL3,
}

/// `multipath(FIELDS,BASIS,ALGORITHM,N_LINKS,ARG,DST)`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "fields are named as in ovs-actions(7)")]
pub struct Multipath {
    pub fields: HashFields,
    pub basis: u16,
    pub algorithm: MultipathAlgorithm,
    /// How many links there are, 1 to 65536.
    pub n_links: u32,
    pub arg: u32,
    pub dst: Subfield,
}

/// How a hash chooses a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are ovs-actions(7)'s")]
pub enum MultipathAlgorithm {
    ModuloN,
    HashThreshold,
    Hrw,
    IterHash,
}

/// `sample(…)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "fields are named as in ovs-actions(7)")]
pub struct Sample {
    /// Of 65536.
    pub probability: u16,
    pub collector_set_id: u32,
    pub obs_domain_id: u32,
    pub obs_point_id: u32,
    pub sampling_port: Option<OfPort>,
    pub direction: SampleDirection,
}

/// Which way a sampled packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are ovs-actions(7)'s")]
pub enum SampleDirection {
    Default,
    Ingress,
    Egress,
}

/// `learn(…)`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "fields are named as in ovs-actions(7)")]
pub struct Learn {
    pub idle_timeout: u16,
    pub hard_timeout: u16,
    pub fin_idle_timeout: u16,
    pub fin_hard_timeout: u16,
    pub priority: u16,
    pub table: u8,
    pub cookie: u64,
    pub send_flow_rem: bool,
    pub delete_learned: bool,
    /// Most flows with this cookie and table; 0 for no limit.
    pub limit: u32,
    /// Where to say whether a flow was learned (1) or the limit was in the way (0).
    pub result_dst: Option<Subfield>,
    pub specs: Vec<LearnSpec>,
}

/// One part of a learned flow.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "fields are named as in ovs-actions(7)")]
pub enum LearnSpec {
    /// `FIELD=VALUE`, `FIELD[..]=FIELD[..]`, `FIELD[..]`: a match.
    Match { dst: Subfield, src: LearnSource },
    /// `load:VALUE->SUBFIELD`, `load:SUBFIELD->SUBFIELD`.
    Load { dst: Subfield, src: LearnSource },
    /// `output:SUBFIELD`.
    Output(Subfield),
}

/// Where a learned value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LearnSource {
    /// The same for every flow, right-aligned.
    Constant(u128),
    /// The packet.
    Field(Subfield),
}

/// `ct(…)`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "fields are named as in ovs-actions(7)")]
pub struct Ct {
    pub commit: bool,
    pub force: bool,
    pub table: Option<u8>,
    pub zone: CtZone,
    pub alg: Option<CtAlg>,
    pub nat: Option<Nat>,
    pub exec: Actions,
}

/// Zone of a `ct` action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CtZone {
    /// A number.
    Number(u16),
    /// 16 bits of a field.
    Field(Subfield),
}

/// Application helper of a `ct` action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are ovs-actions(7)'s")]
pub enum CtAlg {
    Ftp,
    Tftp,
}

/// `nat` or `nat(…)` in a `ct` action. Without `src` or `dst` there is no range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "fields are named as in ovs-actions(7)")]
pub struct Nat {
    pub src: bool,
    pub dst: bool,
    pub persistent: bool,
    pub hash: bool,
    pub random: bool,
    /// First and last address; equal if one was given.
    pub addresses: Option<(std::net::IpAddr, std::net::IpAddr)>,
    /// First and last port; equal if one was given.
    pub ports: Option<(u16, u16)>,
}
