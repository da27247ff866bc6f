//! Kernel-side aggregates, read at chosen instants and put into the recording's rows.

use std::collections::{HashMap, HashSet};

use aya::maps::{HashMap as BpfHashMap, MapData, PerCpuArray, StackTraceMap};
use spark_trace_common::capacities::FILES;
use spark_trace_common::map_records::{
    ChargeKey, ChargeStackKey, FileKey, FileTotals, MappingCache, MappingTotals, PAGE_CHARGED,
    PAGE_ORDER_SHIFT, PageKey,
};

use super::{
    bpf::{Object, ObjectError, Wire},
    btf::Btf,
    driver,
    driver_allocs::DriverRequests,
    page_size,
    symbols::{Names, Stacks},
};
use crate::cuda::Holdings;
use crate::decode::{device_name, mobility};
use spark_trace_recording::InstantKind;
use spark_trace_recording::{
    CacheSeen, Charge, ChargeStack, Column, FilePages, FirstTouch, Instant, PageAllocs, journal::Aggregates,
};

/// Instants kept at most; each costs an element in every row.
const MAX_INSTANTS: usize = 16;
/// Names of files kept before it is looked which of them are of use: twice as many as the kernel's table has rows.
const MAX_NAMES: usize = 2 * FILES as usize;

/// Rows of files that a recording keeps: all of the kernel's table, and as many that are not in it any more.
const MOST_FILES: usize = 2 * FILES as usize;

/// What a row of a file is distinguished by: inode, serial number of its owner, device.
type FileRow = (u64, u64, u32);

/// The rows so far, and the keys they belong to.
#[derive(Debug)]
pub struct Collector {
    instants: Vec<Instant>,
    pages: Vec<PageAllocs>,
    files: Vec<FilePages>,
    charges: Vec<Charge>,
    charge_stacks: Vec<ChargeStack>,
    driver_requests: DriverRequests,
    page_rows: HashMap<PageKey, usize>,
    /// Rows of pages and of charges by stack whose stacks have no id yet: their places, and what the kernel side calls the stack.
    pages_without_stack: Vec<(usize, i32)>,
    charges_without_stack: Vec<(usize, i32)>,
    file_rows: HashMap<FileRow, usize>,
    /// So many files are kept, the largest; absent where all are.
    largest_files: Option<usize>,
    /// Rows of files that there was no room for at one reading, at most.
    pub file_rows_lost: u64,
    charge_rows: HashMap<(u64, u32, u32), usize>,
    charge_stack_rows: HashMap<ChargeStackKey, usize>,
    /// Files as they were cached before the trace began.
    cached_before: Vec<FilePages>,
    cache_seen: Option<CacheSeen>,
    names: ItemNames,
    file_names: HashMap<(u32, u64), String>,
    /// What the target holds through the CUDA driver.
    pub cuda: Holdings,
}

/// Names of charge counters by number, from the kernel's own enums.
#[derive(Debug, Default)]
struct ItemNames {
    node: HashMap<u32, String>,
    memcg: HashMap<u32, String>,
}

impl Collector {
    pub fn new(btf: &Btf) -> Self {
        let table = |member: &str| {
            btf.enum_with(member)
                .iter()
                .map(|(name, value)| (*value as u32, name.clone()))
                .collect::<HashMap<_, _>>()
        };
        let node = table("NR_ANON_MAPPED");
        // memcg_stat_item continues node_stat_item's numbers.
        let mut memcg = table("MEMCG_SWAP");
        memcg.extend(node.iter().map(|(k, v)| (*k, v.clone())));
        Self { names: ItemNames { node, memcg }, ..Self::without_names() }
    }

    fn without_names() -> Self {
        Self {
            instants: Vec::new(),
            pages: Vec::new(),
            files: Vec::new(),
            charges: Vec::new(),
            charge_stacks: Vec::new(),
            driver_requests: DriverRequests::default(),
            page_rows: HashMap::new(),
            pages_without_stack: Vec::new(),
            charges_without_stack: Vec::new(),
            file_rows: HashMap::new(),
            largest_files: None,
            file_rows_lost: 0,
            charge_rows: HashMap::new(),
            charge_stack_rows: HashMap::new(),
            cached_before: Vec::new(),
            cache_seen: None,
            names: ItemNames::default(),
            file_names: HashMap::new(),
            cuda: Holdings::default(),
        }
    }

