//! Access policies in the form of AWS: who may do what with which bucket and key (IAM user guide,
//! "JSON policy elements").
//!
//! Only what is understood is taken: an element, operator or condition key that is not known here is
//! an error when the policy is read, because ignoring it would allow what somebody meant to forbid.
//! There is no `Principal`: a policy belongs to the users that name it.

mod condition;
mod pattern;

use std::fmt;

use serde::Deserialize;

pub use condition::Facts;

use condition::Conditions;
use pattern::Pattern;

/// The most statements in one policy. AWS limits a policy to some kilobytes, which is fewer.
pub const STATEMENTS_MAX: usize = 256;
/// What names everything of S3 in a policy's `Resource`.
pub const RESOURCE_PREFIX: &str = "arn:aws:s3:::";

/// What a policy says about a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// A statement allows it, and none denies it.
    Allowed,
    /// A statement denies it; no other can allow it.
    Denied,
    /// No statement is about it.
    Silent,
}

/// A policy: statements, of which a denial wins over any permission.
#[derive(Clone, Debug)]
pub struct Policy {
    statements: Vec<Statement>,
}

/// What is to be decided.
#[derive(Clone, Copy)]
pub struct Question<'a> {
    /// The action, as `s3:GetObject`.
    pub action: &'a str,
    /// The resource without `arn:aws:s3:::`: `bucket`, `bucket/key`, or nothing for the service.
    pub resource: &'a str,
    /// What conditions can ask about.
    pub facts: &'a Facts<'a>,
}

/// Why a policy can't be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// Not JSON, or not of a policy's form.
    #[error("it is not a policy: {0}")]
    Malformed(String),
    /// An element that this program would have to ignore.
    #[error("{0}")]
    Unsupported(String),
}

impl Policy {
    /// Reads a policy document.
    ///
    /// # Errors
    /// What in it is not understood.
    pub fn parse(json: &str) -> Result<Self, PolicyError> {
        let document: Document = serde_json::from_str(json)
            .map_err(|error| PolicyError::Malformed(error.to_string()))?;
        if let Some(version) = &document.version
            && !matches!(version.as_str(), "2012-10-17" | "2008-10-17")
        {
            return Err(PolicyError::Unsupported(format!(
                "Version is {version:?}, but must be \"2012-10-17\""
            )));
        }
        let written = document.statement.into_vec();
        if written.is_empty() || written.len() > STATEMENTS_MAX {
            return Err(PolicyError::Malformed(format!(
                "it must have 1 to {STATEMENTS_MAX} statements"
            )));
        }
        let statements = written.into_iter().map(Statement::new);
        Ok(Self {
            statements: statements.collect::<Result<_, _>>()?,
        })
    }

    /// One of the policies that need no document: `readwrite` (everything), `readonly` (list and
    /// read objects) and `writeonly` (write objects).
    pub fn built_in(name: &str) -> Option<Self> {
        let actions = match name {
            "readwrite" => &["s3:*"][..],
            "readonly" => &[
                "s3:GetBucketLocation",
                "s3:GetObject*",
                "s3:ListAllMyBuckets",
                "s3:ListBucket*",
            ],
            "writeonly" => &[
                "s3:PutObject*",
                "s3:AbortMultipartUpload",
                "s3:ListMultipartUploadParts",
            ],
            _ => return None,
        };
        Some(Self {
            statements: vec![Statement {
                allow: true,
                actions: Selection::These(actions.iter().map(|text| Pattern::new(text)).collect()),
                resources: Selection::These(vec![Pattern::new("*")]),
                conditions: Conditions::default(),
            }],
        })
    }

    /// What the policy says.
    pub fn judge(&self, question: &Question<'_>) -> Verdict {
        let mut verdict = Verdict::Silent;
        for statement in &self.statements {
            if !statement.applies(question) {
                continue;
            }
            if !statement.allow {
                return Verdict::Denied;
            }
            verdict = Verdict::Allowed;
        }
        verdict
    }
}

/// Whether all of a user's policies together allow something.
pub fn is_allowed<'p>(
    policies: impl IntoIterator<Item = &'p Policy>,
    question: &Question<'_>,
) -> bool {
    let mut allowed = false;
    for policy in policies {
        match policy.judge(question) {
            Verdict::Denied => return false,
            Verdict::Allowed => allowed = true,
            Verdict::Silent => {}
        }
    }
    allowed
}

impl fmt::Debug for Question<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Question({} on {:?})", self.action, self.resource)
    }
}

