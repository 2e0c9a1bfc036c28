//! Users and groups: looking up their ids, and giving up root's rights.

use std::ffi::CString;
use std::fmt;
use std::io;

use nix::unistd::{self, Gid, Group, Uid, User};

/// A user or group as a setting gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spec<'a> {
    /// A name, which is looked up.
    Name(&'a str),
    /// An id, which is used as it is: containers run under ids that no passwd file lists.
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
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unknown::User(name) => write!(f, "No such user: '{name}'"),
            Unknown::Group(name) => write!(f, "No such group: '{name}'"),
        }
    }
}

/// The uid behind a user (getpwnam(3)); None asks for the process's own.
pub fn uid(user: Option<Spec<'_>>) -> Result<u32, Unknown> {
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
pub fn gid(group: Option<Spec<'_>>) -> Result<u32, Unknown> {
    match group {
        None => Ok(unistd::getegid().as_raw()),
        Some(Spec::Id(id)) => Ok(id),
        Some(Spec::Name(name)) => match Group::from_name(name) {
            Ok(Some(found)) => Ok(found.gid.as_raw()),
            _ => Err(Unknown::Group(name.to_owned())),
        },
    }
}

/// Becomes the given user and group, as far as they differ from the present ones. A change by root
/// also sets the supplementary groups: those of the user with `initgroups`, else `gid` alone.
/// Root's would otherwise stay with the worker.
///
/// The order is the only one that works: after setuid no other id may be changed (credentials(7)).
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

/// Runs `action` with the rights to files of another user and group, and no other group's
/// (setfsuid(2)). Other threads are not affected. Only root can do it; `None` where the system does
/// not allow it.
pub fn acting_as<T>(uid: u32, gid: u32, action: impl FnOnce() -> T) -> Option<T> {
    let _restored = OwnRights::give_up(uid, gid)?;
    Some(action())
}

/// Restores the rights to files on drop.
struct OwnRights(Vec<Gid>);

impl OwnRights {
    fn give_up(uid: u32, gid: u32) -> Option<OwnRights> {
        let own = OwnRights(unistd::getgroups().ok()?);
        set_thread_groups(&[Gid::from_raw(gid)]).ok()?;
        // The group first: without root's rights it cannot be changed.
        unistd::setfsgid(Gid::from_raw(gid));
        unistd::setfsuid(Uid::from_raw(uid));
        // An invalid id changes nothing, and the call returns the id in force.
        let is_them = unistd::setfsuid(Uid::from_raw(u32::MAX)) == Uid::from_raw(uid);
        let is_theirs = unistd::setfsgid(Gid::from_raw(u32::MAX)) == Gid::from_raw(gid);
        (is_them && is_theirs).then_some(own)
    }
}

impl Drop for OwnRights {
    fn drop(&mut self) {
        unistd::setfsuid(unistd::geteuid());
        unistd::setfsgid(unistd::getegid());
        // Rights that could be given up can be taken back.
        let _ = set_thread_groups(&self.0);
    }
}

/// Sets the groups of this thread only: the C library's setgroups(3) would change all threads
/// (nptl(7)).
fn set_thread_groups(groups: &[Gid]) -> rustix::io::Result<()> {
    let groups: Vec<_> = groups.iter().map(|group| rustix::thread::Gid::from_raw(group.as_raw())).collect();
    rustix::thread::set_thread_groups(&groups)
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
    fn names_are_looked_up_ids_are_used_as_they_are_and_none_means_the_process() {
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
    fn acting_as_another_user_ends_with_the_action() {
        if !unistd::geteuid().is_root() {
            return println!("not tried: this needs root");
        }
        // The umask is the whole process's, and other tests change it.
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        let path = folder.path().join("roots");
        let rights = || (unistd::setfsuid(Uid::from_raw(u32::MAX)), unistd::getgroups().unwrap());
        let before = rights();
        let written = acting_as(54321, 54322, || (std::fs::write(&path, "x"), unistd::getgroups().unwrap())).unwrap();
        assert_eq!(written.0.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(written.1, [Gid::from_raw(54322)]);
        assert_eq!(rights(), before);
        std::fs::write(&path, "x").unwrap();
    }

    #[test]
    fn keeping_user_and_group_needs_no_privilege() {
        drop_privileges(uid(None).unwrap(), gid(None).unwrap(), false).unwrap();
    }
}
