//! BPF programs with the helpers that read kernel memory or write to user memory.

use super::{Answer, Door};

pub(super) const DOORS: &[Door] = &[
    Door::new("bpf-write-user", "load a program with bpf_probe_write_user", || load(36)),
    Door::new("bpf-read-kernel", "load a program with bpf_probe_read", || load(4)),
    Door::new("bpf-read-kernel", "load a program with bpf_probe_read_str", || load(45)),
    Door::new("bpf-read-kernel", "load a program with bpf_probe_read_kernel", || load(113)),
    Door::new("bpf-read-kernel", "load a program with bpf_probe_read_kernel_str", || load(115)),
    Door::new(
        "bpf-read-kernel",
        "load a program with bpf_probe_read_user, which reads no kernel memory",
        || load(112),
    ),
];

const KPROBE: u64 = 2;

/// Loads a kprobe program that calls this helper with eight bytes of its stack and a null address. The program is freed when this child
/// exits.
fn load(helper: u64) -> Answer {
    const WRITE_USER: u64 = 36;
    let set = |register: u64, value: u64| value << 32 | register << 8 | 0xb7;
    let stack_to = |register: u64| [(0xa0 | register) << 8 | 0xbf, 0xffff_fff8 << 32 | register << 8 | 0x07];
    let (pointer, buffer, size) = if helper == WRITE_USER { (1, 2, 3) } else { (3, 1, 2) };
    let [copy, minus_eight] = stack_to(buffer);
    let program: [u64; 8] = [
        // *(u64 *)(r10 - 8) = 0
        0xfff8 << 16 | 0xa << 8 | 0x7a,
        copy,
        minus_eight,
        set(size, 8),
        set(pointer, 0),
        helper << 32 | 0x85,
        set(0, 0),
        0x95,
    ];
    // Type and length, instructions, licence; then no log, no version, no name, no attach type.
    let mut attr = [0_u64; 9];
    attr[0] = (program.len() as u64) << 32 | KPROBE;
    attr[1] = program.as_ptr() as u64;
    attr[2] = c"GPL".as_ptr() as u64;
    // SAFETY: the attributes and the buffers that they point at live through the call. The exit of this child closes the descriptor.
    Answer::call(unsafe { libc::syscall(libc::SYS_bpf, 5, attr.as_ptr(), size_of_val(&attr)) })
}