#[derive(Clone, Debug)]
struct Statement {
    allow: bool,
    actions: Selection,
    resources: Selection,
    conditions: Conditions,
}

/// Patterns that something must match, or must not.
#[derive(Clone, Debug)]
enum Selection {
    These(Vec<Pattern>),
    AllBut(Vec<Pattern>),
}

impl Selection {
    fn matches(&self, matches: impl Fn(&Pattern) -> bool) -> bool {
        match self {
            Self::These(patterns) => patterns.iter().any(matches),
            Self::AllBut(patterns) => !patterns.iter().any(matches),
        }
    }
}

impl Statement {
    fn new(written: Written) -> Result<Self, PolicyError> {
        let allow = match written.effect.as_str() {
            "Allow" => true,
            "Deny" => false,
            other => {
                return Err(PolicyError::Malformed(format!(
                    "Effect is {other:?}, but must be \"Allow\" or \"Deny\""
                )));
            }
        };
        let actions = selection("Action", written.action, written.not_action, action)?;
        let resources = selection("Resource", written.resource, written.not_resource, resource)?;
        Ok(Self {
            allow,
            actions,
            resources,
            conditions: Conditions::new(written.condition)?,
        })
    }

    fn applies(&self, question: &Question<'_>) -> bool {
        // Actions have no case, resources have.
        self.actions
            .matches(|pattern| pattern.matches_ignore_case(question.action))
            && self
                .resources
                .matches(|pattern| pattern.matches(question.resource))
            && self.conditions.hold(question.facts)
    }
}

/// The selection of an element or of its negation, of which there must be one.
fn selection(
    name: &str,
    these: Option<OneOrMany<String>>,
    all_but: Option<OneOrMany<String>>,
    pattern: fn(&str) -> Result<Pattern, PolicyError>,
) -> Result<Selection, PolicyError> {
    let patterns = |texts: OneOrMany<String>| {
        let patterns: Vec<_> = texts
            .into_vec()
            .iter()
            .map(|text| pattern(text))
            .collect::<Result<_, _>>()?;
        if patterns.is_empty() {
            return Err(PolicyError::Malformed(format!("{name} is empty")));
        }
        Ok(patterns)
    };
    match (these, all_but) {
        (Some(these), None) => Ok(Selection::These(patterns(these)?)),
        (None, Some(all_but)) => Ok(Selection::AllBut(patterns(all_but)?)),
        _ => Err(PolicyError::Malformed(format!(
            "a statement needs {name} or Not{name}, and not both"
        ))),
    }
}

fn action(text: &str) -> Result<Pattern, PolicyError> {
    let of_s3 = text == "*" || text.len() > 3 && text[..3].eq_ignore_ascii_case("s3:");
    if of_s3 {
        Ok(Pattern::new(text))
    } else {
        Err(PolicyError::Unsupported(format!(
            "the action {text:?} is none of S3's: they begin with s3:"
        )))
    }
}

