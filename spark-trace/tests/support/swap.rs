//! Swap in a file, for machines that are there for tests only.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Write};
use std::process::Command;

use tempfile::TempDir;

/// In use until dropped.
#[derive(Debug)]
pub struct Swap {
    path: CString,
    _dir: TempDir,
}

impl Swap {
    /// Panics where it cannot be.
    pub fn on(mib: usize) -> Self {
        let dir = super::disk_dir();
        let path = super::path(&dir, "swap");
        // Written, so that it has no holes.
        let mut file = File::create(&path).unwrap();
        for _ in 0..mib {
            file.write_all(&[0; 1 << 20]).unwrap();
        }
        file.sync_all().unwrap();
        let made = Command::new("mkswap").arg(&path).output().expect("mkswap");
        assert!(made.status.success(), "mkswap: {}", String::from_utf8_lossy(&made.stderr));
        let path = CString::new(path).unwrap();
        // SAFETY: a string that ends with a zero, and no flags.
        let result = unsafe { libc::swapon(path.as_ptr(), 0) };
        assert_eq!(result, 0, "swapon {}: {}", path.to_string_lossy(), io::Error::last_os_error());
        Self { path, _dir: dir }
    }
}

impl Drop for Swap {
    fn drop(&mut self) {
        // SAFETY: a string that ends with a zero.
        if unsafe { libc::swapoff(self.path.as_ptr()) } != 0 {
            eprintln!("swapoff {}: {}", self.path.to_string_lossy(), io::Error::last_os_error());
        }
    }
}
