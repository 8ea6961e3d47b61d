//! Each wrong setting of the gateway has its sentence, with the place and what to write.

use super::super::raw::Raw;
use super::*;

const HEAD: &str = "[proxy]\nmode = \"gateway\"\n";
const USER: &str =
    "[[gateway.users]]\nname = \"ann\"\ncredentials = \"ann.env\"\npolicies = [\"readwrite\"]\n";

fn read(text: &str) -> (Option<GatewayConfig>, Vec<String>) {
    let mut problems = Vec::new();
    let file = Some((std::path::Path::new("f"), text));
    let raw = Raw::collect(file, &|_| None, Vec::new(), &mut problems);
    let mut reader = Reader {
        raw: &raw,
        problems: &mut problems,
    };
    let config = super::read(&mut reader);
    (config, problems)
}

/// What is said of a `[gateway]` with one good user and `lines`.
fn said_of(lines: &str) -> Vec<String> {
    let (_, problems) = read(&format!("{HEAD}[gateway]\n{lines}{USER}"));
    problems
}

/// Further tables come behind those of the user.
fn said_of_table(table: &str) -> Vec<String> {
    let (_, problems) = read(&format!("{HEAD}[gateway]\n{USER}{table}"));
    problems
}

#[test]
fn a_wrong_value_of_the_gateway_itself_is_named() {
    for (lines, sentence) in [
        (
            "domains = [\"s3.test:80\"]",
            "f: gateway.domains: \"s3.test:80\" must be a DNS name, without port and star",
        ),
        (
            "domains = [\"*.s3.test\"]",
            "f: gateway.domains: \"*.s3.test\" must be a DNS name, without port and star",
        ),
        (
            "sign_body = \"never\"",
            "f: gateway.sign_body is \"never\", but must be auto, on or off",
        ),
        (
            "region = \"eu 1\"",
            "f: gateway: the region is \"eu 1\", but must be a word",
        ),
        (
            "credentials = \"a\"\nweb_identity = { token_file = \"t\", endpoint = \"https://sts:1\" }",
            "f: gateway has both credentials and web_identity",
        ),
        (
            "web_identity = { token_file = \"t\", endpoint = \"sts\" }",
            "f: gateway: the endpoint of web_identity is \"sts\", but must be https://HOST:PORT",
        ),
        (
            "profile = \"lake\"",
            "f: gateway: profile is a section of credentials, of which there are none",
        ),
    ] {
        assert_eq!(said_of(&format!("{lines}\n")), [sentence]);
    }
}

#[test]
fn what_is_not_known_is_named_with_what_is() {
    let [said] = &said_of("domain = \"s3.test\"\n")[..] else {
        panic!("one sentence is enough");
    };
    assert!(
        said.starts_with("f: in [gateway]: unknown field `domain`, expected one of "),
        "{said}"
    );
    let [said] = &said_of_table("[[gateway.encryption]]\nprefix = \"a\"\n")[..] else {
        panic!("one sentence is enough");
    };
    assert_eq!(
        said,
        "f: in [gateway]: missing field `bucket` in `encryption`"
    );
}

#[test]
fn without_tables_or_users_there_is_no_gateway() {
    let (config, problems) = read(HEAD);
    assert!(config.is_none());
    assert_eq!(
        problems,
        [
            "the gateway needs a configuration file with [gateway] and [[gateway.users]]; docs/proxy.md has an example"
        ]
    );
    let (_, problems) = read(&format!("{HEAD}[gateway]\n"));
    assert_eq!(
        problems,
        ["f: the gateway has no users: add [[gateway.users]]"]
    );
}

#[test]
fn a_wrong_user_is_named() {
    for (table, sentence) in [
        (
            "name = \"bob\"\ncredentials = \"bob.env\"",
            "f: gateway.users: bob may do nothing without policies: name readwrite, readonly, writeonly or a JSON file",
        ),
        (
            "name = \"ann\"\ncredentials = \"other.env\"\npolicies = [\"readonly\"]",
            "f: gateway.users: the name ann is there twice",
        ),
        (
            "name = \"\"\ncredentials = \"a.env\"\npolicies = [\"readonly\"]",
            "f: gateway.users: a user has an empty name",
        ),
    ] {
        assert_eq!(
            said_of_table(&format!("[[gateway.users]]\n{table}\n")),
            [sentence]
        );
    }
}

#[test]
fn a_wrong_store_is_named() {
    let endpoints = "endpoints = [\"https://a:1\"]\n";
    let keys = "credentials = \"a.env\"\n";
    for (table, sentence) in [
        (
            format!("name = \"default\"\n{endpoints}{keys}"),
            "f: gateway.upstreams: \"default\" is the name of the store of proxy.upstreams; choose another",
        ),
        (
            format!("name = \"cold\"\n{endpoints}"),
            "f: gateway.upstreams: cold needs credentials or web_identity",
        ),
        (
            format!("name = \"cold\"\nendpoints = []\n{keys}"),
            "f: gateway.upstreams: cold: it has no endpoints",
        ),
        (
            format!("name = \"cold\"\n{endpoints}{keys}health_path = \"live\"\n"),
            "f: gateway.upstreams: cold: health_path is \"live\", but must begin with a slash",
        ),
        (
            format!("name = \"cold\"\n{endpoints}{keys}region = \"\"\n"),
            "f: gateway.upstreams: cold: the region is \"\", but must be a word",
        ),
    ] {
        assert_eq!(
            said_of_table(&format!("[[gateway.upstreams]]\n{table}")),
            [sentence]
        );
    }
    let one = format!("[[gateway.upstreams]]\nname = \"cold\"\n{endpoints}{keys}");
    assert_eq!(
        said_of_table(&format!("{one}{one}")),
        ["f: gateway.upstreams: the name cold is there twice"]
    );
    let bad = "[[gateway.upstreams]]\nname = \"cold\"\nendpoints = [\"ftp://a\"]\n";
    let said = said_of_table(&format!("{bad}{keys}"));
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(
        said[0].starts_with("f: gateway.upstreams: cold: "),
        "{said:?}"
    );
}

