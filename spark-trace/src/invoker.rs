//! The user who called sudo: whose files and commands these are.

use std::ffi::{CStr, CString, OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// The largest entry of the user database that is read.
const MAX_ENTRY: usize = 1 << 20;

/// The user behind sudo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invoker {
    pub uid: u32,
    pub gid: u32,
    pub name: String,
}

impl Invoker {
    /// Who called sudo, if somebody other than root did.
    pub fn from_environment() -> Option<Self> {
        // SAFETY: no arguments, cannot fail.
        if unsafe { libc::geteuid() } != 0 {
            return None;
        }
        let number = |name: &str| std::env::var(name).ok()?.parse::<u32>().ok();
        let (uid, gid) = (number("SUDO_UID")?, number("SUDO_GID")?);
        // The name decides about groups: the user database has the last word on it.
        let known = Account::of(uid).and_then(|account| account.name.into_string().ok());
        let name = known.or_else(|| std::env::var("SUDO_USER").ok())?;
        (uid != 0).then_some(Self { uid, gid, name })
    }

    /// User and group, as files are given to them.
    pub const fn owner(&self) -> (u32, u32) {
        (self.uid, self.gid)
    }

    /// The variables that sudo has set to root's, as the user's own: `None` is to be removed. A variable with any other
    /// value is what the user has chosen (`sudo env HOME=/scratch ...`), and stays.
    pub fn environment(&self) -> Vec<(&'static str, Option<OsString>)> {
        changes(&Account::of(0), &Account::of(self.uid), &self.name, |name| std::env::var_os(name))
    }
}

/// The file owner that a command under sudo gives what it writes.
pub fn owner() -> Option<(u32, u32)> {
    Invoker::from_environment().map(|invoker| invoker.owner())
}

/// An entry of the user database.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Account {
    name: OsString,
    home: OsString,
    shell: OsString,
}

impl Account {
    fn of(uid: u32) -> Option<Self> {
        let mut buffer = vec![0u8; 1024];
        loop {
            // SAFETY: all-zero bytes are a valid passwd: null pointers and numbers.
            let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
            let mut found = std::ptr::null_mut();
            // SAFETY: every pointer is to memory of this function, and the buffer is as long as it says.
            let status = unsafe {
                libc::getpwuid_r(
                    uid,
                    &raw mut entry,
                    buffer.as_mut_ptr().cast(),
                    buffer.len(),
                    &raw mut found,
                )
            };
            if status == libc::ERANGE && buffer.len() < MAX_ENTRY {
                buffer.resize(buffer.len() * 2, 0);
                continue;
            }
            if status != 0 || found.is_null() {
                return None;
            }
            let text = |field: *const libc::c_char| {
                // SAFETY: the fields of an entry that was found are strings in the buffer, which still lives.
                (!field.is_null())
                    .then(|| OsStr::from_bytes(unsafe { CStr::from_ptr(field) }.to_bytes()).into())
            };
            return Some(Self {
                name: text(entry.pw_name)?,
                home: text(entry.pw_dir)?,
                shell: text(entry.pw_shell)?,
            });
        }
    }
}

fn changes(
    root: &Option<Account>,
    user: &Option<Account>,
    user_name: &str,
    now: impl Fn(&str) -> Option<OsString>,
) -> Vec<(&'static str, Option<OsString>)> {
    let root_name: OsString = root.as_ref().map_or_else(|| "root".into(), |root| root.name.clone());
    let root_home: OsString = root.as_ref().map_or_else(|| "/root".into(), |root| root.home.clone());
    let root_shell = root.as_ref().map(|root| root.shell.clone());
    // Of a user that the database does not know (a directory service that this C library cannot ask) the home is not
    // known either: without the variable, programs look for it themselves.
    let name = user.as_ref().map_or_else(|| user_name.into(), |user| user.name.clone());
    let wanted = [
        ("HOME", Some(root_home), user.as_ref().map(|user| user.home.clone())),
        ("USER", Some(root_name.clone()), Some(name.clone())),
        ("LOGNAME", Some(root_name), Some(name)),
        ("SHELL", root_shell, user.as_ref().map(|user| user.shell.clone())),
    ];
    let is_roots = |variable: &str, roots: Option<OsString>| now(variable).is_none_or(|is| Some(is) == roots);
    wanted
        .into_iter()
        .filter(|(variable, roots, _)| is_roots(variable, roots.clone()))
        // An empty shell means the default one (passwd(5)): the variable says which only where there is one.
        .map(|(variable, _, users)| (variable, users.filter(|value| !value.is_empty())))
        .collect()
}

/// The C string of a user's name; names with a zero byte do not exist.
pub fn c_name(invoker: &Invoker) -> std::io::Result<CString> {
    CString::new(invoker.name.as_str()).map_err(std::io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(name: &str, home: &str, shell: &str) -> Option<Account> {
        Some(Account { name: name.into(), home: home.into(), shell: shell.into() })
    }

    fn under_sudo(name: &str) -> Option<OsString> {
        let set = [("HOME", "/root"), ("USER", "root"), ("LOGNAME", "root"), ("SHELL", "/bin/bash")];
        set.iter().find(|(variable, _)| *variable == name).map(|(_, value)| value.into())
    }

    #[test]
    fn what_sudo_made_roots_is_the_users_again() {
        let root = account("root", "/root", "/bin/bash");
        let changed = changes(&root, &account("ada", "/home/ada", "/bin/zsh"), "ada", under_sudo);
        let value = |text: &str| Some(OsString::from(text));
        assert_eq!(
            changed,
            [
                ("HOME", value("/home/ada")),
                ("USER", value("ada")),
                ("LOGNAME", value("ada")),
                ("SHELL", value("/bin/zsh")),
            ]
        );
        // What the user has set stays, what is not set is set.
        let chosen = |name: &str| match name {
            "HOME" => Some("/scratch".into()),
            "SHELL" => None,
            name => under_sudo(name),
        };
        let changed = changes(&root, &account("ada", "/home/ada", ""), "ada", chosen);
        assert_eq!(changed, [("USER", value("ada")), ("LOGNAME", value("ada")), ("SHELL", None)]);
    }

    #[test]
    fn an_unknown_user_does_not_keep_roots_home() {
        let changed = changes(&account("root", "/root", "/bin/sh"), &None, "far", under_sudo);
        let name = || Some(OsString::from("far"));
        assert_eq!(changed, [("HOME", None), ("USER", name()), ("LOGNAME", name())]);
    }

    #[test]
    fn the_user_database_knows_root() {
        let text = std::fs::read_to_string("/etc/passwd").unwrap();
        let entry = text.lines().find(|line| line.starts_with("root:")).unwrap();
        let fields: Vec<_> = entry.split(':').collect();
        let root = Account::of(0).unwrap();
        assert_eq!((root.home.to_str(), root.shell.to_str()), (Some(fields[5]), Some(fields[6])));
        assert_eq!(Account::of(u32::MAX - 7), None);
    }
}