    /// Notes what was cached of files when the trace began.
    pub fn cached_before(&mut self, files: Vec<FilePages>, seen: CacheSeen) {
        self.cached_before = files;
        self.cache_seen = Some(seen);
    }

    /// Keeps so many files, the largest; absent where all are kept.
    pub const fn keep_largest_files(&mut self, most: Option<usize>) {
        self.largest_files = most;
    }

    /// Notes a file's name, which comes once when its first page was added.
    pub fn name_file(&mut self, device: u32, inode: u64, path: Option<String>) {
        if let Some(path) = path {
            self.file_names.insert((device, inode), path);
        }
    }

    /// Drops names of files that have no row any more, where there are many.
    pub fn tidy(&mut self, object: &Object) -> Result<(), ObjectError> {
        if self.file_names.len() <= MAX_NAMES {
            return Ok(());
        }
        let map: BpfHashMap<&MapData, Wire<FileKey>, Wire<FileTotals>> = object.map("FILES")?;
        let rows = map.keys().flatten().map(|Wire(key)| (key.device, key.inode));
        let rows: HashSet<_> = rows.collect();
        self.file_names.retain(|file, _| rows.contains(file));
        Ok(())
    }

    /// Reads all aggregates once, as the state at each of `reasons`. An earlier instant of the same reason is
    /// replaced: there is one system peak, and it is the last one seen.
    pub fn read(
        &mut self,
        object: &Object,
        stacks: &mut Stacks,
        reasons: &[InstantKind],
        at_ns: u64,
    ) -> Result<(), ObjectError> {
        let slots: Vec<usize> = reasons.iter().filter_map(|why| self.slot(*why, at_ns)).collect();
        self.cuda.mark(&slots);
        object.sweep_pages()?;
        self.read_pages(object, stacks, &slots)?;
        self.read_files(object, &slots)?;
        self.read_charges(object, &slots)?;
        self.read_charge_stacks(object, stacks, &slots)?;
        self.driver_requests.read(object, stacks, &slots)
    }

    /// Index of the instant called `why`, now at `at_ns`; none once there are too many.
    fn slot(&mut self, why: InstantKind, at_ns: u64) -> Option<usize> {
        if let Some(slot) = self.instants.iter().position(|i| i.why == why) {
            self.instants[slot].at_ns = at_ns;
            return Some(slot);
        }
        let room = self.instants.len() < MAX_INSTANTS;
        room.then(|| {
            self.instants.push(Instant { at_ns, why: why.into() });
            self.instants.len() - 1
        })
    }

    fn read_pages(
        &mut self,
        object: &Object,
        stacks: &mut Stacks,
        slots: &[usize],
    ) -> Result<(), ObjectError> {
        let map = object.page_row_map()?;
        let traces: StackTraceMap<&MapData> = object.map("KERNEL_STACKS")?;
        for row in &mut self.pages {
            row.live.set_each(slots, None);
            (row.allocs, row.frees, row.bytes_allocated, row.bytes_freed) = (0, 0, 0, 0);
        }
        for number in object.page_rows()? {
            // One that has just been given its number may have nothing in it yet.
            let Some(Wire(counted)) = map.get(&number, 0).ok().filter(|Wire(row)| row.allocs > 0) else {
                continue;
            };
            let bytes = driver::allocation_bytes(&counted.key);
            // Rows of one stack and different orders are one in the recording.
            let key = PageKey { class: counted.key.class & ((1 << PAGE_ORDER_SHIFT) - 1), ..counted.key };
            let index = *self.page_rows.entry(key).or_insert_with(|| {
                stacks.note_kernel(key.stack, &traces);
                self.pages_without_stack.push((self.pages.len(), key.stack));
                self.pages.push(PageAllocs {
                    cgroup: key.cgroup,
                    charged: key.class & PAGE_CHARGED != 0,
                    mobility: mobility(key.class).into(),
                    ..PageAllocs::default()
                });
                self.pages.len() - 1
            });
            let row = &mut self.pages[index];
            row.allocs += counted.allocs;
            row.frees += counted.frees;
            row.bytes_allocated += counted.allocs * bytes;
            row.bytes_freed += counted.frees * bytes;
            row.live.set_each(slots, Some(row.bytes_allocated.saturating_sub(row.bytes_freed)));
        }
        Ok(())
    }

