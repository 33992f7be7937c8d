//! One version of the chain's runtime, as its metadata describes it: builds calls, keys and arguments by name, and reads
//! answers by name. Pure: no connection, no clock.
//!
//! Nothing here knows an index of a pallet, a call, an event or an error: they move from version to version (an error that
//! is number 23 in one is another in the next). What a version lacks is found out by asking the metadata
//! ([`Runtime::has_call`], [`Runtime::has_storage`], [`Runtime::has_api`]), never by its number.
//!
//! Design notes: the coding is subxt's, offline; the bytes travel by our own connection, so that there is no call to the
//! chain that this node did not count and give a deadline.

use subxt::client::OfflineClientAtBlockImpl;
use subxt::config::DefaultExtrinsicParamsBuilder;
use subxt::config::substrate::{AccountId32, MultiSignature};
use subxt::dynamic::{self, Value};
use subxt::ext::scale_decode::DecodeAsType;
use subxt::ext::scale_value::Composite;
use subxt::metadata::Metadata;
use subxt::utils::H256;
use subxt::{OfflineClient, OfflineClientAtBlock, SubstrateConfig};

use super::call::Call;
use super::config::SubtensorConfig;
use crate::chain::Signer;
use crate::ids::{BlockNumber, Hash32};

/// The pallet of subnets.
pub const SUBTENSOR: &str = "SubtensorModule";
/// The extension that carries the tip from spec 425 on, in a composite of one field. Before, it has the name that subxt
/// knows by itself.
const WRAPPED_FEE: &str = "ChargeTransactionPaymentWrapper";
/// Longest metadata that is read, in bytes; finney's is a third of a mebibyte.
const MAX_METADATA: usize = 16 << 20;

/// Why something cannot be said in this runtime's terms, or its answer not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The metadata itself.
    #[error("the chain's metadata cannot be used: {0}")]
    Metadata(String),
    /// A call, storage item or function that this version does not have.
    #[error("spec {spec} of the chain's runtime has no {what}")]
    Missing {
        /// The runtime's version.
        spec: u32,
        /// What was looked for.
        what: String,
    },
    /// It has it in another form.
    #[error("{what} does not fit spec {spec} of the chain's runtime: {why}")]
    Shape {
        /// The runtime's version.
        spec: u32,
        /// What was to be built or read.
        what: String,
        /// What does not fit.
        why: String,
    },
}

/// For how long a signed call may be included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Era {
    /// For ever. Only for tests: such a call can come back years later.
    Immortal,
    /// From this block on, for so many blocks: a power of two from 4 to 65,536.
    Mortal {
        /// The number of the block it is signed at.
        number: BlockNumber,
        /// That block's hash.
        hash: Hash32,
        /// For so many blocks.
        blocks: u64,
    },
}

/// A version of the runtime. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Runtime {
    at: OfflineClientAtBlock<SubtensorConfig>,
}

/// A signed call, ready to be submitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extrinsic {
    /// The bytes of it, with their length in front.
    pub bytes: Vec<u8>,
    /// Their blake2b-256 hash, by which the chain knows it.
    pub hash: Hash32,
}

impl Runtime {
    /// The runtime with this metadata (the bytes that begin with `meta`), these versions, on the chain with this genesis.
    ///
    /// # Errors
    /// [`CodecError::Metadata`] if the metadata is none, or of a version that is not known.
    pub fn new(
        metadata: &[u8],
        spec_version: u32,
        transaction_version: u32,
        genesis: Hash32,
    ) -> Result<Self, CodecError> {
        let wrong = |why: String| CodecError::Metadata(why);
        if metadata.len() > MAX_METADATA {
            return Err(wrong(format!("it has {} bytes, more than {MAX_METADATA}", metadata.len())));
        }
        let metadata = Metadata::decode_from(metadata).map_err(|e| wrong(e.to_string()))?.arc();
        if metadata.pallet_by_name(SUBTENSOR).is_none() {
            return Err(wrong(format!("it has no pallet {SUBTENSOR}; is this a subtensor chain?")));
        }
        let versions = subxt::config::substrate::SpecVersionForRange {
            block_range: 0..u64::MAX,
            spec_version,
            transaction_version,
        };
        let config = SubstrateConfig::builder()
            .set_genesis_hash(H256(genesis.0))
            .set_metadata_for_spec_versions([(spec_version, metadata)])
            .set_spec_version_for_block_ranges([versions])
            .build();
        let at =
            OfflineClient::new_with_config(SubtensorConfig(config)).at_block(0u64).map_err(|e| wrong(e.to_string()))?;
        Ok(Runtime { at })
    }

