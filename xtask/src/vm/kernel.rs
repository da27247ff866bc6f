//! One kernel, unpacked: its image, and the modules that a virtual machine needs before it has its disk.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use object::{Object, ObjectSection};

use super::kernels::Kernel;
use super::packages::Suite;
use crate::process;

/// Loaded before the disk is mounted, with what they depend on; those built into a kernel are left out.
/// The disk, its file system, what Docker stores images in, and swap.
const MODULES: &[&str] = &["nvme", "ext4", "overlay", "zram"];
/// The same for modules that not every kernel has: ext4 loads these sums by their name, not as a dependency.
const SUMS: &[&str] = &["crc32c_generic"];

/// A kernel on this machine's disk.
pub struct Unpacked {
    pub package: String,
    pub image: PathBuf,
    /// Unpacked modules in the order they load in.
    pub modules: Vec<PathBuf>,
}

/// Downloads and unpacks a kernel, or finds it done before.
pub fn unpack(kernel: &Kernel, cache: &Path) -> Result<Unpacked> {
    let suite = Suite::open(cache, kernel.suite, kernel.arch)?;
    let suffix = format!("-{}", kernel.flavour);
    let package = suite.newest(&format!("linux-image-{}", kernel.series), &suffix)?;
    let release = package.trim_start_matches("linux-image-").to_owned();
    let dir = cache.join("kernels").join(&release);
    let done = dir.join("unpacked");
    if !done.is_file() {
        let _ = fs::remove_dir_all(&dir);
        // From 7.1 on, image and modules are packages of their own.
        let parts = ["linux-binary-", "linux-modules-", "linux-base-"].map(|part| format!("{part}{release}"));
        let parts = parts.iter().filter(|part| suite.has(part)).map(String::as_str);
        let packages: Vec<_> = std::iter::once(&package[..]).chain(parts).collect();
        suite.unpack(&packages, &dir)?;
        fs::write(&done, "").with_context(|| format!("cannot write {}", done.display()))?;
    }
    let tree = ["lib/modules", "usr/lib/modules"].map(|at| dir.join(at).join(&release));
    let tree = tree.iter().find(|tree| tree.is_dir()).with_context(|| format!("{package} has no modules"))?;
    // The one place, or that of 7.1 and later.
    let images = [dir.join("boot").join(format!("vmlinuz-{release}")), tree.join("vmlinuz")];
    let image = images.into_iter().find(|image| image.is_file());
    let image = image.with_context(|| format!("{package} has no vmlinuz"))?;
    let modules = modules(tree)?;
    Ok(Unpacked { package, image, modules })
}

fn modules(tree: &Path) -> Result<Vec<PathBuf>> {
    let list = |name| {
        let path = tree.join(name);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let index = Index { tree, loadable: list("modules.order")?, builtin: list("modules.builtin")? };
    let mut order = Vec::new();
    for name in SUMS.iter().filter(|name| index.has(name)) {
        index.add(name, &mut order)?;
    }
    for name in MODULES {
        index.add(name, &mut order)?;
    }
    order.into_iter().map(|(_, path)| Ok(path)).collect()
}

/// A kernel's lists of its modules, a path a line.
struct Index<'a> {
    tree: &'a Path,
    loadable: String,
    builtin: String,
}

impl Index<'_> {
    fn has(&self, name: &str) -> bool {
        self.loadable.lines().any(|path| stem(path) == name)
    }

    /// Adds a module after all that it depends on.
    fn add(&self, name: &str, order: &mut Vec<(String, PathBuf)>) -> Result<()> {
        let is = |path: &&str| stem(path) == name.replace('-', "_");
        if order.iter().any(|(known, _)| known == name) || self.builtin.lines().any(|path| is(&path)) {
            return Ok(());
        }
        let listed = self.loadable.lines().find(is);
        let listed = listed.with_context(|| format!("{} has no module {name}", self.tree.display()))?;
        let path = unpacked(&self.tree.join(listed))?;
        for dependency in depends(&path)? {
            self.add(&dependency, order)?;
        }
        order.push((name.to_owned(), path));
        Ok(())
    }
}

/// A module's name from its path.
fn stem(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split(".ko").next().unwrap_or(file).replace('-', "_")
}

/// The module's file without compression, which not every init can undo.
fn unpacked(listed: &Path) -> Result<PathBuf> {
    if listed.is_file() {
        return Ok(listed.to_owned());
    }
    let compressed = PathBuf::from(format!("{}.xz", listed.display()));
    if !compressed.is_file() {
        bail!("neither {} nor {} is there", listed.display(), compressed.display());
    }
    let mut command = Command::new("xz");
    command.args(["--decompress", "--keep", "--force"]).arg(&compressed);
    process::output(&mut command, "unpacking a module")?;
    Ok(listed.to_owned())
}

/// What a module's `depends=` names.
fn depends(path: &Path) -> Result<Vec<String>> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let file = object::File::parse(&*bytes).with_context(|| format!("{} is no module", path.display()))?;
    let info =
        file.section_by_name(".modinfo").with_context(|| format!("{} is no module", path.display()))?;
    let info = info.data().with_context(|| format!("cannot read {}", path.display()))?;
    let info = String::from_utf8_lossy(info);
    let depends = info.split('\0').find_map(|field| field.strip_prefix("depends=")).unwrap_or_default();
    Ok(depends.split(',').filter(|name| !name.is_empty()).map(ToOwned::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_have_underscores_in_their_names() {
        assert_eq!(stem("kernel/drivers/nvme/host/nvme-core.ko.xz"), "nvme_core");
        assert_eq!(stem("kernel/fs/ext4/ext4.ko"), "ext4");
    }
}
