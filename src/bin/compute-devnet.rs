//! A whole subnet on one machine.

use compute_subnet::launch::devnet;

fn main() -> std::process::ExitCode {
    devnet::main(std::env::args_os()).into()
}
