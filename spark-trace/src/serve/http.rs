//! HTTP/1.1: two pages, read only.

use std::{
    convert::Infallible,
    io,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use http_body_util::Full;
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ACCEPT, ALLOW, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, HeaderValue, WWW_AUTHENTICATE},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;

use super::{
    auth::Access,
    connections::Connections,
    metrics::{self, Agent},
    shared::Shared,
};
use spark_trace_agent::{now_ns, own_cpu_ns, own_resident, realtime_offset_ns};
use spark_trace_recording::Recording;
use spark_trace_render::exposition::Dialect;

/// Time between two looks at whether the trace goes on.
pub const LOOK: Duration = Duration::from_millis(100);
/// A request's header comes at once from whoever wants an answer.
const LONGEST_HEADER: Duration = Duration::from_secs(2);
/// A request and its answer take no longer: a connection is for one of them.
const LONGEST: Duration = Duration::from_secs(10);
/// A reading is late where it is older than so many intervals, and than this.
const LATE_INTERVALS: u32 = 5;
const LATE: Duration = Duration::from_secs(10);

const PLAIN: &str = "text/plain; charset=utf-8";
const METRICS: &str = "/metrics";
const HEALTH: &str = "/healthz";

pub struct Server {
    pub access: Access,
    pub shared: Arc<Shared>,
    /// Cgroups with metrics of their own.
    pub cgroups: usize,
    pub interval: Duration,
}

impl Server {
    /// Answers until `ended` says that the trace has.
    pub async fn serve(self, listener: TcpListener, ended: impl Fn() -> bool) -> io::Result<()> {
        let server = Arc::new(self);
        let mut connections = Connections::default();
        let mut looks = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                _ = looks.tick() => {
                    if ended() {
                        return Ok(());
                    }
                }
                accepted = listener.accept() => {
                    let Ok((stream, peer)) = accepted else {
                        // Out of descriptors, most likely: some are given back meanwhile.
                        tokio::time::sleep(LOOK).await;
                        continue;
                    };
                    let server = Arc::clone(&server);
                    let has_request = connections.request_flag();
                    let its = Arc::clone(&has_request);
                    let task = tokio::spawn(async move {
                        let answer = service_fn(|request: Request<Incoming>| {
                            its.store(true, Ordering::Relaxed);
                            let answer = server.answer(request.method(), request.uri().path(), request.headers());
                            async move { Ok::<_, Infallible>(answer) }
                        });
                        let connection = http1::Builder::new()
                            .timer(TokioTimer::new())
                            .header_read_timeout(LONGEST_HEADER)
                            .keep_alive(false)
                            .serve_connection(TokioIo::new(stream), answer);
                        // What goes wrong with a connection is its client's business.
                        let _ = tokio::time::timeout(LONGEST, connection).await;
                    });
                    connections.add(peer.ip(), task.abort_handle(), has_request);
                }
            }
        }
    }

    /// The answer to a request, whose body is not read.
    pub fn answer(&self, method: &Method, path: &str, headers: &HeaderMap) -> Response<Full<Bytes>> {
        if !self.access.allows_host(headers.get(HOST).map(HeaderValue::as_bytes)) {
            return text(
                StatusCode::FORBIDDEN,
                "without a token only localhost and loopback addresses are answered\n",
            );
        }
        if !self.access.allows(headers.get(AUTHORIZATION).map(HeaderValue::as_bytes)) {
            return with(
                text(StatusCode::UNAUTHORIZED, "a token is needed: Authorization: Bearer TOKEN\n"),
                WWW_AUTHENTICATE,
                "Bearer",
            );
        }
        let page: fn(&Self, &HeaderMap) -> Response<Full<Bytes>> = match path {
            METRICS => Self::metrics,
            HEALTH => |server, _| server.health(),
            _ => return text(StatusCode::NOT_FOUND, "there are /metrics and /healthz\n"),
        };
        if method != Method::GET {
            return with(text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n"), ALLOW, "GET");
        }
        page(self, headers)
    }

    fn metrics(&self, headers: &HeaderMap) -> Response<Full<Bytes>> {
        let Some(latest) = self.shared.latest() else {
            return text(StatusCode::SERVICE_UNAVAILABLE, "nothing has been read yet\n");
        };
        let dialect = dialect(headers);
        let agent = Agent {
            cpu_ns: own_cpu_ns(),
            resident: own_resident(),
            oom_recordings: self.shared.oom_recordings.load(Ordering::Relaxed),
            failed_writes: self.shared.failed_writes.load(Ordering::Relaxed),
            realtime_offset_ns: realtime_offset_ns(),
        };
        let body = metrics::text(&latest, agent, self.cgroups, dialect);
        with(response(StatusCode::OK, body.into()), CONTENT_TYPE, dialect.content_type())
    }

    fn health(&self) -> Response<Full<Bytes>> {
        let age = self.shared.latest().as_deref().and_then(age);
        match age {
            Some(age) if age <= (self.interval * LATE_INTERVALS).max(LATE) => text(StatusCode::OK, "ok\n"),
            Some(age) => {
                let message = format!("the last reading is {} s old\n", age.as_secs());
                with(response(StatusCode::SERVICE_UNAVAILABLE, message.into()), CONTENT_TYPE, PLAIN)
            }
            None => text(StatusCode::SERVICE_UNAVAILABLE, "nothing has been read yet\n"),
        }
    }
}

