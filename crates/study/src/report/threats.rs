//! Threats to validity, of what was really done: each is a row that looks at the report and says what it found, or nothing.

use crate::analysis::{Comparison, Report, Verdict};
use crate::plan::Order;
use crate::results::{Origin, What};

/// The kinds of Cook and Campbell, as empirical papers name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Internal,
    Construct,
    Conclusion,
    External,
}

impl Kind {
    pub const ALL: [Self; 4] = [Self::Internal, Self::Construct, Self::Conclusion, Self::External];

    pub const fn title(self) -> &'static str {
        match self {
            Self::Internal => "Internal validity",
            Self::Construct => "Construct validity",
            Self::Conclusion => "Conclusion validity",
            Self::External => "External validity",
        }
    }
}

struct Threat {
    kind: Kind,
    of: fn(&Report) -> Option<String>,
}

const fn row(kind: Kind, of: fn(&Report) -> Option<String>) -> Threat {
    Threat { kind, of }
}

const THREATS: &[Threat] = &[
    row(Kind::Internal, order),
    row(Kind::Internal, influences),
    row(Kind::Internal, state),
    row(Kind::Internal, same_again),
    row(Kind::Internal, attrition),
    row(Kind::Internal, unfinished),
    row(Kind::Internal, resumed),
    row(Kind::Construct, origin),
    row(Kind::Construct, functions),
    row(Kind::Construct, indistinct),
    row(Kind::Construct, machine_wide),
    row(Kind::Conclusion, few),
    row(Kind::Conclusion, undecided),
    row(Kind::Conclusion, shapes),
    row(Kind::Conclusion, dependence),
    row(Kind::Conclusion, many),
    row(Kind::External, one_machine),
];

/// Sentences of each kind that has any.
pub fn threats(report: &Report) -> Vec<(Kind, String)> {
    let of = |kind: Kind| {
        let sentences: Vec<String> = THREATS
            .iter()
            .filter(|threat| threat.kind == kind)
            .filter_map(|threat| (threat.of)(report))
            .collect();
        (kind, sentences.join(" "))
    };
    Kind::ALL.into_iter().map(of).filter(|(_, text)| !text.is_empty()).collect()
}

/// Comparisons of environments that differ.
fn compared(report: &Report) -> impl Iterator<Item = &Comparison> + Clone {
    report.comparisons.iter().filter(|row| !row.alike)
}

/// `3 of 12 comparisons (first, second, ...)`: the names of metrics once each.
fn of_comparisons<'a>(report: &'a Report, which: impl Fn(&Comparison) -> bool) -> Option<String> {
    let rows: Vec<&'a Comparison> = compared(report).filter(|row| which(row)).collect();
    let mut names: Vec<&str> = vec![];
    rows.iter().for_each(|row| {
        if !names.contains(&row.subject.name.as_str()) {
            names.push(&row.subject.name);
        }
    });
    let all = compared(report).count();
    (!rows.is_empty()).then(|| format!("{} of {all} comparisons ({})", rows.len(), names.join(", ")))
}

fn order(report: &Report) -> Option<String> {
    let blocked = of_comparisons(report, |row| row.diagnostics.blocked);
    if let Some(blocked) = blocked {
        return Some(format!(
            "The environments ran in blocks, so changes over time are part of the difference in {blocked}."
        ));
    }
    Some(match report.order? {
        Order::Blocked => return None,
        Order::Abba | Order::Balanced | Order::Randomized => {
            "The environments took turns, which cancels steady drifts; a disturbance with the period of the order would not be \
             found."
                .to_owned()
        }
    })
}

fn influences(report: &Report) -> Option<String> {
    let moved =
        of_comparisons(report, |row| row.diagnostics.influences.iter().any(|influence| influence.matters))?;
    Some(format!(
        "A drift, or the environment of the run before, can have made an important part of the difference in {moved}."
    ))
}

fn state(report: &Report) -> Option<String> {
    let mut names: Vec<&str> = vec![];
    for state in compared(report).flat_map(|row| &row.diagnostics.state) {
        if !names.contains(&state.name.as_str()) {
            names.push(&state.name);
        }
    }
    let recorded = match names.is_empty() {
        true => "No state of the machine was recorded when runs began.".to_owned(),
        false => format!(
            "When a run began these were recorded: {}; fans, clock limits and the network were not.",
            names.join(", ")
        ),
    };
    let differing = of_comparisons(report, |row| row.diagnostics.state.iter().any(|state| state.matters));
    let differing = differing.map_or_else(String::new, |rows| {
        format!(" The environments began in states that differ enough to matter in {rows}.")
    });
    Some(recorded + &differing)
}

