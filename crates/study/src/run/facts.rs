//! Facts of the machine that a reader needs to repeat a study, each a row. Of what the study depends on and that cannot be found out, a
//! fact `.unknown` has the reason.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read, Seek};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::process::Stdio;

use nvml_wrapper::enum_wrappers::device::Clock;
use spark_trace_host::{engine, nvml};
use spark_trace_recording::parse;

use crate::{cores, read_bytes, sha256};

struct Fact {
    name: &'static str,
    of: fn(&Path) -> Option<String>,
}

const fn row(name: &'static str, of: fn(&Path) -> Option<String>) -> Fact {
    Fact { name, of }
}

const FACTS: &[Fact] = &[
    row("os", |root| {
        let text = text(root, "etc/os-release").or_else(|| text(root, "usr/lib/os-release"))?;
        let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
        Some(name.trim_matches(['"', '\'']).to_owned())
    }),
    row("cpu", |root| {
        let text = text(root, "proc/cpuinfo")?;
        let line = text.lines().find(|line| line.starts_with("model name"))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    }),
    row("cores", |root| {
        let types = cores::read(root).ok()?;
        let of = |kind: &cores::CoreType| format!("{} {} ({})", kind.cpus.len(), kind.name, kind.list());
        Some(types.iter().map(of).collect::<Vec<_>>().join(", "))
    }),
    row("governor", governor),
    row("cpu.clocks-now", clocks),
    row("cgroup", |root| {
        // Documentation/admin-guide/cgroup-v2.rst: the root of a version 2 hierarchy has this file.
        let v2 = root.join("sys/fs/cgroup/cgroup.controllers").exists();
        let v1 = root.join("sys/fs/cgroup/memory").is_dir();
        match (v2, v1) {
            (true, _) => Some("v2".to_owned()),
            (false, true) => Some("v1".to_owned()),
            (false, false) => None,
        }
    }),
    row("huge-pages", |root| {
        // mm/huge_memory.c enabled_show: the choice is in brackets.
        let text = text(root, "sys/kernel/mm/transparent_hugepage/enabled")?;
        Some(text.split_once('[')?.1.split_once(']')?.0.to_owned())
    }),
    row("swappiness", |root| text(root, "proc/sys/vm/swappiness")),
];

/// Names and values.
pub fn of_machine(root: &Path) -> Vec<(String, String)> {
    FACTS.iter().filter_map(|fact| Some((fact.name.to_owned(), (fact.of)(root)?))).collect()
}

