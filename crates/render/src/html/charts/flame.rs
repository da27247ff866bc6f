//! Flame graphs: laid out by the library, set into our own picture without its script, style and controls.

use std::io;

use super::super::page::Page;
use super::super::svg::Frames;
use super::picture;
use crate::stack_frames::inert;
use spark_trace_analysis::flame::{Flame, Row};
use spark_trace_recording::units::unsigned;

/// Frames narrower than this part of the whole, in percent, are not drawn.
const LEAST: f64 = 0.15;
/// Width that texts are cut for; narrower screens scroll.
const WIDTH: usize = 1000;
/// Longer names are cut: a picture has no room for them.
const NAME: usize = 200;

#[derive(Debug, thiserror::Error)]
pub enum FlameError {
    #[error("flame graph cannot be drawn")]
    Draw(#[from] io::Error),
    #[error("flame graph is not in the form that is known")]
    Form,
}

/// Draws `flame`; where `compared`, colours show how B differs from A.
pub fn draw(page: &mut Page, title: &str, flame: &Flame, compared: bool) -> Result<(), FlameError> {
    let frames = frames(flame, compared)?;
    let description = format!(
        "{} stacks, {} in all; outermost frames at the top. Each frame has its name and bytes as its title.",
        flame.rows.len(),
        unsigned(flame.rows.iter().map(|row| row.b_bytes).fold(0, u64::saturating_add))
    );
    let class = if compared { "flame compared" } else { "flame" };
    page.within(
        "div",
        &[("class", "zoomable wide"), ("tabindex", "0"), ("role", "group"), ("aria-label", title)],
        |page| {
            picture(page, class, frames.height(), (title, &description), |page| page.drawn(&frames));
        },
    );
    Ok(())
}

fn frames(flame: &Flame, compared: bool) -> Result<Frames, FlameError> {
    let mut options = inferno::flamegraph::Options::default();
    options.direction = inferno::flamegraph::Direction::Inverted;
    options.count_name = "bytes".to_owned();
    // The same recording gives the same bytes.
    options.deterministic = true;
    options.colors = inferno::flamegraph::Palette::Basic(inferno::flamegraph::color::BasicPalette::Orange);
    options.image_width = Some(WIDTH);
    options.min_width = LEAST;
    options.no_sort = false;
    options.text_truncate_direction = inferno::flamegraph::TextTruncateDirection::Right;
    let lines: Vec<_> = flame.rows.iter().map(|row| line(row, compared)).collect();
    let mut drawn = Vec::new();
    inferno::flamegraph::from_lines(&mut options, lines.iter().map(String::as_str), &mut drawn)?;
    Frames::clean(&String::from_utf8_lossy(&drawn)).ok_or(FlameError::Form)
}

/// `outermost;...;innermost A B`, as the library reads it.
fn line(row: &Row, compared: bool) -> String {
    let frames: Vec<_> = row.frames.iter().map(|frame| name(frame)).collect();
    let before = if compared { format!(" {}", row.a_bytes) } else { String::new() };
    format!("{}{before} {}", frames.join(";"), row.b_bytes)
}

/// A frame's name, cut where it is too long.
fn name(frame: &str) -> String {
    let whole = inert(frame);
    let cut: String = whole.chars().take(NAME).collect();
    if cut.len() < whole.len() { format!("{cut}…") } else { cut }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::html::svg::FRAME;
    use spark_trace_analysis::flame::LeftOut;

    fn flame(stacks: &[(&[&str], u64, u64)]) -> Flame {
        let row = |&(frames, a_bytes, b_bytes): &(&[&str], u64, u64)| Row {
            frames: frames.iter().map(|frame| (*frame).to_owned()).collect(),
            a_bytes,
            b_bytes,
        };
        Flame { kind: "x", title: "x", rows: stacks.iter().map(row).collect(), left_out: LeftOut::default() }
    }

    /// The title of each frame, sorted.
    fn titles(drawn: &Frames) -> Vec<&str> {
        let parts = drawn.as_str().split("<title>").skip(1);
        let mut titles: Vec<_> = parts.map(|part| part.split_once("</title>").unwrap().0).collect();
        titles.sort_unstable();
        titles
    }

    #[test]
    fn frames_are_all_that_is_left() {
        let drawn =
            frames(&flame(&[(&["anon", "main", "f fg:x=\"1\""], 0, 4096), (&["anon", "g"], 0, 4096)]), false);
        let drawn = drawn.unwrap();
        for gone in ["<script", "<style", "onload", "fg:w", "Search", "id=", "xmlns"] {
            assert!(!drawn.as_str().contains(gone), "{gone} in {}", drawn.as_str());
        }
        assert_eq!(
            titles(&drawn),
            [
                "all (8,192 bytes, 100%)",
                "anon (8,192 bytes, 100.00%)",
                "f fg:x=&quot;1&quot; (4,096 bytes, 50.00%)",
                "g (4,096 bytes, 50.00%)",
                "main (4,096 bytes, 50.00%)",
            ]
        );
        assert_eq!(drawn.height(), 4 * FRAME + 2);
        let again = frames(&flame(&[(&["anon", "main"], 0, 4096)]), false).unwrap();
        assert_eq!(again.as_str(), frames(&flame(&[(&["anon", "main"], 0, 4096)]), false).unwrap().as_str());
    }

    #[test]
    fn a_difference_is_named_in_words() {
        let drawn = frames(&flame(&[(&["slab", "f"], 100, 300), (&["slab", "g"], 100, 100)]), true).unwrap();
        assert_eq!(
            titles(&drawn),
            [
                "all (400 bytes, 100%)",
                "f (300 bytes, 75.00%; +50.00%)",
                "g (100 bytes, 25.00%; 0.00%)",
                "slab (400 bytes, 100.00%; 0.00%)",
            ]
        );
    }

    #[test]
    fn hostile_names_are_one_frame() {
        let hostile = "# a;b </title><script>alert(1)</script> 7 8\n\u{202e}";
        let long = "x".repeat(300);
        let drawn = frames(&flame(&[(&["anon", hostile, &long], 0, 100)]), false).unwrap();
        assert!(!drawn.as_str().contains("<script") && !drawn.as_str().contains('\u{202e}'));
        assert!(drawn.as_str().contains("a,b &lt;/title&gt;&lt;script&gt;"), "{}", drawn.as_str());
        assert!(!drawn.as_str().contains(&long));
        assert_eq!(drawn.height(), 4 * FRAME + 2);
    }

    #[test]
    fn nothing_to_draw_is_an_error() {
        assert!(frames(&flame(&[]), false).is_err());
        assert!(frames(&flame(&[(&["anon"], 5, 0)]), true).is_err());
    }
}
