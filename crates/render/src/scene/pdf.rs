//! A scene as a PDF of one page, with the glyphs that it uses. Equal scenes make equal files: there is no time in them.

use std::collections::BTreeMap;
use std::io::Write;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use pdf_writer::types::{CidFontType, FontFlags, LineJoinStyle, SystemInfo, TextRenderingMode, UnicodeCmap};
use pdf_writer::{Content, Filter, Finish, Name, Pdf, Rect, Ref, Str, TextStr};
use subsetter::GlyphRemapper;
use ttf_parser::Face;

use super::{Anchor, HALO, Ink, Item, POINTS, Scene, Size, WIDTH, finite, letters};

#[derive(Debug, thiserror::Error)]
pub enum PdfError {
    #[error("the font of figures cannot be read")]
    Font,
    #[error("the font of figures cannot be made smaller: {0}")]
    Subset(#[from] subsetter::Error),
}

const CATALOG: Ref = Ref::new(1);
const TREE: Ref = Ref::new(2);
const PAGE: Ref = Ref::new(3);
const CONTENT: Ref = Ref::new(4);
const FONT: Ref = Ref::new(5);
const CID_FONT: Ref = Ref::new(6);
const DESCRIPTOR: Ref = Ref::new(7);
const FONT_FILE: Ref = Ref::new(8);
const UNICODE: Ref = Ref::new(9);
const INFO: Ref = Ref::new(10);

const FONT_NAME: Name<'_> = Name(b"F");
/// Six letters and a plus: a part of the font (PDF 32000-1:2008, 9.6.4).
const BASE_FONT: Name<'_> = Name(b"SPARKT+OpenSans");
const IDENTITY: SystemInfo<'_> =
    SystemInfo { registry: Str(b"Adobe"), ordering: Str(b"Identity"), supplement: 0 };
/// How far control points of a quarter of a circle are from its ends.
const KAPPA: f64 = 0.552_284_75;

pub fn file(scene: &Scene) -> Result<Vec<u8>, PdfError> {
    let face = letters::face().ok_or(PdfError::Font)?;
    let mut drawing =
        Drawing { content: Content::new(), used: Used::default(), height: finite(scene.height) };
    drawing.content.transform([POINTS as f32, 0.0, 0.0, POINTS as f32, 0.0, 0.0]);
    scene.items.iter().for_each(|item| drawing.item(item));
    let Drawing { content, used, .. } = drawing;

    let mut pdf = Pdf::new();
    pdf.catalog(CATALOG).pages(TREE);
    pdf.pages(TREE).kids([PAGE]).count(1);
    let mut page = pdf.page(PAGE);
    let (width, height) = (WIDTH * POINTS, finite(scene.height) * POINTS);
    page.media_box(Rect::new(0.0, 0.0, width as f32, height as f32)).parent(TREE).contents(CONTENT);
    page.resources().fonts().pair(FONT_NAME, FONT);
    page.finish();
    pdf.stream(CONTENT, &deflated(&content.finish())).filter(Filter::FlateDecode);
    pdf.document_info(INFO).title(TextStr(&scene.title)).subject(TextStr(&scene.description));
    font(&mut pdf, face, &used)?;
    Ok(pdf.finish())
}

/// Glyphs by the numbers that they get in the file.
#[derive(Default)]
struct Used {
    numbers: GlyphRemapper,
    meanings: BTreeMap<u16, char>,
}

struct Drawing {
    content: Content,
    used: Used,
    height: f64,
}

impl Drawing {
    /// Pages of PDF begin below.
    fn place(&self, (x, y): (f64, f64)) -> (f32, f32) {
        (finite(x) as f32, (self.height - finite(y)) as f32)
    }

    fn item(&mut self, item: &Item) {
        match item {
            Item::Line { ink, from, to } => {
                let ((x1, y1), (x2, y2)) = (self.place(*from), self.place(*to));
                self.content.move_to(x1, y1).line_to(x2, y2);
                self.paint(*ink);
            }
            Item::Rect { ink, at, size } => {
                let (x, y) = self.place((at.0, at.1 + size.1.max(0.0)));
                self.content.rect(x, y, finite(size.0.max(0.0)) as f32, finite(size.1.max(0.0)) as f32);
                self.paint(*ink);
            }
            Item::Circle { ink, middle, radius } => {
                self.circle(*middle, *radius);
                self.paint(*ink);
            }
            Item::Text { size, at, anchor, text } => self.text(*size, *at, *anchor, text),
        }
    }

    fn circle(&mut self, (x, y): (f64, f64), r: f64) {
        let k = r * KAPPA;
        let (start_x, start_y) = self.place((x + r, y));
        self.content.move_to(start_x, start_y);
        let quarters = [
            ((x + r, y + k), (x + k, y + r), (x, y + r)),
            ((x - k, y + r), (x - r, y + k), (x - r, y)),
            ((x - r, y - k), (x - k, y - r), (x, y - r)),
            ((x + k, y - r), (x + r, y - k), (x + r, y)),
        ];
        for (one, two, end) in quarters {
            let ((x1, y1), (x2, y2), (x3, y3)) = (self.place(one), self.place(two), self.place(end));
            self.content.cubic_to(x1, y1, x2, y2, x3, y3);
        }
        self.content.close_path();
    }

