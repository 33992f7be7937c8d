//! The promises of the configuration: complete, layered, and wrong things told all at once.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::Parser as _;
use compute_subnet::exit::Exit;
use compute_subnet::ids::Netuid;
use compute_subnet::scoring::RateSource;
use compute_subnet::settings::{self, Cli, Effect, FLAGS, FlagKind, GpuRow, Loaded, Problems, Role, Source, load};

const ALICE: &str = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY";

/// A program as the binaries are: the shared command line, flattened.
#[derive(Debug, clap::Parser)]
#[command(name = "compute-miner", about = "A miner's node")]
struct Program {
    #[command(flatten)]
    cli: Cli,
}

fn cli(line: &[&str]) -> Cli {
    let args = std::iter::once("compute-miner").chain(line.iter().copied()).map(OsString::from);
    settings::parse::<Program>(args).expect("a valid command line").cli
}

fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    let home = [("HOME", "/home/op"), ("PATH", "/bin")];
    home.iter().chain(pairs).map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

/// A directory that holds one configuration file.
struct Conf {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

fn conf(text: impl AsRef<[u8]>) -> Conf {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("my.yaml");
    std::fs::write(&path, text).unwrap();
    Conf { _dir: dir, path }
}

impl Conf {
    fn load_with(&self, role: Role, flags: &[&str], pairs: &[(&str, &str)]) -> Result<Loaded, Problems> {
        let mut all = vec!["--config", self.path.to_str().unwrap()];
        all.extend(flags);
        load(role, &cli(&all), env(pairs))
    }
    fn load(&self) -> Result<Loaded, Problems> {
        self.load_with(Role::Validator, &[], &[])
    }
    /// The report, with the directory's random name taken out.
    fn report(&self, problems: &Problems) -> String {
        problems.to_string().replace(self.path.to_str().unwrap(), "my.yaml")
    }
    fn wrong(&self) -> String {
        self.report(&self.load().expect_err("a wrong configuration"))
    }
}

fn shipped(role: Role) -> Loaded {
    load(role, &Cli::default(), env(&[])).unwrap()
}

// ---- the shipped configuration ----

#[test]
fn the_shipped_file_loads_for_every_role_without_a_complaint() {
    for role in [Role::Miner, Role::Validator, Role::Register, Role::Devnet] {
        let loaded = shipped(role);
        assert_eq!(loaded.warnings, Vec::<String>::new());
        let dir = format!("/home/op/.compute-subnet/{}", role.directory());
        assert_eq!(loaded.settings.node.data_dir, PathBuf::from(dir));
    }
}

#[test]
fn the_shipped_file_has_every_key_of_the_settings_and_no_other() {
    // Only the devnet keeps all of the file: its classes are dropped on other chains.
    let loaded = shipped(Role::Devnet);
    let typed: BTreeSet<String> =
        loaded.listing().lines().map(|line| line.split(" = ").next().unwrap().to_owned()).collect();
    let written: BTreeSet<String> = loaded.sources.keys().cloned().collect();
    assert_eq!(typed, written);
    assert!(loaded.sources.values().all(|source| *source == Source::Embedded));
}

#[test]
fn every_section_and_key_of_the_shipped_file_is_explained() {
    let mut explained = false;
    let mut indent_explained = usize::MAX;
    for line in settings::SHIPPED.lines() {
        let (indent, text) = (line.len() - line.trim_start().len(), line.trim());
        match text {
            "" => explained = false,
            _ if text.starts_with('#') => (explained, indent_explained) = (true, indent),
            // A comment explains the keys that follow it without a gap, and a table what is below it.
            _ => assert!(explained || indent > indent_explained || text.ends_with(':'), "no comment above {text:?}"),
        }
    }
}

#[test]
fn the_gpu_table_is_the_published_one() {
    let gpus = shipped(Role::Validator).settings.scoring.gpus;
    let base = |name: &str| gpus[name].base;
    let known = [
        ("NVIDIA H200", 4.00),
        ("NVIDIA H100 80GB HBM3", 3.30),
        ("NVIDIA H100 PCIe", 2.80),
        ("NVIDIA A100-SXM4-80GB", 1.90),
        ("NVIDIA GeForce RTX 4090", 0.68),
        ("NVIDIA RTX A4500", 0.34),
    ];
    for (name, score) in known {
        assert_eq!(base(name), score, "{name}");
    }
    let max = gpus.values().map(|row| row.base).fold(0.0, f64::max);
    assert_eq!(100.0 / (8.0 * max), 3.125);
    let measured = |row: &GpuRow| row.source == Some(RateSource::Measured);
    assert!(!gpus.values().any(measured), "no rate has been measured yet");
}

#[test]
fn the_lists_of_the_original_are_shipped() {
    let settings = shipped(Role::Miner).settings;
    assert_eq!(settings.blacklist.exploiter_hotkeys.len(), 16);
    assert_eq!(settings.whitelist.trusted_hotkeys.len(), 11);
    assert!(settings.blacklist.exploiters);
}

// ---- layers ----

#[test]
fn flags_win_over_environment_over_file_over_the_shipped_default() {
    let file = conf("axon: { port: 9001, max_workers: 11, read_timeout: 6s }\n");
    let pairs = [("COMPUTE__AXON__PORT", "9002"), ("COMPUTE__AXON__MAX_WORKERS", "12")];
    let loaded = file.load_with(Role::Miner, &["--axon.port", "9003"], &pairs).unwrap();
    let axon = &loaded.settings.axon;
    assert_eq!((axon.port, axon.max_workers, axon.read_timeout.as_secs()), (9003, 12, 6));
    assert_eq!(axon.max_body_bytes, 65_536);
    let source = |key: &str| loaded.sources[key].to_string();
    assert_eq!(source("axon.port"), "flag --axon.port");
    assert_eq!(source("axon.max_workers"), "environment COMPUTE__AXON__MAX_WORKERS");
    assert_eq!(source("axon.read_timeout"), format!("{} line 1", file.path.display()));
    assert_eq!(source("axon.max_body_bytes"), "shipped config.yaml");
}

#[test]
fn text_that_looks_like_a_number_stays_text() {
    let pairs = [("COMPUTE__WALLET__NAME", "1.10")];
    let loaded = load(Role::Miner, &cli(&["--wallet.hotkey", "007"]), env(&pairs)).unwrap();
    assert_eq!(loaded.settings.wallet.name, "1.10");
    assert_eq!(loaded.settings.wallet.hotkey, "007");
    assert_eq!(conf("wallet: { name: \"1.10\" }\n").load().unwrap().settings.wallet.name, "1.10");
    // Unquoted it is a number already when it arrives, and 1.1 would be a guess.
    let wrong = conf("wallet:\n  name: 1.10\n").wrong();
    assert!(
        wrong.contains("line 2: wallet.name: expected text, found the number 1.1; put the text in quotes"),
        "{wrong}"
    );
}

#[test]
fn lists_from_environment_and_flags_have_commas() {
    let pair = format!("{ALICE}, 5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty");
    let pairs = [("COMPUTE__WHITELIST__HOTKEYS", pair.as_str()), ("COMPUTE__BLACKLIST__EXPLOITER_HOTKEYS", "")];
    let settings = load(Role::Miner, &cli(&["--blacklist.hotkeys", ALICE]), env(&pairs)).unwrap().settings;
    assert_eq!(settings.whitelist.hotkeys.len(), 2);
    assert_eq!(settings.blacklist.hotkeys[0].to_string(), ALICE);
    assert!(settings.blacklist.exploiter_hotkeys.is_empty());
}

#[test]
fn any_key_can_be_set_by_flag_and_an_empty_text_unsets_an_optional_one() {
    let flags = cli(&["--set", "leases.grace=5m", "--set", "axon.external_ip="]);
    let settings = load(Role::Miner, &flags, env(&[("COMPUTE__AXON__EXTERNAL_IP", "192.0.2.1")])).unwrap().settings;
    assert_eq!(settings.leases.grace.as_secs(), 300);
    assert_eq!(settings.axon.external_ip, None);
}

#[test]
fn the_subnets_number_follows_the_network_unless_it_is_given() {
    let netuid = |line: &[&str]| load(Role::Miner, &cli(line), env(&[])).unwrap().settings.netuid;
    assert_eq!(netuid(&[]), Netuid(27));
    assert_eq!(netuid(&["--subtensor.network", "test"]), Netuid(15));
    assert_eq!(netuid(&["--subtensor.network", "ledger=http://127.0.0.1:9950"]), Netuid(27));
    assert_eq!(netuid(&["--subtensor.network", "test", "--netuid", "27"]), Netuid(27));
}

#[test]
fn rows_of_a_table_merge_key_by_key_and_null_takes_one_out() {
    let text = "scoring:\n  gpus:\n    NVIDIA L4: { base: 0.5 }\n    NVIDIA RTX A4500: null\n";
    let gpus = conf(text).load().unwrap().settings.scoring.gpus;
    assert_eq!((gpus["NVIDIA L4"].base, gpus["NVIDIA L4"].memory_gib), (0.5, Some(24.0)));
    assert!(!gpus.contains_key("NVIDIA RTX A4500"));
    assert!(gpus.contains_key("NVIDIA H200"));
}

#[test]
fn a_heading_whose_keys_are_all_commented_out_changes_nothing() {
    let loaded = conf("axon:\n  # port: 9000\nscoring:\n  gpus:\n").load().unwrap();
    assert_eq!(loaded.settings, shipped(Role::Validator).settings);
}

// ---- what is wrong is told, all of it ----

#[test]
fn everything_wrong_in_every_layer_is_reported_at_once() {
    let file = conf(
        "axon:\n  prot: 9000\n  port: many\n  max_workers: 5000\n  ip: localhost\nwallets:\n  name: x\n\
         netuid: 70000\nsubtensor:\n  network: fineny\nchallenge_batch_size: 3\nspecs:\n  timeout: 12\n\
         blacklist:\n  hotkeys: [5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQZ, 5Grw, 7]\nprover: fast\n\
         scoring:\n  gpus:\n    NVIDIA L4:\n      bass: 1\n    NVIDIA B300:\n      base: many\nmetrics:\n  port: 22\n",
    );
    let pairs = [
        ("COMPUTE__LOGGING__DEBUG", "maybe"),
        ("COMPUTE__AXON__READ_TIMOUT", "5s"),
        ("COMPUTE__SCORING__GPUS__X__BASE", "1"),
        ("COMPUTE__", "1"),
    ];
    let flags = ["--validator.specs.batch.size", "0", "--logging.json", "--set", "store.queue=-1"];
    let problems = file.load_with(Role::Validator, &flags, &pairs).unwrap_err();
    assert_eq!(problems.exit(), Exit::Config);
    insta::assert_snapshot!("problems", file.report(&problems));
}

#[test]
fn a_repeated_key_is_told_with_both_lines_beside_the_other_problems() {
    let wrong = conf("axon:\n  port: 9000\n  port: 9001\nmetrics:\n  prt: 1\n").wrong();
    assert!(wrong.contains("my.yaml line 3: axon.port: the key is there twice, first in line 2"), "{wrong}");
    assert!(wrong.contains("my.yaml line 5: metrics.prt: unknown key; did you mean metrics.port?"), "{wrong}");
}

#[test]
fn a_file_that_cannot_be_used_is_told_beside_the_problems_of_other_layers() {
    let usable = |file: &Conf| file.load_with(Role::Miner, &["--netuid", "0"], &[]).unwrap_err().to_string();
    for (file, told) in [
        (conf("axon: [1,\nport: : :\n"), "not readable as YAML"),
        (conf([0xff, 0xfe, 0x00]), "not UTF-8 text"),
        (conf(" ".repeat((1 << 20) + 1)), "longer than 1048576 bytes"),
        (conf("- a\n- list\n"), "not readable as YAML"),
        (conf("a: 1\n---\nb: 2\n"), "not readable as YAML"),
    ] {
        let wrong = usable(&file);
        assert!(wrong.contains(told), "{wrong}");
        assert!(wrong.contains("flag --netuid: netuid: must be between 1 and 65535, is 0"), "{wrong}");
    }
    let gone = load(Role::Miner, &cli(&["--config", "/nonexistent/c.yaml"]), env(&[])).unwrap_err().to_string();
    assert!(gone.contains("/nonexistent/c.yaml: cannot be read"), "{gone}");
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(48))]
    #[test]
    fn any_text_for_any_key_is_taken_or_reported_at_that_flag(pick in 0usize..10_000, text in "[ -~]{0,12}|[0-9]{1,25}|[0-9]{1,3}(ms|s|m|h)") {
        let keys: Vec<String> = shipped(Role::Miner).sources.into_keys().filter(|key| !key.contains('"')).collect();
        let key = &keys[pick % keys.len()];
        let flag = Source::Flag(format!("--set {key}"));
        match load(Role::Miner, &Cli::default().with_key(key, &text), env(&[])) {
            Ok(loaded) => assert_eq!(loaded.sources[key], flag),
            Err(problems) => assert!(problems.0.iter().any(|problem| problem.source == flag), "{problems}"),
        }
    }
}

