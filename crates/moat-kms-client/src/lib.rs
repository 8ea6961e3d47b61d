//! Key-manager wire types and client; the only way others speak to it.
