//! What is read while a trace runs.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use hyper::Method;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use spark_trace::serve::{Access, http::Server};
use spark_trace_agent::decode;
use spark_trace_agent::elf;
use spark_trace_agent::subject::{client_args, container, question};
use spark_trace_agent::unwind::index::Index;
use spark_trace_agent::unwind::walk::{self as unwind, Module, REGISTERS, Sections};
use spark_trace_agent::{btf::Btf, kallsyms::Kallsyms, maps, mounts, source::process};

pub fn wire(data: &[u8]) {
    let _ = decode::decode(data);
}

pub fn btf(data: &[u8]) {
    let Ok(btf) = Btf::parse(data.to_vec()) else { return };
    for (name, path) in [("task_struct", &["mm"][..]), ("mm_struct", &["owner", "rss_stat"]), ("a", &["b"])] {
        let _ = (btf.offset(name, path), btf.size(name), btf.element_size(name, path));
    }
    let _ = (btf.enumerator("a"), btf.enum_with("a").len(), btf.function("a").is_some());
}

pub fn kallsyms(data: &[u8]) {
    let symbols = Kallsyms::parse(&String::from_utf8_lossy(data));
    for address in [0, 1, u64::MAX / 2, u64::MAX] {
        let _ = symbols.find(address);
    }
}

pub fn mounts(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let _ = mounts::parse(&text);
    for line in text.lines() {
        let _ = container::id_in_path(line);
    }
}

/// A file that a traced process has mapped.
pub fn elf(data: &[u8]) {
    let _ = (elf::build_id(data), elf::exports(data, ["cuInit", "malloc"].into_iter()));
    let _ = elf::names(data, &[0, 0x10, 0x400, 0x1000, u64::MAX]);
}

/// A file's own code is unwound by its tables, wherever in it the tables are.
pub fn unwind(data: &[u8]) {
    const AT: usize = 24;
    let Ok(Some(file)) = elf::unwinding(data) else { return };
    let part = |part: &elf::Part| {
        let start = usize::try_from(part.offset).ok()?;
        data.get(start..start.checked_add(usize::try_from(part.size).ok()?)?)
    };
    let Some(index) = part(&file.index) else { return };
    let Some(Index { table_address, .. }) = Index::read(index, file.index.address) else { return };
    let Ok(Some(table)) = file.table(data, table_address) else { return };
    let Some(table) = part(&table) else { return };
    let index_address = file.index.address;
    let entry = data.get(AT..AT + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes);
    let copied = unwind::Copied {
        // All around where it begins.
        instruction: entry.wrapping_sub(data.len() as u64 % 128),
        registers: [0x7fff_0000; REGISTERS],
        start: 0x7fff_0000,
        // Each word is an address of code, so that the walk goes on.
        bytes: entry.wrapping_sub(24).to_le_bytes().repeat(512),
    };
    let walk = unwind::walk(&copied, |_| Some(Own(Sections { index, index_address, table, table_address })));
    assert!(!walk.frames.is_empty() && walk.frames.len() <= unwind::MOST_FRAMES);
}

/// A file that lies where its linker has put it.
struct Own<'a>(Sections<'a>);

impl Module for Own<'_> {
    fn bias(&self) -> u64 {
        0
    }

    fn sections(&self) -> Option<Sections<'_>> {
        Some(self.0)
    }
}

/// What the kernel writes of a process, with the names that it has chosen.
pub fn process(data: &[u8]) {
    for line in String::from_utf8_lossy(data).lines() {
        let _ = maps::parse(line);
    }
    let _ = process::parse_regions(data, 1, 1, 1);
    let _ = process::cut_command_line(data);
}

/// Words are set apart by zeros, as in /proc/PID/cmdline.
pub fn engine(data: &[u8]) {
    let words: Vec<String> =
        data.split(|&byte| byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
    for client in ["docker", "podman", "nerdctl", "docker-compose", "ctr"] {
        let request = client_args::request(client, &words);
        let _ = client_args::value_of(&request.words, &["--name", "--cidfile"]);
    }
    let _ = client_args::direct(&words);
}

pub fn events(data: &[u8]) {
    let mut seen = BTreeMap::new();
    for line in data.split(|&byte| byte == b'\n') {
        if let Ok(event) = serde_json::from_slice::<question::Event>(line) {
            event.add_to(&mut seen);
        }
    }
}

/// A request as it comes out of HTTP's own reader: method, path and headers a line.
pub fn http(data: &[u8]) {
    let mut lines = data.split(|&byte| byte == b'\n');
    let Some(method) = lines.next().and_then(|line| Method::from_bytes(line).ok()) else { return };
    let Some(path) = lines.next().and_then(|line| std::str::from_utf8(line).ok()) else { return };
    let mut headers = HeaderMap::new();
    for line in lines {
        let Some(at) = line.iter().position(|&byte| byte == b':') else { continue };
        let (name, value) = (HeaderName::from_bytes(&line[..at]), HeaderValue::from_bytes(&line[at + 1..]));
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    let _ = SERVER.answer(&method, path, &headers);
}

static SERVER: LazyLock<Server> = LazyLock::new(|| {
    let here = SocketAddr::from(([127, 0, 0, 1], 0));
    let access =
        Access::new(here, None).unwrap_or_else(|error| unreachable!("loopback needs no token: {error}"));
    Server { access, shared: Arc::default(), cgroups: 16, interval: Duration::from_secs(1) }
});
