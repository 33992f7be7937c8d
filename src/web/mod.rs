//! HTTP for people and tools: metrics, health, readiness, and what the actors say of themselves.
//!
//! | path | answer |
//! |---|---|
//! | `/metrics` | every metric of the node, Prometheus text format |
//! | `/healthz` | 200 while every listener accepts a connection to itself, else 503; JSON |
//! | `/readyz` | 200 while the node can do its work, else 503 with the reasons; JSON |
//! | `/debug/actors` | each actor's vitals and its own snapshot; JSON |
//! | `/` | a page that links to these |

pub mod control;
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

async fn actors(state: web::Data<WebState>) -> HttpResponse {
    HttpResponse::Ok().json(describe(&state.view).await)
}

/// Each actor's vitals and its own snapshot, by name.
async fn describe(view: &TreeView) -> serde_json::Map<String, serde_json::Value> {
    let described = view.reports().into_iter().map(|report| {
        let view = view.clone();
        async move {
            let name = report.name;
            let snapshot = match view.inspect(name, INSPECT).await {
                Ok(snapshot) => snapshot,
                Err(error) => serde_json::json!({ "no_answer": error.to_string() }),
            };
            (name, serde_json::json!({ "vitals": report, "snapshot": snapshot }))
        }
    });
    join_all(described).await.into_iter().map(|(name, value)| (name.to_string(), value)).collect()
}
