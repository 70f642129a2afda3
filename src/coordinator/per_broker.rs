//! Questions to other brokers, gathered: each broker has one request under way, and what is asked meanwhile goes into
//! the next one. Source: Kafka 3.9 `InterBrokerSendThread`, as `TransactionMarkerChannelManager` and
//! `AddPartitionsToTxnManager` use it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::cluster::image::{ClusterImage, ImagePublisher};
use crate::task;
use crate::types::{BrokerId, TopicPartition, limits};

/// One of those that go into a request.
pub(super) trait Question: Send + 'static {
    type Answer: Send + 'static;
    /// No request has two questions with the same.
    type Key: Eq + Hash;

    fn key(&self) -> Self::Key;

    /// What it takes of a request in bytes, at most.
    fn bytes(&self) -> usize;
}

/// Sends a request, and answers each of its questions in order.
type SendBatch<Q> = Box<dyn Fn(BrokerId, Vec<Q>) -> BoxFuture<'static, Vec<<Q as Question>::Answer>> + Send + Sync>;

struct Asked<Q: Question> {
    question: Q,
    answer: oneshot::Sender<Q::Answer>,
}

/// The questions of one kind.
pub(super) struct PerBroker<Q: Question> {
    send: SendBatch<Q>,
    /// What is asked of a broker as long as a task sends it.
    waiting: Mutex<HashMap<BrokerId, VecDeque<Asked<Q>>>>,
}

impl<Q: Question> fmt::Debug for PerBroker<Q> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PerBroker").finish_non_exhaustive()
    }
}

impl<Q: Question> PerBroker<Q> {
    pub(super) fn new(
        send: impl Fn(BrokerId, Vec<Q>) -> BoxFuture<'static, Vec<Q::Answer>> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self { send: Box::new(send), waiting: Mutex::default() })
    }

    /// Asks the broker that `image` has as the leader of `at`. What is dropped before its request begins is not sent.
    /// `None`: nothing is known of it, because there is no answer, or because another broker leads by now, and it
    /// would be idle to wait for one that hangs.
    pub(super) fn ask_leader(
        self: &Arc<Self>,
        image: &ImagePublisher,
        (leader, at): (BrokerId, TopicPartition),
        question: Q,
    ) -> impl Future<Output = Option<Q::Answer>> + Send + use<Q> {
        let mut image = image.subscribe();
        let answer = self.ask(leader, question);
        async move {
            let leads = |image: &ClusterImage| {
                let state = image.partition(at.topic.as_str(), at.partition);
                state.is_some_and(|state| state.leader == Some(leader))
            };
            let moved = async { drop(image.wait_for(|image| !leads(image)).await) };
            tokio::select! {
                biased;
                answer = answer => answer.ok(),
                () = moved => None,
            }
        }
    }

    fn ask(self: &Arc<Self>, broker: BrokerId, question: Q) -> oneshot::Receiver<Q::Answer> {
        let (answer, answered) = oneshot::channel();
        let mut waiting = self.waiting.lock();
        let begins = !waiting.contains_key(&broker);
        waiting.entry(broker).or_default().push_back(Asked { question, answer });
        drop(waiting);
        if begins {
            let sending = Sending { questions: Arc::clone(self), broker, is_over: false };
            task::spawn(sending.run());
        }
        answered
    }
}

/// The task that sends what is asked of one broker, as long as there is something.
struct Sending<Q: Question> {
    questions: Arc<PerBroker<Q>>,
    broker: BrokerId,
    is_over: bool,
}

impl<Q: Question> Sending<Q> {
    async fn run(mut self) {
        while let Some(batch) = self.next() {
            let (questions, senders): (Vec<_>, Vec<_>) =
                batch.into_iter().map(|asked| (asked.question, asked.answer)).unzip();
            let answers = (self.questions.send)(self.broker, questions).await;
            for (sender, answer) in senders.into_iter().zip(answers) {
                // Whoever asked may have gone.
                drop(sender.send(answer));
            }
        }
    }

    /// What goes into the next request; ends the task if nothing does.
    fn next(&mut self) -> Option<Vec<Asked<Q>>> {
        let mut waiting = self.questions.waiting.lock();
        let queue = waiting.get_mut(&self.broker)?;
        queue.retain(|asked| !asked.answer.is_closed());
        if queue.is_empty() {
            waiting.remove(&self.broker);
            self.is_over = true;
            return None;
        }
        let (mut batch, mut later) = (Vec::new(), VecDeque::new());
        let (mut keys, mut bytes) = (HashSet::new(), 0);
        while let Some(asked) = queue.pop_front() {
            bytes += asked.question.bytes();
            if !batch.is_empty() && bytes > limits::PEER_REQUEST_BYTES_MAX {
                later.push_back(asked);
                break;
            }
            match keys.insert(asked.question.key()) {
                true => batch.push(asked),
                false => later.push_back(asked),
            }
        }
        later.append(queue);
        *queue = later;
        Some(batch)
    }
}

