//! Names of objects that wait for a pass, each once, in the order in which they were woken.
//!
//! A process that does not lead is woken as well and works on nothing, so the bound is the number of objects, not of
//! events.

use std::collections::{BTreeSet, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker as TaskWaker};

use futures::{Stream, StreamExt};
use kube::Resource;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use prometheus::IntGauge;

use crate::context::lock;
use crate::guarded::Guarded;

/// Namespace and name.
type Name = (String, String);

#[derive(Debug, Default)]
struct State {
    order: VecDeque<Name>,
    waiting: BTreeSet<Name>,
    reader: Option<TaskWaker>,
    /// Woken, and no pass has begun since: those that wait here, and those that wait behind the stream for a free place.
    owed: BTreeSet<Name>,
    depth: Option<IntGauge>,
}

impl State {
    fn show(&self) {
        if let Some(gauge) = &self.depth {
            gauge.set(i64::try_from(self.owed.len()).unwrap_or(i64::MAX));
        }
    }
}

/// The sending end.
#[derive(Clone, Debug)]
pub struct Waker(Arc<Mutex<State>>);

/// The receiving end: a stream that never ends.
#[derive(Debug)]
pub struct Queue(Arc<Mutex<State>>);

/// Keeps the count of what waits.
#[derive(Clone, Debug)]
pub struct Backlog(Arc<Mutex<State>>);

/// Makes an empty queue.
pub fn queue() -> (Waker, Queue) {
    let state = Arc::new(Mutex::new(State::default()));
    (Waker(state.clone()), Queue(state))
}

impl Waker {
    /// Lets an object be looked at, once more if a look has begun already.
    pub fn wake(&self, namespace: &str, name: &str) {
        let name = (namespace.to_owned(), name.to_owned());
        let mut state = lock(&self.0);
        if state.waiting.insert(name.clone()) {
            state.order.push_back(name.clone());
        }
        state.owed.insert(name);
        state.show();
        if let Some(reader) = state.reader.take() {
            reader.wake();
        }
    }
}

impl Queue {
    /// From now on the gauge shows how many objects wait for a pass.
    pub fn backlog(&self, gauge: IntGauge) -> Backlog {
        let mut state = lock(&self.0);
        state.depth = Some(gauge);
        state.show();
        Backlog(self.0.clone())
    }
}

impl Backlog {
    /// A pass over this object begins, or there is no such object any more.
    pub fn begun(&self, namespace: &str, name: &str) {
        let mut state = lock(&self.0);
        state.owed.remove(&(namespace.to_owned(), name.to_owned()));
        state.show();
    }
}

impl Stream for Queue {
    type Item = Name;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Name>> {
        let mut state = lock(&self.0);
        let Some(name) = state.order.pop_front() else {
            state.reader = Some(context.waker().clone());
            return Poll::Pending;
        };
        state.waiting.remove(&name);
        Poll::Ready(Some(name))
    }
}

/// A queue as the stream that kube-runtime's applier reads.
pub fn requests<K>(queue: Queue) -> impl Stream<Item = Result<ObjectRef<Guarded<K>>, watcher::Error>> + Send
where
    K: Resource<DynamicType = ()> + Send + 'static,
{
    queue.map(|(namespace, name)| Ok(ObjectRef::new(&name).within(&namespace)))
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn a_name_waits_once_and_in_its_order() {
        let (waker, mut queue) = queue();
        for _ in 0..1000 {
            waker.wake("marsh", "heron");
            waker.wake("marsh", "curlew");
        }
        let next = |queue: &mut Queue| queue.next().now_or_never().flatten().map(|(_, name)| name);
        assert_eq!(next(&mut queue).as_deref(), Some("heron"));
        waker.wake("marsh", "heron");
        assert_eq!(next(&mut queue).as_deref(), Some("curlew"));
        assert_eq!(next(&mut queue).as_deref(), Some("heron"));
        assert_eq!(next(&mut queue), None);
    }

    #[test]
    fn an_object_is_behind_until_its_pass_begins_also_when_it_left_the_queue() {
        let (waker, mut queue) = queue();
        waker.wake("marsh", "heron");
        let gauge = IntGauge::new("depth", "objects").unwrap();
        let backlog = queue.backlog(gauge.clone());
        assert_eq!(gauge.get(), 1, "what was woken before counts");
        waker.wake("marsh", "curlew");
        waker.wake("marsh", "curlew");
        assert_eq!(gauge.get(), 2);
        while queue.next().now_or_never().flatten().is_some() {}
        assert_eq!(gauge.get(), 2, "handed over is not begun");
        backlog.begun("marsh", "heron");
        assert_eq!(gauge.get(), 1);
        waker.wake("marsh", "heron");
        assert_eq!(gauge.get(), 2, "woken in the middle of its pass, it is owed another one");
        backlog.begun("marsh", "heron");
        backlog.begun("marsh", "curlew");
        assert_eq!(gauge.get(), 0);
    }

    #[tokio::test]
    async fn a_reader_that_waits_is_woken() {
        let (waker, mut queue) = queue();
        let reader = tokio::spawn(async move { queue.next().await });
        tokio::task::yield_now().await;
        waker.wake("marsh", "heron");
        assert_eq!(reader.await.unwrap(), Some(("marsh".to_owned(), "heron".to_owned())));
    }
}
