//! What the chain says when it refuses a call, as one of our [`Rejection`]s. Pure.
//!
//! A call is refused at three places, each with words of its own: by the runtime's check before it enters the pool (a
//! variant, often `Custom` with a number), by the pool of the node (a JSON-RPC code), and when it is carried out (a name from
//! the metadata). Names that this node does not know are kept as they are.

use subxt::ext::codec::Decode;

use super::rpc::RpcError;
use crate::chain::{ChainError, Rejection};

/// The numbers of subtensor's `CustomTransactionError`, in their order; the same from spec 343 to 459.
const CUSTOM: &[Result<Rejection, &str>] = &[
    Ok(Rejection::ColdkeyInSwapSchedule),
    Ok(Rejection::StakeAmountTooLow),
    Ok(Rejection::BalanceTooLow),
    Ok(Rejection::SubnetNotExists),
    Ok(Rejection::HotKeyAccountNotExists),
    Err("NotEnoughStakeToWithdraw"),
    Ok(Rejection::RateLimitExceeded),
    Err("InsufficientLiquidity"),
    Err("SlippageTooHigh"),
    Err("TransferDisallowed"),
    Ok(Rejection::HotKeyNotRegisteredInNetwork),
    Ok(Rejection::InvalidIpAddress),
    Ok(Rejection::ServingRateLimitExceeded),
    Ok(Rejection::InvalidPort),
    Err("ZeroMaxAmount"),
    Ok(Rejection::InvalidRevealRound),
    Ok(Rejection::NoWeightsCommitFound),
    Ok(Rejection::CommitBlockNotInRevealRange),
    Ok(Rejection::InputLengthsUnequal),
    Ok(Rejection::UidNotFound),
    Err("EvmKeyAssociateRateLimitExceeded"),
    Err("ColdkeySwapDisputed"),
    Err("InvalidRealAccount"),
    Err("FailedShieldedTxParsing"),
    Err("InvalidShieldedTxPubKeyHash"),
    Ok(Rejection::NonAssociatedColdKey),
    Err("DelegateTakeTooLow"),
    Err("DelegateTakeTooHigh"),
];

/// The code of a pool that has the same call already. It does not say that the call will not be included: it may be ours.
pub const ALREADY_IMPORTED: i32 = 1013;

/// A refusal with one of the runtime's own numbers.
pub fn custom(number: u8) -> ChainError {
    match CUSTOM.get(usize::from(number)) {
        Some(Ok(rejection)) => (*rejection).into(),
        Some(Err(name)) => ChainError::Refused((*name).to_owned()),
        None if number == u8::MAX => Rejection::BadRequest.into(),
        None => ChainError::Refused(format!("Custom error {number}")),
    }
}

/// A refusal by its name in the metadata.
pub fn named(name: &str) -> ChainError {
    match Rejection::of_name(name) {
        Some(rejection) => rejection.into(),
        None => ChainError::Refused(name.to_owned()),
    }
}

/// What `TaggedTransactionQueue_validate_transaction` answers: whether the call would enter the pool.
///
/// # Errors
/// The refusal; [`ChainError::Protocol`] if the bytes are no such answer.
pub fn validity(bytes: &[u8]) -> Result<(), ChainError> {
    #[derive(Decode)]
    #[codec(crate = subxt::ext::codec)]
    enum Invalid {
        Call,
        Payment,
        Future,
        Stale,
        BadProof,
        AncientBirthBlock,
        ExhaustsResources,
        Custom(u8),
        BadMandatory,
        MandatoryValidation,
        BadSigner,
        IndeterminateImplicit,
        UnknownOrigin,
    }
    #[derive(Decode)]
    #[codec(crate = subxt::ext::codec)]
    enum Unknown {
        CannotLookup,
        NoUnsignedValidator,
        Custom(u8),
    }
    let refused = |name: &str| ChainError::Refused(name.to_owned());
    let unreadable = || ChainError::Protocol("the runtime's check of a call cannot be read".to_owned());
    let (kind, mut rest) = bytes.split_at_checked(2).unwrap_or((bytes, &[]));
    match kind {
        [0, ..] => Ok(()),
        [1, 0] => Err(match Invalid::decode(&mut rest).map_err(|_| unreadable())? {
            Invalid::Custom(number) => custom(number),
            Invalid::Payment => Rejection::Payment.into(),
            Invalid::Stale => Rejection::Outdated.into(),
            Invalid::AncientBirthBlock => Rejection::AncientBirthBlock.into(),
            Invalid::ExhaustsResources => Rejection::ExhaustsResources.into(),
            Invalid::BadProof => Rejection::BadSignature.into(),
            Invalid::Call => refused("Call"),
            Invalid::Future => refused("Future"),
            Invalid::BadMandatory => refused("BadMandatory"),
            Invalid::MandatoryValidation => refused("MandatoryValidation"),
            Invalid::BadSigner => refused("BadSigner"),
            Invalid::IndeterminateImplicit => refused("IndeterminateImplicit"),
            Invalid::UnknownOrigin => refused("UnknownOrigin"),
        }),
        [1, 1] => Err(match Unknown::decode(&mut rest).map_err(|_| unreadable())? {
            Unknown::CannotLookup => refused("CannotLookup"),
            Unknown::NoUnsignedValidator => refused("NoUnsignedValidator"),
            Unknown::Custom(number) => ChainError::Refused(format!("Unknown custom error {number}")),
        }),
        _ => Err(unreadable()),
    }
}

