//! A container as `ps`, `inspect` and `port` show it: record, state, addresses, ports.

use super::record::Record;
use super::{Entry, life, service};
use crate::context::Context;
use netstack::model::{Endpoint, PortBinding};
use plan::{Error, Kind, Result};
use runtime::cgroup::Layout;
use runtime::state::{State, Status};
use std::path::Path;

pub struct View {
    pub id: String,
    pub name: String,
    /// `None`: the record is damaged, and `error` says how.
    pub record: Option<Box<Record>>,
    pub error: Option<Error>,
    pub state: State,
    /// It runs, and all its processes stand still.
    pub paused: bool,
    /// Of a running container.
    pub endpoints: Vec<Endpoint>,
    pub bindings: Vec<PortBinding>,
}

impl View {
    /// # Errors
    /// A damaged state file.
    pub fn of(ctx: &Context, record: Record) -> Result<View> {
        View::with(ctx, record, &Layout::observe()?)
    }

    fn with(ctx: &Context, record: Record, layout: &Layout) -> Result<View> {
        let state = life::state(ctx, &record.id)?;
        let mut view = View {
            id: record.id.clone(),
            name: record.name.clone(),
            record: None,
            error: None,
            endpoints: Vec::new(),
            bindings: Vec::new(),
            paused: life::is_paused(&record, &state, layout),
            state,
        };
        if view.state.status == Status::Running {
            let netstack = ctx.netstack();
            view.bindings = netstack.bindings_of(&record.id)?;
            view.endpoints = netstack.endpoints_of(&record.id)?;
        }
        view.record = Some(Box::new(record));
        Ok(view)
    }

    fn broken(id: String, name: String, error: Error) -> View {
        let state = State::created(id.clone());
        let (endpoints, bindings) = (Vec::new(), Vec::new());
        View { id, name, record: None, error: Some(error), state, paused: false, endpoints, bindings }
    }

    pub fn is_running(&self) -> bool {
        self.record.is_some() && self.state.status == Status::Running
    }

    /// What the container's resolver has done, if it has one. Nobody's inspection fails for a
    /// monitor that cannot say.
    pub fn dns_counters(&self, ctx: &Context) -> Option<serde_json::Value> {
        if !self.is_running() || self.endpoints.is_empty() {
            return None;
        }
        let monitor = runtime::attach::connect(&ctx.state_dir(&self.id)).ok()?;
        let counters = runtime::attach::request(&monitor, &serde_json::json!({ service::DNS: {} })).ok()?;
        (!counters.is_null()).then_some(counters)
    }

    /// Docker's word for what it does.
    pub fn status(&self) -> String {
        if self.paused { "paused".into() } else { self.state.status.to_string() }
    }

    pub fn short_id(&self) -> &str {
        self.id.get(..12).unwrap_or(&self.id)
    }
}

/// All containers, newest first. One that cannot be read is shown as broken.
///
/// # Errors
/// Only that the directory of containers cannot be read.
pub fn all(ctx: &Context) -> Result<Vec<View>> {
    let mut views = Vec::new();
    let layout = Layout::observe()?;
    for entry in super::list(ctx)? {
        views.push(match entry {
            Entry::Container(record) => {
                let (id, name) = (record.id.clone(), record.name.clone());
                match View::with(ctx, *record, &layout) {
                    Ok(view) => view,
                    // Removed since the list was made, or one of `--rm` that a reboot ended.
                    Err(e) if e.kind == Kind::NotFound => continue,
                    Err(e) => View::broken(id, name, e),
                }
            }
            Entry::Broken { id, name, error } => View::broken(id, name, error),
        });
    }
    let created = |v: &View| v.record.as_ref().map(|r| r.created.clone()).unwrap_or_default();
    views.sort_by_key(|v| std::cmp::Reverse(created(v)));
    Ok(views)
}

/// Docker's column: `0.0.0.0:8080->80/tcp, [::]:8080->80/tcp, 443/tcp`.
pub fn ports_text(view: &View) -> String {
    let Some(record) = &view.record else { return String::new() };
    if !view.is_running() {
        return String::new();
    }
    let range = |(from, to): (u16, u16)| if from == to { from.to_string() } else { format!("{from}-{to}") };
    let mut texts: Vec<String> = Vec::new();
    let mut published = std::collections::HashSet::new();
    // Routed ones are reached at the container itself: shown as exposed, like Docker does.
    for b in view.bindings.iter().filter(|b| !b.routed) {
        let proto = super::request::network::protocol(b.proto);
        let from: String = b.from.iter().map(|net| format!(" from {net}")).collect();
        texts.push(format!("{}:{}->{}/{proto}{from}", b.host_text(), range(b.host), range(b.container)));
        published.extend((b.container.0..=b.container.1).map(|port| format!("{port}/{proto}")));
    }
    texts.extend(record.config.exposed_ports.iter().filter(|p| !published.contains(*p)).cloned());
    texts.join(", ")
}

/// Bytes in the writable layer.
pub fn size(ctx: &Context, id: &str) -> u64 {
    bytes_below(&ctx.container_dir(id).join("upper"))
}

/// Bytes in all files below a directory.
pub fn bytes_below(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|e| match e.metadata() {
            Ok(m) if m.is_dir() => bytes_below(&e.path()),
            Ok(m) if m.is_file() => m.len(),
            _ => 0,
        })
        .sum()
}
