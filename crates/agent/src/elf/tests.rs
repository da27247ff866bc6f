//! Compared with what blazesym makes of the same files, and with files that mean harm.

use std::{
    collections::{HashMap, HashSet},
    fs,
    path::PathBuf,
    time::Instant,
};

use blazesym::{
    helper::read_elf_build_id,
    symbolize::{
        Input, Symbolizer,
        source::{Elf as ElfSource, Source},
    },
};
use proptest::prelude::*;

use super::*;

/// Files that this process has mapped as code: real ones, of more than one linker.
fn mapped() -> Vec<PathBuf> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let code = maps.lines().filter(|line| line.contains(" r-xp "));
    let mut paths: Vec<PathBuf> = code
        .filter_map(|line| line.split_whitespace().nth(5).filter(|path| path.starts_with('/')))
        .map(PathBuf::from)
        .collect();
    paths.sort();
    paths.dedup();
    assert!(paths.len() > 1, "the tests are linked dynamically: {paths:?}");
    paths
}

fn c_library() -> PathBuf {
    let is_it = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with("libc.so");
    mapped().into_iter().find(is_it).unwrap()
}

#[test]
fn build_ids_are_those_that_blazesym_reads() {
    let mut found = 0;
    for path in mapped() {
        let id = build_id(&File::open(&path).unwrap()).unwrap();
        let theirs = read_elf_build_id(&path).unwrap();
        let theirs = theirs.map(|id| id.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
        assert_eq!(id, theirs, "{path:?}");
        found += usize::from(id.is_some());
    }
    assert!(found > 0);
}

/// Code all over a file, by blazesym's tables alone and with debugging information.
#[test]
fn names_are_those_that_blazesym_finds() {
    for path in mapped() {
        let file = File::open(&path).unwrap();
        let elf = Elf::parse(&file).unwrap();
        let code = elf.segments.iter().filter(|segment| segment.kind == PT_LOAD && segment.executable);
        let offsets: Vec<u64> = code
            .flat_map(|segment| (0..400).map(move |i| segment.offset + segment.file_size / 400 * i))
            .collect();
        let ours = names(&file, &offsets).unwrap();
        let symbolizer = Symbolizer::builder().enable_demangling(false).build();
        let mut source = ElfSource::new(&path);
        source.debug_syms = false;
        let theirs = symbolizer.symbolize(&Source::Elf(source), Input::FileOffset(&offsets)).unwrap();
        let (mut same, mut named) = (0, 0);
        let begins = beginnings(&elf);
        for (ours, theirs) in ours.iter().zip(&theirs) {
            let Some(ours) = ours else { continue };
            named += 1;
            // One function has several names: which one is shown is the reader's choice.
            let theirs = theirs.as_sym().map(|symbol| symbol.addr);
            same += usize::from(theirs.is_some_and(|at| begins.contains(&(ours.clone(), at))));
        }
        let theirs = theirs.iter().filter(|theirs| theirs.as_sym().is_some()).count();
        eprintln!("{path:?}: {named} named, {theirs} by blazesym, {same} begin at one address");
        assert!(named > 0 && same * 100 >= named * 98, "{path:?}: {named} named, {same} the same");
        assert!(named * 100 >= theirs * 95, "{path:?}: {named} named, {theirs} by blazesym");
    }
}

/// Names with the addresses that they begin at.
fn beginnings(elf: &Elf<'_, File>) -> HashSet<(Vec<u8>, u64)> {
    let sections = elf.sections().unwrap();
    let mut found = HashSet::new();
    for table in sections.iter().filter(|section| [SHT_SYMTAB, SHT_DYNSYM].contains(&section.kind)) {
        let strings = sections[table.link as usize];
        let strings = beginning(elf.file, strings.offset, strings.size).unwrap();
        elf.each_symbol(table, |symbol| {
            let name = strings[symbol.name as usize..].split(|byte| *byte == 0).next().unwrap_or_default();
            found.insert((name.to_owned(), symbol.value));
            Ok(())
        })
        .unwrap();
    }
    found
}

#[test]
fn exports_are_at_the_place_that_a_process_has_them_at() {
    let path = c_library();
    let file = File::open(&path).unwrap();
    let found = exports(&file, ["malloc", "getpid", "no_such_function"].into_iter()).unwrap();
    assert_eq!(found.len(), 2, "{found:?}");
    // Where the dynamic linker put it, by the mapping that it lies in.
    let address = libc::getpid as *const () as u64;
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let at = maps.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let [start, end, offset] =
            [start, end, words.nth(1)?].map(|word| u64::from_str_radix(word, 16).unwrap());
        (start..end).contains(&address).then(|| address - start + offset)
    });
    assert_eq!(found.get("getpid").copied(), at);
}

