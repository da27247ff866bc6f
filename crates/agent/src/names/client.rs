//! The tracer's side of the connection to the reader.

use std::{
    collections::HashMap,
    fs::File,
    time::{Duration, Instant},
};

use tracing::debug;

use super::{
    Answer,
    reader::{ABSENT, BETWEEN, DONE, EXPORTED, LONGEST_NAME, NAME, PLACES, PRESENT},
};
use crate::elf::Linked;
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
        self.ask(within, |reader, until| names(reader, file, offsets, until))
    }

    /// Where a file's linker has put what is wanted of what it exports, and its code at an offset. `None` of a file that has none
    /// there, or that is none of this machine's.
    pub fn linked(
        &mut self,
        file: &File,
        wanted: &[&str],
        offset: u64,
        within: Duration,
    ) -> Result<Option<Linked>, String> {
        self.ask(within, |reader, until| linked(reader, file, wanted, offset, until))
    }

    /// Starts the reader, which takes some 20 ms, before the first file is there.
    pub fn prepare(&mut self) {
        if self.reader.is_none() && self.unable.is_none() {
            match Reader::start() {
                Ok(reader) => self.reader = Some(reader),
                Err(why) => self.unable = Some(why),
            }
        }
    }

    fn ask<T>(
        &mut self,
        within: Duration,
        request: impl Fn(&Reader, Instant) -> Result<Result<T, String>, Broken>,
    ) -> Result<T, String> {
        self.ask_until(Instant::now() + within, within, request)
    }

    /// `within` is for the words of an answer that is late.
    fn ask_until<T>(
        &mut self,
        until: Instant,
        within: Duration,
        request: impl Fn(&Reader, Instant) -> Result<Result<T, String>, Broken>,
    ) -> Result<T, String> {
        if let Some(why) = &self.unable {
            return Err(why.clone());
        }
        let waiting = self.reader.take();
        let has_waited = waiting.is_some();
        let reader = match waiting {
            Some(reader) => reader,
            None => Reader::start().inspect_err(|why| {
                debug!("{why}");
                self.unable = Some(why.clone());
            })?,
        };
        let answer = request(&reader, until);
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
                Err(format!("reading its symbols takes more than {} ms", within.as_millis()))
            }
            Err(Broken::Lies) => {
                reader.end();
                Err("the reader of symbols sent invalid data".to_owned())
            }
            // One that waited may have ended for want of memory before this file, which is then not to blame.
            Err(Broken::Closed) if has_waited => {
                let status = reader.end().map(in_words);
                debug!("the waiting reader of symbols ended ({status:?}); another one reads this file");
                return self.ask_until(until, within, request);
            }
            Err(Broken::Closed) => Err(match reader.end() {
                Some(status) => format!("the reader of symbols ended ({})", in_words(status)),
                None => "the reader of symbols ended".to_owned(),
            }),
        };
        if let Err(why) = &answer {
            debug!("{why}; another reader starts for the next file");
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

fn linked(
    reader: &Reader,
    file: &File,
    wanted: &[&str],
    offset: u64,
    until: Instant,
) -> Result<Result<Option<Linked>, String>, Broken> {
    let mut request = vec![EXPORTED];
    request.extend(offset.to_le_bytes());
    request.extend(wanted.join(char::from(BETWEEN).encode_utf8(&mut [0; 4])).as_bytes());
    reader.send(&request, Some(file))?;
    let packet = reader.receive(until)?;
    match packet.split_first() {
        // A program of another machine, or one that is damaged, is no fault of the reader's.
        Some((&FAILED, _)) => Ok(Ok(None)),
        Some((&DONE, numbers)) => Ok(Ok(numbers_of(numbers, wanted).ok_or(Broken::Lies)?)),
        _ => Err(Broken::Lies),
    }
}

/// `None` where an answer is none; nothing in it where the file has no code there.
fn numbers_of(mut answer: &[u8], wanted: &[&str]) -> Option<Option<Linked>> {
    let mut next = || -> Option<Option<u64>> {
        let (kind, rest) = answer.split_first()?;
        let (number, rest) = match *kind {
            ABSENT => (None, rest),
            PRESENT => {
                let (number, rest) = rest.split_first_chunk()?;
                (Some(u64::from_le_bytes(*number)), rest)
            }
            _ => return None,
        };
        answer = rest;
        Some(number)
    };
    let code = next()?;
    let mut symbols = HashMap::new();
    for name in wanted {
        if let Some(address) = next()? {
            symbols.insert((*name).to_owned(), address);
        }
    }
    answer.is_empty().then(|| code.map(|code| Linked { symbols, code }))
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.end();
        }
    }
}