    /// Its version.
    pub fn spec_version(&self) -> u32 {
        self.at.spec_version()
    }

    /// Whether it has this call of the pallet of subnets.
    pub fn has_call(&self, name: &str) -> bool {
        self.pallet().is_some_and(|p| p.call_variant_by_name(name).is_some())
    }

    /// Whether it has this storage item of the pallet of subnets.
    pub fn has_storage(&self, name: &str) -> bool {
        self.pallet().and_then(|p| p.storage()).is_some_and(|s| s.entry_by_name(name).is_some())
    }

    /// Whether it has this function, with the type it answers in the metadata: old versions say only that it is bytes.
    pub fn has_api(&self, api: &str, function: &str) -> bool {
        let metadata = self.at.metadata_ref();
        metadata.runtime_api_trait_by_name(api).is_some_and(|t| t.method_by_name(function).is_some())
    }

    /// Whether the metadata says no more of this function's answer than that it is bytes.
    pub fn answers_bytes(&self, api: &str, function: &str) -> bool {
        use scale_info::{TypeDef, TypeDefPrimitive};
        let metadata = self.at.metadata_ref();
        let resolve = |id| metadata.types().resolve(id).map(|t| &t.type_def);
        let output =
            metadata.runtime_api_trait_by_name(api).and_then(|t| t.method_by_name(function)).map(|m| m.output_ty());
        match output.and_then(resolve) {
            Some(TypeDef::Sequence(of)) => {
                matches!(resolve(of.type_param.id), Some(TypeDef::Primitive(TypeDefPrimitive::U8)))
            }
            _ => false,
        }
    }

