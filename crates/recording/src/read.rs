//! Reading recordings, with an error for each way in which a file is not one.

use std::cell::Cell;
use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use serde::Deserializer as _;
use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;
use serde_json::error::Category;
use thiserror::Error;

use super::bounds::{Bounded, Bounds, MAX_RATIO, Refusal, Taken, VARIABLE, ZSTD_MAGIC};
use super::journal::JOURNAL_SCHEMA;
use super::schema::{Recording, SCHEMA, SCHEMA_VERSION};
use super::upgrade::{OLDEST_READ_AS_IT_IS, upgrade};
use super::validate::check;

/// Stands for standard input, as with other programs.
const STANDARD_INPUT: &str = "-";
/// Read at a time.
const BUFFER: usize = 64 << 10;

#[derive(Debug, Error)]
pub enum ReadError {
    #[error("{}: cannot be read", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{}: not a file", path.display())]
    NotAFile { path: PathBuf },
    #[error(
        "{}: more than {} MiB of text; if you trust the file, set {VARIABLE}=4G to read up to 4 GiB",
        path.display(), most >> 20
    )]
    TooLarge { path: PathBuf, most: u64 },
    #[error(
        "{}: reading it takes more than {} MiB of memory; if you trust the file, set {VARIABLE}=4G to use up to 4 GiB",
        path.display(), most >> 20
    )]
    TooMuchMemory { path: PathBuf, most: u64 },
    #[error(
        "{}: its text is more than {MAX_RATIO} times as large as the compressed file; no recording compresses so well",
        path.display()
    )]
    TooDense { path: PathBuf },
    #[error("{}: damaged zstd data", path.display())]
    Compression { path: PathBuf, source: io::Error },
    #[error("{}: not JSON", path.display())]
    NotJson { path: PathBuf, source: serde_json::Error },
    #[error("{}: truncated at byte {offset}: the rest of the recording is missing", path.display())]
    Truncated { path: PathBuf, offset: u64 },
    #[error(
        "{}: the journal of an interrupted run; `spark-trace recover` makes a recording of it",
        path.display()
    )]
    Journal { path: PathBuf },
    #[error("{}: not a spark-trace recording (its `schema` is not \"{SCHEMA}\")", path.display())]
    NotARecording { path: PathBuf },
    #[error(
        "{}: written by a newer spark-trace, schema {version}; this one reads up to {SCHEMA_VERSION}; \
         update spark-trace",
        path.display()
    )]
    TooNew { path: PathBuf, version: u64 },
    #[error("{}: not a valid recording", path.display())]
    Malformed { path: PathBuf, source: serde_json::Error },
    #[error("{}: `schema_version` is not a version", path.display())]
    NoVersion { path: PathBuf },
    #[error("{}: inconsistent: {what}", path.display())]
    Inconsistent { path: PathBuf, what: String },
}

/// Reads two recordings at once: reading is most of the work where they are large.
pub fn read_both(a: &Path, b: &Path) -> Result<(Recording, Recording), ReadError> {
    let bounds = Bounds::new(2);
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| read_within(a, bounds));
        let b = read_within(b, bounds);
        // A thread that panicked is a defect: passed on, not hidden.
        let a = reading.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok((a, b?))
    })
}

/// Reads the recording at `path`, plain or zstd-compressed; its first bytes say which.
pub fn read(path: &Path) -> Result<Recording, ReadError> {
    read_within(path, Bounds::new(1))
}

fn read_within(path: &Path, bounds: Bounds) -> Result<Recording, ReadError> {
    let mut source = Source::open(path)?;
    let mut magic = Vec::new();
    let begin = source.begin(Pass::First);
    let begin = begin.and_then(|begin| begin.take(ZSTD_MAGIC.len() as u64).read_to_end(&mut magic));
    begin.map_err(|source| ReadError::Io { path: path.into(), source })?;
    let compressed = magic == ZSTD_MAGIC;
    let length = source.length().map_err(|source| ReadError::Io { path: path.into(), source })?;
    let taken = source.taken();
    let bounds = match length {
        Some(length) if compressed => bounds.packed(length),
        _ => bounds,
    };
    let mut refusal = Rc::default();
    // Twice from the beginning: for its first words, and for all of it.
    let header = {
        let mut json = serde_json::Deserializer::from_reader(source.text(
            Pass::First,
            compressed,
            bounds,
            &mut refusal,
        )?);
        Header::of(&mut json)
    };
    let failed = |error: serde_json::Error, refusal: &Rc<Cell<Option<Refusal>>>| {
        let packed = length.or_else(|| taken.as_ref().map(|taken| taken.get())).unwrap_or_default();
        refused(path, refusal.get()).unwrap_or_else(|| match error.io_error_kind() {
            Some(io::ErrorKind::UnexpectedEof) if compressed => {
                ReadError::Truncated { path: path.into(), offset: packed }
            }
            Some(kind) if compressed => ReadError::Compression { path: path.into(), source: kind.into() },
            Some(kind) => ReadError::Io { path: path.into(), source: kind.into() },
            None => malformed(path, error, packed),
        })
    };
    let version = match header {
        Ok(header) => header.version(path)?,
        Err(error) if error.is_data() => return Err(ReadError::NotARecording { path: path.into() }),
        Err(error) => return Err(failed(error, &refusal)),
    };
    let text = source.text(Pass::Last, compressed, bounds, &mut refusal)?;
    let recording = if version >= OLDEST_READ_AS_IT_IS {
        serde_json::from_reader(text).map(as_today)
    } else {
        serde_json::from_reader(text).and_then(|value| upgraded(value, version))
    }
    .map_err(|error| failed(error, &refusal))?;
    checked(path, recording)
}

