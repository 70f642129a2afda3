//! The rules of ARCHITECTURE.md and of style as a test.
