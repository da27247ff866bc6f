//! Pages charged to memory cgroups, where the kernel's page counters are changed.
//!
//! The same functions serve all counters of all cgroups (memory, swap, kernel memory of cgroup v1, huge pages, device
//! memory); of interest is the memory of the target's. A task charges some 64 pages at once and draws on them, so this
//! runs once for as many pages, and a stack for each is affordable. What it counts is what memory.current says.
//!
//! A level is counted as the kernel counts it, for the cgroup and all above it. A removed cgroup may still be
//! uncharged; it is no longer selected, and counts for what is selected above it.

use aya_ebpf::{
    EbpfContext,
    macros::{fentry, fexit, kprobe, kretprobe},
    programs::{FEntryContext, FExitContext, ProbeContext, RetProbeContext},
};
use spark_trace_common::{
    capacities::{CGROUP_DEPTH, CHARGE_PLACES},
    hook::index,
    map_records::{ChargeLevel, ChargePlace, ChargeStack, ChargeStackKey, PendingCharge},
};

use crate::{
    config::conf,
    loss::lost,
    maps::{
        CHARGE_CACHE, CHARGE_LEVELS, CHARGE_STACKS, PENDING_CHARGES, add, generation, hit, number, row_of,
    },
    read::{load, probe},
    stack::{at_entry, stack_pointer, take_stack},
    target::{cgroup_id_of, current_task, is_target_cgroup},
};

const TRY_CHARGE: u32 = index("charge-try");
const CHARGE: u32 = index("charge-force");
const UNCHARGE: u32 = index("uncharge");

/// Which part of the cache is a program's own: those on different functions can interrupt each other.
const fn part_of(hook: u32) -> u32 {
    match hook {
        TRY_CHARGE => 0,
        CHARGE => 1,
        _ => 2,
    }
}

/// `bool page_counter_try_charge(struct page_counter *counter, unsigned long nr_pages, struct page_counter **fail)`
#[fexit(function = "page_counter_try_charge")]
pub fn counter_try_charge(ctx: FExitContext) -> i32 {
    let (pages, result): (u64, u64) = (ctx.arg(1), ctx.arg(3));
    if is_true(result)
        && let Some(place) = place_of(TRY_CHARGE, number(TRY_CHARGE, ctx.arg(0)))
    {
        let stack = take_stack(ctx.as_ptr());
        charge(place, TRY_CHARGE, pages, stack);
    }
    0
}

/// `void page_counter_charge(struct page_counter *counter, unsigned long nr_pages)`
#[fentry(function = "page_counter_charge")]
pub fn counter_charge(ctx: FEntryContext) -> i32 {
    if let Some(place) = place_of(CHARGE, number(CHARGE, ctx.arg(0))) {
        let stack = take_stack(ctx.as_ptr());
        charge(place, CHARGE, ctx.arg(1), stack);
    }
    0
}

/// `void page_counter_uncharge(struct page_counter *counter, unsigned long nr_pages)`
#[fentry(function = "page_counter_uncharge")]
pub fn counter_uncharge(ctx: FEntryContext) -> i32 {
    if let Some(place) = place_of(UNCHARGE, number(UNCHARGE, ctx.arg(0))) {
        uncharge(place, ctx.arg(1));
    }
    0
}

#[kprobe]
pub fn counter_charge_probe(ctx: ProbeContext) -> u32 {
    let (counter, pages) = arguments(&ctx);
    if let Some(place) = place_of(CHARGE, counter) {
        let stack = take_stack(ctx.as_ptr());
        charge(place, CHARGE, pages, stack);
    }
    0
}

#[kprobe]
pub fn counter_uncharge_probe(ctx: ProbeContext) -> u32 {
    let (counter, pages) = arguments(&ctx);
    if let Some(place) = place_of(UNCHARGE, counter) {
        uncharge(place, pages);
    }
    0
}

/// The stack is taken here: at the return the frame is gone that the unwinder would begin at.
#[kprobe]
pub fn counter_try_charge_enter(ctx: ProbeContext) -> u32 {
    let (counter, pages) = arguments(&ctx);
    if place_of(TRY_CHARGE, counter).is_some() {
        let stack = take_stack(ctx.as_ptr());
        let pending = PendingCharge { counter, pages, stack, reserved: 0 };
        if PENDING_CHARGES.insert(&at_entry(&ctx), &pending, 0).is_err() {
            lost!(ChargeLevels);
        }
    }
    0
}

#[kretprobe]
pub fn counter_try_charge_return(ctx: RetProbeContext) -> u32 {
    let key = stack_pointer(ctx.regs);
    let Some(pending) = PENDING_CHARGES.get_ptr(&key) else { return 0 };
    // SAFETY: a live map value.
    let pending = unsafe { *pending };
    let _ = PENDING_CHARGES.remove(&key);
    if is_true(ctx.ret())
        && let Some(place) = place_of(TRY_CHARGE, pending.counter)
    {
        charge(place, TRY_CHARGE, pending.pages, pending.stack);
    }
    0
}

/// A `bool` leaves the rest of its register as it was.
const fn is_true(result: u64) -> bool {
    result & 0xff != 0
}

