//! The requests: each a value that is built step by step and sent by `.await`.
//!
//! A file per request. All of them can be given their own `timeout`; those that read take `consistency`, `revision`
//! and `context`.

pub(crate) mod cluster;
pub(crate) mod compact;
pub(crate) mod delete;
pub(crate) mod get;
pub(crate) mod put;
pub(crate) mod scan;
pub(crate) mod txn;

/// Makes `.await` on a request do what its `send` does.
macro_rules! sent_by_await {
    ($request:ty => $reply:ty) => {
        impl std::future::IntoFuture for $request {
            type Output = Result<$reply, crate::error::Error>;
            type IntoFuture = futures::future::BoxFuture<'static, Self::Output>;

            fn into_future(self) -> Self::IntoFuture {
                Box::pin(self.send())
            }
        }
    };
}

pub(crate) use sent_by_await;
