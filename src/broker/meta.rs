//! `meta.properties`: which broker of which cluster a log directory belongs to, as Kafka 3.9 writes it in ZooKeeper
//! mode.
//!
//! ```text
//! #
//! #Sat Nov 21 12:00:00 UTC 2026        (written by Kafka; klamm leaves the date out)
//! version=0
//! broker.id=1
//! cluster.id=Hs9mbAkVSQKkYpNcJPRZxg
//! ```

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::types::BrokerId;

const FILE: &str = "meta.properties";

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MetaProperties {
    pub(crate) broker_id: Option<BrokerId>,
    pub(crate) cluster_id: Option<String>,
}

/// Why a directory cannot be this broker's.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MetaError {
    #[error("{path}: {error}")]
    Io { path: PathBuf, error: io::Error },
    #[error(
        "{path}: version {version} is not that of ZooKeeper mode (0); the directory belongs to another kind of broker"
    )]
    Version { path: PathBuf, version: String },
    #[error("{path}: broker.id is not a number: {value}")]
    BrokerIdMalformed { path: PathBuf, value: String },
    #[error(
        "Configured broker.id {configured} doesn't match stored broker.id {stored} in {path}. If you moved your data, make sure your configured broker.id matches. If you intend to create a new broker, you should remove all data in your data directories (log.dirs)."
    )]
    BrokerId { path: PathBuf, configured: BrokerId, stored: BrokerId },
    #[error(
        "The Cluster ID {configured} doesn't match stored clusterId {stored} in {path}. The broker is trying to join the wrong cluster. Configured zookeeper.connect may be wrong."
    )]
    ClusterId { path: PathBuf, configured: String, stored: String },
}

impl MetaProperties {
    /// Reads the file of a log directory; `None` if there is none.
    pub(crate) fn read(dir: &Path) -> Result<Option<Self>, MetaError> {
        let path = dir.join(FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(MetaError::Io { path, error }),
        };
        let value = |name: &str| {
            text.lines()
                .filter(|line| !line.starts_with('#'))
                .filter_map(|line| line.split_once('='))
                .find(|(key, _)| key.trim() == name)
                .map(|(_, value)| value.trim().to_owned())
        };
        match value("version") {
            Some(version) if version != "0" => return Err(MetaError::Version { path, version }),
            Some(_) | None => {}
        }
        let broker_id = match value("broker.id") {
            Some(value) => match value.parse() {
                Ok(id) => Some(BrokerId(id)),
                Err(_) => return Err(MetaError::BrokerIdMalformed { path, value }),
            },
            None => None,
        };
        Ok(Some(Self { broker_id, cluster_id: value("cluster.id") }))
    }

    /// Refuses a directory of another broker or another cluster.
    pub(crate) fn check(&self, dir: &Path, broker_id: BrokerId, cluster_id: &str) -> Result<(), MetaError> {
        let path = dir.join(FILE);
        if let Some(stored) = self.broker_id.filter(|stored| *stored != broker_id) {
            return Err(MetaError::BrokerId { path, configured: broker_id, stored });
        }
        if let Some(stored) = self.cluster_id.as_ref().filter(|stored| *stored != cluster_id) {
            return Err(MetaError::ClusterId { path, configured: cluster_id.to_owned(), stored: stored.clone() });
        }
        Ok(())
    }

    /// Writes the file so that a crash leaves the old one or the new one.
    pub(crate) fn write(dir: &Path, broker_id: BrokerId, cluster_id: &str) -> Result<(), MetaError> {
        let path = dir.join(FILE);
        let write = || -> io::Result<()> {
            let next = dir.join(format!("{FILE}.tmp"));
            let mut file = fs::File::create(&next)?;
            write!(file, "#\nversion=0\nbroker.id={broker_id}\ncluster.id={cluster_id}\n")?;
            file.sync_all()?;
            fs::rename(&next, &path)?;
            // Without the name a loss of power would leave a directory without an owner.
            fs::File::open(dir)?.sync_all()
        };
        write().map_err(|error| MetaError::Io { path: path.clone(), error })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_checked() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(MetaProperties::read(dir.path()).unwrap(), None);
        MetaProperties::write(dir.path(), BrokerId(7), "abc").unwrap();
        let meta = MetaProperties::read(dir.path()).unwrap().unwrap();
        assert!(meta.check(dir.path(), BrokerId(7), "abc").is_ok());
        assert!(matches!(meta.check(dir.path(), BrokerId(8), "abc"), Err(MetaError::BrokerId { .. })));
        assert!(matches!(meta.check(dir.path(), BrokerId(7), "xyz"), Err(MetaError::ClusterId { .. })));
    }

    #[test]
    fn a_kraft_directory_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), "#x\nversion=1\nnode.id=1\ncluster.id=abc\n").unwrap();
        assert!(matches!(MetaProperties::read(dir.path()), Err(MetaError::Version { .. })));
    }
}
