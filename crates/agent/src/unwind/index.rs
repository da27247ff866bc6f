//! The sorted index of a file's tables, `.eh_frame_hdr` (LSB 5.0, section 10.6.2), in the one form that linkers write.
//! Whoever made the file may have written anything: all arithmetic wraps or is checked.

/// Version 1; the table's address relative to its own place, a count, and rows relative to the index, of four bytes each
/// (DW_EH_PE_pcrel, _udata4, _datarel, _sdata4).
const FORM: [u8; 4] = [1, 0x1b, 0x03, 0x3b];

/// A row: where a function begins, and where its entry lies in the table.
const ROW: usize = 8;

pub struct Index<'a> {
    address: u64,
    /// Of the table, `.eh_frame`.
    pub table_address: u64,
    rows: &'a [u8],
}

impl<'a> Index<'a> {
    /// `address`: where the linker has put it.
    pub fn read(index: &'a [u8], address: u64) -> Option<Self> {
        let (form, rest) = index.split_first_chunk()?;
        let (table, rest) = rest.split_first_chunk()?;
        let (count, rows) = rest.split_first_chunk()?;
        let table_address = moved(address.wrapping_add(FORM.len() as u64), *table);
        let count = usize::try_from(u32::from_le_bytes(*count)).ok()?;
        let rows = rows.get(..count.checked_mul(ROW)?)?;
        (*form == FORM).then_some(Self { address, table_address, rows })
    }

    /// Offset in the table of the entry for an address; it may be of a function that ends before.
    pub fn entry(&self, address: u64) -> Option<usize> {
        let (mut low, mut high) = (0, self.rows.len() / ROW);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.row(middle)?.0 <= address { low = middle + 1 } else { high = middle }
        }
        let (_, entry) = self.row(low.checked_sub(1)?)?;
        usize::try_from(entry.checked_sub(self.table_address)?).ok()
    }

    fn row(&self, number: usize) -> Option<(u64, u64)> {
        let row = self.rows.get(number * ROW..)?;
        let (begin, rest) = row.split_first_chunk()?;
        let (entry, _) = rest.split_first_chunk()?;
        Some((moved(self.address, *begin), moved(self.address, *entry)))
    }
}

fn moved(address: u64, by: [u8; 4]) -> u64 {
    address.wrapping_add_signed(i32::from_le_bytes(by).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(count: u32, rows: &[(i32, i32)]) -> Vec<u8> {
        let mut bytes = FORM.to_vec();
        bytes.extend(0x1000_i32.to_le_bytes());
        bytes.extend(count.to_le_bytes());
        bytes.extend(
            rows.iter().flat_map(|(begin, entry)| [begin.to_le_bytes(), entry.to_le_bytes()].concat()),
        );
        bytes
    }

    #[test]
    fn an_address_belongs_to_the_function_that_begins_before_it() {
        let bytes = index(3, &[(-0x100, 0x1010), (0, 0x1030), (0x40, 0x1060)]);
        let index = Index::read(&bytes, 0x5000).unwrap();
        assert_eq!(index.table_address, 0x6004);
        let entries = [0x4eff, 0x4f00, 0x4fff, 0x5000, 0x503f, 0x5040, u64::MAX].map(|at| index.entry(at));
        assert_eq!(entries, [None, Some(0xc), Some(0xc), Some(0x2c), Some(0x2c), Some(0x5c), Some(0x5c)]);
    }

    #[test]
    fn what_a_file_says_of_itself_is_not_believed() {
        assert!(Index::read(&index(u32::MAX, &[(0, 0)]), 0x5000).is_none());
        assert!(
            Index::read(&index(1, &[(0, 0)]), 0x5000).unwrap().entry(0x5000).is_none(),
            "before the table"
        );
        assert!(Index::read(&index(0, &[]), u64::MAX).unwrap().entry(u64::MAX).is_none());
        let whole = index(2, &[(i32::MIN, i32::MAX), (0, 0)]);
        (0..whole.len()).for_each(|length| assert!(Index::read(&whole[..length], 0).is_none()));
        let mut other = whole;
        other[3] = 0x1b;
        assert!(Index::read(&other, 0).is_none());
    }
}
