//! Recordings that are damaged, too new or too old, and files that are none.

use super::super::testing;
use super::*;

fn parsed(text: &[u8]) -> Result<Recording, ReadError> {
    parse(Path::new("run.json"), text)
}

fn with(key: &str, value: Value) -> Vec<u8> {
    let mut recording = serde_json::to_value(testing::container()).unwrap();
    recording[key] = value;
    serde_json::to_vec(&recording).unwrap()
}

#[test]
fn a_recording_survives_json() {
    let recording = testing::container();
    assert_eq!(parsed(&serde_json::to_vec(&recording).unwrap()).unwrap(), recording);
}

#[test]
fn a_cut_is_reported_wherever_it_is() {
    let text = serde_json::to_vec(&testing::container()).unwrap();
    for part in 0..50 {
        let offset = text.len() * part / 50;
        let error = parsed(&text[..offset]).unwrap_err();
        assert!(matches!(error, ReadError::Truncated { offset: o, .. } if o == offset as u64), "{error}");
        assert!(error.to_string().contains("the rest of the recording is missing"));
    }
}

#[test]
fn a_cut_is_reported_in_compressed_recordings() {
    let text = serde_json::to_vec(&testing::container()).unwrap();
    let packed = zstd::encode_all(&text[..], 3).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cut.json.zst");
    for part in 1..50 {
        std::fs::write(&path, &packed[..packed.len() * part / 50]).unwrap();
        let error = read(&path).unwrap_err();
        assert!(matches!(error, ReadError::Truncated { .. }), "{error:?}");
    }
}

#[test]
fn a_recording_of_the_first_version_is_read_with_its_old_name() {
    let today = testing::cuda();
    let mut first = serde_json::to_value(&today).unwrap();
    first["schema_version"] = 1.into();
    for query in first["provenance"]["queries"].as_array_mut().unwrap() {
        let query = query.as_object_mut().unwrap();
        let interface = query.remove("interface").unwrap();
        query.insert("asked".to_owned(), interface);
    }
    let read = parse(Path::new("r.json"), first.to_string().as_bytes()).unwrap();
    assert!(!today.provenance.queries.is_empty() && read == today);
}

#[test]
fn a_newer_recording_is_refused() {
    let error = parsed(&with("schema_version", (SCHEMA_VERSION + 1).into())).unwrap_err();
    assert!(error.to_string().contains("written by a newer spark-trace, schema 3; this one reads up to 2"));
    let error = parsed(&with("schema_version", u64::MAX.into())).unwrap_err();
    assert!(matches!(error, ReadError::TooNew { .. }));
}

#[test]
fn other_text_is_no_recording() {
    type Case = (&'static [u8], fn(&ReadError) -> bool);
    let cases: &[Case] = &[
        (b"hello", |e| matches!(e, ReadError::NotJson { .. })),
        (b"\xff\xfe", |e| matches!(e, ReadError::NotJson { .. })),
        (b"{} {}", |e| matches!(e, ReadError::NotJson { .. })),
        (b"", |e| matches!(e, ReadError::Truncated { offset: 0, .. })),
        (b"{}", |e| matches!(e, ReadError::NotARecording { .. })),
        (b"[1]", |e| matches!(e, ReadError::NotARecording { .. })),
        (b"null", |e| matches!(e, ReadError::NotARecording { .. })),
        (b"{\"schema\":\"spark-trace/journal\"}\n{\"entry\":\"en", |e| {
            matches!(e, ReadError::Journal { .. })
        }),
        (br#"{"schema":3}"#, |e| matches!(e, ReadError::NotARecording { .. })),
        (br#"{"schema":"spark-trace/recording"}"#, |e| matches!(e, ReadError::NoVersion { .. })),
        (br#"{"schema":"spark-trace/recording","schema_version":0}"#, |e| {
            matches!(e, ReadError::NoVersion { .. })
        }),
        (br#"{"schema":"spark-trace/recording","schema_version":1}"#, |e| {
            matches!(e, ReadError::Malformed { .. })
        }),
    ];
    for (text, expected) in cases {
        let error = parsed(text).unwrap_err();
        assert!(expected(&error), "{}: {error:?}", String::from_utf8_lossy(text));
    }
}

#[test]
fn a_small_file_of_much_text_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bomb.json.zst");
    let blanks = io::repeat(b' ').take(1 << 30);
    std::fs::write(&path, zstd::encode_all(blanks, 1).unwrap()).unwrap();
    let error = read(&path).unwrap_err();
    assert!(matches!(error, ReadError::TooDense { .. }), "{error}");
}

#[test]
fn only_files_are_read() {
    let directory = tempfile::tempdir().unwrap();
    assert!(matches!(read(directory.path()), Err(ReadError::NotAFile { .. })));
    assert!(matches!(read(&directory.path().join("none")), Err(ReadError::Io { .. })));
}
