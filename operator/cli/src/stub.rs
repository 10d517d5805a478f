//! An API server in memory, for tests: answers from a function, and remembers what it was asked.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use http::{Request, Response};
use kube::Client;
use kube::client::Body;
use serde_json::Value;

use crate::cluster::{Cluster, Tried};

/// The server.
pub(crate) struct Stub {
    client: Client,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Stub {
    pub(crate) fn new(answer: impl Fn(&Request<Body>) -> Response<Body> + Send + Sync + 'static) -> Self {
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (seen, answer) = (requests.clone(), Arc::new(answer));
        let service = tower::service_fn(move |request: Request<Body>| {
            seen.lock().unwrap().push(format!("{} {}", request.method(), request.uri()));
            let answer = answer(&request);
            async move { Ok::<_, Infallible>(answer) }
        });
        Self { client: Client::new(service, "first"), requests }
    }

    /// A cluster whose namespace is `first`.
    pub(crate) fn cluster(&self) -> Cluster {
        let client = self.client.clone();
        Cluster { client, namespace: "first".to_owned(), server: "stub".to_owned(), tried: Tried::default() }
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
