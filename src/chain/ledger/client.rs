//! The ledger's other side: [`Chain`] over HTTP, or in the ledger's own process, through the same signed path.

use std::net::IpAddr;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use serde::de::DeserializeOwned;

use super::call::{Call, SignedCall, chain_ip};
use super::node::{Account, Health, LedgerHandle, POOL_LIMIT_PER_ACCOUNT};
use super::rpc::{BlockHash, Refusal};
use crate::chain::commit::{commit_hash, storage_index};
use crate::chain::{
    BlockHead, Chain, ChainError, Hyperparameters, Inclusion, Metagraph, PreparedWeights, Rejection, Route, Signer,
    Weights, WeightsShown, next_epoch_block,
};
use crate::ids::{BlockNumber, Coldkey, Hash32, Hotkey, Netuid, Uid};

/// The largest answer that is read, in bytes.
const MAX_ANSWER: usize = 32 << 20;
/// Numbers of 16 bits in a commit's salt, as many as the SDK's.
const SALT: usize = 8;
/// Times that a call is signed because another call of the account took its nonce: of as many as may wait at once, one
/// gets through in each round.
const NONCE_ATTEMPTS: usize = POOL_LIMIT_PER_ACCOUNT;

/// Where a ledger is, as `ledger=http://127.0.0.1:9944` or just the URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerEndpoint(String);

/// Why a text names no ledger.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected ledger=http://127.0.0.1:PORT, not {0:?}")]
pub struct ParseEndpointError(String);

impl FromStr for LedgerEndpoint {
    type Err = ParseEndpointError;
    fn from_str(text: &str) -> Result<Self, ParseEndpointError> {
        let wrong = || ParseEndpointError(text.to_owned());
        let url = reqwest::Url::parse(text.strip_prefix("ledger=").unwrap_or(text)).map_err(|_| wrong())?;
        let plain = url.scheme() == "http" && url.username().is_empty() && url.password().is_none();
        let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        if !plain || !bare || url.host().is_none() {
            return Err(wrong());
        }
        Ok(LedgerEndpoint(url.as_str().trim_end_matches('/').to_owned()))
    }
}

impl std::fmt::Display for LedgerEndpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.0)
    }
}

/// How long calls may take, everything included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// For a read.
    pub read: Duration,
    /// For a call that changes the chain: it waits for a block.
    pub submit: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Deadlines { read: Duration::from_secs(5), submit: Duration::from_secs(60) }
    }
}

/// A ledger as one node sees it: bound to a subnet and a signing hotkey.
pub struct LedgerClient {
    link: Link,
    netuid: Netuid,
    signer: Arc<dyn Signer>,
    deadlines: Deadlines,
    mechanism: u8,
    /// The genesis hash first seen; calls are never signed for another ledger that took its place.
    genesis: OnceLock<Hash32>,
}

impl std::fmt::Debug for LedgerClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let link = match &self.link {
            Link::InProcess(_) => "in process",
            Link::Http { base, .. } => base.as_str(),
        };
        f.debug_struct("LedgerClient")
            .field("link", &link)
            .field("netuid", &self.netuid)
            .field("hotkey", &self.signer.hotkey())
            .finish_non_exhaustive()
    }
}

impl LedgerClient {
    /// A ledger over HTTP. Nothing is sent before the first call.
    ///
    /// # Errors
    /// `Unreachable` if no HTTP client can be made on this machine.
    pub fn http(
        endpoint: &LedgerEndpoint,
        netuid: Netuid,
        signer: Arc<dyn Signer>,
        deadlines: Deadlines,
    ) -> Result<Self, ChainError> {
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            // Shorter than the whole call, so that a host that swallows packets is told from a slow ledger.
            .connect_timeout(deadlines.read.mul_f64(0.8))
            .build()
            .map_err(|e| ChainError::Unreachable(chain_of(&e)))?;
        let link = Link::Http { base: endpoint.to_string(), client };
        Ok(LedgerClient { link, netuid, signer, deadlines, mechanism: 0, genesis: OnceLock::new() })
    }

    /// A ledger of this process. Calls are signed and checked all the same.
    pub fn in_process(handle: LedgerHandle, netuid: Netuid, signer: Arc<dyn Signer>, deadlines: Deadlines) -> Self {
        LedgerClient {
            link: Link::InProcess(handle),
            netuid,
            signer,
            deadlines,
            mechanism: 0,
            genesis: OnceLock::new(),
        }
    }

