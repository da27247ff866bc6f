//! What `record` shows on a terminal while the command runs.

use crate::support;
use crate::support::tmux::Tmux;

/// Prints lines in pieces, for as long as progress takes to be drawn a few times.
const TALKER: &str = "for i in 1 2 3 4; do printf 'line '; sleep 0.4; echo $i; sleep 0.7; done; echo done";

/// Runs `record WORDS -- sh -c TALKER` in a terminal.
fn start(name: &str, size: (u16, u16), words: &str, output: &str) -> Option<Tmux> {
    let program = support::spark_trace().get_program().to_str().unwrap().to_owned();
    let talker = format!("{output}.sh");
    std::fs::write(&talker, TALKER).unwrap();
    let script = format!("'{program}' record {words} -o '{output}' sh '{talker}'; echo ended; sleep 600");
    Tmux::start(name, size, &script)
}

/// What was on the screen from the start to the end, without repetitions.
fn watch(terminal: &Tmux) -> Vec<String> {
    let screens = std::cell::RefCell::new(Vec::<String>::new());
    terminal.wait_for("the end", |screen| {
        let mut screens = screens.borrow_mut();
        if screens.last().is_none_or(|last| last != screen) {
            screens.push(screen.to_owned());
        }
        screen.lines().any(|line| line == "ended").then_some(())
    });
    screens.into_inner()
}

fn is_progress(line: &str) -> bool {
    line.contains("s  charged ") || line.contains("s  used on the machine ")
}

/// The command's lines, whole and in order, and what stands between them and the end.
fn command_lines(screen: &str) -> Vec<&str> {
    screen
        .lines()
        .take_while(|line| !line.starts_with("spark-trace:"))
        .filter(|line| !line.is_empty())
        .collect()
}

const SAID: [&str; 5] = ["line 1", "line 2", "line 3", "line 4", "done"];

#[test]
#[ignore = "needs root: cargo xtask test"]
fn the_commands_terminal_is_the_commands() {
    let dir = support::disk_dir();
    let output = support::path(&dir, "r.json");
    let Some(terminal) = start("quiet", (80, 24), "", &output) else { return };
    let screens = watch(&terminal);
    assert!(!screens.iter().flat_map(|screen| screen.lines()).any(is_progress), "{screens:?}");
    assert_eq!(command_lines(screens.last().unwrap()), SAID);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn output_that_is_read_goes_before_the_progress_line() {
    for (name, words, size) in [("wide", "--log", (120, 24)), ("narrow", "--progress", (40, 24))] {
        let dir = support::disk_dir();
        let output = support::path(&dir, "r.json");
        let Some(terminal) = start(name, size, words, &output) else { return };
        let screens = watch(&terminal);
        let progress = |screen: &String| screen.lines().filter(|line| is_progress(line)).count();
        assert!(screens.iter().any(|screen| progress(screen) == 1), "{screens:?}");
        assert!(screens.iter().all(|screen| progress(screen) <= 1), "it is one line: {screens:?}");
        // No piece of it stays, nor is any of the command's lines touched by it.
        assert_eq!(command_lines(screens.last().unwrap()), SAID, "{name}");
    }
}
