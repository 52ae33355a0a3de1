//! Holds as people look at them.
