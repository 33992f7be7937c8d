//! What a node finds at its start: ports in use, damaged databases, newer ones, a directory in use.

use std::error::Error as _;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use compute_subnet::actors::node::NodeError;
use compute_subnet::exit::Exit;
use compute_subnet::store::{DATABASE_FILE, OpenError};
use compute_subnet::telemetry::error_chain;

use crate::common::{assert_unharmed, get, inside, until};
use crate::world::{Running, World, honest, key};

fn error(started: Result<Running, NodeError>) -> NodeError {
    match started {
        Ok(node) => panic!("{} must not start", node.name),
        Err(error) => error,
    }
}

#[test]
fn a_port_in_use_is_named_with_the_flag_that_changes_it_and_nothing_is_left_running() {
    inside(async |runtime| {
        let world = World::new(runtime);
        let ledger = world.ledger(&[("Miner", 0)]).await;
        let chain = world.in_process(&ledger, &key("Miner"));
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address: SocketAddr = taken.local_addr().unwrap();
        for (listener, flag) in [("web", "--metrics.port"), ("axon", "--axon.port")] {
            let mut input = world.input("Miner", chain.clone());
            *(if listener == "web" { &mut input.web } else { &mut input.axon }) = address;
            let error = error(world.miner(input, honest()));
            assert!(matches!(error, NodeError::Bind { .. }), "{error:?}");
            let wanted = format!(
                "cannot listen on {address} for {listener}: choose another with {flag}, or end the program that uses it"
            );
            assert_eq!(error.to_string(), wanted);
            assert!(error.source().is_some_and(|e| e.to_string().contains("in use")), "{}", error_chain(&error));
            assert_eq!(error.exit(), Exit::Unavailable);
        }
        // Neither attempt holds the directory, the database or a thread of the node that starts now.
        let mut input = world.input("Miner", chain);
        drop(taken);
        input.axon = address;
        let miner = until("the directory is free again", async || world.miner(input.clone(), honest()).ok()).await;
        until("it is ready", async || (get(miner.web, "/readyz").await.status == 200).then_some(())).await;
        assert_unharmed("miner", miner.web, &miner.view).await;
        miner.end().await;
    });
}

/// The files beside the database whose names begin like that.
fn beside(dir: &Path, prefix: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.file_name().unwrap().to_string_lossy().starts_with(prefix))
        .collect();
    found.sort();
    found
}

#[test]
fn a_damaged_database_is_moved_aside_with_its_bytes_and_the_node_starts_afresh() {
    inside(async |runtime| {
        let world = World::new(runtime);
        let ledger = world.ledger(&[("Miner", 0)]).await;
        let input = world.input("Miner", world.in_process(&ledger, &key("Miner")));
        let database = input.data_dir.join(DATABASE_FILE);
        let ready = async |miner: &Running| {
            until("it is ready", async || (get(miner.web, "/readyz").await.status == 200).then_some(())).await
        };
        let first = world.miner(input.clone(), honest()).unwrap();
        ready(&first).await;
        first.end().await;

        // Once its tables overwritten, once no database at all.
        let mut holed = std::fs::read(&database).unwrap();
        assert!(holed.len() > 8192);
        holed[4096..].fill(0xa5);
        for (count, bytes) in [(1, holed), (2, b"not a database ".repeat(100))] {
            std::fs::write(&database, &bytes).unwrap();
            let miner = world.miner(input.clone(), honest()).unwrap();
            ready(&miner).await;
            let mut aside = beside(&input.data_dir, "node.db.corrupt.");
            // SQLite's companions go with their database, so that recovery tools find them together.
            aside.retain(|p| p.extension().is_some_and(|e| e.to_string_lossy().ends_with('Z')));
            assert_eq!(aside.len(), count, "{aside:?}");
            let newest = aside.last().unwrap();
            assert!(std::fs::read(newest).unwrap() == bytes, "the bytes of {} changed", newest.display());
            assert_unharmed("miner", miner.web, &miner.view).await;
            miner.end().await;
        }
    });
}

#[test]
fn a_newer_database_and_another_nodes_are_refused_and_not_altered() {
    inside(async |runtime| {
        let world = World::new(runtime);
        let ledger = world.ledger(&[("Miner", 0)]).await;
        let input = world.input("Miner", world.in_process(&ledger, &key("Miner")));
        let database = input.data_dir.join(DATABASE_FILE);
        world.miner(input.clone(), honest()).unwrap().end().await;

        // The directory of a miner, given to a validator.
        let before = std::fs::read(&database).unwrap();
        let refusal = error(world.validator(input.clone()));
        assert_eq!(refusal.exit(), Exit::Data);
        assert!(error_chain(&refusal).contains("belongs to a miner, not to a validator"), "{}", error_chain(&refusal));
        assert!(std::fs::read(&database).unwrap() == before);

        let conn = rusqlite::Connection::open(&database).unwrap();
        conn.pragma_update(None, "user_version", 99).unwrap();
        conn.pragma_update(None, "journal_mode", "DELETE").unwrap();
        drop(conn);
        let before = std::fs::read(&database).unwrap();
        let refusal = error(world.miner(input.clone(), honest()));
        let NodeError::Store { source: OpenError::Newer { found, .. }, .. } = &refusal else { panic!("{refusal:?}") };
        assert_eq!((*found, refusal.exit()), (99, Exit::Data));
        assert!(error_chain(&refusal).contains("was not altered; run the newer program again"));
        assert!(std::fs::read(&database).unwrap() == before, "a refused database changed");
        assert!(beside(&input.data_dir, "node.db.").is_empty(), "{:?}", beside(&input.data_dir, "node.db."));
    });
}

#[test]
fn a_directory_in_use_is_refused_and_its_owner_is_not_disturbed() {
    inside(async |runtime| {
        let world = World::new(runtime);
        let ledger = world.ledger(&[("Miner", 0), ("Other", 0)]).await;
        let input = world.input("Miner", world.in_process(&ledger, &key("Miner")));
        let miner = world.miner(input.clone(), honest()).unwrap();
        let mut other = world.input("Other", world.in_process(&ledger, &key("Other")));
        other.data_dir = input.data_dir.clone();
        let refusal = error(world.miner(other, honest()));
        let text = error_chain(&refusal);
        assert!(text.contains("is in use by this process; end it, or give this node a data directory"), "{text}");
        assert_eq!(refusal.exit(), Exit::Unavailable);
        until("the owner is ready", async || (get(miner.web, "/readyz").await.status == 200).then_some(())).await;
        assert_unharmed("miner", miner.web, &miner.view).await;
        miner.end().await;
    });
}
