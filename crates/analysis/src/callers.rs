//! Who called a library: through the CUDA runtime or not, and the frames that say which code it was.

use std::cell::RefCell;
use std::collections::BTreeMap;

use serde::Serialize;
use spark_trace_common::cuda::Library;

use crate::names::{self, Names};
use crate::passing::{self, Stack};
use spark_trace_recording::Symbol;

/// Frames of a label.
const NAMED_FRAMES: usize = 3;

/// How the file names begin of libraries that only pass a call on.
const RUNTIME: &[&str] = &["libcudart"];
const SYSTEM: &[&str] = &["libc.so", "libpthread", "ld-linux"];

#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Caller {
    /// `runtime` where libcudart made the call, else `driver or static runtime`: a runtime that is linked in is part of
    /// its program's file. Absent without a stack.
    pub through: Option<&'static str>,
    /// The innermost frames outside those libraries.
    pub label: String,
    /// All frames, innermost first.
    pub frames: Vec<String>,
    /// A function of a watched library is among them: for what that asks of the kernel itself.
    #[serde(skip)]
    pub inside_driver: bool,
}

pub const THROUGH_RUNTIME: &str = "runtime";
pub const THROUGH_OTHER: &str = "driver or static runtime";

/// Callers by stack id: many calls have the same.
pub struct Callers<'a> {
    names: &'a Names<'a>,
    known: RefCell<BTreeMap<u32, Caller>>,
}

impl<'a> Callers<'a> {
    pub fn new(names: &'a Names<'a>) -> Self {
        Self { names, known: RefCell::default() }
    }

    pub fn of(&self, stack: Option<u32>) -> Caller {
        let Some(id) = stack else { return Caller::default() };
        let mut known = self.known.borrow_mut();
        known.entry(id).or_insert_with(|| caller(&self.names.frames(stack))).clone()
    }
}

fn caller(frames: &[&Symbol]) -> Caller {
    // A function of the driver that calls another one of its own says nothing of the caller.
    let outside = frames.iter().skip_while(|frame| is_of_driver(frame));
    let through = outside.clone().next().map(|innermost| match is_in(innermost, RUNTIME) {
        true => THROUGH_RUNTIME,
        false => THROUGH_OTHER,
    });
    // Where code keeps no frame pointers the walk ends in addresses that are nothing.
    let named: Vec<_> = outside.filter(|frame| frame.name.is_some() || frame.module.is_some()).collect();
    let passing = |frame: &&&&Symbol| {
        is_of_driver(frame)
            || [RUNTIME, SYSTEM].iter().any(|libraries| is_in(frame, libraries))
            || passing::is_passing(&names::frame(frame), Stack::User)
    };
    let passed = named.iter().take_while(passing).count();
    // Of allocators alone the outermost says most, unless it is the driver's or the runtime's own.
    let outermost = || named.last().filter(|frame| !is_of_driver(frame) && !is_in(frame, RUNTIME));
    let mut named_frames = of_python(&named);
    if named_frames.is_empty() {
        named_frames.extend(named.iter().skip(passed).take(NAMED_FRAMES));
    }
    named_frames.extend(named_frames.is_empty().then(outermost).flatten());
    let label: Vec<_> = named_frames.into_iter().map(|frame| short(frame)).collect();
    Caller {
        through,
        label: label.join(" <- "),
        frames: names::resolved(frames),
        inside_driver: frames.iter().any(|frame| is_of_driver(frame)),
    }
}

/// Packages of Python that pass an allocation on, by how the paths of their modules begin.
const PASSING_PACKAGES: &[&str] = &["torch/", "ctypes/"];

/// Frames of Python, from the first one on that is none of such a package's: a library's frames below them say less of what
/// the memory is for.
fn of_python<'a>(named: &[&'a &'a Symbol]) -> Vec<&'a &'a Symbol> {
    let passes = |frame: &&&Symbol| {
        let shown = names::frame(frame);
        PASSING_PACKAGES.iter().any(|package| shown.starts_with(package))
    };
    let python: Vec<_> = named.iter().copied().filter(|frame| frame.python).collect();
    // Of such packages alone, all of them.
    let outside = python.iter().position(|frame| !passes(frame)).unwrap_or_default();
    python.into_iter().skip(outside).take(NAMED_FRAMES).collect()
}

