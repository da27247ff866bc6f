//! What the parts of a run on a machine with a GPU share.

use std::path::Path;

use super::folder::Folder;
use crate::bench::cuda::Cuda;
use crate::docker::PrivateDocker;

/// What the parts share.
pub struct Machine<'a> {
    pub folder: &'a Folder,
    pub cuda: &'a Cuda,
    /// With the image [`crate::docker::GPU_IMAGE`] in it.
    pub docker: Option<&'a PrivateDocker>,
    /// On a disk; gone at the end.
    pub scratch: &'a Path,
    pub output: &'a Path,
    /// What machine it is, by lines.
    pub about: Vec<String>,
}

impl Machine<'_> {
    pub fn is_simulated(&self) -> bool {
        self.cuda.is_simulated()
    }
}