    fn read_files(&mut self, object: &Object, slots: &[usize]) -> Result<(), ObjectError> {
        let map: BpfHashMap<&MapData, Wire<FileKey>, Wire<FileTotals>> = object.map("FILES")?;
        for row in &mut self.files {
            row.live.set_each(slots, None);
        }
        let row_of = |key: &FileKey| (key.inode, key.owner_serial, key.device);
        let chosen = self.largest_files.map(|most| {
            let cached = map.iter().flatten().map(|(Wire(key), Wire(totals))| {
                (totals.bytes_added.saturating_sub(totals.bytes_removed), row_of(&key))
            });
            largest(cached.collect(), most)
        });
        if let Some(chosen) = &chosen {
            self.keep_files(chosen);
        }
        let is_chosen = |file: &FileRow| chosen.as_ref().is_none_or(|chosen| chosen.contains(file));
        let mut left_out = 0;
        for (Wire(key), Wire(totals)) in map.iter().flatten() {
            let file = row_of(&key);
            let known = self.file_rows.get(&file).copied();
            let index = known.unwrap_or(self.files.len());
            if known.is_none() && (!is_chosen(&file) || index >= MOST_FILES) {
                left_out += 1;
                continue;
            }
            if known.is_none() {
                self.file_rows.insert(file, index);
                self.files.push(FilePages {
                    device: device_name(key.device),
                    inode: key.inode,
                    charged_to: totals.owner,
                    ..FilePages::default()
                });
            }
            let row = &mut self.files[index];
            row.path = self.file_names.get(&(key.device, key.inode)).cloned();
            row.bytes_added = totals.bytes_added;
            row.first_touch = (totals.first_ns != 0).then(|| FirstTouch {
                at_ns: totals.first_ns,
                pid: totals.first_tgid,
                comm: comm(&totals.first_comm),
                cgroup: totals.first_cgroup,
            });
            row.bytes_removed = totals.bytes_removed;
            row.live.set_each(slots, Some(totals.bytes_added as i64 - totals.bytes_removed as i64));
        }
        self.file_rows_lost = self.file_rows_lost.max(left_out);
        Ok(())
    }

    /// Forgets the rows of all other files.
    fn keep_files(&mut self, chosen: &HashSet<FileRow>) {
        let mut rows: Vec<_> = self.file_rows.drain().filter(|(file, _)| chosen.contains(file)).collect();
        rows.sort_unstable_by_key(|(_, index)| *index);
        self.files = rows.iter().map(|(_, index)| std::mem::take(&mut self.files[*index])).collect();
        self.file_rows = rows.into_iter().enumerate().map(|(index, (file, _))| (file, index)).collect();
    }

    fn read_charges(&mut self, object: &Object, slots: &[usize]) -> Result<(), ObjectError> {
        let map: BpfHashMap<&MapData, Wire<ChargeKey>, u64> = object.map("CHARGES")?;
        for row in &mut self.charges {
            row.net.set_each(slots, None);
        }
        let own_units = [false, true].map(|per_node| object.charges_in_own_units(per_node));
        for (Wire(key), count) in map.iter().flatten() {
            let index = *self.charge_rows.entry((key.cgroup, key.item, key.per_node)).or_insert_with(|| {
                let table = if key.per_node != 0 { &self.names.node } else { &self.names.memcg };
                let item = table.get(&key.item).cloned().unwrap_or_else(|| format!("item {}", key.item));
                self.charges.push(Charge { cgroup: key.cgroup, item, net: Column::default() });
                self.charges.len() - 1
            });
            let row = &mut self.charges[index];
            // The tracepoints hand over pages, whatever unit the counter has.
            let unit =
                if own_units[usize::from(key.per_node != 0)] { unit_of(&row.item) } else { page_size() };
            row.net.set_each(slots, Some(count as i64 * unit as i64));
        }
        Ok(())
    }

