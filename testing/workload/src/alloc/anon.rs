//! Anonymous memory: touched, untouched, in huge pages, in hugetlb pages, and in thousands of tiny mappings.

use std::hint::black_box;
use std::io;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::map::{Mapping, free_range};
use super::{Env, Holding, Taken};
use crate::cli::AllocArgs;
use crate::output::SourceRecord;
use crate::size::round_up;
use crate::sys;

pub fn anon(args: &AllocArgs, env: &Env) -> Result<Taken> {
    let len = env.machine.pages_up(args.anon.unwrap_or_default())?;
    let mut mapping = Mapping::base_pages(len)?;
    touch_anon(&mut mapping, env.machine.page);
    let detail = json!({ "page_table_bytes": env.machine.table_bytes(mapping.address(), len) });
    let record = SourceRecord::new("anon", "anon", len as u64, detail).at(mapping.address());
    Ok(Taken::new(record, mapping))
}

#[inline(never)]
fn touch_anon(mapping: &mut Mapping, page: usize) {
    mapping.write_each::<0x616e_6f6e>(page);
    black_box(mapping);
}

pub fn anon_untouched(args: &AllocArgs, env: &Env) -> Result<Taken> {
    let len = env.machine.pages_up(args.anon_untouched.unwrap_or_default())?;
    let mapping = reserve_anon(len)?;
    let record =
        SourceRecord::new("anon", "anon-untouched", 0, json!({ "reserved": len })).at(mapping.address());
    Ok(Taken::new(record, mapping))
}

#[inline(never)]
fn reserve_anon(len: usize) -> Result<Mapping> {
    Mapping::base_pages(len)
}

/// Keeps reading how much of it is huge: khugepaged collapses and splits behind our back.
struct Thp(Mapping);

impl Thp {
    fn huge(&self) -> Value {
        match sys::huge_bytes(self.0.address(), self.0.len()) {
            Ok(bytes) => json!({ "huge_bytes": bytes }),
            Err(error) => json!({ "huge_bytes": null, "huge_bytes_reason": format!("{error:#}") }),
        }
    }
}

impl Holding for Thp {
    fn measure(&self) -> Option<Value> {
        Some(self.huge())
    }

    fn release(self: Box<Self>) -> Result<()> {
        Box::new(self.0).release()
    }
}

pub fn thp(args: &AllocArgs, env: &Env) -> Result<Taken> {
    let huge = sys::thp_size()?;
    let len = env.machine.pages_up(args.thp.unwrap_or_default())?;
    let mut mapping = reserve_thp(len, huge)?;
    touch_thp(&mut mapping, env.machine.page);

    let address = mapping.address();
    let holding = Thp(mapping);
    let mut detail = holding.huge();
    detail["hpage_pmd_size"] = json!(huge);
    detail["huge_bytes_at_most"] = json!(len / huge * huge);
    // Each huge page keeps an empty page table in reserve for being split, so there are as many as without.
    detail["page_table_bytes"] = json!(env.machine.table_bytes(address, len));
    let record = SourceRecord::new("anon", "thp", len as u64, detail).at(address);
    Ok(Taken::new(record, holding))
}

fn reserve_thp(len: usize, huge: usize) -> Result<Mapping> {
    let mapping = Mapping::anonymous_aligned(len, huge)?;
    mapping
        .advise(libc::MADV_HUGEPAGE)
        .context("madvise(MADV_HUGEPAGE): a kernel without transparent huge pages?")?;
    Ok(mapping)
}

#[inline(never)]
fn touch_thp(mapping: &mut Mapping, page: usize) {
    mapping.write_each::<0x7468_7000>(page);
    black_box(mapping);
}

pub fn thp_zero(args: &AllocArgs, _env: &Env) -> Result<Taken> {
    let huge = sys::thp_size()?;
    let len = round_up(args.thp_zero.unwrap_or_default(), huge as u64)
        .and_then(|len| usize::try_from(len).ok())
        .context("size too large")?;
    let mapping = reserve_thp(len, huge)?;
    read_zeros(&mapping, huge);
    // Each mapping of it has an empty page table in reserve, as a huge page of one's own has.
    let detail = json!({ "mapped": len, "hpage_pmd_size": huge });
    let record = SourceRecord::new("huge-zero-page", "thp-zero", huge as u64, detail);
    Ok(Taken::new(record.at(mapping.address()), mapping))
}

