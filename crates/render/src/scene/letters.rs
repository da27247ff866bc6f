//! The font of figures that are files: its glyphs go into them, because papers must bring their fonts.

use std::sync::LazyLock;

use ttf_parser::{Face, GlyphId};

use crate::escape;

use super::Size;

/// Open Sans (Apache License 2.0, see font/README.md), with Latin, Greek and Cyrillic letters and the signs of figures.
pub(super) const FONT: &[u8] = include_bytes!("font/OpenSans-Subset.ttf");
/// Of families that a reader's machine may have, in the order of likeness.
pub(super) const FAMILY: &str = "Open Sans, Noto Sans, Helvetica, Arial, DejaVu Sans, sans-serif";

/// Absent only if the file above is damaged, which a test would find.
static FACE: LazyLock<Option<Face<'static>>> = LazyLock::new(|| Face::parse(FONT, 0).ok());

pub(super) fn face() -> Option<&'static Face<'static>> {
    FACE.as_ref()
}

/// What is shown of a text: nothing invisible, and no character without a glyph.
pub(super) fn shown(text: &str) -> Vec<(char, GlyphId)> {
    let Some(face) = face() else { return vec![] };
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let known = |c: char| face.glyph_index(c).map(|glyph| (c, glyph));
    escape::line(&line)
        .chars()
        .filter_map(|c| known(c).or_else(|| known('\u{fffd}')).or_else(|| known('?')))
        .collect()
}

/// Parts of the letters' size.
pub(super) fn advance(face: &Face<'_>, glyph: GlyphId) -> f64 {
    f64::from(face.glyph_hor_advance(glyph).unwrap_or(0)) / f64::from(face.units_per_em())
}

/// Units that a text is wide.
pub fn width(size: Size, text: &str) -> f64 {
    let Some(face) = face() else { return 0.0 };
    shown(text).iter().map(|(_, glyph)| advance(face, *glyph)).sum::<f64>() * size.units()
}

/// The text, or as much of it as fits with a sign for what is left out.
pub fn fitting(size: Size, text: &str, room: f64) -> String {
    if width(size, text) <= room {
        return text.to_owned();
    }
    let mut cut: Vec<char> = text.chars().collect();
    while !cut.is_empty() && width(size, &format!("{}…", cut.iter().collect::<String>())) > room {
        cut.pop();
    }
    format!("{}…", cut.iter().collect::<String>())
}
