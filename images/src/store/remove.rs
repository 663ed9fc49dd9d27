//! `rmi`: names go first; an image whose last name went, goes with the layers nobody else has.

use super::record::{Names, Record};
use super::{Store, no_such_image};
use crate::digest::Digest;
use crate::reference::Reference;
use plan::{Error, Result};
use std::fmt;

/// One line of what a removal did. `Display` writes Docker's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removed {
    /// A familiar name.
    Untagged(String),
    /// An image ID or a chain ID of a layer.
    Deleted(String),
}

impl fmt::Display for Removed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Removed::Untagged(name) => write!(f, "Untagged: {name}"),
            Removed::Deleted(id) => write!(f, "Deleted: {id}"),
        }
    }
}

impl Store {
    /// Removes a name, and the image with its last name; or by ID, all names and the image.
    /// `in_use` tells a container that uses an image ID, running or not.
    ///
    /// An image that a container uses keeps its layers whatever `force` says: they are the
    /// container's root file system. Force takes only its names then.
    pub fn remove(&self, name: &str, force: bool, in_use: &dyn Fn(&str) -> Option<String>) -> Result<Vec<Removed>> {
        let _lock = self.lock_refs()?;
        let mut names = Names::load(&self.root)?;
        let id = self.resolve(&names, name)?.ok_or_else(|| no_such_image(name))?;
        let user = in_use(id.as_str());
        let mut keys = names.keys_of(&id);
        let named = Reference::parse(name).ok().filter(|r| names.get(&r.canonical()).is_some());
        let mut removed = Vec::new();

        let mut untag = |names: &mut Names, key: &str| {
            names.remove(key);
            let shown = Reference::parse(key).map_or_else(|_| key.to_owned(), |r| r.to_string());
            removed.push(Removed::Untagged(shown));
        };
        if let Some(r) = &named {
            if let Some(container) = user.as_ref().filter(|_| !force && is_single(&keys)) {
                return Err(Error::conflict(format!(
                    "conflict: unable to remove repository reference \"{name}\" (must force) - container {} is using its referenced image {}",
                    short(container),
                    id.short()
                ))
                .with_hint(format!("remove the container first: rrun rm {}", short(container))));
            }
            untag(&mut names, &r.canonical());
            keys.retain(|k| *k != r.canonical());
            // The digest by which a tag was pulled goes with the last tag of its repository.
            let same = |k: &String| repository_of(k) == r.repository();
            if r.digest().is_none() && !keys.iter().any(|k| same(k) && !k.contains('@')) {
                for key in keys.extract_if(.., |k| same(k)) {
                    untag(&mut names, &key);
                }
            }
        } else {
            let blocked = |text: String, hint: String| Err(Error::conflict(text).with_hint(hint));
            if !force && !is_single(&keys) {
                return blocked(
                    format!(
                        "conflict: unable to delete {} (must be forced) - image is referenced in multiple repositories",
                        id.short()
                    ),
                    "remove its names one by one, or add -f".to_owned(),
                );
            }
            if let Some(container) = user.as_ref().filter(|_| !force || keys.is_empty()) {
                let how = if keys.is_empty() { "cannot be forced" } else { "must be forced" };
                return blocked(
                    format!(
                        "conflict: unable to delete {} ({how}) - image is being used by container {}",
                        id.short(),
                        short(container)
                    ),
                    format!("remove the container first: rrun rm {}", short(container)),
                );
            }
            for key in keys.drain(..) {
                untag(&mut names, &key);
            }
        }
        if !removed.is_empty() {
            names.save(&self.root)?;
        }
        if !keys.is_empty() || user.is_some() {
            return Ok(removed);
        }
        removed.extend(self.delete_image(&id)?);
        Ok(removed)
    }

    /// The caller holds the lock of `refs/`; no name is left.
    fn delete_image(&self, id: &Digest) -> Result<Vec<Removed>> {
        Record::delete(&self.root, id)?;
        let mut removed = vec![Removed::Deleted(id.to_string())];
        removed.extend(self.collect_locked()?.into_iter().map(Removed::Deleted));
        Ok(removed)
    }
}

/// At most one tag, and all names in one repository: then "the image" and "the name" are one thing.
fn is_single(keys: &[String]) -> bool {
    let tags = keys.iter().filter(|k| !k.contains('@')).count();
    let first = keys.first().map(|k| repository_of(k));
    tags <= 1 && keys.iter().all(|k| Some(repository_of(k)) == first)
}

fn repository_of(key: &str) -> String {
    Reference::parse(key).map_or_else(|_| key.to_owned(), |r| r.repository())
}

fn short(container: &str) -> &str {
    container.get(..12).unwrap_or(container)
}
