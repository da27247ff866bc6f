//! What each outcome means for the published claim: one row each. The table of docs/spark-protocol.md is made of it.

mod group;

use spark_trace_analysis::findings::Verdict;
use spark_trace_recording::units::{delta, size};

use super::facts::{Pair, StepFacts};
use group::Group;

/// A difference is clear where in each pair of native and container it is at least so many times what two runs of one side differ
/// by.
const CLEAR: i64 = 2;
/// The part of a difference that is most of it.
const MOST_PERCENT: i64 = 50;

/// What was found.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Step 2 of the protocol.
    pub as_found: Option<StepFacts>,
    /// Step 3.
    pub dropped: Option<StepFacts>,
}

/// Whether an outcome is what was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fit {
    /// With the figures.
    Fits(String),
    DoesNotFit(String),
    /// What it would take to decide.
    Undecided(String),
}

impl Fit {
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Fits(_) => "fits",
            Self::DoesNotFit(_) => "does not fit",
            Self::Undecided(_) => "undecided",
        }
    }

    pub fn why(&self) -> &str {
        match self {
            Self::Fits(why) | Self::DoesNotFit(why) | Self::Undecided(why) => why,
        }
    }
}

/// One outcome. Texts are in Markdown, for the document and the page.
pub struct Outcome {
    /// For the document's reader.
    pub sees: &'static str,
    pub means: &'static str,
    pub judge: fn(&Facts) -> Fit,
}

/// The first that fits is the answer.
pub const OUTCOMES: &[Outcome] = &[
    Outcome {
        sees: "`kv`: the engine's signal is MemAvailable (vLLM from 0.11.1, SGLang from 0.5.4, llama.cpp, Ollama)",
        means: "The claim is about engines that read MemFree. Page cache costs yours nothing, whatever `diff` finds. What does is in \
                the rows of `kv`: other processes, pinned memory, memory of the driver.",
        judge: available,
    },
    Outcome {
        sees: "two native runs, or two container runs, differ as much as native and container, and step 3 has no clear difference",
        means: "History, not the container. The published runs were in blocks, so they cannot separate the two.",
        judge: history,
    },
    Outcome {
        sees: "native and container differ by no more than that",
        means: "The container has no more: your machine does not have the gap. `show --all` has what differs from the published set-up (kernel, \
                driver, image, limits).",
        judge: nothing,
    },
    Outcome {
        sees: "`Memory counted twice` (`double counting` in the list) is supported, in step 2 and in step 3",
        means: "The claim holds for your machine. Nobody has shown this yet: please send the recordings.",
        judge: counted_twice,
    },
    Outcome {
        sees: "it is refuted; `file-clean` and `file-dirty` have most of the difference in step 2, it is gone in step 3, and `files \
               cached twice` names the engine or the weights",
        means: "The gap is real and its explanation is not: the image's copy and the host's are two files, and both are in the page \
                cache. Mount one directory into both. Only files that were read during a recording are seen: look at the pair of \
                step 3, too.",
        judge: copies,
    },
    Outcome {
        sees: "it is refuted; `file-clean` and `file-dirty` have most of the difference in step 2, and it is gone in step 3",
        means: "The gap is real and its explanation is not. The engine reads MemFree, which counts page cache as used, and the \
                container run began with more of it. The memory was never lost: `sudo spark-trace reclaim --page-cache --apply` \
                before a launch gives it back.",
        judge: page_cache,
    },
    Outcome {
        sees: "the difference stays in step 3, most of it in `file-clean` or `file-dirty`",
        means: "The container's run reads or writes more files itself. `diff` lists them (`ONLY IN B`). What a run caches must go \
                right before the engine reads: `kv` has the command.",
        judge: |facts| stays(facts, Group::Cache),
    },
    Outcome {
        sees: "it stays in step 3, most of it in `nvidia-sysmem`, `nvidia-managed` or `nvidia-pool`",
        means: "Memory of the driver; `show` has its callers. Either the container makes other requests, or something was left: \
                compare the snapshots before and after, `spark-trace diff before.json.zst after.json.zst --plane system`.",
        judge: |facts| stays(facts, Group::Driver),
    },
    Outcome {
        sees: "it stays in step 3, most of it in `anon`, `shmem` or `hugetlb`, and the cgroup plane has it, too",
        means: "The container's program takes more memory itself: `diff` names process, mapping and stack. Look for other options, \
                versions or environment variables.",
        judge: |facts| processes(facts, true),
    },
    Outcome {
        sees: "as before, but the cgroup plane does not have it",
        means: "Another program. `kv` lists processes outside of the target. End it, and repeat.",
        judge: |facts| processes(facts, false),
    },
    Outcome {
        sees: "it stays in step 3, most of it in the rows of the kernel",
        means: "`show FILE kernel` has the stacks.",
        judge: |facts| stays(facts, Group::Kernel),
    },
    Outcome {
        sees: "it stays in step 3, most of it in `unattributed`",
        means: "spark-trace does not know. That is a fault of ours or a new source: please send the bundles.",
        judge: |facts| stays(facts, Group::Unattributed),
    },
    Outcome {
        sees: "it stays in step 3, and no row before has most of it",
        means: "Several sources together: read the table of sources from its largest difference on.",
        judge: several,
    },
    Outcome {
        sees: "the difference is clear in step 2, page cache does not have most of it, and it is gone in step 3",
        means: "Something that came and went, in the container's runs of step 2 alone. Look for what else ran then, and repeat both \
                steps.",
        judge: went,
    },
];

