//! `rrun history`: the instructions an image was made by, newest first.

use crate::args::HistoryArgs;
use crate::context::Context;
use crate::render::table::{ago, ellipsis, human_size, short_id};
use crate::render::template::{self, Column, Row};
use plan::Result;
use serde_json::{Value, json};

const COLUMNS: &[Column] = &[
    ("IMAGE", "ID"),
    ("CREATED", "CreatedSince"),
    ("CREATED BY", "CreatedBy"),
    ("SIZE", "Size"),
    ("COMMENT", "Comment"),
];
/// Without --human, the moment in place of the age.
const EXACT: &[Column] = &[
    ("IMAGE", "ID"),
    ("CREATED AT", "CreatedAt"),
    ("CREATED BY", "CreatedBy"),
    ("SIZE", "Size"),
    ("COMMENT", "Comment"),
];

pub fn run(ctx: &Context, args: &HistoryArgs) -> Result<i32> {
    let store = ctx.images()?;
    let image = store.find(&args.image)?.ok_or_else(|| super::tag::no_such_image(&args.image))?;
    let image = super::pull::matching(image, &args.image, args.platform.as_deref())?;
    let config = store.config_json(&image)?;
    let mut sizes = store.layer_sizes(&image)?.into_iter();
    let steps = config["history"].as_array().cloned().unwrap_or_default();
    let mut rows: Vec<Row> = Vec::new();
    for step in &steps {
        let text = |name: &str| step[name].as_str().unwrap_or_default();
        let size = match step["empty_layer"].as_bool() {
            Some(true) => 0,
            _ => sizes.next().unwrap_or(0),
        };
        let by = text("created_by").replace('\t', " ");
        let row = json!({
            "ID": "<missing>",
            "CreatedSince": ago(plan::time::seconds_since(text("created"))),
            "CreatedAt": text("created"),
            "CreatedBy": if args.no_trunc { by } else { ellipsis(&by, 45) },
            "Size": if args.human { human_size(size) } else { size.to_string() },
            "Comment": text("comment"),
            "Tags": "",
        });
        rows.extend(row.as_object().cloned());
    }
    rows.reverse();
    if let Some(top) = rows.first_mut() {
        let id = if args.no_trunc { image.id.as_str() } else { short_id(&image.id) };
        top.insert("ID".into(), Value::String(id.to_owned()));
        top.insert("Tags".into(), Value::String(image.repo_tags.join(", ")));
    }
    if args.quiet {
        let ids: String = rows.iter().filter_map(|r| r["ID"].as_str()).map(|id| format!("{id}\n")).collect();
        super::out(&ids);
        return Ok(0);
    }
    let columns = if args.human { COLUMNS } else { EXACT };
    super::out(&template::list(args.format.as_deref(), columns, &rows)?);
    Ok(0)
}
