//! The child under test, and how it is talked to.

use std::{fmt, sync::Arc, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};
use ractor::{Message, RpcReplyPort};

use crate::{Address, CallError, ChildSpec, SendError};

/// How long the child may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// A child to be tested, with what the battery may say to it. Made anew for each check.
pub struct Subject {
    pub(super) spec: ChildSpec,
    pub(super) post: Option<Box<dyn Post>>,
    pub(super) call: Option<Box<dyn Call>>,
}

impl Subject {
    /// A child that is not spoken to: its mailbox is not flooded.
    #[must_use]
    pub fn new(spec: ChildSpec) -> Self {
        Self { spec, post: None, call: None }
    }

    /// `message` makes a message that does the child no harm, however many of it there are: for the flood.
    #[must_use]
    pub fn message<M: Message>(self, address: &Address<M>, message: impl Fn() -> M + Send + Sync + 'static) -> Self {
        let post = Letters { address: address.clone(), message };
        Self { post: Some(Box::new(post)), ..self }
    }

    /// `message` makes a call that the child answers as long as it serves.
    #[must_use]
    pub fn call<M: Message, R: Send + 'static>(
        self,
        address: &Address<M>,
        message: impl Fn(RpcReplyPort<R>) -> M + Send + Sync + 'static,
    ) -> Self {
        let message = Arc::new(message);
        let address = address.clone();
        let call = move || {
            let (address, message) = (address.clone(), Arc::clone(&message));
            async move { address.call(|reply| message(reply), ANSWER_WITHIN).await.map(drop) }.boxed()
        };
        Self { call: Some(Box::new(call)), ..self }
    }
}

impl From<ChildSpec> for Subject {
    fn from(spec: ChildSpec) -> Self {
        Self::new(spec)
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { spec, post, call } = self;
        write!(f, "Subject({spec:?}, message {}, call {})", post.is_some(), call.is_some())
    }
}

/// What became of one message of the flood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Posted {
    Taken,
    Full,
    Refused,
}

/// An address, whatever its message type.
pub(super) trait Post: Send + Sync {
    fn send(&self) -> Posted;
    fn waiting(&self) -> usize;
}

struct Letters<M, F> {
    address: Address<M>,
    message: F,
}

impl<M: Message, F: Fn() -> M + Send + Sync> Post for Letters<M, F> {
    fn send(&self) -> Posted {
        match self.address.try_send((self.message)()) {
            Ok(()) => Posted::Taken,
            Err(SendError::Full { .. }) => Posted::Full,
            Err(_) => Posted::Refused,
        }
    }

    fn waiting(&self) -> usize {
        self.address.waiting()
    }
}

/// A call, whatever its answer.
pub(super) trait Call: Send + Sync {
    fn answer(&self) -> BoxFuture<'static, Result<(), CallError>>;
}

impl<F: Fn() -> BoxFuture<'static, Result<(), CallError>> + Send + Sync> Call for F {
    fn answer(&self) -> BoxFuture<'static, Result<(), CallError>> {
        self()
    }
}