/// Every outcome with its fit, and the place of the answer: the first that fits.
pub fn judge(facts: &Facts) -> (Vec<Fit>, Option<usize>) {
    let fits: Vec<Fit> = OUTCOMES.iter().map(|outcome| (outcome.judge)(facts)).collect();
    let answer = fits.iter().position(|fit| matches!(fit, Fit::Fits(_)));
    (fits, answer)
}

/// The numbers of the undecided among the first `until` outcomes; empty where there is none.
pub fn undecided(fits: &[Fit], until: usize) -> String {
    let above = fits.iter().take(until).zip(1_usize..).filter(|(fit, _)| matches!(fit, Fit::Undecided(_)));
    above.map(|(_, number)| number.to_string()).collect::<Vec<_>>().join(", ")
}

/// What an answer depends on, if outcomes before it are undecided.
pub fn reservation(fits: &[Fit], answer: usize) -> Option<String> {
    let above = undecided(fits, answer);
    (!above.is_empty()).then(|| {
        format!(
            "outcomes before it are undecided ({above}): the answer stands only if they do not fit; see the table of outcomes"
        )
    })
}

/// The table of the document.
pub fn table() -> String {
    let rows = OUTCOMES.iter().map(|outcome| format!("| {} | {} |\n", outcome.sees, outcome.means));
    format!("| what you see | what it means for the claim |\n|---|---|\n{}", rows.collect::<String>())
}

/// How native and container differ, beside how runs of one side do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gap {
    Unknown(String),
    /// The container has more: the mean.
    Clear(i64),
    /// The container has no more, or no more than the threshold, in any pair.
    None(String),
    /// It has more in a pair, and runs of one side differ as much.
    History(String),
}

pub fn gap(step: &StepFacts) -> Gap {
    if let Some((pair, why)) = step.pairs().find_map(|pair| Some((pair, pair.against.first()?))) {
        return Gap::Unknown(format!("{} and {} are not comparable: {why}; repeat the runs", pair.a, pair.b));
    }
    let of = |pairs: &[Pair]| pairs.iter().map(|pair| pair.total).collect::<Option<Vec<i64>>>();
    let (Some(between), Some(within)) = (of(&step.between), of(&step.within)) else {
        return Gap::Unknown("a recording does not have the machine's memory".to_owned());
    };
    let (Some(&least), Some(&most)) = (between.iter().min(), between.iter().max()) else {
        return Gap::Unknown("there is no pair".to_owned());
    };
    let noise = within.iter().map(|bytes| bytes.saturating_abs()).max().unwrap_or(0);
    let threshold = step.between.iter().chain(&step.within).map(|pair| pair.threshold).max().unwrap_or(0);
    let figures = format!(
        "container minus native {} to {}, two runs of one side {} apart at most, threshold {}",
        delta(least),
        delta(most),
        size(noise),
        size(threshold)
    );
    if most <= threshold {
        return Gap::None(figures);
    }
    if least > threshold && least >= noise.saturating_mul(CLEAR) {
        return step.mean(|pair| pair.total).map_or(Gap::Unknown(figures), Gap::Clear);
    }
    if noise > threshold {
        return Gap::History(figures);
    }
    Gap::Unknown(format!("too small to be sure: {figures}; repeat it on a machine that does nothing else"))
}

