use anyhow::Result;
use clap::Args;
use dev::psql;

use super::super::catalogue::{NEXT_ID, PLENTY, names};

/// What a shop has stored after years.
#[derive(Debug, Clone, Copy, Args)]
pub struct History {
    /// Holds that `size` stores before it measures
    #[arg(id = "stored_holds", long = "stored-holds", default_value_t = 10_000_000, hide = true)]
    pub holds: i64,
    /// Products that `size` stores before it measures
    #[arg(id = "stored_products", long = "stored-products", default_value_t = 1_000_000, hide = true)]
    pub products: i64,
}

/// One statement for each hold or line would take an hour; sold quantities are one movement a product, because no order
/// reads movements. Ids sort before those of the orders that come, as the ids of older orders do.
impl History {
    /// Stores it in a database that is migrated and empty, such that stock, holds and movements agree.
    pub fn store(self, database_url: &str) -> Result<()> {
        let Self { holds, products } = self;
        psql::execute(
            database_url,
            &[
                // For this session: nothing here would be missed, and foreign keys need no proof.
                "set synchronous_commit = off",
                "set session_replication_role = replica",
                "set work_mem = '256MB'",
                "set maintenance_work_mem = '512MB'",
                &names(products),
                NEXT_ID,
                &stored_holds(holds, products),
                "create temporary table lines as \
                 select line.product_id, \
                        coalesce(sum(line.quantity) filter (where status = 'committed'), 0)::bigint as sold, \
                        coalesce(sum(line.quantity) filter (where status = 'held'), 0)::bigint as reserved \
                 from holds, unnest(product_ids, quantities) as line (product_id, quantity) \
                 where status in ('committed', 'held') \
                 group by line.product_id",
                &format!(
                    "insert into stock (product_id, on_hand, reserved) \
                     select id, {PLENTY} - coalesce(sold, 0), coalesce(reserved, 0) \
                     from products left join lines on product_id = id order by id"
                ),
                &format!(
                    "insert into movements (product_id, quantity, reason, actor) \
                     select id, {PLENTY}, 'received', 'bench' from products order by id"
                ),
                "insert into movements (product_id, quantity, reason, actor) \
                 select product_id, -sold, 'committed', 'bench' from lines where sold > 0 order by product_id",
                "drop table lines",
                "vacuum analyze",
                "checkpoint",
            ],
        )?;
        Ok(())
    }
}

/// Of each hundred 1 is still held, 75 are sold, 14 were cancelled, 5 expired and 5 were rejected; one order each three
/// seconds, up to now.
fn stored_holds(holds: i64, products: i64) -> String {
    format!(
        "insert into holds \
             (order_id, status, product_ids, quantities, expires_at, reason, shortages, created_at, settled_at) \
         select 'A' || lpad(number::text, 12, '0'), status::hold_status, \
                array[least(first, second), greatest(first, second)], '{{1,1}}', \
                case status when 'rejected' then null when 'held' then now() + interval '1 day' \
                            else created_at + interval '15 minutes' end, \
                case status when 'rejected' then 'INSUFFICIENT_STOCK' end, \
                case status when 'rejected' \
                            then jsonb_build_array(jsonb_build_object('product_id', first, 'requested', 1, 'available', 0)) end, \
                created_at, \
                case status when 'held' then null when 'rejected' then null else created_at + interval '5 minutes' end \
         from ( \
             select number, \
                    1 + number * 7919 % {products} as first, \
                    1 + (number * 7919 + 1 + number % ({products} - 1)) % {products} as second, \
                    now() - ({holds} - number) * interval '3 seconds' as created_at, \
                    case when number % 100 = 0 then 'held' when number % 100 < 76 then 'committed' \
                         when number % 100 < 90 then 'released' when number % 100 < 95 then 'expired' \
                         else 'rejected' end as status \
             from generate_series(1::bigint, {holds}) as number \
         ) as history"
    )
}
