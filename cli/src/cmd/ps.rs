//! `rrun ps`: the containers, and what has become of them.

use crate::args::PsArgs;
use crate::container::view::{self, View};
use crate::context::Context;
use crate::render::table::{ago, ellipsis, go_time, human_duration, human_size};
use crate::render::template::{self, Column, Row};
use netstack::model::PortBinding;
use netstack::publish::Reach;
use plan::Result;
use runtime::state::{Health, Status};
use serde_json::{Value, json};

const COLUMNS: &[Column] = &[
    ("CONTAINER ID", "ID"),
    ("IMAGE", "Image"),
    ("COMMAND", "Command"),
    ("CREATED", "RunningFor"),
    ("STATUS", "Status"),
    ("PORTS", "Ports"),
    ("NAMES", "Names"),
];
const WITH_SIZE: &[Column] = &[
    ("CONTAINER ID", "ID"),
    ("IMAGE", "Image"),
    ("COMMAND", "Command"),
    ("CREATED", "RunningFor"),
    ("STATUS", "Status"),
    ("PORTS", "Ports"),
    ("NAMES", "Names"),
    ("SIZE", "Size"),
];

pub fn run(ctx: &Context, args: &PsArgs) -> Result<i32> {
    let filters = super::filter::parse(&args.filter)?;
    let mut views = view::all(ctx)?;
    let last = if args.latest { Some(1) } else { args.last.and_then(|n| usize::try_from(n).ok()) };
    // Asking for a state, or for the last ones, is asking for stopped ones too.
    let all = args.all || last.is_some() || filters.mention(&["status", "exited", "health"]);
    let keep = filters.select(ctx, &views)?;
    let mut keep = keep.into_iter();
    views.retain(|v| keep.next().unwrap_or(false) && (all || v.is_running() || v.state.status == Status::Restarting));
    views.truncate(last.unwrap_or(usize::MAX));
    if args.quiet && args.format.is_none() {
        let lines: String =
            views.iter().map(|v| if args.no_trunc { v.id.clone() } else { v.short_id().to_string() } + "\n").collect();
        super::out(&lines);
        return Ok(0);
    }
    let mut rows: Vec<Row> = views.iter().map(|v| row(ctx, v, args)).collect();
    if args.format.as_deref().is_some_and(|f| f.contains("Reachable")) {
        let reach = Reach::observe()?;
        for (row, view) in rows.iter_mut().zip(&views) {
            row.insert("Reachable".into(), reachable(&reach, view).into());
        }
    }
    let columns = if args.size { WITH_SIZE } else { COLUMNS };
    super::out(&template::list(args.format.as_deref(), columns, &rows)?);
    Ok(0)
}

/// `8080/tcp from this host only`: for who wants to know more than the addresses in column PORTS.
fn reachable(reach: &Reach, v: &View) -> String {
    let range = |(from, to): (u16, u16)| if from == to { from.to_string() } else { format!("{from}-{to}") };
    let text = |b: &PortBinding| format!("{}/{} from {}", range(b.host), b.proto.name(), reach.from(b));
    v.bindings.iter().map(text).collect::<Vec<_>>().join("; ")
}

fn row(ctx: &Context, v: &View, args: &PsArgs) -> Row {
    let id = if args.no_trunc { v.id.as_str() } else { v.short_id() };
    let Some(record) = &v.record else {
        return object(json!({
            "Command": "", "CreatedAt": "", "ID": id, "Image": "", "Labels": "", "LocalVolumes": "0", "Mounts": "",
            "Names": v.name, "Networks": "", "Ports": "", "RunningFor": "", "Size": "0B", "State": "broken",
            "Status": format!("Broken ({})", v.error.as_ref().map(ToString::to_string).unwrap_or_default()),
        }));
    };
    let cut = |text: String, most: usize| if args.no_trunc { text } else { ellipsis(&text, most) };
    let command = cut(record.config.args().join(" "), 20);
    let labels: Vec<String> = record.config.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
    let mounts: Vec<String> = record
        .mounts
        .iter()
        .map(|m| cut(m.name.clone().unwrap_or_else(|| m.source.display().to_string()), 15))
        .collect();
    let networks = match record.networks.is_empty() {
        true => record.host.network_mode.clone(),
        false => record.networks.iter().map(|n| n.network.as_str()).collect::<Vec<_>>().join(","),
    };
    let volumes = record.mounts.iter().filter(|m| m.name.is_some()).count();
    object(json!({
        "Command": format!("\"{command}\""),
        "CreatedAt": go_time(&record.created, false),
        "ID": id,
        "Image": record.image,
        "Labels": labels.join(","),
        "LocalVolumes": volumes.to_string(),
        "Mounts": mounts.join(","),
        "Names": record.name,
        "Networks": networks,
        "Ports": view::ports_text(v),
        "RunningFor": ago(plan::time::seconds_since(&record.created)),
        "Size": if args.size { human_size(view::size(ctx, &v.id)) } else { "0B".into() },
        "State": v.status(),
        "Status": status(v),
    }))
}

/// Docker's words.
fn status(v: &View) -> String {
    let up = || format!("Up {}", human_duration(plan::time::seconds_since(&v.state.started_at)));
    let since = || ago(plan::time::seconds_since(&v.state.finished_at));
    match v.state.status {
        Status::Created => "Created".into(),
        Status::Running if v.paused => format!("{} (Paused)", up()),
        Status::Running => match v.state.health {
            None => up(),
            Some(Health::Starting) => format!("{} (health: starting)", up()),
            Some(health) => format!("{} ({health})", up()),
        },
        Status::Restarting => format!("Restarting ({}) {}", v.state.exit_code, since()),
        Status::Exited => format!("Exited ({}) {}", v.state.exit_code, since()),
    }
}

fn object(value: Value) -> Row {
    match value {
        Value::Object(row) => row,
        _ => Row::new(),
    }
}
