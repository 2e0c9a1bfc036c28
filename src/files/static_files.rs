//! The files of `static_map`: which requests ask for one, and what they get.
//!
//! A file that was opened is kept open for a second, with what its responses say: under load
//! opening it costs more than sending it. So a change shows within a second, and no open file is
//! checked for changes. Directories are opened anew after a second too, since a deploy may have put
//! another in their place.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::media_type;
use super::open_file::OpenFile;
use super::reply::{Described, Reply};
use crate::http::accept_encoding::{ContentCoding, choose};
use crate::http::conditional::Conditions;
use crate::http::date::DateCache;
use crate::http::path::{self, FileName};
use crate::http::request::RequestHead;
use crate::http::response::write_header;
use crate::settings::{Config, Immutable, StaticMap};
use crate::sys::beneath::{self, Directory, Links, is_absence, is_out_of_resources};

/// How long an open file is used without another look, and an open directory.
const KEPT_OPEN: Duration = Duration::from_secs(1);

/// Most files that are kept open, each with its compressed forms beside it. Past it all are closed,
/// and opened again as they are asked for: a site has fewer files that matter.
const MOST_KEPT_OPEN: usize = 128;

/// Files with longer paths are found, but not kept open: nobody links to them.
const LONGEST_REMEMBERED_PATH: usize = 256;

/// For files that never change: a year.
const FOR_EVER: &[u8] = b"public, max-age=31536000, immutable";

/// Which requests are for files.
#[derive(Debug)]
pub struct StaticPaths {
    /// The longest prefix first.
    maps: Vec<StaticMap>,
}

/// The files of a worker.
pub struct StaticFiles {
    paths: Arc<StaticPaths>,
    places: Vec<Place>,
    kept: HashMap<Vec<u8>, KeptFile>,
    date: DateCache,
}

/// Where the files of a map are.
enum Place {
    /// Below this directory.
    Directory { path: PathBuf, open: Option<(Directory, Instant)> },
    /// The map names this one file.
    File(PathBuf),
}

/// A file that was found.
struct KeptFile {
    opened: Instant,
    content_type: String,
    itself: Form,
    compressed: Vec<(ContentCoding, Form)>,
}

/// One form of a file: as it is, or compressed.
struct Form {
    file: OpenFile,
    /// The line that names its coding; empty for the file as it is.
    coding: Vec<u8>,
    /// The lines that each response about it has.
    lines: Vec<u8>,
}

/// Why there is nothing to send.
enum NotFound {
    /// There is no such file.
    Missing,
    /// There is a directory, and the path lacks the slash at its end.
    NoSlash,
    /// It could not be opened.
    Failed(io::Error),
}

impl StaticPaths {
    /// The maps of `static_map`; `None` where there are none.
    pub fn new(config: &Config) -> Option<Arc<StaticPaths>> {
        let mut maps = config.static_map.clone();
        for map in &mut maps {
            map.path = config.chdir.join(&map.path);
        }
        maps.sort_by_key(|map| std::cmp::Reverse(map.prefix.len()));
        (!maps.is_empty()).then(|| Arc::new(StaticPaths { maps }))
    }

    /// Whether a request with this method and path is one for [`StaticFiles::reply`].
    pub fn claim(&self, method: &[u8], path: &[u8]) -> bool {
        self.find(path).is_some_and(|(index, _)| !self.maps[index].falls_through || is_read(method))
    }

    /// The map that a path belongs to, and what stands behind its prefix.
    fn find<'a>(&self, path: &'a [u8]) -> Option<(usize, &'a [u8])> {
        self.maps.iter().enumerate().find_map(|(index, map)| Some((index, path::below(path, map.prefix.as_bytes())?)))
    }
}

impl StaticFiles {
    /// The files at these paths.
    pub fn new(paths: Arc<StaticPaths>) -> StaticFiles {
        let places = paths.maps.iter().map(|map| Place::at(&map.path)).collect();
        StaticFiles { paths, places, kept: HashMap::new(), date: DateCache::new() }
    }

