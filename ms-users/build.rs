//! Has cargo notice a new migration, which `sqlx::migrate!` embeds.

fn main() {
    println!("cargo::rerun-if-changed=../migrations/users");
}
