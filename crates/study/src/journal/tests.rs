//! Journals of entries, whole and cut off.

use super::*;
use crate::schedule::schedule;

fn plan() -> Plan {
    let text = "name = \"p\"\nruns = 2\nretries = 1\n[[environments]]\nname = \"a\"\nkind = \"native\"\n\
                [[environments]]\nname = \"b\"\nkind = \"native\"\nvalues = { x = \"1\" }\n[[models]]\nname = \"m\"\n\
                [workload]\ncommand = [\"true\"]\n";
    Plan::parse(text).unwrap()
}

fn text(entries: &[Entry]) -> String {
    let plan = plan();
    let slots = schedule(&plan);
    let study = Entry::Study {
        schema: JOURNAL_SCHEMA.to_owned(),
        schema_version: JOURNAL_VERSION,
        plan: Box::new(plan),
        slots,
        machine: BTreeMap::new(),
    };
    let lines =
        std::iter::once(&study).chain(entries).map(|entry| serde_json::to_string(entry).unwrap() + "\n");
    lines.collect()
}

fn begin(number: u32, attempt: u32) -> Entry {
    Entry::Begin { number, attempt, at_s: 1.0 }
}

fn end(number: u32, attempt: u32, failure: Option<&str>) -> Entry {
    let failure = failure.map(str::to_owned);
    Entry::End { run: Box::new(Run { number, attempt, failure, ..Run::default() }) }
}

fn next(state: &State) -> Option<(u32, u32)> {
    state.next().map(|next| (next.slot.number, next.attempt))
}

#[test]
fn runs_follow_each_other() {
    assert_eq!(next(&read(&text(&[])).unwrap()), Some((1, 1)));
    let state = read(&text(&[begin(1, 1), end(1, 1, None)])).unwrap();
    assert_eq!((next(&state), state.open), (Some((2, 1)), None));
    let all: Vec<Entry> = (1..=4).flat_map(|number| [begin(number, 1), end(number, 1, None)]).collect();
    assert_eq!(next(&read(&text(&all)).unwrap()), None);
}

#[test]
fn what_was_cut_off_is_repeated_and_counts_for_nothing() {
    let cut = text(&[begin(1, 1)]);
    let state = read(&cut).unwrap();
    assert_eq!(state.open, Some((1, 1)));
    // In the middle of a line, too.
    for end in cut.len() - 30..cut.len() {
        let shorter = read(&cut[..end]).unwrap();
        assert_eq!((shorter.open, shorter.whole), (None, cut.trim_end().rfind('\n').unwrap() + 1));
    }
    let lost = Entry::Lost { number: 1, attempt: 1, at_s: 2.0 };
    let again = |attempt: u32| [begin(1, attempt), Entry::Lost { number: 1, attempt, at_s: 2.0 }];
    let many: Vec<Entry> = (1..=5).flat_map(again).collect();
    assert_eq!(next(&read(&text(&[begin(1, 1), lost])).unwrap()), Some((1, 2)));
    assert_eq!(next(&read(&text(&many)).unwrap()), Some((1, 6)));
}

#[test]
fn failures_are_kept_and_retried_as_often_as_the_plan_says() {
    let once = text(&[begin(1, 1), end(1, 1, Some("exit code 1"))]);
    assert_eq!(next(&read(&once).unwrap()), Some((1, 2)));
    let twice = text(&[begin(1, 1), end(1, 1, Some("x")), begin(1, 2), end(1, 2, Some("x"))]);
    let state = read(&twice).unwrap();
    assert_eq!((next(&state), state.results().runs.len()), (Some((2, 1)), 2));
}

fn left_out(numbers: &[u32]) -> Entry {
    let why = Why::GivenUp { environment: "a".to_owned(), model: "m".to_owned(), failures: 2 };
    Entry::LeftOut { at_s: 1.0, numbers: numbers.to_vec(), why }
}

#[test]
fn what_was_left_out_is_not_made() {
    let state = read(&text(&[begin(1, 1), end(1, 1, None), left_out(&[2, 4])])).unwrap();
    assert_eq!((next(&state), state.left().count()), (Some((3, 1)), 1));
    assert_eq!(state.results().happenings[0].after, Some(1));
    assert!(read(&text(&[left_out(&[99])])).is_err());
}

