//! Upgrades of older recordings, one explicit step per schema version.

use serde_json::Value;

use super::schema::SCHEMA_VERSION;

/// Turns a recording of one version into the next one's form.
pub type Step = fn(&mut Value);

/// Step i turns version i + 1 into version i + 2.
const STEPS: &[Step] = &[renamed];

/// Version 2 renamed `asked` of a memory query to `interface`. The field reads both names (serde's alias), so nothing is to be
/// done here, and such a recording is read without this detour, see [`OLDEST_READ_AS_IT_IS`].
const fn renamed(_: &mut Value) {}

/// The oldest version whose recordings have today's form but for names that the fields read, too.
pub const OLDEST_READ_AS_IT_IS: u32 = 1;

const _: () = assert!(STEPS.len() + 1 == SCHEMA_VERSION as usize, "every older version needs its step");

/// Brings `recording` from version `from` (at least 1) to this build's.
pub fn upgrade(recording: &mut Value, from: u32) {
    apply(STEPS, recording, from);
}

fn apply(steps: &[Step], recording: &mut Value, from: u32) {
    for (version, step) in (1u32..).zip(steps) {
        if version >= from {
            step(recording);
            recording["schema_version"] = (version + 1).into();
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const TWO: &[Step] = &[|r| r["one"] = true.into(), |r| r["two"] = true.into()];

    #[test]
    fn every_step_from_the_version_on_is_taken() {
        let mut recording = json!({"schema_version": 1});
        apply(TWO, &mut recording, 1);
        assert_eq!(recording, json!({"schema_version": 3, "one": true, "two": true}));
    }

    #[test]
    fn earlier_steps_are_left_out() {
        let mut recording = json!({"schema_version": 2});
        apply(TWO, &mut recording, 2);
        assert_eq!(recording, json!({"schema_version": 3, "two": true}));
    }
}
