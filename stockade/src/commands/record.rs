/*!
What `seal`, and `enforce` where something is sealed, do to record it.
*/
use stockade_kernel::{Error, object_digest};
use stockade_policy::model::{Clock, Policy, Seal};
use stockade_reasons::Level;
use stockade_record::{Digest, Prepared, Recorded, Sealed};

/// Looks whether it can be recorded as the policy demands.
pub fn prepare(seal: &Seal) -> Result<Prepared, Error> {
    stockade_record::prepare(seal).map_err(|error| Error::Request(error.to_string()))
}

/// Records what is in force by now.
pub fn commit(
    prepared: Prepared,
    policy: &Policy,
    auto: Level,
    left_open: Vec<String>,
    at: Clock,
) -> Result<Recorded, stockade_record::Error> {
    prepared.commit(&Sealed { policy, auto, object: Digest(object_digest()), left_open, at })
}

/// Where.
pub fn words(recorded: &Recorded) -> Vec<String> {
    let mut places = vec![format!("{} and the kernel log", recorded.log.display())];
    places.extend(recorded.measured.iter().map(|measured| {
        format!("PCR {} of the TPM, which is now {} (sha256)", measured.pcr, measured.value)
    }));
    places
}
