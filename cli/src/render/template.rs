//! `--format`: Go templates through the gotmpl crate, with Docker's helper functions.
//!
//! A list command describes each row as a JSON object whose keys are Docker's field names; the default
//! table, `--format json`, `--format 'table …'` and a plain template all render from that.

use super::table;
use gotmpl::{MissingKey, Template, TemplateError, Value as Go};
use plan::{Error, Result};
use serde_json::{Map, Value};

/// One row of a list, or one inspected object.
pub type Row = Map<String, Value>;

/// A column of a list command: its header, and the template that fills it in the default table.
pub type Column = (&'static str, &'static str);

/// Renders a list as `format` asks for; without one, the default table of `columns`.
/// `fields` gives the header text of each field for `table` templates (`ID` → `NETWORK ID`).
pub fn list(format: Option<&str>, columns: &[Column], rows: &[Row]) -> Result<String> {
    let default: String = columns.iter().map(|(_, f)| format!("{{{{.{f}}}}}")).collect::<Vec<_>>().join("\t");
    let format = match format {
        None | Some("" | "table") => format!("table {default}"),
        Some(f) => f.to_string(),
    };
    if format == "json" {
        let lines: Vec<String> = rows.iter().map(|r| Value::Object(r.clone()).to_string()).collect();
        return Ok(lines.into_iter().map(|l| l + "\n").collect());
    }
    let (is_table, source) = match format.strip_prefix("table ") {
        Some(t) => (true, t.trim_start()),
        None => (false, format.as_str()),
    };
    let template = compile(&unescape(source), MissingKey::Error)?;
    let mut lines = Vec::new();
    if is_table {
        let header: Row = header_row(columns, rows);
        lines.push(execute(&template, &Value::Object(header))?);
    }
    for r in rows {
        lines.push(execute(&template, &Value::Object(r.clone()))?);
    }
    if is_table {
        let cells: Vec<Vec<String>> = lines.iter().map(|l| l.split('\t').map(str::to_string).collect()).collect();
        return Ok(table::align(&cells));
    }
    Ok(lines.into_iter().map(|l| l + "\n").collect())
}

/// The header of a `table` template: known columns by their header, other fields by their name.
fn header_row(columns: &[Column], rows: &[Row]) -> Row {
    let mut header = Row::new();
    for key in rows.iter().flat_map(|r| r.keys()) {
        header.entry(key.clone()).or_insert_with(|| Value::String(spaced(key)));
    }
    for (head, field) in columns {
        header.insert((*field).to_string(), Value::String((*head).to_string()));
    }
    header
}

/// `CreatedAt` → `CREATED AT`.
fn spaced(field: &str) -> String {
    let mut out = String::new();
    let mut before_lower = false;
    for c in field.chars() {
        if c.is_uppercase() && before_lower {
            out.push(' ');
        }
        before_lower = c.is_lowercase();
        out.extend(c.to_uppercase());
    }
    out
}

/// Renders `inspect`'s documents: an indented JSON array, or one line per object with a template.
pub fn inspect(format: Option<&str>, documents: &[Value]) -> Result<String> {
    match format {
        None | Some("") => {
            let text = serde_json::to_string_pretty(documents).expect("JSON values always serialise");
            Ok(four_spaces(&text) + "\n")
        }
        Some("json") => Ok(serde_json::to_string(documents).expect("JSON values always serialise") + "\n"),
        Some(f) => {
            let template = compile(&unescape(f), MissingKey::Error)?;
            documents.iter().map(|d| Ok(execute(&template, d)? + "\n")).collect()
        }
    }
}

/// One object: JSON in a line, or by a template.
///
/// # Errors
/// Of the template.
pub fn inspect_one(format: Option<&str>, document: &Value) -> Result<String> {
    match format {
        None | Some("" | "json") => Ok(document.to_string() + "\n"),
        Some(f) => Ok(execute(&compile(&unescape(f), MissingKey::Error)?, document)? + "\n"),
    }
}

