//! What can go wrong with the chain. [`Rejection`] is closed and speaks the real chain's error names.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Why a call to the chain failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// Nobody answers there, or the connection broke. Nothing is known about a call that was on its way.
    #[error("the chain cannot be reached: {0}")]
    Unreachable(String),
    /// No answer in time. Whether a submitted call will be included is **not** known: look before trying again.
    #[error("the chain did not answer within {}", humantime::format_duration(*.0))]
    Deadline(Duration),
    /// The chain refused the call.
    #[error("the chain refused the call: {0}")]
    Rejected(#[source] Rejection),
    /// The chain refused the call in words that this node does not know: a newer error of its runtime.
    #[error("the chain refused the call: {0}")]
    Refused(String),
    /// The other side does not speak as expected, or is not the chain that this node is set to.
    #[error("the chain's answer cannot be used: {0}")]
    Protocol(String),
    /// A call that changes the chain failed before it was sent: it can not be included.
    #[error("the call was not sent: {why}")]
    Unsent {
        /// What the failure asks for.
        class: Class,
        /// What failed.
        why: String,
    },
    /// A block's state is in the form of another runtime than the one in use, as it is for some blocks around an upgrade.
    /// Nothing was read of it.
    #[error("the chain's runtime is being upgraded: {0}")]
    Upgrading(String),
}

/// What a failed call asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// A person must change something: key, stake, setting or program. Trying again alone does not help.
    Fatal,
    /// The next attempt may do, made anew from what the chain shows then.
    Retry,
    /// Time heals it: a limit in blocks, a queue that is full.
    Wait,
}

impl Class {
    /// The classes.
    pub const ALL: [Class; 3] = [Class::Fatal, Class::Retry, Class::Wait];

    /// Its name in metrics and logs.
    pub fn label(self) -> &'static str {
        match self {
            Class::Fatal => "fatal",
            Class::Retry => "retry",
            Class::Wait => "wait",
        }
    }
}

impl ChainError {
    /// What it asks for.
    pub fn class(&self) -> Class {
        match self {
            ChainError::Unreachable(_)
            | ChainError::Deadline(_)
            | ChainError::Refused(_)
            | ChainError::Upgrading(_) => Class::Retry,
            ChainError::Unsent { class, .. } => *class,
            // Another chain, or one that this program does not understand.
            ChainError::Protocol(_) => Class::Fatal,
            ChainError::Rejected(rejection) => rejection.class(),
        }
    }

    /// Its name in metrics: the chain's for a refusal.
    pub fn name(&self) -> &'static str {
        match self {
            ChainError::Unreachable(_) => "unreachable",
            ChainError::Deadline(_) => "deadline",
            ChainError::Refused(_) => "refused",
            ChainError::Protocol(_) => "protocol",
            ChainError::Unsent { .. } => "unsent",
            ChainError::Upgrading(_) => "upgrading",
            ChainError::Rejected(rejection) => rejection.name(),
        }
    }

    /// Every class with every name in it, refusals included.
    pub fn classes() -> Vec<(Class, &'static str)> {
        let own = [
            ChainError::Unreachable(String::new()),
            ChainError::Deadline(Duration::ZERO),
            ChainError::Refused(String::new()),
            ChainError::Protocol(String::new()),
            ChainError::Upgrading(String::new()),
        ];
        let unsent = Class::ALL.map(|class| ChainError::Unsent { class, why: String::new() });
        let own = own.iter().chain(&unsent).map(|e| (e.class(), e.name()));
        own.chain(Rejection::ALL.iter().map(|r| (r.class(), r.name()))).collect()
    }

    /// Whether a call that ended like this may still be included, or be already. A pool that dropped it may have handed it on
    /// to others before.
    pub fn is_unclear(&self) -> bool {
        match self {
            ChainError::Unreachable(_)
            | ChainError::Deadline(_)
            | ChainError::Protocol(_)
            | ChainError::Upgrading(_) => true,
            ChainError::Rejected(rejection) => {
                matches!(rejection, Rejection::PoolFull | Rejection::Outdated | Rejection::Banned)
            }
            ChainError::Refused(_) | ChainError::Unsent { .. } => false,
        }
    }

    /// The same of a call that was not sent yet. A refusal stays what it is; whatever else would leave open what becomes of the
    /// call does not.
    #[must_use]
    pub fn unsent(self) -> Self {
        let (class, why) = (self.class(), self.to_string());
        if self.is_unclear() { ChainError::Unsent { class, why } } else { self }
    }

    /// The refusal, if this is one.
    pub fn rejection(&self) -> Option<Rejection> {
        match self {
            ChainError::Rejected(r) => Some(*r),
            _ => None,
        }
    }
}

