//! Small programs, each with one fault, are built by the C compiler and refused; one without a fault is accepted.

use std::{fs, path::Path, process::Command};

use super::check;

/// A call without a check of a function that no library defines.
const WEAK: &str = "extern int missing(int) __attribute__((weak));\n\
                    int main(int count, char **words) { (void)words; return missing(count); }\n";

/// A call of that function through its address, which is loaded first.
const THROUGH_A_REGISTER: &str = "extern int missing(int) __attribute__((weak));\n\
    int main(int count, char **words) { (void)words; int (*f)(int) = missing; __asm__ volatile (\"\" ::: \"memory\"); \
    return f(count) + f(count + 1); }\n";

/// A call of that function behind a check of its address.
const GUARDED: &str = "extern int missing(int) __attribute__((weak));\n\
    int main(int count, char **words) { (void)words; return missing ? missing(count) + missing(count + 1) : 0; }\n";

/// The call stands in a case of a switch that is compiled to a table of jumps.
const IN_A_SWITCH: &str = "extern int missing(int) __attribute__((weak));\n\
    int printf(const char *, ...);\n\
    int main(int count, char **words) { switch (count) { case 1: return printf(\"a\"); case 2: return printf(words[0]) + 9; \
    case 3: return missing(count) + 1; case 4: return printf(\"c%d\", count); case 5: return printf(words[1]); \
    case 6: return printf(\"e%s\", words[2]) * 3; case 7: return 7 + printf(\"f\"); default: return 0; } }\n";

const GOOD: &str = "#include <stdio.h>\nint main(void) { return printf(\"hello\\n\") < 0; }\n";

/// The flags with which the release program is linked.
const STATIC: &[&str] = &["-O2", "-fPIE", "-static-pie", "-Wl,-z,relro,-z,now,--build-id=sha1"];

fn build(source: &str, flags: &[&str], folder: &Path) -> Vec<u8> {
    let (file, program) = (folder.join("program.c"), folder.join("program"));
    fs::write(&file, source).unwrap();
    let built = Command::new("cc").args(flags).arg(&file).arg("-o").arg(&program).output();
    let built = built.expect("the C compiler cc is missing; `cargo xtask setup` installs it");
    assert!(built.status.success(), "{flags:?}: {}", String::from_utf8_lossy(&built.stderr));
    fs::read(&program).unwrap()
}

/// Returns the reason for which a program is refused; empty when it is accepted.
fn refusal(source: &str, flags: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    check(&build(source, flags, folder.path())).map_or_else(|error| format!("{error:#}"), |_| String::new())
}

fn with(more: &[&'static str]) -> Vec<&'static str> {
    [STATIC, more].concat()
}

#[test]
fn a_program_without_a_fault_is_accepted_and_its_build_id_told() {
    let folder = tempfile::tempdir().unwrap();
    let id = check(&build(GOOD, STATIC, folder.path())).unwrap();
    assert!(id.len() == 40 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
}

#[test]
fn a_call_of_a_function_that_is_not_linked_is_refused_however_it_is_made() {
    for (source, more) in [
        (WEAK, &[][..]),
        (WEAK, &["-fno-plt"]),
        (WEAK, &["-O0"]),
        (WEAK, &["-O0", "-fno-plt"]),
        (WEAK, &["-fcf-protection=full"]),
        (THROUGH_A_REGISTER, &["-fno-plt"]),
        (IN_A_SWITCH, &["-fno-plt"]),
        (IN_A_SWITCH, &[]),
    ] {
        let why = refusal(source, &with(more));
        assert!(
            why.contains("calls a function that is not linked, at address 0: in main at 0x"),
            "{more:?}: {why}"
        );
    }
}

#[test]
fn a_call_behind_a_comparison_with_null_is_accepted() {
    for more in [&[][..], &["-fno-plt"], &["-O0"], &["-O1"], &["-Os", "-fno-plt"]] {
        assert_eq!(refusal(GUARDED, &with(more)), "", "{more:?}");
    }
}

#[test]
fn each_fault_of_the_linked_file_has_a_sentence_of_its_own() {
    let faults: [(&[&str], &str); 9] = [
        (&["-O2", "-fPIE", "-pie"], "dynamic loader (PT_INTERP)"),
        (&["-O2", "-fPIC", "-shared", "-Wl,-z,now"], "shared libraries (DT_NEEDED)"),
        (&["-O2", "-fno-pie", "-no-pie", "-static"], "not position-independent"),
        (&with(&["-Wl,-z,execstack"]), "executable stack"),
        (&with(&["-Wl,-z,norelro"]), "no RELRO"),
        (&["-O2", "-fPIE", "-static-pie", "-Wl,-z,relro,-z,lazy,--build-id=sha1"], "partial RELRO only"),
        (&with(&["-Wl,--build-id=none"]), "no build ID"),
        (
            &["-O2", "-fno-pie", "-mcmodel=large", "-static-pie", "-Wl,-z,notext,--build-id=sha1"],
            "text relocations",
        ),
        (&with(&["-s"]), "no symbols"),
    ];
    for (flags, sentence) in faults {
        let why = refusal(GOOD, flags);
        assert!(why.contains(sentence), "{flags:?}: {why:?} lacks {sentence:?}");
    }
}

#[test]
fn a_program_with_a_function_of_the_lab_is_refused() {
    let source =
        "void _ZN15stockade_kernel3lab4flip17h0123456789abcdefE(void) {} int main(void) { return 0; }";
    assert!(refusal(source, STATIC).contains("only the lab needs"));
}

#[test]
fn a_program_that_does_not_say_how_its_stack_is_mapped_is_refused() {
    const PT_GNU_STACK: [u8; 4] = 0x6474_e551_u32.to_le_bytes();
    const PT_NULL: [u8; 4] = [0; 4];
    let folder = tempfile::tempdir().unwrap();
    let mut program = build(GOOD, STATIC, folder.path());
    // The program headers stand behind the file's own, 56 bytes each.
    let header =
        (0..16).map(|index| 64 + 56 * index).find(|&at| program[at..at + 4] == PT_GNU_STACK).unwrap();
    program[header..header + 4].copy_from_slice(&PT_NULL);
    let why = format!("{:#}", check(&program).unwrap_err());
    assert!(why.contains("does not say how its stack is mapped"), "{why}");
}

#[test]
fn what_is_no_program_is_refused() {
    for text in [&b"#!/bin/sh"[..], b"", b"\x7fELF\x02\x01\x01"] {
        let why = format!("{:#}", check(text).unwrap_err());
        assert!(why.contains("no 64-bit little-endian ELF file"), "{why}");
    }
}
