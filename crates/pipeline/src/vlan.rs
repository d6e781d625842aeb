//! What a port has to do with VLANs: settings of the database's Port table (ovs-vswitchd.conf.db(5),
//! "VLAN Configuration"). They only concern NORMAL.

use flow::ether_type;

/// How many VLAN IDs there are.
const IDS: usize = 4096;

/// A set of VLAN IDs, 0 to 4095.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VlanSet([u64; IDS / 64]);

impl VlanSet {
    /// No VLAN.
    pub const EMPTY: VlanSet = VlanSet([0; IDS / 64]);
    const ALL: VlanSet = VlanSet([u64::MAX; IDS / 64]);

    /// The IDs among `ids`; numbers that are none are left out.
    pub fn of(ids: impl IntoIterator<Item = i64>) -> VlanSet {
        let mut set = VlanSet::EMPTY;
        for id in ids.into_iter().filter_map(|id| usize::try_from(id).ok()) {
            if let Some(word) = set.0.get_mut(id / 64) {
                *word |= 1 << (id % 64);
            }
        }
        set
    }

    /// Whether the set has `id`.
    pub fn has(&self, id: u16) -> bool {
        self.0.get(usize::from(id) / 64).is_some_and(|word| word >> (id % 64) & 1 != 0)
    }

    /// Whether the set has no ID.
    pub fn is_empty(&self) -> bool {
        *self == VlanSet::EMPTY
    }

    fn put(&mut self, id: u16, there: bool) {
        if let Some(word) = self.0.get_mut(usize::from(id) / 64) {
            *word = *word & !(1 << (id % 64)) | u64::from(there) << (id % 64);
        }
    }
}

/// `vlan_mode`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum VlanMode {
    /// In one VLAN, without a tag.
    Access,
    /// In all VLANs or some, tagged.
    #[default]
    Trunk,
    /// As a trunk; frames without a tag are in the native VLAN, whose frames leave with a tag.
    NativeTagged,
    /// As a trunk; frames without a tag are in the native VLAN, whose frames leave without a tag.
    NativeUntagged,
    /// In one VLAN, whose tag is put before the tags of the frames that come in.
    Dot1qTunnel,
}

/// `other_config:priority-tags`: frames that leave without a VLAN ID and keep a tag all the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum PriorityTags {
    /// None.
    #[default]
    Never,
    /// Those with a priority.
    IfNonzero,
    /// Those with a priority, and those that came with a tag.
    Always,
}

/// Settings of a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PortConfig {
    pub(crate) mode: VlanMode,
    /// The VLAN of access and tunnel ports, the native one of others; 0 if there is none.
    pub(crate) tag: u16,
    /// VLANs that are carried, but by access and tunnel ports.
    pub(crate) trunks: VlanSet,
    /// VLANs of customers that a tunnel takes.
    pub(crate) cvlans: VlanSet,
    /// TPID of the tag that a tunnel puts before the others.
    pub(crate) qinq_ethtype: u16,
    pub(crate) priority_tags: PriorityTags,
    pub(crate) protected: bool,
    pub(crate) mcast_flood: bool,
    pub(crate) mcast_flood_reports: bool,
}

/// Columns of a row of Port, as they are.
#[derive(Clone, Debug, Default)]
pub struct PortColumns<'a> {
    /// `vlan_mode`.
    pub vlan_mode: Option<&'a str>,
    /// `tag`, 0 to 4095.
    pub tag: Option<i64>,
    /// `trunks`, each 0 to 4095; empty for all.
    pub trunks: Vec<i64>,
    /// `cvlans`, each 0 to 4095; empty for all.
    pub cvlans: Vec<i64>,
    /// `other_config:qinq-ethtype`: `802.1ad` or `802.1q`.
    pub qinq_ethtype: Option<&'a str>,
    /// `other_config:priority-tags`: `never`, `if-nonzero` or `always`.
    pub priority_tags: Option<&'a str>,
    /// `protected`: nothing goes from this port to another that is protected.
    pub protected: bool,
    /// `other_config:mcast-snooping-flood`: all multicast goes there, and nothing is learned from it.
    pub mcast_flood: bool,
    /// `other_config:mcast-snooping-flood-reports`: what hosts say of groups goes there too, and nobody
    /// leaves a group there before its time.
    pub mcast_flood_reports: bool,
}

impl Default for PortConfig {
    /// A trunk of all VLANs.
    fn default() -> PortConfig {
        PortConfig {
            mode: VlanMode::Trunk,
            tag: 0,
            trunks: VlanSet::ALL,
            cvlans: VlanSet::ALL,
            qinq_ethtype: ether_type::VLAN_AD,
            priority_tags: PriorityTags::Never,
            protected: false,
            mcast_flood: false,
            mcast_flood_reports: false,
        }
    }
}

