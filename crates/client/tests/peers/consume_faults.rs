//! Members of groups on streams that break.

use std::sync::Arc;
use std::time::Duration;

use logmill_client::ErrorKind;
use parking_lot::Mutex;
use tokio::time::timeout;

use crate::fake::Fake;

const SOON: Duration = Duration::from_secs(30);

#[tokio::test]
async fn whoever_leaves_says_so_again_where_the_stream_breaks() {
    let said = Arc::new(Mutex::new(Vec::new()));
    let node = {
        let said = Arc::clone(&said);
        Fake::new().consuming(move |mut session| {
            let said = Arc::clone(&said);
            async move {
                let join = session.join().await;
                session.leave().await;
                said.lock().push(join.member_id);
                if session.number == 0 {
                    session.break_off().await;
                }
            }
        })
    };
    let node = node.start().await;
    let consumer = node.client().await.consumer("g").topics(["t"]).join().await.unwrap();
    timeout(SOON, consumer.close()).await.unwrap().unwrap();
    assert_eq!(*said.lock(), [None, Some("m".to_owned())]);
}

#[tokio::test]
async fn whoever_cannot_tell_the_node_that_it_leaves_is_not_told_that_it_has() {
    let node = Fake::new().consuming(|mut session| async move {
        session.join().await;
        session.leave().await;
    });
    let mut node = node.start().await;
    let consumer = node.client().await.consumer("g").topics(["t"]).join().await.unwrap();
    node.kill();
    let error = timeout(SOON, consumer.close()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("session timeout"), "{error}");
}
