//! Files that an app names instead of sending them: `X-Sendfile` (Apache's mod_xsendfile, lighttpd)
//! and `X-Accel-Redirect` (nginx).
//!
//! Only files below a directory of the settings are opened, whatever the app says: the name may
//! come from a client.

use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use super::media_type;
use super::open_file::OpenFile;
use super::reply::{Described, Reply};
use crate::http::conditional::{Conditions, Validators, Verdict};
use crate::http::date::{self, DateCache};
use crate::http::path;
use crate::http::request::decode_path;
use crate::http::response::{header_lines, write_header};
use crate::settings::{AccelMap, Config};
use crate::sys::beneath::{Directory, Links, is_absence};

/// The directories that the settings allow.
#[derive(Debug)]
pub struct AppFiles {
    /// For `X-Sendfile`: each under the name that the settings give it, and under its real one.
    directories: Vec<PathBuf>,
    /// For `X-Accel-Redirect`, the longest prefix first.
    maps: Vec<AccelMap>,
}

/// What an app has named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// The path of a file.
    Sendfile(Vec<u8>),
    /// The path of a request, as nginx would look for it.
    AccelRedirect(Vec<u8>),
}

/// Why the file is not sent.
#[derive(Debug)]
pub enum FileRefusal {
    /// It is in none of the directories.
    NotAllowed,
    /// It could not be opened.
    Failed(io::Error),
}

impl AppFiles {
    /// The directories that the settings allow; `None` where there are none.
    pub fn new(config: &Config) -> Option<Arc<AppFiles>> {
        let named = config.x_sendfile.iter().map(|path| config.chdir.join(path));
        let directories = named.flat_map(|path| {
            let real = path.canonicalize().ok().filter(|real| *real != path);
            std::iter::once(path).chain(real)
        });
        let directories: Vec<PathBuf> = directories.collect();
        let mut maps = config.x_accel_map.clone();
        for map in &mut maps {
            map.path = config.chdir.join(&map.path);
        }
        maps.sort_by_key(|map| std::cmp::Reverse(map.prefix.len()));
        let is_any = !directories.is_empty() || !maps.is_empty();
        is_any.then(|| Arc::new(AppFiles { directories, maps }))
    }

    /// What a response header asks for, if that is a file and the settings allow such headers.
    pub fn asked_by(&self, name: &[u8], value: &[u8]) -> Option<Asked> {
        if !self.directories.is_empty() && name.eq_ignore_ascii_case(b"x-sendfile") {
            return Some(Asked::Sendfile(value.to_vec()));
        }
        let is_redirect = !self.maps.is_empty() && name.eq_ignore_ascii_case(b"x-accel-redirect");
        is_redirect.then(|| Asked::AccelRedirect(value.to_vec()))
    }

    /// What goes out instead of a response with this `status` and these header `lines`, to a
    /// request with these `conditions`. The lines are kept, except those that depend on what is
    /// sent of the file.
    ///
    /// # Errors
    /// Why the file is not sent.
    pub fn reply(
        &self,
        asked: &Asked,
        (status, lines): (u16, &[u8]),
        conditions: &Conditions<'_>,
        is_head: bool,
    ) -> Result<Reply, FileRefusal> {
        let (name, file) = self.open(asked)?;
        let said = Said::by(lines);
        let content_type = said.content_type.map_or_else(|| media_type::of(&name).into_bytes(), <[u8]>::to_vec);
        // Any other status is answered with the whole file: preconditions do not apply to it (RFC
        // 9110, 13.2.1).
        let is_whole = !matches!(status, 200 | 206);
        let verdict =
            if is_whole { Verdict::Whole } else { conditions.verdict(&said.validators(&file), file.length, is_head) };
        let lines = said.lines(lines, &file);
        let described = Described {
            file: &file.file,
            length: file.length,
            content_type: &content_type,
            coding: b"",
            lines: &lines,
        };
        let mut reply = Reply::of(&described, verdict);
        if is_whole {
            reply.status = status;
        }
        Ok(reply)
    }

    fn open(&self, asked: &Asked) -> Result<(Vec<u8>, OpenFile), FileRefusal> {
        let file = match asked {
            Asked::Sendfile(path) => {
                let opened = self.open_path(path);
                let decoded = decode_path(path);
                // Some frameworks escape the path, others do not.
                match opened {
                    Err(FileRefusal::Failed(error)) if is_absence(&error) && decoded[..] != path[..] => {
                        self.open_path(&decoded)
                    }
                    opened => opened,
                }
            }
            Asked::AccelRedirect(target) => self.open_target(target),
        };
        let (name, file) = file?;
        let metadata = file.metadata().map_err(FileRefusal::Failed)?;
        if !metadata.is_file() {
            return Err(FileRefusal::Failed(io::ErrorKind::NotFound.into()));
        }
        Ok((name, OpenFile::new(file, &metadata, None, SystemTime::now())))
    }