    fn pallet(&self) -> Option<subxt::metadata::PalletMetadata<'_>> {
        self.at.metadata_ref().pallet_by_name(SUBTENSOR)
    }

    fn missing(&self, what: String) -> CodecError {
        CodecError::Missing { spec: self.spec_version(), what }
    }

    fn shape(&self, what: impl Into<String>, why: impl std::fmt::Display) -> CodecError {
        CodecError::Shape { spec: self.spec_version(), what: what.into(), why: why.to_string() }
    }

    /// The bytes of a call: pallet, call, arguments.
    ///
    /// # Errors
    /// [`CodecError`] if this version has no such call, or with other arguments.
    pub fn call_bytes(&self, call: &Call) -> Result<Vec<u8>, CodecError> {
        let name = call.name();
        if !self.has_call(name) {
            return Err(self.missing(format!("call {SUBTENSOR}.{name}")));
        }
        self.at.transactions().call_data(&payload(call)).map_err(|e| self.shape(format!("call {name}"), e))
    }

    /// What a signature of the call is over, before it is hashed if it is longer than 256 bytes.
    ///
    /// # Errors
    /// As for [`sign`](Self::sign).
    pub fn signer_payload(&self, call: &Call, nonce: u64, era: Era) -> Result<Vec<u8>, CodecError> {
        let payload = payload(call);
        let signable = self.signable(call, &payload, nonce, era)?;
        signable.signer_payload().map_err(|e| self.shape(format!("call {}", call.name()), e))
    }

    /// Signs a call as a version 4 extrinsic without a tip.
    ///
    /// # Errors
    /// [`CodecError`] if this version has no such call, or asks for an extension that nobody here knows.
    pub fn sign(&self, call: &Call, signer: &dyn Signer, nonce: u64, era: Era) -> Result<Extrinsic, CodecError> {
        let data = payload(call);
        let mut signable = self.signable(call, &data, nonce, era)?;
        let wrong = |e: subxt::error::ExtrinsicError| self.shape(format!("call {}", call.name()), e);
        let signature = MultiSignature::Sr25519(signer.sign(&signable.signer_payload().map_err(wrong)?));
        let signed =
            signable.sign_with_account_and_signature(&AccountId32(signer.hotkey().0), &signature).map_err(wrong)?;
        let hash = Hash32(signed.hash().0);
        Ok(Extrinsic { bytes: signed.into_encoded(), hash })
    }

    fn signable<'c>(&self, call: &Call, data: &'c Payload, nonce: u64, era: Era) -> Result<Signable<'c>, CodecError> {
        if !self.has_call(call.name()) {
            return Err(self.missing(format!("call {SUBTENSOR}.{}", call.name())));
        }
        let mut params = DefaultExtrinsicParamsBuilder::<SubtensorConfig>::new().nonce(nonce);
        params = match era {
            Era::Immortal => params.immortal(),
            Era::Mortal { number, hash, blocks } => params.mortal_from_unchecked(blocks, number, H256(hash.0)),
        };
        let extensions = self.at.metadata_ref().extrinsic().transaction_extensions_to_use_for_encoding();
        // Said where it is not asked for, it would be refused.
        if { extensions }.any(|e| e.identifier() == WRAPPED_FEE) {
            let tip = Value::unnamed_composite([Value::u128(0)]);
            params = params.custom_extension(WRAPPED_FEE, Value::named_composite([("inner", tip)]));
        }
        self.at
            .transactions()
            .create_v4_signable_offline(data, params.build())
            .map_err(|e| self.shape(format!("call {}", call.name()), e))
    }

    /// The key of a value in the pallet's storage.
    ///
    /// # Errors
    /// [`CodecError`] if there is no such item, or it has other keys.
    pub fn key(&self, item: &str, keys: Vec<Value>) -> Result<Vec<u8>, CodecError> {
        self.key_of(SUBTENSOR, item, keys)
    }

    /// The key of a value in any pallet's storage.
    ///
    /// # Errors
    /// As for [`key`](Self::key).
    pub fn key_of(&self, pallet: &str, item: &str, keys: Vec<Value>) -> Result<Vec<u8>, CodecError> {
        let wrong = |e: subxt::error::StorageError| self.shape(format!("storage {pallet}.{item}"), e);
        let entry = self.at.storage().entry(dynamic::storage::<Vec<Value>, Value>(pallet, item)).map_err(wrong)?;
        entry.fetch_key(keys).map_err(wrong)
    }

    /// What all keys of a map begin with.
    ///
    /// # Errors
    /// As for [`key`](Self::key).
    pub fn prefix(&self, item: &str, keys: Vec<Value>) -> Result<Vec<u8>, CodecError> {
        let wrong = |e: subxt::error::StorageError| self.shape(format!("storage {SUBTENSOR}.{item}"), e);
        let entry = self.at.storage().entry(dynamic::storage::<Vec<Value>, Value>(SUBTENSOR, item)).map_err(wrong)?;
        entry.iter_key(keys).map_err(wrong)
    }

    /// A value from the pallet's storage; the item's default where there is none, `None` where it has no default.
    ///
    /// # Errors
    /// [`CodecError`] if the bytes are not what the metadata says.
    pub fn value<T: DecodeAsType>(&self, item: &str, bytes: Option<&[u8]>) -> Result<Option<T>, CodecError> {
        self.value_of(SUBTENSOR, item, bytes)
    }

    /// A value from any pallet's storage, as [`value`](Self::value).
    ///
    /// # Errors
    /// As for [`value`](Self::value).
    pub fn value_of<T: DecodeAsType>(
        &self,
        pallet: &str,
        item: &str,
        bytes: Option<&[u8]>,
    ) -> Result<Option<T>, CodecError> {
        let what = || format!("storage {pallet}.{item}");
        let metadata = self.at.metadata_ref();
        let entry = metadata
            .pallet_by_name(pallet)
            .and_then(|p| p.storage())
            .and_then(|s| s.entry_by_name(item))
            .ok_or_else(|| self.missing(what()))?;
        let Some(bytes) = bytes.or_else(|| entry.default_value()) else { return Ok(None) };
        self.decode(entry.value_ty(), bytes).map(Some).map_err(|why| self.shape(what(), why))
    }

    /// The arguments of a function of the runtime.
    ///
    /// # Errors
    /// [`CodecError`] if there is no such function, or with other arguments.
    pub fn arguments(&self, api: &str, function: &str, arguments: Vec<Value>) -> Result<Vec<u8>, CodecError> {
        let call = dynamic::runtime_api_call::<_, Value>(api, function, arguments);
        self.at.runtime_apis().encode_args(call).map_err(|e| self.shape(format!("function {api}_{function}"), e))
    }

    /// What a function of the runtime answered.
    ///
    /// # Errors
    /// [`CodecError`] if the bytes are not what the metadata says.
    pub fn answer<T: DecodeAsType>(&self, api: &str, function: &str, bytes: &[u8]) -> Result<T, CodecError> {
        let what = || format!("the answer of {api}_{function}");
        let metadata = self.at.metadata_ref();
        let method = metadata
            .runtime_api_trait_by_name(api)
            .and_then(|t| t.method_by_name(function))
            .ok_or_else(|| self.missing(what()))?;
        self.decode(method.output_ty(), bytes).map_err(|why| self.shape(what(), why))
    }

    /// Reads the whole of `bytes` as the type with this number.
    fn decode<T: DecodeAsType>(&self, ty: u32, bytes: &[u8]) -> Result<T, String> {
        let mut rest = bytes;
        let value = T::decode_as_type(&mut rest, ty, self.at.metadata_ref().types()).map_err(|e| e.to_string())?;
        match rest.len() {
            0 => Ok(value),
            left => Err(format!("{left} of {} bytes are left over", bytes.len())),
        }
    }

    /// The time between two blocks: twice the least time between their timestamps, as substrate chains have it.
    ///
    /// # Errors
    /// [`CodecError`] if the metadata does not tell.
    pub fn block_time(&self) -> Result<std::time::Duration, CodecError> {
        let what = || "constant Timestamp.MinimumPeriod".to_owned();
        let metadata = self.at.metadata_ref();
        let constant = metadata.pallet_by_name("Timestamp").and_then(|p| p.constant_by_name("MinimumPeriod"));
        let constant = constant.ok_or_else(|| self.missing(what()))?;
        let half_ms: u64 = self.decode(constant.ty(), constant.value()).map_err(|why| self.shape(what(), why))?;
        Ok(std::time::Duration::from_millis(half_ms.saturating_mul(2)))
    }

    /// The events of a block, from the bytes of `System.Events`.
    pub fn events(&self, bytes: Vec<u8>) -> subxt::events::Events<SubtensorConfig> {
        self.at.events().from_bytes(bytes)
    }

    /// The name of a pallet's error, from the two numbers that the chain tells.
    pub fn error_name(&self, pallet: u8, error: u8) -> Option<String> {
        let metadata = self.at.metadata_ref();
        let pallet = metadata.pallet_by_error_index(pallet)?;
        Some(pallet.error_variant_by_index(error)?.name.clone())
    }

    /// The number of `System.DispatchError`'s type is the metadata's own matter; this reads what an
    /// `ExtrinsicFailed` event carries.
    ///
    /// # Errors
    /// [`CodecError`] if it is none.
    pub fn dispatch_error(&self, bytes: &[u8]) -> Result<String, CodecError> {
        let error = subxt::error::DispatchError::decode_from(bytes, self.at.metadata())
            .map_err(|e| self.shape("the error of a call", e))?;
        Ok(match &error {
            subxt::error::DispatchError::Module(module) => {
                self.error_name(module.pallet_index(), module.error_index()).unwrap_or_else(|| module.details_string())
            }
            other => other.to_string(),
        })
    }
}

