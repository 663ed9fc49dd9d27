//! `rrun system check`: whether what is stored is what it should be; digests and the kernel are the judges.

use crate::args::CheckArgs;
use crate::container::{self, Entry, life};
use crate::context::Context;
use plan::Result;
use runtime::cgroup::Layout;

/// One thing that is not as it should be.
struct Problem {
    what: String,
    /// What repairs it, or what a person has to do.
    remedy: String,
    repaired: bool,
}

pub fn run(ctx: &Context, args: &CheckArgs) -> Result<i32> {
    let mut problems = images(ctx, args.repair)?;
    problems.extend(containers(ctx, args.repair)?);
    problems.extend(leftovers(ctx, args.repair)?);
    let mut text = String::new();
    for p in &problems {
        let verb = if p.repaired { "repaired" } else { "problem" };
        text += &format!("{verb}: {}\n  hint: {}\n", p.what, p.remedy);
    }
    let open = problems.iter().filter(|p| !p.repaired).count();
    text += &match (problems.len(), open) {
        (0, _) => "images and containers: all is sound\n".to_owned(),
        (_, 0) => "images and containers: all is sound again\n".to_owned(),
        (_, n) => format!("images and containers: {n} problem{}\n", if n == 1 { "" } else { "s" }),
    };
    crate::cmd::out(&text);
    Ok(i32::from(open > 0))
}

/// Every blob is hashed, every layer counted through.
fn images(ctx: &Context, repair: bool) -> Result<Vec<Problem>> {
    let store = ctx.images()?;
    let mut problems = Vec::new();
    for damage in store.check(repair)? {
        problems.push(Problem {
            remedy: match damage.repaired {
                true => "the next pull fetches it again".to_owned(),
                false if repair => format!("rrun rmi -f {0} and pull it again", damage.image),
                false => {
                    "rrun system check --repair throws away what is damaged, and a pull fetches it again".to_owned()
                }
            },
            what: damage.what,
            repaired: damage.repaired,
        });
    }
    Ok(problems)
}

/// Records that cannot be read, and processes that are not what a record says.
fn containers(ctx: &Context, repair: bool) -> Result<Vec<Problem>> {
    let store = ctx.images()?;
    let mut problems = Vec::new();
    for entry in container::list(ctx)? {
        match entry {
            Entry::Broken { name, error, .. } => problems.push(Problem {
                what: format!("container {name}: {error}"),
                remedy: format!("mend container.json, or rrun rm -f {name}"),
                repaired: false,
            }),
            Entry::Container(record) => {
                // Looking finishes what a killed monitor left; what then still fails is a problem.
                if let Err(e) = life::state(ctx, &record.id) {
                    let repaired = repair && life::take_down(ctx, &record.id).is_ok();
                    problems.push(Problem {
                        what: format!("container {}: {e}", record.name),
                        remedy: format!("rrun rm -f {}", record.name),
                        repaired,
                    });
                }
                if matches!(store.find(&record.image_id), Ok(None)) {
                    problems.push(Problem {
                        what: format!("container {}: its image {} is gone", record.name, record.image),
                        remedy: format!("rrun pull {}, or rrun rm {}", record.image, record.name),
                        repaired: false,
                    });
                }
            }
        }
    }
    Ok(problems)
}

/// Control groups and state directories of containers that are not there.
fn leftovers(ctx: &Context, repair: bool) -> Result<Vec<Problem>> {
    let known = container::ids(ctx)?;
    let mut problems = Vec::new();
    let entries = std::fs::read_dir(ctx.state.join("containers")).into_iter().flatten().flatten();
    let ids = entries.filter_map(|e| e.file_name().into_string().ok()).filter(|id| container::names::is_id(id));
    for id in ids.filter(|id| !known.contains(id)) {
        let repaired = repair && life::take_down(ctx, &id).is_ok();
        problems.push(Problem {
            what: format!("state of a container that is not there: {id}"),
            remedy: "rrun system check --repair takes it down".to_owned(),
            repaired,
        });
    }
    let layout = Layout::observe()?;
    for id in runtime::cgroup::children(std::path::Path::new("rrun"), &layout) {
        let alive = known.contains(&id) && life::is_running(ctx, &id).unwrap_or(true);
        // Another --root has containers of its own.
        if alive || !container::names::is_id(&id) || !known.contains(&id) {
            continue;
        }
        let path = std::path::Path::new("rrun").join(&id);
        let facts = runtime::host::HostFacts::observe()?;
        let repaired = repair && runtime::cgroup::remove(&path, &facts).is_ok();
        problems.push(Problem {
            what: format!("the control group of the stopped container {}", &id[..12]),
            remedy: "rrun system check --repair removes it".to_owned(),
            repaired,
        });
    }
    Ok(problems)
}