impl From<super::subtensor::CodecError> for ChainError {
    fn from(error: super::subtensor::CodecError) -> Self {
        ChainError::Protocol(error.to_string())
    }
}

impl From<Rejection> for ChainError {
    fn from(r: Rejection) -> Self {
        ChainError::Rejected(r)
    }
}

macro_rules! rejections {
    ($($(#[$doc:meta])* $variant:ident $(($data:ty))? = $text:literal;)*) => {
        /// A refusal by the chain. The variants' names are the chain's error names; [`name`](Rejection::name) gives them
        /// as text.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum Rejection { $($(#[$doc])* #[doc = $text] $variant $(($data))?,)* }
        impl Rejection {
            /// Every name, in declaration order.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($variant)),*];
            /// One of each, in declaration order.
            pub const ALL: &'static [Rejection] = &[$(rejections!(@one $variant $(($data))?)),*];
            /// The chain's name of the error.
            pub fn name(&self) -> &'static str {
                match self { $(rejections!(@pattern $variant $(($data))?) => stringify!($variant)),* }
            }
            /// The refusal with this name; none of those that carry a number.
            pub fn of_name(name: &str) -> Option<Self> {
                match name { $(stringify!($variant) => rejections!(@of $variant $(($data))?),)* _ => None }
            }
            /// What was wrong and what helps, as a lower-case fragment.
            pub fn text(&self) -> &'static str {
                match self { $(rejections!(@pattern $variant $(($data))?) => $text),* }
            }
        }
    };
    (@one $variant:ident) => { Rejection::$variant };
    (@one $variant:ident ($data:ty)) => { Rejection::$variant(<$data>::MIN) };
    (@of $variant:ident) => { Some(Rejection::$variant) };
    (@of $variant:ident ($data:ty)) => { None };
    (@pattern $variant:ident) => { Rejection::$variant };
    (@pattern $variant:ident ($data:ty)) => { Rejection::$variant(_) };
}

