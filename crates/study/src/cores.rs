//! The machine's cores by type, as the kernel describes them: never by a table of machines.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

const CPUS: &str = "sys/devices/system/cpu";
/// Where a kernel says how fast a core is against the others, the first that says it of all cores counts:
/// drivers/base/arch_topology.c cpu_capacity_show, drivers/acpi/cppc_acpi.c show_highest_perf, drivers/cpufreq/cpufreq.c.
const SPEEDS: &[&str] = &["cpu_capacity", "acpi_cppc/highest_perf", "cpufreq/cpuinfo_max_freq"];
/// arch/arm64/kernel/cpuinfo.c: the register by which a core names its design.
const MIDR: &str = "regs/identification/midr_el1";
/// Implementer and part of a MIDR; variant and revision are left out.
const DESIGN: u64 = 0xff00_fff0;
/// arch/x86/events/core.c: the counters of each core type of an Intel hybrid are a device, with its CPUs.
const HYBRID: &[(&str, &str)] = &[("P-core", "cpu_core"), ("E-core", "cpu_atom")];
/// Designs that have a name here, of those by ARM (0x41); util-linux sys-utils/lscpu-arm.c.
const NAMES: &[(u64, &str)] = &[
    (0x4100_d850, "Cortex-X925"),
    (0x4100_d870, "Cortex-A725"),
    (0x4100_d4f0, "Neoverse-V2"),
    (0x4100_d840, "Neoverse-V3"),
];

/// Cores of one type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoreType {
    pub name: String,
    /// In ascending order.
    pub cpus: Vec<u32>,
    /// Of its fastest core, in a unit that only this machine's types share.
    pub speed: Option<u64>,
}

impl CoreType {
    /// As `--cpuset-cpus` takes it: `5-9,15-19`.
    pub fn list(&self) -> String {
        ranges(&self.cpus)
    }
}

/// The types of cores, the fastest first; one where all are alike. Or why that is unknown.
pub fn read(root: &Path) -> Result<Vec<CoreType>, String> {
    let folder = root.join(CPUS);
    let online = fs::read_to_string(folder.join("online"))
        .map_err(|error| format!("{}: {error}", folder.join("online").display()))?;
    let cpus = parse(&online).ok_or_else(|| format!("{} lists no CPUs", folder.join("online").display()))?;
    let number = |cpu: u32, file: &str| {
        let text = fs::read_to_string(folder.join(format!("cpu{cpu}/{file}"))).ok()?;
        let text = text.trim();
        text.strip_prefix("0x").map_or_else(|| text.parse().ok(), |hex| u64::from_str_radix(hex, 16).ok())
    };
    let of_all = |file: &str| {
        let values = cpus.iter().map(|&cpu| Some((cpu, number(cpu, file)?)));
        values.collect::<Option<BTreeMap<u32, u64>>>()
    };
    let speeds = SPEEDS.iter().find_map(|file| of_all(file));
    let by_design = of_all(MIDR).map(|midr| grouped(&cpus, |cpu| midr[&cpu] & DESIGN));
    let groups = match (by_design, hybrid(root)) {
        (Some(designs), _) => designs.into_iter().map(|(design, cpus)| (design_name(design), cpus)).collect(),
        (None, Some(hybrid)) => hybrid,
        // Capacities are relative: equal ones are one type. Frequencies alone also differ among cores of one type.
        (None, None) => match of_all(SPEEDS[0]) {
            Some(capacity) => {
                let groups = grouped(&cpus, |cpu| capacity[&cpu]);
                groups.into_iter().map(|(capacity, cpus)| (format!("capacity {capacity}"), cpus)).collect()
            }
            None => vec![("all cores".to_owned(), cpus.clone())],
        },
    };
    let mut types: Vec<CoreType> = groups
        .into_iter()
        .map(|(name, cpus)| {
            let speed =
                speeds.as_ref().and_then(|speeds| cpus.iter().filter_map(|cpu| speeds.get(cpu)).max());
            CoreType { name, speed: speed.copied(), cpus }
        })
        .collect();
    let hybrid_order = |kind: &CoreType| HYBRID.iter().position(|(name, _)| *name == kind.name);
    if types.len() > 1 && types.iter().any(|kind| kind.speed.is_none() && hybrid_order(kind).is_none()) {
        let names: Vec<_> = types.iter().map(|kind| format!("{} ({})", kind.name, kind.list())).collect();
        return Err(format!("the kernel does not say which of these cores are faster: {}", names.join(", ")));
    }
    types.sort_by_key(|kind| (hybrid_order(kind), std::cmp::Reverse(kind.speed)));
    let tied = types.windows(2).any(|two| two[0].speed == two[1].speed && hybrid_order(&two[0]).is_none());
    if tied {
        return Err("two types of cores are equally fast".to_owned());
    }
    Ok(types)
}

