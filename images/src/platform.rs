//! `linux/amd64`, `linux/arm/v7`: which image of an index fits a machine.

use crate::manifest::{Descriptor, printable};
use plan::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;

/// An operating system, a processor family in Go's names, and its variant (empty for the usual one).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    pub os: String,
    pub architecture: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

impl Platform {
    /// The machine this binary was compiled for.
    pub fn host() -> Platform {
        normal("linux", std::env::consts::ARCH, "")
    }

    /// Reads `os/arch[/variant]` or `arch[/variant]`, under the names of Go, the kernel or Debian.
    pub fn parse(text: &str) -> Result<Platform> {
        let parts: Vec<&str> = text.split('/').collect();
        let word =
            |s: &&str| !s.is_empty() && s.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'-' | b'.'));
        let lower = |s: &str| s.to_ascii_lowercase();
        match parts.as_slice() {
            _ if !parts.iter().all(word) => None,
            [one] if lower(one) == "linux" => Some(Platform::host()),
            [arch] => Some(normal("linux", arch, "")),
            [os, arch] if lower(os) == "linux" || !lower(arch).starts_with('v') => Some(normal(os, arch, "")),
            [arch, variant] => Some(normal("linux", arch, variant)),
            [os, arch, variant] => Some(normal(os, arch, variant)),
            _ => None,
        }
        .ok_or_else(|| {
            Error::invalid(format!("{:?} is an invalid platform", printable(text)))
                .with_hint("a platform reads os/architecture[/variant], such as linux/arm64 or linux/arm/v7")
        })
    }

    /// The best entry for this platform: the exact variant, else the highest that it can execute.
    pub fn choose<'a>(&self, entries: &'a [Descriptor]) -> Result<&'a Descriptor> {
        let mut best: Option<(u32, &Descriptor)> = None;
        for entry in entries {
            let Some(p) = &entry.platform else { continue };
            let rank = self.runs(&p.normal());
            // On a tie the first listed wins, as in Docker.
            if rank > best.map_or(0, |(r, _)| r) {
                best = Some((rank, entry));
            }
        }
        if let Some((_, entry)) = best {
            return Ok(entry);
        }
        // An index that names no platforms and has one entry leaves no choice.
        if let [only @ Descriptor { platform: None, .. }] = entries {
            return Ok(only);
        }
        let mut offered: Vec<String> = entries
            .iter()
            .filter_map(|e| e.platform.as_ref())
            .filter(|p| p.os != "unknown")
            .map(|p| printable(&p.to_string()))
            .collect();
        offered.dedup();
        offered.truncate(16);
        Err(Error::not_found(format!("no matching manifest for {self} in the manifest list entries"))
            .with_hint(format!("the image is offered for: {}", offered.join(", "))))
    }

    /// Whether an image for `other` runs here: 0 = no, else the higher the better.
    pub fn runs(&self, other: &Platform) -> u32 {
        if self.os != other.os || self.architecture != other.architecture {
            return 0;
        }
        let level = |v: &str| v.strip_prefix('v').and_then(|n| n.parse::<u32>().ok());
        match (level(self.level()), level(other.level())) {
            // Variants are upward compatible: arm/v7 executes v6, amd64/v3 executes v2.
            (Some(mine), Some(theirs)) if theirs <= mine => 1 + theirs,
            _ if self.variant == other.variant => 1,
            _ => 0,
        }
    }

    /// The same under the usual spelling.
    pub fn normal(&self) -> Platform {
        normal(&self.os, &self.architecture, &self.variant)
    }

    /// The variant, spelt out where leaving it away means one.
    fn level(&self) -> &str {
        match (self.architecture.as_str(), self.variant.as_str()) {
            ("amd64", "") => "v1",
            ("arm", "") => "v7",
            ("arm64", "") => "v8",
            (_, variant) => variant,
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let p = self.normal();
        write!(f, "{}/{}", p.os, p.architecture)?;
        match p.variant.as_str() {
            "" => Ok(()),
            variant => write!(f, "/{variant}"),
        }
    }
}

