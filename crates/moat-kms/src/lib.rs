//! Key manager: keys, policies, audit, its wire fronts.
