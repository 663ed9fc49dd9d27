use std::path::{Path, PathBuf};
pub fn dir_name(chain: &str) -> &str {
    let hex = chain.strip_prefix("sha256:").unwrap_or(chain);
    hex.get(..16).unwrap_or(hex)
}
pub fn layers_dir(root: &Path) -> PathBuf {
    root.join("layers")
}
pub fn exists(root: &Path, chain: &str) -> bool {
    layers_dir(root).join(format!("{}.json", dir_name(chain))).exists()
}
pub fn retain(_: &Path, _: &dyn Fn(&str) -> bool) -> plan::Result<Vec<String>> {
    Ok(vec![])
}
pub fn sweep(_: &Path) -> plan::Result<()> {
    Ok(())
}
