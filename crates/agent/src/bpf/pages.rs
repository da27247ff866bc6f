//! Following page frames: finding where the kernel keeps them, and which are no longer in use.

use aya::{
    maps::{Array, MapData},
    programs::{ProgramError, RawTracePoint, RawTracePointRunOptions, TestRun},
};
use spark_trace_common::{
    capacities::{LIVE_FRAMES, PAGE_ROWS, TOUCHED_ELEMENTS},
    config::{PLACE_BASE, PLACE_FOUND, PLACE_ROWS, PLACE_SWEEP_NEXT},
    map_records::PageRow,
};

use super::{Object, ObjectError, Wire, attach::describe, map_error};
use crate::page_frames::OnePage;

const SWEEP: &str = "page_sweep";
const PAGE_FREE: &str = "page_free";
/// The hook that leaves no free unseen.
const STAND_IN: &str = "page-free-nested";
const FIND: &str = "page_of_file";
/// Tries to find a page that the kernel does not move meanwhile.
const TRIES: u32 = 4;

/// Words of `TOUCHED` for so many page frames.
pub(super) const fn touched_words(frames: u32) -> u32 {
    frames.div_ceil(LIVE_FRAMES).div_ceil(TOUCHED_ELEMENTS)
}

impl Object {
    /// Finds the array of `struct page`s and passes its address to the programs. Two pages must lie in it where their frame
    /// numbers say; else this kernel has no such array.
    pub(super) fn find_frames(&mut self) -> Result<(), String> {
        let span = self.span.ok_or("neither /proc/iomem nor /proc/zoneinfo lists the ranges of memory")?;
        let program: &mut RawTracePoint = self
            .ebpf
            .program_mut(FIND)
            .ok_or("no such program in the object")?
            .try_into()
            .map_err(|e: ProgramError| e.to_string())?;
        program.load().map_err(|e| describe(&e))?;
        let files = [OnePage::new()?, OnePage::new()?];
        let start = [self.start_by(&files[0])?, self.start_by(&files[1])?];
        if start[0] != start[1] {
            return Err("this kernel does not keep its page structures in one array (no vmemmap)".to_owned());
        }
        let base = start[0].wrapping_add(span.first * u64::from(self.page_struct_size));
        let mut place: Array<_, u64> = self.map_mut("PLACE").map_err(|e| e.to_string())?;
        place.set(PLACE_BASE, base, 0).map_err(|e| e.to_string())
    }

    /// Where the structure of frame 0 is, or would be, by that of `file`'s page.
    fn start_by(&self, file: &OnePage) -> Result<u64, String> {
        let program = self.ebpf.program(FIND).ok_or("no such program in the object")?;
        let program: &RawTracePoint = program.try_into().map_err(|e: ProgramError| e.to_string())?;
        for _ in 0..TRIES {
            let frame = file.frame()?;
            let mut options = RawTracePointRunOptions::new();
            options.args[0] = u64::from(file.fd());
            program.test_run(options).map_err(|e| describe(&e))?;
            if file.frame()? == frame {
                let found = self.place(PLACE_FOUND).map_err(|e| e.to_string())?;
                let start = found.wrapping_sub(frame * u64::from(self.page_struct_size));
                return if found == 0 { Err("a file's page was not found".to_owned()) } else { Ok(start) };
            }
        }
        Err("the kernel moved a page again and again".to_owned())
    }

    fn place(&self, index: u32) -> Result<u64, ObjectError> {
        let place: Array<&MapData, u64> = self.map("PLACE")?;
        place.get(&index, 0).map_err(|e| map_error("PLACE", e))
    }

    /// Retires kernel pages that are no longer in use, so that the rows are right now. Where frees are seen as they
    /// happen only those are left that the kernel skipped the hook for; a sweep is made for them if there are any.
    pub fn sweep_pages(&self) -> Result<(), ObjectError> {
        if !self.hooks.iter().any(|h| h.program == Some(SWEEP)) || self.is_attached(STAND_IN) {
            return Ok(());
        }
        // Asked before: what is freed from here on is seen by the hook or by this sweep.
        let missed = self.missed_frees();
        if missed.is_some() && missed == self.swept_with.get() {
            return Ok(());
        }
        let program = self.ebpf.program(SWEEP).ok_or(ObjectError::NoMap(SWEEP))?;
        let program: &RawTracePoint = program.try_into().map_err(|e| ObjectError::Sweep(Box::new(e)))?;
        let words = u64::from(touched_words(self.span.map_or(0, |span| span.frames)));
        let mut first = 0;
        while first < words {
            let mut options = RawTracePointRunOptions::new();
            (options.args[0], options.args[1]) = (first, words - first);
            program.test_run(options).map_err(|e| ObjectError::Sweep(Box::new(e)))?;
            let next = self.place(PLACE_SWEEP_NEXT)?;
            if next <= first {
                return Err(ObjectError::SweepStuck);
            }
            first = next;
        }
        self.swept_with.set(missed);
        Ok(())
    }

    /// The same as a matter of routine, to keep rows and frames from running full: nothing where frees are seen.
    pub fn sweep_now_and_then(&self) -> Result<(), ObjectError> {
        if self.sees_frees() && self.swept_with.get().is_some() { Ok(()) } else { self.sweep_pages() }
    }

    /// Frees that the hook on them was skipped for; `None` where it is not attached.
    fn missed_frees(&self) -> Option<u64> {
        let stats = self.sees_frees().then(|| self.program_stats(PAGE_FREE)).flatten()?;
        Some(stats.recursion_misses)
    }

    /// Numbers of the page rows that there may be.
    pub fn page_rows(&self) -> Result<std::ops::Range<u32>, ObjectError> {
        let given = self.place(PLACE_ROWS)?.min(u64::from(PAGE_ROWS) - 1);
        Ok(1..given as u32 + 1)
    }

    /// A view of the page rows by number.
    pub fn page_row_map(&self) -> Result<Array<&MapData, Wire<PageRow>>, ObjectError> {
        self.map("PAGE_ROWS")
    }
}