/// The same in step 3, in which all runs begin with the same page cache.
fn gap_dropped(step: &StepFacts) -> Gap {
    match step.pairs().find_map(|pair| Some((pair, pair.start.first()?))) {
        Some((pair, why)) => {
            Gap::Unknown(format!("step 3: {} and {}: {why}; repeat the runs", pair.a, pair.b))
        }
        None => gap(step),
    }
}

const NO_STEP_3: &str = "needs step 3: repeat the command with --without-page-cache";
const NO_STEP_2: &str = "step 2 is not complete";

fn available(facts: &Facts) -> Fit {
    let steps = facts.as_found.iter().chain(&facts.dropped);
    let kv = steps.flat_map(|step| &step.between).filter_map(|pair| pair.kv.as_ref().ok());
    let signals: Vec<_> = kv.flat_map(|kv| kv.signals).collect();
    let known: Vec<&str> = signals.iter().copied().flatten().collect();
    if signals.is_empty() {
        return Fit::DoesNotFit("no KV-cache reading was found".to_owned());
    }
    match known.as_slice() {
        [] => Fit::Undecided("the readings agree with no counter of the machine".to_owned()),
        all if all.iter().all(|signal| *signal == AVAILABLE) => {
            if all.len() < signals.len() {
                return Fit::Undecided(format!(
                    "{} of {} readings agree with it, the others with no counter of the machine",
                    all.len(),
                    signals.len()
                ));
            }
            Fit::Fits("all readings agree with it".to_owned())
        }
        all if all.contains(&AVAILABLE) => {
            Fit::Undecided("the readings agree with several counters".to_owned())
        }
        all => Fit::DoesNotFit(format!("the readings agree with {}", all[0])),
    }
}

/// As `kv` calls it.
const AVAILABLE: &str = "MemAvailable";

fn history(facts: &Facts) -> Fit {
    let figures = match facts.as_found.as_ref().map(gap) {
        None => return Fit::Undecided(NO_STEP_2.to_owned()),
        Some(Gap::Unknown(why)) => return Fit::Undecided(why),
        Some(Gap::History(figures)) => figures,
        Some(Gap::None(figures)) => return Fit::DoesNotFit(figures),
        Some(Gap::Clear(mean)) => {
            return Fit::DoesNotFit(format!("the difference is clear: {} on average", delta(mean)));
        }
    };
    match facts.dropped.as_ref().map(gap_dropped) {
        None => Fit::Undecided(format!("{figures}; {NO_STEP_3}")),
        Some(Gap::Unknown(why)) => Fit::Undecided(format!("{figures}; step 3: {why}")),
        Some(Gap::Clear(mean)) => {
            Fit::DoesNotFit(format!("not clear in step 2, but clear in step 3: {} on average", delta(mean)))
        }
        Some(Gap::None(left) | Gap::History(left)) => Fit::Fits(format!("{figures}; step 3: {left}")),
    }
}

fn nothing(facts: &Facts) -> Fit {
    match (facts.as_found.as_ref().map(gap), facts.dropped.as_ref().map(gap_dropped)) {
        (None, _) => Fit::Undecided(NO_STEP_2.to_owned()),
        (Some(Gap::Unknown(why)), _) => Fit::Undecided(why),
        (Some(Gap::None(_)), Some(Gap::Clear(mean))) => {
            Fit::DoesNotFit(format!("not in step 2, but clear in step 3: {} on average", delta(mean)))
        }
        (Some(Gap::None(figures)), _) => Fit::Fits(figures),
        (Some(Gap::History(figures)), _) => Fit::DoesNotFit(figures),
        (Some(Gap::Clear(mean)), _) => {
            Fit::DoesNotFit(format!("the difference is clear: {} on average", delta(mean)))
        }
    }
}

