//! Running a program that may hang: its answer, or why there is none.

use std::{
    io::Read,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

/// Longer answers are cut.
const LONGEST: u64 = 64 << 10;

/// Runs `command` and returns what it prints to standard output, trimmed. The reason of a failure is the last
/// line on standard error: warnings come before it.
pub fn answer(mut command: Command, limit: Duration) -> Result<String, String> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| format!("cannot run {}: {e}", command.get_program().display()))?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    // Read beside, so that a program that fills its pipe or leaves a child behind cannot block us.
    let (send, receive) = mpsc::channel();
    for (index, pipe) in
        [stdout.map(boxed), stderr.map(boxed)].into_iter().enumerate().filter_map(|(i, p)| Some((i, p?)))
    {
        let send = send.clone();
        thread::spawn(move || {
            let mut bytes = Vec::new();
            // What came before a failure is the answer then.
            let _ = pipe.take(LONGEST).read_to_end(&mut bytes);
            let text = String::from_utf8_lossy(&bytes).trim().to_owned();
            // Nobody waits any more after the time limit.
            let _ = send.send((index, text));
        });
    }
    drop(send);
    let deadline = Instant::now() + limit;
    let Some(success) = wait(&mut child, deadline) else {
        // It may have ended just now; both can only fail then.
        let _ = child.kill();
        let _ = child.wait();
        return Err(format!("does not answer within {} s", limit.as_secs_f64()));
    };
    let mut texts = [String::new(), String::new()];
    for _ in 0..texts.len() {
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(100));
        let Ok((index, text)) = receive.recv_timeout(left) else { break };
        texts[index] = text;
    }
    let [stdout, stderr] = texts;
    if success { Ok(stdout) } else { Err(stderr.lines().last().unwrap_or("it failed").to_owned()) }
}

fn boxed(pipe: impl Read + Send + 'static) -> Box<dyn Read + Send> {
    Box::new(pipe)
}

/// Whether it succeeded; nothing where it still runs at the deadline.
fn wait(child: &mut Child, deadline: Instant) -> Option<bool> {
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status.success()),
            Ok(None) if Instant::now() < deadline => thread::sleep(Duration::from_millis(5)),
            Ok(None) | Err(_) => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    fn answer(argv: &[&str], limit: Duration) -> Result<String, String> {
        let mut command = Command::new(argv[0]);
        command.args(&argv[1..]);
        super::answer(command, limit)
    }

    #[test]
    fn answers_and_failures() {
        assert_eq!(answer(&["echo", "hello"], LIMIT), Ok("hello".to_owned()));
        assert_eq!(answer(&["sh", "-c", "echo no >&2; exit 3"], LIMIT), Err("no".to_owned()));
        assert!(answer(&["/does/not/exist"], LIMIT).unwrap_err().starts_with("cannot run"));
    }

    #[test]
    fn a_program_that_hangs_is_given_up() {
        let start = Instant::now();
        let error = answer(&["sleep", "60"], Duration::from_millis(200)).unwrap_err();
        assert_eq!(error, "does not answer within 0.2 s");
        assert!(start.elapsed() < LIMIT);
    }
}
