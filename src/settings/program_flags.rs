//! The flags that are no settings: they make the program print something and exit.

/// One flag of the program itself.
#[derive(Debug)]
pub struct ProgramFlag {
    /// Its spellings, in the order that help shows them.
    pub flags: &'static [&'static str],
    /// The name of its value; empty for a switch.
    pub meta: &'static str,
    /// The only values that it takes; empty for a switch.
    pub words: &'static [&'static str],
    /// One sentence for help.
    pub doc: &'static str,
}

/// All of them, in the order of help.
pub static PROGRAM_FLAGS: &[ProgramFlag] = &[
    ProgramFlag { flags: &["-h", "--help"], meta: "", words: &[], doc: "Show this message and exit." },
    ProgramFlag { flags: &["-v", "--version"], meta: "", words: &[], doc: "Show the version and exit." },
    ProgramFlag {
        flags: &["--verbose"],
        meta: "",
        words: &[],
        doc: "With --version: show the Python, the features and the system, too.",
    },
    ProgramFlag {
        flags: &["--completions"],
        meta: "SHELL",
        words: &["bash", "zsh", "fish"],
        doc: "Show the completions of a shell (bash, zsh or fish) and exit.",
    },
];

/// A shell that can complete the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shell {
    /// GNU bash, from 4.4.
    Bash,
    /// zsh, from 5.0.
    Zsh,
    /// fish, from 3.0.
    Fish,
}

impl Shell {
    /// The shell of that name.
    pub fn named(name: &str) -> Option<Shell> {
        match name {
            "bash" => Some(Shell::Bash),
            "zsh" => Some(Shell::Zsh),
            "fish" => Some(Shell::Fish),
            _ => None,
        }
    }
}
