//! Whether runs end before their timeout.

use super::Findings;
use crate::estimate::ModelTime;

/// A run that takes longer than estimated by this must still end: an estimate is no bound.
const RESERVE: f64 = 1.5;

pub fn look(times: &[ModelTime], findings: &mut Findings) {
    for time in times {
        let Some(run) = time.run_s else {
            findings.warning(
                &time.model,
                format!("how long a run takes is unknown: {}", time.basis),
                "write `[estimate]`, or make a few runs first: `study check DIR` uses their times",
            );
            continue;
        };
        let said =
            format!("a run takes about {}, its timeout is {}", duration(run), duration(time.timeout_s));
        // Whole hours: a plan is easier to read so.
        let wanted = (run * RESERVE / 3600.0).ceil();
        let next = format!("write `timeout = \"{wanted:.0}h\"` for the model");
        if run >= time.timeout_s {
            findings.fatal(&time.model, said, next);
        } else if run * RESERVE > time.timeout_s {
            findings.warning(&time.model, format!("{said}: {RESERVE} times the estimate is more"), next);
        } else {
            findings.fine(&time.model, said);
        }
    }
}

fn duration(seconds: f64) -> String {
    match seconds {
        0.0..120.0 => format!("{seconds:.0} s"),
        120.0..7200.0 => format!("{:.0} min", seconds / 60.0),
        _ => format!("{:.1} h", seconds / 3600.0),
    }
}
