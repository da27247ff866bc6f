//! What the runs of one comparison measured.

use super::axes::{Axis, BELOW};
use super::{MARK, Sign, legend, mark, measured, result};
use crate::analysis::Comparison;
use crate::analysis::compare::Point;
use crate::analysis::sample::Sample;
use crate::report::tables::number;
use spark_trace_render::scene::letters::width;
use spark_trace_render::scene::{Anchor, Ink, Scene, Size, WIDTH};

const PLOT: f64 = 150.0;
const RIGHT: f64 = WIDTH - 8.0;

fn values(row: &Comparison) -> impl Iterator<Item = f64> + Clone + '_ {
    row.a_values.iter().chain(&row.b_values).map(|point| point.value)
}

fn sides(row: &Comparison) -> [(&[Point], bool); 2] {
    [(&row.a_values, true), (&row.b_values, false)]
}

fn names(row: &Comparison, sign: fn(bool) -> Sign) -> Vec<(Sign, String)> {
    vec![(sign(true), format!("A: {}", row.a_name)), (sign(false), format!("B: {}", row.b_name))]
}

/// Every run in the order of running: what drifts is seen here.
pub fn order(row: &Comparison) -> Option<(Scene, String)> {
    let numbers = || row.a_values.iter().chain(&row.b_values).map(|point| point.number);
    let title = format!("{} run by run", row.subject.title);
    let counts = format!("{} runs of A ({}) and {} of B ({})", row.a.n, row.a_name, row.b.n, row.b_name);
    let caption =
        format!("{}, {}: {counts} in the order of running. {}", row.model, measured(row), result(row));
    let mut scene = Scene::new(title, &caption, 0.0);
    let mut entries = names(row, Sign::Mark);
    if sides(row).iter().any(|(points, _)| points.iter().any(|point| point.outlier)) {
        entries.push((Sign::Ring, "outlier in its environment (Tukey's fences)".to_owned()));
    }
    let title_y = legend(&mut scene, &entries);
    let (top, bottom) = (title_y + 10.0, title_y + 10.0 + PLOT);
    let upwards = Axis::upwards(values(row), (bottom, top));
    let left = upwards.room();
    let across = Axis::counting(numbers(), (left + 10.0, RIGHT - 10.0));
    across.draw_across(&mut scene, (bottom, bottom + 3.0), "Run, in the order of running");
    upwards.draw_upwards(&mut scene, (left, RIGHT), (&measured(row), title_y));
    for (points, of_a) in sides(row) {
        for point in points {
            let place = (across.at(f64::from(point.number)), upwards.at(point.value));
            if point.outlier {
                scene.circle(Ink::Outlier, place, MARK + 2.5);
            }
            mark(&mut scene, of_a, place);
        }
    }
    scene.height = bottom + BELOW;
    Some((scene, caption))
}

/// Median, quartiles and range of both, and every value.
pub fn boxes(row: &Comparison) -> Option<(Scene, String)> {
    const ROW: f64 = 40.0;
    const LEFT: f64 = 22.0;
    let title = format!("{}: median, quartiles, range", row.subject.title);
    let caption = format!(
        "{}, {}: every run, median, quartiles and range. A: median {}, quartiles {} to {}; B: median {}, quartiles {} to {}.",
        row.model,
        measured(row),
        number(row.a.median),
        number(row.a.q1),
        number(row.a.q3),
        number(row.b.median),
        number(row.b.q1),
        number(row.b.q3),
    );
    let mut scene = Scene::new(title, &caption, 0.0);
    let top = legend(&mut scene, &names(row, Sign::Mark)) - 8.0;
    let bottom = top + 2.0 * ROW;
    let axis = Axis::across(values(row), (LEFT, RIGHT));
    axis.draw_across(&mut scene, (top, bottom), &measured(row));
    let described = [("A", &row.a), ("B", &row.b)];
    for (place, ((points, of_a), (name, described))) in (0..).zip(sides(row).into_iter().zip(described)) {
        let middle = top + f64::from(place) * ROW + ROW / 2.0;
        scene.text(Size::Label, (2.0, middle + 4.0), Anchor::Start, name);
        scene.line(Ink::Range, (axis.at(described.min), middle), (axis.at(described.max), middle));
        let quartiles = (axis.at(described.q1), axis.at(described.q3));
        scene.rect(
            Ink::Quartiles,
            (quartiles.0, middle - 11.0),
            ((quartiles.1 - quartiles.0).max(1.0), 22.0),
        );
        let median = axis.at(described.median);
        points.iter().for_each(|point| mark(&mut scene, of_a, (axis.at(point.value), middle)));
        scene.line(Ink::Median, (median, middle - 15.0), (median, middle + 15.0));
    }
    scene.height = bottom + BELOW;
    Some((scene, caption))
}