#[test]
fn a_wrong_section_does_not_make_its_defaults_look_wrong() {
    let wrong = conf("axon: 5\nmetrics: { port: 8091 }\nsubtensor: here\ndevnet: { tempo: 6 }\n").wrong();
    assert!(wrong.contains("axon: expected a table of keys, found the number 5"), "{wrong}");
    assert!(wrong.contains("2 problems:"), "{wrong}");
}

#[test]
fn a_home_directory_is_only_needed_where_a_tilde_is() {
    let wrong = load(Role::Miner, &Cli::default(), Vec::new()).unwrap_err();
    assert!(wrong.0.iter().all(|p| p.reason.contains("HOME is not set")), "{wrong}");
    let flags = cli(&[
        "--node.data_dir",
        "/d",
        "--wallet.path",
        "/w",
        "--logging.logging_dir",
        "/l",
        "--set",
        "node.lock_dir=/k",
    ]);
    assert!(load(Role::Miner, &flags, Vec::new()).is_ok());
}

#[test]
fn settings_that_contradict_each_other_are_told() {
    let cases = [
        ("axon: { port: 9464 }\n", "port 9464 is taken twice, by axon.port and metrics.port"),
        ("leases: { misses_to_lose: 9 }\n", "misses_to_lose must not be above of_checks"),
        ("challenge: { penalty_fails: 7 }\n", "penalty_fails must not be above penalty_window"),
        ("supervision: { backoff_first: 40s }\n", "backoff_first must not be above supervision.backoff_cap"),
        ("supervision: { heartbeat: 2s }\n", "twice supervision.heartbeat must not be above supervision.silence_limit"),
        ("budget: { time: 11m }\n", "budget.time must not be above budget.window"),
        (
            "subtensor: { chain_endpoint: \"wss://test.finney.opentensor.ai:443\" }\n",
            "address of network test, but network is finney",
        ),
        ("subtensor: { chain_endpoint: \"ftp://x\" }\n", "no way to reach a chain"),
        (
            "subtensor: { network: \"ledger=http://127.0.0.1:1\", chain_endpoint: \"ws://x\" }\n",
            "leave chain_endpoint out",
        ),
    ];
    for (text, told) in cases {
        let wrong = conf(text).wrong();
        assert!(wrong.contains(told) && wrong.contains("1 problem:"), "{wrong}");
        assert!(wrong.contains("my.yaml line 1"), "the blame goes to what the operator wrote: {wrong}");
    }
}

