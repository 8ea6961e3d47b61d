//! The readers of request documents.

#![no_main]

use libfuzzer_sys::fuzz_target;
use moat_s3::xml::{
    XmlWriter, encryption_configuration, read_bucket_encryption, read_complete_multipart_upload,
    read_create_bucket_configuration, read_delete, read_versioning_configuration,
    versioning_configuration,
};

fuzz_target!(|input: &[u8]| {
    if let Ok(delete) = read_delete(input) {
        for object in &delete.objects {
            key_reads_back(&object.key);
        }
    }
    let _ = read_complete_multipart_upload(input);
    let _ = read_create_bucket_configuration(input);
    if let Ok(rule) = read_bucket_encryption(input) {
        let again = read_bucket_encryption(&encryption_configuration(&rule));
        assert_eq!(again.expect("what was written reads back"), rule);
    }
    if let Ok(status) = read_versioning_configuration(input) {
        let again = read_versioning_configuration(&versioning_configuration(Some(status)));
        assert_eq!(again.expect("what was written reads back"), status);
    }
});

fn key_reads_back(key: &str) {
    let mut xml = XmlWriter::document(64);
    xml.open_root("Delete");
    xml.open("Object");
    xml.text("Key", key);
    xml.close("Object");
    xml.close("Delete");
    let delete = read_delete(&xml.finish()).expect("what was written is well formed");
    assert_eq!(delete.objects[0].key, key);
}
