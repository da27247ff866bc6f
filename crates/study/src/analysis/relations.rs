//! Metrics that are functions of others: they are reported, and are no further evidence.

use std::collections::BTreeMap;

use serde::Serialize;
use spark_trace_statistics::association::linear_fit;

use crate::results::{Results, Run};

/// `of` is a function of `from` in all runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Relation {
    pub of: String,
    /// One metric or two, x and y.
    pub from: Vec<String>,
    pub form: Form,
    /// By what the metrics mean; otherwise found in the runs alone.
    pub known: bool,
    /// Largest distance of a run from it, in the unit of `of`.
    pub max_residual: f64,
    /// Runs that have all of them.
    pub n: usize,
}

/// Which function; factors are in the metrics' units.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "name")]
pub enum Form {
    /// slope x + intercept
    Linear { slope: f64, intercept: f64 },
    /// factor / x
    Reciprocal { factor: f64 },
    /// x + y
    Sum,
    /// x - y
    Difference,
    /// factor x y
    Product { factor: f64 },
    /// factor x / y
    Quotient { factor: f64 },
}

/// A function that follows from what the metrics mean. Few runs are enough, if they do not contradict.
struct Meant {
    of: &'static str,
    from: [&'static str; 2],
    form: Form,
}

const MEANT: &[Meant] =
    &[Meant { of: "total-throughput", from: ["output-throughput", "input-throughput"], form: Form::Sum }];

/// A function leaves no more than this part of the range within each model to chance: what models differ by hides what runs do.
const LEFT: f64 = 0.01;
const FEWEST: usize = 8;
/// What rounding in a log leaves of a function that is meant, as a part of the value.
const ROUNDED: f64 = 1e-3;
/// What computing leaves, as a part of the value.
const COMPUTED: f64 = 1e-9;

/// A metric's values in all runs that count, in their order.
struct Column<'a> {
    name: &'a str,
    values: Vec<Option<f64>>,
}

struct Runs<'a> {
    /// The model of each.
    models: Vec<&'a str>,
}