#[test]
fn rates_of_gpus_must_keep_one_card_from_passing_as_two() {
    let gpus = |rows: &str| conf(format!("scoring:\n  gpus:\n{rows}"));
    // Measured so, an L4 is slower than half an A40 in everything but what an A40 has no room for.
    let l4 = |keys: &str| format!("    NVIDIA L4: {{ source: measured, {keys} }}\n");
    let fits = "nominal_tops: 180, floor_tops: 150";
    let bound = ", twins: [NVIDIA A10, NVIDIA A40, NVIDIA RTX A5000]";
    let back = "    NVIDIA A10: { twins: [NVIDIA L4] }\n    NVIDIA RTX A5000: { twins: [NVIDIA L4] }\n    \
                NVIDIA A40: { twins: [NVIDIA L4, NVIDIA L40, NVIDIA RTX A6000] }\n";
    assert!(gpus(&(l4(&format!("{fits}{bound}")) + back)).load().is_ok());
    let unbound = gpus(&l4(fits)).wrong();
    for other in ["A10", "A40", "RTX A5000"] {
        let told = format!("NVIDIA {other} is priced lower and reaches every floor of NVIDIA L4: it could pass as one");
        assert!(unbound.contains(&told) && unbound.contains("3 problems:"), "{unbound}");
    }
    for (rows, told) in [
        (l4("nominal_tops: 100, floor_tops: 120"), "the floor 120 is above nominal 100"),
        (l4("nominal_tops: 100, floor_tops: 69"), "the floor 69 is below 0.70 of nominal 100"),
        (l4("floor_tops: 80"), "floor_tops needs a nominal_tops"),
        (l4("nominal_tops: 100"), "nominal_tops needs a floor_tops"),
        (l4(&format!("{fits}, floor_memory_gib: 16")), "the floor 16 is below 0.70 of memory_gib 24"),
        (l4(&format!("{fits}, floor_bandwidth_gbs: 301")), "the floor 301 is above bandwidth_gbs 300"),
        (l4(&format!("{fits}, memory_gib: null")), "nominal_tops needs a memory_gib"),
        (l4(&format!("{fits}, peak_tops: 170")), "nominal 180 is above the peak 170"),
        (format!("    NVIDIA L4: {{ {fits} }}\n"), "nominal_tops needs a source: say datasheet or measured"),
        (l4("nominal_tops: 0.2, floor_tops: 0.2"), "no proof lasts 3 to 4 s at 0.2"),
        // A40 (0.39) is cheaper than L4 (0.43); at this floor half of one is enough.
        (
            l4(&format!("nominal_tops: 180, floor_tops: 140{bound}")) + back,
            "NVIDIA A40 is priced lower, and half its rate, 149.65, reaches the floor 140 of NVIDIA L4",
        ),
        ("    NVIDIA L4: { aliases: [NVIDIA H200] }\n".to_owned(), "\"NVIDIA H200\" already means \"NVIDIA H200\""),
        ("    NVIDIA L4: { twins: [NVIDIA H200] }\n".to_owned(), "twins name each other"),
        ("    NVIDIA L4: { source: guessed }\n".to_owned(), "expected datasheet or measured, found \"guessed\""),
    ] {
        let wrong = gpus(&rows).wrong();
        assert!(wrong.contains(told) && wrong.contains("1 problem:"), "{told}: {wrong}");
    }
}

