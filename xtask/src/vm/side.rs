//! What all machines of an architecture start with.

use std::path::PathBuf;

use super::disk::Base;
use super::job::Origin;
use super::qemu::Qemu;

pub struct Side<'a> {
    pub qemu: Qemu<'a>,
    pub base: Base,
    pub image: PathBuf,
    pub of: Origin,
}
