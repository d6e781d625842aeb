//! Which cores there are and which NUMA node each is on, read from sysfs.

use rustix::thread::{CpuSet, sched_getaffinity};
use std::collections::BTreeMap;
use std::path::Path;

/// Highest core number accepted in a mask, plus one: Linux's own limit (`CONFIG_NR_CPUS`) on the
/// largest machines.
const CORES_MAX: usize = 8192;

/// Cores by NUMA node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    nodes: BTreeMap<usize, Vec<usize>>,
}

impl Topology {
    /// Reads `node*/cpulist` under `root`, normally `/sys/devices/system/node`. Without it, all cores
    /// that this process may run on are on node 0.
    pub fn read(root: &Path) -> Topology {
        let mut nodes = BTreeMap::new();
        for entry in std::fs::read_dir(root).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let number = name.to_str().and_then(|n| n.strip_prefix("node")?.parse().ok());
            let list = std::fs::read_to_string(entry.path().join("cpulist"));
            if let (Some(node), Ok(list)) = (number, list) {
                let cores = parse_cpu_list(list.trim());
                if !cores.is_empty() {
                    nodes.insert(node, cores);
                }
            }
        }
        if nodes.is_empty() {
            let n = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
            nodes.insert(0, (0..n).collect());
        }
        Topology { nodes }
    }

    /// Without the cores that `allowed` says no to, as those outside of a container's CPU set.
    pub fn restricted(mut self, allowed: impl Fn(usize) -> bool) -> Topology {
        for cores in self.nodes.values_mut() {
            cores.retain(|&core| allowed(core));
        }
        self.nodes.retain(|_, cores| !cores.is_empty());
        self
    }

    /// The cores that this process may run on, by NUMA node, as `sysfs` says. If that is another tree than
    /// `/sys`, it tells of a faked machine: all of its cores count, though threads cannot be pinned to those
    /// that are not there.
    pub fn of_this_process(sysfs: &Path) -> Topology {
        let topology = Topology::read(&sysfs.join("devices/system/node"));
        if sysfs != Path::new("/sys") {
            return topology;
        }
        match sched_getaffinity(None) {
            Ok(set) => topology.restricted(|core| core < CpuSet::MAX_CPU && set.is_set(core)),
            Err(_) => topology,
        }
    }

    /// The node of a core, if there is such a core.
    pub fn node_of(&self, core: usize) -> Option<usize> {
        self.nodes.iter().find(|(_, cores)| cores.contains(&core)).map(|(&n, _)| n)
    }

    /// The first core of each node: where PMD threads run when no mask is given.
    pub fn one_core_per_node(&self) -> Vec<usize> {
        self.nodes.values().filter_map(|cores| cores.first().copied()).collect()
    }
}

/// Parses the kernel's list format, as `0-3,8`. What is malformed is left out.
fn parse_cpu_list(list: &str) -> Vec<usize> {
    let range = |part: &str| -> Option<std::ops::RangeInclusive<usize>> {
        let (a, b) = part.split_once('-').unwrap_or((part, part));
        let (a, b) = (a.parse().ok()?, b.parse().ok()?);
        (b < CORES_MAX).then_some(a..=b)
    };
    list.split(',').filter_map(range).flatten().collect()
}

/// Parses `pmd-cpu-mask`: hexadecimal digits of any number, with or without `0x`; bit N is core N.
///
/// # Errors
/// If there is anything else in it, or a core number of 8192 or more.
pub fn parse_cpu_mask(mask: &str) -> Result<Vec<usize>, String> {
    let digits = mask.trim().trim_start_matches("0x").trim_start_matches("0X");
    let bad = || format!("pmd-cpu-mask \"{mask}\" is not a hexadecimal number");
    if digits.is_empty() || digits.len() > CORES_MAX / 4 {
        return Err(bad());
    }
    let mut cores = Vec::new();
    for (i, digit) in digits.chars().rev().enumerate() {
        let nibble = digit.to_digit(16).ok_or_else(bad)?;
        cores.extend((0..4).filter(|bit| nibble & 1 << bit != 0).map(|bit| i * 4 + bit));
    }
    Ok(cores)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks() {
        assert_eq!(parse_cpu_mask("0x6"), Ok(vec![1, 2]));
        assert_eq!(parse_cpu_mask("F0000000000000000"), Ok(vec![64, 65, 66, 67]));
        assert_eq!(parse_cpu_mask("0"), Ok(vec![]));
        for bad in ["", "0x", "xyz", "0x1 2", "-1"] {
            assert!(parse_cpu_mask(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_faked_machine_with_two_nodes() {
        let dir = tempfile::tempdir().expect("directory");
        for (node, list) in [("node0", "0-3,8\n"), ("node1", "4-7\n"), ("node2", "\n")] {
            std::fs::create_dir(dir.path().join(node)).expect("directory");
            std::fs::write(dir.path().join(node).join("cpulist"), list).expect("file");
        }
        let t = Topology::read(dir.path());
        assert_eq!((t.node_of(8), t.node_of(5), t.node_of(9)), (Some(0), Some(1), None));
        assert_eq!(t.one_core_per_node(), [0, 4]);
        let t = t.restricted(|core| core == 2 || core == 3);
        assert_eq!((t.one_core_per_node(), t.node_of(0), t.node_of(3)), (vec![2], None, Some(0)));
    }

    #[test]
    fn without_sysfs_all_cores_are_on_node_0() {
        let t = Topology::read(Path::new("/nonexistent"));
        assert_eq!((t.node_of(0), t.one_core_per_node()), (Some(0), vec![0]));
    }
}