/// Docker indents by four; serde_json by two.
fn four_spaces(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 5 / 4);
    for line in text.split_inclusive('\n') {
        let body = line.trim_start_matches(' ');
        out.extend(std::iter::repeat_n(' ', (line.len() - body.len()) * 2));
        out.push_str(body);
    }
    out
}

/// The shell hands over `\t` and `\n` literally; Docker turns them into the characters.
fn unescape(source: &str) -> String {
    source.replace("\\t", "\t").replace("\\n", "\n")
}

fn compile(source: &str, missing: MissingKey) -> Result<Template> {
    Template::new("")
        .missing_key(missing)
        .func("json", |args| Ok(text(to_json(first(args)?).to_string())))
        .func("upper", |args| Ok(text(plain(first(args)?).to_uppercase())))
        .func("lower", |args| Ok(text(plain(first(args)?).to_lowercase())))
        .func("title", |args| Ok(text(title(&plain(first(args)?)))))
        .func("split", |args| {
            let (s, sep) = (plain(arg(args, 0)?), plain(arg(args, 1)?));
            Ok(Go::List(s.split(sep.as_str()).map(|p| text(p.to_string())).collect()))
        })
        .func("join", |args| {
            let sep = plain(arg(args, 1)?);
            match arg(args, 0)? {
                Go::List(items) => Ok(text(items.iter().map(plain).collect::<Vec<_>>().join(&sep))),
                other => Ok(text(plain(other))),
            }
        })
        .func("truncate", |args| {
            let max = plain(arg(args, 1)?).parse::<usize>().unwrap_or(usize::MAX);
            Ok(text(plain(arg(args, 0)?).chars().take(max).collect()))
        })
        .func("pad", |args| {
            let spaces = |of: &Go| " ".repeat(plain(of).parse::<u16>().unwrap_or(0).into());
            let (s, before, after) = (plain(arg(args, 0)?), spaces(arg(args, 1)?), spaces(arg(args, 2)?));
            Ok(text(if s.is_empty() { s } else { format!("{before}{s}{after}") }))
        })
        .func("label", |args| Ok(text(label(arg(args, 0)?, &plain(arg(args, 1)?)))))
        // Docker's method `.Label "key"`; what is rendered here are plain fields.
        .parse(&source.replace(".Label ", "label . "))
        .map_err(|e| bad_template(source, &e))
}

fn execute(template: &Template, data: &Value) -> Result<String> {
    template.execute_to_string(&to_go(data)).map_err(|e| bad_template("", &e))
}

fn bad_template(source: &str, e: &TemplateError) -> Error {
    let shown = if source.is_empty() { String::new() } else { format!(" {source:?}") };
    Error::invalid(format!("template parsing error{shown}: {e}"))
        .with_hint("field names are case-sensitive; `--format '{{json .}}'` shows those there are")
}

fn first(args: &[Go]) -> std::result::Result<&Go, TemplateError> {
    arg(args, 0)
}

fn arg(args: &[Go], n: usize) -> std::result::Result<&Go, TemplateError> {
    args.get(n).ok_or_else(|| TemplateError::Exec("not enough arguments for function".into()))
}

fn text(s: String) -> Go {
    Go::String(s.into())
}

fn plain(v: &Go) -> String {
    v.to_string()
}

/// One label of a row, from its field `Labels`; above a table the last part of the key.
fn label(row: &Go, key: &str) -> String {
    let Go::Map(fields) = row else { return String::new() };
    let all = fields.get("Labels").map(plain).unwrap_or_default();
    if all == "LABELS" {
        return key.rsplit('.').next().unwrap_or(key).replace(['-', '_'], " ");
    }
    let found = all.split(',').find_map(|l| l.split_once('=').filter(|(k, _)| *k == key));
    found.map_or(String::new(), |(_, value)| value.to_string())
}

fn title(s: &str) -> String {
    let mut start = true;
    s.chars()
        .map(|c| {
            let out = if start { c.to_uppercase().next().unwrap_or(c) } else { c };
            start = !c.is_alphanumeric();
            out
        })
        .collect()
}

