//! A node that coordinated itself and is to join a cluster over ZooKeeper: refused, never half moved.
//!
//! What the cluster knows lies in the tree beside its records, and nothing carries that over. A ZooKeeper that knows
//! nothing of these logs would have them deleted as strays, and one that knows topics of the same names would lead them
//! with records of others.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::dirs::Dirs;
use super::refused::{StartError, failed};
use crate::config::ZookeeperConfig;
use crate::storage::StorageError;
use crate::task;

/// Refuses log directories with an embedded tree beside ZooKeeper. Nothing has been asked of ZooKeeper by then.
pub(super) async fn refuse_embedded_tree(dirs: &Dirs, zookeeper: &ZookeeperConfig) -> Result<(), StartError> {
    for (path, (dir, _)) in dirs.paths.iter().zip(&dirs.dirs) {
        let dir = Arc::clone(dir);
        let looked = task::blocking(move || {
            let mut found = false;
            dir.scan_tree(&mut |_, _| {
                found = true;
                ControlFlow::Break(())
            })?;
            Ok::<_, StorageError>(found)
        });
        if looked.await.map_err(failed)? {
            return Err(StartError(format!(
                "Log directory {} holds the state of a node that coordinates itself, and zookeeper.connect={}{} is \
                 set. klamm does not move topics, groups and configs into ZooKeeper. Without zookeeper.connect the \
                 node goes on as it was. To join the cluster start with empty log.dirs, and copy the topics from the \
                 old node, with MirrorMaker for example.",
                path.display(),
                zookeeper.connect,
                zookeeper.chroot
            )));
        }
    }
    Ok(())
}
