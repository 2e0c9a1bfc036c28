//! Users and groups: from names to ids, and from root to somebody less.

use std::ffi::CString;
use std::fmt;
use std::io;

use nix::unistd::{self, Gid, Group, Uid, User};

/// A user or group as a setting gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spec<'a> {
    /// To be looked up.
    Name(&'a str),
    /// Taken as it is: containers run under ids that no passwd file lists.
    Id(u32),
}

/// A name that the system does not know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unknown {
    /// No such user.
    User(String),
    /// No such group.
    Group(String),
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Unknown::User(name) => write!(f, "No such user: '{name}'"),
            Unknown::Group(name) => write!(f, "No such group: '{name}'"),
        }
    }
}

/// The uid behind a user (getpwnam(3)); None asks for the process's own.
pub fn uid(user: Option<Spec>) -> Result<u32, Unknown> {
    match user {
        None => Ok(unistd::geteuid().as_raw()),
        Some(Spec::Id(id)) => Ok(id),
        Some(Spec::Name(name)) => match User::from_name(name) {
            Ok(Some(found)) => Ok(found.uid.as_raw()),
            _ => Err(Unknown::User(name.to_owned())),
        },
    }
}

/// The gid behind a group (getgrnam(3)); None asks for the process's own.
pub fn gid(group: Option<Spec>) -> Result<u32, Unknown> {
    match group {
        None => Ok(unistd::getegid().as_raw()),
        Some(Spec::Id(id)) => Ok(id),
        Some(Spec::Name(name)) => match Group::from_name(name) {
            Ok(Some(found)) => Ok(found.gid.as_raw()),
            _ => Err(Unknown::Group(name.to_owned())),
        },
    }
}

/// Becomes the given user and group, as far as they differ from the present ones. With `initgroups` the user's
/// supplementary groups too; without it a group change drops root's, which would else stay with the worker.
///
/// The order is the only one that works: after setuid nothing may be changed any more (credentials(7)).
pub fn drop_privileges(uid: u32, gid: u32, initgroups: bool) -> io::Result<()> {
    let (user, group) = (Uid::from_raw(uid), Gid::from_raw(gid));
    if unistd::geteuid().is_root() && (group != unistd::getegid() || user != unistd::geteuid()) {
        set_groups(user, group, initgroups)?;
    }
    if group != unistd::getegid() {
        unistd::setgid(group)?;
    }
    if user != unistd::geteuid() {
        unistd::setuid(user)?;
    }
    Ok(())
}

fn set_groups(user: Uid, group: Gid, initgroups: bool) -> io::Result<()> {
    match User::from_uid(user) {
        Ok(Some(known)) if initgroups => Ok(unistd::initgroups(&CString::new(known.name)?, group)?),
        // A uid without a passwd entry is in no other group.
        _ => Ok(unistd::setgroups(&[group])?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_looked_up_ids_are_taken_nothing_means_ourselves() {
        assert_eq!(uid(Some(Spec::Name("root"))), Ok(0));
        assert_eq!(gid(Some(Spec::Name("root"))), Ok(0));
        assert_eq!(uid(Some(Spec::Id(54321))), Ok(54321));
        assert_eq!(gid(Some(Spec::Id(54321))), Ok(54321));
        assert_eq!(uid(None), Ok(unistd::geteuid().as_raw()));
        assert_eq!(gid(None), Ok(unistd::getegid().as_raw()));
        assert_eq!(uid(Some(Spec::Name("no such"))), Err(Unknown::User("no such".into())));
        assert_eq!(gid(Some(Spec::Name("no such"))), Err(Unknown::Group("no such".into())));
    }

    #[test]
    fn staying_who_we_are_needs_no_privilege() {
        drop_privileges(uid(None).unwrap(), gid(None).unwrap(), false).unwrap();
    }
}
