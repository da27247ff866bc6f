//! The line of an instruction, from a code object's table.

use super::layout::LineTable;

/// Bytes of an instruction (Include/cpython/code.h `_Py_CODEUNIT`).
pub const INSTRUCTION: u64 = 2;

/// The line of the instruction with a number, of a function that begins at `first`; `None` where it has none.
pub fn line(kind: LineTable, table: &[u8], first: u32, instruction: u64) -> Option<u32> {
    let line = match kind {
        LineTable::Pairs => in_pairs(table, first, instruction.checked_mul(INSTRUCTION)?)?,
        LineTable::Locations => in_locations(table, first, instruction)?,
    };
    u32::try_from(line).ok().filter(|line| *line > 0)
}

/// Objects/lnotab_notes.txt of 3.10: bytes of instructions, and lines further; -128 where these have no line.
fn in_pairs(table: &[u8], first: u32, at: u64) -> Option<i64> {
    const NO_LINE: i8 = -128;
    let (mut end, mut line) = (0, i64::from(first));
    for [bytes, further] in table.as_chunks().0 {
        end += u64::from(*bytes);
        let further = further.cast_signed();
        if further != NO_LINE {
            line += i64::from(further);
        }
        if at < end {
            return (further != NO_LINE).then_some(line);
        }
    }
    None
}

/// Objects/locations.md of 3.11 and later.
fn in_locations(table: &[u8], first: u32, at: u64) -> Option<i64> {
    /// What an entry begins with, and how it says its lines.
    const BEGINS: u8 = 0x80;
    const SECOND_LINE: u8 = 11;
    const THIRD_LINE: u8 = 12;
    const LINES_ONLY: u8 = 13;
    const LONG: u8 = 14;
    const NO_LINE: u8 = 15;
    let (mut end, mut line) = (0, i64::from(first));
    let mut rest = table;
    while let Some((head, tail)) = rest.split_first() {
        if head & BEGINS == 0 {
            return None;
        }
        let kind = head >> 3 & 0xf;
        line += match kind {
            SECOND_LINE => 1,
            THIRD_LINE => 2,
            LINES_ONLY | LONG => signed(tail)?,
            _ => 0,
        };
        end += u64::from(head & 7) + 1;
        if at < end {
            return (kind != NO_LINE).then_some(line);
        }
        let next = tail.iter().position(|byte| byte & BEGINS != 0)?;
        rest = &tail[next..];
    }
    None
}

/// A number in groups of six bits, the lowest first; its lowest bit is the sign.
fn signed(bytes: &[u8]) -> Option<i64> {
    const MORE: u8 = 0x40;
    let mut value = 0u64;
    for (group, byte) in bytes.iter().enumerate().take(6) {
        value |= u64::from(byte & 0x3f) << (6 * group);
        if byte & MORE == 0 {
            let magnitude = (value >> 1).cast_signed();
            return Some(if value & 1 == 1 { -magnitude } else { magnitude });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `co_lines()` says of a table: the first instruction of each range, and its line.
    fn agree(kind: LineTable, table: &[u8], first: u32, ranges: &[(u64, Option<u32>)], instructions: u64) {
        for instruction in 0..instructions {
            let range = ranges.iter().rev().find(|(from, _)| *from <= instruction).unwrap();
            assert_eq!(line(kind, table, first, instruction), range.1, "instruction {instruction}");
        }
        assert_eq!(line(kind, table, first, instructions), None, "beyond the table");
    }

    /// A loop with `try` and `finally`, written over more than 90 lines; 3.10.13 and 3.12.1 compiled it.
    #[test]
    fn lines_are_those_that_python_says() {
        let pairs = [2, 4, 6, 1, 4, 254, 2, 84, 6, 255, 12, 2, 16, 1, 4, 1];
        let ranges = [(0, 14), (1, 15), (4, 13), (6, 97), (7, 96), (10, 98), (16, 99), (24, 100)];
        agree(LineTable::Pairs, &pairs, 10, &ranges.map(|(from, line)| (from, Some(line))), 26);
        let locations = [
            128, 0, 240, 8, 0, 5, 6, 220, 4, 5, 128, 97, 131, 68, 240, 5, 2, 7, 10, 128, 33, 240, 104, 2, 0,
            4, 5, 242, 3, 3, 3, 17, 128, 97, 228, 9, 10, 136, 49, 140, 20, 220, 13, 14, 141, 83, 240, 7, 3,
            3, 17, 240, 8, 0, 10, 11, 128, 40, 248, 244, 3, 0, 14, 15, 141, 83, 250,
        ];
        let ranges = [
            (0, Some(10)),
            (1, Some(14)),
            (2, Some(15)),
            (12, Some(13)),
            (14, Some(97)),
            (15, Some(96)),
            (19, Some(98)),
            (30, Some(99)),
            (41, Some(96)),
            (42, Some(100)),
            (44, None),
            (45, Some(99)),
            (56, None),
        ];
        agree(LineTable::Locations, &locations, 10, &ranges, 59);
    }

    /// -128 says that instructions have no line (Objects/lnotab_notes.txt).
    #[test]
    fn instructions_without_a_line_have_none() {
        assert_eq!(line(LineTable::Pairs, &[2, 1, 2, 0x80, 2, 0], 10, 1), None);
        assert_eq!(line(LineTable::Pairs, &[2, 1, 2, 0x80, 2, 0], 10, 2), Some(11));
    }

    #[test]
    fn tables_that_are_none_have_no_lines() {
        for table in [&[][..], &[0x7f], &[0xf0], &[0xf0, 0x7f, 0x7f, 0x7f, 0x7f, 0x7f, 0x7f, 0x7f]] {
            assert_eq!(line(LineTable::Locations, table, 1, 9), None, "{table:?}");
        }
        assert_eq!(line(LineTable::Pairs, &[1], 1, 0), None);
        assert_eq!(line(LineTable::Pairs, &[255, 0x81], 1, u64::MAX), None);
        assert_eq!(line(LineTable::Pairs, &[255, 0x81], 1, 0), None, "a line before the first");
    }
}