/// Once for each huge page: the first read maps all of it.
#[inline(never)]
fn read_zeros(mapping: &Mapping, huge: usize) {
    black_box(mapping.read_each(huge));
}

pub fn hugetlb(args: &AllocArgs, _env: &Env) -> Result<Taken> {
    let huge = default_hugetlb_size()?;
    let len = round_up(args.hugetlb.unwrap_or_default(), huge as u64)
        .and_then(|len| usize::try_from(len).ok())
        .context("size too large")?;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB;
    let mut mapping = match Mapping::new(len, libc::PROT_READ | libc::PROT_WRITE, flags, None) {
        Ok(mapping) => mapping,
        Err(error) => return Err(error).context(why_no_hugetlb(len, huge)),
    };
    touch_hugetlb(&mut mapping, huge);
    let record = SourceRecord::new("hugetlb", "hugetlb", len as u64, json!({ "huge_page_size": huge }));
    Ok(Taken::new(record.at(mapping.address()), mapping))
}

/// Only once for each huge page: the first touch brings all of it.
#[inline(never)]
fn touch_hugetlb(mapping: &mut Mapping, huge: usize) {
    mapping.write_each::<0x6875_6765>(huge);
    black_box(mapping);
}

fn default_hugetlb_size() -> Result<usize> {
    let meminfo = sys::read_text("/proc/meminfo").context("--hugetlb needs to know the huge page size")?;
    let kib = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("Hugepagesize:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse::<usize>().ok());
    match kib {
        Some(kib) if (kib << 10).is_power_of_two() => Ok(kib << 10),
        _ => bail!("/proc/meminfo has no Hugepagesize: a kernel built without hugetlb"),
    }
}

fn why_no_hugetlb(len: usize, huge: usize) -> String {
    let pool = format!("/sys/kernel/mm/hugepages/hugepages-{}kB", huge >> 10);
    let count = |name: &str| match sys::read_text(&format!("{pool}/{name}")) {
        Ok(text) => text.trim().to_owned(),
        Err(_) => "unknown".to_owned(),
    };
    format!(
        "cannot map {} huge pages of {} KiB: {} are reserved, {} of them free. \
         Reserve some: echo {} > {pool}/nr_hugepages (as root)",
        len / huge,
        huge >> 10,
        count("nr_hugepages"),
        count("free_hugepages"),
        len / huge
    )
}

/// One page each, and as far apart that each needs a page table of its own. They are too far apart to be
/// merged as it is; every second one also gets another protection, for a kernel (or a tool) that looks at
/// neighbours in a list.
pub fn small_mappings(args: &AllocArgs, env: &Env) -> Result<Taken> {
    let count = usize::try_from(args.small_mappings.unwrap_or_default()).context("--small-mappings")?;
    let (page, span) = (env.machine.page, env.machine.table_span());
    let begin = free_range(count.checked_mul(span).context("--small-mappings: too many")?, span)?;
    let before = sys::SelfStatus::read().ok();
    let mut mappings = Vec::with_capacity(count);
    for index in 0..count {
        let mapping = map_small(begin + index * span, page, index % 2 == 1);
        mappings.push(mapping.with_context(|| {
            let limit = sys::read_text("/proc/sys/vm/max_map_count").unwrap_or_else(|_| "unknown".to_owned());
            format!("small mapping {} of {count} (vm.max_map_count is {})", index + 1, limit.trim())
        })?);
    }
    let after = sys::SelfStatus::read().ok();
    let grew = after.zip(before).map(|(after, before)| after.page_tables.saturating_sub(before.page_tables));

    let bytes = (count * page) as u64;
    let detail = json!({
        "mappings": count,
        "span": span,
        // With the levels above, which the kernel counts along.
        "page_tables_grew_by": grew,
    });
    let tables = SourceRecord::new("page-tables", "small-mappings", bytes, detail).at(begin);
    let pages = SourceRecord::new("anon", "small-mappings", bytes, json!({ "mappings": count })).at(begin);
    Ok(Taken { sources: vec![tables, pages], holding: Box::new(mappings) })
}

#[inline(never)]
fn map_small(address: usize, page: usize, read_only: bool) -> io::Result<Mapping> {
    let mut mapping = Mapping::anonymous_at(address, page)?;
    mapping.write_each::<0x736d_616c>(page);
    if read_only {
        mapping.protect(libc::PROT_READ)?;
    }
    Ok(black_box(mapping))
}
