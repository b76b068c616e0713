//! From root to a user of our own, once the ports are open and before any thread is started.

use std::{io::ErrorKind, os::unix::fs::lchown, path::Path};

use anyhow::{Context, bail};
use config::{Config, Places};
use nix::unistd::{Group, Uid, User, initgroups, setresgid, setresuid};

use crate::{confine::empty_bounding_set, say::say, serve::Begin};

/// What root is told that names nobody to become.
pub(crate) const ROOT: &str = "root does not serve mail: name a user to become (`useradd --system ringpost`), start it as \
     that user, or say `allow-root = true` where root owns nothing else";

/// Becomes the configured user and group; the data directory goes along.
///
/// # Errors
/// When there is no such user or group, or this process may not become them.
pub(crate) fn drop(config: &Config, places: &Places, begin: Begin) -> anyhow::Result<()> {
    if !Uid::effective().is_root() {
        return Ok(());
    }
    let Some(name) = &config.user else {
        if config.allow_root {
            say("ringpost: warning: the server runs as root; set `user` to one of its own");
            return Ok(());
        }
        bail!("{}: {ROOT}", places.name("user"));
    };
    let (user_key, group_key) = (places.name("user"), places.name("group"));
    let Some(user) = User::from_name(name).with_context(|| user_key.clone())? else {
        bail!("{user_key}: there is no user `{name}` on this host; make one with `useradd --system {name}`")
    };
    let group = match &config.group {
        None => user.gid,
        Some(name) => match Group::from_name(name).with_context(|| group_key.clone())? {
            Some(group) => group.gid,
            None => bail!(
                "{group_key}: there is no group `{name}` on this host; make one with `groupadd --system {name}`"
            ),
        },
    };
    // It has been given before. Whoever is that user may have put anything there meanwhile, and says when we are started.
    if begin == Begin::Alone {
        give(&config.data_directory, user.uid.as_raw(), group.as_raw())?;
    }
    empty_bounding_set().context("cannot give up capabilities for good")?;
    let become_user = || -> nix::Result<()> {
        initgroups(&std::ffi::CString::new(name.as_str()).map_err(|_| nix::errno::Errno::EINVAL)?, group)?;
        setresgid(group, group, group)?;
        setresuid(user.uid, user.uid, user.uid)
    };
    become_user().with_context(|| format!("{user_key}: cannot become user `{name}`"))
}

/// Gives the data directory and what lies in it to the user. Links are given away themselves, not what they lead to.
fn give(path: &Path, user: u32, group: u32) -> anyhow::Result<()> {
    match lchown(path, Some(user), Some(group)) {
        // It was removed meanwhile.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        given => given.with_context(|| format!("cannot give {} away", path.display()))?,
    }
    if path.is_dir() && !path.is_symlink() {
        let entries = std::fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))?;
        for entry in entries {
            give(&entry?.path(), user, group)?;
        }
    }
    Ok(())
}
