//! Which service a request is for: the one that most are for is called at once, the others by way of tonic's routes.
//!
//! tonic's routes are axum's router. For each request it keeps the path's parts among the extensions, clones and boxes the
//! service, boxes its future, and boxes both bodies twice, which each of their frames then passes through. A generated
//! service takes the request as it is.
//!
//! Invariant: a request is answered as by routes that have all of the services. What is no method's path of the direct
//! service, also if it begins like one, goes to the routes, which say so when there is nobody to call.
//!
//! Nobody is asked whether it is ready: generated services and the routes are at any time.
//!
//! Left out: what stands around all services: deadlines (`serve.rs`), and around those places (`requests.rs`).

use std::convert::Infallible;

use bytes::Bytes;
use futures::future::BoxFuture;
use hyper::service::Service;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::service::Routes;
use tower::BoxError;

/// What a generated service answers.
type Answer = Result<http::Response<Body>, Infallible>;

/// See the file's head.
#[derive(Clone, Debug)]
pub struct Dispatch<S> {
    direct: S,
    others: Routes,
}

impl<S> Dispatch<S> {
    /// Calls `direct` at once, and `others`, best prepared, for what is not for it.
    pub fn new(direct: S, others: Routes) -> Dispatch<S> {
        Dispatch { direct, others }
    }
}

impl<S, B> Service<http::Request<B>> for Dispatch<S>
where
    S: NamedService + Clone,
    S: tower::Service<
            http::Request<B>,
            Response = http::Response<Body>,
            Error = Infallible,
            Future = BoxFuture<'static, Answer>,
        >,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    // That of every generated service.
    type Future = BoxFuture<'static, Answer>;

    fn call(&self, request: http::Request<B>) -> Self::Future {
        match is_for(S::NAME, request.uri().path()) {
            true => tower::Service::call(&mut self.direct.clone(), request),
            false => Box::pin(tower::Service::call(&mut self.others.clone(), request)),
        }
    }
}

/// Whether a path is that of a method of `service`, known or not: `/service/method`.
fn is_for(service: &str, path: &str) -> bool {
    let method = path.strip_prefix('/').and_then(|path| path.strip_prefix(service)?.strip_prefix('/'));
    method.is_some_and(|method| !method.is_empty())
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::sync::Arc;

    use arc_swap::ArcSwapOption;
    use tonic::{Code, Status};
    use trefoil_proto::v1::{cluster_server::ClusterServer, kv_server::KvServer};

    use super::*;
    use crate::api::MaybeServing;
    use crate::api::answers::Reader;
    use crate::api::cluster::ClusterService;
    use crate::api::kv::KvService;

    /// The services of a node that is not a member yet.
    fn services() -> (KvServer<KvService>, ClusterServer<ClusterService>) {
        let serving: MaybeServing = Arc::new(ArcSwapOption::empty());
        let kv = KvService { serving: serving.clone(), reader: Arc::<Reader>::default() };
        (KvServer::new(kv), ClusterServer::new(ClusterService { serving }))
    }

    /// An empty message for `path`.
    fn request(path: &str) -> http::Request<Body> {
        http::Request::post(path).body(Body::new("\0\0\0\0\0".to_owned())).expect("a request")
    }

    /// What the head of an answer tells, and whether that is all.
    async fn told(answering: impl Future<Output = Answer>) -> (http::HeaderMap, bool) {
        let Ok(response) = answering.await;
        let ends = http_body::Body::is_end_stream(response.body());
        (response.into_parts().0.headers, ends)
    }

    #[tokio::test]
    async fn all_is_answered_as_by_routes() {
        let cases = [
            ("/trefoil.v1.Kv/Get", Code::Unavailable),
            ("/trefoil.v1.Kv/Scan", Code::Unavailable),
            ("/trefoil.v1.Kv/Nothing", Code::Unimplemented),
            ("/trefoil.v1.Kv/Get/more", Code::Unimplemented),
            ("/trefoil.v1.Kv//", Code::Unimplemented),
            ("/trefoil.v1.Kv/", Code::Unimplemented),
            ("/trefoil.v1.Kv", Code::Unimplemented),
            ("/trefoil.v1.Kvs/Get", Code::Unimplemented),
            ("/nothing.Kv/Get", Code::Unimplemented),
            ("/", Code::Unimplemented),
            ("/trefoil.v1.Cluster/Status", Code::Unavailable),
            ("/trefoil.v1.Cluster/Nothing", Code::Unimplemented),
        ];
        for (path, code) in cases {
            let (kv, cluster) = services();
            let mut all = Routes::new(kv.clone()).add_service(cluster.clone()).prepare();
            let dispatched = told(Dispatch::new(kv, Routes::new(cluster).prepare()).call(request(path))).await;
            assert_eq!(dispatched, told(tower::Service::call(&mut all, request(path))).await, "{path}");
            let status = Status::from_header_map(&dispatched.0).map(|status| status.code());
            assert_eq!((status, dispatched.1), (Some(code), true), "{path}");
        }
    }

    #[tokio::test]
    async fn the_direct_service_needs_no_route() {
        let (kv, _) = services();
        let services = Dispatch::new(kv, Routes::default());
        let (head, _) = told(services.call(request("/trefoil.v1.Kv/Get"))).await;
        assert_eq!(Status::from_header_map(&head).map(|status| status.code()), Some(Code::Unavailable));
    }
}
