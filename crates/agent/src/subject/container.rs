//! Containers' ids in cgroup paths.

/// The label by which compose names the service that a container is of.
pub const SERVICE_LABEL: &str = "com.docker.compose.service";

/// The container id in a cgroup's path: `/docker/ID`, `docker-ID.scope`, `libpod-ID.scope`,
/// `/default/ID`. The supervisor that podman keeps beside a container (`libpod-conmon-ID`) is not it.
pub fn id_in_path(path: &str) -> Option<&str> {
    path.split('/').find_map(|component| {
        let name = component.strip_suffix(".scope").unwrap_or(component);
        let id = name.rsplit('-').next()?;
        let is_id = id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit());
        (is_id && !name.contains("conmon")).then_some(id)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn ids_are_found_as_each_engine_writes_them() {
        for path in [
            format!("/docker/{ID}"),
            format!("/system.slice/docker-{ID}.scope"),
            format!("/machine.slice/libpod-{ID}.scope/container"),
            format!("/default/{ID}"),
            format!("/kubepods/besteffort/pod1/{ID}"),
        ] {
            assert_eq!(id_in_path(&path), Some(ID), "{path}");
        }
        assert_eq!(id_in_path(&format!("/machine.slice/libpod-conmon-{ID}.scope")), None);
        assert_eq!(id_in_path("/system.slice/ssh.service"), None);
        assert_eq!(id_in_path(&format!("/docker/{}", &ID[..63])), None);
    }
}
