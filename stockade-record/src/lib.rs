/*!
The record of a seal: what was sealed, when, by which program, told so that somebody else can prove it.

```text
before the seal   prepare ── asks the TPM for the register: no answer, and perhaps no seal
after it          commit  ── one line of JSON ─┬─ its SHA-256 ─▶ TPM2_PCR_Event ─▶ register
                                               ├─ /dev/kmsg, and from there the journal
                                               └─ /run/stockade/seal-record.jsonl
elsewhere         replay  ── the lines ─▶ the value that the register must have
```

Lines and files prove nothing: root can write them. What counts is the register, which can only be extended, in a
quote that the TPM has signed; the lines say what it stands for. See docs/seal-record.md.

| file | what it owns |
|---|---|
| `record.rs` | the line |
| `seal.rs` | preparing and recording |
| `replay.rs` | from lines to the value of a register |
| `tpm.rs` | the two commands that a TPM is given |
| `digest.rs` | SHA-256, written down |

The value that a register must have follows from the lines alone:

```
use stockade_record::{Digest, replay};

let nothing_measured = Digest::default();
assert!(replay("", nothing_measured).expect("an empty log is a log").values.is_empty());
let misfit = replay("a line of somebody else\n", nothing_measured).unwrap_err();
assert_eq!(misfit.line, 1);
```
*/
#![deny(missing_docs)]

mod digest;
mod record;
mod replay;
mod seal;
pub mod tpm;

pub use digest::Digest;
pub use record::{FORMAT, Record};
pub use replay::{Misfit, Replayed, replay};
pub use seal::{Error, LOG, Measured, Places, Prepared, Recorded, Sealed, prepare};
