//! Metrics as text: OpenMetrics 1.0 (<https://prometheus.io/docs/specs/om/open_metrics_spec/>), and the older text
//! format 0.0.4 for clients that accept no other.

use std::fmt::{Display, Write};

use crate::escape;

/// Which of the two text formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    OpenMetrics,
    /// Of Prometheus before OpenMetrics: it has no `info`, and a counter is called as its samples are.
    Plain,
}

impl Dialect {
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Plain => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// Metrics of one name.
#[derive(Debug, Clone, Copy)]
pub struct Family {
    /// Ends in the unit where there is one; without `_total` and `_info`.
    pub name: &'static str,
    /// Empty where it counts things.
    pub unit: &'static str,
    pub about: &'static str,
}

/// One metric. What is unknown has no sample.
pub struct Point<V> {
    /// As [`labels`] makes them; empty for none.
    pub labels: String,
    pub value: Option<V>,
    /// Seconds since the epoch as text; absent where the time of reading the metrics is meant.
    pub time: Option<String>,
}

pub struct Exposition {
    text: String,
    dialect: Dialect,
}

impl Exposition {
    pub fn new(dialect: Dialect) -> Self {
        Self { text: String::new(), dialect }
    }

    pub fn gauge<V: Display>(&mut self, family: Family, points: impl IntoIterator<Item = Point<V>>) {
        self.family(family, "gauge", "", points);
    }

    /// `_total` is added to the samples' name.
    pub fn counter<V: Display>(&mut self, family: Family, points: impl IntoIterator<Item = Point<V>>) {
        self.family(family, "counter", "_total", points);
    }

    /// `_info` is added to the sample's name; its value is 1.
    pub fn info(&mut self, family: Family, labels: String, time: Option<String>) {
        self.family(family, "info", "_info", [Point { labels, value: Some(1), time }]);
    }

    /// A family without samples is none: not every reader takes one.
    fn family<V: Display>(
        &mut self,
        family: Family,
        kind: &str,
        suffix: &str,
        points: impl IntoIterator<Item = Point<V>>,
    ) {
        let Family { name, unit, about } = family;
        let known = points.into_iter().filter_map(|point| Some((point.labels, point.value?, point.time)));
        let mut known = known.peekable();
        if known.peek().is_none() {
            return;
        }
        let (of_type, kind) = match self.dialect {
            Dialect::OpenMetrics => (name.to_owned(), kind),
            Dialect::Plain => (format!("{name}{suffix}"), if kind == "info" { "gauge" } else { kind }),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "# TYPE {of_type} {kind}");
        if !unit.is_empty() && self.dialect == Dialect::OpenMetrics {
            let _ = writeln!(self.text, "# UNIT {name} {unit}");
        }
        let _ = writeln!(self.text, "# HELP {of_type} {}", text(about));
        for (labels, value, time) in known {
            let _ = write!(self.text, "{name}{suffix}{labels} {value}");
            // The older format has whole milliseconds there: nobody who accepts it gets times.
            if let Some(time) = time.filter(|_| self.dialect == Dialect::OpenMetrics) {
                let _ = write!(self.text, " {time}");
            }
            self.text.push('\n');
        }
    }

    pub fn finish(mut self) -> Vec<u8> {
        if self.dialect == Dialect::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text.into_bytes()
    }
}

/// A set of labels.
pub fn labels(labels: &[(&str, &str)]) -> String {
    let labels: Vec<_> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", text(value))).collect();
    format!("{{{}}}", labels.join(","))
}

/// Text in quotes, or behind `# HELP`.
fn text(value: &str) -> String {
    escape::percent(value).replace('\\', "\\\\").replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(dialect: Dialect) -> String {
        let mut exposition = Exposition::new(dialect);
        let point =
            |value| Point { labels: labels(&[("a", "x\n\"y\"")]), value, time: Some("1.5".to_owned()) };
        let family = |name, unit| Family { name, unit, about: "About." };
        exposition.gauge(family("held_bytes", "bytes"), [point(Some(3)), point(None)]);
        exposition.counter(family("kills", ""), [point(Some(4))]);
        exposition.info(family("it", ""), String::new(), None);
        exposition.gauge(family("unknown", ""), [point(None)]);
        String::from_utf8(exposition.finish()).unwrap()
    }

    #[test]
    fn openmetrics_has_units_times_and_an_end() {
        let expected = "# TYPE held_bytes gauge\n# UNIT held_bytes bytes\n# HELP held_bytes About.\n\
                        held_bytes{a=\"x%0A\\\"y\\\"\"} 3 1.5\n\
                        # TYPE kills counter\n# HELP kills About.\nkills_total{a=\"x%0A\\\"y\\\"\"} 4 1.5\n\
                        # TYPE it info\n# HELP it About.\nit_info 1\n# EOF\n";
        assert_eq!(both(Dialect::OpenMetrics), expected);
        openmetrics_parser::openmetrics::parse_openmetrics(expected).unwrap();
    }

    #[test]
    fn the_older_format_knows_neither_info_nor_units() {
        let expected = "# TYPE held_bytes gauge\n# HELP held_bytes About.\nheld_bytes{a=\"x%0A\\\"y\\\"\"} 3\n\
                        # TYPE kills_total counter\n# HELP kills_total About.\nkills_total{a=\"x%0A\\\"y\\\"\"} 4\n\
                        # TYPE it_info gauge\n# HELP it_info About.\nit_info 1\n";
        assert_eq!(both(Dialect::Plain), expected);
        openmetrics_parser::prometheus::parse_prometheus(expected).unwrap();
    }
}