    fn paint(&mut self, ink: Ink) {
        let look = ink.look();
        let part = |colour: u8| f32::from(colour) / 255.0;
        if let Some((red, green, blue)) = look.fill {
            self.content.set_fill_rgb(part(red), part(green), part(blue));
        }
        if let Some(((red, green, blue), width)) = look.stroke {
            self.content.set_stroke_rgb(part(red), part(green), part(blue)).set_line_width(width as f32);
            let dash: Vec<f32> = look.dash.iter().flat_map(|(on, off)| [*on as f32, *off as f32]).collect();
            self.content.set_dash_pattern(dash, 0.0);
        }
        match (look.fill.is_some(), look.stroke.is_some()) {
            (true, true) => self.content.fill_nonzero_and_stroke(),
            (true, false) => self.content.fill_nonzero(),
            (false, true) => self.content.stroke(),
            (false, false) => self.content.end_path(),
        };
    }

    fn text(&mut self, size: Size, at: (f64, f64), anchor: Anchor, text: &str) {
        let room = letters::width(size, text);
        let before = match anchor {
            Anchor::Start => 0.0,
            Anchor::Middle => room / 2.0,
            Anchor::End => room,
        };
        let (x, y) = self.place((at.0 - before, at.1));
        let glyphs = letters::shown(text).into_iter().flat_map(|(c, glyph)| {
            let number = self.used.numbers.remap(glyph.0);
            self.used.meanings.insert(number, c);
            number.to_be_bytes()
        });
        let glyphs: Vec<u8> = glyphs.collect();
        self.content.save_state().begin_text().set_font(FONT_NAME, size.units() as f32).next_line(x, y);
        // Lines do not cross letters.
        self.content.set_text_rendering_mode(TextRenderingMode::Stroke).set_stroke_rgb(1.0, 1.0, 1.0);
        self.content.set_line_width(HALO as f32).set_line_join(LineJoinStyle::RoundJoin);
        self.content.set_dash_pattern([], 0.0).show(Str(&glyphs));
        self.content.set_text_rendering_mode(TextRenderingMode::Fill).set_fill_rgb(0.0, 0.0, 0.0);
        self.content.set_text_matrix([1.0, 0.0, 0.0, 1.0, x, y]).show(Str(&glyphs));
        self.content.end_text().restore_state();
    }
}

/// The used part of the font, and what its glyphs mean: a reader can search and copy (PDF 32000-1:2008, 9.7 and 9.10.3).
fn font(pdf: &mut Pdf, face: &Face<'_>, used: &Used) -> Result<(), PdfError> {
    let per_thousand = |value: i16| f32::from(value) * 1000.0 / f32::from(face.units_per_em());
    pdf.type0_font(FONT)
        .base_font(BASE_FONT)
        .encoding_predefined(Name(b"Identity-H"))
        .descendant_font(CID_FONT)
        .to_unicode(UNICODE);
    let mut cid = pdf.cid_font(CID_FONT);
    cid.subtype(CidFontType::Type2)
        .base_font(BASE_FONT)
        .system_info(IDENTITY)
        .font_descriptor(DESCRIPTOR)
        .default_width(0.0)
        .cid_to_gid_map_predefined(Name(b"Identity"));
    let widths = used.numbers.remapped_gids().map(|glyph| {
        let advance = letters::advance(face, ttf_parser::GlyphId(glyph));
        (advance * 1000.0) as f32
    });
    cid.widths().consecutive(0, widths);
    cid.finish();
    let bounds = face.global_bounding_box();
    let [left, below, right, above] =
        [bounds.x_min, bounds.y_min, bounds.x_max, bounds.y_max].map(per_thousand);
    pdf.font_descriptor(DESCRIPTOR)
        .name(BASE_FONT)
        .flags(FontFlags::SYMBOLIC)
        .bbox(Rect::new(left, below, right, above))
        .italic_angle(0.0)
        .ascent(per_thousand(face.ascender()))
        .descent(per_thousand(face.descender()))
        .cap_height(per_thousand(face.capital_height().unwrap_or_else(|| face.ascender())))
        // Only for a substitute, which an embedded font does not need.
        .stem_v(80.0)
        .font_file2(FONT_FILE);
    let part = subsetter::subset(letters::FONT, 0, &used.numbers)?;
    let length = i32::try_from(part.len()).unwrap_or(i32::MAX);
    pdf.stream(FONT_FILE, &deflated(&part)).filter(Filter::FlateDecode).pair(Name(b"Length1"), length);
    let mut meanings = UnicodeCmap::new(Name(b"Custom"), IDENTITY);
    used.meanings.iter().for_each(|(number, c)| meanings.pair(*number, *c));
    pdf.cmap(UNICODE, &meanings.finish());
    Ok(())
}

fn deflated(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(vec![], Compression::default());
    // Writing to memory cannot fail.
    encoder.write_all(bytes).and_then(|()| encoder.finish()).unwrap_or_default()
}
