//! `rrun rmi`: removes names, and images when their last name goes.

use crate::args::RmiArgs;
use crate::container;
use crate::context::Context;
use crate::render;
use images::store::Removed;
use plan::Result;

pub fn run(ctx: &Context, args: &RmiArgs) -> Result<i32> {
    let store = ctx.images()?;
    let entries = container::list(ctx)?;
    // The container that keeps an image: a running one counts even with --force.
    let user = |image: &str| {
        entries.iter().find_map(|e| match e {
            container::Entry::Container(r) if r.image_id == image => Some(r.id.clone()),
            _ => None,
        })
    };
    let mut code = 0;
    for name in &args.images {
        match store.remove(name, args.force, &user) {
            Ok(removed) => {
                for r in removed {
                    match r {
                        Removed::Untagged(name) => println!("Untagged: {name}"),
                        Removed::Deleted(id) => println!("Deleted: {id}"),
                    }
                }
            }
            Err(e) => {
                render::error::print(&e);
                code = 1;
            }
        }
    }
    Ok(code)
}
