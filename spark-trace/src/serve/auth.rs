//! Who may read: anyone on this machine where it is bound to loopback, else whoever has the token.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use subtle::ConstantTimeEq;
use thiserror::Error;

pub const DEFAULT_LISTEN: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9753));

/// A shorter token could be guessed by trying.
const SHORTEST: usize = 16;

/// More than any token has.
const LONGEST: u64 = 4096;
/// Rights of others to a file.
const OTHERS: u32 = 0o077;

/// What an `Authorization` header begins with.
const SCHEME: &str = "Bearer";

#[derive(Debug, Error)]
pub enum AccessError {
    #[error(
        "--listen {0} is no loopback address, and everyone in that network could read the metrics; use --token-file \
         FILE, or listen on 127.0.0.1"
    )]
    Open(SocketAddr),
    #[error("cannot read the token in {}: {cause}", path.display())]
    Unreadable { path: PathBuf, cause: io::Error },
    #[error(
        "{}: other users can read it (mode {mode:03o}): run `chmod 600` on it",
        path.display()
    )]
    Shared { path: PathBuf, mode: u32 },
    #[error("{}: belongs to user {uid}, who could read and change it: `chown` it to the user that runs serve", path.display())]
    Foreign { path: PathBuf, uid: u32 },
    #[error(
        "{}: a token is one line of at least {SHORTEST} visible ASCII characters; make one with `openssl rand -hex 32`",
        path.display()
    )]
    NoToken { path: PathBuf },
}

/// What a request must bring.
pub struct Access {
    token: Option<Vec<u8>>,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.token.is_some() { "Access(token)" } else { "Access(anyone)" })
    }
}

impl Access {
    /// Refuses to serve others than this machine's users without a token.
    pub fn new(listen: SocketAddr, token_file: Option<&Path>) -> Result<Self, AccessError> {
        match token_file {
            Some(path) => {
                let text = private_text(path)?;
                Self::with_token(text.trim()).ok_or_else(|| AccessError::NoToken { path: path.into() })
            }
            None if listen.ip().is_loopback() => Ok(Self { token: None }),
            None => Err(AccessError::Open(listen)),
        }
    }

    fn with_token(token: &str) -> Option<Self> {
        let fit = token.len() >= SHORTEST && token.bytes().all(|byte| byte.is_ascii_graphic());
        fit.then(|| Self { token: Some(token.as_bytes().to_vec()) })
    }

    /// Whether a request to this `Host` may be answered. Without a token a page that somebody's browser shows could have
    /// its own name resolved to this machine and read everything: so the name must be this machine's. Programs that are no
    /// browsers may send none.
    pub fn allows_host(&self, host: Option<&[u8]>) -> bool {
        let Some(host) = host.filter(|_| self.token.is_none()) else { return true };
        std::str::from_utf8(host).is_ok_and(is_local)
    }

    /// Whether a request with this `Authorization` may be answered. The time that it takes reveals nothing of the token
    /// but its length.
    pub fn allows(&self, authorization: Option<&[u8]>) -> bool {
        let Some(token) = &self.token else { return true };
        let given = authorization.and_then(|header| {
            let (scheme, rest) = header.split_at_checked(SCHEME.len())?;
            let is_bearer = scheme.eq_ignore_ascii_case(SCHEME.as_bytes()) && rest.first() == Some(&b' ');
            is_bearer.then(|| rest.trim_ascii())
        });
        given.is_some_and(|given| given.ct_eq(token).into())
    }
}

/// `localhost` or a loopback address, with a port or without.
fn is_local(host: &str) -> bool {
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    if let Some(rest) = host.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else { return false };
        let port = port.strip_prefix(':').unwrap_or(port);
        return is_port(port) && address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    }
    let (name, port) = host.split_once(':').unwrap_or((host, ""));
    let is_loopback = || name.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback());
    is_port(port) && (name.eq_ignore_ascii_case("localhost") || is_loopback())
}

