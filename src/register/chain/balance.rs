//! `balance`: what an account has free. No secret is opened: `coldkeypub.txt` is enough.

use serde::Serialize;

use super::super::{Context, parse};
use super::{Asked, Place, money, own_coldkey};
use crate::exit::Exit;
use crate::ids::Coldkey;

#[derive(Debug, clap::Args)]
pub(in crate::register) struct Args {
    /// The account, as an SS58 address; by default the coldkey of the wallet.
    address: Option<String>,
}

/// What is printed. The JSON form is stable.
#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    network: Place,
    coldkey: Coldkey,
    /// Free, in rao.
    balance_rao: u64,
    /// The same in TAO, as exact decimal text.
    balance_tao: String,
}

pub(in crate::register) async fn run(context: &Context, args: Args) -> Result<(), Exit> {
    let coldkey = match args.address {
        Some(text) => parse(&text, "coldkey's address")?,
        None => own_coldkey(context, "name the account: compute-register balance SS58; or ")?,
    };
    let asked = Asked::new(context)?;
    let balance = asked.chain.balance(&coldkey).await;
    let balance_rao = balance.map_err(|e| asked.failed("the balance cannot be read", &e))?;
    let report = Report { network: asked.place(), coldkey, balance_rao, balance_tao: money::tao(balance_rao) };
    context.answer(&report, |report| {
        format!(
            "coldkey  {}\nfree     {}\nnetwork  {}",
            report.coldkey,
            money::amount(report.balance_rao),
            report.network
        )
    })
}
