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
    header::{ACCEPT, ALLOW, AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue, WWW_AUTHENTICATE},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, sync::Semaphore};

use super::{
    access::Access,
    metrics::{self, Agent},
    watcher::Shared,
};
use crate::{
    live::{now_ns, own_cpu_ns, own_resident, realtime_offset_ns},
    recording::Recording,
    render::exposition::Dialect,
};

/// Time between two looks at whether the trace goes on.
pub const LOOK: Duration = Duration::from_millis(100);
/// Connections at a time; more wait.
const MOST_CONNECTIONS: usize = 16;
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
        let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
        let mut looks = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                _ = looks.tick() => {
                    if ended() {
                        return Ok(());
                    }
                }
                accepted = accept(&listener, &room) => {
                    let Some((stream, permit)) = accepted else {
                        // Out of descriptors, most likely: some are given back meanwhile.
                        tokio::time::sleep(LOOK).await;
                        continue;
                    };
                    let server = Arc::clone(&server);
                    tokio::spawn(async move {
                        let answer = service_fn(|request: Request<Incoming>| {
                            let answer = server.answer(request.method(), request.uri().path(), request.headers());
                            async move { Ok::<_, Infallible>(answer) }
                        });
                        let connection = http1::Builder::new()
                            .timer(TokioTimer::new())
                            .keep_alive(false)
                            .serve_connection(TokioIo::new(stream), answer);
                        // What goes wrong with a connection is its client's business.
                        let _ = tokio::time::timeout(LONGEST, connection).await;
                        drop(permit);
                    });
                }
            }
        }
    }

    /// The answer to a request, whose body is not read.
    pub fn answer(&self, method: &Method, path: &str, headers: &HeaderMap) -> Response<Full<Bytes>> {
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
                let told = format!("the last reading is {} s old\n", age.as_secs());
                with(response(StatusCode::SERVICE_UNAVAILABLE, told.into()), CONTENT_TYPE, PLAIN)
            }
            None => text(StatusCode::SERVICE_UNAVAILABLE, "nothing has been read yet\n"),
        }
    }
}

/// A connection, once there is room for it.
async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> Option<(tokio::net::TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    // It is never closed.
    let permit = Arc::clone(room).acquire_owned().await.ok()?;
    let (stream, _) = listener.accept().await.ok()?;
    Some((stream, permit))
}

/// Time since the last reading.
fn age(recording: &Recording) -> Option<Duration> {
    let end_ns = *recording.samples.system.end_ns.last()?;
    Some(Duration::from_nanos(now_ns().saturating_sub(end_ns)))
}

/// The older format for who asks for it and not for OpenMetrics.
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

    use super::super::access::DEFAULT_LISTEN;
    use super::*;
    use crate::recording::{testing, window};

    const TOKEN: &str = "0123456789abcdef";

    fn server(token_file: Option<&Path>, recording: Option<Recording>) -> Server {
        let shared = Arc::new(Shared::default());
        recording.into_iter().for_each(|recording| shared.put(window::latest(&recording)));
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
    fn the_format_is_the_one_that_is_asked_for() {
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
}