#[test]
fn devnet_classes_are_refused_on_every_chain_but_the_ledger_and_local_ones() {
    let file = conf("devnet:\n  gpu_scores:\n    cpu-1: { base: 100 }\n");
    let wrong = file.wrong();
    assert!(
        wrong.contains("cpu-1.base: devnet keys are for the ledger and local chains only, but network is finney"),
        "{wrong}"
    );
    assert!(file.load_with(Role::Miner, &["--subtensor.network", "test"], &[]).is_err());
    let local = file.load_with(Role::Miner, &["--subtensor.network", "local"], &[]).unwrap().settings;
    assert_eq!((local.devnet.gpu_scores["cpu-1"].base, local.devnet.gpu_scores.len()), (100.0, 4), "and in force");
    let ledger = ["--subtensor.network", "ledger=http://127.0.0.1:9950"];
    let settings = file.load_with(Role::Miner, &ledger, &[]).unwrap().settings;
    assert_eq!(settings.devnet.gpu_scores["cpu-1"].base, 100.0);
    // Without an override nothing is refused, but the shipped classes are not in force on a real chain.
    assert!(shipped(Role::Validator).settings.devnet.gpu_scores.is_empty());
    let devnet = file.load_with(Role::Devnet, &[], &[]).unwrap().settings;
    assert!(devnet.subtensor.network.is_ledger());
    assert_eq!(devnet.devnet.gpu_scores.len(), 4);
}

