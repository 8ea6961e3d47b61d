//! Contract suites and faulty engines.