/// The relations of metrics in this order: each of metrics that come before it and are no functions themselves.
pub fn find<'a>(results: &'a Results, metrics: &[&'a String]) -> Vec<Relation> {
    let counted = || results.runs.iter().filter(|run| run.counts());
    let runs = Runs { models: counted().map(|run| run.model.as_str()).collect() };
    let (mut relations, mut free): (Vec<Relation>, Vec<Column<'_>>) = (vec![], vec![]);
    for name in metrics {
        let value = |run: &Run| run.metrics.get(*name).copied().filter(|value| value.is_finite());
        let column = Column { name, values: counted().map(value).collect() };
        // What is the same in all runs is no function of what varies, and nothing is one of it.
        if !varies(&column) {
            continue;
        }
        match runs.meant(&column, &free).or_else(|| runs.function(&column, &free)) {
            Some(relation) => relations.push(relation),
            None => free.push(column),
        }
    }
    relations
}

fn varies(column: &Column<'_>) -> bool {
    let mut known = column.values.iter().flatten();
    let first = known.next();
    known.any(|value| Some(value) != first)
}

impl Runs<'_> {
    fn meant(&self, of: &Column<'_>, free: &[Column<'_>]) -> Option<Relation> {
        let meant = MEANT.iter().find(|meant| meant.of == of.name)?;
        let column = |name: &str| free.iter().find(|column| column.name == name);
        let from = [column(meant.from[0])?, column(meant.from[1])?];
        self.holds(of, &from, meant.form, 2, |value, _| value.abs() * ROUNDED)
            .map(|found| Relation { known: true, ..found })
    }

    /// Of one metric where that is enough.
    fn function(&self, of: &Column<'_>, free: &[Column<'_>]) -> Option<Relation> {
        let within = |value: f64, range: f64| range * LEFT + value.abs() * COMPUTED;
        let try_one = |x: &Column<'_>| {
            let known = of.values.iter().zip(&x.values).filter_map(|(of, x)| (*x).zip(*of));
            let (x_values, y_values): (Vec<f64>, Vec<f64>) = known.unzip();
            let line = linear_fit(&x_values, &y_values).ok().filter(|fit| fit.slope != 0.0);
            let line = line.map(|fit| Form::Linear { slope: fit.slope, intercept: fit.intercept });
            let forms = line.into_iter().chain([Form::Reciprocal { factor: 1.0 }]);
            forms.into_iter().find_map(|form| self.holds(of, &[x], form, FEWEST, within))
        };
        let try_two = |(x, y): (&Column<'_>, &Column<'_>)| {
            [Form::Sum, Form::Difference, Form::Product { factor: 1.0 }, Form::Quotient { factor: 1.0 }]
                .into_iter()
                .find_map(|form| self.holds(of, &[x, y], form, FEWEST, within))
        };
        let pairs = free.iter().enumerate().flat_map(|(place, x)| {
            free.iter().enumerate().filter(move |(other, _)| *other != place).map(move |(_, y)| (x, y))
        });
        free.iter().find_map(try_one).or_else(|| pairs.into_iter().find_map(try_two))
    }

    /// The relation, if it holds in all runs that have its metrics, with the factor that fits best.
    fn holds(
        &self,
        of: &Column<'_>,
        from: &[&Column<'_>],
        form: Form,
        fewest: usize,
        within: impl Fn(f64, f64) -> f64,
    ) -> Option<Relation> {
        let inputs = |run: usize| -> Option<(f64, f64)> {
            let y = from.get(1).map_or(Some(0.0), |column| column.values[run])?;
            Some((from[0].values[run]?, y))
        };
        let runs = || (0..self.models.len()).filter_map(|run| Some((run, of.values[run]?, inputs(run)?)));
        // The first run's factor is near enough to leave most of what is none at once.
        let first = runs().next().map(|(_, value, inputs)| (value, form.at(inputs)))?;
        let form = form.scaled(first.0 / first.1);
        let mut ranges: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
        for (run, value, _) in runs() {
            let range = ranges.entry(self.models[run]).or_insert((value, value));
            *range = (range.0.min(value), range.1.max(value));
        }
        let allowed = |run: usize, value: f64| {
            let (least, most) = ranges.get(self.models[run]).copied().unwrap_or_default();
            within(value, most - least)
        };
        let far = |form: Form, times: f64| {
            runs().any(|(run, value, inputs)| {
                // Not a number is far, too.
                let distance = (value - form.at(inputs)).abs();
                distance.is_nan() || distance > times * allowed(run, value)
            })
        };
        if far(form, 3.0) {
            return None;
        }
        let (products, squares) = runs().fold((0.0, 0.0), |(products, squares), (_, value, inputs)| {
            let fitted = form.at(inputs);
            (products + value * fitted, squares + fitted * fitted)
        });
        let form = form.scaled(products / squares);
        let n = runs().count();
        let max_residual =
            runs().map(|(_, value, inputs)| (value - form.at(inputs)).abs()).fold(0.0, f64::max);
        (n >= fewest && !far(form, 1.0)).then(|| Relation {
            of: of.name.to_owned(),
            from: from.iter().map(|column| column.name.to_owned()).collect(),
            form,
            known: false,
            max_residual,
            n,
        })
    }
}

impl Form {
    fn at(self, (x, y): (f64, f64)) -> f64 {
        match self {
            Self::Linear { slope, intercept } => slope * x + intercept,
            Self::Reciprocal { factor } => factor / x,
            Self::Sum => x + y,
            Self::Difference => x - y,
            Self::Product { factor } => factor * x * y,
            Self::Quotient { factor } => factor * x / y,
        }
    }

    /// Those that have a factor have it so many times.
    fn scaled(self, by: f64) -> Self {
        match self {
            Self::Linear { .. } | Self::Sum | Self::Difference => self,
            Self::Reciprocal { factor } => Self::Reciprocal { factor: factor * by },
            Self::Product { factor } => Self::Product { factor: factor * by },
            Self::Quotient { factor } => Self::Quotient { factor: factor * by },
        }
    }
}

impl Relation {
    /// As people write it: a factor of a difference where the line falls.
    pub fn written(&self) -> String {
        let of = &self.of;
        let (x, y) =
            (self.from.first().map_or("", String::as_str), self.from.get(1).map_or("", String::as_str));
        match self.form {
            Form::Linear { slope, intercept } if slope < 0.0 => {
                format!("{of} = {:.3} × ({:.3} − {x})", -slope, intercept / -slope)
            }
            Form::Linear { slope, intercept } => {
                let sign = if intercept < 0.0 { "−" } else { "+" };
                format!("{of} = {slope:.5} × {x} {sign} {:.3}", intercept.abs())
            }
            Form::Reciprocal { factor } => format!("{of} = {factor:.3} / {x}"),
            Form::Sum => format!("{of} = {x} + {y}"),
            Form::Difference => format!("{of} = {x} − {y}"),
            Form::Product { factor } => format!("{of} = {factor:.5} × {x} × {y}"),
            Form::Quotient { factor } => format!("{of} = {factor:.5} × {x} / {y}"),
        }
    }
}
