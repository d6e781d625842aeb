//! The guests' kernel and first root file system, made from Debian packages without installing a kernel.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::cpio::Archive;
use crate::guest::Machine;
use crate::packages::{ETHTOOL, IPERF3, USER_MODE_LINUX};
use crate::process::{command, output};
use crate::progress::Step;

/// The package that names Debian's current kernel for virtual machines.
const KERNEL_META_PACKAGE: &str = "linux-image-cloud-amd64";

/// What a virtio-net device of QEMU needs, each after what it depends on, and a NIC that does more to frames than that.
const MODULES: &[&str] = &[
    "net/core/failover.ko",
    "drivers/net/net_failover.ko",
    "drivers/virtio/virtio_ring.ko",
    "drivers/virtio/virtio.ko",
    "drivers/virtio/virtio_pci_modern_dev.ko",
    "drivers/virtio/virtio_pci_legacy_dev.ko",
    "drivers/virtio/virtio_pci.ko",
    "drivers/net/virtio_net.ko",
    "drivers/net/tun.ko",
    "drivers/net/vmxnet3/vmxnet3.ko",
];

/// The same where virtio is built in, as in user-mode Linux.
const USER_MODE_MODULES: &[&str] =
    &["net/core/failover.ko", "drivers/net/net_failover.ko", "drivers/net/virtio_net.ko"];

/// The guest's first process: sets up, then runs one command per line of the serial console. A line is a
/// number and a command; the answer lies between `<<NUMBER` and `>>NUMBER STATUS`.
const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
for module in @MODULES@; do insmod "/modules/$module"; done
ip link set lo up
stty -echo
echo "<<ready"
while read -r number line; do
  printf '<<%s\n' "$number"
  eval "$line" </dev/null 2>&1
  printf '\n>>%s %s\n' "$number" "$?"
done
poweroff -f
"#;

/// What a guest boots.
#[derive(Debug, Clone)]
pub struct Image {
    /// The kernel.
    pub kernel: PathBuf,
    /// The cpio archive with busybox, the modules, iperf3 and ethtool.
    pub initramfs: PathBuf,
}

/// Makes the image in `TARGET/lab`, where the kernel is kept for the next time. `programs` get into the guest's
/// `/bin` besides iperf3 and ethtool.
pub fn prepare(machine: Machine, programs: &[PathBuf]) -> Result<Image> {
    let dir = lab_dir()?;
    let (kernel, modules, needed) = match machine {
        Machine::Emulated => {
            let root = kernel_root(&dir)?;
            let modules = only_entry(&root.join("lib/modules"), "")?;
            (only_entry(&root.join("boot"), "vmlinuz-")?, modules, MODULES)
        }
        Machine::UserMode => {
            let modules = only_entry(Path::new("/usr/lib/uml/modules"), "")?;
            (USER_MODE_LINUX.file.into(), modules, USER_MODE_MODULES)
        }
    };
    // Written aside and renamed, as another test may be doing the same.
    let temporary = tempfile::NamedTempFile::new_in(&dir)?;
    write_initramfs(temporary.as_file(), &modules.join("kernel"), needed, programs)?;
    let initramfs = dir.join(match machine {
        Machine::Emulated => "initramfs.cpio",
        Machine::UserMode => "initramfs-user-mode.cpio",
    });
    temporary.persist(&initramfs)?;
    Ok(Image { kernel, initramfs })
}

/// `TARGET/lab`: cargo's build directory is the ancestor of this program that carries its cache tag.
fn lab_dir() -> Result<PathBuf> {
    let exe = std::env::current_exe()?;
    let target = exe.ancestors().find(|dir| dir.join("CACHEDIR.TAG").exists());
    let dir = target.context("not run from cargo's build directory")?.join("lab");
    fs::create_dir_all(&dir)?;
    Ok(dir)
}

/// The unpacked kernel package.
fn kernel_root(dir: &Path) -> Result<PathBuf> {
    ensure!(cfg!(target_arch = "x86_64"), "the guests are x86-64 machines for now");
    let root = dir.join("linux");
    if root.exists() {
        return Ok(root);
    }
    let step = Step::start("fetching the guests' kernel");
    let depends = || output(command("apt-cache").args(["depends", KERNEL_META_PACKAGE]));
    let name = |text: &str| {
        text.lines().find_map(|l| Some(l.trim().strip_prefix("Depends: ")?.to_owned()))
    };
    let package = match depends().ok().as_deref().and_then(name) {
        Some(package) => package,
        None => {
            output(command("apt-get").arg("update"))?;
            let text = depends()?;
            name(&text).with_context(|| format!("{KERNEL_META_PACKAGE} depends on nothing"))?
        }
    };
    let download = tempfile::Builder::new().prefix("kernel-").tempdir_in(dir)?;
    let fetch = || output(command("apt-get").args(["download", &package]).current_dir(&download));
    if fetch().is_err() {
        // The lists are older than the archive.
        output(command("apt-get").arg("update"))?;
        fetch()?;
    }
    let archive = only_entry(download.path(), "linux-image-")?;
    let unpacked = download.path().join("root");
    output(Command::new("dpkg").arg("-x").arg(&archive).arg(&unpacked))?;
    if let Err(error) = fs::rename(&unpacked, &root) {
        // Another test may have been quicker.
        ensure!(root.exists(), "cannot keep the kernel in {}: {error}", root.display());
    }
    step.done();
    Ok(root)
}

/// The entry of `dir` whose name starts with `prefix`.
fn only_entry(dir: &Path, prefix: &str) -> Result<PathBuf> {
    for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            return Ok(entry.path());
        }
    }
    bail!("{} has no entry {prefix}*", dir.display())
}

fn write_initramfs(
    file: &File,
    modules: &Path,
    needed_modules: &[&str],
    programs: &[PathBuf],
) -> Result<()> {
    let mut archive = Archive::new(BufWriter::new(file));
    for dir in ["bin", "dev", "lib", "lib64", "modules", "proc", "sys", "tmp"] {
        archive.directory(dir)?;
    }
    let add = |archive: &mut Archive<_>, to: &str, from: &Path| -> Result<()> {
        let bytes = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        Ok(archive.file(to, &bytes)?)
    };
    add(&mut archive, "bin/busybox", Path::new("/usr/bin/busybox"))?;
    let mut needed = BTreeSet::new();
    let always = [IPERF3.file, ETHTOOL.file].map(PathBuf::from);
    for program in always.iter().chain(programs) {
        let name = program.file_name().context("program without a name")?.to_string_lossy();
        add(&mut archive, &format!("bin/{name}"), program)?;
        needed.extend(libraries(program)?);
    }
    for library in needed {
        let name = library.file_name().context("library without a name")?.to_string_lossy();
        let dir = if name.starts_with("ld-linux") { "lib64" } else { "lib" };
        add(&mut archive, &format!("{dir}/{name}"), &library)?;
    }
    let mut names = Vec::new();
    for module in needed_modules {
        let name = module.rsplit('/').next().unwrap_or(module);
        add(&mut archive, &format!("modules/{name}"), &modules.join(module))?;
        names.push(name);
    }
    archive.file("init", INIT.replace("@MODULES@", &names.join(" ")).as_bytes())?;
    archive.finish()?;
    Ok(())
}

/// The shared libraries of a program, its loader included.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let text = output(Command::new("ldd").arg(program))?;
    let path =
        |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(PathBuf::from);
    Ok(text.lines().filter_map(path).collect())
}
