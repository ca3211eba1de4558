/*!
Calls to functions that are not linked.

A static program may name a function weakly: when the C library's member that defines it was not linked, its address is 0, and
a caller must compare it with null first. The standard library does. Code of ours that names the same function does not, and after
link-time optimization the weak declaration wins over the strong one: the linker is content, and the call goes to address 0.

The linked program is decoded and every function that the linker kept is followed from its first instruction. Empty slots of the
global offset table that no relocation fills are null; so are registers loaded from them. A conditional jump on whether such a
value is null goes one way only, which leaves out the calls that are guarded. Any other call or jump to address 0, through an empty
slot or through a register that is null is a call that can be reached. Not seen: a null address that was stored in memory and is
called from there, and code that only an exception's landing pad leads to, which a program that aborts on panic never enters.
*/
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
};

use anyhow::Context;
use iced_x86::{
    Code, Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpKind,
    Register,
};
use object::{Object, ObjectSection, ObjectSymbol, SectionKind, SymbolKind};

use super::image::Image;

/// A call or jump to address 0 that can be reached.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NullCall {
    /// The instruction's address.
    pub at: u64,
    /// The function that it stands in, by its symbol.
    pub function: String,
}

impl fmt::Display for NullCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {:#x}", self.function, self.at)
    }
}

/// The symbols that are weak and undefined: their addresses are 0.
pub fn undefined(image: &Image<'_>) -> BTreeSet<String> {
    let symbols = image.file.symbols().filter(|symbol| symbol.is_weak() && symbol.is_undefined());
    symbols.filter_map(|symbol| Some(symbol.name().ok()?.to_owned())).collect()
}

/// Finds the calls to address 0 that can be reached.
///
/// # Errors
/// The program has no symbols, so that its functions cannot be told apart.
pub fn find(image: &Image<'_>) -> anyhow::Result<BTreeSet<NullCall>> {
    let program = Program::read(image)?;
    let cancels = image.file.symbols().any(|s| !s.is_undefined() && s.name() == Ok("pthread_cancel"));
    let is_dead = |function: &Function| {
        !cancels && ONLY_WHEN_CANCELLED.contains(&function.name.trim_start_matches('_'))
    };
    let mut found = BTreeSet::new();
    let mut info = InstructionInfoFactory::new();
    for (&start, function) in program.functions.iter().filter(|(_, function)| !is_dead(function)) {
        if let Some(code) = image.bytes(start, function.end - start) {
            Walk { program: &program, start, end: function.end, code, info: &mut info }.null_calls(
                &mut |at| {
                    found.insert(NullCall { at, function: function.name.clone() });
                },
            );
        }
    }
    Ok(found)
}

/// Functions of glibc that end a cancelled thread by `__pthread_unwind`, without a comparison. They name it weakly, because the member
/// that defines `pthread_cancel` brings it; no thread is cancelled in a program that lacks both.
const ONLY_WHEN_CANCELLED: [&str; 6] = [
    "libc_cleanup_pop_restore",
    "pthread_enable_asynccancel",
    "pthread_setcancelstate",
    "pthread_setcanceltype",
    "pthread_testcancel",
    "pthread_unregister_cancel_restore",
];

struct Function {
    end: u64,
    name: String,
}

struct Program<'i, 'd> {
    image: &'i Image<'d>,
    functions: BTreeMap<u64, Function>,
    /// Slots of the global offset table that stay null.
    null_slots: BTreeSet<u64>,
    /// Stubs of the procedure linkage table that jump through such a slot.
    null_stubs: BTreeSet<u64>,
}

impl<'i, 'd> Program<'i, 'd> {
    fn read(image: &'i Image<'d>) -> anyhow::Result<Self> {
        let mut null_slots = BTreeSet::new();
        let mut ends = Vec::new();
        for section in image.file.sections() {
            let name = section.name().context("a section's name is damaged")?;
            if section.kind() == SectionKind::Text {
                ends.push((section.address(), section.address() + section.size()));
            }
            if [".got", ".got.plt"].contains(&name) {
                let words = section.data().context("reading the global offset table")?.chunks_exact(8);
                let addresses = (section.address()..).step_by(8);
                let empty = addresses.zip(words).filter(|(_, word)| word.iter().all(|byte| *byte == 0));
                null_slots.extend(empty.map(|(address, _)| address).filter(|a| !image.relocated.contains(a)));
            }
        }
        let mut program = Self { image, functions: BTreeMap::new(), null_slots, null_stubs: BTreeSet::new() };
        program.functions = functions(image, &ends)?;
        program.null_stubs = program.find_null_stubs()?;
        Ok(program)
    }

