//! What runs on which kernels, and in what order.

use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};

use super::disk::Base;
use super::job::{Mode, Origin, Plan, Ran, TEST_LIMIT, locked};
use super::kernels::{KERNELS, Kernel};
use super::machine;
use super::programs::{self, Programs};
use super::qemu::Qemu;
use super::side::Side;
use super::userland::{Userland, files};
use super::{MEMORY_MIB, at_once, part_of_a_name, report};
use crate::arch::Arch;
use crate::docker::TEST_IMAGE;
use crate::{signals, workspace};

impl Plan {
    /// One kernel per architecture.
    pub fn one_per_architecture() -> Self {
        Self::of(|kernel| kernel.always)
    }

    pub fn all() -> Self {
        Self::of(|_| true)
    }

    fn of(wanted: impl Fn(&Kernel) -> bool) -> Self {
        Self {
            kernels: KERNELS.iter().filter(|kernel| wanted(kernel)).collect(),
            filter: Vec::new(),
            mode: Mode::Tests,
            output: None,
            goes_on: false,
            packages: None,
            memory_mib: MEMORY_MIB,
            at_once: at_once(MEMORY_MIB),
            instructions: false,
        }
    }

    /// Only tests with this in their name.
    pub fn filtered(self, filter: Option<&str>) -> Result<Self> {
        Ok(Self { filter: filter.map(part_of_a_name).transpose()?.into_iter().collect(), ..self })
    }

    /// Fetches and builds what the machines start with, so that a later run need not.
    pub fn build(&self) -> Result<()> {
        let cache = workspace::target_dir()?.join("vm");
        Userland::unpack(&cache)?;
        for names in crate::arch::ARCHES {
            if self.kernels.iter().any(|kernel| kernel.arch == names.arch) {
                Base::make(&cache, names.arch)?;
                Programs::build_ahead(names.arch)?;
            }
        }
        Ok(())
    }

    pub fn run(&self) -> Result<()> {
        let start = Instant::now();
        // Before anything is built of it.
        let commit = workspace::commit();
        let cache = workspace::target_dir()?.join("vm");
        let work = cache.join(format!("run-{}", std::process::id()));
        fs::create_dir_all(&work).with_context(|| format!("cannot create {}", work.display()))?;
        let result = self.run_in(start, &cache, &work, &commit);
        let _ = fs::remove_dir_all(&work);
        let ran = result?;
        if !matches!(self.mode, Mode::Tests) {
            return Ok(());
        }
        for (suite, why) in programs::LEFT_OUT {
            println!("left out: {suite}: {why}");
        }
        // With those of an earlier run that this one goes on with.
        let machines = match &self.output {
            Some(output) => report::kept(output)?,
            None => ran.iter().map(report::summary).collect(),
        };
        println!("\n{}", report::table(&machines, start.elapsed()));
        if let Some(output) = &self.output {
            println!("kept in {}", output.display());
        }
        let bad: Vec<_> =
            ran.iter().filter(|ran| !ran.console.is_good()).map(|ran| ran.kernel.name).collect();
        if !bad.is_empty() {
            bail!("failed on {} of {} kernels: {}", bad.len(), ran.len(), bad.join(", "));
        }
        Ok(())
    }

    fn run_in(&self, start: Instant, cache: &Path, work: &Path, commit: &str) -> Result<Vec<Ran>> {
        let userland = Userland::unpack(cache)?;
        let mut sides = Vec::new();
        for names in crate::arch::ARCHES {
            if self.kernels.iter().any(|kernel| kernel.arch == names.arch) {
                sides.push(self.side(names.arch, &userland, cache, work, commit)?);
            }
        }
        // Those with the container tests take longest, and begin.
        let mut queue: Vec<_> = self.kernels.iter().enumerate().collect();
        queue.sort_by_key(|(_, kernel)| !kernel.always);
        let queue = Mutex::new(queue.into_iter());
        let preparing = Mutex::new(());
        let ran = Mutex::new(Vec::new());
        let work_off = || -> Result<()> {
            loop {
                signals::check()?;
                let Some((at, kernel)) = locked(&queue).next() else { return Ok(()) };
                let side = sides.iter().find(|side| side.qemu.arch == kernel.arch);
                let side = side.context("no disk was made for its architecture")?;
                let before = self.output.as_deref().filter(|_| self.goes_on);
                if before.is_some_and(|output| report::has(output, kernel, &side.of)) {
                    println!("{}: all went well before, with the same programs", kernel.name);
                    continue;
                }
                let booted = machine::run(self, kernel, side, &preparing, cache, work);
                signals::check()?;
                // One that cannot be had or started does not keep the next from running.
                let one = booted.unwrap_or_else(|error| {
                    println!("{}: {error:#}", kernel.name);
                    Some(Ran::broken(kernel, format!("{error:#}")))
                });
                let mut ran = locked(&ran);
                if let (Some(output), Some(one)) = (&self.output, &one) {
                    report::keep(output, one)?;
                    // As far as it is: who interrupts a long run has what came before.
                    report::keep_table(output, start.elapsed())?;
                }
                ran.extend(one.map(|one| (at, one)));
            }
        };
        // A shell has the terminal for itself; there is one machine then.
        thread::scope(|scope| {
            let workers: Vec<_> = (0..self.at_once).map(|_| scope.spawn(work_off)).collect();
            let ends = workers.into_iter().map(|worker| {
                worker.join().unwrap_or_else(|_| Err(anyhow::anyhow!("the thread of a machine panicked")))
            });
            ends.collect::<Result<Vec<()>>>()
        })?;
        let mut ran = ran.into_inner().unwrap_or_else(PoisonError::into_inner);
        ran.sort_by_key(|(at, _)| *at);
        Ok(ran.into_iter().map(|(_, one)| one).collect())
    }

