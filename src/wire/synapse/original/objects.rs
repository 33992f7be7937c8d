//! The objects within the original's synapses. To the original each is any JSON object: a caller's object replaces the
//! default as a whole, whatever it holds, and is sent back as it came. So each is kept whole and read key by key; a key
//! that is missing or holds something else reads as nothing.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value, json};

macro_rules! objects {
    ($($(#[$doc:meta])* $name:ident = $default:tt;)*) => { $(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Map<String, Value>);

        impl Default for $name {
            fn default() -> Self {
                match json!($default) {
                    Value::Object(map) => $name(map),
                    _ => $name(Map::new()),
                }
            }
        }

        impl From<Map<String, Value>> for $name {
            fn from(map: Map<String, Value>) -> Self {
                $name(map)
            }
        }
    )* };
}

objects! {
    /// What a machine should have.
    DeviceRequirement = {};
    /// What a container should be like.
    DockerRequirement = {"base_image": "ubuntu", "ssh_key": "", "ssh_port": 4444, "volume_path": "/tmp", "dockerfile": ""};
    /// What to do with a container.
    DockerAction = {"action": "", "ssh_key": "", "key_type": ""};
    /// An answer.
    Output = {};
}

fn text<'a>(object: &'a Map<String, Value>, key: &str) -> &'a str {
    object.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// Reads an object whose absence old callers write as `null` or `""`.
pub(super) fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: From<Map<String, Value>> + Default,
{
    match Value::deserialize(deserializer)? {
        Value::Object(map) => Ok(T::from(map)),
        Value::Null => Ok(T::default()),
        Value::String(text) if text.is_empty() => Ok(T::default()),
        _ => Err(D::Error::custom("no object")),
    }
}

impl DeviceRequirement {
    /// `cpu.count`: cores.
    pub fn cpu_count(&self) -> Option<u64> {
        self.number("cpu", "count")
    }
    /// `gpu.count`: cards; none where no GPU is asked for.
    pub fn gpu_count(&self) -> Option<u64> {
        self.number("gpu", "count")
    }
    /// `gpu.capacity`: memory in MiB.
    pub fn gpu_capacity_mib(&self) -> Option<u64> {
        self.number("gpu", "capacity")
    }
    /// `gpu.type`: a part of the model's name; empty for any.
    pub fn gpu_type(&self) -> &str {
        self.0.get("gpu").and_then(|gpu| gpu.get("type")).and_then(Value::as_str).unwrap_or_default()
    }
    /// `hard_disk.capacity`: bytes.
    pub fn hard_disk_bytes(&self) -> Option<u64> {
        self.number("hard_disk", "capacity")
    }
    /// `ram.capacity`: bytes.
    pub fn ram_bytes(&self) -> Option<u64> {
        self.number("ram", "capacity")
    }
    /// `testing`: a validator wants to look at the machine, nobody rents it.
    pub fn is_testing(&self) -> bool {
        self.0.get("testing").and_then(Value::as_bool).unwrap_or_default()
    }

    /// A whole number, or the whole part of a float, at most the largest whole number there is: callers compute capacities
    /// in floats.
    fn number(&self, section: &str, key: &str) -> Option<u64> {
        let number = self.0.get(section)?.get(key)?;
        let float = || number.as_f64().filter(|v| *v >= 0.0).map(|v| v as u64);
        number.as_u64().or_else(float)
    }
}

impl DockerRequirement {
    /// `base_image`: the container's image.
    pub fn base_image(&self) -> &str {
        text(&self.0, "base_image")
    }
    /// `ssh_key`: the public key that may log in, without the white space around it; empty for none.
    pub fn ssh_key(&self) -> &str {
        text(&self.0, "ssh_key").trim()
    }
    /// `volume_path`.
    pub fn volume_path(&self) -> &str {
        text(&self.0, "volume_path")
    }
    /// `dockerfile`: lines for the image's making.
    pub fn dockerfile(&self) -> &str {
        text(&self.0, "dockerfile")
    }
    /// `ssh_port`, which no miner heeds.
    pub fn ssh_port(&self) -> Option<u16> {
        self.0.get("ssh_port").and_then(Value::as_u64).and_then(|port| port.try_into().ok())
    }
}

impl DockerAction {
    /// `action`: which one.
    pub fn action(&self) -> &str {
        text(&self.0, "action")
    }
    /// `ssh_key`: the key to put in.
    pub fn ssh_key(&self) -> &str {
        text(&self.0, "ssh_key").trim()
    }
    /// `key_type`: whose key it is, `user` or `terminal`.
    pub fn key_type(&self) -> &str {
        text(&self.0, "key_type")
    }
}

impl Output {
    /// `{"status": …}`.
    pub fn of(status: bool) -> Self {
        Output(Map::from_iter([("status".to_owned(), Value::Bool(status))]))
    }
    /// With the credentials, in their envelope.
    #[must_use]
    pub fn with_info(mut self, info: String) -> Self {
        self.0.insert("info".to_owned(), Value::String(info));
        self
    }
    /// With the port of the machine's SSH server.
    #[must_use]
    pub fn with_port(mut self, port: u16) -> Self {
        self.0.insert("port".to_owned(), port.into());
        self
    }
    /// `status`; none where the other side did nothing.
    pub fn status(&self) -> Option<bool> {
        self.0.get("status").and_then(Value::as_bool)
    }
    /// `info`.
    pub fn info(&self) -> Option<&str> {
        self.0.get("info").and_then(Value::as_str)
    }
    /// `port`.
    pub fn port(&self) -> Option<u16> {
        self.0.get("port").and_then(Value::as_u64).and_then(|port| port.try_into().ok())
    }
}
