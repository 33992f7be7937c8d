//! How long it takes, and many at a time.

use std::time::Duration;

use compute_subnet::lease::ContainerEngine as _;
use tokio::time::Instant;

use crate::bed::Bed;

/// The value below which this part of the sorted ones lies.
fn part(sorted: &[Duration], part: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * part).round() as usize].as_secs_f64()
}

pub(crate) fn tell(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    println!(
        "       {what}: {} times, p50 {:.3} s, p95 {:.3} s, longest {:.3} s",
        times.len(),
        part(&times, 0.5),
        part(&times, 0.95),
        part(&times, 1.0)
    );
}

/// Ten of them, fifty in the long form.
pub(crate) async fn many_leases_one_after_the_other(bed: &mut Bed) {
    let leases = if std::env::var_os("COMPUTE_TEST_LONG").is_some() { 50 } else { 10 };
    let engine = bed.engine(1);
    let (mut made, mut released) = (Vec::new(), Vec::new());
    for lease in 1..=leases {
        let begun = Instant::now();
        let container = engine.create(&bed.spec(lease, 0)).await.unwrap();
        made.push(begun.elapsed());
        let begun = Instant::now();
        assert!(engine.destroy(container.labels.lease, 1).await.unwrap());
        released.push(begun.elapsed());
    }
    tell("from the call to SSH-2.0", made);
    tell("from the call to gone", released);
}

pub(crate) async fn twenty_leases_at_once_on_one_host(bed: &mut Bed) {
    let engine = bed.engine(1);
    let timed = async |lease: u8| {
        let begun = Instant::now();
        let made = engine.create(&bed.spec(lease, lease)).await.unwrap();
        (made, begun.elapsed())
    };
    let begun = Instant::now();
    let all = futures_util::future::join_all((1..=20u8).map(timed)).await;
    println!("       20 leases at once: all greet after {:.2} s", begun.elapsed().as_secs_f64());
    let (made, times): (Vec<_>, Vec<_>) = all.into_iter().unzip();
    tell("each of them", times);
    let ports: std::collections::BTreeSet<u16> = made.iter().map(|c| c.ssh_port).collect();
    assert_eq!((ports.len(), engine.list().await.unwrap().len()), (20, 20));
    for container in [&made[0], &made[19]] {
        assert_eq!(bed.login(container, &bed.key, "echo in").as_deref(), Some("in"));
    }
    // Bridges keep the tenants apart.
    let address =
        bed.docker(&["inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", &made[1].id]);
    let look = format!("timeout 2 bash -c '</dev/tcp/{}/22'", address.trim());
    assert!(!bed.inside(&made[0], &look).0, "one tenant reaches another");
    let gone = futures_util::future::join_all(made.iter().map(|c| engine.destroy(c.labels.lease, 1))).await;
    assert!(gone.into_iter().all(|gone| gone.unwrap()));
}
