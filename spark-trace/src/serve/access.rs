//! Who may ask: anyone on this machine where it is bound to loopback, else whoever has the token.

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    path::{Path, PathBuf},
};

use subtle::ConstantTimeEq;
use thiserror::Error;

pub const DEFAULT_LISTEN: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9753));

/// A shorter token could be guessed by trying.
const SHORTEST: usize = 16;

/// What an `Authorization` header begins with.
const SCHEME: &str = "Bearer";

#[derive(Debug, Error)]
pub enum AccessError {
    #[error(
        "--listen {0} is no loopback address: whoever reaches it would see names of processes' cgroups; give --token-file \
         FILE, or listen on 127.0.0.1"
    )]
    Open(SocketAddr),
    #[error("cannot read the token in {}: {cause}", path.display())]
    Unreadable { path: PathBuf, cause: io::Error },
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
                let text = fs::read_to_string(path)
                    .map_err(|cause| AccessError::Unreadable { path: path.into(), cause })?;
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

    /// Whether a request with this `Authorization` may be answered. How long it takes to say tells nothing of the token
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

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_token_is_asked_of_everyone() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        fs::write(&file, format!("{TOKEN}\n")).unwrap();
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
            fs::write(&file, text).unwrap();
            assert!(matches!(Access::new(DEFAULT_LISTEN, Some(&file)), Err(AccessError::NoToken { .. })));
        }
        let none = dir.path().join("none");
        assert!(matches!(Access::new(DEFAULT_LISTEN, Some(&none)), Err(AccessError::Unreadable { .. })));
    }
}
