//! `cargo xtask tidy`: what the compiler does not check about the workspace.
//!
//! - Imports point to a lower layer only, and services never import each other. Development
//!   dependencies are exempt: a test may reach for whatever it needs.
//! - A comment stands over each member in the root manifest.
//! - The build holds one TLS stack and no crate that was rejected for a reason. The resolved graph
//!   is asked, not the lock file: cargo locks optional dependencies of dependencies as well, even
//!   those that no feature turns on, and so the file lists `ring` although nothing builds it.
//! - No source names the host of a package registry: builds go through the ordinary clients and
//!   their configuration, so that a mirror works.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use serde_json::Value;

/// Where a member stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Place {
    /// A layer of the product. Imports go to lower numbers.
    Layer(u8),
    /// Tests, loaders and automation. No layer imports them.
    Dev,
}

/// Every member with its place. The architecture document explains them.
const PLACES: [(&str, Place); 15] = [
    ("moat", Place::Layer(5)),
    ("moat-store", Place::Layer(4)),
    ("moat-kms", Place::Layer(4)),
    ("moat-proxy", Place::Layer(4)),
    ("moat-kms-client", Place::Layer(3)),
    ("moat-net", Place::Layer(3)),
    ("moat-meta", Place::Layer(2)),
    ("moat-blob", Place::Layer(2)),
    ("moat-s3", Place::Layer(1)),
    ("moat-crypto", Place::Layer(1)),
    ("moat-pki", Place::Layer(1)),
    ("moat-types", Place::Layer(0)),
    ("moat-testkit", Place::Dev),
    ("moat-loader", Place::Dev),
    ("xtask", Place::Dev),
];

/// Imports inside one layer that are right all the same. Each needs its reason.
const ALLOWED_WITHIN_A_LAYER: [(&str, &str); 1] = [
    // The key manager's client presents and verifies certificates exactly as every other
    // connection of ours does; a second TLS configuration beside moat-net's would drift.
    ("moat-kms-client", "moat-net"),
];

/// Crates that must not come back, not even through a dependency, and why.
const BANNED: [(&str, &str); 6] = [
    ("ring", "one TLS and crypto library: aws-lc"),
    ("openssl", "one TLS and crypto library: aws-lc"),
    ("openssl-sys", "one TLS and crypto library: aws-lc"),
    ("native-tls", "one TLS and crypto library: aws-lc"),
    ("rsa", "timing leak RUSTSEC-2023-0071; aws-lc does RSA"),
    ("serde_yaml", "unmaintained"),
];

/// Registry hosts, in two halves so that this file does not hold them.
const REGISTRY_HOSTS: [(&str, &str); 11] = [
    ("index.", "crates.io"),
    ("static.", "crates.io"),
    ("pypi", ".org"),
    ("files.python", "hosted.org"),
    ("proxy.golang", ".org"),
    ("sum.golang", ".org"),
    ("repo1.maven", ".org"),
    ("repo.maven", ".apache.org"),
    ("registry.npm", "js.org"),
    ("deb.debian", ".org"),
    ("security.debian", ".org"),
];

/// Runs every check and returns what is wrong, a sentence each.
pub(crate) fn run() -> anyhow::Result<Vec<String>> {
    let root = root()?;
    let metadata = metadata(&root)?;
    let manifest = read(&root.join("Cargo.toml"))?;
    let mut problems = layers(&members(&metadata)?);
    problems.extend(uncommented_members(&manifest));
    problems.extend(banned_crates(&built_crates(&root)?));
    problems.extend(registry_hosts(&root)?);
    Ok(problems)
}

/// A member and the members it imports in its product code.
struct Member {
    name: String,
    imports: Vec<String>,
}

fn layers(members: &[Member]) -> Vec<String> {
    let mut problems = Vec::new();
    for member in members {
        let Some(from) = place(&member.name) else {
            problems.push(format!(
                "{} has no layer: add it to the table in xtask/src/tidy.rs and to the docs",
                member.name
            ));
            continue;
        };
        if member.name == "xtask" && !member.imports.is_empty() {
            problems.push(format!(
                "xtask imports {:?}; it depends on no member",
                member.imports
            ));
        }
        for import in &member.imports {
            let pair = (member.name.as_str(), import.as_str());
            if !place(import).is_some_and(|to| may_import(from, to))
                && !ALLOWED_WITHIN_A_LAYER.contains(&pair)
            {
                problems.push(format!(
                    "{} ({from:?}) imports {import} ({:?}); imports point to a lower layer only",
                    member.name,
                    place(import)
                ));
            }
        }
    }
    let found: BTreeSet<&str> = members.iter().map(|m| m.name.as_str()).collect();
    for (name, _) in PLACES {
        if !found.contains(name) {
            problems.push(format!("{name} stands in the layer table but is no member"));
        }
    }
    problems
}

fn place(name: &str) -> Option<Place> {
    PLACES
        .iter()
        .find(|(n, _)| *n == name)
        .map(|(_, place)| *place)
}

fn may_import(from: Place, to: Place) -> bool {
    match (from, to) {
        (Place::Layer(from), Place::Layer(to)) => to < from,
        (Place::Dev, Place::Layer(_)) => true,
        (_, Place::Dev) => false,
    }
}

fn uncommented_members(manifest: &str) -> Vec<String> {
    let lines: Vec<&str> = manifest
        .lines()
        .skip_while(|line| !line.starts_with("members = ["))
        .take_while(|line| !line.starts_with(']'))
        .map(str::trim)
        .collect();
    lines
        .windows(2)
        .filter(|pair| pair[1].starts_with('"') && !pair[0].starts_with('#'))
        .map(|pair| {
            format!(
                "the root manifest has no comment over the member {}",
                pair[1]
            )
        })
        .collect()
}

