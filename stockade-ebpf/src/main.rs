/*!
The kernel side of Stockade. One file per duty; this one only joins them.
*/
#![no_std]
#![no_main]

mod decide;
mod report;
mod subject;

/// The verifier lets only GPL-compatible programs call the helpers that events need.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