    /// The same, with weights for this mechanism of the subnet. A ledger has only mechanism 0: others cannot be prepared.
    #[must_use]
    pub fn with_mechanism(self, mechanism: u8) -> Self {
        LedgerClient { mechanism, ..self }
    }

    /// How the ledger is.
    ///
    /// # Errors
    /// If it cannot be asked.
    pub async fn health(&self) -> Result<Health, ChainError> {
        self.read(self.link.health()).await
    }

    /// Moves `amount_rao` of the coldkey's balance behind `hotkey`. A ledger has no market, so this is a call of its own.
    ///
    /// # Errors
    /// As for the calls of [`Chain`].
    pub async fn add_stake(
        &self,
        hotkey: Hotkey,
        amount_rao: u64,
        coldkey: &dyn Signer,
    ) -> Result<Inclusion, ChainError> {
        self.submit(Call::AddStake { hotkey, amount_rao }, coldkey).await
    }

    async fn read<T>(&self, answer: impl Future<Output = Result<T, ChainError>>) -> Result<T, ChainError> {
        within(self.deadlines.read, answer).await
    }

    async fn submit(&self, call: Call, signer: &dyn Signer) -> Result<Inclusion, ChainError> {
        within(self.deadlines.submit, self.submit_now(call, signer, None)).await
    }

    /// `carried`: the weights that the call carries, which are not sent too late.
    async fn submit_now(
        &self,
        call: Call,
        signer: &dyn Signer,
        carried: Option<&PreparedWeights>,
    ) -> Result<Inclusion, ChainError> {
        let mut attempts = NONCE_ATTEMPTS;
        loop {
            let account = self.link.account(signer.hotkey()).await?;
            let genesis = *self.genesis.get_or_init(|| account.genesis);
            if genesis != account.genesis {
                return Err(ChainError::Protocol(format!(
                    "another ledger took the place of the one with genesis {genesis}; restart this node to follow it"
                )));
            }
            let signed = SignedCall::sign(call.clone(), self.netuid, account.nonce, genesis, signer);
            attempts -= 1;
            if let Some(weights) = carried {
                weights.in_time(self.link.head().await.map_err(ChainError::unsent)?.number)?;
            }
            match self.link.submit(signed).await {
                Err(ChainError::Rejected(Rejection::StaleTransaction(_) | Rejection::FutureTransaction(_)))
                    if attempts > 0 => {}
                other => return other,
            }
        }
    }
}

fn columns(weights: &Weights) -> (Vec<u16>, Vec<u16>) {
    weights.entries.iter().map(|(uid, w)| (uid.0, *w)).unzip()
}

async fn within<T>(deadline: Duration, answer: impl Future<Output = Result<T, ChainError>>) -> Result<T, ChainError> {
    tokio::time::timeout(deadline, answer).await.unwrap_or(Err(ChainError::Deadline(deadline)))
}

#[async_trait]
impl Chain for LedgerClient {
    fn netuid(&self) -> Netuid {
        self.netuid
    }

    fn hotkey(&self) -> Hotkey {
        self.signer.hotkey()
    }

    async fn head(&self) -> Result<BlockHead, ChainError> {
        self.read(self.link.head()).await
    }

    async fn finalized(&self) -> Result<BlockNumber, ChainError> {
        // One author, and a block is announced only once it is on disk: what there is, is final.
        Ok(self.head().await?.number)
    }

    async fn block_hash(&self, n: BlockNumber) -> Result<Option<Hash32>, ChainError> {
        self.read(self.link.block_hash(n)).await
    }

    async fn metagraph(&self) -> Result<Arc<Metagraph>, ChainError> {
        let graph = self.read(self.link.metagraph()).await?;
        if graph.netuid != self.netuid {
            return Err(ChainError::Protocol(format!(
                "the ledger has subnet {}, this node is set to {}; set netuid to match",
                graph.netuid, self.netuid
            )));
        }
        Ok(graph)
    }

    async fn hyperparameters(&self) -> Result<Hyperparameters, ChainError> {
        self.read(self.link.hyperparameters()).await
    }

    async fn balance(&self, coldkey: &Coldkey) -> Result<u64, ChainError> {
        Ok(self.read(self.link.account(Hotkey(coldkey.0))).await?.balance_rao)
    }

