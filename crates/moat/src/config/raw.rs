//! The first stage: what was written, where. Flags win over the environment, that over the file.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use super::settings::{SETTINGS, Setting, find, is_table, nearest};

/// What was written for one setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Written {
    /// Its values; exactly one unless the setting is a list.
    pub(crate) values: Vec<String>,
    /// Where.
    pub(crate) source: Source,
}

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// On the command line, under this flag.
    Flag(&'static str),
    /// In this environment variable.
    Env(&'static str),
    /// In the configuration file.
    File(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => f.write_str(flag),
            Self::Env(variable) => f.write_str(variable),
            Self::File(path) => f.write_str(path),
        }
    }
}

/// A flag's values, under the setting that it sets.
#[derive(Debug, Clone)]
pub(crate) struct FlagValue {
    /// The setting.
    pub(crate) key: &'static str,
    /// The flag as it is typed.
    pub(crate) flag: &'static str,
    /// What was given; nothing if the flag was not.
    pub(crate) values: Vec<String>,
}

/// All that was written.
#[derive(Debug, Default)]
pub(crate) struct Raw {
    settings: BTreeMap<&'static str, Written>,
    /// The tables of the gateway, and the file in which they stand.
    pub(crate) gateway: Option<(String, toml::Table)>,
}

/// Tables that hold lists of things with several fields, and so are no settings.
const GATEWAY: &str = "gateway";

impl Raw {
    /// Collects the three sources. Problems of form go to `problems`, one sentence each.
    pub(crate) fn collect(
        file: Option<(&Path, &str)>,
        env: &dyn Fn(&str) -> Option<String>,
        flags: Vec<FlagValue>,
        problems: &mut Vec<String>,
    ) -> Self {
        let mut raw = Self::default();
        if let Some((path, text)) = file {
            raw.take_file(path, text, problems);
        }
        for setting in SETTINGS {
            raw.take_env(setting, env);
        }
        for given in flags.into_iter().filter(|given| !given.values.is_empty()) {
            let source = Source::Flag(given.flag);
            raw.settings.insert(
                given.key,
                Written {
                    values: given.values,
                    source,
                },
            );
        }
        raw
    }

    /// What was written for `key`.
    pub(crate) fn get(&self, key: &str) -> Option<&Written> {
        self.settings.get(key)
    }

    fn take_env(&mut self, setting: &Setting, env: &dyn Fn(&str) -> Option<String>) {
        let found = setting.env.iter().find_map(|name| {
            env(name)
                .filter(|text| !text.is_empty())
                .map(|text| (*name, text))
        });
        if let Some((name, text)) = found {
            let values = if setting.list {
                text.split(',').map(|part| part.trim().to_owned()).collect()
            } else {
                vec![text]
            };
            let source = Source::Env(name);
            self.settings
                .insert(setting.key, Written { values, source });
        }
    }

    fn take_file(&mut self, path: &Path, text: &str, problems: &mut Vec<String>) {
        let file = path.display().to_string();
        match text.parse::<toml::Table>() {
            Ok(table) => self.take_table(&file, "", &table, problems),
            Err(error) => problems.push(format!(
                "{file} is not TOML: {}",
                one_line(&error.to_string())
            )),
        }
    }

    fn take_table(
        &mut self,
        file: &str,
        prefix: &str,
        table: &toml::Table,
        problems: &mut Vec<String>,
    ) {
        for (name, value) in table {
            let key = if prefix.is_empty() {
                name.clone()
            } else {
                format!("{prefix}.{name}")
            };
            match (find(&key), value) {
                (None, toml::Value::Table(inner)) if key == GATEWAY => {
                    self.gateway = Some((file.to_owned(), inner.clone()));
                }
                (Some(setting), value) => self.take_value(file, setting, value, problems),
                (None, toml::Value::Table(inner)) if is_table(&key) => {
                    self.take_table(file, &key, inner, problems);
                }
                (None, _) => {
                    let hint = nearest(&key)
                        .map_or(String::new(), |near| format!(" (did you mean {near}?)"));
                    problems.push(format!("{file}: {key} is not a setting{hint}"));
                }
            }
        }
    }

    fn take_value(
        &mut self,
        file: &str,
        setting: &'static Setting,
        value: &toml::Value,
        problems: &mut Vec<String>,
    ) {
        let values = match value {
            toml::Value::Array(items) if setting.list => items.iter().map(scalar).collect(),
            value => scalar(value).map(|text| vec![text]),
        };
        match values {
            Some(values) => {
                let source = Source::File(file.to_owned());
                self.settings
                    .insert(setting.key, Written { values, source });
            }
            None => {
                let many = if setting.list { "an array of " } else { "" };
                problems.push(format!(
                    "{file}: {} must be {many}{}",
                    setting.key, setting.form
                ));
            }
        }
    }
}

fn scalar(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        // Both spellings of a switch are natural in TOML.
        toml::Value::Boolean(on) => Some(if *on { "on" } else { "off" }.to_owned()),
        _ => None,
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collect(file: &str, env: &[(&str, &str)], flags: Vec<FlagValue>) -> (Raw, Vec<String>) {
        let env = |name: &str| {
            env.iter()
                .find(|(n, _)| *n == name)
                .map(|(_, v)| (*v).to_owned())
        };
        let mut problems = Vec::new();
        let raw = Raw::collect(
            Some((Path::new("moat.toml"), file)),
            &env,
            flags,
            &mut problems,
        );
        (raw, problems)
    }

    #[test]
    fn flags_win_over_environment_over_file() {
        let file = "data = \"file\"\n[store]\nlisten = \"file:1\"\nregion = \"file\"\n";
        let flag = FlagValue {
            key: "data",
            flag: "--data",
            values: vec!["flag".into()],
        };
        let (raw, problems) = collect(
            file,
            &[("MOAT_DATA", "env"), ("MINIO_REGION", "env")],
            vec![flag],
        );
        assert!(problems.is_empty());
        let value = |key| raw.get(key).unwrap().values[0].as_str();
        assert_eq!(value("data"), "flag");
        assert_eq!(value("store.region"), "env");
        assert_eq!(value("store.listen"), "file:1");
        assert_eq!(
            raw.get("store.region").unwrap().source,
            Source::Env("MINIO_REGION")
        );
    }

    #[test]
    fn every_unknown_key_and_wrong_type_is_reported() {
        let file =
            "dat = 1\nhosts = [[1]]\n[store]\nlisten = {}\nlisen = \"x\"\n[nothing]\na = 1\n";
        let (_, problems) = collect(file, &[], Vec::new());
        assert_eq!(problems.len(), 5, "{problems:#?}");
        assert!(
            problems
                .iter()
                .any(|p| p.contains("store.lisen is not a setting (did you mean store.listen?)"))
        );
    }

    #[test]
    fn lists_come_as_arrays_and_with_commas() {
        let (raw, _) = collect(
            "buckets = [\"a\", \"b\"]\n",
            &[("MOAT_HOSTS", "x, y")],
            Vec::new(),
        );
        assert_eq!(raw.get("buckets").unwrap().values, ["a", "b"]);
        assert_eq!(raw.get("hosts").unwrap().values, ["x", "y"]);
    }

    #[test]
    fn text_that_is_not_toml_is_one_problem() {
        let (_, problems) = collect("data = \n", &[], Vec::new());
        assert_eq!(problems.len(), 1);
        assert!(!problems[0].contains('\n'));
    }
}
