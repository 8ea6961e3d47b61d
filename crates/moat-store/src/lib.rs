//! S3 object store: buckets, objects, multipart, conditions.
