//! A validator's node.

use compute_subnet::launch::validator;

fn main() -> std::process::ExitCode {
    validator::main(std::env::args_os()).into()
}
