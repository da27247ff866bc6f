//! One frame of `top` as text, as high as it needs to be: every plane that is read, processes, and those of the GPUs.

use anyhow::Context;
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use crate::top::screen::health_until;
use crate::top::{Screen, Tab, Ui, draw};
use spark_trace_analysis::attribution;
use spark_trace_analysis::devices::{DeviceProcess, DeviceReport};
use spark_trace_analysis::instant_spec::InstantSpec;
use spark_trace_analysis::live_frame;
use spark_trace_recording::Recording;
use spark_trace_recording::units::{known, unsigned};
use spark_trace_render::document::{Cell, Document, Fit, Table};
use spark_trace_render::{Style, ascii, escape, terminal};

/// Columns of a frame where nothing is to be cut: more than any of its lines has.
const UNLIMITED: usize = 400;
/// Lines of a frame around its list.
const AROUND: u16 = 8;
/// Lines above the list: the counter, the planes and the way down. There is one frame, and no key to go elsewhere.
const HEAD: usize = 3;
/// Memory queries of a frame, the latest.
const QUERIES: usize = 3;
/// Processes of a frame, the largest.
const PROCESSES: usize = 10;

pub fn text(recording: &Recording, at_ns: u64, style: Style) -> anyhow::Result<String> {
    let mut text = String::new();
    let mut last = None;
    let screens: Vec<_> = Tab::ALL.into_iter().map(|tab| (tab, screen(recording, at_ns, tab))).collect();
    if let Some((_, screen)) = screens.first() {
        text += &wrapped(screen.above.clone(), style);
    }
    for (tab, screen) in screens {
        if screen.rows.is_empty() {
            continue;
        }
        if !text.is_empty() {
            text.push('\n');
        }
        text += &wrapped(
            [match tab.scope() {
                Some(_) => screen.headline.clone(),
                None => "The largest processes; shared pages count in each process".to_owned(),
            }],
            style,
        );
        for line in list(&screen, tab, style)? {
            text = text + &line + "\n";
        }
        last.get_or_insert(screen);
    }
    text += &gpus(recording, at_ns, style);
    if let Some(screen) = last {
        text.push('\n');
        let skipped = screen.queries.len().saturating_sub(QUERIES);
        let queries = screen.queries.into_iter().skip(skipped);
        text += &wrapped(queries.chain([health_until(&screen.frame)]), style);
    }
    Ok(if style.ascii { ascii::of(&text) } else { text })
}

fn wrapped(lines: impl IntoIterator<Item = String>, style: Style) -> String {
    let mut document = Document::default();
    lines.into_iter().for_each(|line| document.line(line));
    terminal::render(&document, Style { colour: false, ascii: false, ..style })
}

/// One plane, or the processes; growth is since the first reading.
fn screen(recording: &Recording, at_ns: u64, tab: Tab) -> Screen {
    let mut ui = Ui::default();
    ui.tab = tab;
    if let Some(&first_ns) = live_frame::times(recording).first() {
        ui.screen(recording, first_ns, 0);
    }
    let mut screen = ui.screen(recording, at_ns, draw::HISTORY);
    if tab == Tab::Process {
        screen.rows.truncate(PROCESSES);
    }
    screen
}

/// Its list as it is drawn on a terminal.
fn list(screen: &Screen, tab: Tab, style: Style) -> anyhow::Result<Vec<String>> {
    let width = u16::try_from(style.width.unwrap_or(UNLIMITED)).unwrap_or(u16::MAX);
    let height = u16::try_from(screen.rows.len()).unwrap_or(u16::MAX).saturating_add(AROUND);
    let mut ui = Ui::default();
    ui.tab = tab;
    let screen = &Screen { queries: Vec::new(), above: Vec::new(), ..screen.clone() };
    let mut terminal = Terminal::new(TestBackend::new(width, height)).context("cannot draw")?;
    let plain = Style { colour: false, ..style };
    terminal.draw(|frame| draw::draw(frame, &ui, screen, plain)).context("cannot draw")?;
    let buffer = terminal.backend().buffer();
    let lines = buffer.content().chunks(usize::from(buffer.area.width)).map(|cells| {
        let line: String = cells.iter().map(ratatui::buffer::Cell::symbol).collect();
        escape::line(line.trim_end())
    });
    // A title and a line for each row.
    Ok(lines.skip(HEAD).take(screen.rows.len() + 1).collect())
}

/// What NVML says that processes hold on each GPU.
fn gpus(recording: &Recording, at_ns: u64, style: Style) -> String {
    let report = attribution::report(recording, InstantSpec::Time(at_ns));
    let devices = report.planes.devices.iter().filter_map(|plane| plane.device.as_ref());
    let mut text = String::new();
    for device in devices.filter(|device| !device.processes.is_empty()) {
        let mut document = Document::default();
        document.section(heading(device), Table::of(GPU_PROCESSES, &device.processes));
        text = text + "\n" + &terminal::render(&document, Style { colour: false, ascii: false, ..style });
    }
    text
}

fn heading(device: &DeviceReport) -> String {
    let name = device.name.as_deref().unwrap_or("of unknown name");
    let simulated = if device.simulated { " (simulated)" } else { "" };
    format!("Processes on GPU {} {name}{simulated}", device.index)
}

const GPU_PROCESSES: &[Cell<DeviceProcess>] = &[
    ("PID", Fit::Number, |row| row.pid.to_string()),
    ("BYTES", Fit::Number, |row| known(row.bytes, unsigned)),
    ("PROCESS", Fit::Name, |row| known(row.comm.clone(), |comm| comm)),
];

#[cfg(test)]
mod tests {
    use super::*;
    use spark_trace_testing as testing;
    use spark_trace_testing::{SECOND, START};

    #[test]
    fn one_frame_has_every_plane_and_the_processes_of_gpus() {
        let recording = testing::gpus();
        let text = text(&recording, START + 5 * SECOND, Style::default()).unwrap();
        for part in
            ["system ", "cgroup ", "device ", "gpu-context", "The largest processes", "Processes on GPU 0"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        // The last row of a plane, and the trace's own cost once.
        let device = text.split("\ndevice ").nth(1).unwrap_or_default();
        assert!(device.contains("unattributed ") && text.matches("\nunattributed").count() >= 2, "{text}");
        assert_eq!(text.matches("since it was started").count(), 1, "{text}");
    }

    /// Between these lines of its log vLLM allocated its cache.
    #[test]
    fn the_stage_of_the_engine_is_above_the_planes() {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../results/2026-11-30-h200-engines");
        let file = format!("{root}/vllm-graphs-native.json.zst");
        let recording = spark_trace_recording::read(std::path::Path::new(&file)).unwrap();
        let line = |what: &str| {
            let lines = &recording.provenance.log_lines;
            lines.iter().find(|line| line.text.contains(what)).unwrap().at_ns
        };
        let at = |at_ns: u64| text(&recording, at_ns, Style::default()).unwrap();
        for (at_ns, stage) in [
            (line("Model loading took") - SECOND, "Engine: vLLM 0.25.1: weights since "),
            (line("Available KV cache memory") + 1, "Engine: vLLM 0.25.1: KV allocation since "),
            (recording.target.ended_ns, "Engine: vLLM 0.25.1: serving since "),
        ] {
            let text = at(at_ns);
            let (above, _) = text.split_once("\nsystem ").unwrap();
            assert!(above.contains(stage), "{stage}: {text}");
        }
    }
}