    fn read_charge_stacks(
        &mut self,
        object: &Object,
        stacks: &mut Stacks,
        slots: &[usize],
    ) -> Result<(), ObjectError> {
        let traces: StackTraceMap<&MapData> = object.map("KERNEL_STACKS")?;
        for row in &mut self.charge_stacks {
            row.charged.set_each(slots, None);
        }
        for (key, counted) in object.charge_stacks()? {
            let index = match self.charge_stack_rows.get(&key) {
                Some(index) => *index,
                None => {
                    stacks.note_kernel(key.stack, &traces);
                    self.charges_without_stack.push((self.charge_stacks.len(), key.stack));
                    self.charge_stacks.push(ChargeStack { cgroup: key.cgroup, ..ChargeStack::default() });
                    self.charge_stack_rows.insert(key, self.charge_stacks.len() - 1);
                    self.charge_stacks.len() - 1
                }
            };
            let row = &mut self.charge_stacks[index];
            row.charges = counted.charges;
            row.bytes_charged = counted.pages * page_size();
            row.charged.set_each(slots, Some(row.bytes_charged));
        }
        Ok(())
    }

    /// Small mappings by process: what has been settled, and what each CPU still holds.
    pub fn mapping_totals(object: &Object) -> Result<HashMap<u32, MappingTotals>, ObjectError> {
        let map: BpfHashMap<&MapData, u32, Wire<MappingTotals>> = object.map("MAPPING_TOTALS")?;
        let mut totals: HashMap<u32, MappingTotals> =
            map.iter().flatten().map(|(pid, Wire(totals))| (pid, totals)).collect();
        let caches: PerCpuArray<&MapData, Wire<MappingCache>> = object.map("MAPPING_CACHE")?;
        if let Ok(caches) = caches.get(&0, 0) {
            // What a CPU holds of another spark-trace goes when it is settled.
            let beside = object.beside_now()?;
            for Wire(MappingCache { tgid, counted, .. }) in caches.iter() {
                if beside.contains(tgid) {
                    continue;
                }
                let row = totals.entry(*tgid).or_default();
                row.mmap_calls += counted.mmap_calls;
                row.mmap_bytes += counted.mmap_bytes;
                row.munmap_calls += counted.munmap_calls;
                row.munmap_bytes += counted.munmap_bytes;
            }
        }
        Ok(totals)
    }

    /// All rows so far, every `live` vector as long as there are instants.
    pub fn snapshot(&mut self, stacks: &mut Stacks, names: &Names, next: Next) -> Aggregates {
        let len = self.instants.len();
        self.pages.iter_mut().for_each(|r| r.live.resize(len));
        self.files.iter_mut().for_each(|r| r.live.resize(len));
        self.charges.iter_mut().for_each(|r| r.net.resize(len));
        self.charge_stacks.iter_mut().for_each(|r| r.charged.resize(len));
        for (row, stack) in self.pages_without_stack.drain(..) {
            self.pages[row].stack = stacks.noted_kernel(stack);
        }
        for (row, stack) in self.charges_without_stack.drain(..) {
            self.charge_stacks[row].stack = stacks.noted_kernel(stack);
        }
        self.driver_requests.find_stacks(stacks);
        stacks.name_frames(names);
        let (stacks, symbols) = stacks.snapshot();
        // What hooks saw come and go since is in rows of its own.
        let unchanged: Column<i64> = std::iter::repeat_n(Some(0), len).collect();
        let before = self.cached_before.iter().cloned();
        let before = before.map(|file| FilePages { live: unchanged.clone(), ..file });
        let files = next.hand_over(&mut self.files, &mut self.file_rows);
        Aggregates {
            instants: self.instants.clone(),
            page_allocs: next.hand_over(&mut self.pages, &mut self.page_rows),
            files: files.into_iter().chain(before).collect(),
            cache_seen: self.cache_seen,
            charges: next.hand_over(&mut self.charges, &mut self.charge_rows),
            charge_stacks: next.hand_over(&mut self.charge_stacks, &mut self.charge_stack_rows),
            charge_levels: Vec::new(),
            driver_allocs: self.driver_requests.snapshot(len),
            cuda_allocs: self.cuda.rows(len),
            cuda_largest: self.cuda.largest(),
            cuda_totals: self.cuda.totals(),
            cuda_by_gpu: self.cuda.by_gpu(),
            cuda_unknown_frees: Some(self.cuda.unknown_frees),
            stacks,
            symbols,
        }
    }
}