/// A node's refusal to take a call into its pool; anything else stays what it is.
pub fn pool(error: RpcError) -> ChainError {
    let RpcError::Call { code, message, data, .. } = &error else { return error.into() };
    let said = data.as_deref().unwrap_or(message);
    match code {
        1010 => match said.rsplit_once("Custom error: ").and_then(|(_, n)| n.trim().parse().ok()) {
            Some(number) => custom(number),
            None if said.contains("outdated") => Rejection::Outdated.into(),
            None if said.contains("ancient") => Rejection::AncientBirthBlock.into(),
            None if said.contains("bad signature") => Rejection::BadSignature.into(),
            None if said.contains("pay some fees") => Rejection::Payment.into(),
            None if said.contains("exhaust") => Rejection::ExhaustsResources.into(),
            None => ChainError::Refused(said.to_owned()),
        },
        1012 => Rejection::Banned.into(),
        1014 => Rejection::Priority.into(),
        1016 => Rejection::PoolFull.into(),
        _ => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runtimes_numbers_have_the_names_of_its_source() {
        let rejection = |n| custom(n).rejection();
        assert_eq!(rejection(6), Some(Rejection::RateLimitExceeded));
        assert_eq!(rejection(12), Some(Rejection::ServingRateLimitExceeded));
        assert_eq!(rejection(15), Some(Rejection::InvalidRevealRound));
        assert_eq!(rejection(25), Some(Rejection::NonAssociatedColdKey));
        assert_eq!(rejection(255), Some(Rejection::BadRequest));
        assert_eq!(custom(24), ChainError::Refused("InvalidShieldedTxPubKeyHash".to_owned()));
        assert_eq!(custom(99), ChainError::Refused("Custom error 99".to_owned()));
    }

    #[test]
    fn the_check_before_the_pool_is_read_to_its_number() {
        assert_eq!(validity(&[0, 0, 0, 0]), Ok(()));
        assert_eq!(validity(&[1, 0, 7, 6]).unwrap_err().rejection(), Some(Rejection::RateLimitExceeded));
        assert_eq!(validity(&[1, 0, 3]).unwrap_err().rejection(), Some(Rejection::Outdated));
        assert_eq!(validity(&[1, 1, 0]), Err(ChainError::Refused("CannotLookup".to_owned())));
        for broken in [&[][..], &[1], &[1, 0], &[1, 0, 7], &[2, 0], &[1, 5, 1]] {
            assert!(matches!(validity(broken), Err(ChainError::Protocol(_))), "{broken:?}");
        }
    }

    #[test]
    fn what_a_pool_says_is_told_from_what_a_broken_line_is() {
        let said = |code, data: &str| {
            pool(RpcError::Call {
                method: "author_submitAndWatchExtrinsic",
                code,
                message: "Invalid Transaction".to_owned(),
                data: Some(data.to_owned()),
            })
        };
        assert_eq!(said(1010, "Custom error: 12").rejection(), Some(Rejection::ServingRateLimitExceeded));
        assert_eq!(said(1010, "Transaction is outdated").rejection(), Some(Rejection::Outdated));
        assert_eq!(said(1010, "Transaction has a bad signature").rejection(), Some(Rejection::BadSignature));
        assert_eq!(said(1014, "The transaction has too low priority").rejection(), Some(Rejection::Priority));
        assert_eq!(said(1010, "something new"), ChainError::Refused("something new".to_owned()));
        assert!(said(ALREADY_IMPORTED, "[..]").is_unclear(), "a call that is there already may be included");
        assert!(matches!(pool(RpcError::Broken("gone".to_owned())), ChainError::Unreachable(_)));
    }

    #[test]
    fn names_of_the_metadata_are_known_or_kept() {
        assert_eq!(named("SettingWeightsTooFast").rejection(), Some(Rejection::SettingWeightsTooFast));
        assert_eq!(named("AccountRejectsLockedAlpha"), ChainError::Refused("AccountRejectsLockedAlpha".to_owned()));
    }
}
