//! One name for the same file seen natively and through a container engine's storage.

/// Storage layouts: a component, one of any name after it, and what the image's own root lies under.
const LAYERS: &[(&str, &[&str])] = &[
    // Docker: /var/lib/docker/overlay2/ID/diff
    ("overlay2", &["diff", "merged"]),
    // containerd: io.containerd.snapshotter.v1.overlayfs/snapshots/N/fs
    ("snapshots", &["fs"]),
    // Podman: containers/storage/overlay/ID/diff
    ("overlay", &["diff", "merged"]),
];

/// `path` as the container sees it where it lies in a layer of one, else as it is.
pub fn inner(path: &str) -> &str {
    let mut components = Vec::new();
    for (start, component) in components_of(path) {
        components.push((start, component));
        if let [.., (_, storage), _, (_, root)] = components[..]
            && LAYERS.iter().any(|(marker, roots)| *marker == storage && roots.contains(&root))
        {
            let rest = &path[start + root.len()..];
            return if rest.is_empty() { "/" } else { rest };
        }
    }
    path
}

/// Components with the byte each starts at.
fn components_of(path: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut start = 0;
    path.split('/').map(move |component| {
        let here = start;
        start += component.len() + 1;
        (here, component)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn layers_are_stripped() {
        for (path, expected) in [
            ("/var/lib/docker/overlay2/0a1b/diff/usr/lib/libc.so.6", "/usr/lib/libc.so.6"),
            ("/docker/overlay2/0a1b/diff/tmp/engine", "/tmp/engine"),
            ("/var/lib/docker/overlay2/0a1b/merged/a", "/a"),
            (
                "/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots/17/fs/usr/bin/x",
                "/usr/bin/x",
            ),
            ("/home/u/.local/share/containers/storage/overlay/0a1b/diff/usr/bin/x", "/usr/bin/x"),
            ("/var/lib/docker/overlay2/0a1b/diff", "/"),
            ("/usr/lib/libc.so.6", "/usr/lib/libc.so.6"),
            ("/srv/overlay2/notes", "/srv/overlay2/notes"),
            ("/srv/snapshots/17/files/fs", "/srv/snapshots/17/files/fs"),
            ("", ""),
        ] {
            assert_eq!(inner(path), expected, "{path}");
        }
    }

    proptest! {
        #[test]
        fn what_is_left_is_the_paths_end(path in "(/(overlay2|diff|snapshots|fs|é|[a-z]{0,3})){0,9}") {
            prop_assert!(path.ends_with(inner(&path)) || inner(&path) == "/");
        }
    }
}
