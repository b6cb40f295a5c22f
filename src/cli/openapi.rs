//! `stillpoint openapi`: the description of the API, as the daemon serves it and as `docs/openapi.json` has it.

use super::context::Context;
use super::exit::{Outcome, Result};
use crate::api::document_text;

pub(super) fn run(context: &Context) -> Result<Outcome> {
    context.output.text(&document_text())?;
    Ok(Outcome::Done)
}
