//! HTTP for people and tools: metrics, health, readiness, and what the actors say of themselves.
//!
//! | path | answer |
//! |---|---|
//! | `/metrics` | every metric of the node, Prometheus text format |
//! | `/healthz` | 200 while every listener accepts a connection to itself, else 503; JSON |
//! | `/readyz` | 200 while the node can do its work, else 503 with the reasons; JSON |
//! | `/debug/actors` | each actor's vitals and its own snapshot; JSON |
//! | `/` | a page that links to these |

pub mod health;

use std::sync::Arc;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use futures_util::future::join_all;

use crate::runtime::TreeView;
use crate::telemetry;
pub use health::{Health, NotReady, Readiness};

/// How long one actor may take to describe itself.
const INSPECT: Duration = Duration::from_millis(500);

/// What the pages show.
#[derive(Clone)]
pub struct WebState {
    /// `miner` or `validator`.
    pub role: &'static str,
    /// The node's actors.
    pub view: TreeView,
    /// The node's metrics.
    pub registry: prometheus::Registry,
    /// Whether the node is healthy and ready.
    pub health: Arc<Health>,
}

/// Registers the pages.
pub fn routes(state: WebState) -> impl Fn(&mut web::ServiceConfig) + Clone + Send + Sync + 'static {
    move |config: &mut web::ServiceConfig| {
        config
            .app_data(web::Data::new(state.clone()))
            .route("/", web::get().to(index))
            .route("/metrics", web::get().to(metrics))
            .route("/healthz", web::get().to(healthz))
            .route("/readyz", web::get().to(readyz))
            .route("/debug/actors", web::get().to(actors));
    }
}

async fn index(state: web::Data<WebState>) -> HttpResponse {
    HttpResponse::Ok().content_type("text/html; charset=utf-8").body(format!(
        "<!doctype html><title>compute-{role}</title><h1>compute-{role}</h1><ul>\
         <li><a href=\"/metrics\">metrics</a><li><a href=\"/healthz\">health</a>\
         <li><a href=\"/readyz\">readiness</a><li><a href=\"/debug/actors\">actors</a></ul>",
        role = state.role
    ))
}

async fn metrics(state: web::Data<WebState>) -> HttpResponse {
    state.view.refresh_metrics();
    match telemetry::encode(&state.registry) {
        Ok(text) => HttpResponse::Ok().content_type(telemetry::CONTENT_TYPE).body(text),
        Err(error) => HttpResponse::InternalServerError().body(format!("metrics cannot be encoded: {error}\n")),
    }
}

async fn healthz(state: web::Data<WebState>) -> HttpResponse {
    let listeners = state.health.listeners();
    let healthy = listeners.iter().all(|l| l.accepting);
    let code = if healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    HttpResponse::build(code).json(serde_json::json!({ "healthy": healthy, "listeners": listeners }))
}

async fn readyz(state: web::Data<WebState>) -> HttpResponse {
    let readiness = state.health.readiness(&state.view);
    let code = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    HttpResponse::build(code).json(readiness)
}

/// An actor's vital signs, as JSON.
fn vitals(view: &TreeView, name: &str) -> serde_json::Value {
    let Some(v) = view.vitals(name) else { return serde_json::Value::Null };
    let failure = v.last_failure();
    serde_json::json!({
        "state": v.state().label(),
        "restarts": v.restarts_total(),
        "mailbox_depth": v.depth(),
        "mailbox_capacity": v.capacity(),
        "heartbeat_age_seconds": v.heartbeat_age().as_secs_f64(),
        "last_failure": failure.map(|f| serde_json::json!({
            "cause": f.cause.label(), "text": f.text, "location": f.location,
        })),
    })
}

async fn actors(state: web::Data<WebState>) -> HttpResponse {
    let described = state.view.names().into_iter().map(|name| {
        let view = state.view.clone();
        async move {
            let snapshot = match view.inspect(name, INSPECT).await {
                Ok(snapshot) => snapshot,
                Err(error) => serde_json::json!({ "no_answer": error.to_string() }),
            };
            (name, serde_json::json!({ "vitals": vitals(&view, name), "snapshot": snapshot }))
        }
    });
    let actors: serde_json::Map<String, serde_json::Value> =
        join_all(described).await.into_iter().map(|(name, value)| (name.to_string(), value)).collect();
    HttpResponse::Ok().json(actors)
}
