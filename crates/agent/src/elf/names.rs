//! Names of the functions that lie at places of a file.

use super::{
    Bytes, Elf, ElfError, MACHINE_ARM64, PT_LOAD, SHF_COMPRESSED, SHT_DYNSYM, SHT_SYMTAB, Section, Symbol,
    bounded, string,
};

/// Kinds of symbols that code may have (elf(5)).
const NO_TYPE: u8 = 0;
pub(super) const FUNCTION: u8 = 2;
const INDIRECT_FUNCTION: u8 = 10;

/// Of a table of symbols. A browser with all its symbols has some 60 MiB.
const LARGEST_TABLE: u64 = 256 << 20;
/// Read of one name. Those of C++ templates have thousands.
const LONGEST_NAME: u64 = 16 << 10;

/// Names, as the linker wrote them, of what lies at each of `offsets` of the file; nothing where no symbol covers it.
///
/// The full table of symbols goes first, then that of what the dynamic linker needs.
pub fn names<B: Bytes + ?Sized>(file: &B, offsets: &[u64]) -> Result<Vec<Option<Vec<u8>>>, ElfError> {
    let elf = Elf::parse(file)?;
    let addresses: Vec<Option<u64>> = offsets.iter().map(|offset| address_of(&elf, *offset)).collect();
    let mut targets: Vec<u64> = addresses.iter().flatten().copied().collect();
    targets.sort_unstable();
    targets.dedup();
    let mut found = vec![None; targets.len()];
    if !targets.is_empty() {
        let sections = elf.sections()?;
        for kind in [SHT_SYMTAB, SHT_DYNSYM] {
            let Some(table) = sections.iter().find(|section| section.kind == kind) else { continue };
            let strings = usize::try_from(table.link).ok().and_then(|link| sections.get(link));
            if let Some(strings) = strings.filter(|_| table.flags & SHF_COMPRESSED == 0) {
                bounded("the table of symbols", table.size, LARGEST_TABLE)?;
                in_table(&elf, table, strings, &targets, &mut found)?;
            }
        }
    }
    let name = |address: &u64| found[targets.binary_search(address).ok()?].clone();
    Ok(addresses.iter().map(|address| name(address.as_ref()?)).collect())
}

/// The address that a place in the code of a file is loaded at.
fn address_of<B: Bytes + ?Sized>(elf: &Elf<'_, B>, offset: u64) -> Option<u64> {
    let mut code = elf.segments.iter().filter(|segment| segment.kind == PT_LOAD && segment.executable);
    code.find_map(|segment| {
        let into = offset.checked_sub(segment.offset).filter(|into| *into < segment.file_size)?;
        into.checked_add(segment.address)
    })
}

/// The best that is known of a target so far.
#[derive(Clone, Copy, Default)]
struct Best {
    /// The innermost symbol that says that it covers the target.
    covering: Option<Symbol>,
    /// The nearest symbol at or before the target, among those between the target before and this one.
    nearest: Option<Symbol>,
}

fn in_table<B: Bytes + ?Sized>(
    elf: &Elf<'_, B>,
    table: &Section,
    strings: &Section,
    targets: &[u64],
    found: &mut [Option<Vec<u8>>],
) -> Result<(), ElfError> {
    let mut best = vec![Best::default(); targets.len()];
    elf.each_symbol(table, |symbol| {
        let is_code = matches!(symbol.kind(), NO_TYPE | FUNCTION | INDIRECT_FUNCTION);
        if !is_code || !symbol.is_defined() {
            return Ok(());
        }
        let first = targets.partition_point(|target| *target < symbol.value);
        let Some(nearest) = best.get(first).map(|best| best.nearest) else { return Ok(()) };
        if is_better(symbol, nearest) && !is_marker(elf, strings, symbol)? {
            best[first].nearest = Some(*symbol);
        }
        if symbol.size > 0 {
            let covers = |target: &u64| target - symbol.value < symbol.size;
            let covered = targets[first..].iter().take_while(|target| covers(target)).count();
            for best in &mut best[first..first + covered] {
                if is_better(symbol, best.covering) {
                    best.covering = Some(*symbol);
                }
            }
        }
        Ok(())
    })?;
    // What is nearest to one target is at or before the next one, too.
    let mut nearest = None;
    for ((target, best), found) in targets.iter().zip(&best).zip(found) {
        nearest = best.nearest.or(nearest);
        // One without a size goes on until the next begins (written in assembly). In the dynamic table most functions are
        // missing, so there it is the very address only.
        let sizeless = nearest
            .filter(|symbol| symbol.size == 0 && (table.kind == SHT_SYMTAB || symbol.value == *target));
        if let Some(symbol) = best.covering.or(sizeless).filter(|_| found.is_none()) {
            *found = string(elf.file, strings, symbol.name, LONGEST_NAME)?;
        }
    }
    Ok(())
}

/// Of two symbols at or before a target the later begins nearer to it. Of several names of one function the same is
/// always taken: one with a size, one of a function, one that other files see, the first.
fn is_better(symbol: &Symbol, known: Option<Symbol>) -> bool {
    let rank =
        |symbol: &Symbol| (symbol.value, symbol.size > 0, symbol.kind() != NO_TYPE, !symbol.is_local());
    known.is_none_or(|known| rank(symbol) > rank(&known))
}

/// On arm64 `$x` and `$d` mark where code and data begin; they name nothing (ELF for the Arm 64-bit Architecture, mapping
/// symbols).
fn is_marker<B: Bytes + ?Sized>(
    elf: &Elf<'_, B>,
    strings: &Section,
    symbol: &Symbol,
) -> Result<bool, ElfError> {
    if elf.machine != MACHINE_ARM64 || symbol.kind() != NO_TYPE || symbol.size > 0 {
        return Ok(false);
    }
    let name = string(elf.file, strings, symbol.name, 2)?;
    Ok(name.is_some_and(|name| name.starts_with(b"$")))
}