rejections! {
    SubnetNotExists = "this chain has no such subnet; check netuid";
    // Weights, in the order in which the chain checks.
    CanNotSetRootNetworkWeights = "weights of the root network (netuid 0) cannot be set by this call";
    CommitRevealEnabled = "the subnet takes weights only through commit and reveal";
    CommitRevealDisabled = "the subnet takes weights in the open, not through commit and reveal";
    IncorrectCommitRevealVersion = "the chain takes another version of timelocked commits; update this node";
    CommittingWeightsTooFast = "weights were committed too few blocks ago";
    TooManyUnrevealedCommits = "too many commits wait to be revealed; wait for the next epochs";
    InvalidRevealRound = "the round that opens the commit has passed already; check this machine's clock";
    NoWeightsCommitFound = "there is no such commit to reveal";
    InvalidRevealCommitHashNotMatch = "the revealed weights are not those that were committed to";
    ExpiredWeightCommit = "the time to reveal this commit is over";
    RevealTooEarly = "the time to reveal this commit has not come";
    CommitBlockNotInRevealRange = "this is not the time to reveal that commit";
    MechanismDoesNotExist = "the subnet has no such mechanism; check weights.mechanism";
    InputLengthsUnequal = "lists of one call differ in length";
    WeightVecNotEqualSize = "as many weights as uids are needed";
    UidsLengthExceedUidsInSubNet = "more weights than neurons";
    HotKeyNotRegisteredInSubNet = "the hotkey has no uid in this subnet; register it";
    NotEnoughStakeToSetWeights = "the stake is below the threshold for setting weights";
    IncorrectWeightVersionKey = "the version key is older than the subnet's; update the validator";
    SettingWeightsTooFast = "weights were set too few blocks ago";
    NeuronNoValidatorPermit = "only neurons with a validator permit may weigh others; permits are given at each epoch, by stake";
    DuplicateUids = "a uid appears twice";
    UidVecContainInvalidOne = "a uid has no neuron";
    WeightVecLengthIsLow = "fewer weights than the subnet's least number";
    MaxWeightExceeded = "one weight has a larger share than the subnet allows";
    // Serving.
    HotKeyNotRegisteredInNetwork = "the hotkey is registered in no subnet; register it";
    InvalidIpType = "the type of an address is 4 or 6";
    InvalidIpAddress = "the address cannot be served: 127.0.0.1, ::1, all ones, and for metrics 0, are refused";
    InvalidPort = "port 0 cannot be served";
    ServingRateLimitExceeded = "this was served too few blocks ago";
    // Registration and stake.
    HotKeyAlreadyRegisteredInSubNet = "the hotkey already has a uid in this subnet";
    NonAssociatedColdKey = "the hotkey belongs to another coldkey";
    NotEnoughBalanceToStake = "the coldkey's balance is too small";
    TooManyRegistrationsThisBlock = "the block takes no more registrations; try the next one";
    NoNeuronIdAvailable = "every uid is taken and every neuron is within its immunity period";
    HotKeyAccountNotExists = "the chain does not know this hotkey";
    AmountTooLow = "the amount is too small";
    TooManyRegistrationsThisInterval = "the subnet takes no more registrations in this interval; try again in an hour";
    SubNetRegistrationDisabled = "the subnet takes no registrations now";
    RegistrationPriceLimitExceeded = "registering costs more than the given limit now";
    RegistrationNotPermittedOnRootSubnet = "the root network has another way to register";
    BalanceTooLow = "the coldkey's balance is too small";
    ColdkeyInSwapSchedule = "the coldkey is about to be swapped; wait until that is done";
    // The pool. The chain tells only a number for these; see `subtensor::refusal`.
    StakeAmountTooLow = "the stake is too small; for weights: below the subnet's threshold";
    RateLimitExceeded = "this was done too few blocks ago";
    UidNotFound = "the uid has no neuron";
    BadRequest = "the chain refuses the call without a reason";
    Payment = "the account cannot pay the fee; hotkeys pay none for serving and weights, so the call was another one";
    AncientBirthBlock = "the call was signed too long ago";
    ExhaustsResources = "the block is full; try the next one";
    Banned = "the same call was refused a short while ago, or is too old; it is signed anew";
    Priority = "another call of this account with the same nonce waits for a block";
    Outdated = "the call was overtaken by another one of the account";
    // The envelope. The real chain says BadProof for the first two and Stale or Future for the nonces.
    BadSignature = "the signature is not the signer's over this call";
    WrongGenesis = "the call was signed for another chain";
    /// Carries the nonce that the chain expects next.
    StaleTransaction(u64) = "the nonce was used before";
    /// Carries the nonce that the chain expects next.
    FutureTransaction(u64) = "the nonce is ahead of the account's";
    /// The real chain says "Immediately Dropped".
    PoolFull = "too many calls wait for a block; try again after the next one";
}

impl Rejection {
    /// What it asks for.
    pub fn class(self) -> Class {
        use Rejection as R;
        match self {
            R::SettingWeightsTooFast
            | R::CommittingWeightsTooFast
            | R::TooManyUnrevealedCommits
            | R::RevealTooEarly
            | R::CommitBlockNotInRevealRange
            | R::ServingRateLimitExceeded
            | R::RateLimitExceeded
            | R::TooManyRegistrationsThisBlock
            | R::TooManyRegistrationsThisInterval
            | R::NoNeuronIdAvailable
            | R::ColdkeyInSwapSchedule
            | R::ExhaustsResources
            | R::PoolFull => Class::Wait,
            // The subnet's rules or its neurons changed between preparing and sending, or the envelope was overtaken.
            R::CommitRevealEnabled
            | R::CommitRevealDisabled
            | R::InvalidRevealRound
            | R::NoWeightsCommitFound
            | R::InvalidRevealCommitHashNotMatch
            | R::ExpiredWeightCommit
            | R::UidsLengthExceedUidsInSubNet
            | R::UidVecContainInvalidOne
            | R::UidNotFound
            | R::WeightVecLengthIsLow
            | R::MaxWeightExceeded
            | R::BadRequest
            | R::AncientBirthBlock
            | R::Banned
            | R::Priority
            | R::Outdated
            | R::StaleTransaction(_)
            | R::FutureTransaction(_)
            | R::RegistrationPriceLimitExceeded => Class::Retry,
            R::SubnetNotExists
            | R::CanNotSetRootNetworkWeights
            | R::IncorrectCommitRevealVersion
            | R::MechanismDoesNotExist
            | R::InputLengthsUnequal
            | R::WeightVecNotEqualSize
            | R::HotKeyNotRegisteredInSubNet
            | R::NotEnoughStakeToSetWeights
            | R::IncorrectWeightVersionKey
            | R::NeuronNoValidatorPermit
            | R::DuplicateUids
            | R::HotKeyNotRegisteredInNetwork
            | R::InvalidIpType
            | R::InvalidIpAddress
            | R::InvalidPort
            | R::HotKeyAlreadyRegisteredInSubNet
            | R::NonAssociatedColdKey
            | R::NotEnoughBalanceToStake
            | R::HotKeyAccountNotExists
            | R::AmountTooLow
            | R::SubNetRegistrationDisabled
            | R::RegistrationNotPermittedOnRootSubnet
            | R::BalanceTooLow
            | R::StakeAmountTooLow
            | R::Payment
            | R::BadSignature
            | R::WrongGenesis => Class::Fatal,
        }
    }
}

