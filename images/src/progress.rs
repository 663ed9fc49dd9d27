//! What a pull or load tells about its layers while it works. Nothing here prints.

use std::time::Duration;

/// Receives events from several threads at once.
pub trait Progress: Sync {
    /// `layer` is the short ID (twelve hex digits) of the layer's blob, or empty for a matter of the
    /// whole image.
    fn event(&self, layer: &str, event: ProgressEvent<'_>);
}

/// One moment in the life of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProgressEvent<'a> {
    /// The registry answered: the pull of this repository begins (empty layer ID).
    Resolved { tag: &'a str, repository: &'a str },
    /// A mirror did not help; the next place is asked (empty layer ID).
    Passed { mirror: &'a str, cause: &'a str },
    /// A push of this repository begins (empty layer ID).
    Pushing { repository: &'a str },
    /// Bytes sent to the registry.
    Uploading { done: u64, total: u64 },
    /// The registry has it now.
    Uploaded,
    /// The registry had it.
    UploadedBefore,
    /// Its turn has not come, or another rrun is fetching the same layer.
    Waiting,
    /// Bytes as they travel (compressed); they are unpacked in the same breath.
    Downloading { done: u64, total: u64 },
    /// Bytes read from a file on this machine, being unpacked.
    Extracting { done: u64, total: u64 },
    /// The connection broke or the registry is busy: try `attempt` follows after `pause`.
    Retrying { attempt: u32, pause: Duration, cause: &'a str },
    /// Unpacked and verified.
    Done,
    /// Was here before.
    Exists,
}

/// For callers that do not want to hear.
pub struct Silent;

impl Progress for Silent {
    fn event(&self, _layer: &str, _event: ProgressEvent<'_>) {}
}
