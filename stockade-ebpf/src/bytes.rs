/*!
The bytes of an answer of the dialogue, and those of the argument of a question.
*/
use aya_ebpf::helpers::generated::bpf_probe_read_user;
use core::{ffi::c_void, mem::MaybeUninit, ptr::read_volatile};
use stockade_common::dialogue::{BYTE, NOTHING};

#[inline(always)]
pub fn byte<T>(value: *const T, at: usize) -> u32 {
    byte_at(value.cast(), size_of::<T>() as u64, at as u64)
}

/// Not inlined: the verifier must know the bound of the register that is added, and older kernels lose the bound if the index is loaded from
/// the stack again after the comparison.
#[inline(never)]
fn byte_at(value: *const u8, size: u64, at: u64) -> u32 {
    if at >= size {
        return NOTHING;
    }
    // SAFETY: `at` is below the size of the value.
    BYTE + u32::from(unsafe { read_volatile(value.add(at as usize)) })
}

/// Reads the argument of a question.
#[inline(always)]
pub fn payload<T>(from: *const c_void) -> Option<T> {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the helper fills the whole value, with zeros if it cannot read; the types are plain data.
    unsafe {
        let failed = bpf_probe_read_user(value.as_mut_ptr().cast(), size_of::<T>() as u32, from);
        if failed == 0 { Some(value.assume_init()) } else { None }
    }
}