fn refused(path: &Path, refusal: Option<Refusal>) -> Option<ReadError> {
    let path = path.to_owned();
    Some(match refusal? {
        Refusal::Text(most) => ReadError::TooLarge { path, most },
        Refusal::Dense => ReadError::TooDense { path },
        Refusal::Memory(most) => ReadError::TooMuchMemory { path, most },
    })
}

/// What a recording is read from, more than once.
struct Source {
    path: PathBuf,
    from: Input,
}

enum Input {
    File(File),
    Stream(Stream),
}

/// A pipe: what was read of it is kept until the last pass, which is the first hundred bytes of most recordings.
struct Stream {
    rest: Box<dyn Read>,
    seen: Vec<u8>,
    taken: Taken,
}

/// Whether it will be read once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pass {
    First,
    Last,
}

/// The text of a recording, unpacked. The buffer is the outermost, and of a type that is known: the parser takes it byte by
/// byte.
type Text<'a> = BufReader<Bounded<Box<dyn Read + 'a>>>;

impl Source {
    fn open(path: &Path) -> Result<Self, ReadError> {
        let io = |source| ReadError::Io { path: path.into(), source };
        let stream = |rest| {
            let stream = Stream { rest, seen: Vec::new(), taken: Rc::default() };
            Self { path: path.into(), from: Input::Stream(stream) }
        };
        if path.as_os_str() == STANDARD_INPUT {
            return Ok(stream(Box::new(io::stdin())));
        }
        let file = open(path)?;
        let is_file = file.metadata().map_err(io)?.is_file();
        Ok(if is_file { Self { path: path.into(), from: Input::File(file) } } else { stream(Box::new(file)) })
    }

    /// Where it is known.
    fn length(&self) -> io::Result<Option<u64>> {
        match &self.from {
            Input::File(file) => Ok(Some(file.metadata()?.len())),
            Input::Stream(_) => Ok(None),
        }
    }

    fn taken(&self) -> Option<Taken> {
        match &self.from {
            Input::File(_) => None,
            Input::Stream(stream) => Some(Rc::clone(&stream.taken)),
        }
    }

    fn begin(&mut self, pass: Pass) -> io::Result<Box<dyn Read + '_>> {
        Ok(match &mut self.from {
            Input::File(file) => {
                file.rewind()?;
                Box::new(file)
            }
            Input::Stream(stream) => Box::new(Again { stream, at: 0, pass }),
        })
    }

    /// The text from its beginning.
    fn text(
        &mut self,
        pass: Pass,
        compressed: bool,
        bounds: Bounds,
        refusal: &mut Rc<Cell<Option<Refusal>>>,
    ) -> Result<Text<'_>, ReadError> {
        let (path, taken) = (self.path.clone(), self.taken().filter(|_| compressed));
        let begin = self.begin(pass).map_err(|source| ReadError::Io { path: path.clone(), source })?;
        let text: Box<dyn Read + '_> = if compressed {
            let decoder = zstd::Decoder::with_buffer(BufReader::new(begin));
            Box::new(decoder.map_err(|source| ReadError::Compression { path, source })?)
        } else {
            begin
        };
        let (bounded, its) = bounds.bound(text, taken);
        *refusal = its;
        Ok(BufReader::with_capacity(BUFFER, bounded))
    }
}

/// A stream from its beginning: first what was read before.
struct Again<'a> {
    stream: &'a mut Stream,
    at: usize,
    pass: Pass,
}

impl Read for Again<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Stream { rest, seen, taken } = &mut *self.stream;
        let mut before = seen.get(self.at..).unwrap_or_default();
        if !before.is_empty() {
            let read = before.read(buffer)?;
            self.at += read;
            return Ok(read);
        }
        let read = rest.read(buffer)?;
        taken.set(taken.get() + read as u64);
        if self.pass == Pass::First {
            seen.extend_from_slice(buffer.get(..read).unwrap_or_default());
            self.at = seen.len();
        }
        Ok(read)
    }
}

