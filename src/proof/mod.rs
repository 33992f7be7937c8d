//! Exact integer proof of work: keystream, matrix product, tiles, Merkle tree, verifier, prover.
