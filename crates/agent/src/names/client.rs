//! The tracer's side of the connection to the reader.

use std::{
    fs::File,
    time::{Duration, Instant},
};

use tracing::debug;

use super::{
    Answer,
    reader::{DONE, LONGEST_NAME, NAME, PLACES},
};
use crate::unprivileged::{Broken, FAILED, Meter, Reader, Took, in_words};

/// A reader under way, if there is one.
#[derive(Debug, Default)]
pub struct Client {
    reader: Option<Reader>,
    meter: Meter,
    /// Why none can be started.
    unable: Option<String>,
}

impl Client {
    /// Names of places in a file, within a time.
    pub fn names(&mut self, file: &File, offsets: &[u64], within: Duration) -> Answer {
        if let Some(why) = &self.unable {
            return Err(why.clone());
        }
        let reader = match self.reader.take() {
            Some(reader) => reader,
            None => Reader::start().inspect_err(|why| {
                debug!("{why}");
                self.unable = Some(why.clone());
            })?,
        };
        let until = Instant::now() + within;
        let answer = names(&reader, file, offsets, until);
        self.meter.note(&reader);
        if answer.is_err() {
            self.meter.ended();
        }
        let answer = match answer {
            Ok(answer) => {
                self.reader = Some(reader);
                return answer;
            }
            Err(Broken::Late) => {
                reader.end();
                Err(format!("reading its symbols takes more than {} s", within.as_secs_f32().ceil()))
            }
            Err(Broken::Lies) => {
                reader.end();
                Err("the reader of symbols sent invalid data".to_owned())
            }
            Err(Broken::Closed) => Err(match reader.end() {
                Some(status) => format!("the reader of symbols ended ({})", in_words(status)),
                None => "the reader of symbols ended".to_owned(),
            }),
        };
        if let Err(why) = &answer {
            debug!(
                "{why}; {} places stay without a name, and another reader starts for the next file",
                offsets.len()
            );
        }
        answer
    }

    /// One that notes what its readers took.
    pub fn noting(took: Took) -> Self {
        let mut client = Self::default();
        client.meter = Meter::new(took);
        client
    }
}

#[cfg(test)]
impl Client {
    pub fn pid(&self) -> Option<u32> {
        self.reader.as_ref().map(Reader::id)
    }
}

fn names(reader: &Reader, file: &File, offsets: &[u64], until: Instant) -> Result<Answer, Broken> {
    let mut request = vec![PLACES];
    request.extend(offsets.iter().flat_map(|offset| offset.to_le_bytes()));
    reader.send(&request, Some(file))?;
    let mut names = vec![None; offsets.len()];
    // One packet a name at most, and the end.
    for _ in 0..=offsets.len() {
        let packet = reader.receive(until)?;
        let (kind, content) = packet.split_first().ok_or(Broken::Closed)?;
        match (*kind, content.split_first_chunk()) {
            (DONE, _) => return Ok(Ok(names)),
            (FAILED, _) => return Ok(Err(String::from_utf8_lossy(content).into_owned())),
            (NAME, Some((index, name))) => {
                let name = std::str::from_utf8(name).map_err(|_| Broken::Lies)?;
                let place = names.get_mut(u32::from_le_bytes(*index) as usize).ok_or(Broken::Lies)?;
                if name.is_empty() || name.len() > LONGEST_NAME + '…'.len_utf8() {
                    return Err(Broken::Lies);
                }
                *place = Some(name.to_owned());
            }
            _ => return Err(Broken::Lies),
        }
    }
    Err(Broken::Lies)
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.end();
        }
    }
}