fn counted_twice(facts: &Facts) -> Fit {
    let verdict = |step: &StepFacts| step.verdict(|pair| pair.double_counting);
    let word = |verdict: Option<Verdict>| verdict.map_or("the pairs differ", Verdict::as_str);
    let Some(as_found) = facts.as_found.as_ref().map(verdict) else {
        return Fit::Undecided(NO_STEP_2.to_owned());
    };
    match (as_found, facts.dropped.as_ref().map(verdict)) {
        (Some(Verdict::Refuted), _) => Fit::DoesNotFit("refuted in step 2".to_owned()),
        (_, Some(Some(Verdict::Refuted))) => Fit::DoesNotFit("refuted in step 3".to_owned()),
        (Some(Verdict::Supported), Some(Some(Verdict::Supported))) => supported(facts),
        (Some(Verdict::Supported), None) => Fit::Undecided(NO_STEP_3.to_owned()),
        (as_found, None) => Fit::Undecided(format!("step 2: {}; {NO_STEP_3}", word(as_found))),
        (as_found, Some(dropped)) => {
            Fit::Undecided(format!("step 2: {}; step 3: {}", word(as_found), word(dropped)))
        }
    }
}

/// Memory that is counted twice in both steps is the claim's only where the container has more.
fn supported(facts: &Facts) -> Fit {
    let steps =
        [(facts.as_found.as_ref().map(gap), "step 2"), (facts.dropped.as_ref().map(gap_dropped), "step 3")];
    for (gap, step) in steps {
        match gap {
            Some(Gap::Clear(_)) => {}
            Some(Gap::None(figures)) => return Fit::DoesNotFit(format!("{step}: {figures}")),
            Some(Gap::History(why) | Gap::Unknown(why)) => return Fit::Undecided(format!("{step}: {why}")),
            None => return Fit::Undecided(format!("{step} is not complete")),
        }
    }
    Fit::Fits("supported in every pair of both steps, and the container has more".to_owned())
}

/// Whether page cache has most of a difference that is gone in step 3, and nothing is counted twice.
fn cache_alone(facts: &Facts) -> Result<String, Fit> {
    let as_found = facts.as_found.as_ref().ok_or_else(|| Fit::Undecided(NO_STEP_2.to_owned()))?;
    let mean = match gap(as_found) {
        Gap::Clear(mean) => mean,
        Gap::Unknown(why) => return Err(Fit::Undecided(why)),
        Gap::None(figures) | Gap::History(figures) => return Err(Fit::DoesNotFit(figures)),
    };
    let cache = Group::Cache.of(as_found);
    let cache = cache.ok_or_else(|| Fit::Undecided("page cache is not known".to_owned()))?;
    let share = format!("page cache has {} of {} in step 2", delta(cache), delta(mean));
    if !is_most(cache, mean) {
        return Err(Fit::DoesNotFit(share));
    }
    if as_found.verdict(|pair| pair.double_counting) != Some(Verdict::Refuted) {
        return Err(Fit::Undecided(format!("{share}, but double counting is not refuted in every pair")));
    }
    match facts.dropped.as_ref().map(gap_dropped) {
        None => Err(Fit::Undecided(format!("{share}; {NO_STEP_3}"))),
        Some(Gap::Unknown(why)) => Err(Fit::Undecided(why)),
        Some(Gap::History(figures)) => Err(Fit::Undecided(format!("step 3: {figures}; repeat it"))),
        Some(Gap::Clear(left)) => Err(Fit::DoesNotFit(format!("{} are left in step 3", delta(left)))),
        Some(Gap::None(figures)) => Ok(format!("{share}; step 3: {figures}")),
    }
}

fn has_copies(facts: &Facts) -> bool {
    let steps = facts.as_found.iter().chain(&facts.dropped);
    steps.flat_map(|step| &step.between).any(|pair| pair.copies == Some(Verdict::Supported))
}

fn copies(facts: &Facts) -> Fit {
    match cache_alone(facts) {
        Ok(figures) if has_copies(facts) => Fit::Fits(figures),
        Ok(_) => Fit::DoesNotFit("no file was found to be cached twice".to_owned()),
        Err(fit) => fit,
    }
}

fn page_cache(facts: &Facts) -> Fit {
    cache_alone(facts).map_or_else(|fit| fit, Fit::Fits)
}

