//! Cgroups that come and go: of those that are gone not every one stays in the list of the target's, which is written anew
//! whenever it changes.

use std::collections::BTreeMap;
use std::io::Write;

use super::{Selected, Tracer, TracerError};

/// Cgroups of a target that are known at a time: a recording has names and series of as many.
const MOST_OF_TARGET: usize = 10_000;
/// Of these, so many that are gone, with the numbers of their removal.
const MOST_GONE: usize = 8_000;

/// Time between two writings of the list, at least, and for each cgroup in it: the journal has a limit.
const PUBLISH_EVERY_NS: u64 = 2_000_000_000;
const PUBLISH_EVERY_NS_EACH: u64 = 2_000_000;

/// How long a list of so many cgroups stands before it is written again.
pub(super) fn publish_every_ns(cgroups: usize) -> u64 {
    PUBLISH_EVERY_NS.max(PUBLISH_EVERY_NS_EACH.saturating_mul(cgroups as u64))
}

impl<W: Write> Tracer<W> {
    /// Whether there is room for another cgroup of the target; makes some where many have gone.
    pub(super) fn has_room_for_cgroup(&mut self) -> Result<bool, TracerError> {
        for id in oldest_gone(&mut self.cgroups, MOST_GONE) {
            self.charges.forget(id);
            self.losses.cgroups += 1;
        }
        Ok(self.cgroups.len() < MOST_OF_TARGET)
    }
}

/// Takes out the half of the cgroups below the roots that went first, if more than `most` are gone.
fn oldest_gone(cgroups: &mut BTreeMap<u64, Selected>, most: usize) -> Vec<u64> {
    // Roots are what the plane is made of.
    let gone = cgroups.iter().filter(|(_, selected)| selected.gone && !selected.info.root);
    let mut gone: Vec<(Option<u64>, u64)> = gone.map(|(id, s)| (s.info.removed_ns, *id)).collect();
    if gone.len() <= most {
        return Vec::new();
    }
    gone.sort_unstable();
    gone.truncate(gone.len() - most / 2);
    let ids: Vec<u64> = gone.into_iter().map(|(_, id)| id).collect();
    for id in &ids {
        cgroups.remove(id);
    }
    ids
}

#[cfg(test)]
mod tests {
    use super::super::CgroupReader;
    use super::*;
    use spark_trace_recording::TargetCgroup;

    fn cgroup(id: u64, root: bool, removed_ns: Option<u64>) -> Selected {
        let info = TargetCgroup { id, root, removed_ns, ..TargetCgroup::default() };
        let reader = CgroupReader::open(id, std::path::Path::new("/nowhere"), true);
        Selected { info, reader, waiting: Vec::new(), gone: removed_ns.is_some() }
    }

    #[test]
    fn those_that_went_first_make_room_but_for_roots() {
        let all = |gone: u64| -> BTreeMap<u64, Selected> {
            let gone = (1..=gone).map(|id| (id, cgroup(id, id == 1, Some(1000 - id))));
            gone.chain([(100, cgroup(100, true, None)), (101, cgroup(101, false, None))]).collect()
        };
        assert_eq!(oldest_gone(&mut all(5), 4), Vec::<u64>::new(), "four below roots");
        let mut cgroups = all(6);
        assert_eq!(oldest_gone(&mut cgroups, 4), [6, 5, 4]);
        assert_eq!(cgroups.into_keys().collect::<Vec<_>>(), [1, 2, 3, 100, 101]);
    }

    #[test]
    fn a_long_list_is_not_written_often() {
        assert_eq!([1, 1000, 10_000].map(|count| publish_every_ns(count) / 1_000_000_000), [2, 2, 20]);
    }
}