    /// What the request with this `head`, whose spans point into `source`, gets; `None` where it is
    /// the app's to answer. Opens files, which may wait for the disk.
    pub fn reply(&mut self, head: &RequestHead, source: &[u8], now: Instant) -> Option<Reply> {
        let (method, path) = (head.method.of(source), head.path.of(source));
        let (index, rest) = self.paths.find(path)?;
        if !is_read(method) {
            return (!self.paths.maps[index].falls_through).then(|| Reply::plain(405).with(b"Allow", b"GET, HEAD"));
        }
        if self.kept.get(path).is_none_or(|kept| now >= kept.opened + KEPT_OPEN) {
            match self.look_up(index, rest, now) {
                Ok(found) => self.keep(path, found),
                Err(reason) => return self.refuse(index, head, source, reason),
            }
        }
        let reply = self.kept.get(path).map(|kept| kept.reply(&Conditions::of(head, source), method == b"HEAD"));
        if path.len() > LONGEST_REMEMBERED_PATH {
            self.kept.remove(path);
        }
        reply
    }

    /// The Date of a response that is made at `second`, since the epoch.
    pub fn date(&mut self, second: u64) -> &[u8] {
        self.date.get(second)
    }

    /// Closes the files that were opened a second ago or earlier.
    pub fn close_old(&mut self, now: Instant) {
        self.kept.retain(|_, kept| now < kept.opened + KEPT_OPEN);
    }

    fn keep(&mut self, path: &[u8], found: KeptFile) {
        if self.kept.len() >= MOST_KEPT_OPEN {
            self.kept.clear();
        }
        self.kept.insert(path.to_vec(), found);
    }

    /// Finds the file that `rest` names in a map.
    fn look_up(&mut self, index: usize, rest: &[u8], now: Instant) -> Result<KeptFile, NotFound> {
        let map = &self.paths.maps[index];
        let place = &mut self.places[index];
        place.look_again(&map.path, now);
        let (mut name, is_directory) = match place {
            Place::File(path) if rest.is_empty() => (path.as_os_str().as_encoded_bytes().to_vec(), false),
            Place::File(_) => return Err(NotFound::Missing),
            Place::Directory { .. } => {
                let FileName { name, is_directory } = path::file_name(rest).ok_or(NotFound::Missing)?;
                (name.into_owned(), is_directory)
            }
        };
        if is_directory {
            let index = map.index.as_ref().ok_or(NotFound::Missing)?;
            if !name.is_empty() {
                name.push(b'/');
            }
            name.extend_from_slice(index.as_bytes());
        } else if name.is_empty() {
            return Err(if map.index.is_some() { NotFound::NoSlash } else { NotFound::Missing });
        }
        let opened = place.open(&name, map, now).or_else(|error| {
            if !is_out_of_resources(&error) {
                return Err(error);
            }
            // The files that are kept open may have taken the last descriptors.
            self.kept.clear();
            place.open(&name, map, now)
        });
        let file = opened.map_err(NotFound::of)?;
        let metadata = file.metadata().map_err(NotFound::Failed)?;
        if metadata.is_dir() && !is_directory && map.index.is_some() {
            return Err(NotFound::NoSlash);
        }
        if !metadata.is_file() {
            return Err(NotFound::Missing);
        }
        let clock = SystemTime::now();
        let itself = OpenFile::new(file, &metadata, None, clock);
        let compressed = place.compressed_forms(&name, map, &itself, clock, now);
        Ok(KeptFile::new(&name, map, itself, compressed, now))
    }

    fn refuse(&self, index: usize, head: &RequestHead, source: &[u8], reason: NotFound) -> Option<Reply> {
        let map = &self.paths.maps[index];
        let path = head.path.of(source);
        match reason {
            NotFound::Missing if map.falls_through => None,
            NotFound::Missing => Some(Reply::plain(404)),
            NotFound::NoSlash => {
                let query = head.query.of(source);
                let mark: &[u8] = if query.is_empty() { b"" } else { b"?" };
                Some(Reply::plain(301).with(b"Location", &[path, b"/", mark, query].concat()))
            }
            NotFound::Failed(error) => {
                let status = match error.kind() {
                    ErrorKind::PermissionDenied => 403,
                    _ if is_out_of_resources(&error) => 503,
                    _ => 500,
                };
                let problem = format!("Cannot open the file of {:?}: {error}", String::from_utf8_lossy(path));
                Some(Reply::plain(status).because(problem))
            }
        }
    }
}

impl Place {
    /// What lies at a path: a file only where that is certain. A directory may be out of the
    /// worker's sight, or be replaced at this moment.
    fn at(path: &Path) -> Place {
        if path.is_file() {
            Place::File(path.to_owned())
        } else {
            Place::Directory { path: path.to_owned(), open: None }
        }
    }