const fn is_most(part: i64, whole: i64) -> bool {
    part.saturating_mul(100) > whole.saturating_mul(MOST_PERCENT)
}

/// The clear difference of step 3.
fn left(facts: &Facts) -> Result<(&StepFacts, i64), Fit> {
    let Some(dropped) = &facts.dropped else { return Err(Fit::Undecided(NO_STEP_3.to_owned())) };
    match gap_dropped(dropped) {
        Gap::Clear(mean) => Ok((dropped, mean)),
        Gap::Unknown(why) => Err(Fit::Undecided(why)),
        Gap::History(figures) => Err(Fit::Undecided(format!("step 3: {figures}; repeat it"))),
        Gap::None(figures) => Err(Fit::DoesNotFit(format!("step 3: {figures}"))),
    }
}

fn share_of(group: Group, step: &StepFacts, mean: i64) -> Result<(i64, String), Fit> {
    let bytes = group.of(step).ok_or_else(|| Fit::Undecided("the sources are not known".to_owned()))?;
    Ok((bytes, format!("{} has {} of {} in step 3", group.name(), delta(bytes), delta(mean))))
}

fn stays(facts: &Facts, group: Group) -> Fit {
    let judged = left(facts).and_then(|(step, mean)| Ok((share_of(group, step, mean)?, mean)));
    match judged {
        Ok(((bytes, share), mean)) if is_most(bytes, mean) => Fit::Fits(share),
        Ok(((_, share), _)) => Fit::DoesNotFit(share),
        Err(fit) => fit,
    }
}

fn processes(facts: &Facts, charged: bool) -> Fit {
    let share = match stays(facts, Group::Processes) {
        Fit::Fits(share) => share,
        other => return other,
    };
    let Some(step) = &facts.dropped else { return Fit::Undecided(NO_STEP_3.to_owned()) };
    let (Some(all), Some(of_target)) =
        (Group::Processes.of(step), step.mean(|pair| Group::Processes.in_cgroup(pair)))
    else {
        return Fit::Undecided(format!("{share}; a run has no cgroup plane"));
    };
    let figures = format!("{share}, the cgroup plane {}", delta(of_target));
    if is_most(of_target, all) == charged { Fit::Fits(figures) } else { Fit::DoesNotFit(figures) }
}

fn several(facts: &Facts) -> Fit {
    let (step, mean) = match left(facts) {
        Ok(left) => left,
        Err(fit) => return fit,
    };
    for group in Group::ALL {
        match share_of(group, step, mean) {
            Ok((bytes, share)) if is_most(bytes, mean) => return Fit::DoesNotFit(share),
            Ok(_) => {}
            Err(fit) => return fit,
        }
    }
    Fit::Fits(format!("{} in step 3, and no group of sources has most of it", delta(mean)))
}

/// A clear difference of step 2 that is gone in step 3, and that page cache does not explain.
fn went(facts: &Facts) -> Fit {
    let Some(as_found) = &facts.as_found else { return Fit::Undecided(NO_STEP_2.to_owned()) };
    let mean = match gap(as_found) {
        Gap::Clear(mean) => mean,
        Gap::Unknown(why) => return Fit::Undecided(why),
        Gap::None(figures) | Gap::History(figures) => return Fit::DoesNotFit(figures),
    };
    let Some(cache) = Group::Cache.of(as_found) else {
        return Fit::Undecided("page cache is not known".to_owned());
    };
    let share = format!("page cache has {} of {} in step 2", delta(cache), delta(mean));
    if is_most(cache, mean) {
        return Fit::DoesNotFit(share);
    }
    match facts.dropped.as_ref().map(gap_dropped) {
        None => Fit::Undecided(format!("{share}; {NO_STEP_3}")),
        Some(Gap::Unknown(why)) => Fit::Undecided(why),
        Some(Gap::History(figures)) => Fit::Undecided(format!("step 3: {figures}; repeat it")),
        Some(Gap::Clear(left)) => Fit::DoesNotFit(format!("{} are left in step 3", delta(left))),
        Some(Gap::None(figures)) => Fit::Fits(format!("{share}; step 3: {figures}")),
    }
}

#[cfg(test)]
mod tests;