    fn open_path(&self, path: &[u8]) -> Result<(Vec<u8>, File), FileRefusal> {
        let path = Path::new(OsStr::from_bytes(path));
        let below = |directory: &PathBuf| Some((directory.clone(), path.strip_prefix(directory).ok()?.to_owned()));
        let (directory, name) = self.directories.iter().find_map(below).ok_or(FileRefusal::NotAllowed)?;
        let is_plain = name.components().all(|component| matches!(component, Component::Normal(_)));
        if !is_plain || name.as_os_str().is_empty() {
            return Err(FileRefusal::NotAllowed);
        }
        // Put together from its components, so that no doubled slash is left.
        let name: PathBuf = name.components().collect();
        let name = name.into_os_string().into_encoded_bytes();
        open_in(&directory, &name).map(|file| (name, file)).map_err(FileRefusal::Failed)
    }

    fn open_target(&self, target: &[u8]) -> Result<(Vec<u8>, File), FileRefusal> {
        let path = target.split(|&byte| byte == b'?').next().unwrap_or_default();
        let below = |map: &AccelMap| Some((map.path.clone(), path::below(path, map.prefix.as_bytes())?));
        let (directory, rest) = self.maps.iter().find_map(below).ok_or(FileRefusal::NotAllowed)?;
        let name = path::file_name(rest).filter(|name| !name.is_directory && !name.name.is_empty());
        let name = name.ok_or(FileRefusal::NotAllowed)?.name.into_owned();
        open_in(&directory, &name).map(|file| (name, file)).map_err(FileRefusal::Failed)
    }
}

fn open_in(directory: &Path, name: &[u8]) -> io::Result<File> {
    Directory::open(directory)?.open_below(name, Links::Beneath)
}

impl FileRefusal {
    /// The status of the answer: 404 for a file that is missing; all else is a fault of the app or
    /// the settings.
    pub fn status(&self) -> u16 {
        match self {
            FileRefusal::Failed(error) if is_absence(error) || error.kind() == io::ErrorKind::NotFound => 404,
            _ => 500,
        }
    }

    /// The response to a client whose file is refused.
    pub fn reply(&self) -> Reply {
        Reply::plain(self.status())
    }
}

impl fmt::Display for FileRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FileRefusal::NotAllowed => {
                f.write_str("it is in none of the directories that x_sendfile and x_accel_map allow")
            }
            FileRefusal::Failed(error) => error.fmt(f),
        }
    }
}

impl Asked {
    /// The header and its value, for the log.
    pub fn describe(&self) -> String {
        let (header, value) = match self {
            Asked::Sendfile(path) => ("X-Sendfile", path),
            Asked::AccelRedirect(target) => ("X-Accel-Redirect", target),
        };
        format!("{header}: {:?}", String::from_utf8_lossy(value))
    }
}

/// What an app has said of the file itself.
#[derive(Default)]
struct Said<'a> {
    content_type: Option<&'a [u8]>,
    etag: Option<&'a [u8]>,
    modified: Option<u64>,
}

impl<'a> Said<'a> {
    fn by(lines: &'a [u8]) -> Self {
        let mut said = Said::default();
        for (name, value) in header_lines(lines) {
            if name.eq_ignore_ascii_case(b"content-type") {
                said.content_type = Some(value);
            } else if name.eq_ignore_ascii_case(b"etag") {
                said.etag = Some(value);
            } else if name.eq_ignore_ascii_case(b"last-modified") {
                said.modified = date::parse(value);
            }
        }
        said
    }

