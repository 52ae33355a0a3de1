//! ms-users on a real database, as its clients see it.

mod accounts;
mod guessing;
mod keys;
mod schema;
mod sessions;
mod world;
