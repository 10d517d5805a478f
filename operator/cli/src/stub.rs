//! An API server in memory, for tests: answers from a function, and remembers what it was asked.

use std::convert::Infallible;
use std::future::ready;
use std::sync::{Arc, Mutex};

use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Request, Response};
use kube::Client;
use kube::client::Body;
use serde_json::Value;

use crate::cluster::{Cluster, Tried};

/// The server.
pub(crate) struct Stub {
    client: Client,
    requests: Arc<Mutex<Vec<String>>>,
    bodies: Arc<Mutex<Vec<Value>>>,
}

impl Stub {
    pub(crate) fn new(answer: impl Fn(&Request<Body>) -> Response<Body> + Send + Sync + 'static) -> Self {
        Self::slow(move |request| ready(answer(request)).boxed())
    }

    /// One whose answers may take their time, or for ever: a watch in which nothing happens.
    pub(crate) fn slow(
        answer: impl Fn(&Request<Body>) -> BoxFuture<'static, Response<Body>> + Send + Sync + 'static,
    ) -> Self {
        let (requests, bodies) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
        let (seen, read, answer) = (requests.clone(), bodies.clone(), Arc::new(answer));
        let service = tower::service_fn(move |request: Request<Body>| {
            seen.lock().unwrap().push(format!("{} {}", request.method(), request.uri()));
            let (read, reply) = (read.clone(), answer(&request));
            async move {
                let body = request.into_body().collect_bytes().await.unwrap();
                read.lock().unwrap().extend(serde_json::from_slice::<Value>(&body));
                Ok::<_, Infallible>(reply.await)
            }
        });
        Self { client: Client::new(service, "first"), requests, bodies }
    }

    /// A cluster whose namespace is `first`.
    pub(crate) fn cluster(&self) -> Cluster {
        let client = self.client.clone();
        Cluster { client, namespace: "first".to_owned(), server: "stub".to_owned(), tried: Tried::default() }
    }

    /// All that was sent as JSON so far.
    pub(crate) fn bodies(&self) -> Vec<Value> {
        self.bodies.lock().unwrap().clone()
    }

    /// Method and URI of all requests so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

/// An answer in JSON.
pub(crate) fn reply(code: u16, json: Value) -> Response<Body> {
    Response::builder().status(code).body(Body::from(json.to_string().into_bytes())).unwrap()
}
