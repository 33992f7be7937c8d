//! A Prometheus of our own: its process, its configuration, and questions over its HTTP interface.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use reqwest::Url;
use serde_json::Value;

use crate::common::until;
use crate::queries::Query;

/// The program, if it is installed. If not, fails with what to do, or says what is left out where that was asked for.
pub(crate) fn installed() -> Option<PathBuf> {
    let found = std::env::var_os("PATH")
        .and_then(|path| std::env::split_paths(&path).map(|dir| dir.join("prometheus")).find(|p| p.is_file()));
    if found.is_none() {
        assert!(
            std::env::var("COMPUTE_TEST_WITHOUT_PROMTOOL").is_ok_and(|v| v == "1"),
            "prometheus is not installed: run scripts/test, which installs what the tests need, or install Debian's \
             package prometheus; COMPUTE_TEST_WITHOUT_PROMTOOL=1 leaves this test out"
        );
        println!("LEFT OUT: prometheus is not installed");
    }
    found
}

/// A running Prometheus. It ends with this value.
pub(crate) struct Prometheus {
    child: Child,
    base: Url,
    http: reqwest::Client,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It may have ended already, and then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An alert rule as Prometheus has it.
pub(crate) struct Rule {
    pub(crate) name: String,
    /// `ok` once it was evaluated.
    pub(crate) health: String,
    pub(crate) error: String,
    /// `inactive`, `pending` or `firing`.
    pub(crate) state: String,
}

impl Prometheus {
    /// Starts one that scrapes `targets` once a second under the repository's alert rules, and waits until it answers.
    pub(crate) async fn start(program: &Path, dir: &Path, targets: &[SocketAddr]) -> Self {
        std::fs::create_dir_all(dir).unwrap();
        let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboards/alerts.yml");
        let targets: Vec<String> = targets.iter().map(ToString::to_string).collect();
        // JSON is YAML.
        let config = serde_json::json!({
            "global": { "scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s" },
            "rule_files": [rules],
            "scrape_configs": [{ "job_name": "compute", "static_configs": [{ "targets": targets }] }],
        });
        let file = dir.join("prometheus.yml");
        std::fs::write(&file, serde_json::to_vec_pretty(&config).unwrap()).unwrap();
        let address = {
            let free = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            free.local_addr().unwrap()
        };
        let log = std::fs::File::create(dir.join("log")).unwrap();
        let child = Command::new(program)
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", dir.join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--log.level=warn")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let base = Url::parse(&format!("http://{address}")).unwrap();
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).build().unwrap();
        let mut prometheus = Prometheus { child, base, http };
        until("prometheus is ready", async || {
            if let Some(status) = prometheus.child.try_wait().unwrap() {
                let log = std::fs::read_to_string(dir.join("log")).unwrap_or_default();
                panic!("prometheus ended ({status}): {log}");
            }
            let ready = prometheus.http.get(prometheus.base.join("/-/ready").unwrap()).send().await;
            ready.is_ok_and(|r| r.status().is_success()).then_some(())
        })
        .await;
        prometheus
    }

    /// Waits until each target was scraped so many times, and none of them in vain.
    pub(crate) async fn scraped(&self, targets: &[SocketAddr], times: u32) {
        until("every node was scraped", async || {
            let vain = self.query("min_over_time(up[5m]) == 0").await;
            assert!(vain.is_empty(), "scrapes failed: {vain:?}");
            let enough = self.query(&format!("count_over_time(up[5m]) >= {times}")).await;
            (enough.len() == targets.len()).then_some(())
        })
        .await;
    }

    /// Asks, and expects an answer without error or warning.
    async fn get(&self, path: &str, parameters: &[(&str, &str)]) -> Value {
        let url = Url::parse_with_params(self.base.join(path).unwrap().as_str(), parameters).unwrap();
        let reply = self.http.get(url).send().await.unwrap_or_else(|e| panic!("{path} {parameters:?}: {e}"));
        let (status, text) = (reply.status(), reply.text().await.unwrap());
        assert!(status.is_success(), "{path} {parameters:?}: {status}: {text}");
        let mut body: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(body["status"], "success", "{path} {parameters:?}: {text}");
        assert!(body["warnings"].is_null(), "{path} {parameters:?}: {text}");
        body["data"].take()
    }

    async fn query(&self, expr: &str) -> Vec<Value> {
        self.get("/api/v1/query", &[("query", expr)]).await["result"].as_array().unwrap().clone()
    }

    /// The number of series that a query gives now.
    pub(crate) async fn instant(&self, query: &Query) -> usize {
        self.query(&query.expr).await.len()
    }

    /// The number of series that a query gives over the last 20 s, as a graph asks.
    pub(crate) async fn range(&self, query: &Query) -> usize {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let (start, end) = ((now - 20).to_string(), now.to_string());
        let parameters = [("query", query.expr.as_str()), ("start", &start), ("end", &end), ("step", "5")];
        self.get("/api/v1/query_range", &parameters).await["result"].as_array().unwrap().len()
    }

    /// The values that Grafana would offer for a variable: a series selector and a label.
    pub(crate) async fn label_values(&self, (selector, label): &(String, String)) -> Vec<Value> {
        let path = format!("/api/v1/label/{label}/values");
        self.get(&path, &[("match[]", selector)]).await.as_array().unwrap().clone()
    }

    /// The alert rules that were loaded.
    pub(crate) async fn rules(&self) -> Vec<Rule> {
        let data = self.get("/api/v1/rules", &[("type", "alert")]).await;
        let groups = data["groups"].as_array().unwrap();
        let text = |rule: &Value, key: &str| rule[key].as_str().unwrap_or_default().to_owned();
        let rule = |r: &Value| Rule {
            name: text(r, "name"),
            health: text(r, "health"),
            error: text(r, "lastError"),
            state: text(r, "state"),
        };
        groups.iter().flat_map(|g| g["rules"].as_array().unwrap()).map(rule).collect()
    }
}
