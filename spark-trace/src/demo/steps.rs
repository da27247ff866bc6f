//! The commands of the demo, in their order.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, chown},
    path::{Path, PathBuf},
};

use super::{
    CONTAINER_ANON, DemoError, Event, FILE, FILE_NAME, HOLD, NATIVE_ANON, Options, Outcome, Place, SHMEM,
    runner::Runner,
};

/// Name of the program in image and sandbox: the same as outside, so that `diff` sees one program.
const PROGRAM: &str = "spark-trace-workload";
/// Where the data lies for the second run.
const DATA: &str = "/data";

pub async fn run(
    options: &Options,
    place: Place,
    report: &mut dyn FnMut(Event<'_>),
) -> Result<Outcome, DemoError> {
    let mut demo = Demo::new(options, place)?;
    let mut runner = Runner::new()?;
    let made = demo.record(&mut runner, report).await;
    let cleaned = if options.keep { Ok(()) } else { demo.clean_up(&mut runner, report).await };
    made?;
    cleaned?;
    if let Some((uid, gid)) = options.owner {
        chown(&options.dir, Some(uid), Some(gid)).map_err(DemoError::io(&options.dir))?;
    }
    let inference = options.inference.as_ref().map(|_| demo.inference);
    Ok(Outcome { native: demo.native, container: demo.second, place, inference })
}

struct Demo<'a> {
    options: &'a Options,
    place: Place,
    native: PathBuf,
    second: PathBuf,
    inference: PathBuf,
    /// Files of the runs; the sandbox's root directory.
    root: PathBuf,
    image: String,
    imported: bool,
}

impl<'a> Demo<'a> {
    fn new(options: &'a Options, place: Place) -> Result<Self, DemoError> {
        let dir = &options.dir;
        let demo = Self {
            options,
            place,
            native: dir.join("native.json"),
            second: dir.join(format!("{}.json", place.noun())),
            inference: dir.join("inference.json"),
            root: dir.join("root"),
            image: format!("spark-trace-demo:{}", std::process::id()),
            imported: false,
        };
        let recordings = [&demo.native, &demo.second, &demo.inference].map(|path| (path, "a recording"));
        let what = recordings.into_iter().chain([(&demo.root, "root/")]);
        if let Some((_, what)) = { what }.find(|(path, _)| path.symlink_metadata().is_ok())
            && !options.force
        {
            return Err(DemoError::Exists { dir: dir.clone(), what });
        }
        Ok(demo)
    }

    async fn record(
        &mut self,
        runner: &mut Runner,
        report: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), DemoError> {
        remove_tree(&self.root)?;
        let data = self.root.join(DATA.trim_start_matches('/'));
        fs::DirBuilder::new().recursive(true).mode(0o755).create(&data).map_err(DemoError::io(&data))?;
        let file = data.join(FILE_NAME);
        let workload = text(&self.options.workload);

        report(Event::Step("native run: a file that is not in memory, anonymous and shared memory"));
        let size = mib(FILE);
        runner.run(&words(&[&workload, "file", "--create", &text(&file), "--size", &size]), report).await?;
        runner.run(&words(&[&workload, "file", "--drop", &text(&file)]), report).await?;
        let native = alloc(std::slice::from_ref(&workload), NATIVE_ANON, &text(&file));
        runner.run(&self.recording(&self.native, &[], native), report).await?;

        let noun = self.place.noun();
        report(Event::Step(&format!(
            "{noun} run: the same with {} more anonymous memory; the file is in memory now",
            mib(CONTAINER_ANON - NATIVE_ANON)
        )));
        let front = self.front(&data, runner, report).await?;
        let second = alloc(&front, CONTAINER_ANON, &format!("{DATA}/{FILE_NAME}"));
        runner.run(&self.recording(&self.second, &[], second), report).await?;

        let Some(inference) = &self.options.inference else { return Ok(()) };
        let driver =
            if inference.simulated.is_some() { "the simulated CUDA driver" } else { "the CUDA driver" };
        report(Event::Step(&format!("inference: weights, KV cache and matrix products through {driver}")));
        let command = inference.command(&self.root.join("model"));
        runner.run(&self.recording(&self.inference, &inference.options(), command), report).await
    }

