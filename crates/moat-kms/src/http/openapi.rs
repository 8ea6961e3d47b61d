//! The OpenAPI document: the table of operations, and schemas of the bodies kept by hand beside
//! it. Tests hold both against the code, in both directions.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use moat_kms_client::Code;
use serde_json::{Map, Value, json};

use super::operations::{OPERATIONS, Operation};

/// The schemas of bodies, as an object of JSON schemas by name.
const SCHEMAS: &str = include_str!("schemas.json");

/// The document, as it is served.
pub(super) fn document() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| format!("{:#}\n", build()));
    &TEXT
}

fn build() -> Value {
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for operation in OPERATIONS {
        let method = operation.method.as_str().to_ascii_lowercase();
        paths
            .entry(operation.path)
            .or_default()
            .insert(method, describe(operation));
    }
    let schemas: Value = serde_json::from_str(SCHEMAS).expect("a test parses it");
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Moat key manager",
            "version": "1",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
            "description": "The native API. A caller is known by the public key of its client certificate.",
        },
        "security": [{ "certificate": [] }],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": { "certificate": { "type": "mutualTLS" } },
            "responses": { "Problem": {
                "description": "RFC 9457 problem; the member `code` says which",
                "content": { "application/problem+json": { "schema": reference("Problem") } },
            } },
        },
        "x-problem-codes": problem_codes(),
    })
}

fn describe(operation: &Operation) -> Value {
    let mut out = json!({
        "operationId": operation.id,
        "summary": operation.summary,
        "parameters": parameters(operation),
        "responses": {
            operation.status.to_string(): answer(operation),
            "default": { "$ref": "#/components/responses/Problem" },
        },
    });
    if let Some(command) = operation.command {
        out["x-command"] = json!(command.as_str());
    }
    if is_open(operation) {
        out["security"] = json!([]);
    }
    if let Some(schema) = operation.request {
        out["requestBody"] = json!({
            "required": schema != "Nothing",
            "content": { "application/json": { "schema": reference(schema) } },
        });
        out["x-body-bytes-max"] = json!(operation.body_bytes_max);
    }
    out
}

/// Whether anyone may ask, without a client certificate.
fn is_open(operation: &Operation) -> bool {
    operation.command.is_none() && !operation.path.contains("/identities/")
}

fn parameters(operation: &Operation) -> Vec<Value> {
    let in_path = operation.path.split(['{', '}']).skip(1).step_by(2);
    let in_path = in_path.map(|name| {
        let kind = if name == "version" {
            "integer"
        } else {
            "string"
        };
        json!({ "name": name, "in": "path", "required": true, "schema": { "type": kind } })
    });
    let in_query = operation.query.iter().map(|name| {
        let kind = match *name {
            "limit" | "after" | "wait_seconds" | "grace_seconds" => "integer",
            "force" => "boolean",
            _ => "string",
        };
        json!({ "name": name, "in": "query", "schema": { "type": kind } })
    });
    in_path.chain(in_query).collect()
}

fn answer(operation: &Operation) -> Value {
    let Some(schema) = operation.answer else {
        return json!({ "description": "Done" });
    };
    json!({
        "description": "Done",
        "content": { "application/json": { "schema": reference(schema) } },
    })
}

fn reference(schema: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}