/// What is in a file that nobody but its owner can read, who is root or this process's user.
fn private_text(path: &Path) -> Result<String, AccessError> {
    let unreadable = |cause| AccessError::Unreadable { path: path.into(), cause };
    let open = || -> io::Result<(File, std::fs::Metadata)> {
        // Not waiting: it may be a FIFO.
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        let about = file.metadata()?;
        Ok((file, about))
    };
    let (file, about) = open().map_err(unreadable)?;
    if !about.is_file() {
        return Err(unreadable(io::Error::other("not a file")));
    }
    // SAFETY: cannot fail.
    let own = unsafe { libc::geteuid() };
    if about.uid() != own && about.uid() != 0 {
        return Err(AccessError::Foreign { path: path.into(), uid: about.uid() });
    }
    if about.mode() & OTHERS != 0 {
        return Err(AccessError::Shared { path: path.into(), mode: about.mode() & 0o777 });
    }
    let mut text = String::new();
    file.take(LONGEST).read_to_string(&mut text).map_err(unreadable)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    fn write_private(file: &Path, text: &str) {
        fs::write(file, text).unwrap();
        fs::set_permissions(file, PermissionsExt::from_mode(0o600)).unwrap();
    }

    #[test]
    fn only_names_of_this_machine_are_answered_without_a_token() {
        let open = Access::new(DEFAULT_LISTEN, None).unwrap();
        for good in [
            "localhost",
            "LocalHost:9753",
            "127.0.0.1",
            "127.0.0.1:9753",
            "127.8.8.8:1",
            "[::1]",
            "[::1]:9753",
        ] {
            assert!(open.allows_host(Some(good.as_bytes())), "{good}");
        }
        for bad in [
            "attacker.example",
            "attacker.example:9753",
            "localhost.attacker.example",
            "127.0.0.1.attacker.example",
            "",
            "10.0.0.1:9753",
            "[::2]:9753",
            "[::1",
            "[::1]x",
            "localhost:x",
            "0.0.0.0",
            "127.1",
            "::1",
        ] {
            assert!(!open.allows_host(Some(bad.as_bytes())), "{bad}");
        }
        assert!(!open.allows_host(Some(b"\xff")) && open.allows_host(None));
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        write_private(&file, TOKEN);
        assert!(Access::new(DEFAULT_LISTEN, Some(&file)).unwrap().allows_host(Some(b"node7.example:9753")));
    }

    #[test]
    fn a_token_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        write_private(&file, TOKEN);
        for mode in [0o644, 0o640, 0o604, 0o660] {
            fs::set_permissions(&file, PermissionsExt::from_mode(mode)).unwrap();
            let error = Access::new(DEFAULT_LISTEN, Some(&file)).unwrap_err();
            assert!(error.to_string().contains("chmod 600"), "{mode:o}: {error}");
        }
        let fifo = dir.path().join("fifo");
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        assert!(matches!(Access::new(DEFAULT_LISTEN, Some(&fifo)), Err(AccessError::Unreadable { .. })));
    }

    const TOKEN: &str = "0123456789abcdef";

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn without_a_token_only_loopback_is_served() {
        for text in ["127.0.0.1:9753", "127.8.8.8:1", "[::1]:9753"] {
            assert!(Access::new(address(text), None).unwrap().allows(None), "{text}");
        }
        for text in ["0.0.0.0:9753", "192.0.2.1:9753", "[::]:9753", "[::ffff:127.0.0.1]:9753"] {
            let error = Access::new(address(text), None).unwrap_err();
            assert!(error.to_string().contains("--token-file"), "{text}: {error}");
        }
    }

    #[test]
    fn everyone_needs_the_token() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        write_private(&file, &format!("{TOKEN}\n"));
        for listen in ["127.0.0.1:0", "0.0.0.0:0"] {
            let access = Access::new(address(listen), Some(&file)).unwrap();
            for good in ["Bearer 0123456789abcdef", "bearer  0123456789abcdef"] {
                assert!(access.allows(Some(good.as_bytes())), "{good}");
            }
            for bad in [
                "",
                "Bearer",
                "Bearer ",
                TOKEN,
                "Basic 0123456789abcdef",
                "Bearer0123456789abcdef",
                "Bearer 0123456789abcdeX",
                "Bearer 0123456789abcdef0",
                "Bearer 0123456789abcde",
            ] {
                assert!(!access.allows(Some(bad.as_bytes())), "{bad}");
            }
            assert!(!access.allows(None));
            assert!(!access.allows(Some(b"Bearer \xff\xfe")));
            assert!(!format!("{access:?}").contains(TOKEN));
        }
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        for text in ["", "\n", "short", "0123456789abcdef 0123456789abcdef", "0123456789abcdé\u{7f}"] {
            write_private(&file, text);
            assert!(matches!(Access::new(DEFAULT_LISTEN, Some(&file)), Err(AccessError::NoToken { .. })));
        }
        let none = dir.path().join("none");
        assert!(matches!(Access::new(DEFAULT_LISTEN, Some(&none)), Err(AccessError::Unreadable { .. })));
    }
}
