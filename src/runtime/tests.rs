//! What only the control lane can show.

use super::Supervised;
use super::fault::Control;
use super::*;
use actix::prelude::*;
use std::time::Duration;
use tokio::sync::oneshot;

struct Idle;
impl Actor for Idle {
    type Context = Ctx<Self>;
}
impl Supervised for Idle {
    const MESSAGES: &'static [&'static str] = &[];
}
impl Handler<Inspect> for Idle {
    type Result = ResponseActFuture<Self, serde_json::Value>;
    fn handle(&mut self, _: Inspect, _: &mut Ctx<Self>) -> Self::Result {
        Box::pin(tokio::time::sleep(Duration::from_secs(5)).into_actor(self).map(|(), _, _| serde_json::Value::Null))
    }
}

fn paused<T>(f: impl Future<Output = T>) -> T {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    System::with_tokio_rt(runtime).block_on(f)
}

#[test]
fn a_second_drain_neither_prolongs_nor_breaks_the_first() {
    paused(async {
        let metrics = RuntimeMetrics::register(&prometheus::Registry::new()).unwrap();
        let mut tree = Tree::here(TreeConfig::default(), metrics);
        let spec = ChildSpec { name: "idle", mailbox: 2, after: &[], drain: Duration::from_secs(60) };
        let (handle, seat) = tree.declare::<Idle>(spec);
        tree.start(seat, |_| Idle).unwrap();
        handle.tell(Inspect).unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let lane = tree.view().child("idle").unwrap().lane;
        let t = tokio::time::Instant::now();
        let mut acks = Vec::new();
        for seconds in [60, 600] {
            let (done, drained) = oneshot::channel();
            lane.try_send(Control::Drain { deadline: Duration::from_secs(seconds), done }).unwrap();
            acks.push(drained);
        }
        for ack in acks {
            ack.await.unwrap();
        }
        assert_eq!(t.elapsed().as_secs(), 4, "as soon as the admitted message was done");
        assert_eq!(tree.view().state("idle"), Some(State::Stopped));
    });
}

#[test]
fn an_actor_that_recovered_before_the_order_came_is_not_restarted() {
    paused(async {
        let metrics = RuntimeMetrics::register(&prometheus::Registry::new()).unwrap();
        let mut tree = Tree::here(TreeConfig::default(), metrics);
        let spec = ChildSpec { name: "idle", mailbox: 2, after: &[], drain: Duration::from_secs(60) };
        let (_handle, seat) = tree.declare::<Idle>(spec);
        tree.start(seat, |_| Idle).unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let lane = tree.view().child("idle").unwrap().lane;
        lane.try_send(Control::Restart { if_silent_for: Duration::from_secs(3) }).unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(tree.view().vitals("idle").unwrap().restarts_total(), 0);
        lane.try_send(Control::Restart { if_silent_for: Duration::ZERO }).unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(tree.view().restarts("idle", Cause::Unresponsive), 1);
    });
}
