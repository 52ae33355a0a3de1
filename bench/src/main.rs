//! The benchmark's program, see [`bench`].

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    bench::run().await
}
