//! Tables of comparisons: of each model, and of each primary metric in all models.

use std::fmt::Write as _;

use super::{escaped, fixed, label, p_value, signed};
use crate::analysis::{Comparison, Report};
use crate::report::narrative::{absent_of, attrition_of, cells, primary_of_many, runs_without, title};

/// One table.
struct Rows<'a> {
    first: &'static str,
    caption: String,
    label: String,
    rows: Vec<(String, &'a Comparison)>,
    /// Rows without figures: name and reason.
    absent: Vec<(String, String)>,
    /// The metric is the same in all rows: so are the digits.
    one_metric: bool,
}

pub fn render(report: &Report) -> String {
    let mut text = format!("% {}; needs \\usepackage{{booktabs}}\n", escaped(&title(report)));
    for table in all(report) {
        write(&mut text, &table);
    }
    text
}

fn all(report: &Report) -> Vec<Rows<'_>> {
    let baseline = report.environments.first().map_or("", String::as_str);
    let mut tables = vec![];
    let pairs = cells(report);
    for rows in primary_of_many(report) {
        let Some(first) = rows.first() else { continue };
        tables.push(Rows {
            first: "Model, B",
            caption: format!("{}: all models, each environment (B) against {baseline} (A)", measured(first)),
            label: label(&["tab", "models", &first.subject.name]),
            rows: rows.iter().map(|row| (format!("{}, {}", row.model, row.b_name), *row)).collect(),
            absent: vec![],
            one_metric: true,
        });
    }
    for (model, other) in &pairs {
        let runs = attrition_of(report, model, other).map(runs_without).unwrap_or_default();
        let caption = format!("{model}: {other} (B) against {baseline} (A). {runs}");
        tables.push(Rows {
            first: "Metric",
            caption: caption.trim_end_matches([' ', '.']).to_owned(),
            label: label(&["tab", model, other]),
            rows: report
                .comparisons
                .iter()
                .filter(|row| row.model == *model && row.b_name == *other)
                .map(|row| (measured(row), row))
                .collect(),
            absent: absent_of(report, model, other)
                .map(|row| (row.subject.title.clone(), format!("{}: {}", row.verdict.as_str(), row.because)))
                .collect(),
            one_metric: false,
        });
    }
    tables
}

fn measured(row: &Comparison) -> String {
    match row.subject.unit.as_str() {
        "" => row.subject.title.clone(),
        unit => format!("{} ({unit})", row.subject.title),
    }
}

/// Decimals that show two digits of the interval of a row.
fn decimals(row: &Comparison) -> usize {
    let width = row.ci.map(|(low, high)| (high - low) / 2.0);
    // The interval is what a reader compares; without one it is the spread of runs.
    let spreads = if width.is_some() { [width, None] } else { [row.a.sd, row.b.sd] };
    let spreads = spreads.into_iter().flatten().filter(|spread| *spread > 0.0 && spread.is_normal());
    let least = spreads.fold(f64::INFINITY, f64::min);
    let least = if least.is_finite() { least } else { row.a.mean.abs().max(row.difference.abs()) / 100.0 };
    if least > 0.0 { (1.0 - least.log10().floor()).clamp(0.0, 6.0) as usize } else { 1 }
}

fn write(text: &mut String, table: &Rows<'_>) {
    let mut tests: Vec<&str> = vec![];
    for (_, row) in &table.rows {
        if row.p.is_some() && !tests.contains(&row.test) {
            tests.push(row.test);
        }
    }
    let most = table.rows.iter().map(|(_, row)| decimals(row)).max().unwrap_or(0);
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "\n\\begin{{table*}}[tbp]\n  \\centering\\footnotesize\\setlength{{\\tabcolsep}}{{3pt}}\n  \
         \\caption{{{}. {}}}\n  \\label{{{}}}",
        escaped(&table.caption),
        legend(table, &tests),
        table.label
    );
    let _ = writeln!(
        text,
        "  \\begin{{tabular}}{{p{{0.17\\textwidth}}rrrrrrrl}}\n    \\toprule\n    {} & $n$ & A & B & B$\\,-\\,$A & 95\\,\\% CI & of A \
         (\\%) & $p$ & Verdict \\\\\n    \\midrule",
        table.first
    );
    for (name, row) in &table.rows {
        let decimals = if table.one_metric { most } else { decimals(row) };
        let _ = writeln!(text, "    {} \\\\", cells_of(name, row, decimals, &tests).join(" & "));
    }
    for (name, because) in &table.absent {
        let _ =
            writeln!(text, "    {} & \\multicolumn{{8}}{{l}}{{{}}} \\\\", escaped(name), escaped(because));
    }
    text.push_str("    \\bottomrule\n  \\end{tabular}\n\\end{table*}\n");
}

fn cells_of(name: &str, row: &Comparison, decimals: usize, tests: &[&str]) -> [String; 9] {
    let spread = |described: &spark_trace_statistics::Description| {
        let sd = described.sd.map_or_else(|| "--".to_owned(), |sd| fixed(sd, decimals));
        format!("{} ({sd})", fixed(described.mean, decimals))
    };
    let interval = row.ci_simultaneous.or(row.ci);
    let mark = match tests.iter().position(|test| *test == row.test) {
        Some(place) if tests.len() > 1 => format!("$^{{{}}}$", char::from(b'a' + (place % 26) as u8)),
        _ => String::new(),
    };
    [
        escaped(name),
        format!("{}+{}", row.a.n, row.b.n),
        spread(&row.a),
        spread(&row.b),
        signed(row.difference, decimals),
        interval.map_or_else(
            || "--".to_owned(),
            |(low, high)| format!("[{}, {}]", signed(low, decimals), signed(high, decimals)),
        ),
        row.relative.map_or_else(|| "--".to_owned(), |part| signed(part * 100.0, 1)),
        row.p_adjusted().map_or_else(|| "--".to_owned(), |p| format!("${}${mark}", p_value(p))),
        row.verdict.as_str().to_owned(),
    ]
}

/// What the columns are; the tests by their names.
fn legend(table: &Rows<'_>, tests: &[&str]) -> String {
    let simultaneous = table.rows.iter().filter(|(_, row)| row.ci_simultaneous.is_some()).count();
    let intervals = match simultaneous {
        0 => "intervals hold one by one",
        all if all == table.rows.len() => "intervals hold all at once (Bonferroni)",
        _ => "intervals of primary metrics hold all at once (Bonferroni), others one by one",
    };
    let named = match tests {
        [] => String::new(),
        [test] => format!(" by {}", escaped(test)),
        many => {
            let marks =
                ('a'..='z').zip(many).map(|(mark, test)| format!("$^{{{mark}}}$\\,{}", escaped(test)));
            format!(" by {}", marks.collect::<Vec<_>>().join(", "))
        }
    };
    let adjusted = table.rows.iter().any(|(_, row)| row.p_adjusted().is_some());
    let p = if adjusted { format!("; $p$ adjusted (see methods){named}") } else { String::new() };
    format!("Mean (standard deviation); {intervals}{p}. $n$ is A+B")
}
