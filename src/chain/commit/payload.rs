//! What a commit of weights holds: the payload of a timelocked one, and the hash of the older kind. In SCALE, as the
//! chain decodes it.
//!
//! A payload is `hotkey: Vec<u8>, uids: Vec<u16>, values: Vec<u16>, version_key: u64`. The chain refuses one whose hotkey
//! is not the committer's, so that a copied ciphertext is worth nothing. Refusals at the reveal are silent: nothing tells
//! but that the event `TimelockedWeightsRevealed` is missing.

use subxt::ext::codec::{Decode, Encode};

use crate::chain::Weights;
use crate::chain::ledger::blake2b_256;
use crate::ids::{Hash32, Hotkey, Netuid, Uid};

/// Mechanisms that a subnet can have.
pub const MECHANISMS: u8 = 16;
/// Subnets that the chain can have: `GLOBAL_MAX_SUBNET_COUNT` of pallet SubtensorModule.
pub const SUBNETS: u16 = 4096;

/// Why bytes are no payload.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// A field cannot be read.
    #[error("{field} of the weights' payload, at byte {at} of {total}: {reason}")]
    Field {
        /// The field.
        field: &'static str,
        /// Where it begins.
        at: usize,
        /// The bytes there are.
        total: usize,
        /// What SCALE says.
        reason: String,
    },
    /// The hotkey is no account.
    #[error("the hotkey of the weights' payload has {0} bytes, an account has 32")]
    Hotkey(usize),
    /// Uids and values do not belong together.
    #[error("the weights' payload has {uids} uids and {values} values, expected as many of each")]
    Uneven {
        /// The uids there are.
        uids: usize,
        /// The values there are.
        values: usize,
    },
    /// There is more behind the payload.
    #[error("{0} bytes follow the weights' payload")]
    Trailing(usize),
}

/// What a timelocked commit seals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WeightsPayload {
    /// Who commits: the hotkey that signs the commit.
    pub hotkey: Hotkey,
    /// The weights.
    pub weights: Weights,
}

impl WeightsPayload {
    /// The payload in SCALE: 55 bytes for 3 weights, 1,069 for 256.
    pub fn encode(&self) -> Vec<u8> {
        let (uids, values) = columns(&self.weights);
        (self.hotkey.0.as_slice(), uids, values, self.weights.version_key).encode()
    }

    /// Reads a payload. Strict: what it accepts, [`encode`](Self::encode) writes the same.
    ///
    /// # Errors
    /// [`PayloadError`]. What is allocated is bounded by the bytes there are.
    pub fn decode(bytes: &[u8]) -> Result<Self, PayloadError> {
        let mut rest = bytes;
        let total = bytes.len();
        let hotkey: Vec<u8> = field("the hotkey", &mut rest, total)?;
        let hotkey = <[u8; 32]>::try_from(hotkey).map_err(|other| PayloadError::Hotkey(other.len()))?;
        let uids: Vec<u16> = field("the uids", &mut rest, total)?;
        let values: Vec<u16> = field("the values", &mut rest, total)?;
        let version_key = field("the version key", &mut rest, total)?;
        if !rest.is_empty() {
            return Err(PayloadError::Trailing(rest.len()));
        }
        if uids.len() != values.len() {
            return Err(PayloadError::Uneven { uids: uids.len(), values: values.len() });
        }
        let entries = uids.into_iter().map(Uid).zip(values).collect();
        Ok(WeightsPayload { hotkey: Hotkey(hotkey), weights: Weights { entries, version_key } })
    }
}

fn field<T: Decode>(field: &'static str, rest: &mut &[u8], total: usize) -> Result<T, PayloadError> {
    let at = total - rest.len();
    T::decode(rest).map_err(|e| PayloadError::Field { field, at, total, reason: e.to_string() })
}

fn columns(weights: &Weights) -> (Vec<u16>, Vec<u16>) {
    weights.entries.iter().map(|(uid, value)| (uid.0, *value)).unzip()
}

