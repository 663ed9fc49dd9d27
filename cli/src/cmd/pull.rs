//! `rrun pull`, and the pull that `run` and `create` do when an image is missing.

use crate::args::{CreateFlags, PullArgs};
use crate::container::events;
use crate::container::request::namespaces::content_trust;
use crate::context::Context;
use crate::render::progress::Bars;
use images::reference::Reference;
use images::registry::{PullOptions, Pulled, pull};
use images::store::Image;
use plan::{Error, Result};
use std::str::FromStr;

/// `--pull`: when `run` and `create` ask the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    Always,
    Missing,
    Never,
}

impl FromStr for Policy {
    type Err = String;

    fn from_str(s: &str) -> Result<Policy, String> {
        match s {
            "always" => Ok(Policy::Always),
            "missing" => Ok(Policy::Missing),
            "never" => Ok(Policy::Never),
            _ => Err(format!("invalid pull option: '{s}': must be one of \"always\", \"missing\" or \"never\"")),
        }
    }
}

pub fn run(ctx: &Context, args: &PullArgs) -> Result<i32> {
    content_trust(args.disable_content_trust)?;
    let reference = Reference::parse(&args.image)?;
    let pulled = fetch(ctx, &reference, args.platform.clone(), args.quiet)?;
    if !args.quiet {
        println!("Digest: {}", pulled.digest);
        let what = if pulled.up_to_date { "Image is up to date for" } else { "Downloaded newer image for" };
        println!("Status: {what} {reference}");
    }
    println!("{}", reference.canonical());
    Ok(0)
}

/// The image for a new container, pulled if the policy says so, `before` first.
///
/// # Errors
/// `--pull never` and not here; whatever a pull can fail with.
pub fn ensure(ctx: &Context, flags: &CreateFlags, before: impl FnOnce() -> Result<()>) -> Result<Image> {
    let (name, policy, platform, quiet) = (flags.image(), flags.pull, flags.platform.as_deref(), flags.quiet);
    let store = ctx.images()?;
    if policy != Policy::Always
        && let Some(image) = store.find(name)?
    {
        return matching(image, name, platform);
    }
    let reference = Reference::parse(name)?;
    if policy == Policy::Never {
        return Err(Error::not_found(format!("No such image: {reference}"))
            .with_hint(format!("`rrun pull {reference}`, or run without --pull never")));
    }
    before()?;
    if policy == Policy::Missing && !quiet {
        eprintln!("Unable to find image '{reference}' locally");
    }
    let pulled = fetch(ctx, &reference, platform.map(str::to_string), quiet)?;
    if quiet {
        return Ok(pulled.image);
    }
    eprintln!("Digest: {}", pulled.digest);
    let what = if pulled.up_to_date { "Image is up to date for" } else { "Downloaded newer image for" };
    eprintln!("Status: {what} {reference}");
    Ok(pulled.image)
}

/// An image of another platform than the one asked for is not silently run. The store keeps one platform a name.
///
/// # Errors
/// It is of another one.
pub(super) fn matching(image: Image, name: &str, platform: Option<&str>) -> Result<Image> {
    let Some(wanted) = platform else { return Ok(image) };
    let have = format!("{}/{}", image.os, image.architecture);
    if have == wanted || wanted.starts_with(&format!("{have}/")) || !wanted.contains('/') && image.os == wanted {
        return Ok(image);
    }
    Err(Error::not_found(format!(
        "image with reference {name} was found but its platform ({have}) does not match the specified platform ({wanted})"
    ))
    .with_hint(format!("`rrun pull --platform {wanted} {name}` replaces it")))
}

fn fetch(ctx: &Context, reference: &Reference, platform: Option<String>, quiet: bool) -> Result<Pulled> {
    let store = ctx.images()?;
    let options = PullOptions { platform, registries: ctx.registries() };
    let pulled = match quiet {
        true => pull(&store, reference, &options, &images::progress::Silent),
        false => pull(&store, reference, &options, &Bars::new()),
    }?;
    let labels = &pulled.image.config.labels;
    events::image(ctx, "pull", &reference.to_string(), &reference.familiar_repository(), labels);
    Ok(pulled)
}