fn resource(text: &str) -> Result<Pattern, PolicyError> {
    if text.contains("${") {
        return Err(PolicyError::Unsupported(format!(
            "the resource {text:?} holds a variable, which is not supported"
        )));
    }
    match text.strip_prefix(RESOURCE_PREFIX) {
        Some(rest) => Ok(Pattern::new(rest)),
        None if text == "*" => Ok(Pattern::new(text)),
        None => Err(PolicyError::Unsupported(format!(
            "the resource {text:?} must begin with {RESOURCE_PREFIX}"
        ))),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Document {
    version: Option<String>,
    #[serde(rename = "Id")]
    _id: Option<String>,
    statement: OneOrMany<Written>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Written {
    #[serde(rename = "Sid")]
    _sid: Option<String>,
    effect: String,
    action: Option<OneOrMany<String>>,
    not_action: Option<OneOrMany<String>>,
    resource: Option<OneOrMany<String>>,
    not_resource: Option<OneOrMany<String>>,
    #[serde(default)]
    condition: condition::Written,
}

/// What AWS lets one write without the brackets.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMany<T> {
    Many(Vec<T>),
    One(T),
}

impl<T> OneOrMany<T> {
    fn into_vec(self) -> Vec<T> {
        match self {
            Self::Many(list) => list,
            Self::One(one) => vec![one],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(policy: &Policy, action: &str, resource: &str) -> Verdict {
        policy.judge(&Question {
            action,
            resource,
            facts: &Facts::default(),
        })
    }

    #[test]
    fn a_denial_wins_over_a_permission_wherever_it_stands() {
        let policy = Policy::parse(
            r#"{"Version": "2012-10-17", "Statement": [
                {"Sid": "a", "Effect": "Allow", "Action": "s3:*", "Resource": ["arn:aws:s3:::lake", "arn:aws:s3:::lake/*"]},
                {"Effect": "Deny", "Action": ["s3:Delete*"], "Resource": "arn:aws:s3:::lake/keep/*"}
            ]}"#,
        )
        .unwrap();
        let check = |action, resource| judge(&policy, action, resource);
        assert_eq!(check("s3:GetObject", "lake/a"), Verdict::Allowed);
        assert_eq!(check("s3:ListBucket", "lake"), Verdict::Allowed);
        assert_eq!(check("s3:DeleteObject", "lake/a"), Verdict::Allowed);
        assert_eq!(check("s3:DeleteObject", "lake/keep/a"), Verdict::Denied);
        assert_eq!(check("S3:deleteobject", "lake/keep/a"), Verdict::Denied);
        assert_eq!(check("s3:GetObject", "lake2/a"), Verdict::Silent);
        assert_eq!(check("s3:GetObject", "Lake/a"), Verdict::Silent);
    }

    #[test]
    fn a_denial_of_one_policy_holds_against_the_permission_of_another() {
        let deny = Policy::parse(
            r#"{"Statement": {"Effect": "Deny", "NotAction": "s3:Get*", "Resource": "*"}}"#,
        )
        .unwrap();
        let all = Policy::built_in("readwrite").unwrap();
        let allowed = |action| {
            let facts = Facts::default();
            let question = Question {
                action,
                resource: "b/k",
                facts: &facts,
            };
            is_allowed([&all, &deny], &question)
        };
        assert!(allowed("s3:GetObject"));
        assert!(!allowed("s3:PutObject"));
        let facts = Facts::default();
        let question = Question {
            action: "s3:GetObject",
            resource: "b/k",
            facts: &facts,
        };
        assert!(!is_allowed([], &question), "nobody has allowed it");
    }

    #[test]
    fn built_in_policies_do_what_their_names_say() {
        let check = |name, action| {
            let policy = Policy::built_in(name).unwrap();
            judge(&policy, action, "b/k") == Verdict::Allowed
        };
        assert!(check("readonly", "s3:GetObjectVersion") && check("readonly", "s3:ListBucket"));
        assert!(!check("readonly", "s3:PutObject") && !check("readonly", "s3:DeleteObject"));
        assert!(check("writeonly", "s3:PutObject") && !check("writeonly", "s3:GetObject"));
        assert!(check("readwrite", "s3:PutBucketPolicy"));
        assert!(Policy::built_in("admin").is_none());
    }

    #[test]
    fn what_would_have_to_be_ignored_is_refused() {
        for (json, expected) in [
            ("{", "not a policy"),
            (r#"{"Statement": []}"#, "1 to"),
            (
                r#"{"Version": "2030-01-01", "Statement": {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}}"#,
                "Version",
            ),
            (
                r#"{"Statement": {"Effect": "Allow", "Action": "s3:*", "Resource": "*", "Principal": "*"}}"#,
                "not a policy",
            ),
            (
                r#"{"Statement": {"Effect": "allow", "Action": "s3:*", "Resource": "*"}}"#,
                "Effect",
            ),
            (
                r#"{"Statement": {"Effect": "Allow", "Resource": "*"}}"#,
                "needs Action",
            ),
            (
                r#"{"Statement": {"Effect": "Allow", "Action": "kms:Decrypt", "Resource": "*"}}"#,
                "none of S3's",
            ),
            (
                r#"{"Statement": {"Effect": "Allow", "Action": "s3:*", "Resource": "lake/*"}}"#,
                "must begin",
            ),
            (
                r#"{"Statement": {"Effect": "Allow", "Action": "s3:*", "Resource": "arn:aws:s3:::home/${aws:username}/*"}}"#,
                "variable",
            ),
            (
                r#"{"Statement": {"Effect": "Allow", "Action": "s3:*", "Resource": "*", "Condition": {"DateLessThan": {"s3:prefix": "x"}}}}"#,
                "DateLessThan",
            ),
            (
                r#"{"Statement": {"Effect": "Allow", "Action": "s3:*", "Resource": "*", "Condition": {"StringEquals": {"aws:UserAgent": "x"}}}}"#,
                "aws:UserAgent",
            ),
        ] {
            let error = Policy::parse(json).unwrap_err().to_string();
            assert!(error.contains(expected), "{json}: {error}");
        }
    }
}
