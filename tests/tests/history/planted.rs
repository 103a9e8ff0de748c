//! That the histories would tell: faults of a client and of a node that are planted here.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use logmill_client::{Acks, Client, ErrorKind};
use logmill_record::{Batch, BatchBuilder, NewRecord, Offset, TimestampMs};
use logmill_tests::history::{Ack, Cut as CutOff, Id, Kind, Place, Report, Sending};
use tokio::time::timeout;

use crate::proxy::{Cut, Way, Weather};
use crate::run::Scene;
use crate::server::Server;
use crate::{LIMIT, logmill};

fn batch(id: Id) -> Batch {
    let value = id.value("");
    let mut builder = BatchBuilder::new();
    let record =
        NewRecord { timestamp: TimestampMs(1), key: None, value: Some(value.as_bytes()), headers: &[] };
    builder.push(&record).unwrap();
    builder.build().unwrap()
}

fn kinds(report: &Report) -> BTreeSet<Kind> {
    report.anomalies.iter().map(|anomaly| anomaly.kind).collect()
}

/// Sends one record and takes down its answer.
async fn send(client: &Client, scene: &Scene, place: &Place, producer: u32) {
    let id = scene.history.sent(place, producer);
    let sent = client.produce_batch(&place.topic, place.partition, batch(id), Acks::Durable).await;
    scene.history.acknowledged(place, id, sent.unwrap().offset, Ack::Durable);
}

#[tokio::test]
async fn a_client_that_sends_again_without_numbers_is_caught_doubling() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(logmill(), &dir.path().join("data")).await;
    let scene = Scene::create(server.url()).await;
    let proxy = server.proxy().await;
    let client = Client::connect(&proxy.url()).await.unwrap();
    let place = &scene.places[0];
    let me = scene.history.producer(Sending::Once);
    send(&client, &scene, place, me).await;

    let id = scene.history.sent(place, me);
    proxy.set(Weather::cut(Cut::InData(Way::ToClient, 0)));
    let error = client.produce_batch(&place.topic, 0, batch(id), Acks::Durable).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{error:?}");
    proxy.set(Weather::default());
    let again = client.produce_batch(&place.topic, 0, batch(id), Acks::Durable).await.unwrap();
    scene.history.acknowledged(place, id, again.offset, Ack::Durable);

    let report = scene.check(&mut server).await;
    assert_eq!(kinds(&report), BTreeSet::from([Kind::Doubled]), "{report:?}");
}

#[tokio::test]
async fn a_client_without_numbers_is_caught_doubling_when_its_connection_is_duplicated() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(logmill(), &dir.path().join("data")).await;
    let scene = Scene::create(server.url()).await;
    let proxy = server.proxy().await;
    proxy.set(Weather::duplicate(Duration::ZERO));
    let client = Client::connect(&proxy.url()).await.unwrap();
    let place = &scene.places[0];
    let me = scene.history.producer(Sending::Once);
    send(&client, &scene, place, me).await;
    let direct = Client::connect(server.url()).await.unwrap();
    let twice = async {
        while direct.describe_topic(&place.topic).await.unwrap().partitions[0].end_offset < Offset(2) {}
    };
    timeout(LIMIT, twice).await.expect("the node hears it twice");
    assert!(proxy.duplicated() > 0);

    let report = scene.check(&mut server).await;
    assert_eq!(kinds(&report), BTreeSet::from([Kind::Doubled]), "{report:?}");
}

#[tokio::test]
async fn a_node_whose_directory_was_put_back_is_caught_losing() {
    let dir = tempfile::tempdir().unwrap();
    let (data, copy) = (dir.path().join("data"), dir.path().join("copy"));
    let mut server = Server::start(logmill(), &data).await;
    let scene = Scene::create(server.url()).await;
    let place = &scene.places[0];
    let me = scene.history.producer(Sending::Once);
    send(&Client::connect(server.url()).await.unwrap(), &scene, place, me).await;
    server.kill();
    copy_tree(&data, &copy);

    server.resume().await;
    send(&Client::connect(server.url()).await.unwrap(), &scene, place, me).await;
    scene.history.cut(&CutOff::Kill);
    server.kill();
    fs::remove_dir_all(&data).unwrap();
    fs::rename(&copy, &data).unwrap();
    server.resume().await;
    let report = scene.check(&mut server).await;
    assert_eq!(kinds(&report), BTreeSet::from([Kind::Lost]), "{report:?}");
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