impl std::fmt::Display for Rejection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.name(), self.text())?;
        match self {
            Rejection::StaleTransaction(next) | Rejection::FutureTransaction(next) => {
                write!(f, ", the next one is {next}")
            }
            _ => Ok(()),
        }
    }
}

impl std::error::Error for Rejection {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_shows_the_chains_name_and_what_helps() {
        let text = ChainError::from(Rejection::SettingWeightsTooFast).to_string();
        assert_eq!(text, "the chain refused the call: SettingWeightsTooFast (weights were set too few blocks ago)");
        assert!(Rejection::StaleTransaction(7).to_string().ends_with("the next one is 7"));
        assert_eq!(ChainError::Deadline(Duration::from_secs(5)).to_string(), "the chain did not answer within 5s");
    }

    #[test]
    fn every_failure_has_one_class_and_only_the_runtimes_refusals_are_certain() {
        let classes = ChainError::classes();
        assert_eq!(classes.len(), 8 + Rejection::NAMES.len());
        assert!(Class::ALL.iter().all(|class| classes.iter().any(|(of, _)| of == class)));
        let class = |error: ChainError| (error.class(), error.is_unclear());
        assert_eq!(class(Rejection::SettingWeightsTooFast.into()), (Class::Wait, false));
        assert_eq!(class(Rejection::CommitRevealEnabled.into()), (Class::Retry, false));
        assert_eq!(class(Rejection::NotEnoughStakeToSetWeights.into()), (Class::Fatal, false));
        assert_eq!(class(ChainError::Refused(String::new())), (Class::Retry, false));
        assert_eq!(class(Rejection::PoolFull.into()), (Class::Wait, true));
        assert_eq!(class(ChainError::Deadline(Duration::ZERO)), (Class::Retry, true));
        assert_eq!(class(ChainError::Protocol(String::new())), (Class::Fatal, true));
        assert_eq!(class(ChainError::Protocol(String::new()).unsent()), (Class::Fatal, false));
        assert_eq!(class(ChainError::Deadline(Duration::ZERO).unsent()), (Class::Retry, false));
        assert_eq!(class(ChainError::Upgrading(String::new())), (Class::Retry, true));
    }

    #[test]
    fn what_fails_before_it_is_sent_is_not_in_doubt() {
        let unclear = [
            ChainError::Unreachable("gone".to_owned()),
            ChainError::Deadline(Duration::ZERO),
            ChainError::Protocol("odd".to_owned()),
            Rejection::Outdated.into(),
        ];
        for error in unclear {
            let text = format!("the call was not sent: {error}");
            let unsent = error.unsent();
            assert!(matches!(unsent, ChainError::Unsent { .. }) && !unsent.is_unclear(), "{unsent:?}");
            assert_eq!((unsent.to_string(), unsent.clone().unsent()), (text, unsent));
        }
        let refused = ChainError::from(Rejection::SettingWeightsTooFast);
        assert_eq!(refused.clone().unsent(), refused);
    }

    #[test]
    fn refusals_read_back_from_their_json() {
        for r in [Rejection::DuplicateUids, Rejection::StaleTransaction(3)] {
            let json = serde_json::to_string(&r).unwrap();
            assert_eq!(serde_json::from_str::<Rejection>(&json).unwrap(), r);
        }
        assert_eq!(serde_json::to_string(&Rejection::DuplicateUids).unwrap(), "\"DuplicateUids\"");
    }
}
