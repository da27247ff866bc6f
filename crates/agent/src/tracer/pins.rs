//! Pages that a process had pinned and that the driver has not let go yet. A process's exit is seen when it begins; its
//! descriptors are closed later, and only then does the driver unpin, which takes half a second for some gigabytes.
//!
//! How much still is pinned is known by the kernel's own counters of pins (mm/gup.c nr_foll_pin_acquired and
//! nr_foll_pin_released): what they leave beyond the pins of everybody else, taken as they were at the last reading
//! before. Where the counters did not rise when the target pinned, they do not see its pins, and all counts as let go at
//! once.

use std::collections::BTreeMap;

/// What lies on pages that a pin keeps. Pages of the driver itself are followed one by one.
const PINNED: [&str; 2] = ["anon", "shmem"];

/// A driver that lets go of nothing for so long keeps it for another reason.
const LONGEST_STILL_NS: u64 = 5_000_000_000;

#[derive(Debug, Default)]
pub(super) struct Pins {
    /// Bytes pinned on the machine at the first reading, and at the last one.
    first: Option<u64>,
    last: Option<u64>,
    /// What the target's processes had pinned at the last reading, with what was not let go yet.
    ours: u64,
    /// Bytes of processes that have ended, by what they lie in.
    leaving: BTreeMap<String, u64>,
    /// Bytes that others have pinned.
    others: u64,
    /// When it became less last.
    fell_ns: u64,
}

impl Pins {
    /// A process has begun to end that had so much pinned.
    pub(super) fn ended(&mut self, pinned: &BTreeMap<String, u64>, at_ns: u64) {
        let (Some(first), Some(last)) = (self.first, self.last) else { return };
        let bytes = sum(pinned);
        // An eighth for what others have let go since.
        let seen = last.saturating_sub(first) >= self.ours - self.ours / 8;
        if bytes == 0 || !seen {
            return;
        }
        if self.leaving.is_empty() {
            self.others = last.saturating_sub(self.ours);
        }
        for kind in PINNED {
            *self.leaving.entry(kind.to_owned()).or_default() += pinned.get(kind).copied().unwrap_or(0);
        }
        self.fell_ns = at_ns;
    }

    /// A reading of the counters, with what the target's living processes have pinned.
    pub(super) fn read(&mut self, all: Option<u64>, living: &BTreeMap<String, u64>, now_ns: u64) {
        let living = sum(living);
        self.first = self.first.or(all);
        if let Some(all) = all {
            let still = all.saturating_sub(self.others).saturating_sub(living);
            self.fall_to(still, now_ns);
        } else {
            self.leaving.clear();
        }
        self.last = all;
        self.ours = living + sum(&self.leaving);
    }

    /// What has not been let go yet, by what it lies in.
    pub(super) fn leaving(&self) -> impl Iterator<Item = (&str, u64)> {
        self.leaving.iter().map(|(kind, bytes)| (kind.as_str(), *bytes))
    }

    fn fall_to(&mut self, still: u64, now_ns: u64) {
        let before = sum(&self.leaving);
        if before == 0 {
            return;
        }
        if still < before {
            self.fell_ns = now_ns;
            // The order in which the driver lets go is unknown: all kinds fall alike.
            for bytes in self.leaving.values_mut() {
                *bytes = (u128::from(*bytes) * u128::from(still) / u128::from(before)) as u64;
            }
        } else if now_ns.saturating_sub(self.fell_ns) > LONGEST_STILL_NS {
            self.leaving.clear();
        }
        self.leaving.retain(|_, bytes| *bytes > 0);
    }
}

fn sum(pinned: &BTreeMap<String, u64>) -> u64 {
    PINNED.iter().filter_map(|kind| pinned.get(*kind)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const MS: u64 = 1_000_000;

    fn pinned(anon: u64, shmem: u64) -> BTreeMap<String, u64> {
        [("anon".to_owned(), anon * MIB), ("shmem".to_owned(), shmem * MIB), ("driver".to_owned(), 7 * MIB)]
            .into()
    }

    fn leaving(pins: &Pins) -> Vec<(&str, u64)> {
        pins.leaving().map(|(kind, bytes)| (kind, bytes / MIB)).collect()
    }

    /// Pins of others stand at 100 MiB; the target pins 512 and 2048 and ends.
    fn ended() -> Pins {
        let mut pins = Pins::default();
        pins.read(Some(100 * MIB), &pinned(0, 0), 0);
        pins.read(Some(2660 * MIB), &pinned(512, 2048), 100 * MS);
        pins.ended(&pinned(512, 2048), 150 * MS);
        pins
    }

    #[test]
    fn pinned_bytes_stay_until_the_driver_has_let_go() {
        let mut pins = ended();
        assert_eq!(leaving(&pins), [("anon", 512), ("shmem", 2048)]);
        pins.read(Some(2660 * MIB), &pinned(0, 0), 200 * MS);
        assert_eq!(leaving(&pins), [("anon", 512), ("shmem", 2048)]);
        pins.read(Some(1380 * MIB), &pinned(0, 0), 300 * MS);
        assert_eq!(leaving(&pins), [("anon", 256), ("shmem", 1024)]);
        pins.read(Some(100 * MIB), &pinned(0, 0), 400 * MS);
        assert_eq!(leaving(&pins), []);
    }

    #[test]
    fn what_another_process_of_the_target_pins_meanwhile_is_its_own() {
        let mut pins = ended();
        pins.read(Some((2660 + 300) * MIB), &pinned(300, 0), 200 * MS);
        assert_eq!(leaving(&pins), [("anon", 512), ("shmem", 2048)]);
        pins.read(Some((100 + 300) * MIB), &pinned(300, 0), 300 * MS);
        assert_eq!(leaving(&pins), []);
    }

    #[test]
    fn pins_that_the_kernel_does_not_count_are_gone_at_once() {
        let mut pins = Pins::default();
        pins.read(Some(4000 * MIB), &pinned(0, 0), 0);
        pins.read(Some(4000 * MIB), &pinned(512, 2048), 100 * MS);
        pins.ended(&pinned(512, 2048), 150 * MS);
        assert_eq!(leaving(&pins), []);
        let mut unknown = Pins::default();
        unknown.read(None, &pinned(512, 0), 0);
        unknown.ended(&pinned(512, 0), MS);
        assert_eq!(leaving(&unknown), []);
    }

    #[test]
    fn it_does_not_wait_for_ever() {
        let mut pins = ended();
        pins.read(Some(2660 * MIB), &pinned(0, 0), 4_000 * MS);
        assert_eq!(leaving(&pins), [("anon", 512), ("shmem", 2048)]);
        pins.read(Some(2660 * MIB), &pinned(0, 0), 6_000 * MS);
        assert_eq!(leaving(&pins), []);
    }
}
