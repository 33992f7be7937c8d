//! The fake's chain: headers that hash right, what they say when asked, and nothing behind them.
//!
//! There is no runtime. Storage and runtime calls give the bytes that a test put there; a transaction is valid and
//! succeeds unless the test says otherwise.

use std::collections::BTreeMap;

use blake2::digest::consts::U32;
use blake2::{Blake2b, Digest as _};
use serde_json::{Value, json};

/// `System.Events`.
const EVENTS: &str = "0x26aa394eea5630e07c48ae0c9558cef780d41e5e16056765bc8461851072c9d7";

/// An error of JSON-RPC as a Substrate node words it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: i64,
    pub(crate) message: String,
    pub(crate) data: Option<String>,
}

impl Refusal {
    pub(crate) fn new(code: i64, message: impl Into<String>, data: Option<&str>) -> Self {
        Refusal { code, message: message.into(), data: data.map(str::to_owned) }
    }

    /// The pool's refusal with a reason of the runtime's own.
    pub(crate) fn custom(reason: u8) -> Self {
        Refusal::new(1010, "Invalid Transaction", Some(&format!("Custom error: {reason}")))
    }

    /// The nonce was used already.
    pub(crate) fn outdated() -> Self {
        Refusal::new(1010, "Invalid Transaction", Some("Transaction is outdated"))
    }

    /// The pool has another transaction with this nonce.
    pub(crate) fn priority_too_low() -> Self {
        let data = "The transaction has too low priority to replace another transaction already in the pool.";
        Refusal::new(1014, "Priority is too low: (10 vs 10)", Some(data))
    }

    /// The node no longer has the state of this block.
    pub(crate) fn pruned(hash: &str) -> Self {
        Refusal::new(4003, format!("Client error: UnknownBlock: State already discarded for {hash}"), None)
    }

    fn unknown(hash: &str) -> Self {
        let message = format!("Client error: UnknownBlock: Header was not found in the database: {hash}");
        Refusal::new(4003, message, None)
    }

    pub(super) fn json(&self) -> Value {
        match &self.data {
            Some(data) => json!({ "code": self.code, "message": self.message, "data": data }),
            None => json!({ "code": self.code, "message": self.message }),
        }
    }
}

/// A block: header, transactions, and what `System.Events` has after it.
#[derive(Debug, Clone)]
pub(crate) struct Block {
    pub(crate) number: u64,
    /// `0x`-hex, as all hashes and bytes here.
    pub(crate) hash: String,
    parent: String,
    root: String,
    pub(crate) extrinsics: Vec<String>,
    events: String,
}

fn blake2_256(bytes: &[u8]) -> [u8; 32] {
    Blake2b::<U32>::digest(bytes).into()
}

fn hex0x(bytes: &[u8]) -> String {
    format!("0x{}", hex::encode(bytes))
}

fn unhex(text: &str) -> Vec<u8> {
    hex::decode(text.strip_prefix("0x").unwrap_or(text)).unwrap()
}

/// SCALE's compact form; lengths and block numbers of tests are below 2^30.
pub(crate) fn compact(n: u64) -> Vec<u8> {
    match n {
        0..64 => vec![(n as u8) << 2],
        64..16_384 => ((n as u16) << 2 | 1).to_le_bytes().to_vec(),
        _ => ((n as u32) << 2 | 2).to_le_bytes().to_vec(),
    }
}

impl Block {
    fn new(number: u64, parent: String, salt: u64, extrinsics: Vec<String>, events: String) -> Self {
        let root = hex0x(&blake2_256(&salt.to_le_bytes()));
        let mut header = unhex(&parent);
        header.extend(compact(number));
        header.extend([0; 32]);
        header.extend(unhex(&root));
        header.push(0);
        Block { number, hash: hex0x(&blake2_256(&header)), parent, root, extrinsics, events }
    }

    fn header(&self) -> Value {
        json!({
            "parentHash": self.parent,
            "number": format!("{:#x}", self.number),
            "stateRoot": hex0x(&[0; 32]),
            "extrinsicsRoot": self.root,
            "digest": { "logs": [] },
        })
    }
}

