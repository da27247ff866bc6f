//! The terminal: taken over, fed with keys, and given back however this ends.

use std::io::{self, IsTerminal};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::player::{Feed, LOOK};
use super::{Action, Key, Ui, draw};
use spark_trace_render::Style;

/// A signal that ends programs has come.
static ENDED: AtomicBool = AtomicBool::new(false);

extern "C" fn on_signal(_: libc::c_int) {
    ENDED.store(true, Ordering::Relaxed);
}

/// Until it is dropped, signals that end programs are only noted: the terminal must be given back first.
fn note_signals() {
    for signal in [libc::SIGTERM, libc::SIGHUP, libc::SIGINT, libc::SIGQUIT] {
        // SAFETY: the handler does nothing but store to an atomic.
        unsafe { libc::signal(signal, on_signal as *const () as libc::sighandler_t) };
    }
}

/// Whether there is a terminal to take over.
pub fn is_there() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// Shows what `feed` has until the user ends it. A panic gives the terminal back before its message is printed.
pub fn run(feed: &mut dyn Feed, ui: &mut Ui, style: Style) -> io::Result<()> {
    note_signals();
    let mut terminal = ratatui::try_init()?;
    let result = show(&mut terminal, feed, ui, style);
    // What was wrong before this matters more than what is wrong with this.
    let restored = ratatui::try_restore();
    result.and(restored)
}

fn show(
    terminal: &mut ratatui::DefaultTerminal,
    feed: &mut dyn Feed,
    ui: &mut Ui,
    style: Style,
) -> io::Result<()> {
    let mut screen = None;
    let mut stale = true;
    loop {
        if stale || feed.has_changed() {
            if let Some(made) = feed.screen(ui) {
                feed.status(ui);
                terminal.draw(|frame| draw::draw(frame, ui, &made, style))?;
                screen = Some(made);
            }
            stale = false;
        }
        if feed.has_ended() || ENDED.load(Ordering::Relaxed) {
            return Ok(());
        }
        if !wait_for_input()? {
            return Ok(());
        }
        // Also where there was no input: a new size of the terminal comes by a signal.
        if !event::poll(Duration::ZERO)? {
            continue;
        }
        match event::read()? {
            Event::Key(key) => {
                let action = match (meant(key), &screen) {
                    (Some(Key::Interrupt | Key::Char('q')), None) => Action::Quit,
                    (Some(key), Some(screen)) => ui.key(key, screen),
                    _ => Action::Redraw,
                };
                if action == Action::Quit {
                    return Ok(());
                }
                feed.act(action, ui);
                feed.look_at(ui);
                stale = true;
            }
            Event::Resize(..) => stale = true,
            _ => {}
        }
    }
}

/// Waits a moment for input; says whether the terminal is there still. crossterm reads one that was hung up for ever.
fn wait_for_input() -> io::Result<bool> {
    let mut input = libc::pollfd { fd: libc::STDIN_FILENO, events: libc::POLLIN, revents: 0 };
    // SAFETY: one descriptor is given, and the structure lives through the call.
    let found = unsafe { libc::poll(&raw mut input, 1, LOOK.as_millis() as libc::c_int) };
    if found < 0 {
        let error = io::Error::last_os_error();
        return if error.kind() == io::ErrorKind::Interrupted { Ok(true) } else { Err(error) };
    }
    Ok(input.revents & (libc::POLLHUP | libc::POLLERR | libc::POLLNVAL) == 0)
}

/// A key as it is meant.
fn meant(key: KeyEvent) -> Option<Key> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    Some(match key.code {
        KeyCode::Char('c') if control => Key::Interrupt,
        KeyCode::Char(c) if !control => Key::Char(c),
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        KeyCode::Home => Key::Home,
        KeyCode::End => Key::End,
        KeyCode::Enter | KeyCode::Right => Key::Enter,
        KeyCode::Backspace | KeyCode::Left => Key::Back,
        KeyCode::Tab => Key::Tab,
        KeyCode::BackTab => Key::BackTab,
        KeyCode::Esc => Key::Escape,
        _ => return None,
    })
}
