//! What `static_map` and `x_accel_map` name: a prefix of request paths, and what lies below it.
//!
//! Reads and shows the texts. Opens nothing.

use std::fmt;
use std::path::PathBuf;

use super::value::ValueError;

/// The file that `index` alone means.
const INDEX: &str = "index.html";

/// One entry of `static_map`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticMap {
    /// The path of requests, or the beginning of their paths: decoded, with a slash in front and
    /// none at the end. Empty for all paths.
    pub prefix: String,
    /// The directory below which files are looked for, or the one file.
    pub path: PathBuf,
    /// How long clients may use a file without asking, in seconds.
    pub max_age: Option<u64>,
    /// Which files never change.
    pub immutable: Immutable,
    /// The file that is sent for a directory; `None` sends nothing.
    pub index: Option<String>,
    /// Whether symbolic links may lead out of the directory.
    pub follows_symlinks: bool,
    /// Whether the app gets the requests for files that are not there.
    pub falls_through: bool,
}

/// Which files of a map clients may keep for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Immutable {
    /// None.
    None,
    /// Those whose names have a hash of their content in them.
    Hashed,
    /// All.
    All,
}

/// One entry of `x_accel_map`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccelMap {
    /// What an app's `X-Accel-Redirect` begins with; as in [`StaticMap::prefix`].
    pub prefix: String,
    /// The directory that stands for it.
    pub path: PathBuf,
}

impl StaticMap {
    /// Reads `/PREFIX=PATH[,OPTION...]`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<StaticMap, ValueError> {
        let (prefix, rest) = split(text)?;
        let mut map = StaticMap {
            prefix,
            path: PathBuf::new(),
            max_age: None,
            immutable: Immutable::None,
            index: None,
            follows_symlinks: false,
            falls_through: false,
        };
        // Read from the end: what is no option belongs to the path, which may have commas.
        let mut path = rest;
        while let Some((before, option)) = path.rsplit_once(',')
            && map.set(option.trim()).map_err(|problem| ValueError::new(text, problem))?
        {
            path = before;
        }
        if path.trim().is_empty() {
            return Err(ValueError::new(text, "names no directory or file"));
        }
        map.path = path.trim().into();
        if map.prefix.is_empty() && !map.falls_through {
            return Err(ValueError::new(
                text,
                "leaves no request to the app; add ',fall-through' if it shall have the rest",
            ));
        }
        Ok(map)
    }

    /// Sets an option; false where there is none of that name.
    fn set(&mut self, option: &str) -> Result<bool, String> {
        let (name, value) = match option.split_once('=') {
            Some((name, value)) => (name.trim(), Some(value.trim())),
            None => (option, None),
        };
        match (name, value) {
            ("max-age", Some(value)) => {
                let seconds = value
                    .parse::<u32>()
                    .map_err(|_| format!("has a max-age of '{value}', which is no number of seconds"))?;
                self.max_age = Some(u64::from(seconds));
            }
            ("immutable", None) => self.immutable = Immutable::Hashed,
            ("immutable", Some("all")) => self.immutable = Immutable::All,
            ("index", None) => self.index = Some(INDEX.to_owned()),
            ("index", Some(name)) if is_file_name(name) => self.index = Some(name.to_owned()),
            ("symlinks", None) => self.follows_symlinks = true,
            ("fall-through", None) => self.falls_through = true,
            ("max-age" | "immutable" | "index" | "symlinks" | "fall-through", _) => {
                return Err(format!("has an option '{option}' that cannot be understood"));
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

impl fmt::Display for StaticMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(f, &self.prefix, &self.path)?;
        if let Some(seconds) = self.max_age {
            write!(f, ",max-age={seconds}")?;
        }
        match self.immutable {
            Immutable::None => {}
            Immutable::Hashed => f.write_str(",immutable")?,
            Immutable::All => f.write_str(",immutable=all")?,
        }
        if let Some(index) = &self.index {
            write!(f, ",index={index}")?;
        }
        f.write_str(if self.follows_symlinks { ",symlinks" } else { "" })?;
        f.write_str(if self.falls_through { ",fall-through" } else { "" })
    }
}

impl AccelMap {
    /// Reads `/PREFIX=PATH`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<AccelMap, ValueError> {
        let (prefix, path) = split(text)?;
        if path.trim().is_empty() {
            return Err(ValueError::new(text, "names no directory"));
        }
        Ok(AccelMap { prefix, path: path.trim().into() })
    }
}

impl fmt::Display for AccelMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(f, &self.prefix, &self.path)
    }
}

fn show(f: &mut fmt::Formatter<'_>, prefix: &str, path: &std::path::Path) -> fmt::Result {
    write!(f, "{}={}", if prefix.is_empty() { "/" } else { prefix }, path.display())
}

/// The prefix as it is compared, and what stands behind the equals sign.
fn split(text: &str) -> Result<(String, &str), ValueError> {
    let is_no_map = || ValueError::new(text, "is not of the form /PREFIX=PATH");
    let (prefix, rest) = text.split_once('=').ok_or_else(is_no_map)?;
    let segments = prefix.trim().strip_prefix('/').ok_or_else(is_no_map)?;
    let segments = segments.strip_suffix('/').unwrap_or(segments);
    if segments.is_empty() {
        return Ok((String::new(), rest));
    }
    let is_path = |segment: &str| !["", ".", ".."].contains(&segment) && !segment.contains(['%', '?', '#', '\0']);
    if !segments.split('/').all(is_path) {
        return Err(ValueError::new(text, "has a prefix that no request's path can begin with; escape nothing in it"));
    }
    Ok((format!("/{segments}"), rest))
}

fn is_file_name(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\0'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_shown_as_it_is_read() {
        for text in [
            "/static=/srv/static",
            "/static=assets,max-age=3600",
            "/a/b=assets,max-age=0,immutable,index=index.html,symlinks,fall-through",
            "/=public,immutable=all,fall-through",
            "/favicon.ico=img/favicon.ico",
            "/a=b=c, d",
        ] {
            assert_eq!(StaticMap::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(
            StaticMap::parse("/static/ = assets , index").unwrap().to_string(),
            "/static=assets,index=index.html"
        );
        assert_eq!(AccelMap::parse("/protected/=/srv/files").unwrap().to_string(), "/protected=/srv/files");
        assert_eq!(AccelMap::parse("/=/srv/files").unwrap().to_string(), "/=/srv/files");
    }

    #[test]
    fn what_is_no_map_is_refused() {
        for text in [
            "",
            "static",
            "/static",
            "static=a",
            "=a",
            "/static=",
            "/static= ,symlinks",
            "/=public",
            "/a//b=c",
            "/../a=b",
            "/a?b=c",
            "/%73=a",
            "/a=b,max-age=x",
            "/a=b,max-age",
            "/a=b,max-age=-1",
            "/a=b,immutable=some",
            "/a=b,index=a/b",
            "/a=b,index=",
            "/a=b,index=.x",
            "/a=b,symlinks=no",
        ] {
            assert!(StaticMap::parse(text).is_err(), "{text}");
        }
        // An option that nobody knows is a part of the path, which is not there then.
        assert_eq!(StaticMap::parse("/a=b,maxage=3").unwrap().path, PathBuf::from("b,maxage=3"));
        assert!(AccelMap::parse("/a=").is_err());
    }
}