#[inline(always)]
fn arguments(ctx: &ProbeContext) -> (u64, u64) {
    (ctx.arg(0).unwrap_or(0), ctx.arg(1).unwrap_or(0))
}

/// Counts a charge in the level of its cgroup and of those above, and by its stack.
#[inline(always)]
fn charge(place: *const ChargePlace, hook: u32, pages: u64, stack: i32) {
    hit(hook);
    // SAFETY: a live map value, for which see `place_of`.
    let cgroup = unsafe { (*place).cgroup };
    for_each_level(place, |level| unsafe { add(&raw mut (*level).charged, pages) });
    let key = ChargeStackKey { cgroup, stack, reserved: 0 };
    match row_of(&CHARGE_STACKS, &key, &ChargeStack::default()) {
        // SAFETY: a live map value.
        Some(row) => unsafe {
            add(&raw mut (*row).pages, pages);
            add(&raw mut (*row).charges, 1);
        },
        None => lost!(ChargeStacks),
    }
}

#[inline(always)]
fn uncharge(place: *const ChargePlace, pages: u64) {
    hit(UNCHARGE);
    for_each_level(place, |level| unsafe { add(&raw mut (*level).uncharged, pages) });
}

/// Calls `count` with the level of each selected cgroup of `place`. Of the whole machine there are none.
#[inline(always)]
fn for_each_level(place: *const ChargePlace, count: impl Fn(*mut ChargeLevel)) {
    if conf!(whole_system) != 0 {
        return;
    }
    for at in 0..CGROUP_DEPTH {
        // SAFETY: a live map value; `at` is within the array.
        let (depth, cgroup) =
            unsafe { ((*place).depth, *(&raw const (*place).levels).cast::<u64>().add(at)) };
        if at as u32 >= depth {
            return;
        }
        if cgroup != 0 {
            match row_of(&CHARGE_LEVELS, &cgroup, &ChargeLevel::default()) {
                Some(level) => count(level),
                None => lost!(ChargeLevels),
            }
        }
    }
}

/// Whose memory `counter` counts; nothing where it is not the target's, or not memory. It stays as it is for as long
/// as the program runs: the kernel does not let a program interrupt itself.
#[inline(always)]
fn place_of(hook: u32, counter: u64) -> Option<*const ChargePlace> {
    // Of a counter of something else this is some word of its surroundings, which distinguishes it as well.
    let serial: u64 = probe(memcg_of(counter), conf!(memcg_css) + conf!(css_serial))?;
    // Fibonacci hashing: the highest bits of the product are the best mixed.
    let hash = counter.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let slot = hash as u32 >> (32 - CHARGE_PLACES.trailing_zeros());
    let place = CHARGE_CACHE.get_ptr_mut(part_of(hook) * CHARGE_PLACES + slot)?;
    let generation = generation();
    // SAFETY: a per-CPU slot that the map keeps alive.
    unsafe {
        let known =
            (*place).counter == counter && (*place).serial == serial && (*place).generation == generation;
        if !known {
            (*place).counter = counter;
            (*place).serial = serial;
            (*place).generation = generation;
            look_up(place, counter);
        }
        ((*place).cgroup != 0).then_some(place.cast_const())
    }
}

/// Finds the selected cgroups from that of `counter` upward.
///
/// # Safety
/// `place` must point to a live map value.
#[inline(always)]
unsafe fn look_up(place: *mut ChargePlace, counter: u64) {
    // What all memory cgroups point to. Taken from a task, since its symbol is not everywhere to be had.
    // SAFETY: each pointer is loaded from a structure the verifier knows the type of; the place by the caller's word.
    unsafe {
        (*place).cgroup = 0;
        (*place).depth = 0;
        let css_set: *const u8 = load(current_task(), conf!(task_cgroups));
        let css: *const u8 = load(css_set, conf!(css_set_subsys) + 8 * conf!(memory_subsys));
        let controller: u64 = load(css, conf!(css_ss));
        let css = conf!(memcg_css);
        if controller == 0 || probe(memcg_of(counter), css + conf!(css_ss)) != Some(controller) {
            return;
        }
        let mut counter = counter;
        for at in 0..CGROUP_DEPTH {
            let id = probe(memcg_of(counter), css + conf!(css_cgroup)).map_or(0, cgroup_id_of);
            let id = if conf!(whole_system) != 0 || is_target_cgroup(id) { id } else { 0 };
            if (*place).cgroup == 0 {
                (*place).cgroup = id;
            }
            (&raw mut (*place).levels).cast::<u64>().add(at).write(id);
            (*place).depth = at as u32 + 1;
            // The parent of a counter of memory is one of memory.
            counter = probe(counter as *const u8, conf!(counter_parent)).unwrap_or(0);
            if counter == 0 {
                return;
            }
        }
    }
    lost!(ChargeLevels);
}

/// The memory cgroup whose memory `counter` counts, if it does.
#[inline(always)]
fn memcg_of(counter: u64) -> *const u8 {
    counter.wrapping_sub(u64::from(conf!(memcg_memory))) as *const u8
}