#[test]
fn what_is_merely_unwise_is_a_warning() {
    let text = format!(
        "metrics: {{ ip: 0.0.0.0 }}\nwhitelist: {{ hotkeys: [{ALICE}] }}\nblacklist: {{ hotkeys: [{ALICE}] }}\n"
    );
    let warnings = conf(text).load().unwrap().warnings;
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].contains("the whitelist wins") && warnings[1].contains("/metrics is open to everybody"));
}

#[test]
fn switches_that_leave_a_node_idle_or_do_nothing_say_so() {
    for (args, told) in [
        (["--validator.perform.hardware.query", "false"], "challenges and scores nobody"),
        (["--validator.force.update.prometheus", "true"], "loopback is never announced"),
    ] {
        let warnings = load(Role::Validator, &cli(&args), env(&[])).unwrap().warnings;
        assert!(warnings.len() == 1 && warnings[0].contains(told), "{warnings:?}");
    }
    let public = ["--validator.force.update.prometheus", "true", "--metrics.ip", "192.0.2.1"];
    let warnings = load(Role::Validator, &cli(&public), env(&[])).unwrap().warnings;
    assert!(warnings.len() == 1 && warnings[0].contains("/metrics is open"), "{warnings:?}");
}

// ---- flags ----

/// The original's flags and defaults, written down apart from the table that is tested.
const ORIGINAL: &str = "netuid=27 auto_update=true blacklist.exploiters=true blacklist.hotkeys= blacklist.coldkeys= \
    whitelist.hotkeys= whitelist.coldkeys= validator.whitelist.unrecognized=false validator.perform.hardware.query=true \
    validator.challenge.batch.size=256 validator.specs.batch.size=64 validator.force.update.prometheus=false \
    validator.whitelist.updated.threshold=60 miner.hashcat.path=hashcat miner.hashcat.workload.profile=3 \
    miner.hashcat.extended.options= miner.whitelist.not.enough.stake=false miner.whitelist.not.updated=false \
    miner.whitelist.updated.threshold=60 ssh.port=4444 subtensor.network=finney \
    subtensor.chain_endpoint=wss://entrypoint-finney.opentensor.ai:443 subtensor._mock=false logging.debug=false \
    logging.trace=false logging.info=false logging.record_log=false logging.logging_dir=~/.bittensor/miners \
    wallet.name=default wallet.hotkey=default wallet.path=~/.bittensor/wallets/ axon.port=8091 axon.ip=[::] \
    axon.external_port=none axon.external_ip=none axon.max_workers=10 config= strict=false no_version_checking=false";

