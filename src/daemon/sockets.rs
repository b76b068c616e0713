//! Who may open the Unix sockets that we listen on.

use anyhow::bail;
use config::{Config, Listener};
use nix::unistd::{Group, Uid, User};
use ring::UnixAccess;

/// Mode, owner and group of a listener's Unix sockets: as it says, else those that the server is about to have.
///
/// # Errors
/// When there is no such user or group.
pub(crate) fn unix_access(config: &Config, listener: &Listener) -> anyhow::Result<UnixAccess> {
    let key = |name: &str| format!("listener.{}.{name}", listener.name.to_ascii_lowercase());
    let (mut owner, mut group) = (None, None);
    if Uid::effective().is_root()
        && let Some(name) = &config.user
        && let Some(user) = User::from_name(name)?
    {
        (owner, group) = (Some(user.uid.as_raw()), Some(user.gid.as_raw()));
        if let Some(name) = &config.group
            && let Some(found) = Group::from_name(name)?
        {
            group = Some(found.gid.as_raw());
        }
    }
    if let Some(name) = &listener.unix_owner {
        match User::from_name(name)? {
            Some(user) => owner = Some(user.uid.as_raw()),
            None => bail!("{}: there is no user `{name}` on this host", key("unix-owner")),
        }
    }
    if let Some(name) = &listener.unix_group {
        match Group::from_name(name)? {
            Some(found) => group = Some(found.gid.as_raw()),
            None => bail!("{}: there is no group `{name}` on this host", key("unix-group")),
        }
    }
    Ok(UnixAccess { mode: listener.unix_mode.0, owner, group })
}
