//! Images that renters' wishes bring, pulled from a registry of our own.

use std::sync::atomic::Ordering;

use compute_subnet::lease::{ContainerEngine as _, ContainerSpec, EngineError};

use crate::bed::{Bed, until};
use crate::registry::{LARGE, Registry};

pub(crate) async fn the_pull_of_an_oversized_image_is_ended_before_it_fills_the_disk(bed: &mut Bed) {
    let registry = Registry::start(bed.dir());
    let engine = bed.with(1, |options| options.images.allow = vec![format!("{}/**", registry.at)]);
    assert!(bed.options(1).pulls.size < LARGE);
    let spec = ContainerSpec { image: format!("{}/large:1", registry.at), ..bed.spec(1, 0) };
    match engine.create(&spec).await {
        Err(EngineError::Image { why, .. }) => {
            assert!(why.contains("docker.max_image_gib") && why.contains("its pull was ended"), "{why}");
        }
        other => panic!("{other:?}"),
    }
    until("the engine has hung up", async || registry.hung_up.load(Ordering::SeqCst)).await;
    let next = engine.create(&bed.spec(2, 0)).await.unwrap();
    assert!(engine.destroy(next.labels.lease, 1).await.unwrap(), "the next lease works");
}

pub(crate) async fn an_image_that_a_wish_brought_is_removed_when_nobody_wants_it(bed: &mut Bed) {
    let registry = Registry::start(bed.dir());
    let name = format!("{}/small:1", registry.at);
    let allow = vec![format!("{}/**", registry.at)];
    let engine = bed.with(1, |options| options.images.allow = allow.clone());
    let spec = ContainerSpec { image: name.clone(), ..bed.spec(1, 0) };
    engine.create(&spec).await.expect("the image is pulled, and can be logged in to");
    let record = bed.options(1).state.join("pulled-images.json");
    let on_record = || std::fs::read_to_string(&record).unwrap();
    assert!(on_record().contains(&name), "{}", on_record());
    let there = || bed.docker(&["images", "-q", &name]).trim() != "";
    // As if it had been wanted long ago.
    let long_ago = || std::fs::write(&record, format!("{{\"{name}\": 0}}")).unwrap();
    long_ago();
    let following = bed.following(1);
    until("its container is seen", async || !on_record().contains(": 0")).await;
    assert!(there(), "a container is made of it");
    drop(following);
    assert!(engine.destroy(spec.lease, 1).await.unwrap());
    long_ago();
    let following = bed.following(1);
    until("it is removed", async || !there()).await;
    until("it is off the record", async || !on_record().contains(&name)).await;
    drop(following);
}