#[test]
fn a_wrong_route_is_named() {
    for (table, sentence) in [
        (
            "name = \"cold\"\nupstream = \"archive\"",
            "f: gateway.buckets: cold is in \"archive\", which is no name of [[gateway.upstreams]]",
        ),
        (
            "name = \"co ld\"\nupstream_name = \"cold\"",
            "f: gateway.buckets: \"co ld\" can't be the name of a bucket",
        ),
        (
            "name = \"co..ld\"",
            "f: gateway.buckets: \"co..ld\" can't be the name of a bucket",
        ),
        (
            "name = \"cold\"\nupstream_name = \"a/b\"",
            "f: gateway.buckets: \"a/b\" can't be the name of a bucket",
        ),
    ] {
        assert_eq!(
            said_of_table(&format!("[[gateway.buckets]]\n{table}\n")),
            [sentence]
        );
    }
}

#[test]
fn a_wrong_rule_is_named() {
    for (table, sentence) in [
        (
            "bucket = \"lake\"",
            "f: gateway.encryption: lake: the rule neither adds nor requires anything",
        ),
        (
            "bucket = \"*\"\nadd = \"aws:kmsx\"\nrequire = \"any\"",
            "f: gateway.encryption: *: add is \"aws:kmsx\", but must be aws:kms or AES256",
        ),
        (
            "bucket = \"lake\"\nadd = \"AES256\"\nkey = \"k\"\nrequire = \"any\"",
            "f: gateway.encryption: lake: a key goes with add = \"aws:kms\" only",
        ),
        (
            "bucket = \"lake\"\nadd = \"aws:kms\"\nkey = \"my key\"",
            "f: gateway.encryption: lake: the key must be the name or ARN of a key",
        ),
        (
            "bucket = \"lake\"\nadd = \"aws:kms\"\nrequire = \"kms\"",
            "f: gateway.encryption: lake: require is \"kms\", but must be any, aws:kms or key",
        ),
        (
            "bucket = \"lake\"\nrequire = \"any\"\nreplace = true",
            "f: gateway.encryption: lake: replace needs something to put there: add",
        ),
        (
            "bucket = \"La ke\"\nadd = \"AES256\"",
            "f: gateway.encryption: \"La ke\" can't be the name of a bucket",
        ),
    ] {
        assert_eq!(
            said_of_table(&format!("[[gateway.encryption]]\n{table}\n")),
            [sentence]
        );
    }
}

#[test]
fn all_is_found_at_once() {
    let (_, problems) = read(&format!(
        "{HEAD}[gateway]\nsign_body = \"x\"\nregion = \"\"\n\
         [[gateway.buckets]]\nname = \"a\"\n[[gateway.encryption]]\nbucket = \"lake\"\n"
    ));
    assert_eq!(problems.len(), 5, "{problems:#?}");
}

#[test]
fn a_whole_gateway_is_read() {
    let (config, problems) = read(&format!(
        "{HEAD}[gateway]\ncredentials = \"own.env\"\nprofile = \"lake\"\nregion = \"eu-1\"\n\
         client_region = \"home-1\"\nsign_body = \"on\"\ndomains = [\"s3.test\"]\n{USER}\
         [[gateway.upstreams]]\nname = \"cold\"\nendpoints = [\"https://c{{1...2}}:1\"]\n\
         web_identity = {{ token_file = \"t\", endpoint = \"https://sts:1\" }}\n\
         [[gateway.buckets]]\nname = \"old\"\nupstream = \"cold\"\nupstream_name = \"Old_7\"\n\
         [[gateway.encryption]]\nbucket = \"*\"\nprefix = \"hr/\"\nadd = \"aws:kms\"\nkey = \"k\"\nrequire = \"key\"\nreplace = true\n"
    ));
    assert_eq!(problems, <[&str; 0]>::default());
    let config = config.unwrap();
    assert_eq!(config.users[0].name, "ann");
    let own = KeyFile {
        path: "own.env".into(),
        profile: "lake".to_owned(),
    };
    assert!(matches!(&config.first.keys, KeysConfig::File(file) if *file == own));
    assert_eq!(config.first.region, "eu-1");
    assert_eq!(config.client_region, "home-1");
    assert_eq!(config.sign_body, SignBody::On);
    assert_eq!(config.stores[0].upstreams.len(), 2);
    assert_eq!(config.stores[0].signing.region, REGION_DEFAULT);
    assert!(config.asks_sts_over_tls());
    let route = &config.buckets[0];
    assert_eq!(
        (&route.name[..], route.store, &route.upstream_name[..]),
        ("old", 1, "Old_7")
    );
    let rule = &config.encryption[0];
    assert_eq!((rule.bucket.as_deref(), &rule.prefix[..]), (None, "hr/"));
    assert_eq!((rule.require, rule.replace), (Require::Key, true));
}
