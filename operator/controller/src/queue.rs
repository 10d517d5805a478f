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

use crate::context::lock;
use crate::watches::Guarded;

/// Namespace and name.
type Name = (String, String);

#[derive(Debug, Default)]
struct State {
    order: VecDeque<Name>,
    waiting: BTreeSet<Name>,
    reader: Option<TaskWaker>,
}

/// The sending end.
#[derive(Clone, Debug)]
pub struct Waker(Arc<Mutex<State>>);

/// The receiving end: a stream that never ends.
#[derive(Debug)]
pub struct Queue(Arc<Mutex<State>>);

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
            state.order.push_back(name);
        }
        if let Some(reader) = state.reader.take() {
            reader.wake();
        }
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

    #[tokio::test]
    async fn a_reader_that_waits_is_woken() {
        let (waker, mut queue) = queue();
        let reader = tokio::spawn(async move { queue.next().await });
        tokio::task::yield_now().await;
        waker.wake("marsh", "heron");
        assert_eq!(reader.await.unwrap(), Some(("marsh".to_owned(), "heron".to_owned())));
    }
}