fn grouped(cpus: &[u32], key: impl Fn(u32) -> u64) -> BTreeMap<u64, Vec<u32>> {
    let mut groups: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
    for &cpu in cpus {
        groups.entry(key(cpu)).or_default().push(cpu);
    }
    groups
}

fn hybrid(root: &Path) -> Option<Vec<(String, Vec<u32>)>> {
    let of = |(name, device): &(&str, &str)| {
        let text = fs::read_to_string(root.join(format!("sys/devices/{device}/cpus"))).ok()?;
        Some(((*name).to_owned(), parse(&text)?))
    };
    HYBRID.iter().map(of).collect()
}

fn design_name(design: u64) -> String {
    let known = NAMES.iter().find(|(part, _)| *part == design).map(|(_, name)| (*name).to_owned());
    known.unwrap_or_else(|| format!("MIDR {design:#010x}"))
}

/// A list of CPUs as the kernel and Docker write it (lib/bitmap-str.c bitmap_parselist). None where it is no list.
pub fn parse(text: &str) -> Option<Vec<u32>> {
    /// More than any kernel has (NR_CPUS): a list is somebody's text.
    const MOST: u32 = 1 << 16;
    let mut cpus = vec![];
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last >= MOST {
            return None;
        }
        cpus.extend(first..=last);
    }
    cpus.sort_unstable();
    cpus.dedup();
    Some(cpus)
}

fn ranges(cpus: &[u32]) -> String {
    let mut parts: Vec<(u32, u32)> = vec![];
    for &cpu in cpus {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == cpu => *last = cpu,
            _ => parts.push((cpu, cpu)),
        }
    }
    let part = |(first, last): (u32, u32)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    parts.into_iter().map(part).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// What a kernel shows of a GB10: ten cores of each design, the faster ones in the middle and at the end.
    pub(crate) fn spark(root: &Path) {
        let write = |path: String, text: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write(format!("{CPUS}/online"), "0-19\n");
        for cpu in 0..20_u32 {
            let fast = (5..10).contains(&cpu) || cpu >= 15;
            // One core of the faster design clocks higher than its neighbours.
            let capacity = if cpu == 19 {
                1024
            } else if fast {
                1001
            } else {
                718
            };
            write(format!("{CPUS}/cpu{cpu}/cpu_capacity"), &format!("{capacity}\n"));
            let midr = if fast { "0x00000000410fd851" } else { "0x00000000410fd870" };
            write(format!("{CPUS}/cpu{cpu}/{MIDR}"), &format!("{midr}\n"));
        }
    }

    fn tree(online: &str, files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let all = [("sys/devices/system/cpu/online", online)];
        for (path, text) in all.iter().chain(files) {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    #[test]
    fn the_faster_cores_of_a_spark_are_found_by_their_design() {
        let dir = tempfile::tempdir().unwrap();
        spark(dir.path());
        let types = read(dir.path()).unwrap();
        let found: Vec<_> = types.iter().map(|kind| (kind.name.as_str(), kind.list())).collect();
        assert_eq!(found, [("Cortex-X925", "5-9,15-19".to_owned()), ("Cortex-A725", "0-4,10-14".to_owned())]);
    }

    #[test]
    fn without_registers_the_capacity_decides_and_without_both_all_are_alike() {
        let capacity = |cpu: u32| format!("sys/devices/system/cpu/cpu{cpu}/cpu_capacity");
        let names = [capacity(0), capacity(1)];
        let dir = tree("0-1", &[(&names[0], "512"), (&names[1], "1024")]);
        assert_eq!(read(dir.path()).unwrap()[0].cpus, [1]);
        let dir = tree("0-3", &[]);
        let types = read(dir.path()).unwrap();
        assert_eq!((types.len(), types[0].list()), (1, "0-3".to_owned()));
        let dir = tree("0-3", &[("sys/devices/cpu_core/cpus", "0-1"), ("sys/devices/cpu_atom/cpus", "2-3")]);
        assert_eq!(read(dir.path()).unwrap()[0].cpus, [0, 1]);
    }

    #[test]
    fn what_the_kernel_does_not_say_is_unknown() {
        let midr = |cpu: u32| format!("sys/devices/system/cpu/cpu{cpu}/{MIDR}");
        let names = [midr(0), midr(1)];
        let dir = tree("0-1", &[(&names[0], "0x410fd850"), (&names[1], "0x410fd870")]);
        assert!(read(dir.path()).unwrap_err().contains("does not say which"));
        assert!(read(Path::new("/nowhere")).is_err());
    }

    #[test]
    fn lists_are_those_of_the_kernel() {
        assert_eq!(parse("0-2,5\n"), Some(vec![0, 1, 2, 5]));
        for wrong in ["", "a", "3-1", "1-", "0-4294967295"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
        assert_eq!(ranges(&[0, 2, 3, 4, 9]), "0,2-4,9");
    }
}
