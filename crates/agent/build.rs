//! Builds the kernel side, which this crate includes as bytes.

fn main() {
    if let Err(error) = object::build() {
        // cargo::error prints line by line without the noise of a panic.
        for line in error.to_string().lines() {
            println!("cargo::error={line}");
        }
        std::process::exit(1);
    }
}

mod object {
    use std::error::Error;
    use std::ffi::OsString;
    use std::path::{Path, PathBuf};

    /// Variable for the compiler, name of the file, and whether its programs send messages.
    const OBJECTS: &[(&str, &str, bool)] = &[
        ("SPARK_TRACE_EBPF_OBJECT", "spark-trace-ebpf", false),
        ("SPARK_TRACE_EBPF_OBJECT_WITH_MESSAGES", "spark-trace-ebpf-with-messages", true),
    ];

    pub fn build() -> Result<(), Box<dyn Error>> {
        // Not env!: a build folder that was copied has a script compiled for another checkout.
        let workspace = Path::new(&variable("CARGO_MANIFEST_DIR")?).join("../..").canonicalize()?;
        let out_dir = PathBuf::from(variable("OUT_DIR")?);
        let target_arch = variable("CARGO_CFG_TARGET_ARCH")?.to_string_lossy().into_owned();

        println!("cargo::rerun-if-changed=build.rs");
        ebpf_build::rerun_if_changed(&workspace);
        for (variable, name, messages) in OBJECTS {
            let built = ebpf_build::build(&ebpf_build::Spec {
                workspace: workspace.clone(),
                target_dir: ebpf_build::object_dir(&out_dir, &target_arch),
                target_arch: target_arch.clone(),
                messages: *messages,
                jobs: std::env::var("NUM_JOBS").ok(),
            })?;
            // A copy of its own: another profile may replace the shared one while this crate compiles.
            let object = out_dir.join(name);
            std::fs::copy(&built, &object).map_err(|error| {
                format!("cannot copy {} to {}: {error}", built.display(), object.display())
            })?;
            println!("cargo::rustc-env={variable}={}", object.display());
        }
        Ok(())
    }

    fn variable(name: &str) -> Result<OsString, String> {
        std::env::var_os(name).ok_or_else(|| format!("cargo did not set {name}"))
    }
}
