//! How a source looks in every chart: a colour of Okabe and Ito for its family, and a pattern for its place in it, so
//! that nothing depends on distinguishing colours.

use super::super::page::Page;
use spark_trace_analysis::timeline::OTHERS;

/// Source, colour and pattern.
type Fill = (&'static str, &'static str, Pattern);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pattern {
    Plain,
    Stripes,
    Dots,
    Grid,
}

use Pattern::{Dots, Grid, Plain, Stripes};

const FILLS: &[Fill] = &[
    ("anon", "blue", Plain),
    ("anon-pinned", "blue", Stripes),
    ("anon-unmapped", "blue", Dots),
    ("shmem", "sky", Plain),
    ("shmem-pinned", "sky", Stripes),
    ("zswap", "sky", Dots),
    ("file-clean", "orange", Plain),
    ("file-dirty", "orange", Stripes),
    ("swap-cache", "orange", Dots),
    ("slab-reclaimable", "yellow", Plain),
    ("slab-unreclaimable", "yellow", Stripes),
    ("kernel-stack", "yellow", Dots),
    ("page-tables", "yellow", Grid),
    ("percpu", "purple", Plain),
    ("vmalloc", "purple", Stripes),
    ("sock", "purple", Dots),
    ("hugetlb", "purple", Grid),
    ("huge-zero-page", "sky", Grid),
    ("kernel-other", "red", Plain),
    ("nvidia-sysmem", "green", Plain),
    ("nvidia-managed", "green", Stripes),
    ("nvidia-pool", "green", Dots),
    ("free-percpu-lists", "grey", Dots),
    ("gpu-allocated", "green", Plain),
    ("gpu-shared-process", "green", Grid),
    ("gpu-before", "green", Dots),
    ("gpu-context", "green", Stripes),
    ("gpu-other-processes", "red", Dots),
    ("gpu-reserved", "grey", Grid),
    (OTHERS, "grey", Plain),
    // What no counter explains must not look like a source.
    (REST, "white", Grid),
];

/// `unattributed`, and what a table here forgot.
const REST: &str = spark_trace_common::source::UNATTRIBUTED;

/// The `fill` of a source.
pub fn of(source: &str) -> String {
    let known = FILLS.iter().any(|(name, ..)| *name == source);
    format!("url(#fill-{})", if known { source } else { REST })
}

/// Name of a source's colour.
pub fn colour(source: &str) -> &'static str {
    FILLS.iter().find(|(name, ..)| *name == source).map_or("white", |(_, colour, _)| colour)
}

/// All fills, once per page.
pub fn define(page: &mut Page) {
    page.within(
        "svg",
        &[("class", "definitions"), ("aria-hidden", "true"), ("focusable", "false")],
        |page| {
            page.within("defs", &[], |page| {
                for (source, colour, pattern) in FILLS {
                    self::pattern(page, &format!("fill-{source}"), colour, *pattern);
                }
                pattern(page, "fill-more", "red", Plain);
                pattern(page, "fill-less", "blue", Stripes);
            });
        },
    );
}

fn pattern(page: &mut Page, id: &str, colour: &str, pattern: Pattern) {
    let attributes = [("id", id), ("width", "8"), ("height", "8"), ("patternUnits", "userSpaceOnUse")];
    page.within("pattern", &attributes, |page| {
        page.within("rect", &[("class", colour), ("width", "8"), ("height", "8")], |_| ());
        let ink = match pattern {
            Plain => return,
            // The line goes on at the corners of the neighbours.
            Stripes => "M-2 2L2 -2M0 8L8 0M6 10L10 6",
            Dots => "M2 2h2v2h-2zM6 6h2v2h-2z",
            Grid => "M0 0H8M0 0V8",
        };
        page.within("path", &[("class", "ink"), ("d", ink)], |_| ());
    });
}

/// A sample of a source's fill for a legend or a table.
pub fn swatch(page: &mut Page, source: &str) {
    let fill = of(source);
    let attributes = [("class", "swatch"), ("width", "14"), ("height", "14"), ("aria-hidden", "true")];
    page.within("svg", &attributes, |page| {
        page.within("rect", &[("width", "14"), ("height", "14"), ("fill", &fill)], |_| ());
    });
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use spark_trace_common::source::SOURCES;

    #[test]
    fn every_source_has_a_look_of_its_own_on_its_plane() {
        for source in SOURCES {
            assert!(FILLS.iter().any(|(name, ..)| *name == source.slug), "{} has no fill", source.slug);
        }
        for of_gpu in [false, true] {
            let fills = FILLS.iter().filter(|(name, ..)| name.starts_with("gpu-") == of_gpu);
            let looks: Vec<_> = fills.map(|(_, colour, pattern)| format!("{colour} {pattern:?}")).collect();
            assert_eq!(looks.len(), looks.iter().collect::<BTreeSet<_>>().len(), "{looks:?}");
        }
    }

    #[test]
    fn an_unknown_source_looks_like_the_rest() {
        assert_eq!(of("\"/><script>"), "url(#fill-unattributed)");
    }
}
