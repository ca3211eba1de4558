/*!
The lab's own programs in a guest, as one binary: the name under which it is started selects the program. Linking one binary takes a fifth
of the time of linking five.

| started as | is |
|---|---|
| /init | PID 1, and the processes of scenarios: `init.rs` |
| stockade-demo | the guided tour: `demo.rs` |
| stockade-bench | the benchmark: `bench.rs` |
| stockade-conformance | the conformance matrix: `conformance.rs` |
| stockade-seal-at-boot | the first program of a guest that is sealed at every boot: `seal_at_boot.rs` |

On a host it only knows `--list`.
*/
mod bench;
mod conformance;
mod demo;
mod init;
mod seal_at_boot;

use std::{env, path::Path, process::ExitCode};

fn main() -> ExitCode {
    let path = env::args_os().next().unwrap_or_default();
    let name = Path::new(&path).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let (program, result) = match name.as_str() {
        "stockade-bench" => (name, bench::run()),
        "stockade-conformance" => (name, conformance::run()),
        "stockade-seal-at-boot" => (name, seal_at_boot::run()),
        "stockade-demo" => return demo::run(),
        _ => return init::run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{program}: {error:?}");
            ExitCode::FAILURE
        }
    }
}
