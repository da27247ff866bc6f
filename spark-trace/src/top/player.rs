//! Where the recording comes from that is looked at: a file that is played back.

use std::time::{Duration, Instant};

use super::{Action, Screen, Ui, draw};
use spark_trace_analysis::live_frame;
use spark_trace_recording::Recording;

/// Something to look at.
pub trait Feed {
    /// What is to be seen now of what the user has chosen; absent until there is anything, and where there is nothing more.
    fn screen(&mut self, ui: &mut Ui) -> Option<Screen>;
    /// Whether there is something newer than what [`Self::screen`] gave last.
    fn has_changed(&mut self) -> bool;
    /// Does what a key stands for.
    fn act(&mut self, action: Action, ui: &mut Ui);
    /// Tells what the user has come to, so that it can be read.
    fn look_at(&mut self, ui: &Ui);
    /// Brings the status line up to date.
    fn status(&mut self, ui: &mut Ui);
    /// Nothing more will come.
    fn has_ended(&self) -> bool;
}

/// Speeds end here: a day in a second and a half, a second in a minute.
const FASTEST: f64 = 65_536.0;
const SLOWEST: f64 = 1.0 / 64.0;

/// A recording played back.
pub struct Player {
    recording: Recording,
    /// Of the readings there are.
    times: Vec<u64>,
    /// Nanoseconds of the recording's clock.
    position: f64,
    speed: f64,
    playing: bool,
    last: Instant,
    shown: Option<u64>,
}

impl Player {
    /// Absent where there is no reading in it.
    pub fn new(recording: Recording) -> Option<Self> {
        let times = live_frame::times(&recording);
        let first = *times.first()?;
        Some(Self {
            recording,
            times,
            position: first as f64,
            speed: 1.0,
            playing: true,
            last: Instant::now(),
            shown: None,
        })
    }

    pub fn times(&self) -> &[u64] {
        &self.times
    }

    pub const fn recording(&self) -> &Recording {
        &self.recording
    }

    /// Goes to the reading at or before a time and stands still there.
    pub fn seek(&mut self, at_ns: u64) {
        self.position = at_ns as f64;
        self.playing = false;
    }

    fn advance(&mut self) {
        let passed = std::mem::replace(&mut self.last, Instant::now()).elapsed();
        let Some(&end) = self.times.last() else { return };
        if self.playing {
            self.position += passed.as_nanos() as f64 * self.speed;
        }
        if self.position >= end as f64 {
            self.position = end as f64;
            self.playing = false;
        }
    }

    /// The reading that the position is at.
    fn index(&self) -> usize {
        self.times.partition_point(|&at_ns| at_ns as f64 <= self.position).saturating_sub(1)
    }

    /// The time that is to be shown now.
    fn now(&mut self) -> Option<u64> {
        self.advance();
        let at_ns = *self.times.get(self.index())?;
        self.shown = Some(at_ns);
        Some(at_ns)
    }

    fn go_to(&mut self, index: usize) {
        let index = index.min(self.times.len().saturating_sub(1));
        if let Some(&at_ns) = self.times.get(index) {
            self.seek(at_ns);
        }
    }

    fn scale(&mut self, by: f64) {
        self.speed = (self.speed * by).clamp(SLOWEST, FASTEST);
    }
}

impl Feed for Player {
    fn screen(&mut self, ui: &mut Ui) -> Option<Screen> {
        let at_ns = self.now()?;
        Some(ui.screen(&self.recording, at_ns, draw::HISTORY))
    }

    fn has_changed(&mut self) -> bool {
        self.advance();
        self.times.get(self.index()).copied() != self.shown
    }

    fn act(&mut self, action: Action, ui: &mut Ui) {
        self.advance();
        let index = self.index() as i64;
        let tenth = (self.times.len() as i64 / 10).max(1);
        match action {
            Action::Freeze => {
                let ended = self.index() + 1 == self.times.len();
                self.playing = !self.playing;
                // At its end it begins again.
                if self.playing
                    && ended
                    && let Some(&first) = self.times.first()
                {
                    self.position = first as f64;
                }
            }
            Action::Step(by) => self.go_to((index + by).max(0) as usize),
            Action::Jump(by) => self.go_to((index + by * tenth).max(0) as usize),
            Action::Faster => self.scale(2.0),
            Action::Slower => self.scale(0.5),
            Action::Record => ui.status.message = Some("this is a recording already".to_owned()),
            Action::Redraw | Action::Quit | Action::Baseline => {}
        }
    }

    fn look_at(&mut self, _ui: &Ui) {}

    fn status(&mut self, ui: &mut Ui) {
        let state = if self.playing { "playing" } else { "paused" };
        ui.status.mode = format!("{state} x{}, {} of {}", self.speed, self.index() + 1, self.times.len());
        let at_ns = self.times.get(self.index()).copied().unwrap_or(0);
        let since = (i128::from(at_ns) - i128::from(self.recording.target.started_ns)) as f64 / 1e9;
        ui.status.clock = format!("{since:.1} s");
    }

    fn has_ended(&self) -> bool {
        false
    }
}

/// Time between two looks for something new.
pub const LOOK: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;
    use spark_trace_testing as testing;

    #[test]
    fn steps_go_from_reading_to_reading_and_stay_inside() {
        let mut player = Player::new(testing::container()).unwrap();
        let mut ui = Ui::default();
        let count = player.times().len();
        player.act(Action::Freeze, &mut ui);
        assert!(!player.playing);
        for index in 1..count + 3 {
            player.act(Action::Step(1), &mut ui);
            assert_eq!(player.now().unwrap(), player.times()[index.min(count - 1)]);
        }
        player.act(Action::Jump(-20), &mut ui);
        assert_eq!(player.now().unwrap(), player.times()[0]);
        for _ in 0..40 {
            player.act(Action::Faster, &mut ui);
        }
        assert!((player.speed - FASTEST).abs() < 1.0);
        player.status(&mut ui);
        assert!(ui.status.mode.starts_with("paused"), "{}", ui.status.mode);
    }

    #[test]
    fn without_readings_there_is_nothing_to_play() {
        assert!(Player::new(testing::empty()).is_none());
    }
}
