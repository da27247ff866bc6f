//! Which driver library is loaded.
//!
//! The bindings open `libcuda.so` by that name, as the dynamic loader finds it. For another library to be found, the
//! program starts itself again with LD_LIBRARY_PATH beginning with a private directory, in which that name leads to
//! the library by a symbolic link: the loader reads the variable only at a program's start. The process keeps its
//! number, and /proc/PID/maps shows the library's true name. The directory is gone once the library is loaded.

use std::path::{Path, PathBuf};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    System,
    Simulated,
    Path(PathBuf),
}

impl Choice {
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "" => Err("not system, simulated, or the path of a library".to_owned()),
            "system" => Ok(Self::System),
            "simulated" => Ok(Self::Simulated),
            path if path.contains('/') => Ok(Self::Path(Path::new(path).to_owned())),
            other => Err(format!("{other:?} is neither system nor simulated, nor a path with a / in it")),
        }
    }
}

#[cfg(all(feature = "cuda", not(target_feature = "crt-static")))]
pub use again::{finish, prepare, wanted};

#[cfg(all(feature = "cuda", not(target_feature = "crt-static")))]
mod again {
    use std::env;
    use std::ffi::OsString;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::os::unix::process::CommandExt;
    use std::path::{Path, PathBuf};
    use std::process::Command;

    use anyhow::{Context, Result, bail};

    use super::Choice;

    const SIMULATED: &str = "libspark_trace_simulated_cuda.so";
    const LIBRARY_PATH: &str = "LD_LIBRARY_PATH";
    /// The private directory, for the program that was started again.
    const DIRECTORY: &str = "SPARK_TRACE_WORKLOAD_DRIVER_DIR";
    /// Its name begins with this and the number of the process, which a new start keeps.
    const PREFIX: &str = "spark-trace-driver-";

    /// The private directory, if this process was started again. A variable inherited from another does not count.
    fn own_directory() -> Option<PathBuf> {
        let directory = PathBuf::from(env::var_os(DIRECTORY)?);
        let name = directory.file_name()?.to_str()?;
        name.starts_with(&format!("{PREFIX}{}-", std::process::id())).then_some(directory)
    }

    /// Sees to it that the bindings will find the chosen library; does not return if that takes a new start.
    pub fn prepare(choice: &Choice) -> Result<()> {
        if *choice == Choice::System || own_directory().is_some() {
            return Ok(());
        }
        let library = match choice {
            Choice::Path(path) => path.clone(),
            _ => beside()?,
        };
        let library =
            fs::canonicalize(&library).with_context(|| format!("no driver at {}", library.display()))?;
        if !library.is_file() {
            bail!("{} is not a file", library.display());
        }
        let directory = private_directory()?;
        let linked = ["libcuda.so", "libcuda.so.1"]
            .iter()
            .try_for_each(|name| symlink(&library, directory.join(name)));
        linked.with_context(|| format!("cannot make a link in {}", directory.display()))?;
        // Does not return when it succeeds.
        let error = start_again(&directory, &library);
        let _ = fs::remove_dir_all(&directory);
        Err(error)
    }

    /// The library that was chosen by path; to be called before `finish`.
    pub fn wanted() -> Option<PathBuf> {
        fs::read_link(own_directory()?.join("libcuda.so")).ok()
    }

    fn start_again(directory: &Path, library: &Path) -> anyhow::Error {
        let before = env::var_os(LIBRARY_PATH);
        let mut path = OsString::from(directory);
        // A driver's companions (its compiler for PTX, say) lie beside it.
        for more in library.parent().map(Path::as_os_str).into_iter().chain(before.as_deref()) {
            path.push(":");
            path.push(more);
        }
        let mut command = match env::current_exe() {
            Ok(program) => Command::new(program),
            Err(error) => return anyhow::Error::new(error).context("cannot find this program"),
        };
        let mut arguments = env::args_os();
        if let Some(name) = arguments.next() {
            command.arg0(name);
        }
        command.args(arguments).env(LIBRARY_PATH, path).env(DIRECTORY, directory);
        anyhow::Error::new(command.exec()).context("cannot start this program again")
    }

    /// Removes the private directory; to be called when the library is loaded, or cannot be.
    pub fn finish() {
        if let Some(directory) = own_directory() {
            // It holds two links of ours and is of no more use. That it stays is not worth an error.
            for name in ["libcuda.so", "libcuda.so.1"] {
                let _ = fs::remove_file(directory.join(name));
            }
            let _ = fs::remove_dir(directory);
        }
    }

    fn private_directory() -> Result<PathBuf> {
        use std::os::unix::fs::DirBuilderExt;
        let parent = env::temp_dir();
        let name = |attempt: u32| format!("{PREFIX}{}-{attempt}", std::process::id());
        for attempt in 0..100 {
            let directory = parent.join(name(attempt));
            // Ours alone: who could write there could have us load anything.
            match fs::DirBuilder::new().mode(0o700).create(&directory) {
                Ok(()) => return Ok(directory),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("cannot create {}", directory.display()));
                }
            }
        }
        bail!("cannot find an unused name for a directory in {}", parent.display());
    }

    /// The simulated driver beside this program, or in `deps` there, where cargo leaves it for tests.
    fn beside() -> Result<PathBuf> {
        let program = env::current_exe().context("cannot find this program")?;
        let directory = program.parent().unwrap_or(Path::new("/"));
        let candidates = [directory.join(SIMULATED), directory.join("deps").join(SIMULATED)];
        match candidates.iter().find(|path| path.is_file()) {
            Some(path) => Ok(path.clone()),
            None => bail!(
                "there is no {SIMULATED} in {}: build it (cargo build -p spark-trace-simulated-cuda), or name it: \
                 --driver PATH",
                directory.display()
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices() {
        assert_eq!(Choice::parse("system"), Ok(Choice::System));
        assert_eq!(Choice::parse("./lib.so"), Ok(Choice::Path("./lib.so".into())));
        assert!(Choice::parse("").is_err() && Choice::parse("Simulated").is_err());
    }
}
