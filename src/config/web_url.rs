//! The address of something on the web, as settings name it.

use std::fmt;

/// `http://…` or `https://…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WebUrl {
    /// Over TLS.
    pub(crate) is_secure: bool,
    /// A name or an address; of IPv6 without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// With the query; begins with a slash.
    pub(crate) path: String,
}

impl WebUrl {
    /// `None`: the text begins with neither `http:` nor `https:`.
    ///
    /// # Errors
    /// Why it is none. It may not name a user, nor a part of what is there.
    pub(crate) fn parse(text: &str) -> Option<Result<Self, String>> {
        let (scheme, rest) = text.split_once(':')?;
        let is_secure = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        Some(Self::after_scheme(is_secure, rest).map_err(str::to_owned))
    }

    fn after_scheme(is_secure: bool, rest: &str) -> Result<Self, &'static str> {
        let rest = rest.strip_prefix("//").ok_or("it names no host")?;
        if !rest.bytes().all(|b| b.is_ascii_graphic()) {
            return Err("it has characters that no URL has");
        }
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err("it names a user");
        }
        if rest.contains('#') {
            return Err("it names a part of what is there");
        }
        let (host, port) = match authority.strip_prefix('[') {
            Some(bracketed) => bracketed.split_once(']').ok_or("a bracket is not closed")?,
            None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
        };
        let port = match port {
            "" | ":" if is_secure => 443,
            "" | ":" => 80,
            port => port
                .strip_prefix(':')
                .and_then(|port| port.parse().ok())
                .filter(|port| *port > 0)
                .ok_or("its port is none")?,
        };
        if host.is_empty() {
            return Err("it names no host");
        }
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Self { is_secure, host: host.to_owned(), port, path })
    }

    /// As a request names the server, with the port.
    pub(crate) fn authority(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }
}

/// Without the query, which may hold a secret.
impl fmt::Display for WebUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_secure { "https" } else { "http" };
        let path = self.path.split('?').next().unwrap_or_default();
        write!(f, "{scheme}://{}{path}", self.authority())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_read_strictly() {
        let parse = |text: &str| WebUrl::parse(text).map(|url| url.map(|url| (url.to_string(), url.path)));
        let is = |shown: &str, path: &str| Some(Ok((shown.to_owned(), path.to_owned())));
        assert_eq!(parse("http://h"), is("http://h:80/", "/"));
        assert_eq!(parse("HTTPS://h.example/a/b?k=v"), is("https://h.example:443/a/b", "/a/b?k=v"));
        assert_eq!(parse("https://[::1]:8443?x"), is("https://[::1]:8443/", "/?x"));
        assert_eq!((parse("file:///keys"), parse("keys"), parse("ftp://h/")), (None, None, None));
        for bad in [
            "http:",
            "http:h",
            "http://",
            "http:///a",
            "http://:1/",
            "http://h:x/",
            "http://h:0/",
            "http://h:65536/",
            "http://u:p@h/",
            "http://h/a#b",
            "http://h/a b",
            "http://h/\r\nx: y",
            "http://[::1/",
            "http://h/\u{e9}",
        ] {
            assert!(matches!(parse(bad), Some(Err(_))), "{bad}");
        }
    }
}
