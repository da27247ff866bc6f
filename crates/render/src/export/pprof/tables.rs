//! The tables that samples of a profile refer to: strings, functions, locations and mappings, each once.

use std::collections::HashMap;

use super::proto::{Function, Line, Location, Mapping, Profile};
use crate::escape;
use spark_trace_analysis::names;
use spark_trace_recording::Space;
use spark_trace_recording::word::Word;
use spark_trace_recording::{Recording, Stack, Symbol};

/// What `perf` calls the kernel's own text.
const KERNEL: &str = "[kernel.kallsyms]";
/// Stands for a stack that the kernel could not take.
const NO_STACK: &str = "(no stack)";

pub struct Tables<'a> {
    stacks: HashMap<u32, &'a Stack>,
    symbols: &'a [Symbol],
    pub profile: Profile,
    strings: HashMap<String, i64>,
    functions: HashMap<(i64, i64), u64>,
    /// By file and build id.
    mappings: HashMap<(i64, i64), u64>,
    /// By index of the symbol.
    locations: HashMap<u32, u64>,
    no_stack: Option<u64>,
}

impl<'a> Tables<'a> {
    pub fn new(recording: &'a Recording) -> Self {
        let provenance = &recording.provenance;
        let mut tables = Self {
            stacks: provenance.stacks.iter().map(|stack| (stack.id, stack)).collect(),
            symbols: &provenance.symbols,
            profile: Profile::default(),
            strings: HashMap::new(),
            functions: HashMap::new(),
            mappings: HashMap::new(),
            locations: HashMap::new(),
            no_stack: None,
        };
        // The first is the empty one.
        tables.string("");
        tables
    }

    pub fn string(&mut self, text: &str) -> i64 {
        if let Some(&index) = self.strings.get(text) {
            return index;
        }
        let index = self.profile.string_table.len() as i64;
        self.profile.string_table.push(escape::line(text));
        self.strings.insert(text.to_owned(), index);
        index
    }

    /// Locations of a stack, innermost first.
    pub fn stack(&mut self, id: Option<u32>) -> Vec<u64> {
        let Some(&stack) = id.and_then(|id| self.stacks.get(&id)) else { return vec![self.no_stack()] };
        let symbols = self.symbols;
        let known = stack.frames.iter().filter_map(|&frame| Some((frame, symbols.get(frame as usize)?)));
        let locations: Vec<_> =
            known.map(|(frame, symbol)| self.location(frame, symbol, &stack.space)).collect();
        if locations.is_empty() { vec![self.no_stack()] } else { locations }
    }

    fn location(&mut self, index: u32, symbol: &Symbol, space: &Word<Space>) -> u64 {
        if let Some(&id) = self.locations.get(&index) {
            return id;
        }
        let file = match &symbol.module {
            Some(module) => module.as_str(),
            None if *space == Space::Kernel => KERNEL,
            None => "",
        };
        // A source of Python is no file of code.
        let mapped = if symbol.python { "" } else { file };
        let mapping_id = self.mapping(mapped, symbol.build_id.as_deref().unwrap_or(""), symbol.address);
        let name = symbol.name.clone().unwrap_or_else(|| names::frame(symbol));
        let function_id = self.function(&name, file);
        let id = self.push(mapping_id, symbol.address, function_id, symbol.line.map_or(0, i64::from));
        self.locations.insert(index, id);
        id
    }

    /// `line`: in the function's source, 0 where it is not known.
    fn push(&mut self, mapping_id: u64, address: u64, function_id: u64, line: i64) -> u64 {
        let id = self.profile.location.len() as u64 + 1;
        self.profile.location.push(Location {
            id,
            mapping_id,
            address,
            line: vec![Line { function_id, line }],
        });
        id
    }

    /// A file whose addresses are offsets in it; 0 where a frame lies in none. As long as the highest of them needs.
    fn mapping(&mut self, file: &str, build_id: &str, address: u64) -> u64 {
        if file.is_empty() {
            return 0;
        }
        let (filename, build_id) = (self.string(file), self.string(build_id));
        let next = self.profile.mapping.len() as u64 + 1;
        let id = *self.mappings.entry((filename, build_id)).or_insert(next);
        if id == next {
            // Names are resolved already: nobody has to look for the file.
            let mapping = Mapping { id, filename, build_id, has_functions: true, ..Mapping::default() };
            self.profile.mapping.push(mapping);
        }
        if let Some(mapping) = self.profile.mapping.get_mut(id as usize - 1) {
            mapping.memory_limit = mapping.memory_limit.max(address.saturating_add(1));
        }
        id
    }

    fn function(&mut self, name: &str, file: &str) -> u64 {
        let (name, filename) = (self.string(name), self.string(file));
        let next = self.profile.function.len() as u64 + 1;
        let id = *self.functions.entry((name, filename)).or_insert(next);
        if id == next {
            self.profile.function.push(Function { id, name, system_name: name, filename });
        }
        id
    }

    fn no_stack(&mut self) -> u64 {
        if let Some(id) = self.no_stack {
            return id;
        }
        let function = self.function(NO_STACK, "");
        let id = self.push(0, 0, function, 0);
        self.no_stack = Some(id);
        id
    }
}
