//! Kernel addresses to names and modules, from /proc/kallsyms.
//!
//! Our own reader because the classifier needs the module a frame lies in.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    sync::LazyLock,
    thread,
};

use tracing::debug;

/// Functions kept, at most. A kernel with its modules has some hundred thousand.
const MOST: usize = 2_000_000;

#[derive(Debug, Default)]
pub struct Kallsyms {
    /// Sorted by address.
    symbols: Vec<Symbol>,
    /// All names, one after the other.
    names: String,
    modules: Vec<Box<str>>,
}

#[derive(Debug, Clone, Copy)]
struct Symbol {
    address: u64,
    /// Where its name is in `names`.
    start: u32,
    length: u16,
    /// Number of its module, from 1 on; 0 for the kernel itself.
    module: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Name<'a> {
    pub name: &'a str,
    pub module: Option<&'a str>,
}

impl Kallsyms {
    /// Reads the running kernel's symbols. They are hidden (all zero) from those without CAP_SYSLOG.
    pub fn from_kernel() -> io::Result<Self> {
        Self::read(BufReader::new(File::open("/proc/kallsyms")?))
    }

    /// From the text of such a file.
    pub fn parse(text: &str) -> Self {
        Self::read(text.as_bytes()).unwrap_or_default()
    }

    /// Line by line: the text has many megabytes.
    fn read(mut text: impl BufRead) -> io::Result<Self> {
        let mut read = Self::default();
        let mut line = Vec::new();
        while read.symbols.len() < MOST && text.read_until(b'\n', &mut line)? > 0 {
            if let Some(found) = std::str::from_utf8(&line).ok().and_then(function) {
                read.add(found);
            }
            line.clear();
        }
        read.symbols.sort_by_key(|symbol| symbol.address);
        read.symbols.shrink_to_fit();
        read.names.shrink_to_fit();
        Ok(read)
    }

    /// What has no room for its number is left out.
    fn add(&mut self, (address, Name { name, module }): (u64, Name<'_>)) {
        let start = u32::try_from(self.names.len());
        let (Ok(start), Ok(length), Some(module)) =
            (start, u16::try_from(name.len()), self.module_number(module))
        else {
            return;
        };
        self.names.push_str(name);
        self.symbols.push(Symbol { address, start, length, module });
    }

    fn module_number(&mut self, name: Option<&str>) -> Option<u16> {
        let Some(name) = name else { return Some(0) };
        // Those of one module come together.
        let known = self.modules.iter().rposition(|known| **known == *name);
        let index = known.unwrap_or_else(|| {
            self.modules.push(name.into());
            self.modules.len() - 1
        });
        u16::try_from(index + 1).ok()
    }

    /// The function that `address` lies in.
    pub fn find(&self, address: u64) -> Option<Name<'_>> {
        let after = self.symbols.partition_point(|symbol| symbol.address <= address);
        self.name(self.symbols.get(after.checked_sub(1)?)?)
    }

    fn name(&self, symbol: &Symbol) -> Option<Name<'_>> {
        let start = symbol.start as usize;
        let name = self.names.get(start..start + usize::from(symbol.length))?;
        let module = usize::from(symbol.module).checked_sub(1);
        Some(Name { name, module: module.and_then(|index| self.modules.get(index)).map(|name| &**name) })
    }

    pub fn is_empty(&self) -> bool {
        self.symbols.is_empty()
    }

    /// Whether a function of that name is known.
    pub fn has(&self, name: &str) -> bool {
        self.symbols.iter().any(|symbol| self.name(symbol).is_some_and(|found| found.name == name))
    }
}

/// `ffffffff81000000 t name [module]`, code only.
fn function(line: &str) -> Option<(u64, Name<'_>)> {
    let mut words = line.split_ascii_whitespace();
    let address = words.next()?;
    if !matches!(words.next()?, "t" | "T" | "w" | "W") {
        return None;
    }
    let address = u64::from_str_radix(address, 16).ok().filter(|address| *address != 0)?;
    let name = words.next()?;
    let module = words.next().map(|module| module.trim_matches(['[', ']']));
    Some((address, Name { name, module }))
}

type Reader = Box<dyn FnOnce() -> Kallsyms + Send>;

/// The running kernel's symbols, which a thread reads while the trace begins. Who needs them first waits for it.
#[derive(Debug)]
pub struct Awaited(LazyLock<Kallsyms, Reader>);

impl Awaited {
    /// Begins to read. The programs must have been loaded: their own frames are among the symbols.
    pub fn begin() -> Self {
        let thread = thread::Builder::new().name("kallsyms".to_owned()).spawn(read_or_none);
        Self(LazyLock::new(match thread {
            Ok(thread) => Box::new(|| thread.join().unwrap_or_default()),
            Err(_) => Box::new(read_or_none),
        }))
    }

    /// Begins to read when they are needed, where they may not be.
    pub fn when_needed() -> Self {
        Self(LazyLock::new(Box::new(read_or_none)))
    }

    pub fn get(&self) -> &Kallsyms {
        &self.0
    }
}

impl From<Kallsyms> for Awaited {
    fn from(read: Kallsyms) -> Self {
        Self(LazyLock::new(Box::new(|| read)))
    }
}

fn read_or_none() -> Kallsyms {
    Kallsyms::from_kernel()
        .inspect_err(|error| debug!("kernel functions have no names: /proc/kallsyms: {error}"))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_function_below_and_its_module() {
        let table = Kallsyms::parse(
            "ffffffff81000010 T b\nffffffff81000000 t a\nffffffffc0000000 t nv_alloc_pages\t[nvidia]\nffffffff81000005 d data\n",
        );
        assert_eq!(table.find(0xffff_ffff_8100_0007).unwrap().name, "a");
        assert_eq!(table.find(0xffff_ffff_8100_0010).unwrap().name, "b");
        let module = table.find(0xffff_ffff_c000_0100).unwrap();
        assert_eq!(module, Name { name: "nv_alloc_pages", module: Some("nvidia") });
        assert!(table.find(5).is_none());
        assert!(table.has("nv_alloc_pages") && !table.has("data") && !table.is_empty());
    }

    #[test]
    fn hidden_symbols_give_none() {
        assert!(Kallsyms::parse("0000000000000000 t a\n").find(0xffff).is_none());
    }

    #[test]
    fn lines_may_be_cut_anywhere_while_they_are_read() {
        let text = "ffffffff81000000 t a\nffffffffc0000000 t b\t[m]\nffffffffc0000010 t c\t[m]";
        let whole = Kallsyms::parse(text);
        for room in 1..text.len() {
            let read = Kallsyms::read(BufReader::with_capacity(room, text.as_bytes())).unwrap();
            for address in [0xffff_ffff_8100_0000, 0xffff_ffff_c000_0001, 0xffff_ffff_c000_0011] {
                assert!(whole.find(address).is_some());
                assert_eq!(read.find(address), whole.find(address), "{room}");
            }
        }
    }

    #[test]
    fn what_is_read_meanwhile_is_what_the_kernel_has() {
        let awaited = Awaited::begin();
        let now = Kallsyms::from_kernel().unwrap();
        assert_eq!(awaited.get().is_empty(), now.is_empty());
        assert_eq!(awaited.get().has("vprintk"), now.has("vprintk"));
    }
}
