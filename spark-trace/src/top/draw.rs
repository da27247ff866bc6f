//! The screen on a terminal of any size, with or without colours.

use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Clear, Paragraph, Row as TableRow, Table, TableState, Wrap};

use super::keys::HELP;
use super::{Screen, Tab, Ui};
use spark_trace_render as render;
use spark_trace_render::{ascii, escape};

/// Readings that a line of the list draws.
pub const HISTORY: usize = 60;
/// Answers in sight, where the screen is high enough.
const QUERIES: u16 = 3;
/// A screen that is lower shows the list and little else.
const LOW: u16 = 16;
/// Lines for who uses the GPUs' memory, and for the engine.
const ABOVE: u16 = 6;

const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Draws everything, in what the terminal can show.
pub fn draw(target: &mut Frame<'_>, ui: &Ui, screen: &Screen, style: render::Style) {
    draw_all(target, ui, screen, style.colour);
    if style.ascii {
        to_ascii(target.buffer_mut());
    }
}

/// Each cell keeps its place: what is not ASCII has one sign that is.
fn to_ascii(buffer: &mut Buffer) {
    for cell in buffer.content.iter_mut().filter(|cell| !cell.symbol().is_ascii()) {
        let sign = ascii::of(cell.symbol()).chars().next().unwrap_or(' ');
        cell.set_char(sign);
    }
}

fn draw_all(target: &mut Frame<'_>, ui: &Ui, screen: &Screen, colour: bool) {
    let area = target.area();
    let queries = if area.height < LOW { 0 } else { QUERIES.min(screen.queries.len() as u16) };
    let above = screen.above.iter().map(|line| lines_of(line, area.width)).sum();
    let above = if area.height < LOW { 0 } else { ABOVE.min(above) };
    let [head, above, tabs, trail, list, queries_area, health, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(above),
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Min(1),
        Constraint::Length(queries),
        Constraint::Length(1),
        Constraint::Length(1),
    ])
    .areas(area);
    let paint = Paint { colour };
    target.render_widget(
        Line::from(ends(&screen.headline, &ui.status.clock, head.width)).style(paint.strong()),
        head,
    );
    let used: Vec<Line<'_>> = screen.above.iter().map(|line| Line::from(escape::line(line))).collect();
    target.render_widget(Paragraph::new(used).wrap(Wrap { trim: true }), above);
    target.render_widget(tab_line(ui, &paint), tabs);
    target.render_widget(Line::from(escape::line(&screen.trail)).style(paint.dim()), trail);
    table(target, list, ui, screen, &paint);
    let skipped = screen.queries.len().saturating_sub(usize::from(queries));
    let lines: Vec<Line<'_>> =
        screen.queries.iter().skip(skipped).map(|text| Line::from(escape::line(text))).collect();
    target.render_widget(Paragraph::new(lines).style(paint.dim()), queries_area);
    target.render_widget(Line::from(escape::line(&screen.health)), health);
    target.render_widget(Line::from(foot_text(ui, foot.width)).style(paint.reversed()), foot);
    if ui.help {
        help(target, area);
    }
}

/// Lines that a text takes at most, broken between words.
fn lines_of(text: &str, width: u16) -> u16 {
    let mut lines: u16 = 1;
    let mut left = usize::from(width);
    for word in text.split(' ').map(|word| word.chars().count() + 1) {
        if word > left + 1 {
            (lines, left) = (lines.saturating_add(1), usize::from(width));
        }
        left = left.saturating_sub(word);
    }
    lines
}

/// Styles, all of which say the same without colours.
struct Paint {
    colour: bool,
}