fn text(root: &Path, path: &str) -> Option<String> {
    let text = String::from_utf8(read_bytes(&root.join(path)).ok()?).ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// Of all cores: one where they agree.
fn governor(root: &Path) -> Option<String> {
    let cpus = fs::read_dir(root.join("sys/devices/system/cpu")).ok()?;
    let of = |cpu: fs::DirEntry| text(&cpu.path(), "cpufreq/scaling_governor");
    let found: BTreeSet<String> = cpus.flatten().filter_map(of).collect();
    (!found.is_empty()).then(|| found.into_iter().collect::<Vec<_>>().join(", "))
}

/// Documentation/admin-guide/pm/cpufreq.rst: kHz. Of all cores the lowest and the highest, as they were just then.
fn clocks(root: &Path) -> Option<String> {
    let cpus = fs::read_dir(root.join("sys/devices/system/cpu")).ok()?;
    let of = |cpu: fs::DirEntry| text(&cpu.path(), "cpufreq/scaling_cur_freq")?.parse::<u64>().ok();
    let found: Vec<u64> = cpus.flatten().filter_map(of).collect();
    let (lowest, highest) = (found.iter().min()?, found.iter().max()?);
    Some(format!("{} to {} MHz", lowest / 1000, highest / 1000))
}

/// Of the driver and its first GPU; the others are named if they differ.
pub fn of_gpus() -> Vec<(String, String)> {
    let nvml = match nvml::open() {
        Ok(nvml) => nvml,
        Err(reason) => return vec![("gpu.unknown".to_owned(), reason)],
    };
    let mut facts = vec![];
    let mut fact =
        |name: &str, value: Option<String>| facts.extend(value.map(|value| (name.to_owned(), value)));
    let devices: Vec<_> =
        (0..nvml.device_count().unwrap_or(0)).filter_map(|index| nvml.device_by_index(index).ok()).collect();
    let names: Vec<String> = devices.iter().filter_map(|device| device.name().ok()).collect();
    fact("gpu", (!names.is_empty()).then(|| names.join(", ")));
    fact(
        "cuda",
        nvml.sys_cuda_driver_version()
            .ok()
            .map(|version| format!("{}.{}", version / 1000, version % 1000 / 10)),
    );
    if let Some(device) = devices.first() {
        let clocks = |of: &dyn Fn(Clock) -> Option<u32>| {
            let known = [("SM", Clock::SM), ("memory", Clock::Memory)];
            let known =
                known.into_iter().filter_map(|(name, clock)| Some(format!("{name} {} MHz", of(clock)?)));
            let known: Vec<String> = known.collect();
            (!known.is_empty()).then(|| known.join(", "))
        };
        fact("gpu.max-clocks", clocks(&|clock| device.max_clock_info(clock).ok()));
        fact("gpu.clocks-now", clocks(&|clock| device.clock_info(clock).ok()));
        let limit = device.enforced_power_limit().ok();
        fact("gpu.power-limit", limit.map(|milliwatts| format!("{:.0} W", f64::from(milliwatts) / 1000.0)));
    }
    facts
}

/// NVIDIA's container toolkit, where root has installed it.
pub fn toolkit() -> Option<String> {
    let program = engine::trusted("nvidia-ctk")?;
    let output = std::process::Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().next().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty())
}

/// What NVIDIA's container runtime puts into a container that asks for GPUs: how many devices and files, and a hash of their names.
/// Absent where the tool is not installed.
pub fn put_into_containers() -> Option<Result<String, String>> {
    let program = engine::trusted("nvidia-container-cli")?;
    let output = std::process::Command::new(program).arg("list").stdin(Stdio::null()).output();
    let output = match output {
        Ok(output) if output.status.success() => output,
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            return Some(Err(said.lines().last().unwrap_or("it failed without a word").to_owned()));
        }
        Err(error) => return Some(Err(error.to_string())),
    };
    Some(Ok(listed(&String::from_utf8_lossy(&output.stdout))))
}

fn listed(text: &str) -> String {
    let mut lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines.sort_unstable();
    let devices = lines.iter().filter(|line| line.starts_with("/dev/")).count();
    let hash = sha256(lines.join("\n").as_bytes());
    format!("{devices} devices, {} files, sha256 of their names {hash}", lines.len() - devices)
}

/// When a file was changed last, or the newest file of a folder.
pub fn modified(path: &Path) -> Result<String, String> {
    let about = fs::metadata(path).map_err(|error| error.to_string())?;
    let mut newest = about.mtime();
    if about.is_dir() {
        let (mut left, mut files) = (vec![path.to_owned()], 0);
        newest = i64::MIN;
        while let Some(dir) = left.pop() {
            for entry in fs::read_dir(&dir).map_err(|error| error.to_string())? {
                let path = entry.map_err(|error| error.to_string())?.path();
                let about = fs::metadata(&path).map_err(|error| format!("{}: {error}", path.display()))?;
                let link = path.symlink_metadata().is_ok_and(|about| about.is_symlink());
                match about.is_dir() {
                    true if !link => left.push(path),
                    true => {}
                    false => newest = newest.max(about.mtime()),
                }
                files += 1;
                if files > MOST_FILES {
                    return Err(format!("more than {MOST_FILES} files"));
                }
            }
        }
    }
    let seconds = u64::try_from(newest).map_err(|_| "it has no file from after 1970".to_owned())?;
    Ok(parse::utc(seconds))
}

/// Larger files of a model are known by their ends: weights take minutes to read, and that would fill the page cache.
const HASHED: u64 = 16 << 20;
/// Of the start and of the end of a larger file.
const END: u64 = 1 << 20;
/// Of a folder.
const MOST_FILES: usize = 4096;

