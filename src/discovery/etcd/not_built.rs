//! Stands in for the source in a program without the feature `etcd`. Its configuration is refused before it gets here.

use super::found_keys::FoundKeys;
use crate::config::{EtcdAccess, PeerConfig, PeerListRules};
use crate::discovery::update::{FoundList, UpdateSender};

const NOT_BUILT: &str = "this program was built without etcd";

/// A prefix that cannot be watched.
pub(in crate::discovery) struct UnbuiltPrefix;

/// Fails.
///
/// # Errors
/// Always.
pub(crate) async fn read_etcd_keys(
    prefix: String,
    rules: PeerListRules,
    access: Option<EtcdAccess>,
) -> Result<FoundKeys, String> {
    UnbuiltPrefix::new(prefix, rules, access, &[])?.read().await
}

impl UnbuiltPrefix {
    /// Fails.
    ///
    /// # Errors
    /// Always.
    pub(in crate::discovery) fn new(
        _prefix: String,
        _rules: PeerListRules,
        _access: Option<EtcdAccess>,
        _known: &[PeerConfig],
    ) -> Result<Self, String> {
        Err(NOT_BUILT.to_owned())
    }

    /// Fails.
    ///
    /// # Errors
    /// Always.
    pub(in crate::discovery) async fn read(self) -> Result<FoundKeys, String> {
        std::future::ready(Err(NOT_BUILT.to_owned())).await
    }

    /// Reports the error once.
    pub(in crate::discovery) async fn watch(self, updates: UpdateSender) {
        updates.send(FoundList::Failed(NOT_BUILT.to_owned())).await;
    }
}
