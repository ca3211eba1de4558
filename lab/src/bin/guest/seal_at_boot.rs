//! The first program of a guest that is sealed at every boot, see `stockade_lab::reboots`: enforces, seals, and has the seal verified.

use std::{
    fs::{self, File},
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use stockade_lab::{program::stockade, reboots::Sealed};

pub fn run() -> Result<()> {
    let before = stockade(&["status", "--json"])?.exits(1)?.json()?;
    ensure!(before["stockade"].is_null(), "something outlasted the reboot: {before}");
    stockade(&["enforce", "integrity"])?.exits(0)?;
    let begin = Instant::now();
    stockade(&["seal"])?.exits(0)?;
    let seal_ms = u64::try_from(begin.elapsed().as_millis())?;
    let status = stockade(&["status", "--json"])?.exits(0)?.json()?;
    ensure!(status["stockade"]["sealed"]["verified"] == true, "not verified: {status}");
    ensure!(File::open("/dev/mem").is_err(), "sealed, and /dev/mem opens");
    let uptime = fs::read_to_string("/proc/uptime")?;
    let uptime: f64 = uptime.split(' ').next().context("/proc/uptime is empty")?.parse()?;
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few seconds")]
    let verified_ms = (uptime * 1000.0) as u64;
    println!("{}", serde_json::to_string(&Sealed { boot_id, verified_ms, seal_ms })?);
    Ok(())
}
