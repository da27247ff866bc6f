//! A drawing of another library's, of which nothing is kept but what can do no harm on a page.

/// What the library's drawing begins with around the frames.
const BEGINS: &str = "<svg id=\"frames\"";
/// Height of a frame.
pub(super) const FRAME: u32 = 16;

/// Rectangles, texts and titles, and nothing else.
#[derive(Debug)]
pub struct Frames {
    svg: String,
    height: u32,
}

impl Frames {
    /// Its height on the page.
    pub const fn height(&self) -> u32 {
        self.height
    }

    pub fn as_str(&self) -> &str {
        &self.svg
    }

    /// The frames alone, moved to the top.
    pub(super) fn clean(svg: &str) -> Option<Self> {
        let begins = svg.find(BEGINS)?;
        let inner = svg.get(begins..).and_then(|frames| frames.split_once('>'))?.1;
        let inner = inner.trim_end().strip_suffix("</svg></svg>")?;
        // Attributes for the library's own script; no text can hold a quote or an angle bracket, which are escaped.
        let mut svg = String::with_capacity(inner.len());
        let mut rest = inner;
        while let Some((before, after)) = rest.split_once(" fg:") {
            svg.push_str(before);
            let in_tag = svg.rfind('<') > svg.rfind('>');
            rest = match in_tag {
                // Up to the value's second quote.
                true => after.splitn(3, '"').nth(2)?,
                false => {
                    svg.push_str(" fg:");
                    after
                }
            };
        }
        svg.push_str(rest);
        if svg.contains("<script") || svg.contains("<style") {
            return None;
        }
        let rows = tops(&svg);
        let (Some(&least), Some(&most)) = (rows.iter().min(), rows.iter().max()) else {
            return None;
        };
        let height = most.saturating_sub(least).saturating_add(FRAME + 2);
        let view = format!("<svg y=\"-{least}\" width=\"100%\" height=\"{}\">", height.saturating_add(least));
        Some(Self { svg: format!("{view}{svg}</svg>"), height })
    }
}

/// The y of every rectangle.
fn tops(svg: &str) -> Vec<u32> {
    let rects = svg.split("<rect ").skip(1);
    rects.filter_map(|rect| rect.split_once("y=\"")?.1.split_once('"')?.0.parse().ok()).collect()
}
