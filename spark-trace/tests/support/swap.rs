//! Swap in compressed memory, for machines that are there for tests only.

use std::ffi::CString;
use std::io;
use std::process::Command;

const DEVICE: &str = "/dev/zram0";
const CONTROL: &str = "/sys/block/zram0";

/// In use until dropped.
#[derive(Debug)]
pub struct Swap;

impl Swap {
    /// Panics where it cannot be: a test machine loads what it takes.
    pub fn on(mib: i64) -> Self {
        control("reset", "1");
        control("disksize", &format!("{mib}M"));
        let made = Command::new("mkswap").arg(DEVICE).output().expect("mkswap");
        assert!(made.status.success(), "mkswap: {}", String::from_utf8_lossy(&made.stderr));
        let device = CString::new(DEVICE).unwrap();
        // SAFETY: a string that ends with a zero, and no flags.
        let result = unsafe { libc::swapon(device.as_ptr(), 0) };
        assert_eq!(result, 0, "swapon {DEVICE}: {}", io::Error::last_os_error());
        Self
    }
}

impl Drop for Swap {
    fn drop(&mut self) {
        let device = CString::new(DEVICE).unwrap();
        // SAFETY: a string that ends with a zero.
        if unsafe { libc::swapoff(device.as_ptr()) } != 0 {
            eprintln!("swapoff {DEVICE}: {}", io::Error::last_os_error());
            return;
        }
        control("reset", "1");
    }
}

fn control(name: &str, text: &str) {
    let path = format!("{CONTROL}/{name}");
    std::fs::write(&path, text).unwrap_or_else(|e| panic!("{text} to {path}: {e} (is zram loaded?)"));
}