    /// What all machines of an architecture start with.
    fn side<'a>(
        &self,
        arch: Arch,
        userland: &'a Userland,
        cache: &Path,
        work: &Path,
        commit: &str,
    ) -> Result<Side<'a>> {
        let base = Base::make(cache, arch)?;
        let image = work.join(format!("{}.img", arch.names().debian));
        let programs = Programs::build(arch)?;
        let mut of = Origin { commit: commit.to_owned(), programs: String::new() };
        base.disk(&image, |guest| {
            self.fill(guest, &programs)?;
            // Only what is kept is compared with another run.
            if self.output.is_some() {
                of.programs = digest(guest)?;
            }
            Ok(())
        })?;
        Ok(Side { qemu: Qemu { userland, arch }, base, image, of })
    }

    /// Puts programs, tests and what to do with them on a disk.
    fn fill(&self, guest: &Path, programs: &Programs) -> Result<()> {
        programs.copy_to(guest)?;
        if let Some(from) = &self.packages {
            bring_packages(from, programs.arch, &guest.join("packages"))?;
        }
        let mode = match &self.mode {
            Mode::Tests => "tests",
            Mode::Shell => "shell",
            Mode::Command(line) => {
                let path = guest.join("command");
                fs::write(&path, line).with_context(|| format!("cannot write {}", path.display()))?;
                "command"
            }
        };
        let environment = format!(
            "MODE={mode}\nFILTER='{}'\nLEFT_OUT='{}'\nLIMIT={}\nIMAGE={TEST_IMAGE}\n\
             export SPARK_TRACE_MACHINE=1\n\
             export SPARK_TRACE_BIN=/guest/spark-trace SPARK_TRACE_WORKLOAD=/guest/workload-static\n\
             export SPARK_TRACE_CUDA_WORKLOAD=/guest/spark-trace-workload SPARK_TRACE_TEST_DIR=/var/tmp/tests\n\
             export SPARK_TRACE_PACKAGES=/guest/packages SPARK_TRACE_STAND_IN=/run/modules\n{}",
            self.filter.join(" "),
            programs::LEFT_OUT.iter().map(|(suite, _)| *suite).collect::<Vec<_>>().join(" "),
            TEST_LIMIT.as_secs(),
            if self.instructions { "export SPARK_TRACE_COUNTS_INSTRUCTIONS=1\n" } else { "" },
        );
        let path = guest.join("environment");
        fs::write(&path, environment).with_context(|| format!("cannot write {}", path.display()))
    }
}

/// Of all files below a folder, with their names.
fn digest(dir: &Path) -> Result<String> {
    let mut all = Sha256::new();
    for path in files(dir)? {
        let content = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let name = path.strip_prefix(dir).unwrap_or(&path);
        all.update(format!("{} {}\n", name.display(), content.len()));
        all.update(&content);
    }
    Ok(all.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn bring_packages(from: &Path, arch: Arch, to: &Path) -> Result<()> {
    let end = format!("_{}.deb", arch.names().debian);
    let entries = fs::read_dir(from).with_context(|| format!("cannot list {}", from.display()))?;
    let entries = entries.flatten().map(|entry| entry.path());
    let packages: Vec<_> = entries.filter(|path| path.to_string_lossy().ends_with(&end)).collect();
    ensure!(!packages.is_empty(), "{} has no *{end}: `cargo xtask dist` makes them", from.display());
    fs::create_dir_all(to).with_context(|| format!("cannot create {}", to.display()))?;
    for package in packages {
        let to = to.join(package.file_name().unwrap_or_default());
        fs::copy(&package, &to).with_context(|| format!("cannot copy {}", package.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_program_is_another_run() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("tests")).unwrap();
        let file = dir.path().join("tests/kernel");
        fs::write(&file, "one").unwrap();
        let before = digest(dir.path()).unwrap();
        assert_eq!(before, digest(dir.path()).unwrap());
        fs::write(&file, "two").unwrap();
        assert_ne!(before, digest(dir.path()).unwrap());
        fs::write(&file, "one").unwrap();
        fs::rename(&file, dir.path().join("tests/container")).unwrap();
        assert_ne!(before, digest(dir.path()).unwrap());
    }
}
