//! S3 as pure data: SigV4, chunk framing, XML, error codes.
