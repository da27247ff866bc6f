//! Swap for machines that are there for tests only: in compressed memory, or in a file where the kernel has no
//! compressor for that.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::process::Command;

use tempfile::TempDir;

const ZRAM: &str = "/sys/block/zram0";
const ZRAM_DEVICE: &str = "/dev/zram0";

/// In use until dropped.
#[derive(Debug)]
pub struct Swap {
    path: CString,
    /// Holds the file.
    dir: Option<TempDir>,
}

impl Swap {
    /// Panics where it cannot be.
    pub fn on(mib: usize) -> Self {
        let (path, dir) = match zram(mib) {
            Ok(()) => (ZRAM_DEVICE.to_owned(), None),
            Err(error) => {
                println!("swap in a file: {ZRAM}: {error}");
                let dir = super::disk_dir();
                (file(&dir, mib), Some(dir))
            }
        };
        let made = Command::new("mkswap").arg(&path).output().expect("mkswap");
        assert!(made.status.success(), "mkswap: {}", String::from_utf8_lossy(&made.stderr));
        let path = CString::new(path).unwrap();
        // SAFETY: a string that ends with a zero, and no flags.
        let result = unsafe { libc::swapon(path.as_ptr(), 0) };
        assert_eq!(result, 0, "swapon {}: {}", path.to_string_lossy(), io::Error::last_os_error());
        Self { path, dir }
    }
}

fn zram(mib: usize) -> io::Result<()> {
    fs::write(format!("{ZRAM}/reset"), "1")?;
    fs::write(format!("{ZRAM}/disksize"), format!("{mib}M"))
}

fn file(dir: &TempDir, mib: usize) -> String {
    let path = super::path(dir, "swap");
    // Written, so that it has no holes.
    let mut file = File::create(&path).unwrap();
    for _ in 0..mib {
        file.write_all(&[0; 1 << 20]).unwrap();
    }
    file.sync_all().unwrap();
    path
}

impl Drop for Swap {
    fn drop(&mut self) {
        // SAFETY: a string that ends with a zero.
        if unsafe { libc::swapoff(self.path.as_ptr()) } != 0 {
            eprintln!("swapoff {}: {}", self.path.to_string_lossy(), io::Error::last_os_error());
        } else if self.dir.is_none() {
            let _ = fs::write(format!("{ZRAM}/reset"), "1");
        }
    }
}