/// Time since the last reading.
fn age(recording: &Recording) -> Option<Duration> {
    let end_ns = *recording.samples.system.end_ns.last()?;
    Some(Duration::from_nanos(now_ns().saturating_sub(end_ns)))
}

/// The older format for clients that accept it and not OpenMetrics.
fn dialect(headers: &HeaderMap) -> Dialect {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let accepted: Vec<_> = accepted.map(str::to_ascii_lowercase).collect();
    let names = |kind: &str| accepted.iter().any(|accepted| accepted.contains(kind));
    if names("text/plain") && !names("application/openmetrics-text") {
        Dialect::Plain
    } else {
        Dialect::OpenMetrics
    }
}

fn response(status: StatusCode, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response
}

fn text(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    with(response(status, Bytes::from_static(body.as_bytes())), CONTENT_TYPE, PLAIN)
}

fn with(mut response: Response<Full<Bytes>>, name: HeaderName, value: &'static str) -> Response<Full<Bytes>> {
    response.headers_mut().insert(name, HeaderValue::from_static(value));
    response
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use http_body_util::BodyExt;

    use super::super::auth::DEFAULT_LISTEN;
    use super::*;
    use spark_trace_recording::retention;
    use spark_trace_testing as testing;

    const TOKEN: &str = "0123456789abcdef";

    fn server(token_file: Option<&Path>, recording: Option<Recording>) -> Server {
        let shared = Arc::new(Shared::default());
        recording.into_iter().for_each(|recording| shared.put(retention::latest(&recording)));
        let access = Access::new(DEFAULT_LISTEN, token_file).unwrap();
        Server { access, shared, cgroups: 50, interval: Duration::from_secs(1) }
    }

    fn headers(all: &[(HeaderName, &'static str)]) -> HeaderMap {
        all.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    fn body(response: Response<Full<Bytes>>) -> String {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let bytes = runtime.block_on(response.into_body().collect()).unwrap().to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[test]
    fn there_are_two_pages_and_they_are_read_only() {
        let server = server(None, Some(testing::container()));
        let status =
            |method: Method, path: &str| server.answer(&method, path, &HeaderMap::new()).status().as_u16();
        assert_eq!(status(Method::GET, "/metrics"), 200);
        for path in ["/", "/metrics/", "/healthz/x", "/../metrics", "//metrics"] {
            assert_eq!(status(Method::GET, path), 404, "{path}");
        }
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::HEAD] {
            assert_eq!(status(method, "/metrics"), 405);
        }
        // Its readings are of the year one.
        assert_eq!(status(Method::GET, "/healthz"), 503);
    }

    #[test]
    fn every_page_wants_the_token_where_there_is_one() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        std::fs::write(&file, TOKEN).unwrap();
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let server = server(Some(&file), Some(testing::container()));
        for path in ["/metrics", "/healthz", "/none"] {
            for bad in [headers(&[]), headers(&[(AUTHORIZATION, "Bearer 0123456789abcdeX")])] {
                let response = server.answer(&Method::GET, path, &bad);
                assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{path}");
                assert_eq!(response.headers()[WWW_AUTHENTICATE], "Bearer");
                assert!(!body(response).contains(TOKEN));
            }
        }
        let good = headers(&[(AUTHORIZATION, "Bearer 0123456789abcdef")]);
        assert_eq!(server.answer(&Method::GET, "/metrics", &good).status(), StatusCode::OK);
    }

    #[test]
    fn the_format_is_the_accepted_one() {
        let server = server(None, Some(testing::container()));
        let prometheus =
            "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1";
        for (accept, kind, end) in [
            (None, "application/openmetrics-text; version=1.0.0; charset=utf-8", true),
            (Some("*/*"), "application/openmetrics-text; version=1.0.0; charset=utf-8", true),
            (Some(prometheus), "application/openmetrics-text; version=1.0.0; charset=utf-8", true),
            (Some("text/plain"), "text/plain; version=0.0.4; charset=utf-8", false),
        ] {
            let accept: Vec<_> = accept.into_iter().map(|value| (ACCEPT, value)).collect();
            let response = server.answer(&Method::GET, METRICS, &headers(&accept));
            assert_eq!(response.headers()[CONTENT_TYPE], kind);
            let text = body(response);
            assert_eq!(text.ends_with("# EOF\n"), end);
            match end {
                true => drop(openmetrics_parser::openmetrics::parse_openmetrics(&text).unwrap()),
                false => drop(openmetrics_parser::prometheus::parse_prometheus(&text).unwrap()),
            }
        }
    }

    #[test]
    fn before_the_first_reading_there_is_nothing() {
        let server = server(None, None);
        for path in [METRICS, HEALTH] {
            let response = server.answer(&Method::GET, path, &HeaderMap::new());
            assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        }
    }

    #[test]
    fn health_is_whether_readings_come() {
        let mut recording = testing::container();
        let end_ns = recording.samples.system.end_ns.last_mut().unwrap();
        *end_ns = now_ns();
        let response = server(None, Some(recording)).answer(&Method::GET, HEALTH, &HeaderMap::new());
        assert_eq!((response.status(), body(response).as_str()), (StatusCode::OK, "ok\n"));
    }

    #[test]
    fn a_page_of_another_name_is_not_answered() {
        let server = server(None, Some(testing::container()));
        let status = |host| server.answer(&Method::GET, METRICS, &headers(&[(HOST, host)])).status();
        assert_eq!(status("127.0.0.1:9753"), StatusCode::OK);
        assert_eq!(status("attacker.example"), StatusCode::FORBIDDEN);
    }

    /// Serves on a port of its own until the test is over; says which.
    fn serving() -> (std::net::SocketAddr, Arc<std::sync::atomic::AtomicBool>, std::thread::JoinHandle<()>) {
        let server = server(None, Some(testing::container()));
        let ended = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let (sender, address) = std::sync::mpsc::channel();
        let ends = Arc::clone(&ended);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                sender.send(listener.local_addr().unwrap()).unwrap();
                server.serve(listener, || ends.load(Ordering::Relaxed)).await.unwrap();
            });
        });
        (address.recv().unwrap(), ended, thread)
    }

    #[test]
    fn idle_connections_keep_nobody_out_and_are_closed() {
        use std::{
            io::{Read, Write},
            net::TcpStream,
        };
        let (address, ended, thread) = serving();
        let mut idle: Vec<_> = (0..200).map(|_| TcpStream::connect(address).unwrap()).collect();
        for stream in &mut idle {
            // Closed by now, or waiting for the rest.
            let _ = stream.write_all(b"GET /metrics HT");
        }
        let begun = std::time::Instant::now();
        let mut scrape = TcpStream::connect(address).unwrap();
        scrape.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut answer = String::new();
        scrape.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer:.100}");
        // The requirement is a second; the others would have kept it out for as long as they may stay.
        assert!(begun.elapsed() < LONGEST_HEADER, "{:?}", begun.elapsed());
        for mut stream in idle {
            stream.set_read_timeout(Some(10 * LONGEST)).unwrap();
            let mut rest = Vec::new();
            match stream.read_to_end(&mut rest) {
                Ok(_) => {}
                Err(closed) => assert_eq!(closed.kind(), io::ErrorKind::ConnectionReset),
            }
        }
        ended.store(true, Ordering::Relaxed);
        thread.join().unwrap();
    }
}
