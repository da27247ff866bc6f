//! What a report says of models: at which look they are, and how differences go with their size and architecture.

use std::collections::{BTreeMap, BTreeSet};

use super::tables::{interval, number, signed};
use crate::analysis::Report;
use crate::analysis::compare::{Point, written_p};
use crate::analysis::looks::Look;
use crate::analysis::overheads::{Overhead, Scale, Term, What};
use spark_trace_render::document::{Cell, Fit, Table};
use spark_trace_statistics::LEVEL;

/// In a sentence for all models that are at the same look.
pub fn looks(report: &Report) -> Vec<String> {
    let same = |a: &Look, b: &Look| {
        (a.round, a.number, a.declared, &a.ended) == (b.round, b.number, b.declared, &b.ended)
    };
    let mut groups: Vec<(&Look, Vec<&str>)> = vec![];
    for look in &report.looks {
        match groups.iter_mut().find(|(other, _)| same(other, look)) {
            Some((_, models)) => models.push(&look.model),
            None => groups.push((look, vec![&look.model])),
        }
    }
    groups
        .into_iter()
        .map(|(look, models)| format!("{}: {}", models.join(", "), sentence(look, report)))
        .collect()
}

/// Rounds with a start of the machine between their runs.
pub fn torn_rounds(report: &Report) -> Vec<String> {
    let mut torn: BTreeMap<&str, BTreeSet<u32>> = BTreeMap::new();
    for row in &report.comparisons {
        for a in row.a_values.iter().filter(|point| point.round.is_some()) {
            let across = |b: &&Point| b.round == a.round && b.boots != a.boots;
            if row.b_values.iter().any(|b| across(&b)) {
                torn.entry(&row.model).or_default().extend(a.round);
            }
        }
    }
    let said = |(model, rounds): (&str, BTreeSet<u32>)| {
        let rounds: Vec<String> = rounds.iter().map(u32::to_string).collect();
        format!(
            "{model}: the machine was started again between the runs of round {}, so these runs are no pair.",
            rounds.join(", ")
        )
    };
    torn.into_iter().map(said).collect()
}

fn sentence(look: &Look, report: &Report) -> String {
    let Look { round, planned, number, looks, level, .. } = look;
    let alpha = report.options.alpha;
    let costs = format!(
        "Tests decide below {} instead of {alpha}, and intervals are as much wider, so that all looks together err no more often than one",
        written_p(*level)
    );
    if let Some(because) = &look.ended {
        return format!(
            "stopped at look {number} of {looks}, after {round} of {planned} rounds: {because}. {costs}."
        );
    }
    match (look.declared, *number) {
        (true, 0) => format!(
            "{round} of {planned} rounds are over. The first look of the plan is later, so nothing is decided."
        ),
        (true, _) if look.is_last() => format!("this is the last of {looks} looks. {costs}."),
        (true, _) => format!("this is look {number} of {looks}, at {round} of {planned} rounds. {costs}."),
        (false, 0) => format!("no round of {planned} is over, so nothing is decided."),
        (false, _) => format!(
            "{round} of {planned} rounds are over, and the plan states no `looks`, so a look after each round is assumed. {costs}."
        ),
    }
}

const TERMS: &[Cell<(Scale, Term)>] = &[
    ("TERM", Fit::Text, |(_, term)| named(&term.what)),
    ("ESTIMATE", Fit::Number, |(scale, term)| write(*scale, term.estimate)),
    ("95 % CI", Fit::Number, |(scale, term)| match scale {
        Scale::Ratio => format!("{} to {}", write(*scale, term.ci.0), write(*scale, term.ci.1)),
        Scale::Difference => interval(Some(term.ci)),
    }),
    ("P", Fit::Number, |(_, term)| written_p(term.p)),
];

fn write(scale: Scale, value: f64) -> String {
    match scale {
        Scale::Ratio => format!("{:+.2} %", (value - 1.0) * 100.0),
        Scale::Difference => signed(value),
    }
}

fn named(what: &What) -> String {
    match what {
        What::Environment { parameters: None, architecture: None } => "a model as these are".to_owned(),
        What::Environment { parameters, architecture } => {
            let size = parameters.map(|size| format!("of {} billion parameters", number(size / 1e9)));
            let kind = architecture.as_ref().map(|kind| format!("({kind})"));
            let parts: Vec<String> = [Some("a model".to_owned()), size, kind].into_iter().flatten().collect();
            parts.join(" ")
        }
        What::Doubling => "twice the parameters".to_owned(),
        What::Architecture { of, against } => format!("{of} against {against}"),
    }
}

/// Of each metric: its title, what was done, and the estimates.
pub fn overheads(report: &Report) -> Vec<(String, Vec<String>, Table)> {
    report.overheads.iter().map(|overhead| (title(overhead), lines(overhead), terms(overhead))).collect()
}

fn title(overhead: &Overhead) -> String {
    let Overhead { metric, a_name, b_name, .. } = overhead;
    format!("{metric} over all models: {b_name} (B) against {a_name} (A)")
}

fn terms(overhead: &Overhead) -> Table {
    let terms = overhead.fit.iter().flat_map(|fit| fit.terms.iter().cloned());
    let rows: Vec<(Scale, Term)> = terms.map(|term| (overhead.scale, term)).collect();
    Table::of(TERMS, &rows)
}

fn lines(overhead: &Overhead) -> Vec<String> {
    let Overhead { models, pairs, scale, unit, .. } = overhead;
    let mut lines = vec![];
    if let Some(fit) = &overhead.fit {
        let of = match scale {
            Scale::Ratio => "the logarithm of B / A".to_owned(),
            Scale::Difference => format!("B minus A ({unit})"),
        };
        lines.push(format!(
            "Mixed-effects model of {of} in {pairs} pairs of {models} models, which are a random effect (restricted maximum likelihood). \
             Standard deviation of models {}, of pairs {}; intervals and p, not adjusted, by t with {} degrees of freedom.{}",
            number(fit.sd_models),
            number(fit.sd_pairs),
            fit.df,
            match fit.level > LEVEL {
                true => format!(
                    " Intervals hold at all looks: at the earliest look of a model p decides below {}.",
                    written_p(1.0 - fit.level)
                ),
                false => String::new(),
            }
        ));
    }
    if !overhead.because.is_empty() {
        let said = overhead.because.join("; ");
        lines.push(match overhead.fit {
            Some(_) => format!("Left out: {said}."),
            None => format!("No model over all models: {said}."),
        });
    }
    lines
}
