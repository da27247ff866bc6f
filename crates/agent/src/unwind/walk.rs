//! From a copy of a stack to the addresses of its callers, by the tables of the code (DWARF 5, section 6.4). Pure.
//!
//! Nothing is guessed: where a table does not say how to go on, the stack ends there.

use gimli::{
    BaseAddresses, CfaRule, EhFrame, EhFrameOffset, EndianSlice, Evaluation, EvaluationResult, Expression,
    LittleEndian, Register, RegisterRule, UnwindContext, UnwindSection, Value,
};
pub use spark_trace_common::stack_copy::REGISTERS;
use spark_trace_common::stack_copy::{KEPT_ARM64, KEPT_X86_64};

use super::index::Index;

/// Frames of a stack that are kept.
pub const MOST_FRAMES: usize = 128;

/// Steps of one expression of a table. Compilers write some ten.
const MOST_STEPS: u32 = 1000;

/// Bytes of an address.
const WORD: u8 = 8;

/// What a processor's tables mean.
struct Processor {
    kept: &'static [usize],
    stack_pointer: usize,
    /// Bits of an address of code: on arm64 a signature may lie in those above (pointer authentication; 48 bits of user space,
    /// Documentation/arch/arm64/pointer-authentication.rst).
    code_bits: u64,
}

const PROCESSOR: Processor = if cfg!(target_arch = "aarch64") {
    Processor { kept: KEPT_ARM64, stack_pointer: 31, code_bits: (1 << 48) - 1 }
} else {
    Processor { kept: KEPT_X86_64, stack_pointer: 7, code_bits: u64::MAX }
};

/// A stack that was copied, and where its thread goes on.
#[derive(Debug, Clone)]
pub struct Copied {
    pub instruction: u64,
    pub registers: [u64; REGISTERS],
    pub start: u64,
    pub bytes: Vec<u8>,
}

impl Copied {
    fn word(&self, address: u64) -> Option<u64> {
        let at = usize::try_from(address.checked_sub(self.start)?).ok()?;
        let bytes = self.bytes.get(at..at.checked_add(usize::from(WORD))?)?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    }
}

/// Why a stack ends where it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Behind the outermost frame.
    Outermost,
    /// There are more frames than are kept.
    Deep,
    /// An address lies in no file that is known.
    Unknown(u64),
    /// The file has no table, or none of this address.
    NoTable,
    /// More of the stack is needed than was copied.
    NotCopied,
    /// A table that makes no sense.
    Nonsense,
}

/// Addresses of a stack, innermost first, and why there are no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Walk {
    pub frames: Vec<u64>,
    pub end: End,
}

/// The tables of a file, at the addresses that its linker has given to them.
#[derive(Debug, Clone, Copy)]
pub struct Sections<'a> {
    pub index: &'a [u8],
    pub index_address: u64,
    pub table: &'a [u8],
    pub table_address: u64,
}

type Slice<'a> = EndianSlice<'a, LittleEndian>;

/// Where code lies: how far from where its linker had put it.
pub trait Module {
    fn bias(&self) -> u64;
    fn sections(&self) -> Option<Sections<'_>>;
}

/// Walks a stack. `find` gives what lies at an address.
pub fn walk<M: Module>(copied: &Copied, mut find: impl FnMut(u64) -> Option<M>) -> Walk {
    let mut state = State::new(copied);
    let mut context = UnwindContext::new();
    let mut frames = Vec::new();
    let end = loop {
        if frames.len() == MOST_FRAMES {
            break End::Deep;
        }
        frames.push(state.instruction);
        // A return address may lie just past the function that made the call.
        let address = if state.is_exact { state.instruction } else { state.instruction.wrapping_sub(1) };
        let Some(module) = find(address) else { break End::Unknown(address) };
        let Some(sections) = module.sections() else { break End::NoTable };
        match state.caller(&sections, address.wrapping_sub(module.bias()), &mut context) {
            Ok(()) => {}
            Err(end) => break end,
        }
    };
    Walk { frames, end }
}

/// Registers of a frame.
struct State<'a> {
    copied: &'a Copied,
    instruction: u64,
    /// It is the next instruction, and not behind a call: of the innermost frame, and of what a signal has interrupted.
    is_exact: bool,
    is_innermost: bool,
    registers: [Option<u64>; REGISTERS],
}

impl<'a> State<'a> {
    fn new(copied: &'a Copied) -> Self {
        let mut registers = [None; REGISTERS];
        for &kept in PROCESSOR.kept {
            registers[kept] = Some(copied.registers[kept]);
        }
        Self { copied, instruction: copied.instruction, is_exact: true, is_innermost: true, registers }
    }

    fn register(&self, register: Register) -> Option<u64> {
        self.registers.get(usize::from(register.0)).copied().flatten()
    }

