//! The engine and its callers end in the middle.

use std::collections::BTreeSet;
use std::time::Duration;

use compute_subnet::lease::{ContainerEngine as _, ContainerState, EngineError};

use crate::bed::{Bed, end_processes_of, processes_of, until};

pub(crate) async fn a_creation_that_is_cut_off_at_any_moment_is_finished_or_removed(bed: &mut Bed) {
    // Each caller ends a little later in the course of its creation than the one before.
    for (lease, after) in (1u8..).zip([2u64, 10, 20, 35, 50, 75, 100, 150, 200, 275, 350, 450]) {
        let spec = bed.spec(lease, 0);
        let cut = bed.engine(1);
        let crash = {
            let spec = spec.clone();
            // A runtime that is shut down ends its tasks where they stand, as the end of a process does.
            std::thread::spawn(move || {
                let process = tokio::runtime::Runtime::new().unwrap();
                let ended = process
                    .block_on(async { tokio::time::timeout(Duration::from_millis(after), cut.create(&spec)).await });
                drop(cut);
                process.shutdown_background();
                ended.is_ok()
            })
        };
        let came_to_the_end = tokio::task::spawn_blocking(|| crash.join().unwrap()).await.unwrap();
        let engine = bed.engine(1);
        let found = bed.found(1, spec.lease).await;
        if came_to_the_end || lease % 2 == 0 {
            let made = engine.create(&spec).await.unwrap_or_else(|e| panic!("cut after {after} ms: {e}"));
            assert_eq!(made.state, ContainerState::Running);
            assert_eq!(bed.login(&made, &bed.key, "echo in").as_deref(), Some("in"), "cut after {after} ms");
            assert_eq!(engine.list().await.unwrap().len(), 1);
        }
        // What the engine was still busy with when its caller ended may show up late: whoever compares finds and destroys it.
        let begun = tokio::time::Instant::now();
        while begun.elapsed() < Duration::from_secs(1) {
            for late in engine.list().await.unwrap() {
                assert!(engine.destroy(late.labels.lease, 1).await.unwrap(), "cut after {after} ms, found {found:?}");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        engine.destroy(spec.lease, 1).await.unwrap();
        assert_eq!(engine.list().await.unwrap(), []);
    }
    // Volumes that were being made are nobody's: whoever starts again clears them away.
    let following = bed.following(1);
    until("no volume is left", async || bed.in_volumes(1).is_empty()).await;
    drop(following);
}

pub(crate) async fn a_caller_that_stops_waiting_leaves_a_container_that_is_whole(bed: &mut Bed) {
    let engine = bed.engine(1);
    for (lease, after) in (1u8..).zip([5u64, 60, 150, 300]) {
        let spec = bed.spec(lease, 0);
        let _ = tokio::time::timeout(Duration::from_millis(after), engine.create(&spec)).await;
        match lease % 2 {
            0 => assert!(bed.login(&engine.create(&spec).await.unwrap(), &bed.key, "true").is_some()),
            _ => assert!(engine.destroy(spec.lease, 1).await.unwrap(), "it waits for the creation, and removes it"),
        }
        engine.destroy(spec.lease, 1).await.unwrap();
        assert_eq!(engine.list().await.unwrap(), []);
    }
}

pub(crate) async fn an_engine_killed_while_it_creates_leaves_what_can_be_finished(bed: &mut Bed) {
    for (lease, after) in (1u8..).zip([30u64, 120, 300]) {
        let spec = bed.spec(lease, 0);
        let engine = bed.engine(1);
        let making = tokio::spawn({
            let spec = spec.clone();
            async move { engine.create(&spec).await }
        });
        tokio::time::sleep(Duration::from_millis(after)).await;
        bed.kill_engine();
        let outcome = making.await.unwrap();
        bed.start_engine(true).await;
        let engine = bed.engine(1);
        if let Err(error) = &outcome
            && error.nothing_happened()
        {
            assert_eq!(engine.list().await.unwrap(), [], "it said that nothing happened: {error}");
        }
        let made = engine.create(&spec).await.unwrap_or_else(|e| panic!("killed after {after} ms: {e}"));
        assert_eq!(bed.login(&made, &bed.key, "echo in").as_deref(), Some("in"), "killed after {after} ms");
        assert!(engine.destroy(spec.lease, 1).await.unwrap());
    }
    // What the engine itself forgot when it was killed: nobody's container, and gone with its next start in order.
    bed.restart_after_kills().await;
}

pub(crate) async fn a_tenant_keeps_running_through_a_crash_and_a_restart_of_the_engine(bed: &mut Bed) {
    let engine = bed.engine(1);
    let spec = bed.spec(1, 0);
    let made = engine.create(&spec).await.unwrap();
    let pid = |bed: &Bed| bed.docker(&["inspect", "-f", "{{.State.Pid}}", &made.id]).trim().to_owned();
    let before = pid(bed);
    // With live restore the very processes go on, and can be logged in to, while there is no engine.
    bed.kill_engine();
    assert!(engine.list().await.is_err());
    assert!(std::path::Path::new(&format!("/proc/{before}")).exists());
    bed.start_engine(true).await;
    assert_eq!(engine.list().await.unwrap(), std::slice::from_ref(&made), "the handle from before works again");
    assert_eq!(pid(bed), before);
    assert_eq!(bed.login(&made, &bed.key, "echo in").as_deref(), Some("in"));
    // Without it the engine ends the container, and what is mounted for it; the miner has both back, as after a reboot.
    let following = bed.following(1);
    bed.stop_engine();
    bed.start_engine(false).await;
    bed.stop_engine();
    bed.start_engine(false).await;
    until("one can log in", async || bed.login(&made, &bed.key, "echo in").as_deref() == Some("in")).await;
    assert_eq!(engine.list().await.unwrap(), std::slice::from_ref(&made), "port, host key and labels are the same");
    drop(following);
    assert!(engine.destroy(spec.lease, 1).await.unwrap());
    bed.stop_engine();
    bed.start_engine(true).await;
}

pub(crate) async fn an_engine_with_another_data_directory_is_not_believed(bed: &mut Bed) {
    let engine = bed.engine(1);
    let spec = bed.spec(1, 0);
    let made = engine.create(&spec).await.unwrap();
    let volumes = bed.in_volumes(1);
    engine.expects(&[spec.lease]);
    // As after the start of a machine whose disk for the engine is not mounted: no process, and an empty engine.
    bed.stop_engine();
    bed.start_engine(false).await;
    bed.stop_engine();
    bed.data_in("elsewhere");
    bed.start_engine(true).await;
    let following = bed.following(1);
    following.expects(&[spec.lease]);
    for error in [
        engine.list().await.unwrap_err(),
        following.list().await.unwrap_err(),
        engine.destroy(spec.lease, 1).await.expect_err("that there is none here says nothing"),
        engine.create(&bed.spec(2, 1)).await.unwrap_err(),
    ] {
        assert!(matches!(error, EngineError::Unavailable { .. }), "{error}");
        assert!(error.to_string().contains("is its disk mounted?"), "{error}");
    }
    // Nor is anything swept that belongs to the containers of the other directory.
    let heard = *following.changes().unwrap().borrow();
    until("it was looked at", async || *following.changes().unwrap().borrow() > heard || heard > 0).await;
    assert_eq!(bed.in_volumes(1), volumes);
    bed.stop_engine();
    bed.data_in("data");
    bed.start_engine(false).await;
    until("one can log in", async || bed.login(&made, &bed.key, "echo in").as_deref() == Some("in")).await;
    assert_eq!(engine.list().await.unwrap(), std::slice::from_ref(&made));
    assert!(engine.destroy(spec.lease, 1).await.unwrap());
    // With nothing rented, whoever changes the engine's directory is right.
    drop(following);
    bed.stop_engine();
    bed.data_in("elsewhere");
    bed.start_engine(true).await;
    assert!(engine.create(&spec).await.is_err(), "only a comparison takes another engine");
    engine.expects(&[]);
    assert_eq!(engine.list().await.unwrap(), []);
    bed.stop_engine();
    bed.data_in("data");
    bed.start_engine(true).await;
    assert_eq!(engine.list().await.unwrap(), []);
}

pub(crate) async fn networks_without_a_container_are_swept_at_the_start(bed: &mut Bed) {
    let engine = bed.engine(1);
    let (gone, stays) = (bed.spec(1, 0), bed.spec(2, 1));
    let lost = engine.create(&gone).await.unwrap();
    let kept = engine.create(&stays).await.unwrap();
    bed.docker(&["rm", "-f", &lost.id]);
    let network = format!("compute-{}-1", gone.lease);
    assert!(bed.docker(&["network", "ls"]).contains(&network));
    let following = bed.following(1);
    until("the network is gone", async || !bed.docker(&["network", "ls"]).contains(&network)).await;
    assert_eq!(following.list().await.unwrap(), std::slice::from_ref(&kept));
    assert!(bed.login(&kept, &bed.key, "true").is_some(), "the other's network stays");
    assert!(engine.destroy(stays.lease, 1).await.unwrap());
}

pub(crate) async fn processes_that_the_engine_forgot_end_with_their_lease(bed: &mut Bed) {
    // What is frozen does not end by a signal alone, under the first version of control groups.
    for (lease, paused) in [(1, false), (2, true)] {
        let (engine, spec) = (bed.engine(1), bed.spec(lease, 0));
        let made = engine.create(&spec).await.unwrap();
        let own = BTreeSet::from([made.id.clone()]);
        // One that makes others all the time.
        bed.docker(&["exec", "-d", &made.id, "sh", "-c", "while true; do sleep 0.01; done"]);
        if paused {
            engine.pause(spec.lease, 1).await.unwrap();
        }
        bed.forget(&made.id).await;
        assert_eq!(bed.found(1, spec.lease).await, None, "the engine forgot it");
        assert!(processes_of(&own).len() > 1, "its processes run on");
        let begun = tokio::time::Instant::now();
        assert!(!bed.engine(1).destroy(spec.lease, 1).await.unwrap(), "the engine has no such container");
        println!("       released in {:.2} s", begun.elapsed().as_secs_f64());
        assert_eq!(processes_of(&own), [""; 0]);
        until("the loop device is free", async || bed.loops().is_empty()).await;
        assert!(!bed.engine(1).destroy(spec.lease, 1).await.unwrap(), "a repeat finds nothing");
        end_processes_of(&own);
    }
    bed.restart_after_kills().await;
}

pub(crate) async fn containers_that_the_engine_forgot_are_swept_with_their_processes(bed: &mut Bed) {
    let engine = bed.engine(1);
    let (gone, stays) = (bed.spec(1, 0), bed.spec(2, 1));
    let lost = engine.create(&gone).await.unwrap();
    let kept = engine.create(&stays).await.unwrap();
    let own = BTreeSet::from([lost.id.clone()]);
    bed.forget(&lost.id).await;
    assert!(!processes_of(&own).is_empty(), "its processes run on");
    let following = bed.following(1);
    until("no process is left", async || processes_of(&own).is_empty()).await;
    assert!(bed.login(&kept, &bed.key, "true").is_some(), "the other's processes stay");
    assert!(following.destroy(stays.lease, 1).await.unwrap());
    until("the loop devices are free", async || bed.loops().is_empty()).await;
    drop(following);
    end_processes_of(&own);
    bed.restart_after_kills().await;
}
