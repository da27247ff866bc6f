//! The end of the command's output.

use super::{Session, SessionError};

impl Session {
    /// Takes what the command has written to its end.
    pub(super) async fn end_output(&mut self) -> Result<(), SessionError> {
        let Some(output) = &mut self.output else { return Ok(()) };
        if !output.stop().await {
            self.warnings.push(
                "the reader of the command's output is slow: the last lines may be missing in the recording"
                    .to_owned(),
            );
        }
        self.tracer.add_log_lines(output.take())?;
        self.warnings.extend(output.warnings());
        Ok(())
    }
}
