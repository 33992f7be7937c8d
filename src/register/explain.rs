//! `explain`: from the running validator, else from its database.

use super::text::now_ms;
use super::{Context, complain, failed, parse};
use crate::exit::Exit;
use crate::ids::Hotkey;
use crate::store::explain::{Explanation, explain_from_db};
use crate::telemetry::error_chain;
use crate::web::control::{ClientError, Code};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The miner's hotkey, as an SS58 address.
    hotkey: String,
}

pub(super) async fn run(context: &Context, args: Args) -> Result<(), Exit> {
    let hotkey: Hotkey = parse(&args.hotkey, "hotkey")?;
    let explanation = match context.client.explain(hotkey).await {
        Ok(explanation) => {
            complain(&format!("from the node that runs in {}", context.dir.display()));
            explanation
        }
        Err(ClientError::Node(error)) if error.code == Code::WrongRole => return Err(failed(&error.into())),
        Err(error) => {
            if !error.is_not_running() {
                complain(&format!("the node is not asked: {}", error_chain(&error)));
            }
            from_database(context, &hotkey)?
        }
    };
    context.answer(&explanation, Explanation::to_text)
}

fn from_database(context: &Context, hotkey: &Hotkey) -> Result<Explanation, Exit> {
    let explanation = explain_from_db(&context.dir, hotkey, now_ms()).map_err(|error| {
        complain(&format!("the database in {} cannot be read: {}", context.dir.display(), error_chain(&error)));
        error.exit()
    })?;
    complain(&format!("no node runs there; from the database in {}", context.dir.display()));
    Ok(explanation)
}
