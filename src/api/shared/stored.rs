//! Changing what is stored for one user, client or address, whoever else changes the same.

use tracing::warn;

use super::refusal::Refusal;
use crate::api::context::Handles;
use crate::cluster::admin::AdminError;
use crate::cluster::znodes::config::{Entity, Overrides};

/// How often a change is tried while others change the same.
const ATTEMPTS: usize = 5;

/// Stores what `changed` makes of what is there, if anything, and has it hold on this broker when it returns.
pub(in crate::api) async fn change(
    handles: &Handles,
    entity: &Entity,
    changed: impl Fn(&Overrides) -> Result<Option<Overrides>, Refusal>,
) -> Result<(), Refusal> {
    for attempt in 1.. {
        let existing = handles.admin.read_overrides(entity).await?;
        let Some(overrides) = changed(&existing.overrides)? else { return Ok(()) };
        match handles.admin.set_overrides(entity, &existing, overrides).await {
            Ok(()) => break,
            Err(AdminError::Raced(_)) if attempt < ATTEMPTS => {}
            Err(error) => return Err(error.into()),
        }
    }
    if let Err(error) = handles.dynamic_config.reload_entities(std::slice::from_ref(entity)).await {
        // It is stored, and the feed tells this broker as it tells the others.
        warn!(entity = entity.entity_path(), %error, "the change holds once the store can be read");
    }
    Ok(())
}
