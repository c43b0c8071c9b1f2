//! Keys of Secrets in a pod, as files and as environment variables.

use k8s_openapi::api::core::v1::{
    EnvVar, EnvVarSource, KeyToPath, SecretKeySelector, SecretVolumeSource, Volume, VolumeMount,
};
use pulse_crd::{PulseIngest, SecretKey};

/// A Secret key that is mounted as a file, and the variable with its path.
#[derive(Clone, Copy)]
pub(super) struct SecretFile<'a> {
    variable: &'static str,
    /// Name of the directory below `/etc/pulse`.
    folder: &'static str,
    file: &'static str,
    key: &'a SecretKey,
}

impl<'a> SecretFile<'a> {
    /// The public key of tokens.
    pub(super) fn public_key(cr: &'a PulseIngest) -> Option<Self> {
        let key = cr.spec.auth.public_key_secret_ref.as_ref()?;
        Some(Self { variable: "PULSE_JWT_PUBLIC_KEY_FILE", folder: "auth", file: "public.pem", key })
    }

    /// The CA of PostgreSQL.
    pub(super) fn database_ca(cr: &'a PulseIngest) -> Option<Self> {
        let key = cr.spec.database.ca_secret_ref.as_ref()?;
        Some(Self { variable: "PULSE_DATABASE_CA_FILE", folder: "database-ca", file: "ca.crt", key })
    }

    /// The CA of Redis.
    pub(super) fn redis_ca(cr: &'a PulseIngest) -> Option<Self> {
        let key = cr.spec.redis.ca_secret_ref.as_ref()?;
        Some(Self { variable: "PULSE_REDIS_CA_FILE", folder: "redis-ca", file: "ca.crt", key })
    }

    /// Returns the variable with the path of the file.
    pub(super) fn variable(self) -> EnvVar {
        value(self.variable, format!("{}/{}", self.directory(), self.file))
    }

    fn directory(self) -> String {
        format!("/etc/pulse/{}", self.folder)
    }

    /// Mounts this key only, not the other keys of the Secret.
    pub(super) fn volume(self) -> Volume {
        let SecretKey { name, key } = self.key.clone();
        let items = vec![KeyToPath { key, path: self.file.into(), mode: None }];
        let source =
            SecretVolumeSource { secret_name: Some(name), items: Some(items), ..SecretVolumeSource::default() };
        Volume { name: self.name(), secret: Some(source), ..Volume::default() }
    }

    /// Name of the volume, with a prefix that the schema refuses for other volumes.
    fn name(self) -> String {
        format!("pulse-{}", self.folder)
    }

    pub(super) fn mount(self) -> VolumeMount {
        let (name, mount_path) = (self.name(), self.directory());
        VolumeMount { name, mount_path, read_only: Some(true), ..VolumeMount::default() }
    }
}

/// Returns a variable with a literal value.
pub(super) fn value(name: &str, value: impl Into<String>) -> EnvVar {
    EnvVar { name: name.into(), value: Some(value.into()), ..EnvVar::default() }
}

/// Returns a variable with the value of a Secret key.
pub(super) fn secret(name: &str, key: &SecretKey) -> EnvVar {
    let SecretKey { name: secret, key } = key.clone();
    let selector = SecretKeySelector { name: secret, key, optional: None };
    let source = EnvVarSource { secret_key_ref: Some(selector), ..EnvVarSource::default() };
    EnvVar { name: name.into(), value_from: Some(source), ..EnvVar::default() }
}
