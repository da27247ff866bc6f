//! The user who called sudo: whose files and commands these are.

use std::ffi::{CStr, CString, OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use thiserror::Error;

/// The largest entry of the user database that is read.
const MAX_ENTRY: usize = 1 << 20;
/// NGROUPS_MAX of include/uapi/linux/limits.h.
const MOST_GROUPS: usize = 65_536;

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

    /// The groups of the user, as the user database has them.
    pub fn groups(&self) -> Vec<u32> {
        let Ok(name) = CString::new(self.name.as_str()) else { return vec![self.gid] };
        let mut groups = vec![0; 64];
        loop {
            let mut count = i32::try_from(groups.len()).unwrap_or(i32::MAX);
            // SAFETY: the name is a string, and there is room for as many groups as it says.
            let found =
                unsafe { libc::getgrouplist(name.as_ptr(), self.gid, groups.as_mut_ptr(), &raw mut count) };
            let count = usize::try_from(count).unwrap_or(0);
            if found < 0 && count > groups.len() && count <= MOST_GROUPS {
                groups.resize(count, 0);
                continue;
            }
            groups.truncate(count.min(groups.len()));
            return groups;
        }
    }

    /// Has a program run as the user, with the user's own variables.
    pub fn become_user(&self, command: &mut Command) {
        for (variable, value) in self.environment() {
            match value {
                Some(value) => command.env(variable, value),
                None => command.env_remove(variable),
            };
        }
        let (uid, gid, groups) = (self.uid, self.gid, self.groups());
        // SAFETY: between fork and exec only system calls with data that was made before.
        unsafe {
            command.pre_exec(move || become_id(uid, gid, &groups));
        }
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

/// Gives up this process's user, groups and with them its capabilities. Makes system calls only: it may be called between
/// fork and exec.
pub fn become_id(uid: u32, gid: u32, groups: &[u32]) -> io::Result<()> {
    // SAFETY: the pointer is to so many groups.
    let changed = unsafe {
        libc::setgroups(groups.len(), groups.as_ptr()) == 0
            && libc::setgid(gid) == 0
            && libc::setuid(uid) == 0
    };
    if changed { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Refuses to go on as root where it is not clear who called sudo: the command would run as root, and what is written would
/// be root's.
pub fn check() -> Result<(), SudoError> {
    // SAFETY: no arguments, cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        return Ok(());
    }
    fit_together(
        |name| std::env::var_os(name),
        |name| Account::named(name).map(|account| account.uid),
        |uid| Account::of(uid).is_some(),
    )
}

/// What sudo sets (sudo(8), ENVIRONMENT).
const VARIABLES: [&str; 3] = ["SUDO_UID", "SUDO_GID", "SUDO_USER"];

#[derive(Debug, Error, PartialEq, Eq)]
#[error(
    "{what}: the user who called sudo is unknown. Run spark-trace with sudo, or as root without SUDO_UID, SUDO_GID and SUDO_USER"
)]
pub struct SudoError {
    what: String,
}

fn fit_together(
    variable: impl Fn(&str) -> Option<OsString>,
    uid_of: impl Fn(&str) -> Option<u32>,
    is_known: impl Fn(u32) -> bool,
) -> Result<(), SudoError> {
    let error = |what: String| Err(SudoError { what });
    let [uid, gid, user] = VARIABLES.map(&variable);
    if [&uid, &gid, &user].into_iter().all(Option::is_none) {
        return Ok(());
    }
    let number = |value: &Option<OsString>| {
        let number = value.as_ref()?.to_str()?.parse::<u32>().ok()?;
        // (uid_t) -1 stands for no change (setresuid(2)).
        (number != u32::MAX).then_some(number)
    };
    let numbers = [number(&uid), number(&gid)];
    for ((name, value), number) in VARIABLES.iter().zip([&uid, &gid]).zip(numbers) {
        match (value, number) {
            (None, _) => return error(format!("{name} is missing")),
            (Some(value), None) => {
                return error(format!("{name} is {value:?}, which is no number of a user or group"));
            }
            (Some(_), Some(_)) => {}
        }
    }
    let Some(user) = user else { return error("SUDO_USER is missing".to_owned()) };
    let Some(user) = user.to_str().filter(|user| !user.is_empty()) else {
        return error(format!("SUDO_USER is {user:?}, which is no name of a user"));
    };
    // The name decides about groups where the database does not know the number.
    match (numbers[0], uid_of(user)) {
        (Some(uid), Some(other)) if uid != other && !is_known(uid) => {
            error(format!("SUDO_USER is {user:?}, whose number is {other}, and SUDO_UID is {uid}"))
        }
        _ => Ok(()),
    }
}

/// The file owner that a command under sudo gives what it writes.
pub fn owner() -> Option<(u32, u32)> {
    Invoker::from_environment().map(|invoker| invoker.owner())
}

/// An entry of the user database.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Account {
    uid: u32,
    name: OsString,
    home: OsString,
    shell: OsString,
}

