//! A scene as SVG: in a page, which has its colours, or as a file that has its own.

use super::letters::FAMILY;
use super::{Anchor, Colour, HALO, Ink, Item, POINTS, Scene, WIDTH, finite};
use crate::html::page::{Attributes, Page};

/// Within a page: classes only, as wide as there is room.
pub fn inline(page: &mut Page, scene: &Scene) {
    let (title, description) = (page.id("title"), page.id("desc"));
    let (labelled, view) = (format!("{title} {description}"), view(scene));
    let attributes = [
        ("class", "chart"),
        ("role", "img"),
        ("aria-labelledby", labelled.as_str()),
        ("viewBox", view.as_str()),
    ];
    page.within("svg", &attributes, |page| {
        page.element("title", &[("id", &title)], &scene.title);
        page.element("desc", &[("id", &description)], &scene.description);
        scene
            .items
            .iter()
            .for_each(|item| draw(page, item, &|ink| vec![("class", ink.look().class.to_owned())]));
    });
}

/// A file for papers and slides: dark on white, as wide as one column.
pub fn file(scene: &Scene) -> Vec<u8> {
    let mut page = Page::default();
    page.fixed("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let size = |units: f64| format!("{:.2}pt", finite(units) * POINTS);
    let (width, height, view) = (size(WIDTH), size(scene.height), view(scene));
    let attributes = [
        ("xmlns", "http://www.w3.org/2000/svg"),
        ("width", width.as_str()),
        ("height", height.as_str()),
        ("viewBox", view.as_str()),
        ("font-family", FAMILY),
    ];
    page.within("svg", &attributes, |page| {
        page.element("title", &[], &scene.title);
        page.element("desc", &[], &scene.description);
        let white = [("width", "100%"), ("height", "100%"), ("fill", "#ffffff")];
        page.within("rect", &white, |_| ());
        scene.items.iter().for_each(|item| draw(page, item, &colours));
    });
    page.fixed("\n");
    page.finish().into_bytes()
}

fn view(scene: &Scene) -> String {
    format!("0 0 {WIDTH} {}", number(scene.height))
}

fn number(value: f64) -> String {
    format!("{:.1}", finite(value))
}

fn colours(ink: Ink) -> Vec<(&'static str, String)> {
    let look = ink.look();
    let hex = |(red, green, blue): Colour| format!("#{red:02x}{green:02x}{blue:02x}");
    let mut attributes = vec![("fill", look.fill.map_or_else(|| "none".to_owned(), hex))];
    if let Some((colour, width)) = look.stroke {
        attributes.extend([("stroke", hex(colour)), ("stroke-width", width.to_string())]);
    }
    if let Some((on, off)) = look.dash {
        attributes.push(("stroke-dasharray", format!("{on} {off}")));
    }
    attributes
}

fn draw(page: &mut Page, item: &Item, look: &impl Fn(Ink) -> Vec<(&'static str, String)>) {
    let element = |page: &mut Page, tag: &'static str, ink: Ink, place: &[(&'static str, f64)]| {
        let mut all = look(ink);
        all.extend(place.iter().map(|(name, value)| (*name, number(*value))));
        let all: Vec<(&'static str, &str)> =
            all.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let all: Attributes<'_> = &all;
        page.within(tag, all, |_| ());
    };
    match item {
        Item::Line { ink, from, to } => {
            element(page, "line", *ink, &[("x1", from.0), ("y1", from.1), ("x2", to.0), ("y2", to.1)]);
        }
        Item::Rect { ink, at, size } => {
            let place = [("x", at.0), ("y", at.1), ("width", size.0.max(0.0)), ("height", size.1.max(0.0))];
            element(page, "rect", *ink, &place);
        }
        Item::Circle { ink, middle, radius } => {
            element(page, "circle", *ink, &[("cx", middle.0), ("cy", middle.1), ("r", *radius)]);
        }
        Item::Text { size, at, anchor, text } => {
            let (x, y, units) = (number(at.0), number(at.1), size.units().to_string());
            let halo = HALO.to_string();
            let anchor = match anchor {
                Anchor::Start => "start",
                Anchor::Middle => "middle",
                Anchor::End => "end",
            };
            let attributes = [
                ("class", size.class()),
                ("x", x.as_str()),
                ("y", y.as_str()),
                ("font-size", units.as_str()),
                ("text-anchor", anchor),
                // Lines do not cross letters; a page's own style says the same in its colours.
                ("stroke", "#ffffff"),
                ("stroke-width", halo.as_str()),
                ("stroke-linejoin", "round"),
                ("paint-order", "stroke"),
            ];
            page.element("text", &attributes, text);
        }
    }
}
