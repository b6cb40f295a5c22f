//! The `stillpoint` binary: arguments in, exit status out.

fn main() -> std::process::ExitCode {
    stillpoint::cli::main()
}
