//! Who gets in.

use compute_subnet::lease::engine::Grant;
use compute_subnet::lease::{ContainerEngine as _, ContainerSpec};

use crate::bed::{Bed, run};

pub(crate) async fn the_renter_logs_in_with_the_key_and_sees_the_host_key_that_was_told(bed: &mut Bed) {
    let engine = bed.engine(1);
    let made = engine.create(&bed.spec(1, 0)).await.unwrap();
    assert_eq!(bed.login(&made, &bed.key, "id -u; hostname").as_deref(), Some("0\nlease-01010101"));
    let found = bed.found(1, made.labels.lease).await.unwrap();
    assert_eq!(found.host_key, made.host_key, "another handle tells the same key");
    engine.restart(made.labels.lease, 1).await.unwrap();
    assert_eq!(bed.login(&made, &bed.key, "echo again").as_deref(), Some("again"), "the host key stays over a restart");
    engine.destroy(made.labels.lease, 1).await.unwrap();
}

pub(crate) async fn who_may_log_in_changes_without_a_restart(bed: &mut Bed) {
    let engine = bed.engine(1);
    let lease = bed.spec(1, 0).lease;
    let made = engine.create(&bed.spec(1, 0)).await.unwrap();
    let other = bed.key.with_file_name("other");
    let _ = std::fs::remove_file(&other);
    run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-C", "", "-f", other.to_str().unwrap()]);
    let other_public = std::fs::read_to_string(other.with_extension("pub")).unwrap().trim().to_owned();
    assert_eq!(bed.login(&made, &other, "true"), None);

    engine.grant(lease, 1, &Grant::TerminalKey(Some(other_public.clone()))).await.unwrap();
    assert!(bed.login(&made, &other, "true").is_some() && bed.login(&made, &bed.key, "true").is_some());
    engine.grant(lease, 1, &Grant::TerminalKey(None)).await.unwrap();
    assert_eq!(bed.login(&made, &other, "true"), None);
    engine.grant(lease, 1, &Grant::UserKey(other_public.clone())).await.unwrap();
    engine.grant(lease, 1, &Grant::UserKey(other_public)).await.unwrap();
    assert!(bed.login(&made, &other, "true").is_some(), "a repeat is harmless");
    assert_eq!(bed.login(&made, &bed.key, "true"), None, "the key before is replaced");
    let pid = |bed: &Bed| bed.docker(&["inspect", "-f", "{{.State.Pid}}", &made.id]);
    let before = pid(bed);
    engine.grant(lease, 1, &Grant::PasswordHash("$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$AAAA".into())).await.unwrap();
    assert_eq!(pid(bed), before, "nothing was restarted");
    engine.destroy(lease, 1).await.unwrap();
    assert!(engine.grant(lease, 1, &Grant::TerminalKey(None)).await.is_err());
}

pub(crate) async fn an_image_with_nothing_in_it_greets_too(bed: &mut Bed) {
    let engine = bed.engine(1);
    let spec = ContainerSpec { image: "scratch".into(), ..bed.spec(1, 0) };
    engine.create(&spec).await.expect("the SSH server needs nothing of the image");
    assert!(engine.destroy(spec.lease, 1).await.unwrap());
}