fn banned_crates(built: &str) -> Vec<String> {
    BANNED
        .iter()
        .filter(|(name, _)| {
            built
                .lines()
                .any(|line| line.split(' ').next() == Some(name))
        })
        .map(|(name, reason)| format!("the build holds {name}, which is banned: {reason}"))
        .collect()
}

/// Every crate that a build of the workspace compiles on this machine, one `name version` a line.
fn built_crates(root: &Path) -> anyhow::Result<String> {
    let arguments = "tree --workspace --locked --edges normal,build,dev --prefix none --format";
    output(
        Command::new(cargo())
            .current_dir(root)
            .args(arguments.split(' '))
            .arg("{p}"),
    )
}

fn registry_hosts(root: &Path) -> anyhow::Result<Vec<String>> {
    let hosts: Vec<String> = REGISTRY_HOSTS
        .iter()
        .map(|(a, b)| format!("{a}{b}"))
        .collect();
    let mut problems = Vec::new();
    for path in tracked_files(root)? {
        if path
            .extension()
            .is_some_and(|extension| extension == "lock")
        {
            continue;
        }
        // A tracked file that is gone from the work tree is git's business.
        let Ok(bytes) = std::fs::read(root.join(&path)) else {
            continue;
        };
        for host in &hosts {
            if holds(&bytes, host) {
                problems.push(format!("{} names the registry host {host}", path.display()));
            }
        }
    }
    Ok(problems)
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes
        .windows(text.len())
        .any(|window| window == text.as_bytes())
}

fn tracked_files(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let listed = output(
        Command::new("git")
            .current_dir(root)
            .args(["ls-files", "-z"]),
    )?;
    Ok(listed
        .split('\0')
        .filter(|name| !name.is_empty())
        .map(PathBuf::from)
        .collect())
}

fn metadata(root: &Path) -> anyhow::Result<Value> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let text = output(Command::new(cargo).current_dir(root).args([
        "metadata",
        "--no-deps",
        "--format-version",
        "1",
    ]))?;
    serde_json::from_str(&text).context("cargo metadata is not JSON")
}

fn members(metadata: &Value) -> anyhow::Result<Vec<Member>> {
    let packages = metadata["packages"]
        .as_array()
        .context("cargo metadata lists no packages")?;
    packages.iter().map(member).collect()
}

fn member(package: &Value) -> anyhow::Result<Member> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let dependencies = package["dependencies"]
        .as_array()
        .context("a package without dependencies")?;
    Ok(Member {
        name: text(&package["name"]).context("a package without a name")?,
        imports: dependencies
            .iter()
            // A dependency with a path is a member; kind is null for product code.
            .filter(|d| d["path"].is_string() && d["kind"] != "dev")
            .filter_map(|d| text(&d["name"]))
            .collect(),
    })
}

/// The cargo that runs this, or the one on the PATH.
fn cargo() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".into())
}

/// As cargo tells it now: built in one clone, this may be run in another that shares the target folder.
fn root() -> anyhow::Result<PathBuf> {
    let own = std::env::var_os("CARGO_MANIFEST_DIR").context("run this by `cargo xtask`")?;
    Path::new(&own)
        .parent()
        .map(Path::to_owned)
        .context("xtask has no parent folder")
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| path.display().to_string())
}

fn output(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    String::from_utf8(output.stdout).with_context(|| format!("{command:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The workspace as it should be, with one more import.
    fn with_import(from: &str, to: &str) -> Vec<String> {
        let members: Vec<Member> = PLACES
            .iter()
            .map(|(name, _)| Member {
                name: (*name).to_owned(),
                imports: if *name == from {
                    vec![to.to_owned()]
                } else {
                    Vec::new()
                },
            })
            .collect();
        layers(&members)
    }

    #[test]
    fn imports_may_only_point_down() {
        assert!(with_import("moat-store", "moat-meta").is_empty());
        assert!(with_import("moat-loader", "moat-s3").is_empty());
        assert!(with_import("moat-kms-client", "moat-net").is_empty());
        for (from, to) in [
            ("moat-meta", "moat-store"),
            ("moat-store", "moat-kms"),
            ("moat-net", "moat-kms-client"),
            ("moat-types", "moat-s3"),
            ("moat", "moat-testkit"),
            ("xtask", "moat-types"),
        ] {
            assert_eq!(with_import(from, to).len(), 1, "{from} -> {to}");
        }
    }

    #[test]
    fn an_unknown_and_a_missing_member_are_named() {
        let problems = layers(&[Member {
            name: "moat-new".into(),
            imports: Vec::new(),
        }]);
        assert!(problems[0].contains("moat-new has no layer"));
        assert_eq!(problems.len(), 1 + PLACES.len());
    }

    #[test]
    fn members_without_a_comment_are_named() {
        let good = "members = [\n    # One.\n    \"a\",\n]\n";
        assert!(uncommented_members(good).is_empty());
        let bad = "members = [\n    # One.\n    \"a\",\n    \"b\",\n]\n";
        assert_eq!(uncommented_members(bad).len(), 1);
        assert_eq!(uncommented_members("members = [\n\"a\",\n]\n").len(), 1);
    }

    #[test]
    fn banned_crates_are_found_by_their_whole_name() {
        assert_eq!(banned_crates("zeroize v1.0.0\nring v0.17.14\n").len(), 1);
        assert!(banned_crates("string v1.0.0\nrsa-x v1.0.0\n").is_empty());
    }

    #[test]
    fn hosts_are_found_anywhere_in_a_file() {
        assert!(holds(b"x https://a.example/ y", "a.example"));
        assert!(!holds(b"short", "longer than the file"));
    }
}
