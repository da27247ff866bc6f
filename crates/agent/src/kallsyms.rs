//! Kernel addresses to names and modules, from /proc/kallsyms.
//!
//! Our own reader because the classifier needs the module a frame lies in.

use std::{fs, io};

#[derive(Debug, Default)]
pub struct Kallsyms {
    /// Sorted by address.
    symbols: Vec<(u64, Name)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    pub name: Box<str>,
    pub module: Option<Box<str>>,
}

impl Kallsyms {
    /// Reads the running kernel's symbols. They are hidden (all zero) from those without CAP_SYSLOG.
    pub fn from_kernel() -> io::Result<Self> {
        fs::read_to_string("/proc/kallsyms").map(|text| Self::parse(&text))
    }

    /// From the text of such a file.
    pub fn parse(text: &str) -> Self {
        let mut symbols: Vec<_> = text.lines().filter_map(symbol).collect();
        symbols.sort_by_key(|(address, _)| *address);
        Self { symbols }
    }

    /// The function that `address` lies in.
    pub fn find(&self, address: u64) -> Option<&Name> {
        let after = self.symbols.partition_point(|(start, _)| *start <= address);
        self.symbols.get(after.checked_sub(1)?).map(|(_, name)| name)
    }

    pub fn is_empty(&self) -> bool {
        self.symbols.is_empty()
    }

    /// Whether a function of that name is known.
    pub fn has(&self, name: &str) -> bool {
        self.symbols.iter().any(|(_, symbol)| &*symbol.name == name)
    }
}

/// `ffffffff81000000 t name [module]`, code only.
fn symbol(line: &str) -> Option<(u64, Name)> {
    let mut words = line.split_ascii_whitespace();
    let address = u64::from_str_radix(words.next()?, 16).ok().filter(|a| *a != 0)?;
    if !matches!(words.next()?, "t" | "T" | "w" | "W") {
        return None;
    }
    let name = words.next()?.into();
    let module = words.next().map(|m| m.trim_matches(['[', ']']).into());
    Some((address, Name { name, module }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_function_below_and_its_module() {
        let table = Kallsyms::parse(
            "ffffffff81000010 T b\nffffffff81000000 t a\nffffffffc0000000 t nv_alloc_pages\t[nvidia]\nffffffff81000005 d data\n",
        );
        assert_eq!(&*table.find(0xffff_ffff_8100_0007).unwrap().name, "a");
        assert_eq!(&*table.find(0xffff_ffff_8100_0010).unwrap().name, "b");
        let module = table.find(0xffff_ffff_c000_0100).unwrap();
        assert_eq!(module.module.as_deref(), Some("nvidia"));
        assert!(table.find(5).is_none());
        assert!(table.has("nv_alloc_pages") && !table.has("data") && !table.is_empty());
    }

    #[test]
    fn hidden_symbols_give_none() {
        assert!(Kallsyms::parse("0000000000000000 t a\n").find(0xffff).is_none());
    }
}
