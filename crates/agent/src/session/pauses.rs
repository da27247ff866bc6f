//! Whether processes are paused until a library of theirs is watched, and that none stays so.

use super::{Session, SessionError, follow::Take};
use crate::{pause::Guard, subject::Spec};

impl Session {
    /// Has processes of the target paused from now on. On a whole machine nobody is: they are nobody's command.
    pub(super) fn begin_pausing(&mut self) -> Result<(), SessionError> {
        let object = &mut self.tracer.object;
        let chosen = self.options.pause && !matches!(self.options.spec, Spec::System { .. });
        if !chosen || !object.watches_libraries() || !object.sees_mappings() {
            return Ok(());
        }
        match Guard::start(object.paused()?) {
            Ok(guard) => self.guard = Some(guard),
            Err(e) => {
                self.warnings.push(format!(
                    "processes are not paused while a new library is attached (the guard process did not start: {e}): first calls may be missing; use --cuda-library PATH"
                ));
                return Ok(());
            }
        }
        Ok(object.pause(true)?)
    }

    /// Nobody is paused any more, and who is goes on.
    pub(super) fn end_pausing(&mut self) -> Result<(), SessionError> {
        let Some(guard) = self.guard.take() else { return Ok(()) };
        self.tracer.object.pause(false)?;
        // Those whose events wait are attached to first.
        self.drain(Take::All)?;
        self.tracer.object.let_all_go()?;
        guard.end();
        Ok(())
    }
}