fn same_again(report: &Report) -> Option<String> {
    let noise: Vec<&Comparison> = report.comparisons.iter().filter(|row| row.alike).collect();
    if noise.is_empty() {
        return Some(
            "No environment ran under two names, so what differs between environments beside what their names say is part \
             of the differences."
                .to_owned(),
        );
    }
    let different = noise.iter().filter(|row| row.verdict == Verdict::Different).count();
    Some(format!(
        "One environment ran under two names: {different} of its {} comparisons with itself are called different.",
        noise.len()
    ))
}

fn attrition(report: &Report) -> Option<String> {
    let failed: usize = report.attrition.iter().map(|runs| runs.b.failed).sum::<usize>()
        // The baseline's runs are in the row of every other environment.
        + report.models.iter().filter_map(|model| report.attrition.iter().find(|runs| runs.model == *model)).map(|runs| runs.a.failed).sum::<usize>();
    let unequal =
        report.attrition.iter().filter(|runs| runs.p.is_some_and(|p| p < report.options.alpha)).count();
    (failed > 0).then(|| {
        format!(
            "{failed} measured runs failed at least once; environments fail unequally often in {unequal} of {} pairs (Fisher's \
             exact test). Verdicts stand only where the worst values of runs without a result leave them.",
            report.attrition.len()
        )
    })
}

fn unfinished(report: &Report) -> Option<String> {
    let planned = report.counts.planned?;
    (report.counts.measured < planned).then(|| {
        format!(
            "{} of {planned} planned runs have a result. Who reports a study before its end and stops when it pleases finds \
             differences too often.",
            report.counts.measured
        )
    })
}

fn resumed(report: &Report) -> Option<String> {
    let resumed = report.happenings.iter().filter_map(|happening| match &happening.what {
        What::Resumed { changed } => Some(!changed.is_empty()),
        _ => None,
    });
    let all = resumed.clone().count();
    let changed = resumed.filter(|changed| *changed).count();
    (all > 0).then(|| format!("The study was interrupted and resumed {all} times; after {changed} of them the machine had changed."))
}

fn origin(report: &Report) -> Option<String> {
    Some(match &report.origin {
        Origin::Run => {
            "Every run was recorded, in all environments alike: figures contain what recording costs."
                .to_owned()
        }
        Origin::Imported { format, .. } => {
            format!(
                "The figures were read from results of another tool ({format}); how they were measured is not checked."
            )
        }
        Origin::Simulated => "The figures are random numbers.".to_owned(),
    })
}

fn functions(report: &Report) -> Option<String> {
    let names: Vec<String> = report.relations.iter().map(|relation| relation.written()).collect();
    (!names.is_empty()).then(|| {
        format!("Some metrics are functions of others and no further evidence: {}.", names.join("; "))
    })
}

fn indistinct(report: &Report) -> Option<String> {
    let models: Vec<String> = report
        .indistinct
        .iter()
        .map(|same| format!("{} of {}", same.metric, same.models.join(", ")))
        .collect();
    (!models.is_empty())
        .then(|| format!("Models whose figures are the same may be one model: {}.", models.join("; ")))
}

fn machine_wide(report: &Report) -> Option<String> {
    (!report.sources.is_empty())
        .then(|| "Sources of memory are of the whole machine, so other programs are in them.".to_owned())
}

fn few(report: &Report) -> Option<String> {
    let least = compared(report).map(|row| row.a.n.min(row.b.n)).min()?;
    let most = compared(report).map(|row| row.a.n.min(row.b.n)).max()?;
    let runs = if least == most { format!("{least}") } else { format!("{least} to {most}") };
    Some(format!("A comparison rests on {runs} runs of each environment."))
}

fn undecided(report: &Report) -> Option<String> {
    let rows = of_comparisons(report, |row| row.verdict == Verdict::Undecided)?;
    Some(format!("Neither a difference nor its absence is shown in {rows}."))
}

fn shapes(report: &Report) -> Option<String> {
    let alpha = report.options.diagnostic_alpha;
    let odd = of_comparisons(report, |row| {
        let sides = [&row.shapiro_a, &row.shapiro_b];
        let of_what_is_tested: &[&Option<_>] = match row.paired {
            Some(_) => &[&row.shapiro_differences],
            None => &sides,
        };
        of_what_is_tested.iter().any(|test| test.as_ref().is_some_and(|test| test.p < alpha))
    });
    let outliers: usize = compared(report)
        .map(|row| row.a_values.iter().chain(&row.b_values).filter(|point| point.outlier).count())
        .sum();
    let outliers = match outliers {
        0 => String::new(),
        count => format!(" {count} values beyond Tukey's fences are kept in all figures."),
    };
    let odd = odd.map(|rows| {
        format!("What the t test compares is not normal (Shapiro and Wilk, p below {alpha}) in {rows}.")
    });
    match (odd, outliers.is_empty()) {
        (None, true) => None,
        (odd, _) => Some((odd.unwrap_or_default() + &outliers).trim().to_owned()),
    }
}