    /// A stub is `jmp [slot]`, with or without a mark for indirect branches before it.
    fn find_null_stubs(&self) -> anyhow::Result<BTreeSet<u64>> {
        let mut stubs = BTreeSet::new();
        for section in self.image.file.sections() {
            if !section.name().is_ok_and(|name| name.starts_with(".plt") || name == ".iplt") {
                continue;
            }
            let code = section.data().context("reading the procedure linkage table")?;
            let mut mark = None;
            for instruction in Decoder::with_ip(64, code, section.address(), DecoderOptions::NONE) {
                if instruction.code() == Code::Endbr64 {
                    mark = Some(instruction.ip());
                    continue;
                }
                if self.is_null_slot(&instruction, 0)
                    && instruction.flow_control() == FlowControl::IndirectBranch
                {
                    stubs.extend([Some(instruction.ip()), mark].into_iter().flatten());
                }
                mark = None;
            }
        }
        Ok(stubs)
    }

    /// Reports whether this operand is the memory of a slot that is null.
    fn is_null_slot(&self, instruction: &Instruction, operand: u32) -> bool {
        instruction.op_kind(operand) == OpKind::Memory
            && instruction.is_ip_rel_memory_operand()
            && self.null_slots.contains(&instruction.ip_rel_memory_address())
    }

    /// Reports whether a jump to this address reaches a function that is not linked.
    fn is_null(&self, target: u64) -> bool {
        target == 0 || self.null_stubs.contains(&target)
    }
}

fn functions(image: &Image<'_>, ends: &[(u64, u64)]) -> anyhow::Result<BTreeMap<u64, Function>> {
    let mut functions: BTreeMap<u64, Function> = BTreeMap::new();
    for symbol in image.file.symbols() {
        let start = symbol.address();
        let code = symbol.kind() == SymbolKind::Text || start == image.file.entry();
        let Some((_, section_end)) = ends.iter().find(|(s, e)| (*s..*e).contains(&start)).filter(|_| code)
        else {
            continue;
        };
        if !symbol.is_undefined() {
            // Hand-written assembly may give no size: the next function ends it.
            let end = if symbol.size() == 0 {
                *section_end
            } else {
                section_end.min(&(start + symbol.size())).to_owned()
            };
            let name = symbol.name().context("a symbol's name is damaged")?.to_owned();
            let sized = symbol.size() != 0;
            functions
                .entry(start)
                .and_modify(|known| {
                    if sized {
                        known.end = known.end.min(end);
                    }
                })
                .or_insert(Function { end, name });
        }
    }
    anyhow::ensure!(
        !functions.is_empty(),
        "the program has no symbols, so its functions cannot be told apart"
    );
    let starts: Vec<u64> = functions.keys().copied().collect();
    let sizeless = |function: &Function| ends.iter().any(|(_, end)| *end == function.end);
    for (start, next) in starts.iter().zip(starts.iter().skip(1)) {
        if let Some(function) = functions.get_mut(start).filter(|f| sizeless(f)) {
            function.end = function.end.min(*next);
        }
    }
    Ok(functions)
}

/// The facts that are known before an instruction.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct State {
    /// Registers that are null, one bit each.
    null: u32,
    /// Whether the last comparison found equality, where that is known.
    equal: Option<bool>,
}

impl State {
    /// Returns the facts that hold in both states.
    fn meet(self, other: Self) -> Self {
        Self { null: self.null & other.null, equal: self.equal.filter(|_| self.equal == other.equal) }
    }

    fn is_null(self, register: Register) -> bool {
        register.is_gpr() && self.null & bit(register) != 0
    }
}

fn bit(register: Register) -> u32 {
    let full = register.full_register();
    if full.is_gpr() { 1 << (full as u32 - Register::RAX as u32) } else { 0 }
}

/// One function, followed from its first instruction.
struct Walk<'w, 'i, 'd> {
    program: &'w Program<'i, 'd>,
    start: u64,
    end: u64,
    code: &'d [u8],
    info: &'w mut InstructionInfoFactory,
}