    async fn serve_axon(&self, ip: IpAddr, port: u16, version: u32) -> Result<Inclusion, ChainError> {
        let (ip, ip_type) = chain_ip(ip);
        self.submit(Call::ServeAxon { version, ip, port, ip_type, protocol: 4 }, &*self.signer).await
    }

    async fn serve_prometheus(&self, ip: IpAddr, port: u16, version: u32) -> Result<Inclusion, ChainError> {
        let (ip, ip_type) = chain_ip(ip);
        self.submit(Call::ServePrometheus { version, ip, port, ip_type }, &*self.signer).await
    }

    async fn prepare_weights(&self, weights: &Weights) -> Result<PreparedWeights, ChainError> {
        if self.mechanism != 0 {
            return Err(Rejection::MechanismDoesNotExist.into());
        }
        let rules = self.hyperparameters().await?;
        let at = self.head().await?.number;
        let weights = weights.clone();
        if !rules.commit_reveal {
            return Ok(PreparedWeights { weights, mechanism: 0, route: Route::Plain, at, reveal: None });
        }
        let mut random = [0; 2 * SALT];
        getrandom::fill(&mut random).map_err(|e| ChainError::Protocol(format!("no randomness for the salt: {e}")))?;
        let salt: Vec<u16> = random.chunks_exact(2).map(|two| u16::from(two[0]) << 8 | u16::from(two[1])).collect();
        let index = storage_index(self.netuid, 0).map_err(|e| ChainError::Protocol(e.to_string()))?;
        let hash = commit_hash(&self.hotkey(), index, &weights, &salt);
        let length = u64::from(rules.tempo) + 1;
        // From the first block of the next epoch, that is one epoch after the commit's.
        let next = next_epoch_block(at.saturating_add(1), self.netuid, rules.tempo);
        let first = next.saturating_add(length.saturating_mul(rules.reveal_period.saturating_sub(1)));
        let reveal = Some((first, first.saturating_add(length)));
        Ok(PreparedWeights { weights, mechanism: 0, route: Route::Hashed { salt, hash }, at, reveal })
    }

    async fn submit_weights(&self, prepared: &PreparedWeights) -> Result<Inclusion, ChainError> {
        let call = match &prepared.route {
            Route::Plain => {
                let (uids, values) = columns(&prepared.weights);
                Call::SetWeights { uids, values, version_key: prepared.weights.version_key }
            }
            Route::Hashed { hash, .. } => Call::CommitWeights { hash: *hash },
            // The ledger has no beacon that would open them.
            Route::Timelocked { .. } => return Err(Rejection::IncorrectCommitRevealVersion.into()),
        };
        within(self.deadlines.submit, self.submit_now(call, &*self.signer, Some(prepared))).await
    }

    async fn reveal_weights(&self, prepared: &PreparedWeights) -> Result<Inclusion, ChainError> {
        let Route::Hashed { salt, .. } = &prepared.route else {
            return Err(Rejection::NoWeightsCommitFound.into());
        };
        let (uids, values) = columns(&prepared.weights);
        let version_key = prepared.weights.version_key;
        self.submit(Call::RevealWeights { uids, values, salt: salt.clone(), version_key }, &*self.signer).await
    }

    /// A call waits for the next block only; a few more for one that is just on its way.
    fn call_lifetime(&self) -> u64 {
        4
    }

    async fn weights_shown(&self) -> Result<WeightsShown, ChainError> {
        let shown = self.read(self.link.weights(self.hotkey())).await?;
        shown.ok_or(Rejection::HotKeyNotRegisteredInSubNet.into())
    }

    async fn weights_of_all(&self) -> Result<Vec<(Uid, Vec<(Uid, u16)>)>, ChainError> {
        let graph = self.metagraph().await?;
        let set = graph.neurons.iter().filter(|n| !n.weights.is_empty());
        Ok(set.map(|n| (n.uid, n.weights.clone())).collect())
    }

    async fn register(&self, hotkey: Hotkey, coldkey: &dyn Signer) -> Result<Inclusion, ChainError> {
        self.submit(Call::BurnedRegister { hotkey }, coldkey).await
    }
}

/// How the ledger is reached.
enum Link {
    InProcess(LedgerHandle),
    Http { base: String, client: reqwest::Client },
}

impl Link {
    async fn head(&self) -> Result<BlockHead, ChainError> {
        match self {
            Link::InProcess(ledger) => Ok(ledger.live_state()?.head()),
            Link::Http { base, client } => get(client, format!("{base}/head")).await,
        }
    }

