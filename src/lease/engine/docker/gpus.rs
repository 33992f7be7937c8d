//! Whether the engine knows NVIDIA's GPUs by the Container Device Interface, and by what names.

use bollard::models::SystemInfo;

/// The longest description that is read, bytes.
const MAX_SPEC: u64 = 4 << 20;

/// Whether GPUs can be asked for by CDI and by their UUIDs: the engine lists some under such names, or one of its directories has
/// a description of theirs that names them so. An engine that could use CDI and has no such description takes the driver.
pub(super) async fn has_cdi_gpus(info: &SystemInfo) -> bool {
    let listed = info.discovered_devices.iter().flatten().filter_map(|device| device.id.as_deref());
    if listed.into_iter().any(|id| id.starts_with("nvidia.com/gpu=GPU-")) {
        return true;
    }
    described(info.cdi_spec_dirs.as_deref().unwrap_or_default()).await
}

/// Whether one of these directories has a CDI description of NVIDIA's GPUs by their UUIDs.
pub async fn described(directories: &[String]) -> bool {
    for folder in directories {
        let Ok(mut files) = tokio::fs::read_dir(folder).await else { continue };
        while let Ok(Some(file)) = files.next_entry().await {
            let path = file.path();
            let is_spec = path.extension().is_some_and(|kind| kind == "yaml" || kind == "json");
            let short = tokio::fs::metadata(&path).await.is_ok_and(|file| file.is_file() && file.len() <= MAX_SPEC);
            if !is_spec || !short {
                continue;
            }
            if tokio::fs::read_to_string(&path).await.is_ok_and(|text| names_gpus_by_uuid(&text)) {
                return true;
            }
        }
    }
    false
}

/// Whether a CDI description, YAML or JSON, is of `nvidia.com/gpu` and has a device that is named by a UUID. NVIDIA's older
/// tools name them by their index alone, and index 0 is another card after one drops out.
fn names_gpus_by_uuid(text: &str) -> bool {
    let plain: String = text.chars().filter(|c| !matches!(c, '"' | '\'' | ' ' | '\t')).collect();
    let of_gpus = plain.match_indices("kind:nvidia.com/gpu").any(|(at, kind)| {
        let next = plain.get(at + kind.len()..).and_then(|rest| rest.chars().next());
        next.is_none_or(|c| matches!(c, '\n' | '\r' | ',' | '}' | '#'))
    });
    of_gpus && plain.contains("name:GPU-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use bollard::models::DeviceInfo;

    #[test]
    fn a_description_counts_by_its_kind_and_its_devices_names() {
        let yaml = |kind: &str, name: &str| format!("cdiVersion: 0.5.0\nkind: {kind}\ndevices:\n- name: {name}\n");
        assert!(names_gpus_by_uuid(&yaml("nvidia.com/gpu", "GPU-03030303-0303-0303-0303-030303030303")));
        assert!(names_gpus_by_uuid(&yaml("\"nvidia.com/gpu\"", "'GPU-0'")));
        assert!(names_gpus_by_uuid(r#"{"kind": "nvidia.com/gpu","devices":[{"name": "0"},{"name":"GPU-1"}]}"#));
        assert!(!names_gpus_by_uuid(&yaml("nvidia.com/gpu", "\"0\"")), "by index alone");
        assert!(!names_gpus_by_uuid(&yaml("nvidia.com/gpu-imex", "GPU-1")), "another kind");
        assert!(!names_gpus_by_uuid(&yaml("vendor.com/net", "GPU-1")));
        assert!(!names_gpus_by_uuid(""));
    }

    #[tokio::test]
    async fn cdi_is_used_only_where_it_knows_the_gpus_by_uuid() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().to_str().unwrap().to_owned();
        let info = SystemInfo { cdi_spec_dirs: Some(vec!["/no/such".into(), folder]), ..SystemInfo::default() };
        assert!(!has_cdi_gpus(&info).await, "an empty directory");
        std::fs::write(dir.path().join("nvidia.yaml"), "").unwrap();
        assert!(!has_cdi_gpus(&info).await, "a name says nothing");
        std::fs::write(dir.path().join("cards.yaml"), "kind: nvidia.com/gpu\ndevices:\n- name: GPU-1\n").unwrap();
        assert!(has_cdi_gpus(&info).await);
        let device = |id: &str| DeviceInfo { source: Some("cdi".into()), id: Some(id.into()) };
        let listed = |id| SystemInfo { discovered_devices: Some(vec![device(id)]), ..SystemInfo::default() };
        assert!(has_cdi_gpus(&listed("nvidia.com/gpu=GPU-1")).await);
        assert!(!has_cdi_gpus(&listed("nvidia.com/gpu=0")).await);
        assert!(!has_cdi_gpus(&SystemInfo::default()).await);
    }
}
