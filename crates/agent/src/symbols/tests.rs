use super::*;
use crate::kallsyms::Kallsyms;

#[inline(never)]
extern "C" fn telling_name() -> u64 {
    std::hint::black_box(1)
}

#[test]
fn own_function_is_named_and_stacks_are_kept_once() {
    let mut stacks = Stacks::new(Kallsyms::default());
    let address = telling_name as *const () as u64 + 2;
    let pid = std::process::id();
    let first = stacks.user(pid, &[address, address, 0x10], 0);
    assert_eq!(stacks.user(pid, &[address, address, 0x7ffe_6dfd_b190, 8], 0), first, "rubbish after code");
    stacks.name_frames(&Names::All(LONGEST_NAMING));
    let (all, symbols) = stacks.snapshot();
    assert_eq!(all.len(), 1);
    let innermost = &symbols[all[0].frames[0] as usize];
    // With line tables as the only debug information that has `telling_name` and no more.
    let name = innermost.name.as_deref().unwrap_or_else(|| panic!("{:?}", stacks.missing_names()));
    assert_eq!(name, "spark_trace_agent::symbols::tests::telling_name");
    assert!(innermost.module.is_some());
    assert_eq!(all[0].frames.len(), 2);
    let alone = stacks.user(pid, &[0x10, 0x20], 0).unwrap();
    let (all, symbols) = stacks.snapshot();
    let frames = &all[alone as usize].frames;
    assert_eq!((frames.len(), symbols[frames[0] as usize].address), (1, 0x10), "an address in no code");
}

#[test]
fn kernel_frames_carry_their_address() {
    let mut stacks = Stacks::new(Kallsyms::default());
    let id = stacks.kernel(&[0xffff_ffff_8100_0000]);
    let (all, symbols) = stacks.snapshot();
    assert_eq!(all[id as usize].space, Space::Kernel);
    assert_eq!(symbols[0], Symbol { address: 0xffff_ffff_8100_0000, ..Symbol::default() });
}
