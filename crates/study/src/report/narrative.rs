//! What a study reports, in words and tables that all forms share.

use super::happenings::happened;
use super::models;
use super::state;
use super::tables::{
    ATTRITION, BRIEF, DIAGNOSTICS, EFFECTS, ESTIMATES, MAIN, SPREAD, TESTS, interval, number, table,
    with_absent,
};
use super::threats::threats;
use crate::analysis::compare::written_p;
use crate::analysis::planning::Detectable;
use crate::analysis::role::Role;
use crate::analysis::{Absent, Attrition, Comparison, Report, SourcesAt, Verdict};
use crate::plan::Order;
use crate::primary::Primary;
use crate::results::Origin;
use spark_trace_render::document::{Document, Fit, Table};

/// Differences of sources that are shown, the largest first.
const SOURCES: usize = 12;

pub fn document(report: &Report) -> Document {
    let mut document = Document::default();
    document.heading(title(report));
    summary(report).into_iter().for_each(|line| document.line(line));
    warnings(report).into_iter().for_each(|text| document.warning(text));
    for (model, other) in cells(report) {
        comparison(&mut document, report, &model, &other);
    }
    for (title, lines, table) in models::overheads(report) {
        document.heading(title);
        lines.into_iter().for_each(|line| document.line(line));
        if !table.rows.is_empty() {
            document.table(table);
        }
    }
    document.heading("Methods");
    methods(report).into_iter().for_each(|line| document.line(line));
    document.section("Machine", machine(report));
    document.heading("Threats to validity");
    for (kind, sentences) in threats(report) {
        document.line(format!("{}: {sentences}", kind.title()));
    }
    document.section("Runs that do not count", failures(report));
    document
}

/// What fits on a terminal: the verdicts, and each reason once.
pub fn brief(report: &Report) -> Document {
    let mut document = Document::default();
    document.heading(title(report));
    summary(report).into_iter().for_each(|line| document.line(line));
    warnings(report).into_iter().for_each(|text| document.warning(text));
    for (model, other) in cells(report) {
        let baseline = report.environments.first().map_or("", String::as_str);
        document.heading(format!("{model}: {other} (B) against {baseline} (A), means"));
        let rows = of_cell(&report.comparisons, &model, &other);
        let absent = || absent_of(report, &model, &other);
        let verdicts = with_absent(BRIEF, rows.clone(), absent());
        if !verdicts.rows.is_empty() {
            document.table(verdicts);
        }
        let mut reasons: Vec<&str> = vec![];
        let compared =
            rows.filter(|row| row.subject.better.is_some()).map(|row| (&row.subject.name, &row.because));
        for (name, because) in compared.chain(absent().map(|row| (&row.subject.name, &row.because))) {
            if !reasons.contains(&because.as_str()) {
                document.line(format!("{name}: {because}"));
                reasons.push(because);
            }
        }
        let sources = differing(report, &model, &other);
        if !sources.is_empty() {
            document.line(format!("{}, those that differ most:", sources_title(report)));
            document.table(table(BRIEF, sources));
        }
    }
    for (title, lines, table) in models::overheads(report) {
        document.heading(title);
        lines.into_iter().for_each(|line| document.line(line));
        if !table.rows.is_empty() {
            document.table(table);
        }
    }
    document.section("Runs that do not count", failures(report));
    document
}

pub fn title(report: &Report) -> String {
    format!("Study {}", report.name)
}

/// Models and the environments that are compared with the baseline.
pub fn cells(report: &Report) -> Vec<(String, String)> {
    report.attrition.iter().map(|runs| (runs.model.clone(), runs.b_name.clone())).collect()
}

pub fn absent_of<'a>(
    report: &'a Report,
    model: &'a str,
    other: &'a str,
) -> impl Iterator<Item = &'a Absent> + Clone {
    report.absent.iter().filter(move |row| row.model == model && row.b_name == other)
}

pub fn attrition_of<'a>(report: &'a Report, model: &str, other: &str) -> Option<&'a Attrition> {
    report.attrition.iter().find(|runs| runs.model == model && runs.b_name == other)
}

pub fn of_cell<'a>(
    all: &'a [Comparison],
    model: &'a str,
    other: &'a str,
) -> impl Iterator<Item = &'a Comparison> + Clone {
    all.iter().filter(move |row| row.model == model && row.b_name == other)
}