/// How many runs have at most a value.
pub fn cumulative(row: &Comparison) -> Option<(Scene, String)> {
    let title = format!("{}: part of the runs with at most this value", row.subject.title);
    let caption = format!("{}, {}: empirical distribution functions.", row.model, measured(row));
    let mut scene = Scene::new(title, &caption, 0.0);
    let title_y =
        legend(&mut scene, &names(row, |of_a| Sign::Stroke(if of_a { Ink::StepA } else { Ink::StepB })));
    let (top, bottom) = (title_y + 10.0, title_y + 10.0 + PLOT);
    let upwards = Axis::upwards([0.0, 100.0].into_iter(), (bottom, top));
    let left = upwards.room();
    let axis = Axis::across(values(row), (left, RIGHT));
    axis.draw_across(&mut scene, (top, bottom), &measured(row));
    upwards.draw_upwards(&mut scene, (left, RIGHT), ("Runs with at most this value (%)", title_y));
    for (points, of_a) in sides(row) {
        let ink = if of_a { Ink::StepA } else { Ink::StepB };
        let mut values: Vec<f64> = points.iter().map(|point| point.value).collect();
        values.sort_by(f64::total_cmp);
        let n = values.len() as f64;
        let mut last = (left, upwards.at(0.0));
        for (below, value) in (1..).zip(values) {
            let next = (axis.at(value), upwards.at(f64::from(below) / n * 100.0));
            scene.line(ink, last, (next.0, last.1));
            scene.line(ink, (next.0, last.1), next);
            last = next;
        }
        scene.line(ink, last, (RIGHT, last.1));
    }
    scene.height = bottom + BELOW;
    Some((scene, caption))
}

