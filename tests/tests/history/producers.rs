//! Producers that tell a history what they send and what they hear of it.

use std::sync::Arc;
use std::time::Duration;

use logmill_client::{Acks, Client, Delivery, ErrorKind, Producer, ProducerOptions, ProducerRecord};
use logmill_log::sim::SimRandom;
use logmill_tests::history::{Ack, Id, Place, Sending};
use tokio::sync::{mpsc, watch};

use crate::run::Scene;

/// How many records of a producer wait for their answers to be told.
const UNTOLD: usize = 200;
/// Batches are only a few records, so that a fault finds many under way.
const BATCH_BYTES: usize = 2_048;

/// What a producer is like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Habit {
    pub(crate) acks: Acks,
    pub(crate) idempotent: bool,
    pub(crate) delivery_timeout: Duration,
    /// Every record has to come through.
    pub(crate) patient: bool,
}

/// With so much patience no fault is too long.
const PATIENCE: Duration = Duration::from_secs(120);
/// Less than many a fault takes.
const IMPATIENCE: Duration = Duration::from_millis(200);

const PATIENT: Habit =
    Habit { acks: Acks::Durable, idempotent: true, delivery_timeout: PATIENCE, patient: true };

/// One of each.
pub(crate) const HABITS: [Habit; 5] = [
    PATIENT,
    Habit { acks: Acks::Written, ..PATIENT },
    Habit { delivery_timeout: IMPATIENCE, patient: false, ..PATIENT },
    Habit { delivery_timeout: IMPATIENCE, acks: Acks::Written, patient: false, ..PATIENT },
    Habit { idempotent: false, patient: false, ..PATIENT },
];

impl Habit {
    fn options(self) -> ProducerOptions {
        ProducerOptions {
            acks: self.acks,
            idempotent: self.idempotent,
            delivery_timeout: self.delivery_timeout,
            max_batch_bytes: BATCH_BYTES,
            max_buffered_bytes: 1 << 20,
            ..ProducerOptions::default()
        }
    }

    /// What was given up may still arrive, and without numbers nothing keeps it from coming late.
    fn sending(self) -> Sending {
        if self.idempotent { Sending::Once } else { Sending::Again }
    }

    fn ack(self) -> Ack {
        if self.acks == Acks::Durable { Ack::Durable } else { Ack::Written }
    }
}

type Sent = (Place, Id, Delivery);

/// Sends records to all places until it is told to stop, and gets an answer to every one.
pub(crate) async fn produce(
    client: Client,
    habit: Habit,
    scene: Arc<Scene>,
    random: SimRandom,
    mut stop: watch::Receiver<bool>,
) {
    let producer = client.producer(habit.options()).unwrap();
    let me = scene.history.producer(habit.sending());
    let worker = Worker { producer, me, habit, scene, random };
    let (sent, mut deliveries) = mpsc::channel(UNTOLD);
    let sending = async {
        tokio::select! {
            () = worker.send_forever(sent) => {}
            stopped = stop.wait_for(|stop| *stop) => { stopped.unwrap(); }
        }
        worker.get_on_everywhere().await;
        // Its own error is one that a delivery reports as well.
        let _ = worker.producer.close().await;
    };
    let hearing = async {
        while let Some(sent) = deliveries.recv().await {
            worker.hear(sent).await;
        }
    };
    tokio::join!(sending, hearing);
}

struct Worker {
    producer: Producer,
    me: u32,
    habit: Habit,
    scene: Arc<Scene>,
    random: SimRandom,
}

impl Worker {
    async fn send_forever(&self, sent: mpsc::Sender<Sent>) {
        let places = &self.scene.places;
        loop {
            // Before the record is told of: from here on it is sent without a pause.
            let room = sent.reserve().await.expect("the deliveries are told as long as there are any");
            let place = &places[usize::try_from(self.random.below(places.len() as u64)).unwrap()];
            if let Some(delivery) = self.send(place).await {
                room.send(delivery);
            }
        }
    }

    /// Whatever a producer went through in a partition, when it is over it gets on there.
    async fn get_on_everywhere(&self) {
        for place in &self.scene.places {
            loop {
                if let Some(sent) = self.send(place).await
                    && self.hear(sent).await
                {
                    break;
                }
            }
        }
    }

    /// Sends one record, if the producer takes it.
    async fn send(&self, place: &Place) -> Option<Sent> {
        let id = self.scene.history.sent(place, self.me);
        let value = id.value(&"x".repeat(usize::try_from(self.random.below(300)).unwrap()));
        let record = ProducerRecord::new(place.topic.clone(), value).partition(place.partition);
        match self.producer.send(record).await {
            Ok(delivery) => Some((place.clone(), id, delivery)),
            Err(error) => {
                assert!(!self.habit.patient, "{place}: {id}: {error:?}");
                self.scene.history.refused(place, id);
                None
            }
        }
    }

    /// Tells what becomes of a record; whether it was acknowledged.
    async fn hear(&self, (place, id, delivery): Sent) -> bool {
        let Scene { history, acknowledged, .. } = &*self.scene;
        match delivery.await {
            Ok(delivered) => {
                assert_eq!(delivered.partition, place.partition);
                history.acknowledged(&place, id, delivered.offset, self.habit.ack());
                acknowledged.send_modify(|count| *count += 1);
                return true;
            }
            Err(error) if self.habit.patient => panic!("{place}: {id}: {error:?}"),
            Err(error) => match error.kind() {
                ErrorKind::OutcomeUnknown | ErrorKind::AlreadyExists => history.unknown(&place, id),
                ErrorKind::Timeout | ErrorKind::Unavailable => history.refused(&place, id),
                other => panic!("{place}: {id}: {other:?}: {error:?}"),
            },
        }
        false
    }
}