impl Paint {
    fn strong(&self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    fn dim(&self) -> Style {
        if self.colour { Style::new().fg(Color::Gray) } else { Style::new() }
    }

    fn reversed(&self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    fn title(&self) -> Style {
        let style = Style::new().add_modifier(Modifier::BOLD);
        if self.colour { style.fg(Color::Cyan) } else { style }
    }
}

/// Two texts at the ends of a line; the first is cut where both do not fit.
fn ends(left: &str, right: &str, width: u16) -> String {
    let room = usize::from(width).saturating_sub(right.chars().count() + 1);
    let left: String = escape::line(left).chars().take(room).collect();
    format!("{left:<room$} {right}")
}

fn tab_line(ui: &Ui, paint: &Paint) -> Line<'static> {
    let mut spans = Vec::new();
    for (index, tab) in Tab::ALL.into_iter().enumerate() {
        let text = format!("{} {}", index + 1, tab.title());
        // Brackets, too: not every terminal shows a style.
        spans.push(match tab == ui.tab {
            true => Span::styled(format!("[{text}]"), paint.title()),
            false => Span::raw(format!(" {text} ")),
        });
    }
    let recording = ui.status.recording.as_deref().map_or_else(String::new, |what| format!("  REC {what}"));
    let filter = match (ui.filtering, ui.filter.is_empty()) {
        (true, _) => format!("  filter: {}_", ui.filter),
        (false, false) => format!("  filter: {}", ui.filter),
        (false, true) => String::new(),
    };
    spans.push(Span::raw(escape::line(&format!(
        "  {}  by {}{filter}{recording}",
        ui.status.mode,
        ui.order.as_str()
    ))));
    Line::from(spans)
}

fn table(target: &mut Frame<'_>, area: Rect, ui: &Ui, screen: &Screen, paint: &Paint) {
    if screen.rows.is_empty() {
        target.render_widget(Paragraph::new(screen.empty).style(paint.dim()), area);
        return;
    }
    let widths = widths(screen, area.width);
    let cell = |text: &str, index: usize| {
        let (width, column) = (usize::from(widths[index]), &screen.columns[index]);
        let text = fitted(&escape::line(text), width, column.wide);
        if column.number { format!("{text:>width$}") } else { text }
    };
    let rows = screen.rows.iter().map(|row| {
        TableRow::new(row.cells.iter().enumerate().map(|(index, text)| {
            let bars = screen.columns[index].wide && !row.history.is_empty();
            if bars { sparkline(&row.history, usize::from(widths[index])) } else { cell(text, index) }
        }))
    });
    let titles = screen.columns.iter().enumerate().map(|(index, column)| cell(column.title, index));
    let table = Table::new(rows, widths.iter().map(|&width| Constraint::Length(width)))
        .header(TableRow::new(titles).style(paint.title()))
        .column_spacing(1)
        .row_highlight_style(paint.reversed());
    let mut state = TableState::default().with_selected(ui.index());
    target.render_stateful_widget(table, area, &mut state);
}

/// Columns are as wide as what is in them; the wide one takes what is left.
fn widths(screen: &Screen, width: u16) -> Vec<u16> {
    let longest = |index: usize| {
        let cells =
            screen.rows.iter().filter_map(|row| row.cells.get(index)).map(|cell| cell.chars().count());
        let title = screen.columns[index].title.chars().count();
        cells.chain([title]).max().unwrap_or(0).min(usize::from(width)) as u16
    };
    let narrow = |index: usize| if screen.columns[index].wide { 0 } else { longest(index) + 1 };
    let taken: u16 = (0..screen.columns.len()).map(narrow).fold(0, u16::saturating_add);
    let left = width.saturating_sub(taken);
    (0..screen.columns.len())
        .map(|index| if screen.columns[index].wide { left } else { longest(index) })
        .collect()
}

/// A text that fits: a path loses its beginning, for its end matters more.
fn fitted(text: &str, width: usize, wide: bool) -> String {
    let length = text.chars().count();
    if length <= width {
        return text.to_owned();
    }
    let kept = width.saturating_sub(1);
    if wide && text.starts_with('/') {
        return format!("…{}", text.chars().skip(length - kept).collect::<String>());
    }
    format!("{}…", text.chars().take(kept).collect::<String>())
}

/// Levels between the lowest and the highest of what is shown; what is not known is a blank.
fn sparkline(history: &[Option<i64>], width: usize) -> String {
    let skipped = history.len().saturating_sub(width);
    let shown = &history[skipped..];
    let known = || shown.iter().flatten().copied();
    let (Some(low), Some(high)) = (known().min(), known().max()) else { return String::new() };
    let range = (i128::from(high) - i128::from(low)).max(1);
    let bar = |level: &Option<i64>| match level {
        None => ' ',
        Some(_) if low == high => BARS[0],
        Some(level) => BARS[((i128::from(*level) - i128::from(low)) * 7 / range) as usize],
    };
    shown.iter().map(bar).collect()
}

fn foot_text(ui: &Ui, width: u16) -> String {
    let keys = "Enter down  Esc up  Tab plane  s sort  / filter  m mark  d growth  ? help  q end";
    let text = ui.status.message.as_deref().map_or_else(|| keys.to_owned(), escape::line);
    let width = usize::from(width);
    format!("{:<width$}", text.chars().take(width).collect::<String>())
}

fn help(target: &mut Frame<'_>, area: Rect) {
    let left = HELP.iter().map(|(keys, _)| keys.len()).max().unwrap_or(0);
    let lines: Vec<Line<'_>> =
        HELP.iter().map(|(keys, what)| Line::from(format!("{keys:<left$}  {what}"))).collect();
    let height = (lines.len() as u16 + 2).min(area.height);
    let width = 84.min(area.width);
    let inside = Rect { x: (area.width - width) / 2, y: (area.height - height) / 2, width, height };
    target.render_widget(Clear, inside);
    target.render_widget(
        Paragraph::new(lines).block(Block::new().borders(Borders::ALL).title(" Keys ")),
        inside,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_reach_from_the_lowest_to_the_highest() {
        assert_eq!(sparkline(&[Some(0), Some(7), None, Some(14)], 10), "▁▄ █");
        assert_eq!(sparkline(&[Some(5), Some(5)], 10), "▁▁");
        assert_eq!(sparkline(&[Some(1), Some(2), Some(3)], 2), "▁█");
        assert_eq!(sparkline(&[None], 3), "");
        assert_eq!(sparkline(&[Some(i64::MIN), Some(i64::MAX)], 2), "▁█");
    }

    #[test]
    fn paths_lose_their_beginning() {
        assert_eq!(fitted("/a/long/path", 6, true), "…/path");
        assert_eq!(fitted("anonymous", 5, false), "anon…");
        assert_eq!(fitted("anon", 5, true), "anon");
    }
}
