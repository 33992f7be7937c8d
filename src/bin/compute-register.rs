//! The operator's tool.

fn main() -> std::process::ExitCode {
    compute_subnet::register::main(std::env::args_os()).into()
}
