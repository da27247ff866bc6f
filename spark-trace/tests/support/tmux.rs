//! A terminal that a test can press keys in and look at: a tmux server of its own.

use std::process::Command;
use std::time::Instant;

use super::{in_path, limit, oracle};

/// A session of one window; it ends with this.
pub struct Tmux {
    socket: String,
}

impl Tmux {
    /// Runs `script` with sh in a terminal of that size. Absent where a machine that is made for tests has no tmux.
    pub fn start(name: &str, (width, height): (u16, u16), script: &str) -> Option<Self> {
        let found = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
            .any(|dir| dir.join("tmux").is_file());
        if !found && oracle::machine_is_ours() {
            oracle::skip("tmux", "there is none in this machine");
            return None;
        }
        in_path("tmux");
        let tmux = Self { socket: format!("spark-trace-test-{}-{name}", std::process::id()) };
        let size = [width.to_string(), height.to_string()];
        tmux.must(&[
            "-f",
            "/dev/null",
            "new-session",
            "-d",
            "-x",
            &size[0],
            "-y",
            &size[1],
            "sh",
            "-c",
            script,
        ]);
        Some(tmux)
    }

    fn must(&self, words: &[&str]) -> String {
        let mut command = Command::new("tmux");
        // Its own locale may be C, in which bars are question marks.
        command
            .args(["-u", "-L", &self.socket])
            .args(words)
            .env("LC_ALL", "C.UTF-8")
            .env("TERM", "xterm-256color");
        let output = command.output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn press(&self, keys: &[&str]) {
        self.must(&[&["send-keys"], keys].concat());
    }

    pub fn resize(&self, width: u16, height: u16) {
        self.must(&["resize-window", "-x", &width.to_string(), "-y", &height.to_string()]);
    }

    /// What the terminal shows.
    pub fn screen(&self) -> String {
        self.must(&["capture-pane", "-p"])
    }

    /// Whether a program has the screen for itself.
    pub fn is_taken_over(&self) -> bool {
        self.must(&["display-message", "-p", "#{alternate_on}"]).trim() == "1"
    }

    /// Waits until the terminal shows something, and says how long that took.
    pub fn wait_for<T>(&self, what: &str, seen: impl Fn(&str) -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            let screen = self.screen();
            if let Some(found) = seen(&screen) {
                return found;
            }
            assert!(start.elapsed() < limit(), "waited for {what}:\n{screen}");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        let _ = Command::new("tmux").args(["-L", &self.socket, "kill-server"]).output();
    }
}
