//! The services every gRPC server is expected to have: health, and reflection.

use std::time::Duration;

use tonic::Code;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use crate::cluster::Cluster;
use crate::raw::{self, bounded};
use crate::scenario::{Scenario, beside_others};
use crate::wait::until;

const SERVICES: [&str; 2] = ["trefoil.v1.Kv", "trefoil.v1.Cluster"];
const PATIENCE: Duration = Duration::from_secs(20);
const ATTEMPT_MAX: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_says_when_to_come() {
    Scenario::begin("services::health_says_when_to_come");
    let _turn = beside_others().await;
    let mut cluster = Cluster::plan(3, &[]).await;
    let address = cluster.nodes[0].client.clone();
    // Alone, it waits for the others.
    cluster.launch(0);
    let names = || ["", SERVICES[0], SERVICES[1]].into_iter();
    for service in names() {
        expect_health(&address, service, ServingStatus::NotServing).await;
    }
    cluster.launch(1);
    cluster.launch(2);
    cluster.ready(0).await;
    for service in names() {
        expect_health(&address, service, ServingStatus::Serving).await;
    }
    let mut health = HealthClient::new(raw::connected(&address).await);
    let nothing = HealthCheckRequest { service: "trefoil.v1.Nothing".to_owned() };
    let unknown = health.check(bounded(nothing, ATTEMPT_MAX)).await.expect_err("an error for a service nobody knows");
    assert_eq!(unknown.code(), Code::NotFound, "expected a service nobody knows not to be found: {unknown:?}");
    println!("health of {SERVICES:?} and of the server: not serving alone, serving with the others");
}

/// A node says so of a service before long.
async fn expect_health(address: &str, service: &str, expected: ServingStatus) {
    let mut last = None;
    until(&format!("{expected:?} as the health of '{service}'"), PATIENCE, async || {
        let mut health = HealthClient::new(raw::channel(address).await?);
        let ask = HealthCheckRequest { service: service.to_owned() };
        let status = health.check(bounded(ask, ATTEMPT_MAX)).await.ok()?.into_inner().status();
        if last.replace(status) != Some(status) {
            println!("'{service}': {status:?}");
        }
        (status == expected).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reflection_describes_the_services() {
    Scenario::begin("services::reflection_describes_the_services");
    let _turn = beside_others().await;
    let cluster = Cluster::form(1, &[]).await;
    let channel = raw::connected(&cluster.nodes[0].client).await;
    let listed = match reflect(&channel, MessageRequest::ListServices(String::new())).await {
        MessageResponse::ListServicesResponse(list) => list.service,
        other => panic!("expected a list of services, got {other:?}"),
    };
    let listed: Vec<String> = listed.into_iter().map(|service| service.name).collect();
    println!("reflection lists {listed:?}");
    for service in SERVICES {
        assert!(listed.iter().any(|name| name == service), "expected {service} among {listed:?}");
        let files = match reflect(&channel, MessageRequest::FileContainingSymbol(service.to_owned())).await {
            MessageResponse::FileDescriptorResponse(files) => files.file_descriptor_proto,
            other => panic!("expected the file that describes {service}, got {other:?}"),
        };
        let name = service.rsplit('.').next().unwrap_or_default().as_bytes();
        let described = files.iter().any(|file| file.windows(name.len()).any(|part| part == name));
        assert!(described, "expected a description of {service} among {} files", files.len());
    }
}

/// The answer to one question to the reflection service.
async fn reflect(channel: &Channel, question: MessageRequest) -> MessageResponse {
    let ask = ServerReflectionRequest { host: String::new(), message_request: Some(question) };
    let asks = bounded(futures::stream::iter([ask]), ATTEMPT_MAX);
    let answers = ServerReflectionClient::new(channel.clone()).server_reflection_info(asks).await;
    let mut answers = answers.unwrap_or_else(|status| panic!("expected reflection to answer: {status:?}")).into_inner();
    let answer = answers.message().await.unwrap_or_else(|status| panic!("expected an answer: {status:?}"));
    answer.and_then(|answer| answer.message_response).expect("an answer with something in it")
}
