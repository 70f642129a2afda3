//! A web that is played: it answers what it is told to, and remembers what it was asked.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;

use super::web::{Question, Web, WebError};

#[derive(Debug)]
pub(crate) struct Played {
    answer: Mutex<Result<String, WebError>>,
    questions: Mutex<Vec<Question>>,
}

impl Played {
    pub(crate) fn new(answer: Result<&str, WebError>) -> Arc<Self> {
        Arc::new(Self { answer: Mutex::new(answer.map(str::to_owned)), questions: Mutex::default() })
    }

    pub(crate) fn says(&self, answer: Result<&str, WebError>) {
        *self.answer.lock() = answer.map(str::to_owned);
    }

    pub(crate) fn asked(&self) -> usize {
        self.questions.lock().len()
    }

    pub(crate) fn last(&self) -> Question {
        self.questions.lock().last().expect("it was asked").clone()
    }
}

impl Web for Played {
    fn ask(&self, question: Question) -> BoxFuture<'_, Result<Vec<u8>, WebError>> {
        self.questions.lock().push(question);
        std::future::ready(self.answer.lock().clone().map(String::into_bytes)).boxed()
    }
}

pub(crate) fn unreachable() -> WebError {
    WebError::Unreachable("gone".into())
}