    async fn block_hash(&self, n: BlockNumber) -> Result<Option<Hash32>, ChainError> {
        match self {
            Link::InProcess(ledger) => Ok(ledger.live_state()?.block_hash(n)),
            Link::Http { base, client } => {
                get::<BlockHash>(client, format!("{base}/block/{n}")).await.map(|answer| answer.hash)
            }
        }
    }

    async fn metagraph(&self) -> Result<Arc<Metagraph>, ChainError> {
        match self {
            Link::InProcess(ledger) => ledger.live_metagraph(),
            Link::Http { base, client } => get(client, format!("{base}/metagraph")).await.map(Arc::new),
        }
    }

    async fn hyperparameters(&self) -> Result<Hyperparameters, ChainError> {
        match self {
            Link::InProcess(ledger) => Ok(ledger.live_state()?.hyperparameters().clone()),
            Link::Http { base, client } => get(client, format!("{base}/hyperparameters")).await,
        }
    }

    async fn weights(&self, hotkey: Hotkey) -> Result<Option<WeightsShown>, ChainError> {
        match self {
            Link::InProcess(ledger) => Ok(ledger.live_state()?.weights_shown(&hotkey)),
            Link::Http { base, client } => get(client, format!("{base}/weights/{hotkey}")).await,
        }
    }

    async fn health(&self) -> Result<Health, ChainError> {
        match self {
            Link::InProcess(ledger) => Ok(ledger.health()),
            Link::Http { base, client } => get(client, format!("{base}/health")).await,
        }
    }

    async fn account(&self, who: Hotkey) -> Result<Account, ChainError> {
        match self {
            Link::InProcess(ledger) => ledger.account(who).await,
            Link::Http { base, client } => get(client, format!("{base}/account/{who}")).await,
        }
    }

    async fn submit(&self, signed: SignedCall) -> Result<Inclusion, ChainError> {
        match self {
            Link::InProcess(ledger) => ledger.submit(signed).await,
            Link::Http { base, client } => answer(client.post(format!("{base}/submit")).json(&signed)).await,
        }
    }
}

async fn get<T: DeserializeOwned>(client: &reqwest::Client, url: String) -> Result<T, ChainError> {
    answer(client.get(url)).await
}

/// Sends, reads at most [`MAX_ANSWER`] bytes, and tells answers from refusals.
async fn answer<T: DeserializeOwned>(request: reqwest::RequestBuilder) -> Result<T, ChainError> {
    let broken = |e: reqwest::Error| ChainError::Unreachable(chain_of(&e));
    let mut response = request.send().await.map_err(broken)?;
    let status = response.status();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(broken)? {
        if body.len() + chunk.len() > MAX_ANSWER {
            return Err(ChainError::Protocol(format!("the answer is longer than {MAX_ANSWER} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    if status.is_success() {
        return serde_json::from_slice(&body).map_err(|e| ChainError::Protocol(e.to_string()));
    }
    match serde_json::from_slice::<Refusal>(&body) {
        Ok(Refusal { rejection: Some(rejection), .. }) => Err(rejection.into()),
        Ok(Refusal { detail, .. }) if status == reqwest::StatusCode::SERVICE_UNAVAILABLE => {
            Err(ChainError::Unreachable(detail))
        }
        Ok(Refusal { error, detail, .. }) => Err(ChainError::Protocol(format!("{status}: {error}: {detail}"))),
        // The health of a ledger that makes no blocks comes with 503, in its usual shape.
        Err(_) => serde_json::from_slice(&body)
            .map_err(|_| ChainError::Protocol(format!("{status} without a reason; is this a ledger?"))),
    }
}

/// An error with everything below it, on one line.
fn chain_of(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut below = error.source();
    while let Some(e) = below {
        text.push_str(": ");
        text.push_str(&e.to_string());
        below = e.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_http_urls_with_or_without_the_prefix() {
        let parse = |t: &str| t.parse::<LedgerEndpoint>().map(|e| e.to_string());
        assert_eq!(parse("ledger=http://127.0.0.1:9944").unwrap(), "http://127.0.0.1:9944");
        assert_eq!(parse("http://[::1]:9944/").unwrap(), "http://[::1]:9944");
        for wrong in ["finney", "ledger=", "ledger=https://127.0.0.1:1", "http://a:b@127.0.0.1:1", "http://h/path"] {
            assert!(parse(wrong).unwrap_err().to_string().contains(wrong), "{wrong}");
        }
    }
}
