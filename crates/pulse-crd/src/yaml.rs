//! Prints and parses YAML. The only user of `serde_yaml`, which is no longer maintained.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// An error of printing or parsing YAML.
#[derive(Debug, thiserror::Error)]
#[error("not valid YAML: {0}")]
pub struct YamlError(#[from] serde_yaml::Error);

/// Prints one document.
///
/// # Errors
/// [`YamlError`] for a value that YAML cannot represent.
pub fn print(value: &impl Serialize) -> Result<String, YamlError> {
    Ok(serde_yaml::to_string(value)?)
}

/// Parses one document.
///
/// # Errors
/// [`YamlError`] with line and column.
pub fn read<T: DeserializeOwned>(text: &str) -> Result<T, YamlError> {
    Ok(serde_yaml::from_str(text)?)
}