/// B minus A of each round, which is what the paired test sees: with its mean, interval, zero and the margin.
pub fn pairs(row: &Comparison) -> Option<(Scene, String)> {
    const MEAN: &str = "mean, CI";
    if !Sample::of(&row.a_values, &row.b_values).paired {
        return None;
    }
    let of_round = |round: u32| row.b_values.iter().find(|point| point.round == Some(round));
    let pair = |point: &Point| Some((point.round?, of_round(point.round?)?.value - point.value));
    let pairs: Vec<(u32, f64)> = row.a_values.iter().filter_map(pair).collect();
    let title = format!("{}: B minus A of each round", row.subject.title);
    let caption = format!(
        "{}, {}: B ({}) minus A ({}) of the runs of one round, {} pairs; at the right their mean with its 95 % confidence \
         interval.{} {}",
        row.model,
        measured(row),
        row.b_name,
        row.a_name,
        pairs.len(),
        row.margin.map_or_else(String::new, |margin| format!(
            " The band is the margin of equivalence, ±{}.",
            number(margin)
        )),
        result(row),
    );
    let mut scene = Scene::new(title, &caption, 0.0);
    let title_y = 12.0;
    let (top, bottom) = (title_y + 10.0, title_y + 10.0 + PLOT);
    let interval = row.ci.into_iter().flat_map(|(low, high)| [low, high]);
    let shown = pairs.iter().map(|(_, by)| *by).chain(interval).chain([0.0]);
    let most = shown.clone().map(f64::abs).fold(0.0, f64::max);
    // A margin far beyond all pairs would make one point of them.
    let margin = row.margin.unwrap_or(0.0);
    let margin_shown = margin.min(most * 2.0);
    let upwards = Axis::upwards(shown.chain([-margin_shown, margin_shown]), (bottom, top));
    let (left, gutter) = (upwards.room(), width(Size::Axis, MEAN) + 12.0);
    let right = RIGHT - gutter;
    // A margin beyond the plot fills it.
    let (above, below) =
        if margin > margin_shown { (top, bottom) } else { (upwards.at(margin), upwards.at(-margin)) };
    scene.rect(Ink::Margin, (left, above), (RIGHT - left, below - above));
    let across = Axis::counting(pairs.iter().map(|(round, _)| *round), (left + 10.0, right - 10.0));
    across.draw_across(&mut scene, (bottom, bottom + 3.0), "Round");
    let unit = super::in_unit(&format!("{}: B \u{2212} A", row.subject.title), &row.subject.unit);
    upwards.draw_upwards(&mut scene, (left, RIGHT), (&unit, title_y));
    scene.line(Ink::Zero, (left, upwards.at(0.0)), (RIGHT, upwards.at(0.0)));
    for (round, by) in &pairs {
        mark(&mut scene, true, (across.at(f64::from(*round)), upwards.at(*by)));
    }
    let middle = RIGHT - gutter / 2.0;
    if let Some((low, high)) = row.ci {
        let (low, high) = (upwards.at(low), upwards.at(high));
        scene.line(Ink::Interval, (middle, low), (middle, high));
        for end in [low, high] {
            scene.line(Ink::Interval, (middle - 5.0, end), (middle + 5.0, end));
        }
    }
    scene.line(
        Ink::Median,
        (middle - 8.0, upwards.at(row.difference)),
        (middle + 8.0, upwards.at(row.difference)),
    );
    scene.text(Size::Axis, (middle, bottom + 17.0), Anchor::Middle, MEAN);
    scene.height = bottom + BELOW;
    Some((scene, caption))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::{Options, report};
    use crate::report::charts::{OF_ONE, metrics, models};
    use crate::results::{Origin, Results, Run, SCHEMA, SCHEMA_VERSION};
    use spark_trace_render::scene::Item;

    /// Ten rounds of two environments that differ by `difference`.
    fn compared(difference: f64, wobble: f64) -> Comparison {
        let run = |number: u32| {
            let (round, in_b) = (number.div_ceil(2), number.is_multiple_of(2));
            let value = 100.0 + f64::from(number * number % 7) * wobble + if in_b { difference } else { 0.0 };
            Run {
                number,
                attempt: 1,
                environment: if in_b { "an environment with a long name" } else { "native" }.to_owned(),
                model: "a model with a very long name, longer than any picture is wide, of 120B".to_owned(),
                iteration: round,
                round: Some(round),
                metrics: [("peak-memory".to_owned(), value)].into(),
                ..Run::default()
            }
        };
        let runs: Vec<Run> = (1..=20).map(run).collect();
        let results = Results {
            schema: SCHEMA.to_owned(),
            schema_version: SCHEMA_VERSION,
            name: "s".to_owned(),
            description: String::new(),
            origin: Origin::Simulated,
            environments: vec!["native".to_owned(), runs[1].environment.clone()],
            models: vec![runs[0].model.clone()],
            alike: vec![],
            planned: None,
            looks: vec![],
            rounds_over: Default::default(),
            traits: Default::default(),
            units: Default::default(),
            happenings: vec![],
            primary: vec![],
            order: None,
            machine: Default::default(),
            runs,
        };
        report(&results, Options { resamples: 0, ..Options::default() }).comparisons.remove(0)
    }

    fn inside(scene: &Scene) -> bool {
        let within = |x: f64, y: f64| {
            (-0.01..=WIDTH + 0.01).contains(&x) && (-0.01..=scene.height + 0.01).contains(&y)
        };
        scene.items.iter().all(|item| match item {
            Item::Line { from, to, .. } => within(from.0, from.1) && within(to.0, to.1),
            Item::Rect { at, size, .. } => within(at.0, at.1) && within(at.0 + size.0, at.1 + size.1),
            Item::Circle { middle, .. } => within(middle.0, middle.1),
            Item::Text { size, at, anchor, text } => {
                let room = width(*size, text);
                let left = at.0
                    - match anchor {
                        Anchor::Start => 0.0,
                        Anchor::Middle => room / 2.0,
                        Anchor::End => room,
                    };
                within(left, at.1) && within(left + room, at.1)
            }
        })
    }

    /// Whatever the values are: pages do not cut off what leaves a picture.
    #[test]
    fn everything_is_in_the_picture() {
        for (difference, wobble) in
            [(0.0, 0.0), (0.001, 0.0), (0.01, 0.001), (30.0, 2.0), (-99.0, 0.1), (1e9, 1e6)]
        {
            let row = compared(difference, wobble);
            let charts = OF_ONE.iter().map(|(_, draw)| draw(&row));
            for (scene, caption) in charts.chain([metrics(&[&row]), models(&[&row])]).flatten() {
                assert!(inside(&scene), "{difference}, {wobble}: {scene:?}");
                assert!(!caption.contains("NaN") && scene.height > 50.0, "{caption}");
            }
        }
    }

    #[test]
    fn pairs_are_those_of_the_rounds() {
        let row = compared(30.0, 2.0);
        let (scene, caption) = pairs(&row).unwrap();
        let marks =
            scene.items.iter().filter(|item| matches!(item, Item::Circle { ink: Ink::A, .. })).count();
        assert_eq!(marks, 10);
        assert!(caption.contains("10 pairs") && caption.contains("±"), "{caption}");
    }
}
