//! The manual page monoceros(1), made from the rows as `docs/settings.md` is.
//!
//! The rows' docs are Markdown of a plain kind: paragraphs, tables, fenced code, `code`, links.
//! This module turns them into the macros of man(7), which man-db and mandoc both know.

use super::config::Config;
use super::document::flags_with_meta;
use super::program_flags::PROGRAM_FLAGS;
use super::setting::{Default, Section, Setting};
use super::table::all;

/// The text of the page.
pub fn man_page() -> String {
    let mut out = format!(
        ".\\\" Made from the table in src/settings/table: MONOCEROS_BLESS=1 cargo test --lib man_page\n.TH MONOCEROS 1 \"\" \"monoceros {}\" \"User Commands\"\n",
        env!("CARGO_PKG_VERSION")
    );
    out.push_str(HEAD);
    out.push_str(".SH OPTIONS\n");
    for flag in PROGRAM_FLAGS {
        let meta = if flag.meta.is_empty() { String::new() } else { format!(" \\fI{}\\fR", escaped(flag.meta)) };
        let spelled: Vec<String> = flag.flags.iter().map(|flag| format!("\\fB{}\\fR{meta}", escaped(flag))).collect();
        out.push_str(&format!(".TP\n{}\n{}\n", spelled.join(", "), escaped(flag.doc)));
    }
    let defaults = Config::default();
    for section in Section::ALL {
        out.push_str(&format!(".SH {}\n", section.title().to_uppercase()));
        for setting in all().filter(|setting| setting.section == section) {
            write_setting(&mut out, setting, &defaults);
        }
    }
    out.push_str(TAIL);
    out
}

const HEAD: &str = r".SH NAME
monoceros \- pre-fork server for Python web applications, with gunicorn's command line
.SH SYNOPSIS
.B monoceros
.RI [ OPTIONS ]
.RI [ APP_MODULE ]
.br
.B python \-m monoceros
.RI [ OPTIONS ]
.RI [ APP_MODULE ]
.SH DESCRIPTION
A master opens the listening sockets, starts workers and looks after them; each worker serves
.I APP_MODULE
from an event loop.
.I APP_MODULE
is a module and, after a colon, the application in it, or a call that returns one:
.BR app:app ,
.BR mysite.wsgi ,
.BR app:create_app() .
Without a colon the name is
.BR application .
.PP
A setting comes from its default, the config file, the variable
.BR GUNICORN_CMD_ARGS ,
and the command line; each overrides those before it. Below, settings stand under their names in a config file, with
their flags where they have any. A flag may be shortened as long as it is unambiguous.
";

const TAIL: &str = r#".SH SIGNALS
To the master:
.TP
.B TERM
Stop; requests in flight may finish within graceful_timeout.
.TP
.BR INT ", " QUIT
Stop at once.
.TP
.B HUP
Read the settings again and replace the workers. If that fails, nothing changes.
.TP
.BR TTIN ", " TTOU
One worker more, one less.
.TP
.B USR1
Open the log files again.
.TP
.B USR2
Start a new program over the same sockets.
.TP
.B RTMIN
Become the new program, and keep the pid.
.TP
.B WINCH
Stop the workers and keep the master (as a daemon, or during an upgrade).
.SH EXIT STATUS
.TP
.B 0
The server was stopped.
.TP
.B 1
The settings, or what they name, are wrong.
.TP
.B 2
The command line is wrong.
.TP
.B 3
A worker failed to boot.
.TP
.B 4
There is no such application.
.SH ENVIRONMENT
.TP
.B GUNICORN_CMD_ARGS
Flags, written as on the command line.
.TP
.B VIRTUAL_ENV
The virtual environment that the program serves with. The wheel has its own.
.TP
.BR PORT ", " WEB_CONCURRENCY ", " FORWARDED_ALLOW_IPS
Defaults of bind, workers and forwarded_allow_ips.
.SH FILES
.TP
.I ./gunicorn.conf.py
The config file, if no other is named.
.SH SEE ALSO
.BR systemd.service (5),
.BR systemd.socket (5)
"#;