/// Comparisons of each metric that can be better or worse, in all models.
pub fn by_metric(report: &Report) -> Vec<Vec<&Comparison>> {
    let mut metrics: Vec<Vec<&Comparison>> = vec![];
    for row in report.comparisons.iter().filter(|row| row.subject.better.is_some()) {
        match metrics.iter_mut().find(|rows| rows.iter().any(|other| other.subject.name == row.subject.name))
        {
            Some(rows) => rows.push(row),
            None => metrics.push(vec![row]),
        }
    }
    metrics
}

/// The same of metrics that the study is about, where there is more than one model or environment.
pub fn primary_of_many(report: &Report) -> impl Iterator<Item = Vec<&Comparison>> {
    let primary = |rows: &[&Comparison]| rows.iter().any(|row| row.role == Role::Primary);
    by_metric(report).into_iter().filter(move |rows| rows.len() > 1 && primary(rows))
}

/// Sources that differ at all, the largest difference first.
pub fn differing<'a>(report: &'a Report, model: &'a str, other: &'a str) -> Vec<&'a Comparison> {
    let mut rows: Vec<_> =
        of_cell(&report.sources, model, other).filter(|row| row.difference.abs() * 1024.0 >= 0.05).collect();
    rows.sort_by(|a, b| b.difference.abs().total_cmp(&a.difference.abs()));
    rows.truncate(SOURCES);
    rows
}

/// What came out, in a sentence for each model and environment.
pub fn summary(report: &Report) -> Vec<String> {
    let mut lines = vec![origin(report)];
    lines.extend(questions(report));
    lines.extend(report.planning.map(planning));
    for (model, other) in cells(report) {
        let rows = of_cell(&report.comparisons, &model, &other);
        let parts: Vec<String> = Role::ALL.iter().filter_map(|role| verdicts(rows.clone(), *role)).collect();
        let baseline = report.environments.first().map_or("", String::as_str);
        let alike = rows.clone().any(|row| row.alike);
        let kind = if alike { " (the same environment again: noise)" } else { "" };
        let runs = attrition_of(report, &model, &other).map(runs_without);
        let parts = match parts.is_empty() {
            true => "no metric can be compared".to_owned(),
            false => parts.join("; "),
        };
        let runs = runs.filter(|runs| !runs.is_empty()).map_or_else(String::new, |runs| format!(" {runs}"));
        lines.push(format!("{model}, {other} against {baseline}{kind}: {parts}.{runs}"));
    }
    lines
}

/// The metrics of a role by their verdicts; exploratory ones only where one way is better.
fn verdicts<'a>(rows: impl Iterator<Item = &'a Comparison> + Clone, role: Role) -> Option<String> {
    let rows = rows.filter(|row| row.role == role && (role == Role::Primary || row.subject.better.is_some()));
    let names_with = |verdict: Verdict| {
        let names = rows.clone().filter(|row| row.verdict == verdict).map(|row| match verdict {
            Verdict::Different => {
                let (ci, level) = match row.ci_simultaneous {
                    Some(ci) => (Some(ci), "all intervals at once"),
                    None => (row.ci, "95 %"),
                };
                format!("{} ({} {}, {level})", row.subject.name, interval(ci), row.subject.unit)
            }
            _ => row.subject.name.clone(),
        });
        let names: Vec<_> = names.collect();
        (!names.is_empty()).then(|| format!("{}: {}", verdict.as_str(), names.join(", ")))
    };
    let parts: Vec<_> = Verdict::ALL.into_iter().filter_map(names_with).collect();
    (!parts.is_empty()).then(|| format!("{} metrics, {}", role.as_str(), parts.join("; ")))
}

/// Runs that did not come to a result, in a sentence for each environment that has such.
pub fn runs_without(runs: &Attrition) -> String {
    let mut sentences = vec![];
    for (name, course) in [(&runs.a_name, &runs.a), (&runs.b_name, &runs.b)] {
        if course.failed > 0 {
            sentences.push(format!("{} of {} runs of {name} failed.", course.failed, course.begun));
        }
        if course.begun == 0 {
            sentences.push(format!("No run of {name} was begun."));
        } else if course.measured == 0 {
            sentences.push(format!("No run of {name} has a result."));
        }
    }
    if let Some(p) = runs.p.filter(|_| runs.a.disturbed() + runs.b.disturbed() > 0) {
        sentences.push(format!("That both fail equally often has p {} (Fisher's exact test).", written_p(p)));
    }
    sentences.join(" ")
}

