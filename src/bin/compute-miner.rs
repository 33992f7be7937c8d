//! A miner's node.

use compute_subnet::launch::{ProverProgram, miner};

fn main() -> std::process::ExitCode {
    miner::main(std::env::args_os(), ProverProgram::Beside).into()
}
