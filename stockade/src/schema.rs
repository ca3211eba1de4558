/*!
The JSON schemas in docs/schema/ are made from the types that are printed. `STOCKADE_BLESS=1 cargo test
-p stockade` writes them anew after a wanted change.
*/
use std::path::Path;

use schemars::{Schema, schema_for};

use crate::{commands, output};

#[test]
fn the_schemas_in_docs_are_those_of_the_program() {
    let schemas: [(&str, Schema); 22] = [
        ("enforce", schema_for!(commands::enforce::Report)),
        ("seal", schema_for!(commands::seal::Report)),
        ("trust-record", schema_for!(commands::trust::Report)),
        ("lift", schema_for!(commands::lift::Report)),
        ("status", schema_for!(commands::status::Report)),
        ("probe", schema_for!(commands::probe::Report)),
        ("residual", schema_for!(commands::residual::Report)),
        ("assess", schema_for!(commands::assess::report::Report)),
        ("watch", schema_for!(commands::watch::Line)),
        ("check-host", schema_for!(commands::check_host::Report)),
        ("seal-record", schema_for!(commands::seal_record::Report)),
        ("explain", schema_for!(commands::explain::Report)),
        ("explain-code", schema_for!(commands::explain::CodeReport)),
        ("explain-finding", schema_for!(commands::explain::FindingReport)),
        ("explain-feature", schema_for!(commands::explain::FeatureReport)),
        ("policy-check", schema_for!(commands::policy::check::Report)),
        ("policy-show", schema_for!(commands::policy::show::Report)),
        ("policy-diff", schema_for!(commands::policy::diff::Report)),
        ("policy-learn", schema_for!(commands::policy::learn::Report)),
        ("policy-test", schema_for!(commands::policy::test::Report)),
        ("version", schema_for!(commands::version::Report)),
        ("failure", schema_for!(output::Failure)),
    ];
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schema");
    for (name, schema) in schemas {
        let path = folder.join(format!("{name}.json"));
        let text = serde_json::to_string_pretty(&schema).unwrap() + "\n";
        if std::env::var_os("STOCKADE_BLESS").is_some() {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(&path, &text).unwrap();
        }
        let there = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(there == text, "{} is out of date: STOCKADE_BLESS=1 cargo test -p stockade", path.display());
    }
}
