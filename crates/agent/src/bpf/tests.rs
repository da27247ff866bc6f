//! The object on this kernel, without the rest of a recording.

use std::{fs::File, io, os::fd::FromRawFd};

use spark_trace_common::{capacities::LossKind, hook::Profile};

use super::*;
use crate::{
    aggregates::{Collector, Next},
    btf::Btf,
    cgroup::Layout,
    driver,
    kallsyms::Kallsyms,
    offsets,
    symbols::Stacks,
};
use spark_trace_recording::InstantKind;

const MIB: u64 = 1 << 20;

fn attached(profile: Profile) -> (Object, Btf) {
    let btf = Btf::from_kernel().unwrap();
    let layout = Layout::detect().unwrap();
    let settings = offsets::Settings {
        whole_system: false,
        all_pages: profile == Profile::Deep,
        min_region: MIB,
        python_min: Some(MIB),
        unwind_min: Some(MIB),
    };
    let config = offsets::resolve(&btf, &layout, settings).unwrap();
    let mut object = Object::load(None, &config, 1 << 16).unwrap();
    object.attach(&profile.into(), &btf).unwrap();
    (object, btf)
}

#[test]
#[ignore = "kernel: needs root"]
fn every_hook_attaches_or_says_why() {
    for hook in attached(Profile::Deep).0.hooks() {
        println!("{hook:?}");
    }
}

/// Pipes filled to capacity, which take a page for each page written.
struct Pipes {
    ends: Vec<[File; 2]>,
    bytes: u64,
}

impl Pipes {
    fn fill(wanted: u64) -> Self {
        let (mut ends, mut bytes) = (Vec::new(), 0);
        let page = vec![7u8; crate::page_size() as usize];
        while bytes < wanted {
            let mut fds = [0; 2];
            // SAFETY: room for two descriptors, which are then ours alone.
            let pair = unsafe {
                assert_eq!(libc::pipe2(fds.as_mut_ptr(), libc::O_NONBLOCK | libc::O_CLOEXEC), 0);
                fds.map(|fd| File::from_raw_fd(fd))
            };
            while let Ok(written) = io::Write::write(&mut &pair[1], &page) {
                bytes += written as u64;
            }
            ends.push(pair);
        }
        Self { ends, bytes }
    }

    /// Gives all pages back; returns how many bytes that were.
    fn empty(self) -> u64 {
        drop(self.ends);
        self.bytes
    }
}

/// What pipes hold by the programs' account.
struct Account {
    collector: Collector,
    stacks: Stacks,
}

impl Account {
    fn new(btf: &Btf) -> Self {
        let stacks = Stacks::new(Kallsyms::from_kernel().unwrap());
        Self { collector: Collector::new(btf), stacks }
    }

    fn bytes(&mut self, object: &Object) -> u64 {
        self.collector.read(object, &mut self.stacks, &[InstantKind::Now], 1).unwrap();
        let rows = self
            .collector
            .snapshot(&mut self.stacks, &crate::symbols::Names::None, Next::Readings)
            .page_allocs;
        let of_pipes = |stack: &u32| {
            let frames = self.stacks.frames(*stack);
            frames.iter().any(|f| f.name.as_deref().is_some_and(|name| name.contains("pipe_write")))
        };
        rows.iter()
            .filter(|row| row.stack.as_ref().is_some_and(of_pipes))
            .map(|row| row.bytes_allocated - row.bytes_freed.min(row.bytes_allocated))
            .sum()
    }
}

fn near(what: &str, bytes: u64, truth: u64) {
    println!("{what}: {bytes} bytes, truth {truth}");
    assert!(bytes.abs_diff(truth) <= MIB, "{what}: {bytes} bytes, truth {truth}");
}

fn pages_of_pipes(profile: Profile, between: impl FnOnce(&mut Object)) {
    let (mut object, btf) = attached(profile);
    let mut account = Account::new(&btf);
    near("before", account.bytes(&object), 0);
    let pipes = Pipes::fill(64 * MIB);
    near("filled", account.bytes(&object), pipes.bytes);
    between(&mut object);
    near("still filled", account.bytes(&object), pipes.bytes);
    pipes.empty();
    near("emptied", account.bytes(&object), 0);
    let again = Pipes::fill(32 * MIB);
    near("filled again", account.bytes(&object), again.bytes);
    again.empty();
    near("emptied again", account.bytes(&object), 0);
    let mut losses = object.losses().unwrap();
    // Nobody takes events out of the buffer here: on a busy machine it runs full.
    losses.retain(|loss| loss.what != LossKind::Events.name());
    assert!(losses.is_empty(), "{losses:?}");
}

#[test]
#[ignore = "kernel: needs root"]
fn pages_are_followed_by_sweeping() {
    pages_of_pipes(Profile::Default, |object| {
        let hook = object.hooks().iter().find(|h| h.name == "page-free").unwrap();
        assert_eq!(hook.verdict, Verdict::Off);
        assert!(hook.reason.as_deref().unwrap().contains("CUDA"), "{hook:?}");
    });
}

#[test]
#[ignore = "kernel: needs root"]
fn pages_are_followed_by_every_free() {
    pages_of_pipes(Profile::Deep, |object| assert!(object.sees_frees()));
}

#[test]
#[ignore = "kernel: needs root"]
fn a_hook_on_frees_that_comes_late_finds_what_was_allocated_before() {
    pages_of_pipes(Profile::Default, |object| {
        object.attach_waiting("nothing that happens");
        assert!(!object.is_attached("page-free"));
        for _ in 0..2 {
            object.attach_waiting("cuda");
        }
        assert!(object.is_attached("page-free"));
        assert!(object.swept_with.get().is_none(), "what was freed before is to be found yet");
    });
}

#[test]
#[ignore = "kernel: needs root"]
fn without_a_driver_it_holds_nothing() {
    let (object, btf) = attached(Profile::Default);
    let mut account = Account::new(&btf);
    let (pipes, mut rows) = (Pipes::fill(MIB), driver::Rows::default());
    for _ in 0..2 {
        let bytes = rows.read(&object, &mut account.stacks).unwrap();
        assert!(object.follows_pages() && bytes.by_source().all(|(_, sum)| sum.total() == 0), "{bytes:?}");
    }
    pipes.empty();
}
