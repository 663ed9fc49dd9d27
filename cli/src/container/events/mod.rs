//! What happened to containers, images, networks and volumes, as Docker's events.

mod journal;

pub use journal::{Reader, write};

use super::ending;
use super::record::{MountKind, Record};
use crate::context::Context;
use netstack::model::Endpoint;
use netstack::networks::predefined_id;
use runtime::state::{Health, State};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// One event, as yet without its time.
pub struct Event {
    kind: &'static str,
    action: String,
    id: String,
    attributes: Map<String, Value>,
}

impl Event {
    /// `more` comes to what every event of a container tells: its image, name and labels.
    pub fn container(record: &Record, action: impl Into<String>, more: &[(&str, String)]) -> Event {
        let own = [("image", record.image.clone()), ("name", record.name.clone())];
        Event::labelled("container", action, &record.id, &record.config.labels, &[&own[..], more].concat())
    }

    /// `id` is the image's, or the reference that was pulled or pushed.
    pub fn image(action: &str, id: &str, name: &str, labels: &BTreeMap<String, String>) -> Event {
        Event::labelled("image", action, id, labels, &[("name", name.to_owned())])
    }

    pub fn network(action: &str, network: &Joined, container: Option<&str>) -> Event {
        let mut more = vec![("name", network.name.clone()), ("type", network.driver.clone())];
        more.extend(container.map(|id| ("container", id.to_owned())));
        Event::labelled("network", action, &network.id, &BTreeMap::new(), &more)
    }

    pub fn volume(action: &str, name: &str, more: &[(&str, String)]) -> Event {
        let driver = [("driver", "local".to_owned())];
        Event::labelled("volume", action, name, &BTreeMap::new(), &[&driver[..], more].concat())
    }

    /// So many bytes were given back.
    pub fn prune(kind: &'static str, reclaimed: u64) -> Event {
        Event::labelled(kind, "prune", "", &BTreeMap::new(), &[("reclaimed", reclaimed.to_string())])
    }

    fn labelled(
        kind: &'static str,
        action: impl Into<String>,
        id: &str,
        labels: &BTreeMap<String, String>,
        more: &[(&str, String)],
    ) -> Event {
        let mut attributes: Map<String, Value> = labels.iter().map(|(k, v)| (k.clone(), v.as_str().into())).collect();
        attributes.extend(more.iter().map(|(k, v)| ((*k).to_owned(), v.as_str().into())));
        Event { kind, action: action.into(), id: id.to_owned(), attributes }
    }

    /// Docker's JSON; the first three fields only where it has them.
    fn document(&self, nanoseconds: i64) -> Value {
        let mut fields = Map::new();
        if matches!(self.kind, "container" | "image") {
            fields.insert("status".into(), self.action.as_str().into());
            fields.insert("id".into(), self.id.as_str().into());
        }
        if self.kind == "container" {
            fields.insert("from".into(), self.attributes.get("image").cloned().unwrap_or_default());
        }
        fields.insert("Type".into(), self.kind.into());
        fields.insert("Action".into(), self.action.as_str().into());
        fields.insert("Actor".into(), json!({"ID": self.id, "Attributes": self.attributes}));
        fields.insert("scope".into(), "local".into());
        fields.insert("time".into(), nanoseconds.div_euclid(1_000_000_000).into());
        fields.insert("timeNano".into(), nanoseconds.into());
        Value::Object(fields)
    }
}

/// A network, as far as events name it.
pub struct Joined {
    pub id: String,
    pub name: String,
    pub driver: String,
}

impl Joined {
    fn predefined(name: &str, driver: &str) -> Joined {
        Joined { id: predefined_id(name), name: name.into(), driver: driver.into() }
    }

    /// The networks that a container is on.
    pub fn of(record: &Record, endpoints: &[Endpoint]) -> Vec<Joined> {
        match record.host.network_mode.as_str() {
            "host" => vec![Joined::predefined("host", "host")],
            "none" => vec![Joined::predefined("none", "null")],
            _ => endpoints.iter().map(Joined::from).collect(),
        }
    }
}

