use anyhow::{Context, Result};
use dev::psql;

use super::super::side::Side;
use crate::load::Measured;
use crate::machine;

/// How it stood at one moment.
#[derive(Debug)]
pub(super) struct Sample {
    /// Orders answered in all.
    answered: u64,
    /// Orders per second since the sample before.
    pub(super) per_second: f64,
    p99_ms: f64,
    memory_mib: f64,
    /// Rows of `stock` that autovacuum has not yet come to.
    pub(super) stock_dead: i64,
    /// How often it came to `stock`.
    pub(super) stock_vacuums: i64,
    holds_dead: i64,
    holds_vacuums: i64,
    /// The table with its index.
    pub(super) stock_mib: f64,
    holds_mib: f64,
    holds_indexes_mib: f64,
}

impl Sample {
    pub(super) fn take(side: &Side, measured: &Measured) -> Result<Self> {
        let statement = "select n_dead_tup, autovacuum_count, pg_table_size(relid), pg_indexes_size(relid) \
                         from pg_stat_user_tables where relname in ('holds', 'stock') order by relname";
        let text = psql::execute(side.service.database_url()?, &[statement])?;
        let figures: Vec<i64> = text.split(['|', '\n']).map(str::parse).collect::<Result<_, _>>()?;
        let [holds_dead, holds_vacuums, holds, holds_indexes, stock_dead, stock_vacuums, stock, stock_index] =
            figures[..]
        else {
            anyhow::bail!("no statistics of holds and stock")
        };
        let pid = side.service.pids().pop().context("no instance")?;
        Ok(Self {
            answered: side.client.reserved(),
            per_second: measured.per_second,
            p99_ms: measured.latency_ms(0.99),
            memory_mib: machine::memory_mib(pid)?,
            stock_dead,
            stock_vacuums,
            holds_dead,
            holds_vacuums,
            stock_mib: mib(stock + stock_index),
            holds_mib: mib(holds),
            holds_indexes_mib: mib(holds_indexes),
        })
    }

    fn line(&self) -> String {
        let Self { answered, per_second, p99_ms, memory_mib, stock_dead, stock_vacuums, .. } = self;
        let Self { holds_dead, holds_vacuums, stock_mib, holds_mib, holds_indexes_mib, .. } = self;
        format!(
            "| {answered} | {per_second:.0} | {p99_ms:.1} | {memory_mib:.1} | {stock_dead} / {stock_vacuums} | {stock_mib:.1} \
             | {holds_dead} / {holds_vacuums} | {holds_mib:.0} + {holds_indexes_mib:.0} |"
        )
    }
}

/// Samples as Markdown.
pub(super) fn table(samples: &[&Sample]) -> String {
    let head = "| orders | orders/s | p99, ms | ms-inventory, MiB | stock: dead rows / autovacuums | stock, MiB \
                | holds: dead rows / autovacuums | holds + indexes, MiB |\n|---|---|---|---|---|---|---|---|";
    samples.iter().fold(head.to_owned(), |table, sample| table + "\n" + &sample.line())
}

fn mib(bytes: i64) -> f64 {
    bytes as f64 / 1_048_576.0
}