impl<Q: Question> Drop for Sending<Q> {
    /// If sending panicked, or the runtime ends: whoever waits hears that there is no answer, and the next begins anew.
    fn drop(&mut self) {
        if !self.is_over {
            self.questions.waiting.lock().remove(&self.broker);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::sync::Notify;

    use super::*;

    /// Key and size.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    struct Number(u32, usize);

    impl Question for Number {
        type Answer = u32;
        type Key = u32;

        fn key(&self) -> u32 {
            self.0
        }

        fn bytes(&self) -> usize {
            self.1
        }
    }

    #[derive(Default)]
    struct Sent {
        requests: Mutex<Vec<(i32, Vec<u32>)>>,
        go: Notify,
    }

    /// Each request waits for a permit, and answers with the numbers doubled; 13 makes it panic.
    fn questions() -> (Arc<PerBroker<Number>>, Arc<Sent>) {
        let sent = Arc::new(Sent::default());
        let of_sender = Arc::clone(&sent);
        let questions = PerBroker::new(move |broker: BrokerId, numbers: Vec<Number>| {
            let sent = Arc::clone(&of_sender);
            async move {
                sent.requests.lock().push((broker.0, numbers.iter().map(|number| number.0).collect()));
                sent.go.notified().await;
                numbers.iter().map(|number| if number.0 == 13 { panic!("as asked") } else { 2 * number.0 }).collect()
            }
            .boxed()
        });
        (questions, sent)
    }

    async fn settle() {
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
    }

    const B: BrokerId = BrokerId(2);

    #[tokio::test]
    async fn what_is_asked_while_a_request_is_under_way_goes_into_the_next() {
        let (questions, sent) = questions();
        let first = questions.ask(B, Number(1, 1));
        settle().await;
        let rest = [2, 3, 4].map(|number| questions.ask(B, Number(number, 1)));
        let other = questions.ask(BrokerId(3), Number(5, 1));
        settle().await;
        assert_eq!(*sent.requests.lock(), [(2, vec![1]), (3, vec![5])], "each broker has its own");
        sent.go.notify_waiters();
        assert_eq!((first.await, other.await), (Ok(2), Ok(10)));
        settle().await;
        sent.go.notify_waiters();
        for (answer, number) in rest.into_iter().zip([2, 3, 4]) {
            assert_eq!(answer.await, Ok(2 * number));
        }
        settle().await;
        assert_eq!(sent.requests.lock()[2..], [(2, vec![2, 3, 4])]);
        assert!(questions.waiting.lock().is_empty());
    }

    #[tokio::test]
    async fn no_request_has_the_same_twice_or_more_than_fits() {
        let (questions, sent) = questions();
        let half = limits::PEER_REQUEST_BYTES_MAX / 2;
        let asked = [(1, 1), (1, 1), (2, 1), (3, half), (4, half), (1, 1), (5, 4 * half), (6, 1)];
        let answers = asked.map(|(number, bytes)| questions.ask(B, Number(number, bytes)));
        for _ in 0..6 {
            settle().await;
            sent.go.notify_waiters();
        }
        for (answer, (number, _)) in answers.into_iter().zip(asked) {
            assert_eq!(answer.await, Ok(2 * number));
        }
        let requests: Vec<Vec<u32>> = sent.requests.lock().iter().map(|(_, numbers)| numbers.clone()).collect();
        assert_eq!(requests, [vec![1, 2, 3], vec![1, 4], vec![1], vec![5], vec![6]]);
    }

    #[tokio::test]
    async fn who_goes_away_is_not_asked_for() {
        let (questions, sent) = questions();
        let first = questions.ask(B, Number(1, 1));
        settle().await;
        let (second, third) = (questions.ask(B, Number(2, 1)), questions.ask(B, Number(3, 1)));
        drop(second);
        sent.go.notify_waiters();
        settle().await;
        sent.go.notify_waiters();
        assert_eq!((first.await, third.await), (Ok(2), Ok(6)));
        assert_eq!(*sent.requests.lock(), [(2, vec![1]), (2, vec![3])]);
    }

    #[tokio::test]
    async fn a_panic_leaves_nobody_waiting_and_the_next_is_asked() {
        let (questions, sent) = questions();
        let unlucky = questions.ask(B, Number(13, 1));
        settle().await;
        let waiting = questions.ask(B, Number(1, 1));
        sent.go.notify_waiters();
        assert!(unlucky.await.is_err() && waiting.await.is_err());
        let next = questions.ask(B, Number(2, 1));
        settle().await;
        sent.go.notify_waiters();
        assert_eq!(next.await, Ok(4));
    }
}