#[cfg(test)]
impl Runtime {
    fn answer_type(&self, api: &str, function: &str) -> Option<u32> {
        let metadata = self.at.metadata_ref();
        Some(metadata.runtime_api_trait_by_name(api)?.method_by_name(function)?.output_ty())
    }

    /// The names of the fields of the composite that a function may answer.
    pub(super) fn fields_of_answer(&self, api: &str, function: &str) -> Option<Vec<String>> {
        use scale_info::TypeDef;
        let resolve = |id| self.at.metadata_ref().types().resolve(id).map(|t| &t.type_def);
        let TypeDef::Variant(option) = resolve(self.answer_type(api, function)?)? else { return None };
        let some = option.variants.iter().find(|v| v.name == "Some")?;
        let TypeDef::Composite(of) = resolve(some.fields.first()?.ty.id)? else { return None };
        of.fields.iter().map(|field| field.name.clone()).collect()
    }

    /// The bytes of an answer, as a chain would send it.
    pub(super) fn encode_answer(&self, api: &str, function: &str, answer: &Value) -> Result<Vec<u8>, String> {
        use subxt::ext::scale_encode::EncodeAsType;
        let ty = self.answer_type(api, function).ok_or("no such function")?;
        answer.encode_as_type(ty, self.at.metadata_ref().types()).map_err(|e| e.to_string())
    }
}

type Payload = subxt::transactions::DynamicPayload<Composite<()>>;
type Signable<'c> =
    subxt::transactions::SignableTransaction<'c, SubtensorConfig, OfflineClientAtBlockImpl<SubtensorConfig>, Payload>;

fn payload(call: &Call) -> Payload {
    dynamic::transaction(SUBTENSOR, call.name(), Composite::named(call.arguments()))
}
