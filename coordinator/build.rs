//! Has the crate built again when a migration is added: `sqlx::migrate!` sees only those that it knew.

fn main() {
    println!("cargo::rerun-if-changed=src/store/migrations");
}