/// Opens a file, or a pipe that is open here already.
pub fn open(path: &Path) -> Result<File, ReadError> {
    let io = |source| ReadError::Io { path: path.into(), source };
    let metadata = path.metadata().map_err(io)?;
    // Opening a named FIFO without a writer would wait for ever. What is already open has a writer or has had one:
    // /dev/stdin, and the /dev/fd/N of a shell's <(...).
    let open_pipe = metadata.file_type().is_fifo() && is_open_here(path);
    if !metadata.is_file() && !open_pipe {
        return Err(ReadError::NotAFile { path: path.into() });
    }
    File::open(path).map_err(io)
}

/// The path is one of this process's own descriptors.
fn is_open_here(path: &Path) -> bool {
    let own = path.strip_prefix("/dev/fd").or_else(|_| path.strip_prefix("/proc/self/fd"));
    own.is_ok() || path == Path::new("/dev/stdin")
}

/// The two fields that say how to read the rest; any type, so that foreign JSON is distinguished from damaged JSON.
#[derive(Default)]
struct Header {
    schema: Option<Value>,
    schema_version: Option<Value>,
}

impl Header {
    /// Reads no further than it must: a recording has both fields before its first hundred bytes are over.
    fn of<'de, R: serde_json::de::Read<'de>>(
        json: &mut serde_json::Deserializer<R>,
    ) -> serde_json::Result<Self> {
        let mut header = Self::default();
        let read = json.deserialize_map(Fields(&mut header)).and_then(|()| json.end());
        if header.is_enough() { Ok(header) } else { read.map(|()| header) }
    }

    fn is_enough(&self) -> bool {
        let foreign = self.schema.as_ref().is_some_and(|schema| schema != SCHEMA);
        foreign || (self.schema.is_some() && self.schema_version.is_some())
    }

    /// Which version of a recording it is.
    fn version(self, path: &Path) -> Result<u32, ReadError> {
        let path = || PathBuf::from(path);
        if self.is(JOURNAL_SCHEMA) {
            return Err(ReadError::Journal { path: path() });
        }
        if !self.is(SCHEMA) {
            return Err(ReadError::NotARecording { path: path() });
        }
        let version = self.schema_version.and_then(|version| version.as_u64()).filter(|&version| version > 0);
        let version = version.ok_or_else(|| ReadError::NoVersion { path: path() })?;
        let known = u32::try_from(version).ok().filter(|version| *version <= SCHEMA_VERSION);
        known.ok_or_else(|| ReadError::TooNew { path: path(), version })
    }

    fn is(&self, schema: &str) -> bool {
        self.schema.as_ref().is_some_and(|found| found == schema)
    }
}

struct Fields<'a>(&'a mut Header);

impl<'de> Visitor<'de> for Fields<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        while let Some(name) = fields.next_key::<String>()? {
            match name.as_str() {
                "schema" => self.0.schema = Some(fields.next_value()?),
                "schema_version" => self.0.schema_version = Some(fields.next_value()?),
                _ => drop(fields.next_value::<IgnoredAny>()?),
            }
            if self.0.is_enough() {
                // The only way out of a value that is not read to its end.
                return Err(A::Error::custom("the rest is not needed"));
            }
        }
        Ok(())
    }
}

/// Parses the text of a recording; `path` is for error messages.
pub fn parse(path: &Path, text: &[u8]) -> Result<Recording, ReadError> {
    let failed = |error| malformed(path, error, text.len() as u64);
    let header = Header::of(&mut serde_json::Deserializer::from_slice(text));
    let version = match header {
        Ok(header) => header.version(path)?,
        Err(error) if error.is_data() => return Err(ReadError::NotARecording { path: path.into() }),
        Err(error) => return Err(failed(error)),
    };
    let recording = if version >= OLDEST_READ_AS_IT_IS {
        serde_json::from_slice(text).map(as_today)
    } else {
        serde_json::from_slice(text).and_then(|value| upgraded(value, version))
    }
    .map_err(failed)?;
    checked(path, recording)
}

/// A recording whose names were read as they are.
fn as_today(recording: Recording) -> Recording {
    Recording { schema_version: SCHEMA_VERSION, ..recording }
}

/// What JSON's parser says of text that ends at `end`.
fn malformed(path: &Path, source: serde_json::Error, end: u64) -> ReadError {
    let path = path.to_owned();
    match source.classify() {
        Category::Eof => ReadError::Truncated { path, offset: end },
        Category::Syntax | Category::Io => ReadError::NotJson { path, source },
        Category::Data => ReadError::Malformed { path, source },
    }
}

fn checked(path: &Path, recording: Recording) -> Result<Recording, ReadError> {
    check(&recording).map_err(|what| ReadError::Inconsistent { path: path.into(), what })?;
    Ok(recording)
}

fn upgraded(mut value: Value, from: u32) -> serde_json::Result<Recording> {
    upgrade(&mut value, from);
    serde_json::from_value(value)
}

#[cfg(test)]
mod tests;