impl From<&Endpoint> for Joined {
    fn from(e: &Endpoint) -> Joined {
        // Empty in older records, which are of bridges.
        let driver = if e.driver.is_empty() { "bridge" } else { &e.driver };
        Joined { id: e.network_id.clone(), name: e.network.clone(), driver: driver.into() }
    }
}

impl From<&netstack::model::Network> for Joined {
    fn from(n: &netstack::model::Network) -> Joined {
        Joined { id: n.id.clone(), name: n.name.clone(), driver: n.driver.clone() }
    }
}

/// Writes one event of a container.
pub fn container(ctx: &Context, record: &Record, action: &str, more: &[(&str, String)]) {
    write(ctx, &[Event::container(record, action, more)]);
}

/// Writes one event of an image.
pub fn image(ctx: &Context, action: &str, id: &str, name: &str, labels: &BTreeMap<String, String>) {
    write(ctx, &[Event::image(action, id, name, labels)]);
}

/// The volumes of a container: name, and what is told of the mount.
fn volumes(record: &Record) -> impl Iterator<Item = (&str, [(&'static str, String); 4])> {
    record.mounts.iter().filter(|m| m.kind == MountKind::Volume).filter_map(|m| {
        let told = [
            ("container", record.id.clone()),
            ("destination", m.destination.display().to_string()),
            ("propagation", m.propagation.clone()),
            ("read/write", m.rw.to_string()),
        ];
        Some((m.name.as_deref()?, told))
    })
}

/// A container runs, on these networks; somebody may be attached to it from the start, in a terminal of
/// this size.
pub fn start(ctx: &Context, record: &Record, networks: &[Joined], attached: bool, console: Option<(u16, u16)>) {
    let mut events = Vec::new();
    if attached {
        events.push(Event::container(record, "attach", &[]));
    }
    events.extend(networks.iter().map(|n| Event::network("connect", n, Some(&record.id))));
    events.extend(volumes(record).map(|(name, told)| Event::volume("mount", name, &told)));
    events.push(Event::container(record, "start", &[]));
    events.extend(console.map(|size| resize(record, size)));
    write(ctx, &events);
}

/// A terminal has so many rows and columns now.
pub fn resize(record: &Record, (rows, columns): (u16, u16)) -> Event {
    Event::container(record, "resize", &[("height", rows.to_string()), ("width", columns.to_string())])
}

/// The end of a process, and what became of the container by it, and of volumes of its own.
pub fn die(ctx: &Context, record: &Record, state: &State, networks: &[Joined], volumes_gone: &[&str]) {
    let mut events = Vec::new();
    if state.oom_killed {
        events.push(Event::container(record, "oom", &[]));
    }
    let lived = match (plan::time::parse(&state.started_at), plan::time::parse(&state.finished_at)) {
        (Some(from), Some(to)) => (to.seconds - from.seconds).max(0),
        _ => 0,
    };
    let more = [("exitCode", state.exit_code.to_string()), ("execDuration", lived.to_string())];
    events.push(Event::container(record, "die", &more));
    events.extend(networks.iter().map(|n| Event::network("disconnect", n, Some(&record.id))));
    events.extend(volumes(record).map(|(name, told)| Event::volume("unmount", name, &told[..1])));
    if state.stopped && ending::by_stop(ctx, &record.id) {
        events.push(Event::container(record, "stop", &[]));
    }
    if record.host.auto_remove {
        events.push(Event::container(record, "destroy", &[]));
    }
    events.extend(volumes_gone.iter().map(|name| Event::volume("destroy", name, &[])));
    write(ctx, &events);
}

/// A container that waited for its next start will not get it.
pub fn stopped(ctx: &Context, id: &str) {
    if let Ok(record) = Record::load(&ctx.container_dir(id)) {
        container(ctx, &record, "stop", &[]);
    }
}

pub fn health(ctx: &Context, record: &Record, health: Health) {
    container(ctx, record, &format!("health_status: {health}"), &[]);
}