/// Where the shipped value is not the original's default, and what it is; the file says why.
const DIFFERENT: [(&str, &str); 1] = [("axon.ip", "0.0.0.0")];

/// A value that differs from the default, for each flag that sets a key: as given, and as the listing shows it.
fn other_value(name: &str) -> (&'static str, &'static str) {
    match name {
        "netuid" => ("3", "3"),
        "subtensor.network" => ("local", "local"),
        "subtensor.chain_endpoint" => ("ws://127.0.0.1:9", "ws://127.0.0.1:9"),
        "axon.ip" => ("[::1]", "::1"),
        "metrics.ip" => ("127.0.0.2", "127.0.0.2"),
        "axon.external_ip" => ("192.0.2.7", "192.0.2.7"),
        "wallet.path" | "logging.logging_dir" | "node.data_dir" => ("/x/y", "/x/y"),
        "wallet.name" | "wallet.hotkey" => ("007", "007"),
        "blacklist.hotkeys" | "blacklist.coldkeys" | "whitelist.hotkeys" | "whitelist.coldkeys" => (ALICE, ALICE),
        name if name.ends_with(".port") || name.ends_with("_port") => ("12345", "12345"),
        "weights.mode" => ("shadow", "shadow"),
        _ => ("77", "77"),
    }
}

fn listed(loaded: &Loaded, key: &str) -> String {
    let prefix = format!("{key} = ");
    let listing = loaded.listing();
    let line = listing.lines().find_map(|line| line.strip_prefix(&prefix)).expect("a listed key");
    line.split("  # ").next().unwrap().to_owned()
}

#[test]
fn the_table_has_every_flag_of_the_original_with_its_default() {
    let table: BTreeSet<String> =
        FLAGS.iter().filter_map(|f| Some(format!("{}={}", f.name, f.original_default?))).collect();
    let original: BTreeSet<String> = ORIGINAL.split_whitespace().map(str::to_owned).collect();
    assert_eq!(table, original);
    assert!(Program::try_parse_from(["x", "--auto-update"]).is_ok(), "the README's spelling works too");
}