/// Why a subnet and a mechanism have no storage index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StorageIndexError {
    /// The subnet's number would read as another mechanism.
    #[error("subnet {0}: the chain has subnets 0 to {last}", last = SUBNETS - 1)]
    Netuid(Netuid),
    /// There is no such mechanism.
    #[error("mechanism {0}: a subnet has mechanisms 0 to {last}", last = MECHANISMS - 1)]
    Mechanism(u8),
}

/// A subnet's mechanism as the chain counts them in commits and weights: `netuid + 4096 · mechanism`. For mechanism 0,
/// the only one of most subnets, it is the netuid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StorageIndex(u16);

impl StorageIndex {
    /// The number.
    pub const fn get(self) -> u16 {
        self.0
    }
}

/// The storage index of a subnet's mechanism.
///
/// # Errors
/// [`StorageIndexError`] from subnet 4,096 or mechanism 16 on.
pub fn storage_index(netuid: Netuid, mechanism: u8) -> Result<StorageIndex, StorageIndexError> {
    if netuid.0 >= SUBNETS {
        return Err(StorageIndexError::Netuid(netuid));
    }
    if mechanism >= MECHANISMS {
        return Err(StorageIndexError::Mechanism(mechanism));
    }
    Ok(StorageIndex(netuid.0 + SUBNETS * u16::from(mechanism)))
}

/// The hash that `commit_weights` and `commit_mechanism_weights` take: blake2b-256 over account, storage index, uids,
/// values, salt and version key in SCALE. The reveal must repeat all of them; `salt` keeps others from guessing the
/// weights, so it must be random.
pub fn commit_hash(hotkey: &Hotkey, index: StorageIndex, weights: &Weights, salt: &[u16]) -> Hash32 {
    blake2b_256(&[&commit_preimage(hotkey, index, weights, salt)])
}

