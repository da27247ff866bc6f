//! What takes long before programs can be loaded and needs nothing of ours: a thread does it while the rest begins.

use std::{
    sync::mpsc::{Receiver, channel},
    thread::{self, JoinHandle},
};

use aya::{Btf, BtfError, EbpfLoader};

/// aya reads the kernel's types twice, for its loader and for attaching: 20 ms each.
pub struct Begun {
    loader: Receiver<EbpfLoader<'static>>,
    types: JoinHandle<Result<Btf, BtfError>>,
}

impl Begun {
    /// `None` where there can be no thread.
    pub fn begin() -> Option<Self> {
        let (sender, loader) = channel();
        let read = move || {
            // The loader comes first, because it is needed first. Nobody waits for it where the start has failed.
            let _ = sender.send(EbpfLoader::new());
            Btf::from_sys_fs()
        };
        let types = thread::Builder::new().name("kernel-types".to_owned()).spawn(read).ok()?;
        Some(Self { loader, types })
    }

    /// The loader, and what is still to come.
    pub(super) fn loader(begun: Option<Self>) -> (EbpfLoader<'static>, KernelTypes) {
        match begun {
            Some(Self { loader, types }) => {
                (loader.recv().unwrap_or_else(|_| EbpfLoader::new()), KernelTypes(Some(types)))
            }
            None => (EbpfLoader::new(), KernelTypes(None)),
        }
    }
}

/// The kernel's types as aya needs them for attaching.
#[derive(Default)]
pub(super) struct KernelTypes(Option<JoinHandle<Result<Btf, BtfError>>>);

impl KernelTypes {
    /// Waits for them, or reads them.
    pub(super) fn take(&mut self) -> Result<Btf, BtfError> {
        let read = self.0.take().and_then(|thread| thread.join().ok());
        read.unwrap_or_else(Btf::from_sys_fs)
    }
}