#[test]
fn other_files_are_refused() {
    let file = File::open("/proc/self/maps").unwrap();
    assert!(matches!(exports(&file, ["x"].into_iter()), Err(ElfError::Format)));
    assert!(matches!(build_id(&file), Err(ElfError::Format)));
    assert!(matches!(names(&file, &[0]), Err(ElfError::Format)));
    assert!(matches!(names::<[u8]>(&[], &[0]), Err(ElfError::Format)));
}

/// A file that exists only as its headers say: whatever is read beyond them is zeros, for as long as it says.
struct Hole<'a> {
    header: &'a [u8],
    read: std::cell::Cell<u64>,
}

impl Bytes for Hole<'_> {
    fn bytes_at(&self, offset: u64, room: &mut [u8]) -> io::Result<usize> {
        self.read.set(self.read.get() + room.len() as u64);
        room.fill(0);
        self.header.bytes_at(offset, room)?;
        Ok(room.len())
    }
}

/// An ELF file of 64 bits with these sections (kind, flags, offset, size, link) and one segment of code.
fn made(sections: &[(u32, u64, u64, u64, u32)], note: Option<(u64, u64)>) -> Vec<u8> {
    let mut bytes = Vec::from(MAGIC);
    bytes.extend([2, LITTLE_ENDIAN, 1]);
    bytes.resize(16, 0);
    let machine: u16 = if cfg!(target_arch = "x86_64") { MACHINE_X86_64 } else { MACHINE_ARM64 };
    let segments = 1 + u16::from(note.is_some());
    let sections_at = u64::from(segments) * 56 + 64;
    bytes.extend([3u16, machine].iter().flat_map(|word| word.to_le_bytes()));
    bytes.extend(1u32.to_le_bytes());
    bytes.extend([0, 64, sections_at].iter().flat_map(|word| word.to_le_bytes()));
    bytes.extend(0u32.to_le_bytes());
    let shorts = [64, 56, segments, 64, sections.len() as u16, 0];
    bytes.extend(shorts.iter().flat_map(|word: &u16| word.to_le_bytes()));
    let mut segment = |kind: u32, offset: u64, size: u64| {
        bytes.extend([kind, 5].iter().flat_map(|word| word.to_le_bytes()));
        bytes.extend([offset, offset, offset, size, size, 4].iter().flat_map(|word| word.to_le_bytes()));
    };
    segment(PT_LOAD, 0, 0x1000);
    if let Some((offset, size)) = note {
        segment(PT_NOTE, offset, size);
    }
    for (kind, flags, offset, size, link) in sections {
        bytes.extend([0, *kind].iter().flat_map(|word| word.to_le_bytes()));
        bytes.extend([*flags, 0, *offset, *size].iter().flat_map(|word| word.to_le_bytes()));
        bytes.extend([*link, 0].iter().flat_map(|word| word.to_le_bytes()));
        bytes.extend([8u64, 24].iter().flat_map(|word| word.to_le_bytes()));
    }
    bytes
}

