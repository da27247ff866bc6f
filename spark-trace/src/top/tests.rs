use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::*;
use spark_trace_testing as testing;
use spark_trace_testing::{SECOND, START};

fn style(ascii: bool) -> spark_trace_render::Style {
    spark_trace_render::Style { ascii, ..Default::default() }
}

/// What a terminal of that size shows.
fn drawn(ui: &Ui, screen: &Screen, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw::draw(frame, ui, screen, style(false))).unwrap();
    let buffer = terminal.backend().buffer();
    let line = |cells: &[ratatui::buffer::Cell]| {
        let line: String = cells.iter().map(ratatui::buffer::Cell::symbol).collect();
        line.trim_end().to_owned() + "\n"
    };
    buffer.content().chunks(usize::from(width)).map(line).collect()
}

/// The view of a recording, five seconds into the run, with its first reading as the mark.
fn view(recording: &Recording) -> (Ui, Screen) {
    let mut ui = Ui::default();
    ui.status.clock = "12:34:56 UTC".to_owned();
    ui.status.mode = "live system".to_owned();
    ui.screen(recording, START, draw::HISTORY);
    let screen = ui.screen(recording, START + 5 * SECOND, draw::HISTORY);
    (ui, screen)
}

fn press(ui: &mut Ui, recording: &Recording, keys: &[Key]) -> Screen {
    let at_ns = START + 5 * SECOND;
    let mut screen = ui.screen(recording, at_ns, draw::HISTORY);
    for &key in keys {
        ui.key(key, &screen);
        screen = ui.screen(recording, at_ns, draw::HISTORY);
    }
    screen
}

/// Compares with the committed file of that name.
fn compare(name: &str, text: &str) {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
    testing::golden(file, text);
}

#[test]
fn frames_of_two_sizes_are_as_stored() {
    for (name, recording) in [("cuda", testing::cuda()), ("container", testing::container())] {
        let (ui, screen) = view(&recording);
        for (width, height) in [(80, 24), (200, 60)] {
            compare(&format!("top-{name}-{width}x{height}.txt"), &drawn(&ui, &screen, width, height));
        }
    }
}

#[test]
fn a_terminal_without_unicode_gets_ascii_alone_and_every_cell_in_its_place() {
    let recording = testing::container();
    let (mut ui, screen) = view(&recording);
    ui.help = true;
    let unicode = drawn(&ui, &screen, 80, 24);
    assert!(!unicode.is_ascii(), "{unicode}");
    let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
    terminal.draw(|frame| draw::draw(frame, &ui, &screen, style(true))).unwrap();
    let cells = terminal.backend().buffer().content();
    let ascii: Vec<&str> = cells.iter().map(ratatui::buffer::Cell::symbol).collect();
    assert!(ascii.iter().all(|symbol| symbol.is_ascii() && symbol.len() == 1), "{ascii:?}");
    let letters = |text: &str| text.chars().filter(char::is_ascii_alphanumeric).count();
    assert!(letters(&ascii.concat()) >= letters(&unicode), "no letter is lost");
}

#[test]
fn every_size_can_be_drawn() {
    let recording = testing::gpus();
    let (mut ui, _) = view(&recording);
    for tab in Tab::ALL {
        ui.choose(tab);
        let screen = press(&mut ui, &recording, &[]);
        for (width, height) in [(1, 1), (2, 3), (7, 5), (20, 4), (80, 1), (300, 100)] {
            drawn(&ui, &screen, width, height);
            ui.help = !ui.help;
        }
    }
}

#[test]
fn a_source_is_followed_down_to_its_process_and_back() {
    let recording = testing::container();
    let (mut ui, _) = view(&recording);
    let screen = press(
        &mut ui,
        &recording,
        &[Key::Char('/'), Key::Char('a'), Key::Char('n'), Key::Char('o'), Key::Enter],
    );
    assert_eq!(screen.rows.len(), 1, "the filter leaves one");
    let cgroups = press(&mut ui, &recording, &[Key::Enter]);
    assert!(cgroups.trail.starts_with("System > anon"), "{}", cgroups.trail);
    assert!(matches!(cgroups.rows[0].step, Some(Step::Cgroup(..))));
    let processes = press(&mut ui, &recording, &[Key::Enter]);
    assert!(processes.rows[0].cells[2].starts_with("python3"), "{:?}", processes.rows);
    let details = press(&mut ui, &recording, &[Key::Enter]);
    assert!(!details.rows.is_empty());
    let back = press(&mut ui, &recording, &[Key::Escape, Key::Escape, Key::Escape]);
    assert_eq!(back.trail, "System");
    assert!(
        matches!(&back.rows[ui.index()].step, Some(Step::Source("anon", _))),
        "the cursor is where it was"
    );
}

#[test]
fn the_cursor_stays_on_its_row_when_rows_change_places() {
    let recording = testing::container();
    let (mut ui, _) = view(&recording);
    let screen = press(&mut ui, &recording, &[Key::Down, Key::Down]);
    let on = screen.rows[ui.index()].step.clone();
    let sorted = press(&mut ui, &recording, &[Key::Char('s'), Key::Char('s')]);
    assert_eq!(sorted.rows[ui.index()].step, on);
    assert_eq!(sorted.rows.last().unwrap().cells[0], "unattributed", "last in any order");
}

#[test]
fn names_from_outside_cannot_steer_the_terminal() {
    let mut recording = testing::container();
    for process in &mut recording.provenance.processes {
        process.comm = "\u{1b}[2Jevil\u{202e}".to_owned();
    }
    let (mut ui, _) = view(&recording);
    let screen = press(&mut ui, &recording, &[Key::Char('3')]);
    let text = drawn(&ui, &screen, 80, 24);
    assert!(text.contains("evil"), "{text}");
    assert!(!text.contains('\u{1b}') && !text.contains('\u{202e}'));
}

#[test]
fn keys_that_mean_nothing_here_do_nothing() {
    let recording = testing::empty();
    let mut ui = Ui::default();
    let all = ['k', 'j', 'l', 'h', 's', 'd', 'm', 'x', 'G', 'g'].map(Key::Char);
    let others = [Key::Up, Key::Down, Key::PageUp, Key::PageDown, Key::Home, Key::End, Key::Enter, Key::Back];
    let screen = press(&mut ui, &recording, &[&all[..], &others[..]].concat());
    assert!(screen.rows.is_empty());
    assert_eq!(screen.empty, "this plane is not read here");
}