#[test]
fn failures_in_a_row_end_with_a_success_and_what_was_lost_is_none() {
    let fails = |attempt| {
        let run =
            Run { environment: "a".to_owned(), model: "m".to_owned(), number: 1, attempt, ..Run::default() };
        Entry::End { run: Box::new(Run { failure: Some("x".to_owned()), ..run }) }
    };
    let lost = Entry::Lost { number: 1, attempt: 2, at_s: 1.0 };
    let state = read(&text(&[fails(1), lost, fails(3)])).unwrap();
    assert_eq!((state.failures_in_a_row("a", "m"), state.failures_in_a_row("b", "m")), (2, 0));
    let ended =
        Run { environment: "a".to_owned(), model: "m".to_owned(), number: 1, attempt: 4, ..Run::default() };
    let state = read(&text(&[fails(1), Entry::End { run: Box::new(ended) }])).unwrap();
    assert_eq!(state.failures_in_a_row("a", "m"), 0);
}

#[test]
fn a_machine_that_changed_and_a_gate_that_stayed_closed_are_said_once() {
    let machine = |kernel: &str| [("kernel".to_owned(), kernel.to_owned())].into();
    let resumed = |kernel| Entry::Resumed { at_s: 1.0, machine: machine(kernel) };
    let closed =
        || Entry::GateClosed { at_s: 1.0, gate: "g".to_owned(), reason: "r".to_owned(), waited_s: 60.0 };
    let entries = [resumed("1"), resumed("1"), resumed("2"), closed(), closed()];
    let happenings = read(&text(&entries)).unwrap().happenings;
    let changes: Vec<_> = happenings[..3]
        .iter()
        .map(|it| match &it.what {
            What::Resumed { changed } => changed.len(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!((changes, happenings.len()), (vec![1, 0, 1], 4));
    assert!(matches!(&happenings[3].what, What::GateClosed { waited_s, .. } if *waited_s == 120.0));
}

#[test]
fn runs_of_a_round_on_either_side_of_a_start_of_the_machine_are_no_pair() {
    let boot = |id: &str| Entry::Resumed { at_s: 1.0, machine: [(BOOT.to_owned(), id.to_owned())].into() };
    let entries =
        [boot("1"), begin(1, 1), end(1, 1, None), boot("1"), boot("2"), begin(2, 1), end(2, 1, None)];
    let state = read(&text(&entries)).unwrap();
    // The first entry is of a machine whose start nobody knew.
    let boots: Vec<u32> = state.results().runs.iter().map(|run| run.boots).collect();
    assert_eq!(boots[1] - boots[0], 1);
    let over = |entries: &[Entry]| read(&text(entries)).unwrap().results().rounds_over["m"];
    assert_eq!((over(&entries), over(&entries[..3])), (1, 0));
}

#[test]
fn a_study_that_goes_on_warms_up_each_environment_and_the_plan_s_runs_stay_as_they_are() {
    let mut state = read(&text(&[begin(1, 1), end(1, 1, None)])).unwrap();
    assert!(state.warm_ups_again().is_empty(), "the plan has no warm-ups");
    state.plan.warmups = 1;
    let again = state.warm_ups_again();
    let found: Vec<_> =
        again.iter().map(|(slot, attempt)| (slot.environment.as_str(), slot.number, *attempt)).collect();
    // Run 2 is the next of b, run 4 that of a.
    assert_eq!(found, [("a", 4, 1), ("b", 2, 1)]);
    assert!(again.iter().all(|(slot, _)| slot.warmup && slot.round.is_none()));
    let run = state.run(&again[1].0, 1);
    state.fold(Entry::End { run: Box::new(run) }).unwrap();
    assert_eq!(next(&state), Some((2, 2)));
    assert_eq!(state.results().runs.iter().filter(|run| run.counts()).count(), 1);
}

#[test]
fn what_is_no_journal_is_refused() {
    for wrong in ["", "\n", "{}\n", "x\n", &text(&[begin(99, 1)]), &(text(&[]) + "{\"entry\":\"other\"}\n")] {
        assert!(read(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn environments_that_differ_in_their_names_alone_are_alike() {
    let mut plan = plan();
    assert!(plan.alike().is_empty());
    plan.environments[1].values.clear();
    assert_eq!(plan.alike(), [("a".to_owned(), "b".to_owned())]);
}
