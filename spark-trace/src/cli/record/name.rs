//! What a recording is called where the user does not say.

use std::path::{Path, PathBuf};

use spark_trace_agent::subject::{Spec, text};
use spark_trace_recording::WriteOptions;
use spark_trace_recording::claim::Claim;
use spark_trace_recording::parse;
use spark_trace_recording::write::{WriteError, refuse_existing};

/// So much of a target's name is in a file's: what is put around it keeps that below NAME_MAX (255 bytes).
const LONGEST_TARGET: usize = 100;
/// Recordings of one target within one second.
const MOST: u32 = 10_000;

/// Takes the name of a recording: the one that the user gave, or the first that is free.
pub fn claim(
    wanted: Option<&Path>,
    spec: &Spec,
    write: WriteOptions,
) -> Result<(PathBuf, Claim), WriteError> {
    first_free(wanted, spec, |path| Claim::new(path, write))
}

/// The name of a recording that is made at once.
pub fn free(spec: &Spec, write: WriteOptions) -> Result<PathBuf, WriteError> {
    first_free(None, spec, |path| refuse_existing(path, write)).map(|(path, ())| path)
}

fn first_free<Taken>(
    wanted: Option<&Path>,
    spec: &Spec,
    take: impl Fn(&Path) -> Result<Taken, WriteError>,
) -> Result<(PathBuf, Taken), WriteError> {
    if let Some(path) = wanted {
        return take(path).map(|taken| (path.to_owned(), taken));
    }
    let stem = stem(spec);
    let mut number = 1;
    loop {
        let path = PathBuf::from(match number {
            1 => format!("{stem}.json"),
            _ => format!("{stem}-{number}.json"),
        });
        match take(&path) {
            Ok(taken) => return Ok((path, taken)),
            Err(error) if number == MOST || !is_taken(&error) => return Err(error),
            Err(_) => number += 1,
        }
    }
}

const fn is_taken(error: &WriteError) -> bool {
    use WriteError::{Exists, InUse, Io, LeftBehind, NotAFile};
    match error {
        Exists { .. } | InUse { .. } | LeftBehind { .. } | NotAFile { .. } => true,
        Io { .. } => false,
    }
}

/// `spark-trace-TARGET-TIME`, in the working directory.
fn stem(spec: &Spec) -> String {
    let target = match spec {
        Spec::Command { argv, .. } => {
            let program = text(argv).into_iter().next().unwrap_or_default();
            program.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or("command").to_owned()
        }
        Spec::Container { name, .. } => name.clone(),
        Spec::Pid(pid) => format!("pid{pid}"),
        Spec::Cgroup(_) | Spec::System { .. } => spec.kind().to_string(),
    };
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
    let target: String = target.chars().map(plain).take(LONGEST_TARGET).collect();
    format!("spark-trace-{target}-{}", parse::utc_now())
}

#[cfg(test)]
mod tests {
    use super::*;
    use spark_trace_agent::subject::Placement;

    fn command(program: &str) -> Spec {
        Spec::Command { argv: vec![program.into()], placement: Placement::Leaf, as_root: false }
    }

    #[test]
    fn names_are_short_and_plain() {
        let long = stem(&command(&format!("/opt/{}", "x".repeat(250))));
        assert!(long.len() < 150 && long.starts_with("spark-trace-xxx"), "{long}");
        assert!(stem(&command("./a b\n/é")).starts_with("spark-trace-_-"));
        assert!(stem(&command("/")).starts_with("spark-trace-command-"));
    }

    #[test]
    fn a_name_that_is_taken_gets_a_number() {
        let directory = tempfile::tempdir().unwrap();
        let write = WriteOptions::default();
        // Within one second each further one finds the names before it taken.
        let taken = std::cell::RefCell::new(Vec::<PathBuf>::new());
        let take = |path: &Path| {
            let path = directory.path().join(path);
            let claim = Claim::new(&path, write)?;
            taken.borrow_mut().push(path);
            Ok(claim)
        };
        let claims: Vec<_> = (0..5).map(|_| first_free(None, &command("true"), take).unwrap()).collect();
        let mut names: Vec<_> = claims.iter().map(|(path, _)| path.clone()).collect();
        names.dedup();
        assert_eq!(names.len(), 5);
        // A name of the user's own is that one or none.
        let own = directory.path().join("run.json");
        let first = claim(Some(&own), &command("true"), write).unwrap();
        assert_eq!(first.0, own);
        assert!(claim(Some(&own), &command("true"), write).is_err());
    }
}
