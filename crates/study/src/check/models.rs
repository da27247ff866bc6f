//! Checkpoints that a backend is known not to load.

use std::path::Path;

use serde::Deserialize;

use super::{Findings, Subject};
use crate::read_text;

/// What a checkpoint says of itself: `config.json` of Hugging Face's transformers.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Config {
    architectures: Vec<String>,
    quantization_config: Option<Quantization>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Quantization {
    quant_method: String,
}

struct Rule {
    /// A word of the command, for the backend.
    backend: &'static [&'static str],
    is: fn(&Config) -> bool,
    found: &'static str,
    next: &'static str,
}

/// TensorRT-LLM's PyTorch backend reads quantised weights in ModelOpt's form (`hf_quant_config.json`), and its support matrix
/// begins with Gemma 3 (docs/source/features/quantization.md and docs/source/models/supported-models.md of 1.1.0).
const RULES: &[Rule] = &[
    Rule {
        backend: &["trtllm-bench", "pytorch"],
        is: |config| has_method(config, &["awq", "gptq"]),
        found: "the checkpoint is quantised by AutoAWQ or GPTQ; TensorRT-LLM's PyTorch backend documents ModelOpt's form",
        next: "use a checkpoint of ModelOpt (FP8, NVFP4), or `--backend tensorrt` after converting it",
    },
    Rule {
        backend: &["trtllm-bench", "pytorch"],
        is: |config| {
            config.architectures.iter().any(|it| ["GemmaForCausalLM", "Gemma2ForCausalLM"].contains(&&**it))
        },
        found: "TensorRT-LLM's PyTorch backend documents Gemma 3 and later, not this one",
        next: "use a Gemma 3, or `--backend tensorrt`",
    },
];

fn has_method(config: &Config, methods: &[&str]) -> bool {
    config
        .quantization_config
        .as_ref()
        .is_some_and(|it| methods.contains(&it.quant_method.to_lowercase().as_str()))
}

pub fn look(subject: &Subject<'_>, findings: &mut Findings) {
    for model in &subject.plan.models {
        let Some(environment) = subject.plan.environments.first() else { continue };
        let values = subject.values(environment, model);
        let words: Vec<String> =
            subject.plan.workload.command.iter().filter_map(|word| values.fill(word).ok()).collect();
        for file in model.files.iter().filter_map(|file| values.fill(file).ok()) {
            let path = subject.machine.file(&file);
            let path = if path.is_dir() { path.join("config.json") } else { path };
            if path.file_name() != Some(Path::new("config.json").as_os_str()) {
                continue;
            }
            // A model without it is not one of transformers'.
            let Ok(text) = read_text(&path) else { continue };
            let Ok(config) = serde_json::from_str::<Config>(&text) else {
                findings.warning(
                    &model.name,
                    format!("{} is no description of a model", path.display()),
                    "download it again",
                );
                continue;
            };
            let applies = |rule: &&Rule| {
                rule.backend.iter().all(|wanted| words.iter().any(|word| word == wanted))
                    && (rule.is)(&config)
            };
            for rule in RULES.iter().filter(applies) {
                findings.warning(&model.name, rule.found, rule.next);
            }
        }
    }
}
