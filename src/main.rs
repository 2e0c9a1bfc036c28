//! The program that links the libpython of one Python.

fn main() {
    std::process::exit(monoceros::program::main());
}
