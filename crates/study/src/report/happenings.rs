//! What happened besides the runs, in sentences.

use spark_trace_recording::units::count;

use crate::results::{BOOT, Change, Happening, What, Why};

pub fn happened(happening: &Happening) -> String {
    let when =
        happening.after.map_or_else(|| "Before the first run".to_owned(), |run| format!("After run {run}"));
    match &happening.what {
        What::Resumed { changed } if changed.is_empty() => {
            format!("{when} the study was resumed; the machine is described as before.")
        }
        What::Resumed { changed } => {
            let (boots, others): (Vec<&Change>, Vec<&Change>) =
                changed.iter().partition(|it| it.fact == BOOT);
            let started = if boots.is_empty() { "" } else { "; the machine was started again in between" };
            let changes: Vec<_> = others.into_iter().map(change).collect();
            let changes =
                if changes.is_empty() { String::new() } else { format!("; changed: {}", changes.join(", ")) };
            format!("{when} the study was resumed{started}{changes}.")
        }
        What::GateClosed { gate, reason, waited_s } => {
            format!(
                "{when} the gate {gate} was closed for {waited_s:.0} s ({reason}); the study went on waiting."
            )
        }
        What::LeftOut { numbers, why } => {
            format!("{when} {} left out ({}): {}.", runs(numbers.len()), list(numbers), reason(why))
        }
    }
}

fn change(change: &Change) -> String {
    let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "unknown".to_owned());
    format!("{} from {} to {}", change.fact, value(&change.before), value(&change.now))
}

fn runs(number: usize) -> String {
    let verb = if number == 1 { "was" } else { "were" };
    format!("{} {verb}", count(number, "run", "runs"))
}

fn list(numbers: &[u32]) -> String {
    const MOST: usize = 6;
    let mut texts: Vec<_> = numbers.iter().take(MOST).map(u32::to_string).collect();
    if numbers.len() > MOST {
        texts.push("...".to_owned());
    }
    texts.join(", ")
}

fn reason(why: &Why) -> String {
    match why {
        Why::Gate { gate, reason, waited_s } => {
            format!("the gate {gate} stayed closed for {waited_s:.0} s ({reason})")
        }
        Why::GivenUp { environment, model, failures } => {
            format!("{model} in {environment} failed {failures} times one after the other")
        }
        Why::Decided { model, round, number, looks, because } => {
            format!("{model} stopped at look {number} of {looks}, after round {round}: {because}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(what: What) -> String {
        happened(&Happening { at_s: 0.0, after: Some(7), what })
    }

    #[test]
    fn what_happened_is_a_sentence() {
        let change = |fact: &str, now: &str| Change {
            fact: fact.to_owned(),
            before: Some("a".to_owned()),
            now: Some(now.to_owned()),
        };
        let changed = vec![change(BOOT, "b"), change("kernel", "6.18")];
        assert_eq!(
            said(What::Resumed { changed }),
            "After run 7 the study was resumed; the machine was started again in between; changed: kernel from a to 6.18."
        );
        let why = Why::GivenUp { environment: "docker".to_owned(), model: "m".to_owned(), failures: 3 };
        assert_eq!(
            said(What::LeftOut { numbers: vec![8], why }),
            "After run 7 1 run was left out (8): m in docker failed 3 times one after the other."
        );
        let closed =
            said(What::GateClosed { gate: "mem-free".to_owned(), reason: "r".to_owned(), waited_s: 60.0 });
        assert!(closed.contains("mem-free was closed for 60 s (r)"), "{closed}");
    }
}
