//! Images that a plan makes of one static program.

use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use super::{Event, RunError, machine};
use crate::command::Values;
use crate::plan::Environment;
use spark_trace_host::archive;

/// Makes the environment's image, where the plan says of what and the engine does not have it.
pub fn make(
    environment: &Environment,
    values: &Values,
    report: &mut dyn FnMut(Event<'_>),
) -> Result<(), RunError> {
    let (Some(engine), Some(program), Some(image)) =
        (environment.kind.engine(), &environment.import_program, &environment.image)
    else {
        return Ok(());
    };
    let (program, image) =
        (values.fill(program).map_err(RunError::Command)?, values.fill(image).map_err(RunError::Command)?);
    let start = |source| RunError::Start { program: engine.to_owned(), source };
    if machine::image_id(engine, &image).is_some() {
        return Ok(());
    }
    let path = Path::new(&program);
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let layer = archive::with_program(path, &name)
        .map_err(|source| RunError::Io { path: path.to_owned(), source })?;
    report(Event::Note(format!("{engine} import - {image}    (a tar archive of /{name})")));
    let missing = || start(std::io::ErrorKind::NotFound.into());
    let mut child = spark_trace_host::engine::reaching(engine)
        .ok_or_else(missing)?
        .args(["import", "-", &image])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(start)?;
    if let Some(mut pipe) = child.stdin.take() {
        // A reader that gives up early says why in its status.
        let _ = pipe.write_all(&layer);
    }
    let output = child.wait_with_output().map_err(start)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default().to_owned();
    Err(RunError::Failed { program: format!("{engine} import - {image}"), status: output.status, said })
}