    /// The app's validators; the file's where the app has named none at all.
    fn validators(&self, file: &'a OpenFile) -> Validators<'a> {
        let own = file.validators();
        match (self.etag, self.modified) {
            (None, None) => own,
            (etag, modified) => Validators { etag, modified, modified_is_strong: own.modified_is_strong },
        }
    }

    /// The app's lines without those that depend on what is sent of the file, and the file's own.
    fn lines(&self, lines: &[u8], file: &OpenFile) -> Vec<u8> {
        const OF_THE_FILE: [&[u8]; 4] = [b"content-type", b"content-length", b"content-range", b"accept-ranges"];
        let has_validators = (self.etag, self.modified) != (None, None);
        let mut kept = Vec::with_capacity(lines.len() + 128);
        for (name, value) in header_lines(lines) {
            // A date that cannot be read makes room for the file's.
            let is_replaced = !has_validators && name.eq_ignore_ascii_case(b"last-modified");
            if !is_replaced && !OF_THE_FILE.iter().any(|known| name.eq_ignore_ascii_case(known)) {
                write_header(&mut kept, name, value);
            }
        }
        if !has_validators {
            write_header(&mut kept, b"Last-Modified", DateCache::new().get(file.modified));
            write_header(&mut kept, b"ETag", file.etag.as_bytes());
        }
        write_header(&mut kept, b"Accept-Ranges", b"bytes");
        kept
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// The files below `files` of a directory, which are allowed by both headers.
    fn app_files() -> (Arc<AppFiles>, tempfile::TempDir) {
        let top = tempfile::tempdir().unwrap();
        let files = top.path().join("files");
        fs::create_dir_all(files.join("sub")).unwrap();
        fs::write(files.join("a b.pdf"), "0123456789").unwrap();
        fs::write(files.join("sub/x.txt"), "x").unwrap();
        fs::write(top.path().join("secret"), "secret").unwrap();
        symlink("../secret", files.join("link")).unwrap();
        let config = Config {
            x_sendfile: vec![files.clone()],
            x_accel_map: vec![AccelMap { prefix: "/protected".to_owned(), path: files }],
            ..Config::default()
        };
        (AppFiles::new(&config).unwrap(), top)
    }

    fn outcome(files: &AppFiles, asked: &Asked, response: (u16, &str)) -> (u16, String) {
        let response = (response.0, response.1.as_bytes());
        let reply = files.reply(asked, response, &Conditions::default(), false);
        let reply = reply.unwrap_or_else(|refusal| refusal.reply());
        (reply.status, String::from_utf8(reply.lines).unwrap())
    }

    #[test]
    fn only_files_below_the_directories_are_sent() {
        let (files, top) = app_files();
        let rows = [
            ("files/a b.pdf", 200),
            ("files/a%20b.pdf", 200),
            ("files//sub/x.txt", 200),
            ("files/sub/x.txt", 200),
            ("files/none", 404),
            ("files/link", 404),
            ("files/sub", 404),
            ("files", 500),
            ("secret", 500),
            ("files/../secret", 500),
            ("files/sub/../../secret", 500),
            ("filesystem/x", 500),
        ];
        for (path, status) in rows {
            let asked = Asked::Sendfile(top.path().join(path).into_os_string().into_encoded_bytes());
            assert_eq!(outcome(&files, &asked, (200, "")).0, status, "{path}");
        }
        assert_eq!(outcome(&files, &Asked::Sendfile(b"sub/x.txt".to_vec()), (200, "")).0, 500, "it is relative");
        let rows = [
            ("/protected/a%20b.pdf", 200),
            ("/protected/a b.pdf?x", 200),
            ("/protected/sub/x.txt", 200),
            ("/protected/none", 404),
            ("/protected/link", 404),
            ("/protected/sub/", 500),
            ("/protected", 500),
            ("/protected/../secret", 500),
            ("/protected/%2e%2e/secret", 500),
            ("/other/a", 500),
            ("@named", 500),
        ];
        for (target, status) in rows {
            assert_eq!(outcome(&files, &Asked::AccelRedirect(target.into()), (200, "")).0, status, "{target}");
        }
    }

    #[test]
    fn what_the_app_says_is_kept_but_for_the_length() {
        let (files, _top) = app_files();
        let asked = Asked::AccelRedirect(b"/protected/a%20b.pdf".to_vec());
        let said = "Content-Type: x/y\r\nContent-Length: 0\r\nContent-Range: bytes 0-1/10\r\nSet-Cookie: a=b\r\nETag: \"app\"\r\n";
        assert_eq!(
            outcome(&files, &asked, (206, said)),
            (200, "Set-Cookie: a=b\r\nETag: \"app\"\r\nAccept-Ranges: bytes\r\nContent-Type: x/y\r\nContent-Length: 10\r\n".to_owned())
        );
        let (_, lines) = outcome(&files, &asked, (200, "Last-Modified: yesterday\r\n"));
        assert!(lines.matches("Last-Modified: ").count() == 1 && !lines.contains("yesterday"), "{lines}");
        let (status, lines) = outcome(&files, &asked, (403, ""));
        assert_eq!(status, 403);
        assert!(lines.contains("Content-Type: application/pdf\r\n") && lines.contains("ETag: W/\""), "{lines}");
    }
}