/// One spelling for each platform.
fn normal(os: &str, architecture: &str, variant: &str) -> Platform {
    let (arch, var) = (architecture.to_ascii_lowercase(), variant.to_ascii_lowercase());
    let (arch, var) = match (arch.as_str(), var.as_str()) {
        ("x86_64" | "x86-64" | "amd64", "v1" | "") => ("amd64", ""),
        ("x86_64" | "x86-64" | "amd64", v) => ("amd64", v),
        ("aarch64" | "arm64", "8" | "v8" | "") => ("arm64", ""),
        ("aarch64" | "arm64", v) => ("arm64", v),
        ("armhf", _) => ("arm", "v7"),
        ("armel", _) => ("arm", "v6"),
        ("arm", "5") => ("arm", "v5"),
        ("arm", "6") => ("arm", "v6"),
        ("arm", "7" | "") => ("arm", "v7"),
        ("i386" | "i486" | "i586" | "i686" | "x86", _) => ("386", ""),
        ("powerpc64le", v) => ("ppc64le", v),
        (a, v) => (a, v),
    };
    Platform { os: os.to_ascii_lowercase(), architecture: arch.to_owned(), variant: var.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(n: u64, platform: &str) -> Descriptor {
        let digest = crate::digest::Digest::of(&n.to_le_bytes());
        let parts: Vec<&str> = platform.split('/').collect();
        let platform = (!platform.is_empty()).then(|| Platform {
            os: parts[0].to_owned(),
            architecture: parts[1].to_owned(),
            variant: parts.get(2).unwrap_or(&"").to_string(),
        });
        Descriptor { media_type: String::new(), digest, size: n, platform, annotations: None }
    }

    #[test]
    fn spellings() {
        for (text, want) in [
            ("linux/amd64", "linux/amd64"),
            ("amd64", "linux/amd64"),
            ("x86_64", "linux/amd64"),
            ("linux/aarch64", "linux/arm64"),
            ("arm64/v8", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("arm/v6", "linux/arm/v6"),
            ("armel", "linux/arm/v6"),
            ("windows/amd64", "windows/amd64"),
            ("linux/amd64/v3", "linux/amd64/v3"),
        ] {
            assert_eq!(Platform::parse(text).unwrap().to_string(), want, "{text}");
        }
        for bad in ["", "/", "linux/", "a/b/c/d", "linux/am d64", "linux/amd64\n"] {
            assert!(Platform::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_best_entry_of_an_index() {
        let index = [
            entry(0, "unknown/unknown"),
            entry(1, "windows/amd64"),
            entry(2, "linux/arm/v5"),
            entry(3, "linux/arm/v6"),
            entry(4, "linux/arm/v7"),
            entry(5, "linux/arm64/v8"),
            entry(6, "linux/amd64"),
            entry(7, "linux/amd64/v3"),
            entry(8, "linux/amd64"),
        ];
        let pick = |p: &str| Platform::parse(p).unwrap().choose(&index).map(|d| d.size);
        assert_eq!(pick("linux/amd64").unwrap(), 6);
        assert_eq!(pick("linux/amd64/v4").unwrap(), 7);
        assert_eq!(pick("linux/amd64/v2").unwrap(), 6);
        assert_eq!(pick("linux/arm64").unwrap(), 5);
        assert_eq!(pick("linux/arm/v7").unwrap(), 4);
        assert_eq!(pick("linux/arm/v6").unwrap(), 3);
        let e = pick("linux/s390x").unwrap_err();
        assert_eq!(e.message, "no matching manifest for linux/s390x in the manifest list entries");
        assert!(e.hint.unwrap().contains("linux/arm64"));
    }

    #[test]
    fn an_index_without_platforms() {
        assert_eq!(Platform::host().choose(&[entry(1, "")]).unwrap().size, 1);
        assert!(Platform::host().choose(&[entry(1, ""), entry(2, "")]).is_err());
        assert!(Platform::host().choose(&[]).is_err());
    }
}