impl Account {
    fn of(uid: u32) -> Option<Self> {
        // SAFETY: the pointers are those that the function wants, and the length is that of the buffer.
        Self::find(|entry, buffer, len, found| unsafe { libc::getpwuid_r(uid, entry, buffer, len, found) })
    }

    fn named(name: &str) -> Option<Self> {
        let name = CString::new(name).ok()?;
        // SAFETY: as above, and the name is a string.
        Self::find(|entry, buffer, len, found| unsafe {
            libc::getpwnam_r(name.as_ptr(), entry, buffer, len, found)
        })
    }

    fn find(
        look: impl Fn(*mut libc::passwd, *mut libc::c_char, usize, *mut *mut libc::passwd) -> i32,
    ) -> Option<Self> {
        let mut buffer = vec![0u8; 1024];
        loop {
            // SAFETY: all-zero bytes are a valid passwd: null pointers and numbers.
            let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
            let mut found = std::ptr::null_mut();
            let status = look(&raw mut entry, buffer.as_mut_ptr().cast(), buffer.len(), &raw mut found);
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
                uid: entry.pw_uid,
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
    // Of a user that the database does not know (a directory service that this C library cannot reach) the home is not
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

#[cfg(test)]
mod tests {
    use super::*;

    fn account(name: &str, home: &str, shell: &str) -> Option<Account> {
        Some(Account { uid: 0, name: name.into(), home: home.into(), shell: shell.into() })
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
    fn what_sudo_says_is_whole_or_refused() {
        let check = |uid: Option<&str>, gid: Option<&str>, user: Option<&str>| {
            let variable = |name: &str| match name {
                "SUDO_UID" => uid.map(OsString::from),
                "SUDO_GID" => gid.map(OsString::from),
                _ => user.map(OsString::from),
            };
            let uid_of =
                |name: &str| [("ada", 1000), ("eve", 1001)].iter().find(|(n, _)| *n == name).map(|(_, u)| *u);
            fit_together(variable, uid_of, |uid| (1000..=1001).contains(&uid))
        };
        assert_eq!(check(None, None, None), Ok(()));
        // The database has the last word on a number that it knows; a directory service knows others.
        for (uid, user) in [("1000", "ada"), ("0", "root"), ("1000", "someone-else"), ("77", "far")] {
            assert_eq!(check(Some(uid), Some("1000"), Some(user)), Ok(()), "{uid} {user}");
        }
        let one = Some("1000");
        for (uid, gid, user, said) in [
            (None, one, Some("ada"), "SUDO_UID is missing"),
            (one, None, Some("ada"), "SUDO_GID is missing"),
            (one, one, None, "SUDO_USER is missing"),
            (None, None, Some("ada"), "SUDO_UID"),
            (Some("x1234"), one, Some("ada"), "x1234"),
            (Some("-1"), one, Some("ada"), "-1"),
            (Some("4294967295"), one, Some("ada"), "4294967295"),
            (one, Some(""), Some("ada"), "SUDO_GID"),
            (one, one, Some(""), "SUDO_USER"),
            (Some("77"), one, Some("eve"), "1001"),
        ] {
            let error = check(uid, gid, user).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn groups_are_those_of_the_user_database() {
        let invoker = |name: &str| Invoker { uid: 12345, gid: 54321, name: name.to_owned() };
        assert_eq!(invoker("no-such-user-anywhere").groups(), [54321]);
        let text = std::fs::read_to_string("/etc/group").unwrap();
        for line in text.lines() {
            let fields: Vec<_> = line.split(':').collect();
            for member in fields[3].split(',').filter(|member| !member.is_empty()) {
                assert!(invoker(member).groups().contains(&fields[2].parse().unwrap()), "{line}");
            }
        }
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