    /// Looks again what lies at the path, unless the directory is open.
    fn look_again(&mut self, path: &Path, now: Instant) {
        let is_open = |since: &Instant| now < *since + KEPT_OPEN;
        if !matches!(self, Place::Directory { open: Some((_, since)), .. } if is_open(since)) {
            *self = Place::at(path);
        }
    }

    /// Opens the file with this name.
    fn open(&mut self, name: &[u8], map: &StaticMap, now: Instant) -> io::Result<File> {
        let links = if map.follows_symlinks { Links::Anywhere } else { Links::Beneath };
        match self {
            Place::File(_) => {
                use std::os::unix::ffi::OsStrExt;
                beneath::open_file(Path::new(std::ffi::OsStr::from_bytes(name)))
            }
            Place::Directory { path, open } => {
                if open.as_ref().is_none_or(|&(_, since)| now >= since + KEPT_OPEN) {
                    *open = None;
                }
                let (directory, _) = match open {
                    Some(known) => known,
                    None => open.insert((Directory::open(path)?, now)),
                };
                directory.open_below(name, links)
            }
        }
    }

    /// The compressed forms that lie beside a file. A form that is older than the file was made of
    /// an earlier state, and is left out.
    fn compressed_forms(
        &mut self,
        name: &[u8],
        map: &StaticMap,
        itself: &OpenFile,
        clock: SystemTime,
        now: Instant,
    ) -> Vec<(ContentCoding, OpenFile)> {
        let forms = ContentCoding::ALL.into_iter().filter_map(|coding| {
            let file = self.open(&[name, coding.suffix().as_bytes()].concat(), map, now).ok()?;
            let metadata = file.metadata().ok().filter(|metadata| metadata.is_file() && metadata.len() > 0)?;
            let form = OpenFile::new(file, &metadata, Some(coding), clock);
            (form.modified >= itself.modified).then_some((coding, form))
        });
        forms.collect()
    }
}

impl KeptFile {
    fn new(
        name: &[u8],
        map: &StaticMap,
        itself: OpenFile,
        compressed: Vec<(ContentCoding, OpenFile)>,
        now: Instant,
    ) -> KeptFile {
        let mut common = Vec::new();
        if let Some(control) = cache_control(name, map) {
            write_header(&mut common, b"Cache-Control", &control);
        }
        if !compressed.is_empty() {
            write_header(&mut common, b"Vary", b"Accept-Encoding");
        }
        let compressed = compressed.into_iter().map(|(coding, file)| (coding, Form::new(file, Some(coding), &common)));
        KeptFile {
            opened: now,
            content_type: media_type::of(name),
            itself: Form::new(itself, None, &common),
            compressed: compressed.collect(),
        }
    }

    fn reply(&self, conditions: &Conditions<'_>, is_head: bool) -> Reply {
        let form = match self.compressed.as_slice() {
            [] => &self.itself,
            forms => {
                let of = |coding| forms.iter().find(|(known, _)| *known == coding).map(|(_, form)| form);
                let chosen = choose(conditions.accept_encoding(), |coding| of(coding).is_some());
                chosen.and_then(of).unwrap_or(&self.itself)
            }
        };
        let described = Described {
            file: &form.file.file,
            length: form.file.length,
            content_type: self.content_type.as_bytes(),
            coding: &form.coding,
            lines: &form.lines,
        };
        Reply::of(&described, conditions.verdict(&form.file.validators(), form.file.length, is_head))
    }
}

impl Form {
    fn new(file: OpenFile, coding: Option<ContentCoding>, common: &[u8]) -> Form {
        let mut lines = Vec::new();
        write_header(&mut lines, b"Last-Modified", DateCache::new().get(file.modified));
        write_header(&mut lines, b"ETag", file.etag.as_bytes());
        write_header(&mut lines, b"Accept-Ranges", b"bytes");
        lines.extend_from_slice(common);
        let mut line = Vec::new();
        if let Some(coding) = coding {
            write_header(&mut line, b"Content-Encoding", coding.name().as_bytes());
        }
        Form { file, coding: line, lines }
    }
}

impl NotFound {
    fn of(error: io::Error) -> NotFound {
        if is_absence(&error) { NotFound::Missing } else { NotFound::Failed(error) }
    }
}

fn is_read(method: &[u8]) -> bool {
    matches!(method, b"GET" | b"HEAD")
}

