//! Counts the requests that the operator's client makes.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Method, Request, Response, Uri};
use kube::client::{Body, ClientBuilder};
use kube::{Client, Config};
use prometheus::IntCounterVec;
use tower::{Layer, Service};

/// A client whose requests are counted; one that the client itself repeats counts once.
///
/// # Errors
/// Where the configuration allows no client, for example because its certificates cannot be read.
pub fn client(config: Config, requests: IntCounterVec) -> Result<Client, kube::Error> {
    Ok(ClientBuilder::try_from(config)?.with_layer(&Counter(requests)).build())
}

#[derive(Clone)]
struct Counter(IntCounterVec);

impl<S> Layer<S> for Counter {
    type Service = Counting<S>;

    fn layer(&self, inner: S) -> Counting<S> {
        Counting { inner, requests: self.0.clone() }
    }
}

struct Counting<S> {
    inner: S,
    requests: IntCounterVec,
}

impl<S, Answer> Service<Request<Body>> for Counting<S>
where
    S: Service<Request<Body>, Response = Response<Answer>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (verb, resource) = what(request.method(), request.uri());
        let requests = self.requests.clone();
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await;
            let code = answer.as_ref().map_or("none", |answer| status_label(answer.status().as_u16()));
            requests.with_label_values(&[verb, resource.as_str(), code]).inc();
            answer
        })
    }
}

/// The codes that an API server answers with; the label stays small whatever stands between it and us.
fn status_label(code: u16) -> &'static str {
    match code {
        101 => "101",
        200 => "200",
        201 => "201",
        202 => "202",
        400 => "400",
        401 => "401",
        403 => "403",
        404 => "404",
        409 => "409",
        410 => "410",
        422 => "422",
        429 => "429",
        500 => "500",
        503 => "503",
        504 => "504",
        _ => "other",
    }
}

/// Verb and resource of a request, as the API server's audit log calls them; a subresource follows after a slash.
fn what(method: &Method, uri: &Uri) -> (&'static str, String) {
    let mut path = uri.path().trim_matches('/').split('/');
    // /api/VERSION/… or /apis/GROUP/VERSION/…
    let skip = match path.next() {
        Some("api") => 1,
        Some("apis") => 2,
        _ => return (verb(method, uri, false), "none".to_owned()),
    };
    let rest: Vec<&str> = path.skip(skip).collect();
    let (resource, name, subresource) = match rest.as_slice() {
        ["namespaces", _, subresource @ ("status" | "finalize")] => ("namespaces", true, Some(*subresource)),
        ["namespaces", _, resource, rest @ ..] => (*resource, !rest.is_empty(), rest.get(1).copied()),
        [resource, rest @ ..] => (*resource, !rest.is_empty(), rest.get(1).copied()),
        [] => ("none", false, None),
    };
    let named = subresource.map_or_else(|| resource.to_owned(), |sub| format!("{resource}/{sub}"));
    (verb(method, uri, name), named)
}

fn verb(method: &Method, uri: &Uri, name: bool) -> &'static str {
    let watches =
        || uri.query().is_some_and(|query| query.split('&').any(|part| matches!(part, "watch=true" | "watch=1")));
    match *method {
        Method::GET if watches() => "watch",
        Method::GET if name => "get",
        Method::GET => "list",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_named_as_in_the_audit_log() {
        let table = [
            (Method::GET, "/api/v1/pods?labelSelector=a&watch=true&x=1", "watch", "pods"),
            (Method::GET, "/api/v1/pods?limit=500", "list", "pods"),
            (Method::GET, "/api/v1/namespaces/kube-system", "get", "namespaces"),
            (Method::PATCH, "/api/v1/namespaces/marsh", "patch", "namespaces"),
            (Method::PUT, "/api/v1/namespaces/marsh/finalize", "update", "namespaces/finalize"),
            (Method::POST, "/api/v1/namespaces/marsh/secrets?fieldManager=m", "create", "secrets"),
            (Method::GET, "/api/v1/namespaces/marsh/pods/heron/log", "get", "pods/log"),
            (
                Method::PUT,
                "/apis/provisioning.dev/v1alpha1/namespaces/marsh/servers/heron/status",
                "update",
                "servers/status",
            ),
            (Method::DELETE, "/apis/batch/v1/namespaces/marsh/jobs/prov-1", "delete", "jobs"),
            (Method::GET, "/apis/provisioning.dev/v1alpha1", "list", "none"),
            (Method::GET, "/version", "list", "none"),
        ];
        for (method, uri, verb, resource) in table {
            let found = what(&method, &uri.parse().unwrap());
            assert_eq!(found, (verb, resource.to_owned()), "{method} {uri}");
        }
    }

    #[tokio::test]
    async fn every_answer_counts_and_a_missing_one_too() {
        let requests = crate::metrics::Metrics::new().unwrap().api_requests;
        let answers = tower::service_fn(|request: Request<Body>| async move {
            match request.uri().path() {
                "/api/v1/namespaces/marsh" => Ok(Response::builder().status(404).body(()).unwrap()),
                _ => Err("the line is dead"),
            }
        });
        let mut client = Counter(requests.clone()).layer(answers);
        for uri in ["/api/v1/namespaces/marsh", "/api/v1/namespaces/marsh", "/api/v1/nodes"] {
            let request = Request::get(uri).body(Body::empty()).unwrap();
            let _ = client.call(request).await;
        }
        assert_eq!(requests.with_label_values(&["get", "namespaces", "404"]).get(), 2);
        assert_eq!(requests.with_label_values(&["list", "nodes", "none"]).get(), 1);
    }
}
