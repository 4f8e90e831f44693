//! `unimse schema job|sweep`.

use unimse_core::spec::{schema_job, schema_sweep};

use crate::args::{SchemaArgs, SchemaKind};
use crate::error::Result;
use crate::exit::Exit;
use crate::output;

pub(crate) fn run(args: &SchemaArgs) -> Result<Exit> {
    let schema = match args.kind {
        SchemaKind::Job => schema_job(),
        SchemaKind::Sweep => schema_sweep(),
    };
    output::print(&format!("{schema:#}"))?;
    Ok(Exit::Done)
}
