//! The interpreter of a process: which of its files is one, of which version, and where it lies.

use std::path::Path;
use std::time::Duration;

use spark_trace_common::python::PythonProcess;

use super::{
    layout::{self, DEBUG_OFFSETS, Layout, VERSIONS},
    memory,
};
use crate::{
    elf::Linked,
    mapped,
    maps::{self, Mapping},
    names::Client,
};

/// How the name of a library begins that has an interpreter.
const LIBRARY: &str = "libpython3";

/// What the file of an interpreter exports.
const RUNTIME: &str = "_PyRuntime";
const VERSION: &str = "Py_Version";
const CODE: &str = "PyCode_Type";
const TEXT: &str = "PyUnicode_Type";
const BYTES: &str = "PyBytes_Type";
/// It came with 3.10, which does not have its version as a variable yet (that came with 3.11).
const NEW_IN_3_10: &str = "PyIter_Send";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interpreter {
    pub layout: Layout,
    /// Where its code lies: frames of these addresses are of the interpreter itself.
    pub code: (u64, u64),
    /// Addresses of the types of what is read.
    pub types: Types,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Types {
    pub code: u64,
    pub text: u64,
    pub bytes: u64,
}

impl Interpreter {
    pub const fn walk(&self) -> PythonProcess {
        self.layout.walk
    }
}

/// The interpreter of a process, if it has one of a version that is known. The library goes first; a program may have it
/// linked in. An error says why it is not known: its files are those of the traced program, and a process without rights
/// reads them.
pub fn find(pid: u32, reader: &mut Client) -> Result<Option<Interpreter>, String> {
    let Some(files) = candidates(pid) else { return Ok(None) };
    for mapping in files {
        if let Some(found) = look(pid, &mapping, reader)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn candidates(pid: u32) -> Option<Vec<Mapping>> {
    let code: Vec<Mapping> = maps::code(pid)?.into_iter().filter(Mapping::is_file).collect();
    let program = std::fs::read_link(format!("/proc/{pid}/exe")).ok();
    let is_library = |mapping: &&Mapping| {
        Path::new(&mapping.name).file_name().is_some_and(|name| name.to_string_lossy().starts_with(LIBRARY))
    };
    let is_program = |mapping: &&Mapping| program.as_deref() == Some(Path::new(&mapping.name));
    let library = code.iter().find(is_library);
    Some(library.into_iter().chain(code.iter().find(is_program)).cloned().collect())
}

/// How long a reader may take for a file: events wait for it. A library of Python takes 2 ms.
const LONGEST: Duration = Duration::from_millis(250);

fn look(pid: u32, mapping: &Mapping, reader: &mut Client) -> Result<Option<Interpreter>, String> {
    let Ok(file) = mapped::open(pid, mapping) else { return Ok(None) };
    let wanted = [RUNTIME, VERSION, CODE, TEXT, BYTES, NEW_IN_3_10];
    let linked = reader.linked(&file, &wanted, mapping.offset, LONGEST)?;
    Ok(linked.and_then(|linked| interpreter(pid, mapping, &linked)))
}

fn interpreter(pid: u32, mapping: &Mapping, linked: &Linked) -> Option<Interpreter> {
    let at = |name: &str| {
        let address = linked.symbols.get(name)?;
        Some(mapping.start.wrapping_sub(linked.code).wrapping_add(*address))
    };
    let runtime = at(RUNTIME)?;
    let minor = match at(VERSION) {
        Some(address) => layout::minor(memory::word(pid, address)?)?,
        None => at(NEW_IN_3_10).map(|_| 10)?,
    };
    let version = VERSIONS.iter().find(|version| version.minor == minor)?;
    let mut layout = version.layout;
    if let Some(words) = version.words {
        layout = layout.said(version, words, &memory::words::<DEBUG_OFFSETS>(pid, runtime)?)?;
    }
    layout.walk.interpreters = runtime.checked_add(layout.interpreters)?;
    let types = Types { code: at(CODE)?, text: at(TEXT)?, bytes: at(BYTES)? };
    Some(Interpreter { layout, code: (mapping.start, mapping.end), types })
}
