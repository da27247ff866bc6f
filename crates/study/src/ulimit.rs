//! Limits of processes as Docker writes them: `memlock=-1`, `stack=67108864`, `nofile=1024:4096`.

use std::fmt;
use std::io;

/// Docker's names of resources (go-units, ulimit.go) and the kernel's numbers.
#[allow(clippy::unnecessary_cast, reason = "musl has signed numbers")]
const RESOURCES: &[(&str, u32)] = &[
    ("core", libc::RLIMIT_CORE as u32),
    ("cpu", libc::RLIMIT_CPU as u32),
    ("data", libc::RLIMIT_DATA as u32),
    ("fsize", libc::RLIMIT_FSIZE as u32),
    ("locks", libc::RLIMIT_LOCKS as u32),
    ("memlock", libc::RLIMIT_MEMLOCK as u32),
    ("msgqueue", libc::RLIMIT_MSGQUEUE as u32),
    ("nice", libc::RLIMIT_NICE as u32),
    ("nofile", libc::RLIMIT_NOFILE as u32),
    ("nproc", libc::RLIMIT_NPROC as u32),
    ("rss", libc::RLIMIT_RSS as u32),
    ("rtprio", libc::RLIMIT_RTPRIO as u32),
    ("rttime", libc::RLIMIT_RTTIME as u32),
    ("sigpending", libc::RLIMIT_SIGPENDING as u32),
    ("stack", libc::RLIMIT_STACK as u32),
];

/// In the resource's own unit; `RLIM_INFINITY` is without a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    pub soft: u64,
    pub hard: u64,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text =
            |value: u64| if value == libc::RLIM_INFINITY { "-1".to_owned() } else { value.to_string() };
        f.write_str(&text(self.soft))?;
        if self.hard == self.soft { Ok(()) } else { write!(f, ":{}", text(self.hard)) }
    }
}

pub fn resource(name: &str) -> Option<u32> {
    RESOURCES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}

/// A resource's name and limit.
pub fn parse(text: &str) -> Result<(&'static str, Limit), String> {
    let form = || format!("`{text}` is no limit; write for example memlock=-1");
    let (name, values) = text.split_once('=').ok_or_else(form)?;
    let known = RESOURCES.iter().find(|(known, _)| *known == name).map(|(known, _)| *known);
    let known = known.ok_or_else(|| {
        let names: Vec<_> = RESOURCES.iter().map(|(name, _)| *name).collect();
        format!("`{name}` is no limited resource; known are {}", names.join(", "))
    })?;
    let value = |text: &str| match text {
        "-1" => Ok(libc::RLIM_INFINITY),
        number => number.parse().map_err(|_| form()),
    };
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let limit = Limit { soft: value(soft)?, hard: value(hard)? };
    if limit.soft > limit.hard {
        return Err(format!("`{text}`: the soft limit is above the hard one"));
    }
    Ok((known, limit))
}

/// Limits as [`set`] takes them.
pub fn of(texts: &[String]) -> Result<Vec<(u32, Limit)>, String> {
    let one = |text: &String| {
        let (name, limit) = parse(text)?;
        let number = resource(name).ok_or_else(|| format!("`{name}` is no limited resource"))?;
        Ok((number, limit))
    };
    texts.iter().map(one).collect()
}

/// Of this process.
pub fn current(resource: u32) -> Option<Limit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the place is ours. An unknown resource is refused.
    let done = unsafe { libc::getrlimit(resource as _, &raw mut limit) } == 0;
    done.then_some(Limit { soft: limit.rlim_cur, hard: limit.rlim_max })
}

/// Sets a limit of this process and its children to come. Makes one system call and allocates nothing.
pub fn set(resource: u32, limit: Limit) -> io::Result<()> {
    let limit = libc::rlimit { rlim_cur: limit.soft, rlim_max: limit.hard };
    // SAFETY: the value is on this stack and only read.
    match unsafe { libc::setrlimit(resource as _, &raw const limit) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_written_as_docker_takes_them() {
        let infinity = libc::RLIM_INFINITY;
        assert_eq!(parse("memlock=-1"), Ok(("memlock", Limit { soft: infinity, hard: infinity })));
        assert_eq!(parse("nofile=10:20"), Ok(("nofile", Limit { soft: 10, hard: 20 })));
        for text in ["memlock=-1", "nofile=10:20", "stack=67108864:-1"] {
            let (name, limit) = parse(text).unwrap();
            assert_eq!(format!("{name}={limit}"), text);
        }
        for wrong in ["memlock", "memlock=x", "memory=1", "nofile=20:10", "=1"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_kernel_reports_the_limits_of_this_process() {
        let text = std::fs::read_to_string("/proc/self/limits").unwrap();
        let line = text.lines().find(|line| line.starts_with("Max open files")).unwrap();
        let soft = line.trim_start_matches("Max open files").split_whitespace().next().unwrap();
        let found = current(resource("nofile").unwrap()).unwrap();
        assert_eq!(soft, found.soft.to_string());
    }
}
