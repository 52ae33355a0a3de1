//! Puts a sample catalogue into the database, and prints what is there. Running it again adds what is missing and
//! changes nothing else.

use anyhow::{Context, bail};
use boot::config::parse;
use clap::Parser;
use messaging::Trace;
use ms_inventory::config::Database;
use ms_inventory::product::{self, Batch, Cause, Draft, Field, Filter, Form, Order, Product, Slice};
use rust_decimal::Decimal;
use sqlx::PgConnection;

/// Fill the catalogue with sample products.
#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    database: Database,
}

/// A product to sell: SKU, name, price in hundredths, how many, description.
type Sample = (&'static str, &'static str, i64, i64, &'static str);

const SAMPLES: &[Sample] = &[
    ("MUG-STONE-350", "Stoneware mug, 350 ml", 1490, 500, "Thrown by hand, glazed inside and out. Fits a dishwasher."),
    ("KETTLE-GOOSE-1L", "Gooseneck kettle, 1 l", 5990, 120, "Stainless steel, with a thermometer in the lid."),
    (
        "GRINDER-HAND-38",
        "Hand coffee grinder, 38 mm burrs",
        8900,
        80,
        "Conical steel burrs and 36 steps, for two cups.",
    ),
    ("DRIPPER-V60-02", "Ceramic dripper, size 02", 2450, 200, "White porcelain for one to four cups."),
    ("FILTER-02-100", "Paper filters, size 02, 100 pieces", 690, 2_000, "Unbleached."),
    ("BEANS-ETH-250", "Coffee beans, Ethiopia Guji, 250 g", 1350, 300, "Washed; tastes of apricot and jasmine."),
    ("BEANS-COL-1000", "Coffee beans, Colombia Huila, 1 kg", 3890, 150, "Washed; tastes of chocolate and red apple."),
    ("TEAPOT-IRON-08", "Cast iron teapot, 0.8 l", 7400, 40, "Enamelled inside, with a strainer."),
    ("TEA-SENCHA-100", "Sencha, first flush, 100 g", 1890, 250, "From Shizuoka, harvested in May."),
    ("TRAY-OAK-40", "Serving tray, oiled oak, 40 cm", 4600, 60, "Made of one piece."),
    ("SCALE-BREW-2K", "Brewing scale, 2 kg", 4990, 90, "Reads to 0.1 g, with a timer. Charged by USB-C."),
    ("TOWEL-LINEN-2", "Linen kitchen towels, 2 pieces", 2200, 180, "Woven of Baltic flax, 50 × 70 cm."),
    ("JAR-GLASS-1L", "Storage jar, 1 l", 1190, 400, "Borosilicate glass with a bamboo lid."),
    ("SPOON-CUPPING", "Cupping spoon", 990, 350, "A deep bowl, for tasting."),
    ("MACHINE-LEVER", "Lever espresso machine", 89_900, 3, "Brass and chrome, built to order."),
    ("ROASTER-SAMPLE", "Sample roaster, 100 g", 124_000, 1, "The last one of its series."),
    ("MUG-ANNIV-LTD", "Anniversary mug, limited edition", 3900, 2, "Numbered and signed by the potter."),
    ("GRINDER-FLAT-64", "Electric grinder, 64 mm burrs", 45_000, 0, "Sold out until the next delivery."),
];

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let database = parse::<Cli>().database;
    let database = ms_inventory::database(&database)?;
    database.migrate(&ms_inventory::MIGRATIONS).await?;
    let mut tx = database.pool.begin().await?;
    let added = add_missing(&mut tx).await?;
    let there = samples(&mut tx).await?;
    tx.commit().await?;

    println!("{:>6}  {:<16} {:<36} {:>9} {:>8}", "id", "SKU", "name", "price", "on hand");
    for Product { id, sku, name, price, on_hand, .. } in &there {
        println!("{id:>6}  {sku:<16} {name:<36} {price:>9} {on_hand:>8}");
    }
    println!("{added} of {} sample products added", SAMPLES.len());
    Ok(())
}

/// Adds the samples whose SKU is not taken, and tells how many.
async fn add_missing(conn: &mut PgConnection) -> anyhow::Result<usize> {
    // Two that run at once take turns, so that neither finds a SKU taken that it found missing.
    product::take_turns(conn).await?;
    let there = samples(conn).await?;
    let missing = SAMPLES.iter().filter(|(sku, ..)| there.iter().all(|product| product.sku != *sku));
    let Ok(batch) = Batch::of(missing.map(draft)) else {
        bail!("a sample breaks the rules of the catalogue");
    };
    let cause = Cause { actor: "seed".to_owned(), trace: Trace::start() };
    let added = product::import(conn, &batch, &cause).await.context("cannot add the samples")?;
    Ok(added.len())
}

/// The samples that are in the catalogue, by id.
async fn samples(conn: &mut PgConnection) -> sqlx::Result<Vec<Product>> {
    let filter =
        Filter { skus: Some(SAMPLES.iter().map(|(sku, ..)| (*sku).to_owned()).collect()), ..Filter::default() };
    let order = Order { field: Field::Id, descending: false };
    let all = Slice { after: None, before: None, backward: false, limit: SAMPLES.len() as i64 };
    product::page(conn, &filter, order, all).await
}

fn draft(&(sku, name, price_cents, on_hand, description): &Sample) -> Result<Draft, Vec<product::Invalid>> {
    let form = Form {
        sku: Some(sku.to_owned()),
        name: Some(name.to_owned()),
        description: Some(description.to_owned()),
        price: Some(Decimal::new(price_cents, 2)),
    };
    Draft::of(form, on_hand)
}