/// Sizes that a file may claim; none of them is allocated, and what is read in vain stays small.
#[test]
fn claimed_sizes_are_bounded_before_anything_is_read() {
    for size in [3 << 30, 1 << 47, 1 << 63, u64::MAX] {
        for (kind, flags) in
            [(SHT_DYNSYM, 0), (SHT_SYMTAB, 0), (7, SHF_COMPRESSED), (SHT_DYNSYM, SHF_COMPRESSED)]
        {
            let header =
                made(&[(kind, flags, 0x2000, size, 1), (3, flags, 0x1800, size, 0)], Some((0x2000, size)));
            let file = Hole { header: &header, read: std::cell::Cell::new(0) };
            let answers = (build_id(&file), exports(&file, ["malloc"].into_iter()), names(&file, &[0x10]));
            assert!(file.read.get() < 4 << 20, "{size:#x} of kind {kind}: {} bytes read", file.read.get());
            assert!(answers.0.unwrap().is_none());
            let is_table = kind == SHT_DYNSYM && flags == 0;
            assert_eq!(
                matches!(answers.1, Err(ElfError::TooLarge { .. })),
                is_table,
                "{size:#x} of kind {kind}"
            );
            let is_table = is_table || kind == SHT_SYMTAB;
            assert_eq!(
                matches!(answers.2, Err(ElfError::TooLarge { .. })),
                is_table,
                "{size:#x} of kind {kind}"
            );
        }
    }
}

/// As many symbols as are read at all, each of which claims every place: it takes its time and no memory.
#[test]
fn the_largest_table_is_gone_through_in_pieces() {
    let header = made(&[(SHT_DYNSYM, 0, 0x2000, 8 << 20, 1), (3, 0, 0x1800, 16, 0)], None);
    let file = Hole { header: &header, read: std::cell::Cell::new(0) };
    assert!(exports(&file, ["malloc"].into_iter()).unwrap().is_empty());
    assert!((8 << 20..9 << 20).contains(&file.read.get()));
}

/// Symbols (value, size, info) in a table, and their names.
fn with_symbols(machine: u16, symbols: &[(u64, u64, u8, &str)]) -> Vec<u8> {
    let mut strings = vec![0];
    let mut table = vec![0; 24];
    for (value, size, info, name) in symbols {
        table.extend((strings.len() as u32).to_le_bytes());
        table.extend([*info, 0, 1, 0]);
        table.extend([*value, *size].iter().flat_map(|word| word.to_le_bytes()));
        strings.extend(name.bytes().chain([0]));
    }
    let (table_at, strings_at) = (0x400, 0x800);
    let sections =
        [(SHT_SYMTAB, 0, table_at, table.len() as u64, 1), (3, 0, strings_at, strings.len() as u64, 0)];
    let mut bytes = made(&sections, None);
    bytes[18..20].copy_from_slice(&machine.to_le_bytes());
    bytes.resize(table_at as usize, 0);
    bytes.extend(table);
    bytes.resize(strings_at as usize, 0);
    bytes.extend(strings);
    bytes
}

fn named(file: &[u8], offsets: &[u64]) -> Vec<String> {
    let found = names(file, offsets).unwrap();
    found.into_iter().map(|name| name.map_or("-".into(), |name| String::from_utf8(name).unwrap())).collect()
}

#[test]
fn the_innermost_symbol_that_covers_a_place_names_it() {
    let symbols = [
        (0x100, 0x100, 0x02, "outer"),
        (0x120, 0x10, 0x00, "inner"),
        (0x100, 0x100, 0x12, "seen_by_others"),
        (0x200, 0, 0x00, "assembly"),
        (0x240, 0x10, 0x01, "data"),
        (0x280, 8, 0x02, "last"),
    ];
    let file = with_symbols(MACHINE_X86_64, &symbols);
    let at = [0x80, 0x100, 0x125, 0x130, 0x1ff, 0x230, 0x248, 0x281, 0x290, 0x5000];
    let expected = [
        "-",
        "seen_by_others",
        "inner",
        "seen_by_others",
        "seen_by_others",
        "assembly",
        "assembly",
        "last",
        "-",
        "-",
    ];
    assert_eq!(named(&file, &at), expected);
}

