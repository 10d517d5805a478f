//! The HTTP server between provider and world: counts the calls, and lets one of them go wrong.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, Notify};
use tokio::task::AbortHandle;

use crate::claims::Claims;
use crate::world::{Call, Reply, World};

/// Largest body of a request that is read.
const MAX_BODY: usize = 1 << 20;

/// What goes wrong at the calls to the world, which are counted from 0 for every process.
#[derive(Clone, Debug, Default)]
pub(crate) enum Plan {
    /// Nothing.
    #[default]
    Fine,
    /// The process is killed before this call has its effect.
    CutBefore(usize),
    /// The process is killed after this call had its effect, before it is answered.
    CutAfter(usize),
    /// From this call on everything is answered with this.
    Answer(usize, Reply),
    /// From this call on connections are closed without an answer.
    Reset(usize),
    /// This call is never answered, and has no effect.
    Hang(usize),
    /// This call is answered late; meanwhile the step is closed.
    CloseAfter(usize, Duration),
}

/// One call, as it was seen.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Method and path.
    pub(crate) line: String,
    /// Whether it changes the world.
    pub(crate) mutates: bool,
    /// Whether it went to the world; else to the API that claims need.
    pub(crate) to_world: bool,
}

pub(crate) struct State {
    pub(crate) claims: Claims,
    pub(crate) world: Box<dyn World>,
    /// Calls of the process that was started last.
    pub(crate) log: Vec<Entry>,
    pub(crate) plan: Plan,
}

/// A running server; it ends when this is dropped.
pub(crate) struct Server {
    pub(crate) origin: String,
    pub(crate) state: Arc<Mutex<State>>,
    /// Told when the call of a cut, or one that hangs, has arrived.
    pub(crate) reached: Arc<Notify>,
    accept: AbortHandle,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

impl Server {
    pub(crate) async fn start(world: Box<dyn World>) -> std::io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let origin = format!("http://{}", listener.local_addr()?);
        let state =
            Arc::new(Mutex::new(State { claims: Claims::default(), world, log: Vec::new(), plan: Plan::default() }));
        let reached = Arc::new(Notify::new());
        let accept = tokio::spawn(accept(listener, state.clone(), reached.clone())).abort_handle();
        Ok(Server { origin, state, reached, accept })
    }
}

async fn accept(listener: TcpListener, state: Arc<Mutex<State>>, reached: Arc<Notify>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (state, reached) = (state.clone(), reached.clone());
        let service = service_fn(move |request| serve(request, state.clone(), reached.clone()));
        let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        // An error is a client that went away, or one that was reset on purpose.
        connections.spawn(async move { drop(connection.await) });
    }
}

async fn serve(
    request: Request<Incoming>,
    state: Arc<Mutex<State>>,
    reached: Arc<Notify>,
) -> Result<Response<Full<Bytes>>, std::io::Error> {
    let call = read(request).await?;
    let (number, plan) = {
        let mut state = state.lock().await;
        if let Some(reply) = state.claims.answer(&call) {
            state.note(&call, false);
            return Ok(response(reply));
        }
        (state.note(&call, true), state.plan.clone())
    };
    match plan {
        Plan::CutBefore(at) | Plan::Hang(at) if at == number => Ok(held(&reached).await),
        Plan::CutAfter(at) if at == number => {
            state.lock().await.world.answer(&call).await;
            Ok(held(&reached).await)
        }
        Plan::Answer(from, reply) if number >= from => Ok(response(reply)),
        Plan::Reset(from) if number >= from => Err(std::io::Error::other("reset as planned")),
        Plan::CloseAfter(at, pause) if at == number => {
            state.lock().await.claims.close();
            tokio::time::sleep(pause).await;
            Ok(response(state.lock().await.world.answer(&call).await))
        }
        _ => Ok(response(state.lock().await.world.answer(&call).await)),
    }
}

/// Says that the call is here and never answers it.
async fn held<T>(reached: &Notify) -> T {
    reached.notify_one();
    std::future::pending().await
}

impl State {
    /// Writes a call down; returns its number among those to the world.
    fn note(&mut self, call: &Call, to_world: bool) -> usize {
        let number = self.log.iter().filter(|entry| entry.to_world).count();
        let mutates = to_world && self.world.mutates(call);
        self.log.push(Entry { line: format!("{} {}", call.method, call.path), mutates, to_world });
        number
    }
}

async fn read(request: Request<Incoming>) -> Result<Call, std::io::Error> {
    let (parts, body) = request.into_parts();
    let body = Limited::new(body, MAX_BODY).collect().await.map_err(std::io::Error::other)?.to_bytes().to_vec();
    let header = |(name, value): (&hyper::header::HeaderName, &hyper::header::HeaderValue)| {
        (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    Ok(Call {
        method: parts.method.as_str().to_owned(),
        path: parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
        headers: parts.headers.iter().map(header).collect(),
        body,
    })
}

fn response(reply: Reply) -> Response<Full<Bytes>> {
    let mut builder = Response::builder().status(reply.code).header("content-type", "application/json");
    for (name, value) in &reply.headers {
        builder = builder.header(name, value);
    }
    builder.body(Full::from(reply.body.to_string())).unwrap_or_default()
}
