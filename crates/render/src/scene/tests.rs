use super::*;

const INKS: &[Ink] = &[
    Ink::A,
    Ink::B,
    Ink::Grid,
    Ink::Zero,
    Ink::Range,
    Ink::Median,
    Ink::Quartiles,
    Ink::StepA,
    Ink::StepB,
    Ink::Bar,
    Ink::Margin,
    Ink::Interval,
    Ink::Outlier,
];

fn scene() -> Scene {
    let mut scene = Scene::new("Peak <memory>", "30 & 30 runs", 120.0);
    for (place, &ink) in INKS.iter().enumerate() {
        let x = 10.0 + place as f64 * 20.0;
        scene.line(ink, (x, 5.0), (x, 20.0));
        scene.rect(ink, (x, 30.0), (9.0, 9.0));
        scene.circle(ink, (x, 60.0), 4.5);
    }
    scene.text(Size::Axis, (10.0, 100.0), Anchor::Start, "GiB −12.5 ± 3 µs <&>\u{202e}\u{4e2d}");
    scene
}

#[test]
fn every_ink_has_its_row() {
    assert_eq!(LOOKS.len(), INKS.len());
    assert!(INKS.iter().all(|&ink| ink.look().ink == ink));
}

#[test]
fn a_file_is_xml_with_the_text_and_nothing_that_runs() {
    let text = String::from_utf8(svg::file(&scene())).unwrap();
    let document = roxmltree::Document::parse(&text).unwrap();
    let root = document.root_element();
    assert_eq!(
        (root.attribute("width"), root.attribute("viewBox")),
        (Some("252.00pt"), Some("0 0 384 120.0"))
    );
    let named = |name: &str| {
        root.descendants().filter(|node| node.has_tag_name(("http://www.w3.org/2000/svg", name))).count()
    };
    assert_eq!(
        (named("line"), named("circle"), named("rect"), named("text")),
        (INKS.len(), INKS.len(), INKS.len() + 1, 1)
    );
    assert!(text.contains("Peak &lt;memory&gt;"));
}

/// What the standard asks of every file: each object where the table says (PDF 32000-1:2008, 7.5.4).
#[test]
fn a_pdf_has_its_objects_where_its_table_says_and_is_the_same_again() {
    let bytes = pdf::file(&scene()).unwrap();
    assert_eq!(bytes, pdf::file(&scene()).unwrap());
    let text: String =
        bytes.iter().map(|&byte| if byte.is_ascii() { char::from(byte) } else { '.' }).collect();
    assert!(text.starts_with("%PDF-1.") && text.trim_end().ends_with("%%EOF"));
    let start: usize = text.rsplit("startxref\n").next().unwrap().lines().next().unwrap().parse().unwrap();
    assert!(text[start..].starts_with("xref"));
    let entries = text[start..].lines().skip(2).take_while(|line| !line.starts_with("trailer"));
    let places: Vec<usize> =
        entries.filter(|line| line.contains(" n")).map(|line| line[..10].parse().unwrap()).collect();
    assert_eq!(places.len(), 10);
    for (number, place) in (1..).zip(places) {
        assert!(text[place..].starts_with(&format!("{number} 0 obj")), "{number}");
    }
    assert!(text.contains("/MediaBox [0 0 252 78.75]") && text.contains("/FontFile2"), "{text}");
}

#[test]
fn damaged_numbers_make_no_damaged_file() {
    let mut scene = Scene::new("t", "d", f64::NAN);
    scene.line(Ink::A, (f64::NAN, f64::INFINITY), (-f64::INFINITY, 1e300));
    scene.rect(Ink::B, (0.0, 0.0), (-1.0, f64::NAN));
    for text in [svg::file(&scene), pdf::file(&scene).unwrap()] {
        let text = String::from_utf8_lossy(&text).into_owned();
        assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
    }
}

#[test]
fn letters_are_as_wide_as_the_font_says() {
    // Open Sans: 0 is 1171 of 2048 parts of its size, a space 532.
    assert!((letters::width(Size::Axis, "00 ") - 11.0 * (2.0 * 1171.0 + 532.0) / 2048.0).abs() < 1e-9);
    let long = "a very long name of an environment";
    let cut = letters::fitting(Size::Axis, long, 80.0);
    assert!(cut.ends_with('…') && letters::width(Size::Axis, &cut) <= 80.0 && cut.len() > 8, "{cut}");
    assert_eq!(letters::fitting(Size::Axis, "short", 80.0), "short");
}