/// What becomes of a transaction in its block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Success,
    /// `System.ExtrinsicFailed` with the error of a pallet, by their indices in the metadata.
    Failed {
        pallet: u8,
        error: u8,
    },
}

/// SCALE of `System.Events` with one outcome for each transaction: frame_system is pallet 0, success event 0, failure event 1.
fn events(outcomes: &[Outcome]) -> String {
    let mut bytes = compact(outcomes.len() as u64);
    for (index, outcome) in outcomes.iter().enumerate() {
        bytes.push(0); // in phase ApplyExtrinsic
        bytes.extend((index as u32).to_le_bytes());
        match outcome {
            Outcome::Success => bytes.extend([0, 0]),
            Outcome::Failed { pallet, error } => bytes.extend([0, 1, 3, *pallet, *error, 0, 0, 0]),
        }
        bytes.extend([0, 0, 0, 0, 0]); // weight (two compacts), class, who pays; no topics
    }
    hex0x(&bytes)
}

/// The chain that a [`Fake`](super::Fake) serves. All of it can be changed while it is served.
#[derive(Debug)]
pub(crate) struct Chain {
    best: Vec<Block>,
    replaced: Vec<Block>,
    salt: u64,
    /// Transactions that wait for a block.
    pub(crate) pool: Vec<String>,
    /// A transaction gets its block at once.
    pub(crate) instant: bool,
    /// Blocks on top of the newest final one.
    pub(crate) lag: u64,
    /// State of blocks below this is pruned.
    pub(crate) pruned_below: u64,
    /// What the next transactions that get into a block come to.
    pub(crate) outcome: Outcome,
    /// `state_getStorage` of every block, by `0x`-key.
    pub(crate) storage: BTreeMap<String, String>,
    /// `state_call` of every block, by method; and what is asked here is recorded with the other calls.
    pub(crate) runtime: BTreeMap<String, String>,
    /// The same nonce for every account.
    pub(crate) nonce: u32,
    pub(crate) spec_version: u32,
    metadata: Option<Vec<u8>>,
}

impl Chain {
    /// Genesis and one block, without metadata: for clients that need none.
    pub(crate) fn new() -> Self {
        let genesis = Block::new(0, hex0x(&[0; 32]), 0, Vec::new(), events(&[]));
        let mut chain = Chain {
            best: vec![genesis],
            replaced: Vec::new(),
            salt: 0,
            pool: Vec::new(),
            instant: true,
            lag: 0,
            pruned_below: 0,
            outcome: Outcome::Success,
            storage: BTreeMap::new(),
            runtime: BTreeMap::new(),
            nonce: 0,
            spec_version: 0,
            metadata: None,
        };
        chain.new_block();
        chain
    }

    /// The same with metadata as a runtime of this version gives it, from the directory that `SUBTENSOR_METADATA` names;
    /// `None` if there is none.
    pub(crate) fn with_metadata(file: &str, spec_version: u32) -> Option<Self> {
        let dir = std::env::var_os("SUBTENSOR_METADATA").filter(|dir| !dir.is_empty())?;
        let path = std::path::Path::new(&dir).join(file);
        let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert!(bytes.starts_with(b"meta"), "{} is no SCALE metadata", path.display());
        Some(Chain { metadata: Some(bytes), spec_version, ..Chain::new() })
    }

    /// The newest block.
    pub(crate) fn head(&self) -> &Block {
        self.best.last().unwrap()
    }

    /// The newest block's header as subscribers hear of it.
    pub(crate) fn best(&self) -> Value {
        self.best_header()
    }

    /// Whether the block with this number, of the chain as it is now, has this transaction.
    pub(crate) fn holds(&self, number: u64, extrinsic: &str) -> bool {
        self.block_of(extrinsic).is_some_and(|block| block.number == number)
    }