/// Size and hash of a file or of a folder's files; or why it cannot be read. Of a file above 16 MiB the hash is that of its first and last
/// MiB, and of a folder that of a line for each of its files.
pub fn of_file(path: &Path) -> Result<String, String> {
    let about = fs::metadata(path).map_err(|error| error.to_string())?;
    if about.is_dir() {
        return of_folder(path);
    }
    let (size, hash) = fingerprint(path).map_err(|error| error.to_string())?;
    Ok(match size <= HASHED {
        true => format!("{size} bytes, sha256 {hash}"),
        false => format!("{size} bytes, sha256 of the first and last MiB {hash}"),
    })
}

fn fingerprint(path: &Path) -> io::Result<(u64, String)> {
    // Nothing but a file: a pipe would wait for its other end.
    let mut file = fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let about = file.metadata()?;
    if !about.is_file() {
        return Err(io::Error::other("neither a file nor a folder"));
    }
    let (size, mut bytes) = (about.len(), vec![]);
    if size <= HASHED {
        (&mut file).take(HASHED).read_to_end(&mut bytes)?;
    } else {
        (&mut file).take(END).read_to_end(&mut bytes)?;
        file.seek(io::SeekFrom::Start(size - END))?;
        file.take(END).read_to_end(&mut bytes)?;
    }
    Ok((size, sha256(&bytes)))
}

/// Its files by their names, and links in it by what they lead to: the cache of Hugging Face consists of links.
fn of_folder(folder: &Path) -> Result<String, String> {
    let (mut left, mut files, mut bytes) = (vec![folder.to_owned()], vec![], 0_u64);
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(&dir).map_err(|error| error.to_string())? {
            let path = entry.map_err(|error| error.to_string())?.path();
            let name = path.strip_prefix(folder).unwrap_or(&path).display().to_string();
            // A link to a folder may lead back here.
            let link = path.symlink_metadata().is_ok_and(|about| about.is_symlink());
            match fs::metadata(&path) {
                Ok(about) if about.is_dir() && link => files.push(format!("{name} a link to a folder")),
                Ok(about) if about.is_dir() => left.push(path),
                _ => match fingerprint(&path) {
                    Ok((size, hash)) => {
                        bytes += size;
                        files.push(format!("{name} {size} {hash}"));
                    }
                    Err(error) => return Err(format!("{}: {error}", path.display())),
                },
            }
            if files.len() + left.len() > MOST_FILES {
                return Err(format!("more than {MOST_FILES} files"));
            }
        }
    }
    files.sort();
    let hash = sha256(files.join("\n").as_bytes());
    Ok(format!("{} files, {bytes} bytes, sha256 of their names, sizes and hashes {hash}", files.len()))
}