#[test]
fn marks_of_arm64_name_nothing() {
    let symbols = [(0x100, 0, 0x00, "$x"), (0x100, 0, 0x10, "assembly"), (0x140, 0, 0x00, "$d")];
    assert_eq!(named(&with_symbols(MACHINE_ARM64, &symbols), &[0x110, 0x150]), ["assembly", "assembly"]);
}

#[test]
fn a_build_id_behind_other_notes_is_found() {
    let mut notes: Vec<u8> = [4u32, 6, 1].iter().flat_map(|word| word.to_le_bytes()).collect();
    notes.extend(b"XYZ\0abcdef\0\0");
    notes.extend([4u32, 4, 3].iter().flat_map(|word| word.to_le_bytes()));
    notes.extend(b"GNU\0\x01\x02\xfe\xff");
    let mut file = made(&[], Some((0x200, notes.len() as u64)));
    file.resize(0x200, 0);
    file.extend(&notes);
    assert_eq!(build_id(file.as_slice()).unwrap().as_deref(), Some("0102feff"));
    // Cut short, and with sizes that do not fit.
    file.pop();
    assert_eq!(build_id(file.as_slice()).unwrap(), None);
    file[0x200..0x204].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(build_id(file.as_slice()).unwrap(), None);
}

/// Whatever stands in a file, the readers come to an end, and soon.
fn try_all(file: &[u8]) {
    let begun = Instant::now();
    let _ = build_id(file);
    let _: Result<HashMap<_, _>, _> = exports(file, ["malloc", "getpid"].into_iter());
    let _ = names(file, &[0, 0x10, 0x1000, 0x2_8000, u64::MAX]);
    // Room for a machine that is busy: the point is that nothing goes on for ever.
    assert!(begun.elapsed().as_secs() < 60);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Damage at the places that say how large and where everything is.
    #[test]
    fn a_damaged_library_harms_nobody(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u64>(), 0usize..3), 1..12),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut file = small();
        let sections_at = u64_at(&file, 40) as usize;
        for (place, value, region) in damage {
            let (from, length) =
                [(0, 64 + 16 * 56), (sections_at, file.len() - sections_at), (0, file.len())][region];
            let at = from + place.index(length);
            let value = if value % 3 == 0 { value } else { [0, u64::MAX, 1 << 63, 1 << 31, 0xffff][value as usize % 5] };
            let width = [1, 2, 4, 8][value as usize % 4].min(file.len() - at);
            file[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
        }
        if let Some(cut) = cut {
            file.truncate(cut.index(file.len()));
        }
        try_all(&file);
    }

    #[test]
    fn bytes_harm_nobody(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let mut file = Vec::from(MAGIC);
        file.extend([2, 1]);
        file.extend(bytes);
        try_all(&file);
    }
}

/// The smallest real library at hand.
fn small() -> Vec<u8> {
    let smallest = mapped().into_iter().min_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    fs::read(smallest).unwrap()
}

/// Its owner cuts a file short while it is read: with mappings that would be the reader's end (SIGBUS).
#[test]
fn a_file_that_is_cut_meanwhile_is_a_short_one() {
    let content = small();
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), &content).unwrap();
    let ended = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            let writer = fs::OpenOptions::new().write(true).open(file.path()).unwrap();
            while !ended.load(std::sync::atomic::Ordering::Relaxed) {
                writer.set_len(100).unwrap();
                writer.write_all_at(&content, 0).unwrap();
            }
        });
        let reader = File::open(file.path()).unwrap();
        for _ in 0..300 {
            let _ = (build_id(&reader), names(&reader, &[0x1000]), exports(&reader, ["malloc"].into_iter()));
        }
        ended.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}
