//! What a read of a prefix yields.

use crate::config::PeerConfig;

/// The peers that a prefix has, and the problems with its keys, in the order of the keys.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct FoundKeys {
    /// The peers; labels are unique.
    pub peers: Vec<PeerConfig>,
    /// One line for each key that is not what its value says.
    pub problems: Vec<String>,
}