/// The revision that a folder of the Hugging Face cache is of: `snapshots/COMMIT`.
pub fn revision(path: &str) -> Option<String> {
    let (_, after) = path.split_once("/snapshots/")?;
    let commit = after.split('/').next()?;
    (commit.len() == 40 && commit.chars().all(|c| c.is_ascii_hexdigit())).then(|| commit.to_owned())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn of(name: &str, files: &[(&str, &str)]) -> Option<String> {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        of_machine(root.path()).into_iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    #[test]
    fn facts_are_those_of_the_files() {
        let os = "NAME=\"Ubuntu\"\nPRETTY_NAME=\"Ubuntu 24.04.3 LTS\"\n";
        assert_eq!(of("os", &[("etc/os-release", os)]).as_deref(), Some("Ubuntu 24.04.3 LTS"));
        let governor = |cpu: u32| format!("sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor");
        let (zero, one) = (governor(0), governor(1));
        assert_eq!(
            of("governor", &[(&zero, "performance\n"), (&one, "performance\n")]).as_deref(),
            Some("performance")
        );
        assert_eq!(
            of("governor", &[(&zero, "powersave\n"), (&one, "performance\n")]).as_deref(),
            Some("performance, powersave")
        );
        assert_eq!(
            of("cgroup", &[("sys/fs/cgroup/cgroup.controllers", "cpu memory\n")]).as_deref(),
            Some("v2")
        );
        assert_eq!(of("cgroup", &[("sys/fs/cgroup/memory/tasks", "1\n")]).as_deref(), Some("v1"));
        let thp = "always [madvise] never\n";
        assert_eq!(
            of("huge-pages", &[("sys/kernel/mm/transparent_hugepage/enabled", thp)]).as_deref(),
            Some("madvise")
        );
        let clock = |cpu: u32| format!("sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_cur_freq");
        let (zero, one) = (clock(0), clock(1));
        assert_eq!(
            of("cpu.clocks-now", &[(&zero, "338000\n"), (&one, "3900000\n")]).as_deref(),
            Some("338 to 3900 MHz")
        );
        let cpu = "processor\t: 0\nmodel name\t: AMD EPYC 9B14\n";
        assert_eq!(of("cpu", &[("proc/cpuinfo", cpu)]).as_deref(), Some("AMD EPYC 9B14"));
        for name in ["os", "cpu", "cpu.clocks-now", "governor", "cgroup", "huge-pages"] {
            assert_eq!(of(name, &[]), None, "{name}");
        }
    }

    /// The time is that of `date --utc --date @1700000000`.
    #[test]
    fn a_folder_is_as_old_as_its_newest_file() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("below")).unwrap();
        assert!(modified(dir.path()).unwrap_err().contains("no file"));
        for (name, seconds) in [("old", 1_600_000_000), ("below/new", 1_700_000_000)] {
            let file = fs::File::create(dir.path().join(name)).unwrap();
            file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds)).unwrap();
        }
        assert_eq!(modified(dir.path()).as_deref(), Ok("20231114T221320Z"));
        assert_eq!(modified(&dir.path().join("old")).as_deref(), Ok("20200913T122640Z"));
        assert!(modified(&dir.path().join("none")).is_err());
    }

    #[test]
    fn what_is_put_into_containers_is_known_by_its_names() {
        let one = listed("/dev/nvidiactl\n/dev/nvidia0\n/usr/lib/libcuda.so.1\n");
        assert!(one.starts_with("2 devices, 1 files, sha256 of their names "), "{one}");
        assert_eq!(listed("/usr/lib/libcuda.so.1\n/dev/nvidia0\n\n/dev/nvidiactl"), one);
        assert_ne!(listed("/usr/lib/libcuda.so.2\n/dev/nvidia0\n/dev/nvidiactl"), one);
    }

    /// The hash is that of the standard's example (FIPS 180-4): `abc`.
    #[test]
    fn small_files_have_a_hash_and_folders_of_a_cache_a_revision() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.json");
        fs::write(&file, "abc").unwrap();
        let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(of_file(&file), Ok(format!("3 bytes, sha256 {hash}")));
        // The folder's hash is that of its list, by sha256sum: printf 'config.json 3 HASH' | sha256sum.
        let list = sha256(format!("config.json 3 {hash}").as_bytes());
        let wanted = format!("1 files, 3 bytes, sha256 of their names, sizes and hashes {list}");
        assert_eq!(of_file(dir.path()), Ok(wanted));
        assert!(of_file(&dir.path().join("none")).unwrap_err().contains("No such file"));
        // What is between the first and the last MiB is not read; what is in them is.
        let weights = dir.path().join("weights");
        let mut large = fs::File::create(&weights).unwrap();
        large.set_len(HASHED + 2).unwrap();
        let before = of_file(&weights).unwrap();
        assert!(before.starts_with("16777218 bytes, sha256 of the first and last MiB "), "{before}");
        large.seek(io::SeekFrom::Start(HASHED / 2)).unwrap();
        large.write_all(b"x").unwrap();
        assert_eq!(of_file(&weights).unwrap(), before);
        large.seek(io::SeekFrom::Start(HASHED + 1)).unwrap();
        large.write_all(b"x").unwrap();
        assert_ne!(of_file(&weights).unwrap(), before);
        let commit = "0123456789abcdef0123456789abcdef01234567";
        assert_eq!(revision(&format!("/m/snapshots/{commit}/config.json")).as_deref(), Some(commit));
        assert_eq!(revision("/m/snapshots/main/config.json"), None);
    }
}
