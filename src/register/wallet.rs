//! `wallet`: the key files of this machine. No node is asked, and no password unless `--unlock` is said.

use std::ffi::OsStr;

use super::text::{columns, row};
use super::{Context, complain};
use crate::exit::Exit;
use crate::wallet::listing::{self, Key, Listing, Usable, Wallet};
use crate::wallet::password::Sources;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// All wallets below wallet.path, with their hotkeys; also without a word. Never asks for a password.
    ///
    /// Another directory goes before the command: compute-register --wallet.path DIR wallet list.
    List,
    /// One wallet: its addresses, which secrets each file holds (their names), and whether its public parts agree.
    Show {
        /// The wallet; by default wallet.name.
        name: Option<String>,
        /// Only this hotkey.
        #[arg(long, value_name = "NAME")]
        hotkey: Option<String>,
        /// Decrypt encrypted hotkeys and check that each secret belongs to its public key.
        ///
        /// The password comes from where a node takes it: wallet.password_file or the systemd credential hotkey-password,
        /// then the variable BT_PW_<PATH>, then a prompt.
        #[arg(long)]
        unlock: bool,
    },
}

pub(super) fn run(context: &Context, args: Args) -> Result<(), Exit> {
    let settings = &context.settings.wallet;
    match args.command.unwrap_or(Command::List) {
        Command::List => {
            let listing = listing::list(&settings.path).map_err(|error| {
                complain(&format!("wallets in {} cannot be listed: {error}", settings.path.display()));
                complain("name their directory: compute-register --wallet.path DIR wallet");
                Exit::Data
            })?;
            context.answer(&listing, list_text)
        }
        Command::Show { name, hotkey, unlock } => {
            let name = name.as_deref().unwrap_or(&settings.name);
            let mut wallet = listing::show(&settings.path, OsStr::new(name)).map_err(|why| {
                complain(&format!("no wallet {name:?} in {}: {why}", settings.path.display()));
                complain("compute-register wallet list shows which there are; compute-register --wallet.path DIR wallet looks elsewhere");
                Exit::Data
            })?;
            if let Some(hotkey) = &hotkey {
                wallet.hotkeys.retain(|key| key.name == *hotkey);
                if wallet.hotkeys.is_empty() {
                    complain(&format!("wallet {name:?} has no hotkey {hotkey:?}"));
                    return Err(Exit::Data);
                }
            }
            if unlock {
                for key in &mut wallet.hotkeys {
                    key.unlock(&Sources::of_process(settings.password_file.as_deref()), |sealed, source| {
                        complain(&format!("decrypting with the password from {source}: {}", sealed.cost()));
                    });
                }
            }
            context.answer(&wallet, show_text)?;
            let wrong = |key: &Key| key.problem.is_some() || key.public_parts_agree == Some(false);
            if wallet.hotkeys.iter().chain(&wallet.coldkey).any(wrong) { Err(Exit::Data) } else { Ok(()) }
        }
    }
}

/// A name as it may be shown: it may hold anything, and the terminal obeys control characters.
fn safe(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

fn cells(wallet: &str, key: &Key) -> Vec<String> {
    let address = key.address.map_or_else(|| "-".to_owned(), |address| address.to_string());
    let crypto = key.crypto_type.as_deref().unwrap_or("-");
    let format = key.format.map_or("-", listing::Format::text);
    row([&safe(wallet), &safe(&key.name), &address, format, crypto, &safe(&remarks(key))])
}

fn remarks(key: &Key) -> String {
    let problem = key.problem.iter().map(|problem| format!("cannot be used: {problem}"));
    problem.chain(key.warnings.iter().cloned()).collect::<Vec<_>>().join("; ")
}

fn list_text(listing: &Listing) -> String {
    let mut out = String::new();
    if listing.wallets.is_empty() {
        out.push_str(&format!("no wallets in {}\n", listing.path.display()));
    } else {
        let mut rows = vec![row(["wallet", "key", "address", "format", "type", "remarks"])];
        for wallet in &listing.wallets {
            rows.extend(wallet.coldkey.iter().chain(&wallet.hotkeys).map(|key| cells(&wallet.name, key)));
        }
        out.push_str(&columns(&rows));
    }
    let mut notes: Vec<String> = Vec::new();
    for wallet in &listing.wallets {
        notes.extend(wallet_notes(wallet).into_iter().map(|note| format!("{}: {note}", wallet.name)));
    }
    notes.extend(listing.foreign.iter().map(|foreign| format!("{}: {}", foreign.name, foreign.why)));
    if listing.truncated {
        notes.push(format!("there is more: only {} names were looked at", listing::MAX_ENTRIES));
    }
    append(out, &notes)
}

fn wallet_notes(wallet: &Wallet) -> Vec<String> {
    let mut notes = wallet.warnings.clone();
    if wallet.coldkey_secret {
        notes.push("the coldkey's secret is on this machine too; no node needs it, keep it elsewhere".to_owned());
    }
    if wallet.coldkey.is_none() {
        notes.push("it has no coldkeypub.txt".to_owned());
    }
    if wallet.hotkeys.is_empty() {
        notes.push("it has no hotkeys".to_owned());
    }
    if wallet.truncated {
        notes.push(format!("it has more: only {} hotkeys were looked at", listing::MAX_ENTRIES));
    }
    notes
}

fn append(mut out: String, notes: &[String]) -> String {
    for (at, note) in notes.iter().enumerate() {
        out.push_str(if at == 0 { "\n" } else { "" });
        out.push_str(&safe(note));
        out.push('\n');
    }
    out
}

fn show_text(wallet: &Wallet) -> String {
    let coldkey = wallet.coldkey.as_ref();
    let address = coldkey.and_then(|key| key.address).map_or_else(|| "unknown".to_owned(), |key| key.to_string());
    let mut out = format!(
        "wallet   {}\nfiles    {}\ncoldkey  {address}\n",
        safe(&wallet.name),
        safe(&wallet.path.display().to_string())
    );
    if let Some(problem) = coldkey.and_then(|key| key.problem.as_ref()) {
        out.push_str(&format!("         coldkeypub.txt cannot be used: {problem}\n"));
    }
    for key in &wallet.hotkeys {
        let secrets = match (key.secrets.is_empty(), key.usable) {
            (false, _) => key.secrets.join(", "),
            (true, Usable::WithPassword) => "encrypted".to_owned(),
            (true, Usable::Yes) => "decrypted".to_owned(),
            (true, Usable::AddressOnly | Usable::No) => "none".to_owned(),
        };
        let public = match key.public_parts_agree {
            Some(true) => "agree",
            Some(false) => "DISAGREE",
            None => "none",
        };
        let belongs = match key.usable {
            Usable::Yes => "a node can act with it: its secret belongs to its address",
            Usable::WithPassword => "a node can act with it if it gets the password; --unlock tries",
            Usable::AddressOnly => "only an address; no node can act with it from here",
            Usable::No => "no node can act with it",
        };
        out.push_str(&format!(
            "\nhotkey   {}\naddress  {}\nformat   {}, {}\nsecrets  {secrets}\npublic   {public}\nuse      {belongs}\n",
            safe(&key.name),
            key.address.map_or_else(|| "unknown".to_owned(), |address| address.to_string()),
            key.format.map_or("unknown", listing::Format::text),
            key.crypto_type.as_deref().unwrap_or("no type stated (sr25519)"),
        ));
        for remark in key.problem.iter().chain(&key.warnings) {
            out.push_str(&format!("         {}\n", safe(remark)));
        }
    }
    append(out, &wallet_notes(wallet))
}