    /// The newest final block.
    pub(crate) fn finalised(&self) -> &Block {
        &self.best[(self.best.len() - 1).saturating_sub(self.lag as usize)]
    }

    /// Whether a block is final.
    pub(super) fn is_final(&self, block: &Block) -> bool {
        block.number <= self.finalised().number
    }

    /// The block of the chain as it is now that has this transaction.
    pub(super) fn block_of(&self, extrinsic: &str) -> Option<&Block> {
        self.best.iter().rev().find(|block| block.extrinsics.iter().any(|e| e == extrinsic))
    }

    /// The next block, with all that is in the pool.
    pub(super) fn new_block(&mut self) {
        let extrinsics = std::mem::take(&mut self.pool);
        self.push(extrinsics);
    }

    /// Replaces the newest blocks by one more, all empty; their transactions go back to the pool.
    pub(super) fn reorg(&mut self, depth: usize) {
        assert!(depth > 0 && depth < self.best.len(), "cannot replace {depth} of {} blocks", self.best.len());
        let gone = self.best.split_off(self.best.len() - depth);
        assert!(
            gone[0].number > self.finalised().number || self.lag as usize >= depth,
            "final blocks stay: raise the lag"
        );
        let lost: Vec<String> = gone.iter().flat_map(|block| block.extrinsics.clone()).collect();
        self.replaced.extend(gone);
        for _ in 0..=depth {
            self.push(Vec::new());
        }
        self.pool.extend(lost);
    }

    fn push(&mut self, extrinsics: Vec<String>) {
        self.salt += 1;
        let events = events(&vec![self.outcome; extrinsics.len()]);
        let (number, parent) = (self.head().number + 1, self.head().hash.clone());
        self.best.push(Block::new(number, parent, self.salt, extrinsics, events));
    }

    /// The block of a hash, also a replaced one; the newest where none is given.
    fn block(&self, hash: &Value) -> Result<&Block, Refusal> {
        let Some(hash) = hash.as_str() else { return Ok(self.head()) };
        let mut all = self.best.iter().chain(&self.replaced);
        all.find(|block| block.hash == hash).ok_or_else(|| Refusal::unknown(hash))
    }

    fn state(&self, hash: &Value) -> Result<&Block, Refusal> {
        let block = self.block(hash)?;
        if block.number < self.pruned_below { Err(Refusal::pruned(&block.hash)) } else { Ok(block) }
    }

    fn value(&self, block: &Block, key: &str) -> Value {
        if key == EVENTS { json!(block.events) } else { json!(self.storage.get(key)) }
    }

    pub(super) fn version(&self) -> Value {
        json!({
            "specName": "node-subtensor", "implName": "node-subtensor", "specVersion": self.spec_version, "implVersion": 1,
            "transactionVersion": 1, "authoringVersion": 1, "stateVersion": 1, "apis": [],
        })
    }

    pub(super) fn best_header(&self) -> Value {
        self.head().header()
    }

    pub(super) fn final_header(&self) -> Value {
        self.finalised().header()
    }

    /// The answer to a call that needs no connection; `None` if there is no such method.
    pub(super) fn answer(&mut self, method: &str, params: &[Value]) -> Option<Result<Value, Refusal>> {
        self.answer_of(method, params).transpose()
    }