    /// Prepares the container or the sandbox; the words that run the workload in it.
    async fn front(
        &mut self,
        data: &Path,
        runner: &mut Runner,
        report: &mut dyn FnMut(Event<'_>),
    ) -> Result<Vec<String>, DemoError> {
        let workload = &self.options.workload;
        let inside = format!("/{PROGRAM}");
        if self.place == Place::Sandbox {
            let copy = self.root.join(PROGRAM);
            runner.run(&words(&[&program("cp"), &text(workload), &text(&copy)]), report).await?;
            let root = format!("--root={}", text(&self.root));
            return Ok(words(&[
                &program("unshare"),
                "--mount",
                "--uts",
                "--ipc",
                "--pid",
                "--fork",
                "--kill-child",
                &root,
                &inside,
            ]));
        }
        let engine = &program(self.place.as_str());
        let layer =
            spark_trace_host::archive::with_program(workload, PROGRAM).map_err(DemoError::io(workload))?;
        let origin = format!("< (a tar archive of {inside})");
        runner.feed(&words(&[engine, "import", "-", &self.image]), &layer, &origin, report).await?;
        self.imported = true;
        let volume = format!("{}:{DATA}:ro", text(data));
        Ok(words(&[
            engine,
            "run",
            "--rm",
            "--network=none",
            "--memory=1g",
            "-v",
            &volume,
            &self.image,
            &inside,
        ]))
    }

    /// `spark-trace record` of a command; both runs as root, as the engine's client and the sandbox need it.
    fn recording(&self, output: &Path, options: &[String], command: Vec<String>) -> Vec<String> {
        let mut argv = words(&[&text(&self.options.spark_trace), "record", "--as-root"]);
        if self.options.force {
            argv.push("--force".to_owned());
        }
        argv.extend_from_slice(options);
        argv.extend(words(&["-o", &text(output), "--"]));
        argv.extend(command);
        argv
    }

    async fn clean_up(
        &self,
        runner: &mut Runner,
        report: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), DemoError> {
        remove_tree(&self.root)?;
        if !self.imported {
            return Ok(());
        }
        runner.run(&words(&[&program(self.place.as_str()), "image", "rm", &self.image]), report).await
    }
}

/// What runs as root is what root has installed, whatever $PATH says; where nothing is, the start will say so.
fn program(name: &str) -> String {
    spark_trace_host::engine::trusted(name).map_or_else(|| format!("/usr/bin/{name}"), |path| text(&path))
}

/// The workload's command line behind `front`.
fn alloc(front: &[String], anon: u64, file: &str) -> Vec<String> {
    let mut argv = front.to_vec();
    let (anon, shmem, size) = (mib(anon), mib(SHMEM), mib(FILE));
    argv.extend(words(&["alloc", "--anon", &anon, "--shmem", &shmem, "--file-read", &size, "--file", file]));
    argv.extend(words(&["--hold", HOLD]));
    argv
}

fn mib(bytes: u64) -> String {
    format!("{}M", bytes >> 20)
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn remove_tree(dir: &Path) -> Result<(), DemoError> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(DemoError::io(dir)(e)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(dir: &Path, force: bool) -> Options {
        Options {
            dir: dir.to_owned(),
            workload: "/w".into(),
            inference: None,
            spark_trace: "/s".into(),
            place: None,
            force,
            keep: false,
            owner: None,
        }
    }

    #[test]
    fn an_earlier_demo_is_not_replaced_unasked() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Demo::new(&options(dir.path(), false), Place::Docker).is_ok());
        fs::write(dir.path().join("native.json"), "").unwrap();
        let error = Demo::new(&options(dir.path(), false), Place::Docker).err().unwrap().to_string();
        assert!(error.contains("--force"), "{error}");
        assert!(Demo::new(&options(dir.path(), true), Place::Docker).is_ok());
    }

    #[test]
    fn a_sandbox_is_not_called_a_container() {
        let options = options(Path::new("/d"), false);
        let demo = Demo::new(&options, Place::Sandbox).unwrap();
        assert_eq!(demo.second, Path::new("/d/sandbox.json"));
    }
}
