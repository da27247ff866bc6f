//! Which engine a process is, by what it has about it; and which engine wrote a log.

use std::collections::BTreeSet;

use crate::engine::Engine;
use crate::row::{EngineRow, Sign};
use crate::table::{ENGINES, row};

/// Engines that a command line is a sign of.
pub fn by_arguments<S: AsRef<str>>(arguments: &[S]) -> Vec<Engine> {
    by(|sign| match sign {
        Sign::Argument(name) => arguments.iter().any(|argument| last_part(argument.as_ref()) == name),
        Sign::ArgumentBegins(text) => arguments.iter().any(|argument| argument.as_ref().starts_with(text)),
        Sign::Module(_) | Sign::Comm(_) => false,
    })
}

/// Engines that a mapped file is a sign of.
pub fn by_module(path: &str) -> Vec<Engine> {
    by(|sign| matches!(sign, Sign::Module(part) if path.contains(part)))
}

/// Engines that the name of a process is a sign of.
pub fn by_comm(comm: &str) -> Vec<Engine> {
    by(|sign| matches!(sign, Sign::Comm(start) if comm.starts_with(start)))
}

/// The arguments after the one that is a sign of an engine: those before it are of a program that starts it (`taskset -c 3`).
pub fn own_arguments<'a>(engine: &EngineRow, arguments: &'a [String]) -> Option<&'a [String]> {
    let is_sign = |argument: &String| {
        engine.signs.iter().any(|sign| match sign {
            Sign::Argument(name) => last_part(argument) == *name,
            Sign::ArgumentBegins(text) => argument.starts_with(text),
            Sign::Module(_) | Sign::Comm(_) => false,
        })
    };
    arguments.get(arguments.iter().position(is_sign)? + 1..)
}

fn by(fits: impl Fn(Sign) -> bool) -> Vec<Engine> {
    let rows = ENGINES.iter().filter(|row| row.signs.iter().any(|sign| fits(*sign)));
    rows.map(|row| row.engine).collect()
}

fn last_part(argument: &str) -> &str {
    argument.rsplit('/').next().unwrap_or(argument)
}

/// The engine that all evidence fits, and every engine that some of it fits. Each piece of evidence is a set of engines.
pub fn decide<'a>(evidence: impl Iterator<Item = &'a [Engine]>) -> (Option<Engine>, Vec<Engine>) {
    let sets: BTreeSet<&[Engine]> = evidence.filter(|engines| !engines.is_empty()).collect();
    let candidates: BTreeSet<Engine> = sets.iter().flat_map(|engines| engines.iter().copied()).collect();
    let fits = |engine: &Engine| {
        let runs = row(*engine).and_then(|row| row.runs);
        sets.iter().all(|set| set.contains(engine) || runs.is_some_and(|runs| set.contains(&runs)))
    };
    let mut fitting = candidates.iter().copied().filter(fits);
    let engine = fitting.next().filter(|_| fitting.next().is_none());
    (engine, candidates.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_are_recognised_by_what_they_have_about_them() {
        for (arguments, wanted) in [
            (&["/usr/bin/python3", "/opt/venv/bin/vllm", "serve", "m"][..], &[Engine::Vllm][..]),
            (&["python3", "-m", "vllm.entrypoints.openai.api_server"], &[Engine::Vllm]),
            (&["python", "-m", "sglang.launch_server"], &[Engine::Sglang]),
            (&["/app/llama-server", "-m", "x.gguf"], &[Engine::LlamaCpp]),
            (&["ollama", "runner", "--model", "x"], &[Engine::Ollama]),
            (&["trtllm-serve", "serve", "m"], &[Engine::TensorRtLlm]),
            (&["lmdeploy", "serve"], &[Engine::LmDeployPytorch, Engine::LmDeployTurboMind]),
            (&["python3", "train.py", "--name", "my-vllm"], &[]),
            (&[], &[]),
        ] {
            assert_eq!(by_arguments(arguments), wanted, "{arguments:?}");
        }
        assert_eq!(by_comm("VLLM::EngineCor"), [Engine::Vllm]);
        assert_eq!(by_comm("sglang::schedul"), [Engine::Sglang]);
        assert!(by_comm("python3").is_empty());
        assert_eq!(by_module("/usr/lib/python3.12/site-packages/vllm/_C.abi3.so"), [Engine::Vllm]);
        assert_eq!(by_module("/usr/lib/ollama/cuda_v13/libggml-cuda.so"), [Engine::Ollama]);
    }

    #[test]
    fn evidence_must_fit_one_engine() {
        use Engine::{LlamaCpp, Ollama, Sglang, TensorRtLlm, TensorRtLlmCpp, Vllm};
        type Case<'a> = (&'a [&'a [Engine]], Option<Engine>, &'a [Engine]);
        let cases: &[Case<'_>] = &[
            (&[], None, &[]),
            (&[&[]], None, &[]),
            (&[&[LlamaCpp]], Some(LlamaCpp), &[LlamaCpp]),
            (&[&[LlamaCpp], &[Ollama]], Some(Ollama), &[LlamaCpp, Ollama]),
            (&[&[TensorRtLlm, TensorRtLlmCpp]], None, &[TensorRtLlm, TensorRtLlmCpp]),
            (
                &[&[TensorRtLlm, TensorRtLlmCpp], &[TensorRtLlm]],
                Some(TensorRtLlm),
                &[TensorRtLlm, TensorRtLlmCpp],
            ),
            (&[&[Vllm], &[Sglang]], None, &[Vllm, Sglang]),
        ];
        for (evidence, engine, candidates) in cases {
            assert_eq!(decide(evidence.iter().copied()), (*engine, candidates.to_vec()), "{evidence:?}");
        }
    }
}