impl PortConfig {
    /// What the columns come to. Where they contradict each other, or say something that is not known,
    /// it is as in OVS, and `complain` is told.
    pub fn new(columns: &PortColumns<'_>, mut complain: impl FnMut(String)) -> PortConfig {
        let mut known = |key: &str, value: Option<&str>, values: &[&str]| {
            if let Some(value) = value.filter(|v| !values.contains(v)) {
                let all = values.join(", ");
                complain(format!(
                    "{key}=\"{value}\" is none of {all}; the default, {}, is used",
                    values[0]
                ));
            }
        };
        known("other_config:qinq-ethtype", columns.qinq_ethtype, &["802.1ad", "802.1q"]);
        let priorities = ["never", "if-nonzero", "always", "true", "false"];
        known("other_config:priority-tags", columns.priority_tags, &priorities);
        let tag = columns.tag.and_then(|t| u16::try_from(t).ok()).filter(|t| usize::from(*t) < IDS);
        if let Some(wrong) = columns.tag.filter(|_| tag.is_none()) {
            complain(format!("tag={wrong} is not from 0 to 4095; the port has none"));
        }
        let mode = match columns.vlan_mode {
            Some("access") => VlanMode::Access,
            Some("native-tagged") => VlanMode::NativeTagged,
            Some("native-untagged") => VlanMode::NativeUntagged,
            Some("dot1q-tunnel") => VlanMode::Dot1qTunnel,
            Some(_) => VlanMode::Trunk,
            None if tag.is_some() => VlanMode::Access,
            None => VlanMode::Trunk,
        };
        let lists = !columns.trunks.is_empty() || !columns.cvlans.is_empty();
        if columns.vlan_mode.is_none() && tag.is_some() && lists {
            complain("tag makes it an access port, which has no trunks and no cvlans".to_owned());
        }
        let listed = |ids: &[i64]| Some(VlanSet::of(ids.iter().copied())).filter(|s| !s.is_empty());
        let tag = if mode == VlanMode::Trunk { 0 } else { tag.unwrap_or(0) };
        let mut trunks = listed(&columns.trunks).unwrap_or(VlanSet::ALL);
        if matches!(mode, VlanMode::NativeTagged | VlanMode::NativeUntagged) && tag != 0 {
            // A native VLAN is always carried, and frames without a tag are in it and not in VLAN 0.
            trunks.put(tag, true);
            trunks.put(0, false);
        }
        PortConfig {
            mode,
            tag,
            trunks,
            cvlans: listed(&columns.cvlans).unwrap_or(VlanSet::ALL),
            qinq_ethtype: match columns.qinq_ethtype {
                Some("802.1q") => ether_type::VLAN,
                _ => ether_type::VLAN_AD,
            },
            priority_tags: match columns.priority_tags {
                Some("if-nonzero" | "true") => PriorityTags::IfNonzero,
                Some("always") => PriorityTags::Always,
                _ => PriorityTags::Never,
            },
            protected: columns.protected,
            mcast_flood: columns.mcast_flood,
            mcast_flood_reports: columns.mcast_flood_reports,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(columns: &PortColumns<'_>) -> (PortConfig, Vec<String>) {
        let mut complaints = Vec::new();
        (PortConfig::new(columns, |c| complaints.push(c)), complaints)
    }

    #[test]
    fn a_tag_makes_an_access_port_whatever_the_trunks() {
        let columns = PortColumns { tag: Some(5), trunks: vec![6], ..PortColumns::default() };
        let (config, complaints) = read(&columns);
        assert_eq!((config.mode, config.tag, complaints.len()), (VlanMode::Access, 5, 1));
        let (config, complaints) = read(&PortColumns { vlan_mode: Some("trunk"), ..columns });
        assert_eq!((config.mode, config.tag, complaints.len()), (VlanMode::Trunk, 0, 0));
        assert!(config.trunks.has(6) && !config.trunks.has(5));
    }

    #[test]
    fn a_native_vlan_is_carried_instead_of_vlan_0() {
        let columns = PortColumns {
            vlan_mode: Some("native-tagged"),
            tag: Some(7),
            trunks: vec![0, 9],
            ..PortColumns::default()
        };
        let (config, _) = read(&columns);
        assert_eq!([0, 7, 8, 9].map(|v| config.trunks.has(v)), [false, true, false, true]);
    }

    #[test]
    fn what_is_not_known_is_told_and_the_default() {
        let columns = PortColumns {
            tag: Some(4096),
            qinq_ethtype: Some("802.1x"),
            priority_tags: Some("sometimes"),
            ..PortColumns::default()
        };
        let (config, complaints) = read(&columns);
        assert_eq!(config, PortConfig::default());
        assert_eq!(complaints.len(), 3);
    }

    #[test]
    fn sets() {
        let set = VlanSet::of([-1, 0, 63, 64, 4095, 4096]);
        let has = |v: &u16| set.has(*v);
        assert_eq!((0..=5000).filter(has).collect::<Vec<_>>(), [0, 63, 64, 4095]);
        assert!(VlanSet::of([4096]).is_empty());
    }
}