fn questions(report: &Report) -> Option<String> {
    if report.primary.is_empty() {
        return None;
    }
    let question = |primary: &Primary| match &primary.hypothesis {
        Some(hypothesis) => format!("{} ({hypothesis})", primary.metric),
        None => primary.metric.clone(),
    };
    let names: Vec<_> = report.primary.iter().map(question).collect();
    let how = if report.declared { "declared in the plan" } else { "none was declared, so the usual ones" };
    Some(format!("Primary metrics ({how}): {}. All others are exploratory.", names.join("; ")))
}

/// Before any result: what the number of runs is good for.
fn planning(found: Detectable) -> String {
    let Detectable { pairs, power, alone, in_family, family } = found;
    let one = format!(
        "{pairs} pairs of runs show a difference of {alone:.2} standard deviations of the pairs' differences with a power of {power}"
    );
    match family {
        0 | 1 => format!("{one}."),
        _ => format!("{one}; as the first of {family} primary comparisons, one of {in_family:.2}."),
    }
}

fn origin(report: &Report) -> String {
    let counts = &report.counts;
    let planned = counts.planned.map_or_else(String::new, |planned| format!(" of {planned} planned"));
    let runs = format!(
        "{}{planned} measured runs, {} warm-ups, {} that failed or were lost",
        counts.measured, counts.warmups, counts.failed
    );
    match &report.origin {
        Origin::Run => format!("Measured by spark-trace: {runs}."),
        Origin::Imported { format, file } => format!("Imported from {file} ({format}): {runs}."),
        Origin::Simulated => format!("Simulated: {runs}."),
    }
}

/// What a reader must not overlook.
pub fn warnings(report: &Report) -> Vec<String> {
    let mut warnings: Vec<String> = report.happenings.iter().map(happened).collect();
    warnings.extend(models::looks(report));
    warnings.extend(models::torn_rounds(report));
    if report.order == Some(Order::Blocked) {
        warnings.push(
            "The plan ran one environment after the other. Changes over time cannot be separated from the environment; \
             run it again with `order = \"balanced\"`."
                .to_owned(),
        );
    }
    for relation in &report.relations {
        warnings.push(format!(
            "{}{} in all {} runs (largest distance {}): {} is no second result, and no family counts it.",
            relation.written(),
            if relation.known { " by their meaning, and" } else { "" },
            relation.n,
            number(relation.max_residual),
            relation.of
        ));
    }
    for same in &report.indistinct {
        let means: Vec<_> = same.means.iter().map(|mean| number(*mean)).collect();
        warnings.push(format!(
            "{} is the same within {} % for {} ({}): models of different size would differ. Check that the runner used \
             the model that it names.",
            same.metric,
            same.margin * 100.0,
            same.models.join(", "),
            means.join(", ")
        ));
    }
    warnings
}

fn comparison(document: &mut Document, report: &Report, model: &str, other: &str) {
    let baseline = report.environments.first().map_or("", String::as_str);
    document.heading(format!("{model}: {other} (B) against {baseline} (A)"));
    tables(report, model, other).into_iter().for_each(|(title, table)| {
        if !table.rows.is_empty() {
            document.line(format!("{title}:"));
            document.table(table);
        }
    });
}

/// What lists of sources are about.
pub const fn sources_title(report: &Report) -> &'static str {
    match report.sources_at {
        SourcesAt::KvReading => "Sources of memory, each run at its KV-cache reading",
        SourcesAt::Peak => "Sources of memory, each run at its peak",
    }
}

/// The tables of one comparison, with their titles.
pub fn tables(report: &Report, model: &str, other: &str) -> Vec<(&'static str, Table)> {
    let rows = || of_cell(&report.comparisons, model, other);
    let absent = || absent_of(report, model, other);
    vec![
        ("Verdicts", with_absent(MAIN, rows(), absent())),
        ("Runs, A+B", Table::of(ATTRITION, attrition_of(report, model, other))),
        ("Diagnostics", with_absent(DIAGNOSTICS, rows(), absent())),
        ("Estimates", table(ESTIMATES, rows())),
        ("State at the start of runs", state::start(rows())),
        ("Course within each environment", state::course(rows())),
        ("Effects", table(EFFECTS, rows())),
        ("Tests, p", table(TESTS, rows())),
        ("Spread", table(SPREAD, rows())),
        (sources_title(report), table(MAIN, differing(report, model, other))),
    ]
}

