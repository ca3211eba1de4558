/*!
The linked program as the kernel and its own start-up code will treat it: whether it is complete, fixed to no address,
and neither writable where it is executed nor executable where it is written.
*/
use std::collections::HashSet;

use anyhow::{Context, bail, ensure};
use object::{
    LittleEndian as Little, Object, ObjectSection, ObjectSymbol, elf,
    read::elf::{ElfFile64, ElfSymbol64, ProgramHeader, SectionHeader},
};

/// A parsed program for x86-64.
pub struct Image<'d> {
    /// The file.
    pub file: ElfFile64<'d, Little>,
    /// The addresses that the program's own start-up code relocates.
    pub relocated: HashSet<u64>,
}

/// Part of the symbol of each function of the module `lab` of stockade-kernel, as the compiler mangles paths.
const OF_LAB: &str = "15stockade_kernel3lab";

impl<'d> Image<'d> {
    /// Parses a linked program.
    ///
    /// # Errors
    /// The file is no 64-bit little-endian ELF file for x86-64, or a table in it is damaged.
    pub fn parse(bytes: &'d [u8]) -> anyhow::Result<Self> {
        let file =
            ElfFile64::<Little>::parse(bytes).context("the program is no 64-bit little-endian ELF file")?;
        ensure!(file.elf_header().e_machine.get(Little) == elf::EM_X86_64, "the program is not for x86-64");
        let relocated = relocated(&file)?;
        Ok(Self { file, relocated })
    }

    /// Refuses a program that is not a static PIE with full RELRO, a stack that is not executable, no text relocations and a
    /// build ID. Each fault has its own sentence.
    ///
    /// # Errors
    /// The first fault.
    pub fn check(&self) -> anyhow::Result<()> {
        let dynamic = self.dynamic()?;
        let entry = |tag: i64| dynamic.iter().find(|(t, _)| *t == tag).map(|(_, value)| *value);
        let flag = |tag: i64, bit: u32| entry(tag).is_some_and(|flags| flags & u64::from(bit) != 0);
        if self.segments().any(|s| s.p_type(Little) == elf::PT_INTERP) {
            bail!(
                "the program asks for a dynamic loader (PT_INTERP): it is not static; is the static C library installed?"
            );
        }
        if entry(elf::DT_NEEDED).is_some() {
            bail!("the program needs shared libraries (DT_NEEDED): it is not static");
        }
        if self.file.elf_header().e_type.get(Little) != elf::ET_DYN || !flag(elf::DT_FLAGS_1, elf::DF_1_PIE) {
            bail!(
                "the program is not position-independent (ET_DYN with DF_1_PIE): the kernel would load it at a fixed address; \
                 link it with -static-pie"
            );
        }
        self.check_stack()?;
        if entry(elf::DT_TEXTREL).is_some() || flag(elf::DT_FLAGS, elf::DF_TEXTREL) || self.relocates_text() {
            bail!(
                "the program has text relocations: its start-up code writes to executable or read-only segments"
            );
        }
        self.check_relro(
            entry(elf::DT_BIND_NOW).is_some()
                || flag(elf::DT_FLAGS, elf::DF_BIND_NOW)
                || flag(elf::DT_FLAGS_1, elf::DF_1_NOW),
        )?;
        self.check_symbols()?;
        self.build_id().map(drop)
    }

    /// Refuses functions that only the lab needs. The linker leaves them out as long as the program does not call them.
    fn check_symbols(&self) -> anyhow::Result<()> {
        let of_lab =
            |symbol: &ElfSymbol64<'_, '_, Little>| symbol.name().is_ok_and(|name| name.contains(OF_LAB));
        if let Some(symbol) = self.file.symbols().find(of_lab) {
            bail!(
                "the program has a function that only the lab needs, {}: nothing that ships may call the module `lab` of stockade-kernel",
                symbol.name().unwrap_or_default()
            );
        }
        Ok(())
    }

