//! What a recording lost, and whose part of it that touches.
//!
//! A run that the kernel skipped is one event of one hook: among many it changes nothing that matters. An entry
//! that a map or buffer of ours could not take is another matter: its bytes are unknown.

use spark_trace_recording::{Health, Hook, Loss, SKIPPED};

/// A hook that missed less than this part of its events says as much as one that missed none: differences below it are
/// not reported either.
const MATTERS_PERCENT: u64 = 2;

/// Losses that touch what some hooks are for, and nothing else. Those that are not here touch everything.
const TOUCHED: &[(&str, &[&str])] = &[
    ("page_aggregates", &["page-alloc"]),
    ("live_pages", &["page-alloc"]),
    ("files", &["file-add", "file-remove"]),
    ("mapping_totals", &["mapping"]),
    ("queries", &["mapping", "library-call"]),
    ("calls", &["library-call"]),
    ("cuda_objects", &["library-call"]),
    ("charges", &["charge", "charge-node"]),
    ("charge_levels", &["charge-try", "charge-force", "uncharge"]),
    ("charge_stacks", &["charge-try", "charge-force"]),
    ("driver_allocs", &["nvidia-alloc", "nvidia-pages", "nvidia-pin", "managed-alloc"]),
    ("python_stacks", &[]),
    ("stack_copies", &[]),
    ("log_lines", &[]),
    ("contexts", &[]),
    ("walks", &[]),
    ("file_rows", &["file-add", "file-remove"]),
    ("target_cgroups", &[]),
    ("readings", &[]),
    ("tmpfs", &[]),
    ("mapped_files", &[]),
    ("mappings", &["mapping"]),
    ("processes", &["mapping"]),
    ("regions", &[]),
    ("cuda_events", &["library-call"]),
    ("cgroups", &[]),
];

/// What a hook missed of its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SkippedRuns<'a> {
    pub hook: &'a str,
    pub count: u64,
    /// Of so many, at least.
    pub of: u64,
}

impl<'a> SkippedRuns<'a> {
    /// `None` where it missed nothing.
    pub fn of(hook: &'a Hook) -> Option<Self> {
        let count = hook.lost.filter(|count| *count > 0)?;
        // What it ran for is estimated; what it took is counted.
        let ran = hook.runs.unwrap_or(0).max(hook.hits.unwrap_or(0));
        Some(Self { hook: &hook.name, count, of: ran.saturating_add(count) })
    }

    /// Whether it is enough to change what the hook says.
    pub const fn matters(self) -> bool {
        self.count.saturating_mul(100) >= self.of.saturating_mul(MATTERS_PERCENT)
    }
}

impl std::fmt::Display for SkippedRuns<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "hook {} missed {} of {} events", self.hook, self.count, self.of)
    }
}

/// Copies of stacks that were not made: their allocations are counted, and their callers end where frame pointers do.
const STACK_COPIES: &str = "stack_copies";

/// Stacks that were not unwound.
pub fn not_unwound(health: &Health) -> u64 {
    health.losses.iter().filter(|loss| loss.what == STACK_COPIES).map(|loss| loss.count).sum()
}

/// Entries that buffers and maps could not take.
pub fn entries(health: &Health) -> u64 {
    health.losses.iter().filter(|loss| loss.what != SKIPPED).map(|loss| loss.count).sum()
}

/// What most of those were for.
pub fn most(health: &Health) -> Option<&Loss> {
    let lost = health.losses.iter().filter(|loss| loss.what != SKIPPED && loss.count > 0);
    lost.max_by_key(|loss| loss.count)
}

/// Events and entries that something is missing for.
pub fn lost(health: &Health) -> u64 {
    health.lost_total.saturating_sub(not_unwound(health))
}

/// Whether more was lost than what hooks missed of so many events that it changes nothing.
pub fn matter(health: &Health) -> bool {
    let few = health.hooks.iter().filter_map(SkippedRuns::of).filter(|missed| !missed.matters());
    lost(health) > few.map(|missed| missed.count).sum::<u64>()
}

/// The first of them that touches what `hook` is for.
pub fn touching<'a>(health: &'a Health, hook: &str) -> Option<&'a Loss> {
    health.losses.iter().filter(|loss| loss.what != SKIPPED && loss.count > 0).find(|loss| {
        let touched = TOUCHED.iter().find(|(what, _)| *what == loss.what);
        touched.is_none_or(|(_, hooks)| hooks.contains(&hook))
    })
}

#[cfg(test)]
mod tests {
    use spark_trace_common::hook::HOOKS;

    use super::*;

    fn hook(hits: u64, runs: Option<u64>, lost: u64) -> Hook {
        Hook { name: "mapping".into(), hits: Some(hits), runs, lost: Some(lost), ..Hook::default() }
    }

    #[test]
    fn a_few_of_many_do_not_matter() {
        assert_eq!(SkippedRuns::of(&hook(5, None, 0)), None);
        let many = hook(30, Some(981), 19);
        let few = SkippedRuns::of(&many).unwrap();
        assert_eq!(
            (few.matters(), few.to_string().as_str()),
            (false, "hook mapping missed 19 of 1000 events")
        );
        assert!(SkippedRuns::of(&hook(30, Some(980), 20)).unwrap().matters());
        // Without an estimate, of what it took at least.
        assert!(SkippedRuns::of(&hook(30, None, 19)).unwrap().matters());
        assert!(SkippedRuns::of(&hook(0, None, 1)).unwrap().matters());
    }

    #[test]
    fn a_few_of_many_are_no_reason_to_warn() {
        let few = hook(30, Some(981), 19);
        let mut health = Health { lost_total: 19, hooks: vec![few], ..Health::default() };
        assert!(!matter(&health) && !matter(&Health::default()));
        health.lost_total += 7;
        health.losses.push(Loss { what: STACK_COPIES.into(), count: 7 });
        assert!(!matter(&health), "a caller is missing, no bytes");
        assert_eq!((lost(&health), not_unwound(&health)), (19, 7));
        health.lost_total += 1;
        assert!(matter(&health), "an entry");
        health.lost_total += 19;
        health.hooks.push(hook(30, Some(980), 20));
        assert!(matter(&health), "enough of one hook's");
    }

    #[test]
    fn a_loss_touches_the_hooks_it_is_of() {
        let health = |what: &str| Health {
            losses: vec![Loss { what: SKIPPED.into(), count: 9 }, Loss { what: what.into(), count: 2 }],
            ..Health::default()
        };
        let files = health("files");
        assert_eq!(touching(&files, "file-add").map(|loss| loss.count), Some(2));
        assert_eq!((touching(&files, "page-alloc"), entries(&files)), (None, 2));
        // What is not known to touch less touches everything.
        for what in ["events", "what a later version may lose"] {
            let lost = health(what);
            assert!(HOOKS.iter().all(|row| touching(&lost, row.name).is_some()));
        }
        assert_eq!(touching(&health("log_lines"), "mapping"), None);
    }

    #[test]
    fn the_hooks_named_here_are_hooks() {
        for name in TOUCHED.iter().flat_map(|(_, hooks)| *hooks) {
            assert!(HOOKS.iter().any(|row| row.name == *name), "{name}");
        }
    }
}