fn to_go(v: &Value) -> Go {
    match v {
        Value::Null => Go::Nil,
        Value::Bool(b) => Go::Bool(*b),
        Value::Number(n) => match (n.as_i64(), n.as_u64()) {
            (Some(i), _) => Go::Int(i),
            (None, Some(u)) => Go::Uint(u),
            (None, None) => Go::Float(n.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(s) => text(s.clone()),
        Value::Array(a) => Go::List(a.iter().map(to_go).collect()),
        Value::Object(o) => Go::Map(std::sync::Arc::new(
            o.iter().map(|(k, v)| (k.as_str().into(), to_go(v))).collect::<std::collections::BTreeMap<_, _>>(),
        )),
    }
}

fn to_json(v: &Go) -> Value {
    match v {
        Go::Nil => Value::Null,
        Go::Bool(b) => Value::Bool(*b),
        Go::Int(i) => (*i).into(),
        Go::Uint(u) => (*u).into(),
        Go::Float(f) => serde_json::Number::from_f64(*f).map_or(Value::Null, Value::Number),
        Go::String(s) => Value::String(s.to_string()),
        Go::List(items) => Value::Array(items.iter().map(to_json).collect()),
        Go::Map(m) => Value::Object(m.iter().map(|(k, v)| (k.to_string(), to_json(v))).collect()),
        other => Value::String(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rows() -> Vec<Row> {
        let a = json!({"ID": "0123456789ab", "Name": "bridge", "Labels": {"a": "b"}});
        vec![a.as_object().expect("an object").clone()]
    }

    const COLUMNS: &[Column] = &[("NETWORK ID", "ID"), ("NAME", "Name")];

    #[test]
    fn tables_json_and_templates() {
        assert_eq!(list(None, COLUMNS, &rows()).unwrap(), "NETWORK ID     NAME\n0123456789ab   bridge\n");
        assert_eq!(list(Some("{{.Name}}"), COLUMNS, &rows()).unwrap(), "bridge\n");
        assert_eq!(
            list(Some("table {{.Name}}\\t{{.ID}}"), COLUMNS, &rows()).unwrap(),
            "NAME      NETWORK ID\nbridge    0123456789ab\n"
        );
        assert_eq!(
            list(Some("json"), COLUMNS, &rows()).unwrap(),
            "{\"ID\":\"0123456789ab\",\"Name\":\"bridge\",\"Labels\":{\"a\":\"b\"}}\n"
        );
        let labelled = vec![json!({"Labels": "com.x.my-tier=web,b=2"}).as_object().expect("an object").clone()];
        let one = list(Some("{{.Label \"b\"}} {{.Label \"none\"}}|"), COLUMNS, &labelled).unwrap();
        assert_eq!(one, "2 |\n");
        let table = list(Some("table {{.Label \"com.x.my-tier\"}}"), COLUMNS, &labelled).unwrap();
        assert_eq!(table, "my tier\nweb\n");
        assert_eq!(list(Some("table"), COLUMNS, &[]).unwrap(), "NETWORK ID   NAME\n");
    }

    #[test]
    fn inspect_templates() {
        let doc = json!({"State": {"Running": true, "ExitCode": 0}, "Args": ["a", "b"]});
        let docs = std::slice::from_ref(&doc);
        assert_eq!(inspect(Some("{{.State.Running}} {{json .Args}}"), docs).unwrap(), "true [\"a\",\"b\"]\n");
        assert_eq!(inspect(Some("{{range .Args}}<{{.}}>{{end}}"), docs).unwrap(), "<a><b>\n");
        assert_eq!(inspect(Some("{{join .Args \",\"}} {{index .Args 1 | upper}}"), docs).unwrap(), "a,b B\n");
        assert_eq!(inspect(Some("{{pad (index .Args 0) 1 2}}|{{truncate \"abc\" 2}}"), docs).unwrap(), " a  |ab\n");
        assert!(inspect(None, docs).unwrap().starts_with("[\n    {\n        \"State\": {\n"));
        let e = inspect(Some("{{.Nope}}"), docs).unwrap_err();
        assert!(e.message.starts_with("template parsing error") && e.hint.is_some(), "{e:?}");
        assert!(inspect(Some("{{.State"), docs).is_err());
    }
}