fn write_setting(out: &mut String, setting: &Setting, defaults: &Config) {
    let flags = if setting.flags.is_empty() { "config file only".to_owned() } else { flags_with_meta(setting) };
    out.push_str(&format!(".TP\n\\fB{}\\fR (\\fB{}\\fR)\n", escaped(setting.name), escaped(&flags)));
    let (summary, rest) = setting.doc.split_once('\n').unwrap_or((setting.doc, ""));
    out.push_str(&format!("{}\n", inline(summary)));
    let default = match setting.value_in(defaults).to_string().as_str() {
        "None" | "[]" => "not set".to_owned(),
        text => text.to_owned(),
    };
    let default = match setting.default {
        Default::Environment { variable, .. } => format!("the variable {variable}, else {default}"),
        _ => default,
    };
    out.push_str(&format!("Default: {}.\n", escaped(&default)));
    if !rest.trim().is_empty() {
        out.push_str(".RS\n");
        write_markdown(out, rest.trim());
        out.push_str(".RE\n");
    }
}

/// Paragraphs, tables and fenced code.
fn write_markdown(out: &mut String, text: &str) {
    let mut is_code = false;
    let mut is_gap = true;
    for line in text.lines() {
        if line.starts_with("```") {
            is_code = !is_code;
            out.push_str(if is_code { ".PP\n.nf\n" } else { ".fi\n" });
            is_gap = !is_code;
        } else if is_code {
            out.push_str(&format!("{}\n", at_line_start(escaped(line))));
        } else if line.is_empty() {
            is_gap = true;
        } else if let Some(cells) = table_row(line) {
            if !cells.is_empty() {
                out.push_str(&format!(
                    ".TP\n{}\n{}\n",
                    inline(cells[0]),
                    at_line_start(inline(&cells[1..].join("; ")))
                ));
            }
            is_gap = true;
        } else {
            let item = line.strip_prefix("- ");
            if item.is_some() {
                out.push_str(".IP \\(bu 2\n");
            } else if is_gap {
                out.push_str(".PP\n");
            }
            out.push_str(&format!("{}\n", at_line_start(inline(item.unwrap_or(line).trim_start()))));
            is_gap = false;
        }
    }
}

/// The cells of a row of a table; none for the line below its head.
fn table_row(line: &str) -> Option<Vec<&str>> {
    let inside = line.strip_prefix('|')?.strip_suffix('|')?;
    let is_rule = inside.bytes().all(|byte| matches!(byte, b'-' | b'|' | b':' | b' '));
    Some(if is_rule { Vec::new() } else { inside.split('|').map(str::trim).collect() })
}

/// `code` in bold, and links as their text.
fn inline(text: &str) -> String {
    let mut out = String::new();
    for (number, part) in text.split('`').enumerate() {
        match number % 2 {
            0 => out.push_str(&escaped(&without_links(part)).replace("**", "")),
            _ => out.push_str(&format!("\\fB{}\\fR", escaped(part))),
        }
    }
    out
}

/// `[text](target)` as `text`.
fn without_links(text: &str) -> String {
    let mut parts = text.split("](");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let opened = out.rfind('[').filter(|_| part.contains(')'));
        match (opened, part.split_once(')')) {
            (Some(at), Some((_, rest))) => {
                out.remove(at);
                out.push_str(rest);
            }
            _ => out.push_str(&format!("]({part}")),
        }
    }
    out
}

/// A backslash and a hyphen mean something to roff; a hyphen of a flag must be one that can be
/// copied.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-")
}

/// A line that begins with a dot or a quote would be a macro.
fn at_line_start(line: String) -> String {
    if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::document::in_the_tree;

    /// Where the wheel has its data: pip puts the page into `share/man` of the environment.
    const PAGE: &str = "python/monoceros.data/data/share/man/man1/monoceros.1";

    #[test]
    fn the_committed_man_page_is_made_from_the_table() {
        let path = in_the_tree(PAGE);
        if std::env::var_os("MONOCEROS_BLESS").is_some() {
            std::fs::write(&path, man_page()).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap();
        assert!(committed == man_page(), "run: MONOCEROS_BLESS=1 cargo test --lib man_page");
    }

    #[test]
    fn markdown_becomes_macros() {
        let cases = [
            ("One `-w` line\nand more.\n\nTwo.", ".PP\nOne \\fB\\-w\\fR line\nand more.\n.PP\nTwo.\n"),
            ("| a | b |\n|---|---|\n| `x` | y |", ".TP\na\nb\n.TP\n\\fBx\\fR\ny\n"),
            ("```\n.dot \\n\n```", ".PP\n.nf\n\\&.dot \\en\n.fi\n"),
            ("See [config](#config).", ".PP\nSee config.\n"),
            ("- an item", ".IP \\(bu 2\nan item\n"),
            ("'quoted'", ".PP\n\\&'quoted'\n"),
        ];
        for (text, expected) in cases {
            let mut out = String::new();
            write_markdown(&mut out, text);
            assert_eq!(out, expected, "{text}");
        }
    }
}
