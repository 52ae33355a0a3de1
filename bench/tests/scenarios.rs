//! Each scenario of orders in small, on real servers: figures mean nothing here, but each order must be answered, the
//! doctor must agree, and every row must be there. Two tests with servers of their own, so that they run side by side.

use std::time::Duration;

use bench::Effort;
use bench::ground::Ground;
use bench::report::Section;
use bench::scenario::size::History;
use bench::scenario::{backlog, hot, instances, latency, orders, overload, paid, rejections, size, soak, throughput};
use dev::testing::Folder;

const EFFORT: Effort = Effort { rounds: 1, length: Duration::from_millis(100), busy_machine: true };

fn has_figures(section: &Section, rows: usize) {
    assert_eq!(section.rows.len(), rows, "{section}");
    for row in &section.rows {
        assert!(row.ratio.median.is_finite(), "{section}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scenarios_of_what_the_engine_decides_come_to_their_end_and_their_figures() {
    let folder = Folder::create("bench").unwrap();
    let ground = Ground::below(folder.path().join("servers")).unwrap();
    let description = ground.description().unwrap();
    for setting in ["fsync on", "synchronous_commit on", "full_page_writes on", "RabbitMQ: ", "Erlang "] {
        assert!(description.contains(setting), "{description}");
    }
    let (section, chart) = throughput::run(&ground, EFFORT).await.unwrap();
    has_figures(&section, 8);
    assert!(chart.draw().unwrap().contains("1\u{202f}000 in flight"));
    has_figures(&backlog::run(&ground, EFFORT, 500).await.unwrap(), 2);
    has_figures(&hot::run(&ground, EFFORT).await.unwrap(), 4);
    has_figures(&rejections::run(&ground, EFFORT).await.unwrap(), 2);
    has_figures(&paid::run(&ground, EFFORT).await.unwrap(), 2);
    has_figures(&instances::run(&ground, EFFORT).await.unwrap(), 2);
    assert_eq!(ground.voids().count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scenarios_of_time_and_growth_come_to_their_end_and_their_figures() {
    let folder = Folder::create("bench").unwrap();
    let ground = Ground::below(folder.path().join("servers")).unwrap();
    let (section, chart) = latency::run(&ground, EFFORT).await.unwrap();
    has_figures(&section, 1);
    assert!(chart.draw().unwrap().contains("echo p99"));
    has_figures(&orders::run(&ground, EFFORT).await.unwrap(), 3);
    has_figures(&size::run(&ground, EFFORT, History { holds: 2_000, products: 500 }).await.unwrap(), 3);
    has_figures(&overload::run(&ground, EFFORT).await.unwrap(), 3);
    has_figures(&soak::run(&ground, EFFORT, 200).await.unwrap(), 3);
    assert_eq!(ground.voids().count(), 0);
}