impl Walk<'_, '_, '_> {
    fn null_calls(mut self, found: &mut impl FnMut(u64)) {
        let mut known: HashMap<u64, State> = HashMap::new();
        let mut open = vec![(self.start, State::default())];
        open.extend(self.jump_table_targets().into_iter().map(|target| (target, State::default())));
        while let Some((at, arriving)) = open.pop() {
            let state = match known.get(&at) {
                Some(before) if before.meet(arriving) == *before => continue,
                Some(before) => before.meet(arriving),
                None => arriving,
            };
            known.insert(at, state);
            let Some(instruction) = self.decode(at) else { continue };
            let next = instruction.next_ip();
            let target = near_target(&instruction);
            let is_null = |target: Option<u64>| target.is_some_and(|target| self.program.is_null(target));
            let after = self.after(&instruction, state);
            let mut go = |to: Option<u64>| {
                open.extend(to.filter(|to| (self.start..self.end).contains(to)).map(|to| (to, after)));
            };
            match instruction.flow_control() {
                FlowControl::Call | FlowControl::UnconditionalBranch if is_null(target) => found(at),
                // `syscall` is a call too, without a target.
                FlowControl::Next
                | FlowControl::Call
                | FlowControl::Interrupt
                | FlowControl::XbeginXabortXend => go(Some(next)),
                FlowControl::UnconditionalBranch => go(target),
                FlowControl::ConditionalBranch => {
                    let taken = taken(&instruction, state);
                    if taken != Some(false) {
                        if is_null(target) { found(at) } else { go(target) }
                    }
                    if taken != Some(true) {
                        go(Some(next));
                    }
                }
                FlowControl::IndirectCall | FlowControl::IndirectBranch => {
                    let through = instruction.op0_kind() == OpKind::Register
                        && state.is_null(instruction.op0_register());
                    if through || self.program.is_null_slot(&instruction, 0) {
                        found(at);
                    } else if instruction.flow_control() == FlowControl::IndirectCall {
                        go(Some(next));
                    }
                }
                FlowControl::Return | FlowControl::Exception => {}
            }
        }
    }

    fn decode(&self, at: u64) -> Option<Instruction> {
        let code = self.code.get(usize::try_from(at - self.start).ok()?..)?;
        let mut decoder = Decoder::with_ip(64, code, at, DecoderOptions::NONE);
        let instruction = decoder.decode();
        (!instruction.is_invalid()).then_some(instruction)
    }

    /// Returns the facts that are known after an instruction.
    fn after(&mut self, instruction: &Instruction, state: State) -> State {
        let mut after = state;
        let register = |operand: u32| {
            if instruction.op_count() > operand && instruction.op_kind(operand) == OpKind::Register {
                instruction.op_register(operand)
            } else {
                Register::None
            }
        };
        for used in self.info.info(instruction).used_registers() {
            use iced_x86::OpAccess::{CondWrite, ReadCondWrite, ReadWrite, Write};
            if matches!(used.access(), Write | CondWrite | ReadWrite | ReadCondWrite) {
                after.null &= !bit(used.register());
            }
        }
        if instruction.rflags_modified() & iced_x86::RflagsBits::ZF != 0 {
            after.equal = None;
        }
        if matches!(instruction.flow_control(), FlowControl::Call | FlowControl::IndirectCall) {
            use Register::{R8, R9, R10, R11, RAX, RCX, RDI, RDX, RSI};
            for clobbered in [RAX, RCX, RDX, RSI, RDI, R8, R9, R10, R11] {
                after.null &= !bit(clobbered);
            }
            after.equal = None;
            return after;
        }
        let is_zero = |operand: u32| {
            self.program.is_null_slot(instruction, operand)
                || state.is_null(register(operand))
                || is_immediate(instruction.op_kind(operand)) && instruction.immediate(operand) == 0
        };
        // A narrow register may be null in its own bits alone.
        let wide = |operand: u32| register(operand).is_gpr32() || register(operand).is_gpr64();
        match instruction.mnemonic() {
            Mnemonic::Mov if wide(0) && is_zero(1) => after.null |= bit(register(0)),
            Mnemonic::Xor | Mnemonic::Sub if wide(0) && register(0) == register(1) => {
                after.null |= bit(register(0));
                after.equal = Some(true);
            }
            Mnemonic::Test if register(0) == register(1) && state.is_null(register(0)) => {
                after.equal = Some(true);
            }
            Mnemonic::Cmp if is_zero(0) && is_zero(1) => after.equal = Some(true),
            _ => {}
        }
        after
    }

    /// Returns the targets of jump tables: memory whose address the function takes is read as a table of offsets from itself, as
    /// compilers write them for position-independent code, for as long as these lead into the function.
    fn jump_table_targets(&self) -> BTreeSet<u64> {
        let mut targets = BTreeSet::new();
        for instruction in Decoder::with_ip(64, self.code, self.start, DecoderOptions::NONE) {
            if instruction.mnemonic() != Mnemonic::Lea || !instruction.is_ip_rel_memory_operand() {
                continue;
            }
            let table = instruction.ip_rel_memory_address();
            for place in (table..).step_by(4) {
                let Some(Ok(entry)) = self.program.image.bytes(place, 4).map(<[u8; 4]>::try_from) else {
                    break;
                };
                let target = table.wrapping_add_signed(i64::from(i32::from_le_bytes(entry)));
                if !(self.start..self.end).contains(&target) {
                    break;
                }
                targets.insert(target);
            }
        }
        targets
    }
}

/// Returns the target of a direct call or jump.
fn near_target(instruction: &Instruction) -> Option<u64> {
    let direct =
        matches!(instruction.op0_kind(), OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64);
    (instruction.op_count() > 0 && direct).then(|| instruction.near_branch_target())
}

/// Reports whether a conditional jump is taken, where that is known.
fn taken(instruction: &Instruction, state: State) -> Option<bool> {
    match instruction.mnemonic() {
        Mnemonic::Je => state.equal,
        Mnemonic::Jne => state.equal.map(|equal| !equal),
        _ => None,
    }
}

fn is_immediate(kind: OpKind) -> bool {
    use OpKind::{Immediate8, Immediate8to32, Immediate8to64, Immediate32, Immediate32to64, Immediate64};
    matches!(kind, Immediate8 | Immediate8to32 | Immediate8to64 | Immediate32 | Immediate32to64 | Immediate64)
}
