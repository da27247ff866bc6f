//! What is allocated, by address.

use std::collections::BTreeMap;

use crate::abi::{CUdevice, Error};
use crate::mapping::Mapping;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Device,
    Managed,
    /// Taken from this pool; freed by cuMemFreeAsync or cuMemFree.
    Pool(usize),
    /// cuMemAllocHost and cuMemHostAlloc.
    Host,
    /// Memory of the program, which gave it to cuMemHostRegister.
    Registered,
    /// A mapped part of reserved addresses.
    Mapped,
}

#[derive(Debug)]
pub struct Block {
    pub kind: Kind,
    pub len: usize,
    /// Of device memory, whose it is.
    pub device: CUdevice,
    /// The context that was current; its end frees the block.
    pub context: usize,
    /// None where the memory is not this table's to unmap.
    pub mapping: Option<Mapping>,
}

/// Blocks never overlap.
#[derive(Debug, Default)]
pub struct Blocks(BTreeMap<usize, Block>);

impl Blocks {
    pub fn insert(&mut self, address: usize, block: Block) {
        self.0.insert(address, block);
    }

    /// The block that begins here.
    pub fn get(&self, address: usize) -> Option<&Block> {
        self.0.get(&address)
    }

    /// Takes out the block that begins here, if it is of a kind wanted.
    pub fn remove(&mut self, address: usize, wanted: impl Fn(Kind) -> bool) -> Option<Block> {
        self.0.get(&address).filter(|block| wanted(block.kind))?;
        self.0.remove(&address)
    }

    /// Is there any block in this range?
    pub fn overlaps(&self, address: usize, len: usize) -> bool {
        let before = self.0.range(..address + len).next_back();
        before.is_some_and(|(begin, block)| begin + block.len > address)
    }

    /// Address and length of the block around this address.
    pub fn containing(&self, address: u64) -> Option<(usize, usize)> {
        let address = usize::try_from(address).ok()?;
        let (begin, block) = self.0.range(..=address).next_back()?;
        (address < begin + block.len).then_some((*begin, block.len))
    }

    /// The range, provided that it lies within one block.
    pub fn range(&self, address: u64, len: usize) -> Result<usize, Error> {
        let address = usize::try_from(address).map_err(|_| Error::INVALID_VALUE)?;
        let end = address.checked_add(len).ok_or(Error::INVALID_VALUE)?;
        match self.0.range(..=address).next_back() {
            Some((begin, block)) if end <= begin + block.len => Ok(address),
            _ => Err(Error::INVALID_VALUE),
        }
    }

    pub fn bytes_of(&self, kind: Kind) -> u64 {
        self.0.values().filter(|block| block.kind == kind).map(|block| block.len as u64).sum()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Block> {
        self.0.values()
    }

    /// Frees all that belongs to a context.
    pub fn end_context(&mut self, context: usize) {
        self.0.retain(|_, block| block.context != context);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_lie_in_one_block() {
        let mut blocks = Blocks::default();
        for (address, len) in [(1000, 100), (1100, 50)] {
            blocks.insert(address, Block { kind: Kind::Device, len, device: 0, context: 1, mapping: None });
        }
        assert_eq!(blocks.range(1000, 100), Ok(1000));
        assert_eq!(blocks.range(1050, 50), Ok(1050));
        for (address, len) in [(1050, 51), (999, 1), (1150, 1), (u64::MAX, 1)] {
            assert_eq!(blocks.range(address, len), Err(Error::INVALID_VALUE));
        }
        assert!(blocks.overlaps(900, 101) && blocks.overlaps(1149, 10));
        assert!(!blocks.overlaps(900, 100) && !blocks.overlaps(1150, 10));
        assert!(blocks.remove(1000, |kind| kind == Kind::Host).is_none());
        assert!(blocks.remove(1000, |kind| kind == Kind::Device).is_some());
        blocks.end_context(1);
        assert!(blocks.get(1100).is_none());
    }
}
