//! The body hash: SHA3-256 over the hex SHA3-256 of each hashed field's text, in the class's order.

use sha3::{Digest, Sha3_256};

use super::python::PyValue;

/// The hash of a class that names no fields: SHA3-256 of nothing.
pub const EMPTY_BODY_HASH: &str = "a7ffc6f8bf1ed76651c14756a061d662f580ff4de43b49fa82d80a4b80f8434a";

/// The body hash of these field values, in lower-case hex.
pub fn body_hash(fields: &[PyValue]) -> String {
    if fields.is_empty() {
        return EMPTY_BODY_HASH.to_owned();
    }
    let mut outer = Sha3_256::new();
    for field in fields {
        outer.update(hex::encode(Sha3_256::digest(field.pystr().as_bytes())).as_bytes());
    }
    hex::encode(outer.finalize())
}
