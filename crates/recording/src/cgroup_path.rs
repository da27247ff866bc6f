//! Paths of cgroups below the mount point, and the names that `record` gives to its own.

/// The rest of a path that is `root` or lies below it: empty, or with a slash in front.
pub fn below<'a>(path: &'a str, root: &str) -> Option<&'a str> {
    let rest = path.strip_prefix(root.trim_end_matches('/'))?;
    (rest.is_empty() || rest.starts_with('/')).then_some(rest)
}

pub fn is_at_or_below(path: &str, root: &str) -> bool {
    below(path, root).is_some()
}

const LEAF_PREFIX: &str = "spark-trace-";

/// The name of the cgroup that a spark-trace makes for a command. Pid and start time name the spark-trace for good.
pub fn leaf_name(pid: u32, start: u64) -> String {
    format!("{LEAF_PREFIX}{pid}-{start}")
}

/// Pid and start time of the spark-trace that made the cgroup of this name.
pub fn leaf_owner(name: &str) -> Option<(u32, u64)> {
    let (pid, start) = name.strip_prefix(LEAF_PREFIX)?.split_once('-')?;
    Some((pid.parse().ok()?, start.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ancestry_is_by_whole_components() {
        assert!(is_at_or_below("/a/b", "/a"));
        assert!(is_at_or_below("/a", "/a"));
        assert!(!is_at_or_below("/ab", "/a"));
        assert!(is_at_or_below("/a", "/"));
        assert_eq!((below("/a/b", "/a"), below("/a", "/a")), (Some("/b"), Some("")));
    }

    #[test]
    fn a_leaf_names_its_owner() {
        assert_eq!(leaf_owner(&leaf_name(5220, 2_781_822)), Some((5220, 2_781_822)));
    }
}
