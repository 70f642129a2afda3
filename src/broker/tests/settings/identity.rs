//! Settings that say who a broker is and where it listens.

use kafka_protocol::messages::MetadataRequest;

use super::*;
use crate::transport::Stream;

const TWO: [&str; 2] =
    ["listeners=OUT://127.0.0.1:0,IN://127.0.0.1:0", "listener.security.protocol.map=OUT:PLAINTEXT,IN:PLAINTEXT"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_is_told_of_as_it_was_set_up() {
    let mut settings = TWO.to_vec();
    settings.extend([
        "broker.id=7",
        "broker.rack=r1",
        "inter.broker.listener.name=IN",
        "advertised.listeners=OUT://example.test:1234,IN://127.0.0.1:0",
    ]);
    let mut probe = Probe::start(&settings).await;
    let [outside, inside] = probe.broker.addresses() else { panic!("two listeners") };
    assert!(outside.ip().is_loopback() && outside.port() != inside.port());
    let told = probe.client.call(&MetadataRequest::default(), 12).await.brokers;
    let told: Vec<_> = told.iter().map(|b| (b.node_id.0, b.host.as_str(), b.port, b.rack.as_deref())).collect();
    assert_eq!(told, [(7, "example.test", 1234, Some("r1"))]);
    let stream = Stream::Plain(tokio::net::TcpStream::connect(*inside).await.unwrap());
    let told = WireClient { stream, correlation: 0 }.call(&MetadataRequest::default(), 12).await.brokers;
    assert_eq!((told[0].host.as_str(), told[0].port), ("127.0.0.1", i32::from(inside.port())));
    probe.broker.stop().await;
}

/// With one broker nothing goes between brokers; what the settings name must be there all the same.
#[test]
fn the_listener_between_brokers_must_be_one_of_the_listeners() {
    assert!(refusal(&TWO).contains("valid options based on currently configured listeners are OUT,IN"));
    let named = [TWO[0], TWO[1], "inter.broker.listener.name=IN"];
    assert_eq!(load(Path::new("d"), &named).unwrap().inter_broker_listener, "IN");
    assert!(refusal(&[TWO[0], "inter.broker.listener.name=IN"]).contains("No security protocol defined"));
    assert_eq!(load(Path::new("d"), &[]).unwrap().inter_broker_listener, "PLAINTEXT");
    assert!(refusal(&["security.inter.broker.protocol=SSL"]).contains("must be a listener name defined"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_without_an_id_gets_one_above_those_given_by_hand() {
    let probe = Probe::start(&["broker.id=-1", "reserved.broker.max.id=5"]).await;
    assert_eq!(probe.broker.id.0, 6);
    probe.broker.stop().await;
    assert!(refusal(&["broker.id=6", "reserved.broker.max.id=5"]).contains("reserved.broker.max.id"));
    assert!(refusal(&["broker.id=-1", "broker.id.generation.enable=false"]).contains("greater than or equal to 0"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_file_of_a_kraft_node_starts_one_broker() {
    let kraft = [
        "process.roles=broker,controller",
        "node.id=4",
        "controller.quorum.voters=4@localhost:9093",
        "listeners=PLAINTEXT://127.0.0.1:0,CONTROLLER://127.0.0.1:0",
        "controller.listener.names=CONTROLLER",
        "zookeeper.connect=127.0.0.1:1",
    ];
    let probe = Probe::start(&kraft).await;
    assert_eq!((probe.broker.id.0, probe.broker.addresses().len()), (4, 1), "the controllers' listener is not opened");
    probe.broker.stop().await;
    let without = |name: &str| {
        let rest = kraft.into_iter().filter(|setting| !setting.starts_with(name));
        refusal(&rest.chain(["broker.id=-1"]).collect::<Vec<_>>())
    };
    let id = without("node.id");
    assert!(id.contains("node id -1 must be included"), "{id}");
    let listener = refusal(&kraft.map(|setting| match setting {
        "controller.listener.names=CONTROLLER" => "num.partitions=1",
        other => other,
    }));
    assert!(listener.contains("No security protocol defined for listener CONTROLLER"), "{listener}");
    let alone = refusal(&kraft.map(|setting| match setting {
        "process.roles=broker,controller" => "process.roles=broker",
        other => other,
    }));
    assert!(alone.contains("several nodes need zookeeper.connect"), "{alone}");
    let mut elsewhere = kraft;
    elsewhere[2] = "controller.quorum.voters=5@localhost:9093";
    assert!(refusal(&elsewhere).contains("must be included in the set of voters"));
}
