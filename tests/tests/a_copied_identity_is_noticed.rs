//! Two computers with one identity: a data folder or an SD card was copied.

use std::time::Duration;

use kinfolk_tests::World;

#[tokio::test]
async fn on_one_lan_both_say_so() {
    let world = World::new().await;
    let isp = world.public("isp", 20).await;
    let home = world.home("home", &isp).await;
    let original = world.node("original", &home.device("original").await).start().await;
    let copy = world.node("copy", &home.device("copy").await).identity_of(&original).start().await;
    assert_eq!(original.peer_id(), copy.peer_id());
    for node in [&original, &copy] {
        let warned = async || node.events().into_iter().find(|line| line.event == "own_identity_seen");
        let line = world.eventually("the copy is noticed", Duration::from_secs(30), warned).await;
        assert!(line.text.contains("identity"), "{}", line.text);
    }
    // It is said, not shouted.
    let times = original.events().iter().filter(|line| line.event == "own_identity_seen").count();
    assert!(times <= 8, "said {times} times");
    let dials = original.trace().await.dials();
    assert!(dials.is_empty(), "it dialled itself: {dials:?}");
    world.finish_with_golden(&[(&original, "copied-identity")]).await;
}
