/*!
The CGROUP_SYSCTL program: runs at every access to a file below /proc/sys, through whichever mount, descriptor or process.

Attached to the root cgroup, so that every process is below it. Reads, and writes to settings that the policy in force does not hold, are
allowed at once. Numbers are read by the helper that uses the kernel's own parser (`_parse_integer()`, as the files of /proc/sys do), and
only one line break may follow. A value that this program reads as a number is therefore the one that the kernel sets, or the kernel refuses it.

All data is on the stack: a map would be shared with the next writer on the same processor.
*/
use aya_ebpf::{
    bindings::bpf_sysctl,
    helpers::generated::{
        bpf_strtol, bpf_sysctl_get_current_value, bpf_sysctl_get_name, bpf_sysctl_get_new_value,
    },
    macros::cgroup_sysctl,
    programs::SysctlContext,
};
use core::{mem::MaybeUninit, ptr::read_volatile};
use stockade_common::{
    SETTING_NAME_MAX, SETTING_VALUE_MAX, SettingKey, SettingRule, SettingText, Verdict, same_text,
};

use crate::{
    maps::{SETTINGS, words_in_force},
    report::{Write, report_write},
};

/// Return values of a CGROUP_SYSCTL program: the kernel fails the access with EPERM on 0.
const REFUSE: i32 = 0;
const ALLOW: i32 = 1;

/// Allows or refuses an access to a setting.
#[cgroup_sysctl]
pub fn settings(ctx: SysctlContext) -> i32 {
    let access = ctx.sysctl;
    // SAFETY: the kernel's description of the access.
    if unsafe { read_volatile(&raw const (*access).write) } == 0 {
        return ALLOW;
    }
    write(access)
}

#[inline(always)]
fn write(access: *mut bpf_sysctl) -> i32 {
    let mut key: MaybeUninit<SettingKey> = MaybeUninit::uninit();
    let key = key.as_mut_ptr();
    // SAFETY: the slot in force is inside POLICY. The helper writes the name and one zero, no more.
    let length = unsafe {
        (*key).generation = (*words_in_force()).generation;
        let name = &raw mut (*key).name;
        name.cast::<[u64; SETTING_NAME_MAX / 8]>().write([0; SETTING_NAME_MAX / 8]);
        bpf_sysctl_get_name(access, name.cast(), SETTING_NAME_MAX as u64, 0)
    };
    if length < 0 {
        // Longer than any name that can be held.
        return ALLOW;
    }
    // SAFETY: initialised above. Entries of a policy in force are neither removed nor replaced, and only become stricter.
    let Some(rule) = (unsafe { SETTINGS.get(&*key) }) else { return ALLOW };

    let mut now: MaybeUninit<SettingText> = MaybeUninit::uninit();
    let mut new: MaybeUninit<SettingText> = MaybeUninit::uninit();
    let (now, new) = (now.as_mut_ptr(), new.as_mut_ptr());
    // SAFETY: the helpers fill the whole buffers, whatever they return.
    let (now_length, new_length) = unsafe {
        (
            bpf_sysctl_get_current_value(access, now.cast(), SETTING_VALUE_MAX as u64),
            bpf_sysctl_get_new_value(access, new.cast(), SETTING_VALUE_MAX as u64),
        )
    };
    // SAFETY: the kernel's description of the access.
    let at_start = unsafe { read_volatile(&raw const (*access).file_pos) } == 0;
    // SAFETY: initialised above.
    if at_start && unsafe { lets_through(rule, now, now_length, new, new_length) } {
        return ALLOW;
    }
    let audited = rule.audit != 0;
    // SAFETY: initialised above; the first bytes of each, aligned to eight bytes.
    let told = unsafe {
        Write {
            name: &*(&raw const (*key).name).cast(),
            value: &*new.cast(),
            length: if new_length > 0 { new_length as u32 } else { 0 },
            hold: rule.hold,
        }
    };
    report_write(&told, if audited { Verdict::Audited } else { Verdict::Refused });
    if audited { ALLOW } else { REFUSE }
}

#[inline(always)]
unsafe fn lets_through(
    rule: &SettingRule,
    now: *mut SettingText,
    now_length: i64,
    new: *mut SettingText,
    new_length: i64,
) -> bool {
    // Empty, too long, or not readable.
    if now_length < 1 || new_length < 1 {
        return false;
    }
    // SAFETY: the caller passes initialised texts.
    unsafe {
        if rule.is_number() {
            return match (number(now, now_length), number(new, new_length)) {
                (Some(now), Some(new)) => rule.lets_through(now, new),
                _ => false,
            };
        }
        without_line_break(now, now_length);
        without_line_break(new, new_length);
        same_text(&*now, &*new, rule.kind == SettingRule::WORDS)
    }
}

/// Parses a text as a number, followed by nothing but one line break.
#[inline(always)]
unsafe fn number(text: *const SettingText, length: i64) -> Option<i64> {
    let mut number = 0;
    // SAFETY: the whole text is initialised.
    let taken = unsafe { bpf_strtol(text.cast(), SETTING_VALUE_MAX as u64, 0, &raw mut number) };
    if taken < 1 || taken > length {
        return None;
    }
    // SAFETY: inside the text.
    let next = unsafe { *text.cast::<u8>().add(taken as usize & (SETTING_VALUE_MAX - 1)) };
    match length - taken {
        0 => Some(number),
        1 if next == b'\n' => Some(number),
        _ => None,
    }
}

/// Removes a line break at the end.
#[inline(always)]
unsafe fn without_line_break(text: *mut SettingText, length: i64) {
    // SAFETY: inside the text.
    unsafe {
        let last = text.cast::<u8>().add((length as usize).wrapping_sub(1) & (SETTING_VALUE_MAX - 1));
        if *last == b'\n' {
            *last = 0;
        }
    }
}
