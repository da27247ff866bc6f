use std::collections::BTreeMap;

use spark_trace_common::source::UNATTRIBUTED;
use spark_trace_recording::ledger::Plane;

use super::*;
use crate::spark_report::facts::Kv;

const GIB: i64 = 1 << 30;

fn pair(total: i64, sources: &[(&'static str, i64)]) -> Pair {
    Pair {
        a: "a".to_owned(),
        b: "b".to_owned(),
        at: "peak".to_owned(),
        total: Some(total),
        sources: sources.iter().copied().collect(),
        cgroup: Some(BTreeMap::new()),
        charged: None,
        threshold: GIB / 4,
        double_counting: Some(Verdict::Refuted),
        copies: Some(Verdict::Refuted),
        against: vec![],
        start: vec![],
        kv: Err("none".to_owned()),
    }
}

/// Two pairs that differ by so much, all of it in one source, and two runs of each side that differ by `noise`.
fn step(gib: i64, source: &'static str, noise: i64) -> StepFacts {
    let between = || pair(gib * GIB, &[(source, gib * GIB)]);
    StepFacts { between: vec![between(), between()], within: vec![pair(noise, &[]), pair(-noise, &[])] }
}

fn facts(as_found: StepFacts, dropped: Option<StepFacts>) -> Facts {
    Facts { as_found: Some(as_found), dropped }
}

/// The place of the answer in the document's words.
fn answer(facts: &Facts) -> &'static str {
    judge(facts).1.map_or("", |place| OUTCOMES[place].sees)
}

fn with(mut step: StepFacts, change: impl Fn(&mut Pair)) -> StepFacts {
    step.between.iter_mut().for_each(change);
    step
}

#[test]
fn every_outcome_is_the_answer_to_what_it_describes() {
    let cache = || step(20, "file-clean", 0);
    let gone = || Some(step(0, "file-clean", 0));
    let stays = |source| facts(step(20, source, 0), Some(step(20, source, 0)));
    let supported = |step| with(step, |pair| pair.double_counting = Some(Verdict::Supported));
    let copied = |step| with(step, |pair| pair.copies = Some(Verdict::Supported));
    let charged = |step| with(step, |pair| pair.cgroup = Some([("anon", 18 * GIB)].into()));
    let reading = |signal| Kv {
        engine: None,
        signals: [Some(signal); 2],
        free: [0; 2],
        cache: [None; 2],
        delta: None,
        b_with_state_of_a: None,
    };
    let by = |signal| with(cache(), |pair| pair.kv = Ok(reading(signal)));
    let all = [
        (facts(by("MemAvailable"), None), "MemAvailable"),
        (facts(by("MemFree"), gone()), "and it is gone in step 3"),
        (facts(step(20, "anon", 15 * GIB), gone()), "two native runs"),
        (facts(step(0, "anon", 0), None), "differ by no more"),
        // Less in the container, and a drift that both sides share.
        (facts(step(-20, "anon", GIB), None), "differ by no more"),
        (facts(step(0, "anon", 9 * GIB), None), "differ by no more"),
        (facts(supported(cache()), Some(supported(cache()))), "is supported"),
        (facts(cache(), gone()), "and it is gone in step 3"),
        (facts(copied(cache()), gone()), "cached twice"),
        (stays("file-dirty"), "most of it in `file-clean`"),
        (stays("nvidia-sysmem"), "`nvidia-sysmem`"),
        (stays("nvidia-pool"), "`nvidia-sysmem`"),
        (facts(cache(), Some(charged(step(20, "anon", 0)))), "has it, too"),
        (
            facts(
                step(20, "shmem", 0),
                Some(with(step(20, "shmem", 0), |pair| pair.cgroup = Some([("shmem", 0)].into()))),
            ),
            "does not have it",
        ),
        (facts(step(20, "anon", 0), gone()), "page cache does not have most of it"),
        (stays("page-tables"), "rows of the kernel"),
        (stays(UNATTRIBUTED), "`unattributed`"),
    ];
    for (facts, words) in &all {
        assert!(answer(facts).contains(words), "{words}: {}", answer(facts));
    }
    let split = with(step(20, "anon", 0), |pair| {
        pair.sources = [("anon", 9 * GIB), ("file-clean", 9 * GIB), ("slab-unreclaimable", 2 * GIB)].into();
    });
    assert!(answer(&facts(split.clone(), Some(split))).contains("no row before has most"));
    // Each row was the answer once.
    assert_eq!(OUTCOMES.len(), 14);
}

#[test]
fn without_step_3_nothing_is_said_that_needs_it() {
    let facts = facts(step(20, "file-clean", 0), None);
    let (fits, answer) = judge(&facts);
    assert_eq!(answer, None, "{fits:?}");
    let needs = fits.iter().filter(|fit| fit.why().contains("--without-page-cache")).count();
    assert!(needs >= 9, "{fits:?}");
    assert!(!fits.iter().any(|fit| matches!(fit, Fit::Fits(_))));
}

#[test]
fn what_the_numbers_do_not_decide_stays_undecided() {
    // Neither clear nor within the noise of one side.
    let barely = with(step(1, "anon", GIB / 5), |pair| pair.total = Some(GIB * 3 / 10));
    assert!(matches!(gap(&barely), Gap::Unknown(_)), "{:?}", gap(&barely));
    assert_eq!(answer(&facts(barely, None)), "");
    // Page cache it is, if nothing is counted twice, and that is not known.
    let untestable = with(step(20, "file-clean", 0), |pair| pair.double_counting = Some(Verdict::Untestable));
    assert_eq!(answer(&facts(untestable, Some(step(0, "file-clean", 0)))), "");
    // A pair of two says otherwise.
    let mut one_of_two = step(20, "file-clean", 0);
    one_of_two.between[1].double_counting = Some(Verdict::Supported);
    assert_eq!(answer(&facts(one_of_two, Some(step(0, "file-clean", 0)))), "");
    let nothing = with(step(20, "anon", 0), |pair| pair.total = None);
    assert_eq!(answer(&facts(nothing, None)), "");
    assert_eq!(answer(&Facts::default()), "");
}

#[test]
fn a_history_in_step_2_is_the_answer_only_with_step_3() {
    let history = || step(20, "anon", 15 * GIB);
    let place = |facts: &Facts| judge(facts).0.swap_remove(1);
    assert!(matches!(place(&facts(history(), None)), Fit::Undecided(why) if why.contains(NO_STEP_3)));
    let unknown = with(step(0, "anon", 0), |pair| pair.total = None);
    assert!(matches!(place(&facts(history(), Some(unknown))), Fit::Undecided(_)));
    assert!(matches!(place(&facts(history(), Some(history()))), Fit::Fits(_)));
    // What is clear without page cache is no history.
    let clear = facts(history(), Some(step(20, "unattributed", 0)));
    assert!(matches!(place(&clear), Fit::DoesNotFit(_)));
    assert!(answer(&clear).contains("`unattributed`"));
}

#[test]
fn what_is_missing_counts_as_nothing_less_than_unknown() {
    // One of two readings agrees with no counter.
    let reading = Kv {
        engine: None,
        signals: [Some(AVAILABLE), None],
        free: [0; 2],
        cache: [None; 2],
        delta: None,
        b_with_state_of_a: None,
    };
    let one_known = facts(with(step(20, "anon", 0), |pair| pair.kv = Ok(reading.clone())), None);
    assert!(matches!(available(&one_known), Fit::Undecided(_)));
    // The cgroup plane does not have the source that differs.
    let missing = facts(step(20, "anon", 0), Some(step(20, "anon", 0)));
    assert_eq!(answer(&missing), "");
    assert!(matches!(processes(&missing, false), Fit::Undecided(_)));
}

#[test]
fn memory_counted_twice_without_more_in_the_container_is_not_the_claim() {
    let supported =
        |gib| with(step(gib, "file-clean", 0), |pair| pair.double_counting = Some(Verdict::Supported));
    assert!(matches!(counted_twice(&facts(supported(20), Some(supported(20)))), Fit::Fits(_)));
    assert!(matches!(counted_twice(&facts(supported(20), Some(supported(0)))), Fit::DoesNotFit(_)));
    assert!(matches!(counted_twice(&facts(supported(-20), Some(supported(20)))), Fit::DoesNotFit(_)));
}

#[test]
fn an_answer_has_the_undecided_outcomes_before_it() {
    let fits = [Fit::Undecided(String::new()), Fit::DoesNotFit(String::new()), Fit::Undecided(String::new())];
    assert_eq!(undecided(&fits, 3), "1, 3");
    assert!(reservation(&fits, 2).is_some_and(|text| text.contains("(1)")));
    assert_eq!(reservation(&fits[1..], 1), None);
}

#[test]
fn runs_that_cannot_be_compared_decide_nothing() {
    let lost = |step| with(step, |pair| pair.against = vec!["B lost 7 events".to_owned()]);
    let begun = |step| with(step, |pair| pair.start = vec!["start state differs".to_owned()]);
    let (cache, gone) = (|| step(20, "file-clean", 0), || step(0, "file-clean", 0));
    assert_eq!(answer(&facts(lost(cache()), Some(gone()))), "");
    assert_eq!(answer(&facts(cache(), Some(lost(gone())))), "");
    // What the runs began with is the question in step 2, and must be the same in step 3.
    assert!(answer(&facts(begun(cache()), Some(gone()))).contains("gone in step 3"));
    assert_eq!(answer(&facts(cache(), Some(begun(gone())))), "");
}

#[test]
fn every_source_of_the_machine_is_in_one_group() {
    let mut count = 0;
    for source in Plane::System.sources() {
        let groups = Group::ALL.iter().filter(|group| group.slugs().contains(&source.slug)).count();
        assert_eq!(groups, 1, "{}", source.slug);
        count += 1;
    }
    assert_eq!(count, Group::ALL.iter().map(|group| group.slugs().len()).sum::<usize>());
}

/// `SPARK_TRACE_BLESS=1` writes the document's table anew.
#[test]
fn the_document_has_the_same_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/spark-protocol.md");
    let document = std::fs::read_to_string(path).unwrap();
    let begin = document.find("| what you see |").unwrap();
    let end = begin + document[begin..].find("\n\n").unwrap() + 1;
    let made = format!("{}{}{}", &document[..begin], table(), &document[end..]);
    spark_trace_testing::golden(path, &made);
}
