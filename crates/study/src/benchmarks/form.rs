//! The forms in which a benchmark writes its report.

/// A figure on a line of text.
#[derive(Debug)]
pub struct Label {
    pub metric: &'static str,
    pub at: At,
    /// From the unit of the report to that of the metric.
    pub scale: f64,
}

/// Where on a line the number is.
#[derive(Debug)]
pub enum At {
    /// Behind these words and a colon. Before the words is nothing but what a logger puts there.
    Words(&'static str),
    /// The first group of an expression.
    Group(&'static str),
}

/// A figure of a JSON object, by its pointer (RFC 6901).
#[derive(Debug)]
pub struct Key {
    pub metric: &'static str,
    pub pointer: &'static str,
    pub scale: f64,
}

/// One line of a table of results: the speed in one test.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    pub metric: &'static str,
    /// `pp512`, `tg128-d4096`.
    pub test: String,
    pub value: f64,
}

#[derive(Debug)]
pub enum Form {
    Text {
        /// Stands on the first line of a report.
        begins: &'static str,
        /// Reports that one run of the benchmark writes, of which the last is its result.
        usual: usize,
        /// Stand on lines of every report of this form.
        with: &'static [&'static str],
        /// Stand on lines of another benchmark's reports.
        without: &'static [&'static str],
        labels: &'static [Label],
    },
    Json {
        with: &'static [&'static str],
        without: &'static [&'static str],
        keys: &'static [Key],
    },
    /// Rows of objects, each of which is one test.
    Objects(fn(&serde_json::Value) -> Vec<Row>),
    /// Rows of a table in text: CSV, Markdown.
    Table {
        form: &'static str,
        read: fn(&str) -> Vec<Row>,
    },
}

#[derive(Debug)]
pub struct Benchmark {
    /// As its users call it.
    pub name: &'static str,
    pub engine: &'static str,
    /// Of the engine, whose source was read.
    pub versions: &'static str,
    /// The first is the most exact.
    pub forms: &'static [Form],
}