#[test]
fn every_flag_has_its_default_its_key_and_its_effect() {
    let untouched = shipped(Role::Miner);
    for flag in FLAGS.iter().filter(|flag| flag.effect != Effect::Layer) {
        let dashed = format!("--{}", flag.name);
        let run =
            |args: &[&str]| load(Role::Miner, &cli(args), env(&[])).unwrap_or_else(|wrong| panic!("{args:?}: {wrong}"));
        if let Effect::NoEffect(why) = flag.effect {
            let loaded = if flag.kind == FlagKind::Switch { run(&[&dashed]) } else { run(&[&dashed, "x"]) };
            assert_eq!(loaded.warnings, [format!("flag {dashed}: accepted, no effect, because {why}")]);
            assert_eq!(loaded.settings, untouched.settings, "{dashed}");
            continue;
        }
        let key = flag.key().expect("a flag with an effect sets a key");
        // Default.
        if let Some(default) = flag.original_default {
            let default = DIFFERENT.iter().find(|(name, _)| *name == flag.name).map_or(default, |(_, ours)| ours);
            let default = default.replace('~', "/home/op");
            let default = if default.is_empty() { "none" } else { &default };
            let shipped = match key {
                "subtensor.chain_endpoint" => untouched.settings.subtensor.endpoint(),
                key => listed(&untouched, key),
            };
            assert_eq!(shipped, default, "default of {dashed}");
        }
        // Value styles, key and effect.
        let styles: Vec<(Vec<String>, &str)> = match flag.kind {
            FlagKind::Switch => vec![
                (vec![dashed.clone()], "true"),
                (vec![dashed.clone(), "false".into()], "false"),
                (vec![dashed.clone(), "False".into()], "false"),
                (vec![format!("{dashed}=false")], "false"),
                (vec![format!("{dashed}=true")], "true"),
            ],
            _ => {
                let (given, shown) = other_value(flag.name);
                vec![(vec![dashed.clone(), given.into()], shown), (vec![format!("{dashed}={given}")], shown)]
            }
        };
        for (args, expected) in styles {
            let loaded = run(&args.iter().map(String::as_str).collect::<Vec<_>>());
            let expected = match flag.effect {
                Effect::Choice { yes, no, .. } => {
                    if expected == "true" {
                        yes
                    } else {
                        no
                    }
                }
                _ => expected,
            };
            assert_eq!(listed(&loaded, key), expected, "{args:?}");
            assert_eq!(loaded.sources[key], Source::Flag(dashed.clone()), "{args:?}");
        }
    }
}

#[test]
fn a_wrong_value_of_a_flag_is_a_configuration_problem_with_the_flags_name() {
    for (args, told) in [
        (["--axon.port", "80"], "flag --axon.port: axon.port: must be between 1025 and 65534, is 80"),
        (["--axon.port", "-5"], "flag --axon.port: axon.port: must be between 0 and 65535, is -5"),
        (["--axon.external_port", "65535"], "must be between 1025 and 65534, is 65535"),
        (["--auto_update=perhaps", "--strict"], "flag --auto_update: update.auto_update: expected true or false"),
        (["--logging.json=perhaps", "--strict"], "flag --logging.json: logging.format: expected true or false"),
    ] {
        let wrong = load(Role::Miner, &cli(&args), env(&[])).unwrap_err().to_string();
        assert!(wrong.contains(told), "{wrong}");
    }
}

#[test]
fn help_names_every_flag() {
    use clap::CommandFactory as _;
    let help = Program::command().term_width(120).render_help().to_string();
    insta::assert_snapshot!("help", help);
}

// ---- Bittensor's own variables ----

#[test]
fn the_variables_of_bittensors_tools_name_a_wallet_unless_we_are_told_otherwise() {
    let bt = [("BT_WALLET_NAME", "theirs"), ("BT_WALLET_HOTKEY", "hot"), ("BT_WALLET_PATH", "~/elsewhere")];
    let loaded = load(Role::Miner, &Cli::default(), env(&bt)).unwrap();
    let file = loaded.settings.wallet.hotkey_file();
    assert_eq!(file, PathBuf::from("/home/op/elsewhere/theirs/hotkeys/hot"));
    assert_eq!(loaded.sources["wallet.name"], Source::Env("BT_WALLET_NAME".into()));
    let name = |loaded: Loaded| loaded.settings.wallet.name;
    assert_eq!(name(conf("wallet: { name: file }").load_with(Role::Miner, &[], &bt).unwrap()), "file");
    let ours = [bt[0], ("COMPUTE__WALLET__NAME", "env")];
    assert_eq!(name(load(Role::Miner, &Cli::default(), env(&ours)).unwrap()), "env");
    assert_eq!(name(load(Role::Miner, &cli(&["--wallet.name", "flag"]), env(&ours)).unwrap()), "flag");
    assert_eq!(name(load(Role::Miner, &Cli::default(), env(&[("BT_WALLET_NAME", "")])).unwrap()), "default");
    let wrong = load(Role::Miner, &Cli::default(), env(&[("BT_WALLET_NAME", "../x")])).unwrap_err().to_string();
    assert!(wrong.contains("BT_WALLET_NAME") && wrong.contains("is not a file name"), "{wrong}");
}