    fn answer_of(&mut self, method: &str, params: &[Value]) -> Result<Option<Value>, Refusal> {
        let none = Value::Null;
        let param = |n: usize| params.get(n).unwrap_or(&none);
        let text = |n: usize| {
            let missing = || Refusal::new(-32602, "Invalid params", Some(&format!("parameter {n} is no text")));
            param(n).as_str().ok_or_else(missing)
        };
        Ok(Some(match method {
            "chain_getBlockHash" => match param(0) {
                Value::Null => json!(self.head().hash),
                number => {
                    let hex = number.as_str().and_then(|n| u64::from_str_radix(n.trim_start_matches("0x"), 16).ok());
                    let number = number.as_u64().or(hex).unwrap_or(u64::MAX);
                    json!(self.best.iter().find(|block| block.number == number).map(|block| &block.hash))
                }
            },
            "chain_getFinalizedHead" => json!(self.finalised().hash),
            "chain_getHeader" => self.block(param(0)).map_or(Value::Null, Block::header),
            "chain_getBlock" => self.block(param(0)).map_or(Value::Null, |block| {
                json!({ "block": { "header": block.header(), "extrinsics": block.extrinsics }, "justifications": null })
            }),
            "state_getRuntimeVersion" => {
                self.state(param(0))?;
                self.version()
            }
            "state_getMetadata" => {
                self.state(param(0))?;
                json!(self.metadata.as_deref().map(hex0x))
            }
            "state_getStorage" => {
                let block = self.state(param(1))?;
                self.value(block, text(0)?)
            }
            "state_queryStorageAt" => {
                let block = self.state(param(1))?;
                let keys = param(0).as_array().into_iter().flatten().filter_map(Value::as_str);
                let changes: Vec<Value> = keys.map(|key| json!([key, self.value(block, key)])).collect();
                json!([{ "block": block.hash, "changes": changes }])
            }
            "state_getKeysPaged" => {
                self.state(param(3))?;
                let (prefix, from) = (text(0)?, param(2).as_str().unwrap_or_default());
                let keys = self.storage.keys().filter(|key| key.starts_with(prefix) && key.as_str() > from);
                json!(keys.take(param(1).as_u64().unwrap_or(1000) as usize).collect::<Vec<_>>())
            }
            "state_call" => {
                self.state(param(2))?;
                self.runtime_call(text(0)?, param(1).as_str().unwrap_or_default())?
            }
            "system_accountNextIndex" => json!(self.nonce),
            "system_chain" => json!("Bittensor"),
            "system_health" => json!({ "peers": 8, "isSyncing": false, "shouldHavePeers": true }),
            "system_properties" => json!({ "ss58Format": 42, "tokenDecimals": 9, "tokenSymbol": "TAO" }),
            "author_pendingExtrinsics" => json!(self.pool),
            "rpc_methods" => json!({ "methods": [] }),
            _ => return Ok(None),
        }))
    }

    fn runtime_call(&self, method: &str, argument: &str) -> Result<Value, Refusal> {
        if let Some(bytes) = self.runtime.get(method) {
            return Ok(json!(bytes));
        }
        let metadata = self.metadata.as_deref();
        let version = metadata.map(|bytes| u32::from(bytes[4])).unwrap_or_default();
        let opaque = |bytes: &[u8]| [compact(bytes.len() as u64), bytes.to_vec()].concat();
        let bytes = match (method, metadata) {
            ("Metadata_metadata_versions", Some(_)) => [compact(1), version.to_le_bytes().to_vec()].concat(),
            ("Metadata_metadata_at_version", Some(bytes)) if unhex(argument) == version.to_le_bytes() => {
                [vec![1], opaque(bytes)].concat()
            }
            ("Metadata_metadata_at_version", Some(_)) => vec![0],
            ("Core_version", _) => {
                let name = opaque(b"node-subtensor");
                let numbers = [1, self.spec_version, 1].map(u32::to_le_bytes).concat();
                // No APIs; transaction version 1, state version 1.
                [name.clone(), name, numbers, compact(0), 1u32.to_le_bytes().to_vec(), vec![1]].concat()
            }
            ("AccountNonceApi_account_nonce", _) => self.nonce.to_le_bytes().to_vec(),
            // Ok(ValidTransaction): priority 0, no tags it needs or gives, for ever, to be sent on.
            ("TaggedTransactionQueue_validate_transaction", _) => {
                [vec![0], vec![0; 8], vec![0, 0], vec![0xff; 8], vec![1]].concat()
            }
            _ => {
                let message = format!("Client error: Execution failed: Other: Exported method {method} is not found");
                return Err(Refusal::new(4003, message, None));
            }
        };
        Ok(json!(hex0x(&bytes)))
    }
}
