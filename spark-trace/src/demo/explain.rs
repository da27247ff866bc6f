//! What the comparison shows, in words. Every number is the comparison's own. Pure.

use super::{CONTAINER_ANON, FILE, FILE_NAME, NATIVE_ANON, Place};
use spark_trace_analysis::diff::{Report, detail::FileDelta};
use spark_trace_analysis::signed::signed;
use spark_trace_recording::units::{delta, known, size};

/// Paragraphs of plain text.
pub fn paragraphs(report: &Report, place: Place) -> Vec<String> {
    [Some(anonymous(report, place)), page_cache(report, place), Some(rest(report))]
        .into_iter()
        .flatten()
        .collect()
}

fn anonymous(report: &Report, place: Place) -> String {
    let row = report.sources.iter().find(|row| row.source == "anon");
    let requested = requested_delta();
    format!(
        "Anonymous memory: the workload allocates {} more in the {noun} than in the native run. Found: {} of \
         `anon` ({} against {}).",
        size(requested),
        known(row.and_then(|row| row.delta_bytes), delta),
        known(row.and_then(|row| row.b_bytes), size),
        known(row.and_then(|row| row.a_bytes), size),
        noun = place.noun(),
    )
}

fn requested_delta() -> i64 {
    signed(CONTAINER_ANON) - signed(NATIVE_ANON)
}

/// Who pays for the file, as the hooks on the page cache saw it.
fn page_cache(report: &Report, place: Place) -> Option<String> {
    let rows: Vec<_> = report.files.iter().filter(|row| is_ours(row)).collect();
    let sum = |side: fn(&FileDelta) -> i64| rows.iter().map(|row| side(row)).fold(0, i64::saturating_add);
    let (native, second) = (sum(|row| row.a_bytes), sum(|row| row.b_bytes));
    let holder = rows.iter().flat_map(|row| &row.a_holders).find(|holder| holder.charged_to_target)?;
    let noun = place.noun();
    let paid = match second {
        0 => {
            format!("the {noun} reads the same file from the page cache and is charged nothing for it")
        }
        bytes => {
            format!(
                "the {noun} found the file in the page cache except {0}, and is charged for these {0} only",
                size(bytes)
            )
        }
    };
    let cached = report.sources.iter().filter(|row| row.source.starts_with("file-"));
    let cached = cached.filter_map(|row| row.delta_bytes).fold(0, i64::saturating_add);
    Some(format!(
        "Page cache: the native run read {FILE_NAME} ({}) first, so {} of it are charged to its cgroup {}; {paid}. \
         File pages (`file-clean` and `file-dirty`) differ by {} in all. That is no saving: the kernel charges a file to the cgroup that \
         touches it first.",
        size(signed(FILE)),
        size(native),
        holder.charged_to,
        delta(cached),
    ))
}

fn is_ours(row: &FileDelta) -> bool {
    row.path.rsplit('/').next() == Some(FILE_NAME)
}

fn rest(report: &Report) -> String {
    format!(
        "In total the kernel charges {} ({} against {}); {} of that are unattributed.",
        known(report.total_delta_bytes, delta),
        known(report.b.expected, size),
        known(report.a.expected, size),
        known(report.residual_bytes, delta),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use spark_trace_analysis::{diff, instant_spec::InstantSpec};
    use spark_trace_testing as testing;

    #[test]
    fn numbers_are_those_of_the_comparison() {
        let report =
            diff::report(&testing::native(), &testing::container(), None, InstantSpec::Peak).unwrap();
        let text = paragraphs(&report, Place::Sandbox).join("\n");
        let row = report.sources.iter().find(|row| row.source == "anon").unwrap();
        assert!(text.contains("64.0 MiB more in the sandbox"), "{text}");
        assert!(text.contains(&format!("Found: {} of", delta(row.delta_bytes.unwrap()))), "{text}");
        // Another workload's recording: nothing is said of a file that is not in it.
        assert!(!text.contains(FILE_NAME), "{text}");
    }

    #[test]
    fn the_file_comes_with_its_charged_cgroup() {
        let mut native = testing::native();
        for file in &mut native.provenance.files {
            (file.path, file.place) = (Some(format!("/x/{FILE_NAME}")), None);
        }
        let mut report = diff::report(&native, &testing::container(), None, InstantSpec::Peak).unwrap();
        let ours = report.files.iter_mut().find(|row| is_ours(row)).unwrap();
        ours.a_holders[0].charged_to_target = true;
        let read_first = format!("so {} of it are charged to its cgroup", size(ours.a_bytes));
        for (bytes, expected) in [(0, "is charged nothing"), (2 << 20, "in the page cache except 2.0 MiB")] {
            report.files.iter_mut().find(|row| is_ours(row)).unwrap().b_bytes = bytes;
            let text = page_cache(&report, Place::Docker).unwrap();
            assert!(text.contains(&read_first) && text.contains(expected), "{text}");
        }
    }
}
