//! Load balancer in front of S3 endpoints.