fn commit_preimage(hotkey: &Hotkey, index: StorageIndex, weights: &Weights, salt: &[u16]) -> Vec<u8> {
    let (uids, values) = columns(weights);
    (hotkey.0, index.0, uids, values, salt, weights.version_key).encode()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::test_vectors::{bytes, numbers, sdk, timelock};
    use super::*;

    fn weights(uids: &[u16], values: &[u16], version_key: u64) -> Weights {
        assert_eq!(uids.len(), values.len());
        Weights { entries: uids.iter().copied().map(Uid).zip(values.iter().copied()).collect(), version_key }
    }

    fn small() -> Vec<u8> {
        WeightsPayload { hotkey: Hotkey([7; 32]), weights: weights(&[1, 5], &[65_535, 3], 183) }.encode()
    }

    #[test]
    fn payloads_are_those_of_bittensors_tool_bit_for_bit_and_read_back() {
        let file = timelock();
        let cases = file["cases"].as_array().unwrap();
        assert_eq!(cases.len(), 3);
        for case in cases {
            let expected = bytes(&case["payload_scale_hex"]);
            let payload = WeightsPayload {
                hotkey: Hotkey(bytes(&case["hotkey_pubkey"]).try_into().unwrap()),
                weights: weights(
                    &numbers(&case["uids"]),
                    &numbers(&case["values"]),
                    case["version_key"].as_u64().unwrap(),
                ),
            };
            assert_eq!(hex::encode(payload.encode()), hex::encode(&expected), "{}", case["id"]);
            assert_eq!(case["sizes"]["payload"], expected.len());
            assert_eq!(WeightsPayload::decode(&expected), Ok(payload));
        }
    }

    #[test]
    fn commit_hashes_and_what_they_are_over_are_the_sdks_bit_for_bit() {
        let file = sdk();
        let cases = file["weight_hash"].as_array().unwrap();
        assert_eq!(cases.len(), 3);
        for case in cases {
            let hotkey: Hotkey = case["account"].as_str().unwrap().parse().unwrap();
            let number = u16::try_from(case["netuid_index"].as_u64().unwrap()).unwrap();
            let index = storage_index(Netuid(number % SUBNETS), (number / SUBNETS) as u8).unwrap();
            assert_eq!(index.get(), number);
            let weights =
                weights(&numbers(&case["uids"]), &numbers(&case["values"]), case["version_key"].as_u64().unwrap());
            let salt = numbers(&case["salt"]);
            assert_eq!(commit_preimage(&hotkey, index, &weights, &salt), bytes(&case["preimage_hex"]));
            assert_eq!(commit_hash(&hotkey, index, &weights, &salt).0.as_slice(), bytes(&case["hash"]));
        }
    }

    #[test]
    fn a_storage_index_never_reads_as_another_subnet_or_mechanism() {
        let index = |netuid, mechanism| storage_index(Netuid(netuid), mechanism).map(StorageIndex::get);
        assert_eq!(index(27, 0), Ok(27));
        assert_eq!(index(27, 1), Ok(4123));
        assert_eq!(index(4095, 15), Ok(u16::MAX));
        assert_eq!(index(4096, 0), Err(StorageIndexError::Netuid(Netuid(4096))));
        assert_eq!(index(0, 16), Err(StorageIndexError::Mechanism(16)));
        let text = index(4096, 0).unwrap_err().to_string() + "; " + &index(0, 16).unwrap_err().to_string();
        assert_eq!(text, "subnet 4096: the chain has subnets 0 to 4095; mechanism 16: a subnet has mechanisms 0 to 15");
    }

    #[test]
    fn a_payload_with_anything_wrong_is_an_error_that_says_what() {
        let good = small();
        let error = |bytes: &[u8]| WeightsPayload::decode(bytes).unwrap_err().to_string();
        for length in 0..good.len() {
            assert!(error(&good[..length]).contains("of the weights' payload, at byte"), "{length} bytes");
        }
        assert_eq!(error(&[good.as_slice(), &[0, 0]].concat()), "2 bytes follow the weights' payload");
        let uneven = (vec![7u8; 32], vec![1u16, 2], vec![3u16], 0u64).encode();
        assert_eq!(error(&uneven), "the weights' payload has 2 uids and 1 values, expected as many of each");
        let short = (vec![7u8; 31], vec![1u16], vec![3u16], 0u64).encode();
        assert_eq!(error(&short), "the hotkey of the weights' payload has 31 bytes, an account has 32");
    }

    #[test]
    fn a_list_that_claims_a_gigabyte_is_refused_for_what_is_there() {
        // 2^30 - 1 uids by their compact length, and no uid.
        let mut bytes = small()[..33].to_vec();
        bytes.extend_from_slice(&[0xfe, 0xff, 0xff, 0xff]);
        let Err(PayloadError::Field { field: "the uids", at: 33, total: 37, reason }) = WeightsPayload::decode(&bytes)
        else {
            panic!("expected the uids to be refused");
        };
        assert!(reason.contains("Not enough data"), "{reason}");
    }

    proptest! {
        #[test]
        fn payloads_survive_their_encoding(
            key: [u8; 32],
            entries in proptest::collection::vec((any::<u16>().prop_map(Uid), any::<u16>()), 0..300),
            version_key: u64,
        ) {
            let payload = WeightsPayload { hotkey: Hotkey(key), weights: Weights { entries, version_key } };
            prop_assert_eq!(WeightsPayload::decode(&payload.encode()), Ok(payload));
        }

        /// The fuzzer's promise: any bytes at all are an error, or exactly what the value read from them encodes to.
        #[test]
        fn what_is_accepted_is_canonical(
            noise in proptest::collection::vec(any::<u8>(), 0..80),
            at in 0usize..60,
        ) {
            let mut bytes = small();
            bytes.truncate(at);
            bytes.extend_from_slice(&noise);
            for bytes in [bytes, noise] {
                if let Ok(payload) = WeightsPayload::decode(&bytes) {
                    prop_assert_eq!(payload.encode(), bytes);
                }
            }
        }
    }
}