/// What caches may do with the file of this name; `None` where the map says nothing.
fn cache_control(name: &[u8], map: &StaticMap) -> Option<Vec<u8>> {
    let is_immutable = match map.immutable {
        Immutable::None => false,
        Immutable::Hashed => has_hash(name),
        Immutable::All => true,
    };
    if is_immutable {
        return Some(FOR_EVER.to_vec());
    }
    map.max_age.map(|seconds| format!("public, max-age={seconds}").into_bytes())
}

/// Whether a name has a hash of the file's content in it, as names by Django's
/// `ManifestStaticFilesStorage` (`base.27e20196a850.css`) and by bundlers (`main-3f2a1b9c.js`)
/// have: a part before the ending, behind a dot or a hyphen, of 8 to 64 hexadecimal digits. It has
/// both letters and digits, which dates and words do not.
fn has_hash(name: &[u8]) -> bool {
    let file = name.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    let mut parts: Vec<&[u8]> = file.split(|&byte| byte == b'.' || byte == b'-').collect();
    // The first is the name, the last the ending.
    parts.pop();
    parts.iter().skip(1).any(|part| {
        (8..=64).contains(&part.len())
            && part.iter().all(u8::is_ascii_hexdigit)
            && part.iter().any(u8::is_ascii_digit)
            && part.iter().any(u8::is_ascii_alphabetic)
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::http::policy::Policy;
    use crate::http::request::{HeadParser, Status};

    fn files(map: &str) -> (StaticFiles, tempfile::TempDir) {
        let top = tempfile::tempdir().unwrap();
        fs::create_dir(top.path().join("sub")).unwrap();
        fs::write(top.path().join("a.css"), "0123456789").unwrap();
        fs::write(top.path().join("sub/index.html"), "index").unwrap();
        let map = StaticMap::parse(&map.replace("DIR", &top.path().display().to_string())).unwrap();
        let config = Config { static_map: vec![map], ..Config::default() };
        (StaticFiles::new(StaticPaths::new(&config).unwrap()), top)
    }

    /// What a request gets: the status, and the lines of the head.
    fn ask(files: &mut StaticFiles, line: &str, fields: &str, now: Instant) -> Option<(u16, String)> {
        let bytes = format!("{line} HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let mut head = RequestHead::default();
        let parsed = HeadParser::new().parse(bytes.as_bytes(), &Policy::default(), false, None, &mut head);
        assert_eq!(parsed, Ok(Status::Complete));
        let reply = files.reply(&head, bytes.as_bytes(), now)?;
        Some((reply.status, String::from_utf8(reply.lines).unwrap()))
    }

    fn status(files: &mut StaticFiles, line: &str) -> Option<u16> {
        ask(files, line, "", Instant::now()).map(|(status, _)| status)
    }

    #[test]
    fn what_is_not_there_is_the_servers_or_the_apps_to_say() {
        let (mut owned, _top) = files("/s=DIR");
        let rows = [
            ("GET /s/a.css", Some(200)),
            ("HEAD /s/a.css", Some(200)),
            ("GET /s/none", Some(404)),
            ("GET /s", Some(404)),
            ("GET /s/", Some(404)),
            ("GET /s/sub", Some(404)),
            ("GET /s/sub/", Some(404)),
            ("GET /s/a.css/", Some(404)),
            ("GET /s/../etc/passwd", Some(404)),
            ("POST /s/a.css", Some(405)),
            ("OPTIONS /s/none", Some(405)),
            ("GET /other", None),
        ];
        for (line, expected) in rows {
            assert_eq!(status(&mut owned, line), expected, "{line}");
        }
        let (mut shared, _top) = files("/=DIR,index,fall-through");
        let rows = [
            ("GET /a.css", Some(200)),
            ("GET /none", None),
            ("POST /a.css", None),
            ("GET /", None),
            ("GET /sub", Some(301)),
            ("GET /sub/", Some(200)),
            ("GET /../a.css", None),
        ];
        for (line, expected) in rows {
            assert_eq!(status(&mut shared, line), expected, "{line}");
            let (method, path) = line.split_once(' ').unwrap();
            assert_eq!(shared.paths.claim(method.as_bytes(), path.as_bytes()), method == "GET", "{line}");
        }
        let (_, lines) = ask(&mut shared, "GET /sub?a=b", "", Instant::now()).unwrap();
        assert!(
            lines.starts_with("Content-Type: text/plain\r\n") && lines.ends_with("Location: /sub/?a=b\r\n"),
            "{lines}"
        );
    }

    #[test]
    fn a_change_shows_when_a_second_is_over() {
        let (mut files, top) = files("/s=DIR");
        let now = Instant::now();
        let mut length = |now| {
            let (_, lines) = ask(&mut files, "GET /s/a.css", "", now).unwrap();
            lines.rsplit_once("Content-Length: ").unwrap().1.trim().to_owned()
        };
        assert_eq!(length(now), "10");
        fs::write(top.path().join("new"), "0").unwrap();
        fs::rename(top.path().join("new"), top.path().join("a.css")).unwrap();
        assert_eq!(length(now + KEPT_OPEN / 2), "10");
        assert_eq!(length(now + KEPT_OPEN), "1");
        files.close_old(now + KEPT_OPEN);
        assert_eq!(files.kept.len(), 1);
        files.close_old(now + 2 * KEPT_OPEN);
        assert!(files.kept.is_empty());
    }

    #[test]
    fn compressed_forms_are_chosen_and_named() {
        let (mut files, top) = files("/s=DIR");
        fs::write(top.path().join("a.css.gz"), "gz").unwrap();
        fs::write(top.path().join("a.css.br"), "br!").unwrap();
        let rows = [("", "10", ""), ("gzip", "2", "gzip"), ("gzip, br", "3", "br"), ("br;q=0", "10", "")];
        for (accepted, length, coding) in rows {
            let (status, lines) =
                ask(&mut files, "GET /s/a.css", &format!("Accept-Encoding: {accepted}\r\n"), Instant::now()).unwrap();
            assert_eq!(status, 200);
            assert!(lines.contains("Vary: Accept-Encoding\r\n"), "{lines}");
            assert!(lines.contains(&format!("Content-Length: {length}\r\n")), "{accepted}: {lines}");
            assert_eq!(lines.contains(&format!("Content-Encoding: {coding}\r\n")), !coding.is_empty(), "{lines}");
            assert!(lines.contains("Content-Type: text/css; charset=utf-8\r\n"), "{lines}");
        }
        // The file is newer than what was made of it.
        let later = SystemTime::now() + Duration::from_secs(10);
        File::options().write(true).open(top.path().join("a.css")).unwrap().set_modified(later).unwrap();
        let now = Instant::now() + KEPT_OPEN;
        let (_, lines) = ask(&mut files, "GET /s/a.css", "Accept-Encoding: br\r\n", now).unwrap();
        assert!(!lines.contains("Vary") && !lines.contains("Content-Encoding"), "{lines}");
    }

    #[test]
    fn many_files_are_not_all_kept_open() {
        let (mut files, top) = files("/s=DIR");
        for number in 0..=MOST_KEPT_OPEN {
            fs::write(top.path().join(number.to_string()), "x").unwrap();
            assert_eq!(status(&mut files, &format!("GET /s/{number}")), Some(200));
            assert!(files.kept.len() <= MOST_KEPT_OPEN);
        }
    }

    #[test]
    fn names_with_a_hash_are_kept_for_ever() {
        for name in
            ["css/base.27e20196a850.css", "main-3f2a1b9c.js", "a.min.0123456789abcdef.js", "a-b.deadbeef1.css.map"]
        {
            assert!(has_hash(name.as_bytes()), "{name}");
        }
        for name in [
            "base.css",
            "jquery-3.7.1.min.js",
            "report-20240101.pdf",
            "a.deadbeef.css",
            "27e20196a850.css",
            "a.27e2019.css",
            "27e20196a850/a.css",
            "archive.27e20196a850",
        ] {
            assert!(!has_hash(name.as_bytes()), "{name}");
        }
        let control = |map: &str, name: &str| {
            cache_control(name.as_bytes(), &StaticMap::parse(map).unwrap())
                .map(|value| String::from_utf8(value).unwrap())
        };
        let for_ever = String::from_utf8(FOR_EVER.to_vec()).unwrap();
        assert_eq!(control("/s=d", "a.27e20196a850.css"), None);
        assert_eq!(control("/s=d,max-age=60", "a.27e20196a850.css").as_deref(), Some("public, max-age=60"));
        assert_eq!(control("/s=d,max-age=60,immutable", "a.css").as_deref(), Some("public, max-age=60"));
        assert_eq!(control("/s=d,immutable", "a.27e20196a850.css"), Some(for_ever.clone()));
        assert_eq!(control("/s=d,immutable=all", "a.css"), Some(for_ever));
    }
}
