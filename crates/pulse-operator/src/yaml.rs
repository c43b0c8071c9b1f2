//! YAML of our own, printed and read. The only user of `serde_yaml`, which is no longer maintained.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Why a text could not be printed or read.
#[derive(Debug, thiserror::Error)]
#[error("not valid YAML: {0}")]
pub struct YamlError(#[from] serde_yaml::Error);

/// Prints one document.
///
/// # Errors
/// [`YamlError`] for what YAML cannot say.
pub fn print(value: &impl Serialize) -> Result<String, YamlError> {
    Ok(serde_yaml::to_string(value)?)
}

/// Reads one document.
///
/// # Errors
/// [`YamlError`]: with line and column.
pub fn read<T: DeserializeOwned>(text: &str) -> Result<T, YamlError> {
    Ok(serde_yaml::from_str(text)?)
}