/// What was done, for a paper's methods section.
pub fn methods(report: &Report) -> Vec<String> {
    let options = &report.options;
    let order = match report.order {
        Some(Order::Balanced) if report.environments.len() > 2 => {
            "Rounds are rows of Williams squares (labels and rows in random order from a stored seed): each environment \
             follows each other one equally often."
                .to_owned()
        }
        Some(Order::Balanced | Order::Abba) => {
            "Environments took turns in the order A B B A, so that a steady drift hits them alike.".to_owned()
        }
        Some(Order::Randomized) => {
            "In each round every environment ran once, in random order from a stored seed.".to_owned()
        }
        Some(Order::Blocked) => "Environments ran one after the other, without taking turns.".to_owned(),
        None => "The order is that of the runs' times; nothing is known of a plan.".to_owned(),
    };
    vec![
        order,
        format!(
            "Warm-ups are left out of the analysis and counted. Differences are B minus A. Runs of one round are \
             compared by the paired t test, or by Welch's where there are fewer than 3 such rounds, both with t-based 95 % \
             confidence intervals; means, difference, p, power and bootstrap are of the same runs. p is adjusted: {}; \
             sources of memory and comparisons of environments that are the same are lists of their own with their own rates. \
             Intervals of primary metrics are also given at a level at which all hold at once (Bonferroni). Ratios of means have \
             Fieller's interval. Beside each mean are the shift of Hodges and Lehmann and Yuen's test of 20 % trimmed means; \
             they decide nothing, and a verdict says where they disagree. A difference is reported below an adjusted p of {}.",
            report.family, options.alpha
        ),
        format!(
            "Means are called equivalent where two one-sided tests, adjusted in the same way, place their difference at {} within the \
             margin: the plan's, or {} % of the baseline's mean. Temperatures have no such part of a mean.",
            options.alpha,
            options.margin * 100.0
        ),
        "Runs without a result (failed, or chosen by a retry that succeeded) bound a verdict: it stands only where the same \
         test comes to it with the smallest and with the largest value of the model's other runs in their place. Environments \
         that do not fail equally often (Fisher's exact test) are never called equivalent."
            .to_owned(),
        format!(
            "Effect sizes are Cohen's d and Hedges' g with intervals from the noncentral t distribution, power by the \
             same for the test that was used. Medians (of the differences, where runs are pairs) are compared by {} bootstrap resamples (BCa; seed {}). Values beyond Tukey's fences (1.5 \
             interquartile ranges) are called outliers and kept.",
            options.resamples, options.seed
        ),
        format!(
            "Diagnostics come before p: environments in blocks (runs test), the part of the difference that a drift or the \
             environment of the run before makes in this order (by the slope within the environments, at {0}; it matters \
             above a quarter of the difference or of the margin), dependence of one run on the one before where runs have no \
             rounds (lag-1 autocorrelation at {0}), and the state in which runs began. Where they fail the verdict is \
             `confounded` or `not comparable`. Standard errors of pairs allow for what the order \
             lets them share where runs are autocorrelated (r of all runs at lag 1). Where an environment's own runs, without what \
             both share, are more autocorrelated than chance makes them (at 0.1 with 30 pairs, less with fewer), standard errors and \
             degrees of freedom allow for the upper end of that, if it makes more.",
            options.diagnostic_alpha
        ),
    ]
}

/// What the study ran on and with.
pub fn machine(report: &Report) -> Table {
    let cells = &[
        ("FACT", Fit::Name, (|row| row.0.clone()) as fn(&(String, String)) -> String),
        ("VALUE", Fit::Text, |row| row.1.clone()),
    ];
    let facts: Vec<(String, String)> =
        report.machine.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    Table::of(cells, &facts)
}

/// What a site has for others to check and to repeat.
pub fn artifact() -> Vec<String> {
    vec![
        "runs.csv has every run, failed ones and warm-ups too, and runs-dictionary.csv the unit and meaning of its columns. \
         results.json has the same for `spark-trace study report`, which makes every table and figure again. SHA256SUMS has the \
         checksums of all files (`sha256sum --check SHA256SUMS`)."
            .to_owned(),
        format!(
            "The analysis is that of spark-trace {} (MIT or Apache-2.0). The licence of these data is for their authors to state.",
            env!("CARGO_PKG_VERSION")
        ),
    ]
}

/// Runs that do not count, and why.
pub fn failures(report: &Report) -> Table {
    let cells = &[
        ("RUN", Fit::Number, (|row| row.number.to_string()) as fn(&crate::analysis::Failure) -> String),
        ("ATTEMPT", Fit::Number, |row| row.attempt.to_string()),
        ("ENVIRONMENT", Fit::Name, |row| row.environment.clone()),
        ("MODEL", Fit::Name, |row| row.model.clone()),
        ("WHY", Fit::Text, |row| row.why.clone()),
    ];
    Table::of(cells, &report.failures)
}