/// What comes after a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Rows are counted on: a snapshot has copies.
    Readings,
    /// Nothing: the rows themselves become the recording's.
    End,
}

impl Next {
    fn hand_over<T: Clone, K>(self, rows: &mut Vec<T>, index: &mut HashMap<K, usize>) -> Vec<T> {
        match self {
            Self::Readings => rows.clone(),
            Self::End => {
                index.clear();
                std::mem::take(rows)
            }
        }
    }
}

/// Those with most bytes, no more than `most` of them.
fn largest<T: Copy + Eq + std::hash::Hash>(mut rows: Vec<(u64, T)>, most: usize) -> HashSet<T> {
    if rows.len() > most {
        rows.select_nth_unstable_by_key(most, |(bytes, _)| std::cmp::Reverse(*bytes));
        rows.truncate(most);
    }
    rows.into_iter().map(|(_, row)| row).collect()
}

/// Unit of a counter of memory.stat as the kernel keeps it: memcg_page_state_unit() in mm/memcontrol.c.
fn unit_of(item: &str) -> u64 {
    if item.ends_with("_B") {
        1
    } else if item.ends_with("_KB") {
        1024
    } else {
        page_size()
    }
}

/// Sets the elements at `slots`, making room for them.
fn comm(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_are_chosen() {
        let rows: Vec<(u64, u64)> = (0..1000).map(|number| (number * 7919 % 1000, number)).collect();
        let chosen = largest(rows.clone(), 10);
        let wanted = rows.iter().filter(|(bytes, _)| *bytes >= 990).map(|(_, row)| *row);
        assert_eq!(chosen, wanted.collect());
        assert_eq!(largest(rows, 5000).len(), 1000);
    }

    #[test]
    fn rows_that_are_kept_stay_themselves() {
        let mut collector = Collector::without_names();
        for inode in 0..10 {
            collector.file_rows.insert((inode, 0, 0), collector.files.len());
            collector.files.push(FilePages { inode, ..FilePages::default() });
        }
        collector.keep_files(&HashSet::from([(3, 0, 0), (7, 0, 0), (99, 0, 0)]));
        assert_eq!(collector.files.iter().map(|file| file.inode).collect::<Vec<_>>(), [3, 7]);
        assert_eq!(collector.file_rows, HashMap::from([((3, 0, 0), 0), ((7, 0, 0), 1)]));
    }

    #[test]
    fn the_last_snapshot_has_the_rows_themselves() {
        let mut collector = Collector::without_names();
        collector.page_rows.insert(PageKey { cgroup: 1, stack: 2, class: 3 }, 0);
        collector.pages.push(PageAllocs { cgroup: 1, allocs: 7, ..PageAllocs::default() });
        let rows = collector.pages.as_ptr();
        let mut stacks = Stacks::new(crate::kallsyms::Kallsyms::default());
        let copy = collector.snapshot(&mut stacks, &Names::None, Next::Readings);
        assert!(copy.page_allocs.as_ptr() != rows && collector.page_rows.len() == 1, "counted on");
        let last = collector.snapshot(&mut stacks, &Names::None, Next::End);
        assert_eq!((last.page_allocs.as_ptr(), &last.page_allocs), (rows, &copy.page_allocs));
        assert!(collector.page_rows.is_empty(), "no row has a number any more");
    }
}