fn dependence(report: &Report) -> Option<String> {
    let larger =
        compared(report).filter_map(|row| row.dependence).map(|found| found.larger).fold(1.0, f64::max);
    let allowed = (larger > 1.005).then(|| {
        format!(
            "Runs have something in common with the run before; standard errors of pairs allow for it and are up to {:.2} times as large.",
            larger.sqrt()
        )
    });
    let alpha = report.options.diagnostic_alpha;
    let depends = of_comparisons(report, |row| {
        row.paired.is_none() && row.diagnostics.lag1.as_ref().is_some_and(|lag| lag.p < alpha)
    });
    let depends = depends
        .map(|rows| format!("A run depends on the one before, which their intervals ignore, in {rows}."));
    let both: Vec<String> = allowed.into_iter().chain(depends).collect();
    (!both.is_empty()).then(|| both.join(" "))
}

fn many(report: &Report) -> Option<String> {
    let declared = match report.declared {
        true => "The primary metrics were declared in the plan.",
        false => "No primary metrics were declared before the runs; those here are a choice by name.",
    };
    Some(format!("{declared} p is adjusted: {}. Exploratory verdicts need another study.", report.family))
}

fn one_machine(report: &Report) -> Option<String> {
    let models = match report.models.len() {
        1 => "one model".to_owned(),
        count => format!("{count} models"),
    };
    let known = ["gpu", "driver", "kernel", "architecture"].into_iter().filter_map(|name| {
        report
            .machine
            .iter()
            .find(|(known, _)| known.as_str() == name)
            .map(|(name, value)| format!("{name} {value}"))
    });
    let known: Vec<String> = known.collect();
    let facts = if known.is_empty() { String::new() } else { format!(" ({})", known.join("; ")) };
    Some(format!("All runs are of {models} on one machine{facts}: nothing is shown of others."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::{Options, report};
    use crate::results::{Results, Run, SCHEMA, SCHEMA_VERSION};

    fn text(blocked: bool, failed: u32) -> String {
        let run = |number: u32| {
            let in_b = if blocked { number > 10 } else { number % 4 >= 2 };
            Run {
                number,
                attempt: 1,
                environment: if in_b { "docker" } else { "native" }.to_owned(),
                model: "m".to_owned(),
                iteration: number,
                round: (!blocked).then_some(number.div_ceil(2)),
                failure: (number <= failed).then(|| "killed".to_owned()),
                metrics: [("peak-memory".to_owned(), 100.0 + f64::from(number * number % 7))].into(),
                ..Run::default()
            }
        };
        let results = Results {
            schema: SCHEMA.to_owned(),
            schema_version: SCHEMA_VERSION,
            name: "s".to_owned(),
            description: String::new(),
            origin: Origin::Run,
            environments: vec!["native".to_owned(), "docker".to_owned()],
            models: vec!["m".to_owned()],
            alike: vec![],
            planned: Some(10),
            looks: vec![],
            rounds_over: Default::default(),
            traits: Default::default(),
            units: Default::default(),
            happenings: vec![],
            primary: vec![],
            order: Some(if blocked { Order::Blocked } else { Order::Balanced }),
            machine: [("kernel".to_owned(), "6.18.1".to_owned())].into(),
            runs: (1..=20).map(run).collect(),
        };
        let report = report(&results, Options { resamples: 0, ..Options::default() });
        threats(&report).into_iter().map(|(kind, text)| format!("{}: {text}\n", kind.title())).collect()
    }

    #[test]
    fn threats_are_those_of_what_was_done() {
        let turns = text(false, 0);
        assert!(turns.contains("took turns") && !turns.contains("ran in blocks"), "{turns}");
        assert!(!turns.contains("failed at least once") && !turns.contains("planned runs have"), "{turns}");
        assert!(
            turns.contains("No primary metrics were declared") && turns.contains("kernel 6.18.1"),
            "{turns}"
        );
        assert!(turns.contains("No state of the machine was recorded"), "{turns}");
        let blocked = text(true, 0);
        assert!(blocked.contains("ran in blocks") && !blocked.contains("took turns"), "{blocked}");
        let failed = text(false, 3);
        assert!(failed.contains("3 measured runs failed at least once"), "{failed}");
        assert!(failed.contains("17 of 20 planned runs have a result"), "{failed}");
    }
}
