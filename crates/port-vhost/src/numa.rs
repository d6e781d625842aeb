//! On which NUMA node a guest's memory is.

use std::ptr::NonNull;

/// Flags of get_mempolicy(2): the node, of the page at an address (`MPOL_F_NODE`, `MPOL_F_ADDR`).
const NODE_OF_ADDRESS: libc::c_ulong = 1 | 2;

/// The node of the page at `at`, which is in a mapping of this process. `None` if the kernel does not say,
/// as where it may not be asked, or where the page is gone.
pub(crate) fn node_of(at: NonNull<u8>) -> Option<usize> {
    let mut node: libc::c_int = -1;
    let nothing = std::ptr::null_mut::<libc::c_ulong>();
    // SAFETY: the kernel writes a number to `node` and looks up the page at `at` without harm whatever is
    // there; a page that cannot be had is an error, not a signal.
    let done = unsafe {
        libc::syscall(
            libc::SYS_get_mempolicy,
            &raw mut node,
            nothing,
            0 as libc::c_ulong,
            at.as_ptr(),
            NODE_OF_ADDRESS,
        )
    };
    usize::try_from(node).ok().filter(|_| done == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_on_a_node_of_this_machine_and_what_is_none_is_on_none() {
        let own = [7u8; 64];
        let node = node_of(NonNull::from(&own[0])).expect("the kernel says");
        let nodes = std::path::Path::new("/sys/devices/system/node");
        assert!(!nodes.exists() || nodes.join(format!("node{node}")).is_dir(), "{node}");
        let nowhere = NonNull::new(std::ptr::without_provenance_mut(4096)).expect("not zero");
        assert_eq!(node_of(nowhere), None);
    }
}