/// In a library whose functions are watched.
fn is_of_driver(frame: &Symbol) -> bool {
    Library::ALL.into_iter().any(|library| is_in(frame, library.file_names()))
}

fn is_in(frame: &Symbol, libraries: &[&str]) -> bool {
    frame.module.as_deref().is_some_and(|module| {
        let name = file_name(module);
        libraries.iter().any(|beginning| name.starts_with(beginning))
    })
}

/// A frame with the name of its file alone.
fn short(symbol: &Symbol) -> String {
    if symbol.python {
        return names::frame(symbol);
    }
    let module = symbol.module.as_deref().map(|module| file_name(module).to_owned());
    names::frame(&Symbol { module, ..symbol.clone() })
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(frames: &[&str]) -> Caller {
        let symbols: Vec<Symbol> = frames
            .iter()
            .map(|frame| {
                let (module, name) = frame.split_once(':').unwrap();
                Symbol { name: Some(name.into()), module: Some(module.into()), ..Symbol::default() }
            })
            .collect();
        caller(&symbols.iter().collect::<Vec<_>>())
    }

    #[test]
    fn the_runtime_is_distinguished_from_everything_else() {
        let torch = of(&[
            "/venv/nvidia/cuda_runtime/lib/libcudart.so.13:cudaMalloc",
            "/venv/torch/lib/libc10_cuda.so:alloc_block",
            "/venv/torch/lib/libtorch_cuda.so:empty_cuda",
            "/usr/bin/python3.12:call",
            "/usr/bin/python3.12:main",
        ]);
        assert_eq!(torch.through, Some(THROUGH_RUNTIME));
        assert_eq!(
            torch.label,
            "alloc_block [libc10_cuda.so] <- empty_cuda [libtorch_cuda.so] <- call [python3.12]"
        );
        assert_eq!(torch.frames.len(), 5);
        assert_eq!(of(&["/pip/libcudart-d0da41ae.so.11.0:f", "/app:main"]).through, Some(THROUGH_RUNTIME));
        assert_eq!(of(&["/usr/lib/libc.so.6:read", "/usr/bin/app:main"]).label, "main [app]");
        assert_eq!(of(&["/opt/app:main"]).through, Some(THROUGH_OTHER));
    }

    #[test]
    fn python_says_who_called_torch() {
        let python = |path: &str, function: &str, line| Symbol {
            name: Some(function.into()),
            module: Some(format!("/venv/lib/python3.12/site-packages/{path}")),
            line: Some(line),
            python: true,
            ..Symbol::default()
        };
        let native = Symbol {
            name: Some("empty_cuda".into()),
            module: Some("/venv/torch/lib/libtorch_cuda.so".into()),
            ..Symbol::default()
        };
        let torch = python("torch/utils/_device.py", "DeviceContext.__torch_function__", 104);
        let create = python("vllm/layers/linear.py", "create_weights", 151);
        let model = python("vllm/models/llama.py", "Llama.__init__", 7);
        let caller_of = |frames: &[&Symbol]| caller(frames).label;
        assert_eq!(
            caller_of(&[&native, &torch, &create, &model]),
            "vllm/layers/linear.py:create_weights:151 <- vllm/models/llama.py:Llama.__init__:7"
        );
        assert_eq!(
            caller_of(&[&native, &torch]),
            "torch/utils/_device.py:DeviceContext.__torch_function__:104"
        );
        assert_eq!(caller_of(&[&native]), "empty_cuda [libtorch_cuda.so]");
    }

    #[test]
    fn a_call_within_the_driver_belongs_to_who_called_the_driver() {
        let nested = of(&["/usr/lib/libcuda.so.580.95.05:cuMemAlloc", "/app:load"]);
        assert_eq!((nested.through, nested.label.as_str()), (Some(THROUGH_OTHER), "load [app]"));
        assert_eq!(of(&["/usr/lib/libcuda.so.1:cuInit"]).through, None);
    }
}
