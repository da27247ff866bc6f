//! What the name of a log says of its run, where nothing else does.

use super::benchmark_spark::seconds;

/// Words that environments begin with.
const ENVIRONMENTS: &[&str] = &["native", "container"];

/// A run by the name of its log.
#[derive(Debug, PartialEq)]
pub(super) struct RunName {
    pub model: String,
    pub environment: String,
    pub iteration: u32,
    /// `20251121_010000`.
    pub timestamp: String,
}

/// Takes `MODEL_ENVIRONMENT_iterN_DATE_TIME` or `ENVIRONMENT_MODEL_iterN_DATE_TIME` apart. Both are in use: phase 2
/// writes the first, the comprehensive run of phase 1 the second. Where the environment comes first, it is one word.
pub(super) fn of(stem: &str) -> Option<RunName> {
    let words: Vec<&str> = stem.split('_').collect();
    let [before @ .., iteration, date, time] = &words[..] else { return None };
    let iteration = iteration.strip_prefix("iter")?.parse().ok()?;
    let timestamp = format!("{date}_{time}");
    seconds(&timestamp).ok()?;
    let begins = before.iter().position(|word| ENVIRONMENTS.contains(word))?;
    let (environment, model) = match begins {
        0 => (before.first()?.to_string(), before.get(1..)?.join("_")),
        _ => (before.get(begins..)?.join("_"), before.get(..begins)?.join("_")),
    };
    (!model.is_empty()).then_some(RunName { model, environment, iteration, timestamp })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(stem: &str) -> Option<(String, String, u32)> {
        of(stem).map(|name| (name.model, name.environment, name.iteration))
    }

    #[test]
    fn both_orders_of_words_are_read() {
        let run = |model: &str, environment: &str, n| Some((model.to_owned(), environment.to_owned(), n));
        assert_eq!(
            name("DeepSeek-R1-Distill-Qwen-7B_container_baseline_iter2_20251121_010000"),
            run("DeepSeek-R1-Distill-Qwen-7B", "container_baseline", 2)
        );
        assert_eq!(name("native_deepseek_7b_iter13_20251109_020000"), run("deepseek_7b", "native", 13));
        assert_eq!(of("m_native_iter1_20251109_020000").unwrap().timestamp, "20251109_020000");
    }

    #[test]
    fn other_names_are_not() {
        for stem in [
            "",
            "native",
            "native_iter1_20251109_020000",
            "m_iter1_20251109_020000",
            "m_native_20251109_020000",
            "m_native_iterx_20251109_020000",
            "m_native_iter1_20259909_020000",
        ] {
            assert_eq!(of(stem), None, "{stem}");
        }
    }
}
