//! What goes wrong, and when: rules by operation, path and count.

/// What a program asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Open,
    Read,
    Write,
    Sync,
    SyncDirectory,
    Allocate,
    Truncate,
    Create,
    Link,
    Rename,
    Remove,
}

impl Operation {
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Read => "read",
            Self::Write => "write",
            Self::Sync => "sync",
            Self::SyncDirectory => "syncdir",
            Self::Allocate => "allocate",
            Self::Truncate => "truncate",
            Self::Create => "create",
            Self::Link => "link",
            Self::Rename => "rename",
            Self::Remove => "remove",
        }
    }

    /// Whether `word` means it: its name, `any`, or `change` for all but opening and reading.
    fn is_meant(self, word: &str) -> bool {
        word == self.name() || word == "any" || (word == "change" && !matches!(self, Self::Open | Self::Read))
    }

    pub fn is_word(word: &str) -> bool {
        let all = [
            Self::Open,
            Self::Read,
            Self::Write,
            Self::Sync,
            Self::SyncDirectory,
            Self::Allocate,
            Self::Truncate,
            Self::Create,
            Self::Link,
            Self::Rename,
            Self::Remove,
        ];
        all.iter().any(|operation| operation.is_meant(word))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// EIO. Of a sync: what was dirty is lost.
    Fail,
    /// ENOSPC.
    Full,
    SleepMs(u64),
    /// A read or write takes half of the bytes.
    Short,
    /// One bit of what a read answers.
    Flip,
    /// A sync succeeds, and nothing is durable by it.
    Lie,
    /// This operation and all that come after it wait, until the power is lost.
    Freeze,
}

#[derive(Debug)]
pub struct Rule {
    pub number: u64,
    pub operation: String,
    /// `*` stands for any characters, `?` for one. Without a slash it is about the last part of the path.
    pub path: String,
    pub effect: Effect,
    /// So many operations that match pass first.
    pub after: u64,
    /// So many meet it then.
    pub count: u64,
    /// So many have met it.
    pub hits: u64,
}

impl Rule {
    /// What happens to this operation; each that matches is counted.
    pub fn apply(&mut self, operation: Operation, path: &str) -> Option<Effect> {
        if self.count == 0 || !operation.is_meant(&self.operation) || !matches(&self.path, path) {
            return None;
        }
        if self.after > 0 {
            self.after -= 1;
            return None;
        }
        self.count -= 1;
        self.hits += 1;
        Some(self.effect)
    }
}

pub fn matches(pattern: &str, path: &str) -> bool {
    let path = if pattern.contains('/') { path } else { path.rsplit('/').next().unwrap_or(path) };
    glob(pattern.as_bytes(), path.as_bytes())
}

fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match pattern {
        [] => text.is_empty(),
        [b'*', rest @ ..] => (0..=text.len()).any(|skipped| glob(rest, &text[skipped..])),
        [b'?', rest @ ..] => !text.is_empty() && glob(rest, &text[1..]),
        [first, rest @ ..] => text.first() == Some(first) && glob(rest, &text[1..]),
    }
}
