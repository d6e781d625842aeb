//! Hugepages for DPDK processes: reserved and mounted for as long as the value lives. Our switch needs none.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::process;

const NR_HUGEPAGES: &str = "/proc/sys/vm/nr_hugepages";

/// Megabytes in one page of the default size on x86-64.
const PAGE_MB: u64 = 2;

/// A reservation of 2 MiB pages with a hugetlbfs mounted on a directory of its own; both undone at drop.
#[derive(Debug)]
pub struct Hugepages {
    pages: u64,
    mount: TempDir,
}

impl Hugepages {
    /// Adds `megabytes` to what the kernel already reserves and mounts a hugetlbfs. Needs root.
    pub fn reserve(megabytes: u64) -> Result<Hugepages> {
        let pages = megabytes.div_ceil(PAGE_MB);
        let before = reserved()?;
        set_reserved(before + pages)?;
        let got = reserved()?.saturating_sub(before);
        if got < pages {
            set_reserved(before)?;
            bail!("the kernel had only {got} of {pages} hugepages to give: free some memory");
        }
        let mount = tempfile::Builder::new().prefix("lab-huge-").tempdir()?;
        let mut this = Hugepages { pages, mount };
        if let Err(error) = this.mount() {
            this.pages = 0;
            set_reserved(before)?;
            return Err(error);
        }
        Ok(this)
    }

    /// Where the hugetlbfs is mounted.
    pub fn dir(&self) -> &Path {
        self.mount.path()
    }

    fn mount(&mut self) -> Result<()> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "hugetlbfs", "-o", "pagesize=2M", "none"]).arg(self.mount.path());
        process::output(&mut mount).map(drop)
    }
}

impl Drop for Hugepages {
    fn drop(&mut self) {
        if self.pages == 0 {
            return;
        }
        // A process killed a moment ago may still hold its mapping, hence the lazy unmount.
        let _ = Command::new("umount").arg("--lazy").arg(self.mount.path()).status();
        if let Ok(now) = reserved() {
            let _ = set_reserved(now.saturating_sub(self.pages));
        }
    }
}

fn reserved() -> Result<u64> {
    let text = fs::read_to_string(NR_HUGEPAGES).context("this kernel has no hugepages")?;
    text.trim().parse().context("nr_hugepages is not a number")
}

fn set_reserved(pages: u64) -> Result<()> {
    fs::write(NR_HUGEPAGES, pages.to_string())
        .with_context(|| format!("cannot write {NR_HUGEPAGES}: hugepages need root"))
}
