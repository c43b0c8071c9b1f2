//! The volumes of a pod: files of Secrets, a folder for temporary files, and those of the pod template.

use std::path::Path;

use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, Volume, VolumeMount};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use pulse_crd::PodTemplate;

/// Name and path of the volume for temporary files. The root file system is read-only.
const TMP: (&str, &str) = ("tmp", "/tmp");
/// Size limit of the volume for temporary files.
const TMP_SIZE: &str = "256Mi";

/// Returns the volumes of a pod, and the mounts of its container: those of `files`, and others. `users` are the volumes of the template.
pub(super) fn volumes(
    files: Vec<(Volume, VolumeMount)>,
    dev_reload: Option<&Path>,
    template: &PodTemplate,
    users: Vec<Volume>,
) -> (Vec<Volume>, Vec<VolumeMount>) {
    let builds = dev_reload.and_then(Path::parent).map(build_volume);
    let (ours, mounts): (Vec<Volume>, Vec<VolumeMount>) = files.into_iter().chain(builds).unzip();
    let path_of = |mount: &VolumeMount| mount.mount_path.trim_end_matches('/').to_owned();
    let name_of = |volume: &Volume| volume.name.clone();
    let mut mounts = with_additional(mounts, template.volume_mounts.clone(), path_of);
    let mut volumes = with_additional(ours, users, name_of);
    if mounts.iter().all(|mount| path_of(mount) != TMP.1) {
        let (volume, mount) = tmp_volume();
        volumes = with_additional(volumes, vec![volume], name_of);
        mounts.push(mount);
    }
    (volumes, mounts)
}

/// Adds the items whose key no other item has.
pub(super) fn with_additional<T>(mut items: Vec<T>, additional: Vec<T>, key: impl Fn(&T) -> String) -> Vec<T> {
    for item in additional {
        if items.iter().all(|other| key(other) != key(&item)) {
            items.push(item);
        }
    }
    items
}

/// Returns an empty volume for temporary files.
fn tmp_volume() -> (Volume, VolumeMount) {
    let limit = EmptyDirVolumeSource { size_limit: Some(Quantity(TMP_SIZE.into())), medium: None };
    empty_volume(TMP.0, TMP.1.into(), limit)
}

/// Returns an empty volume for development builds. It survives a restart of the container.
fn build_volume(directory: &Path) -> (Volume, VolumeMount) {
    empty_volume("pulse-dev-bin", directory.display().to_string(), EmptyDirVolumeSource::default())
}

fn empty_volume(name: &str, mount_path: String, source: EmptyDirVolumeSource) -> (Volume, VolumeMount) {
    let volume = Volume { name: name.into(), empty_dir: Some(source), ..Volume::default() };
    (volume, VolumeMount { name: name.into(), mount_path, ..VolumeMount::default() })
}