    /// Returns the build ID in hexadecimal digits.
    ///
    /// # Errors
    /// There is none.
    pub fn build_id(&self) -> anyhow::Result<String> {
        let id = self.file.build_id().context("the note with the build ID is damaged")?;
        let id = id.context("the program has no build ID (NT_GNU_BUILD_ID); link it with --build-id=sha1")?;
        Ok(data_encoding::HEXLOWER.encode(id))
    }

    /// Returns the bytes at this range of addresses, if the file has them.
    pub fn bytes(&self, address: u64, size: u64) -> Option<&'d [u8]> {
        let mut sections = self.file.sections().filter(|section| section.address() != 0);
        sections.find_map(|section| section.data_range(address, size).ok().flatten())
    }

    fn segments(&self) -> impl Iterator<Item = &elf::ProgramHeader64<Little>> {
        self.file.elf_program_headers().iter()
    }

    fn dynamic(&self) -> anyhow::Result<Vec<(i64, u64)>> {
        let mut entries = Vec::new();
        for segment in self.segments() {
            let table =
                segment.dynamic(Little, self.file.data()).context("the dynamic section is damaged")?;
            for entry in table.unwrap_or_default() {
                entries.push((entry.d_tag.get(Little), entry.d_val.get(Little)));
            }
        }
        Ok(entries)
    }

    fn check_stack(&self) -> anyhow::Result<()> {
        match self.segments().find(|s| s.p_type(Little) == elf::PT_GNU_STACK) {
            None => bail!(
                "the program does not say how its stack is mapped (PT_GNU_STACK): the kernel would make it executable"
            ),
            Some(stack) if stack.p_flags(Little) & elf::PF_X != 0 => {
                bail!("the program asks for an executable stack (PT_GNU_STACK with PF_X)")
            }
            Some(_) => Ok(()),
        }
    }

    fn check_relro(&self, binds_now: bool) -> anyhow::Result<()> {
        let Some(relro) = self.segments().find(|s| s.p_type(Little) == elf::PT_GNU_RELRO) else {
            bail!("the program has no RELRO (PT_GNU_RELRO): its relocated tables of pointers stay writable");
        };
        let start = relro.p_vaddr(Little);
        let end = start + relro.p_memsz(Little);
        let tables =
            self.file.sections().filter(|s| s.name().is_ok_and(|n| [".got", ".got.plt"].contains(&n)));
        let open =
            tables.filter(|t| t.address() < start || t.address() + t.size() > end).any(|t| t.size() > 0);
        ensure!(
            binds_now && !open,
            "the program has partial RELRO only: its global offset table stays writable; link it with -z relro -z now"
        );
        Ok(())
    }

    /// Reports whether a relocation lies outside writable segments.
    fn relocates_text(&self) -> bool {
        self.relocated.iter().any(|&place| {
            self.segments()
                .filter(|s| s.p_type(Little) == elf::PT_LOAD && s.p_flags(Little) & elf::PF_W == 0)
                .any(|s| (s.p_vaddr(Little)..s.p_vaddr(Little) + s.p_memsz(Little)).contains(&place))
        })
    }
}

/// Returns the addresses of all dynamic relocations.
fn relocated(file: &ElfFile64<'_, Little>) -> anyhow::Result<HashSet<u64>> {
    let mut places = HashSet::new();
    for section in file.elf_section_table().iter() {
        // The linker's own relocations, which --emit-relocs keeps, are no part of the program in memory.
        if section.sh_flags.get(Little) & u64::from(elf::SHF_ALLOC) == 0 {
            continue;
        }
        let damaged = "a table of relocations is damaged";
        let data = file.data();
        if let Some((entries, _)) = section.rela(Little, data).context(damaged)? {
            places.extend(entries.iter().map(|entry| entry.r_offset.get(Little)));
        }
        if let Some((entries, _)) = section.rel(Little, data).context(damaged)? {
            places.extend(entries.iter().map(|entry| entry.r_offset.get(Little)));
        }
        if let Some(entries) = section.relr(Little, data).context(damaged)? {
            places.extend(entries);
        }
    }
    Ok(places)
}