fn problem_codes() -> Map<String, Value> {
    let codes = Code::ALL.iter().map(|code| {
        let told = json!({ "status": code.status(), "title": code.title() });
        (code.as_str().to_owned(), told)
    });
    codes.collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use http::Method;
    use moat_kms_client::{Problem, wire};
    use serde::Serialize;
    use serde::de::DeserializeOwned;

    use super::super::route::Route;
    use super::*;

    const IDENTITY: &str = "h1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

    /// A real path of an operation.
    fn example(path: &str) -> String {
        path.replace("{enclave}", "e")
            .replace("{key}", "k")
            .replace("{version}", "1")
            .replace("{identity}", IDENTITY)
            .replace("{policy}", "p")
            .replace("{lake}", "00000000000000000000000000000000")
    }

    #[test]
    fn every_documented_operation_is_routed_to_itself() {
        let mut ids = BTreeSet::new();
        let mut places = BTreeSet::new();
        for operation in OPERATIONS {
            let route = Route::parse(&example(operation.path)).unwrap();
            assert_eq!(route.template(), operation.path);
            let method = Method::from_bytes(operation.method.as_str().as_bytes()).unwrap();
            let found = route.operation(&method).unwrap();
            assert_eq!(found.id, operation.id);
            assert!(ids.insert(operation.id), "{}", operation.id);
            assert!(places.insert((operation.path, operation.method)));
            let listed = document_of(operation);
            assert_eq!(listed["operationId"], operation.id);
        }
        // And the other way round: the document names nothing else, and what it does not name is
        // refused, because routes ask the same table.
        let document: Value = serde_json::from_str(document()).unwrap();
        let paths = document["paths"].as_object().unwrap();
        let listed: usize = paths.values().map(|p| p.as_object().unwrap().len()).sum();
        assert_eq!(listed, OPERATIONS.len());
        for path in paths.keys() {
            let route = Route::parse(&example(path)).unwrap();
            for method in [
                Method::GET,
                Method::POST,
                Method::PUT,
                Method::DELETE,
                Method::PATCH,
            ] {
                let documented = !paths[path][method.as_str().to_ascii_lowercase()].is_null();
                assert_eq!(
                    route.operation(&method).is_ok(),
                    documented,
                    "{method} {path}"
                );
            }
        }
    }

    fn document_of(operation: &Operation) -> Value {
        let document: Value = serde_json::from_str(document()).unwrap();
        document["paths"][operation.path][operation.method.as_str().to_ascii_lowercase()].clone()
    }

    #[test]
    fn every_schema_that_is_named_exists_and_every_schema_is_used() {
        let text = document();
        let document: Value = serde_json::from_str(text).unwrap();
        let schemas = document["components"]["schemas"].as_object().unwrap();
        let mut named = BTreeSet::new();
        for part in text.split("#/components/schemas/").skip(1) {
            named.insert(part.split('"').next().unwrap().to_owned());
        }
        assert_eq!(named, schemas.keys().cloned().collect());
    }

    /// Holds a schema against its type: `full` has every member that the type knows.
    fn check<T: Serialize + DeserializeOwned>(
        schemas: &mut Map<String, Value>,
        name: &str,
        full: Value,
    ) {
        let schema = schemas.remove(name).expect(name);
        let keys = |value: &Value| -> BTreeSet<String> {
            value.as_object().unwrap().keys().cloned().collect()
        };
        let read = |value: &Value| serde_json::from_value::<T>(value.clone());
        let written = serde_json::to_value(read(&full).unwrap_or_else(|e| panic!("{name}: {e}")));
        assert_eq!(written.unwrap(), full, "{name}");
        assert_eq!(keys(&schema["properties"]), keys(&full), "{name}");

        let required: BTreeSet<String> = match schema.get("required") {
            Some(names) => serde_json::from_value(names.clone()).unwrap(),
            None => BTreeSet::new(),
        };
        let closed = schema.get("additionalProperties") == Some(&json!(false));
        let mut minimal = full.clone();
        for member in keys(&full) {
            let mut without = full.clone();
            without.as_object_mut().unwrap().remove(&member);
            if !required.contains(&member) {
                assert!(read(&without).is_ok(), "{name} without {member}");
                minimal.as_object_mut().unwrap().remove(&member);
            } else if closed && !full[&member].is_null() {
                assert!(read(&without).is_err(), "{name} without {member}");
            }
        }
        if !closed {
            // What an answer always has.
            let always = serde_json::to_value(read(&minimal).unwrap()).unwrap();
            assert_eq!(keys(&always), required, "{name}");
        }
        let mut more = full;
        more["unheard_of"] = json!(1);
        assert_eq!(
            read(&more).is_err(),
            closed,
            "{name} with an unknown member"
        );
    }

    #[test]
    fn schemas_and_types_have_the_same_members() {
        let mut left: Map<String, Value> = serde_json::from_str(SCHEMAS).unwrap();
        let left = &mut left;
        let (t, i) = ("2026-01-01T00:00:00Z", IDENTITY);
        let problem = json!({"type": "t", "title": "t", "status": 1, "detail": "d", "code": "c", "request_id": "r"});
        let policy = json!({"allow": {"KEY:LIST": "*"}, "deny": {"KEY:LIST": ["a", "b"]}});
        let enclave = json!({"name": "e", "created_at": t, "created_by": i});
        let guarded = json!({"lake": "00", "buckets": 1, "objects": 1, "bytes": 1, "counted_at": t, "counted_by": i});
        let holding = json!({"key": "k", "buckets": 1, "objects": 1, "bytes": 1});
        let key = json!({
            "name": "k", "enabled": true, "version": 1, "algorithm": "AES256", "created_at": t, "created_by": i,
            "versions": 1, "exportable": true, "disabled_at": t, "disabled_by": i, "deletion_at": t,
            "deletion_by": i, "rotation_seconds": 1, "next_rotation_at": t,
            "guards": [guarded],
        });
        let version = json!({"version": 1, "algorithm": "AES256", "created_at": t, "created_by": i, "imported": true});
        let identity = json!({
            "identity": i, "privilege": "User", "created_at": t, "created_by": i, "policy": "p", "parent": i,
            "service_accounts": [i], "tags": {"a": "b"},
        });
        let policy_info = json!({"name": "p", "created_at": t, "created_by": i, "policy": policy});
        check::<Problem>(left, "Problem", problem.clone());
        check::<wire::Version>(
            left,
            "Version",
            json!({"version": "1", "commit": "c", "api_version": "v1", "host": "h"}),
        );
        check::<wire::CreateEnclave>(left, "CreateEnclave", json!({"name": "e"}));
        check::<wire::EnclaveInfo>(left, "EnclaveInfo", enclave.clone());
        check::<wire::CreateKey>(
            left,
            "CreateKey",
            json!({"name": "k", "algorithm": "AES256", "exportable": true, "rotation_seconds": 1}),
        );
        check::<wire::ImportKey>(
            left,
            "ImportKey",
            json!({"material": "AA==", "algorithm": "AES256", "mac_material": "AA==", "exportable": true, "add_version": true}),
        );
        check::<wire::RewrappedEpoch>(
            left,
            "RewrappedEpoch",
            json!({"version": 1, "wrapped": "AA=="}),
        );
        let hsm = json!({"id": "00", "about": "a", "current": true, "enclaves": 1, "problem": "p"});
        check::<wire::HsmKeyInfo>(left, "HsmKeyInfo", hsm.clone());
        check::<wire::HsmStatus>(left, "HsmStatus", json!({"keys": [hsm]}));
        check::<wire::RotateHsm>(left, "RotateHsm", json!({"to": "file"}));
        check::<wire::HsmRotation>(
            left,
            "HsmRotation",
            json!({"id": "00", "about": "a", "enclaves": 1}),
        );
        check::<wire::SetRotation>(left, "SetRotation", json!({"rotation_seconds": null}));
        let exported = json!({"version": 1, "algorithm": "AES256", "material": "AA==", "mac_material": "AA=="});
        check::<wire::ExportedVersion>(left, "ExportedVersion", exported.clone());
        check::<wire::ExportedKey>(
            left,
            "ExportedKey",
            json!({"name": "k", "versions": [exported]}),
        );
        check::<wire::Guarded>(left, "Guarded", guarded.clone());
        check::<wire::Holding>(left, "Holding", holding.clone());
        check::<wire::LakeReport>(
            left,
            "LakeReport",
            json!({"age_ms": 1, "holdings": [holding]}),
        );
        check::<wire::KeyInfo>(left, "KeyInfo", key.clone());
        check::<wire::KeyVersionInfo>(left, "KeyVersionInfo", version.clone());
        check::<wire::GenerateDataKey>(
            left,
            "GenerateDataKey",
            json!({"context": "AA==", "length": 1, "version": 1}),
        );
        let data_key = json!({"version": 1, "plaintext": "AA==", "ciphertext": "AA=="});
        check::<wire::DataKey>(left, "DataKey", data_key.clone());
        check::<wire::Encrypt>(
            left,
            "Encrypt",
            json!({"plaintext": "AA==", "context": "AA==", "version": 1}),
        );
        let ciphertext = json!({"version": 1, "ciphertext": "AA=="});
        check::<wire::Ciphertext>(left, "Ciphertext", ciphertext.clone());
        check::<wire::Decrypt>(
            left,
            "Decrypt",
            json!({"ciphertext": "AA==", "context": "AA=="}),
        );
        let plaintext = json!({"version": 1, "plaintext": "AA=="});
        check::<wire::Plaintext>(left, "Plaintext", plaintext.clone());
        check::<wire::Mac>(left, "Mac", json!({"message": "AA==", "version": 1}));
        let code = json!({"version": 1, "code": "AA=="});
        check::<wire::MacCode>(left, "MacCode", code.clone());
        check::<wire::VerifyMac>(
            left,
            "VerifyMac",
            json!({"message": "AA==", "code": "AA==", "version": 1}),
        );
        check::<wire::MacVerified>(left, "MacVerified", json!({"valid": true, "version": 1}));
        let item = json!({"key": "k", "context": "AA==", "length": 1, "version": 1});
        check::<wire::GenerateItem>(left, "GenerateItem", item.clone());
        check::<wire::Batch<wire::GenerateItem>>(left, "GenerateBatch", json!({"items": [item]}));
        let item = json!({"key": "k", "plaintext": "AA==", "context": "AA==", "version": 1});
        check::<wire::EncryptItem>(left, "EncryptItem", item.clone());
        check::<wire::Batch<wire::EncryptItem>>(left, "EncryptBatch", json!({"items": [item]}));
        let item = json!({"key": "k", "ciphertext": "AA==", "context": "AA=="});
        check::<wire::DecryptItem>(left, "DecryptItem", item.clone());
        check::<wire::Batch<wire::DecryptItem>>(left, "DecryptBatch", json!({"items": [item]}));
        let item = json!({"key": "k", "message": "AA==", "version": 1});
        check::<wire::MacItem>(left, "MacItem", item.clone());
        check::<wire::Batch<wire::MacItem>>(left, "MacBatch", json!({"items": [item]}));
        check_answers::<wire::DataKey>(left, "DataKey", &data_key, &problem);
        check_answers::<wire::Ciphertext>(left, "Ciphertext", &ciphertext, &problem);
        check_answers::<wire::Plaintext>(left, "Plaintext", &plaintext, &problem);
        check_answers::<wire::MacCode>(left, "MacCode", &code, &problem);
        check::<wire::GenerateEpoch>(left, "GenerateEpoch", json!({"bucket": "b", "epoch": "e"}));
        check::<wire::OpenEpoch>(
            left,
            "OpenEpoch",
            json!({"bucket": "b", "epoch": "e", "wrapped": "AA=="}),
        );
        check::<wire::EpochLease>(
            left,
            "EpochLease",
            json!({"version": 1, "key": "AA==", "lease_ttl_ms": 1, "wrapped": "AA=="}),
        );
        check::<wire::CreateIdentity>(
            left,
            "CreateIdentity",
            json!({"identity": i, "privilege": "User", "policy": "p", "service_account": true, "tags": {"a": "b"}}),
        );
        check::<wire::IdentityInfo>(left, "IdentityInfo", identity.clone());
        check::<wire::AssignPolicy>(left, "AssignPolicy", json!({"policy": null}));
        check::<wire::CheckPolicy>(
            left,
            "CheckPolicy",
            json!({"command": "KEY:LIST", "name": "k"}),
        );
        check::<wire::Decision>(
            left,
            "Decision",
            json!({"allowed": true, "reason": "r", "privilege": "Admin", "policy": "p", "rule": "r"}),
        );
        check::<wire::PolicyDocument>(left, "PolicyDocument", policy);
        check::<wire::PolicyInfo>(left, "PolicyInfo", policy_info.clone());
        check::<wire::Audit>(
            left,
            "Audit",
            json!({"lines": [{}], "public_key": "AA==", "last_seq": 1, "checkpoint_seq": 1, "checkpoint_hash": "AA=="}),
        );
        let listing = |item: Value| json!({"items": [item], "next": "n"});
        check::<wire::Listing<wire::EnclaveInfo>>(left, "EnclaveListing", listing(enclave));
        check::<wire::Listing<wire::KeyInfo>>(left, "KeyListing", listing(key));
        check::<wire::Listing<wire::KeyVersionInfo>>(left, "KeyVersionListing", listing(version));
        check::<wire::Listing<wire::IdentityInfo>>(left, "IdentityListing", listing(identity));
        check::<wire::Listing<wire::PolicyInfo>>(left, "PolicyListing", listing(policy_info));
        // What is left has no type of its own.
        let untyped: Vec<_> = left.keys().map(String::as_str).collect();
        assert_eq!(untyped, ["Document", "Nothing", "Patterns"]);
    }

    fn check_answers<T: Serialize + DeserializeOwned>(
        left: &mut Map<String, Value>,
        name: &str,
        ok: &Value,
        error: &Value,
    ) {
        let item = json!({"ok": ok, "error": error});
        check::<wire::ItemAnswer<T>>(left, &format!("{name}ItemAnswer"), item.clone());
        check::<wire::BatchAnswer<T>>(
            left,
            &format!("{name}BatchAnswer"),
            json!({"items": [item]}),
        );
    }
}