    /// Goes on to the caller.
    fn caller(
        &mut self,
        sections: &Sections<'_>,
        address: u64,
        context: &mut UnwindContext<usize>,
    ) -> Result<(), End> {
        let bases = BaseAddresses::default()
            .set_eh_frame_hdr(sections.index_address)
            .set_eh_frame(sections.table_address);
        let index = Index::read(sections.index, sections.index_address).ok_or(End::NoTable)?;
        let mut table = EhFrame::new(sections.table, LittleEndian);
        table.set_address_size(WORD);
        if cfg!(target_arch = "aarch64") {
            table.set_vendor(gimli::Vendor::AArch64);
        }
        let offset = EhFrameOffset(index.entry(address).ok_or(End::NoTable)?);
        let entry = table.fde_from_offset(&bases, offset, EhFrame::cie_from_offset);
        let entry = entry.ok().filter(|entry| entry.contains(address)).ok_or(End::NoTable)?;
        let row = entry.unwind_info_for_address(&table, &bases, context, address);
        let row = row.map_err(|_| End::Nonsense)?;
        let encoding = entry.cie().encoding();
        let evaluate = |state: &Self, expression: Expression<Slice<'_>>, initial: Option<u64>| {
            state.evaluate(Evaluation::new(expression.0, encoding), initial)
        };

        let frame = match row.cfa() {
            CfaRule::RegisterAndOffset { register, offset } => {
                self.register(*register).ok_or(End::Nonsense)?.wrapping_add_signed(*offset)
            }
            CfaRule::Expression(expression) => {
                evaluate(self, expression.get(&table).map_err(|_| End::Nonsense)?, None)?
            }
        };
        // Stacks grow downwards. On arm64 the innermost function may not have put anything there yet.
        let before = self.registers[PROCESSOR.stack_pointer].ok_or(End::Nonsense)?;
        if frame < before || frame == before && !self.is_innermost {
            return Err(End::Nonsense);
        }
        let value = |rule: Option<&RegisterRule<usize>>, number: usize| -> Result<Option<u64>, End> {
            let own = self.registers.get(number).copied().flatten();
            let at = |address: u64| self.copied.word(address).ok_or(End::NotCopied).map(Some);
            let expression = |expression: &gimli::UnwindExpression<usize>| {
                evaluate(self, expression.get(&table).map_err(|_| End::Nonsense)?, Some(frame))
            };
            match rule {
                None | Some(RegisterRule::SameValue) => Ok(own),
                Some(RegisterRule::Offset(offset)) => at(frame.wrapping_add_signed(*offset)),
                Some(RegisterRule::ValOffset(offset)) => Ok(Some(frame.wrapping_add_signed(*offset))),
                Some(RegisterRule::Register(other)) => Ok(self.register(*other)),
                Some(RegisterRule::Expression(bytes)) => at(expression(bytes)?),
                Some(RegisterRule::ValExpression(bytes)) => Ok(Some(expression(bytes)?)),
                Some(RegisterRule::Constant(value)) => Ok(Some(*value)),
                Some(RegisterRule::Undefined | RegisterRule::Architectural) => Ok(None),
            }
        };
        let rule = |number: usize| {
            let register = u16::try_from(number).map(Register).ok();
            register.and_then(|register| row.register(register))
        };
        let return_register = usize::from(entry.cie().return_address_register().0);
        let returns_to = match rule(return_register) {
            // The outermost function has no caller, and its table says so.
            Some(RegisterRule::Undefined) => return Err(End::Outermost),
            found => value(found.as_ref(), return_register)?,
        };
        let mut registers = [None; REGISTERS];
        for &kept in PROCESSOR.kept {
            // What cannot be found out of a register matters only if it is needed.
            registers[kept] = value(rule(kept).as_ref(), kept).ok().flatten();
        }
        registers[PROCESSOR.stack_pointer] = Some(frame);
        let returns_to = returns_to.ok_or(End::Nonsense)? & PROCESSOR.code_bits;
        if returns_to == 0 {
            return Err(End::Outermost);
        }
        self.registers = registers;
        self.instruction = returns_to;
        self.is_exact = entry.is_signal_trampoline();
        self.is_innermost = false;
        Ok(())
    }

    fn evaluate(&self, mut steps: Evaluation<Slice<'_>>, initial: Option<u64>) -> Result<u64, End> {
        steps.set_max_iterations(MOST_STEPS);
        if let Some(initial) = initial {
            steps.set_initial_value(initial);
        }
        let mut state = steps.evaluate().map_err(|_| End::Nonsense)?;
        loop {
            state = match state {
                EvaluationResult::Complete => break,
                EvaluationResult::RequiresRegister { register, .. } => {
                    let value = self.register(register).ok_or(End::Nonsense)?;
                    steps.resume_with_register(Value::Generic(value))
                }
                EvaluationResult::RequiresMemory { address, size: WORD, .. } => {
                    let value = self.copied.word(address).ok_or(End::NotCopied)?;
                    steps.resume_with_memory(Value::Generic(value))
                }
                _ => return Err(End::Nonsense),
            }
            .map_err(|_| End::Nonsense)?;
        }
        let value = steps.value_result().ok_or(End::Nonsense)?;
        value.to_u64(u64::MAX).map_err(|_| End::Nonsense)
    }
}
