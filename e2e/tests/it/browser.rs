//! The playground in a real browser, by Playwright.

use dev::install::{Need, on_path};
use dev::{playground, workspace};

use crate::shop::{Shop, printed};

pub(crate) const INSTALL: &str = "`cargo dev test` installs it, or type: sudo apt-get install -y chromium nodejs npm";

#[tokio::test]
async fn the_playground_of_each_service_works_in_a_browser_without_internet() {
    assert!(Need::Npm.is_met(), "there is no npm; {INSTALL}");
    let browsers = ["chromium", "chromium-browser", "google-chrome"];
    let chromium = browsers.iter().find_map(|name| on_path(name));
    let chromium = chromium.unwrap_or_else(|| panic!("there is no chromium; {INSTALL}"));

    let shop = Shop::seeded_with_accounts().await;
    let folder = workspace::root().unwrap().join("e2e/browser");
    playground::install_packages(shop.folder(), &folder, |_| ()).unwrap();
    let mut tests = playground::npm(&folder, &["test", "--silent"]);
    tests
        .env("INVENTORY_URL", &shop.inventory.url)
        .env("ORDERS_URL", &shop.orders.url)
        .env("USERS_URL", &shop.users.url)
        .env("CHROMIUM", chromium);
    let tested = tests.output().unwrap();
    assert!(tested.status.success(), "{}", printed(&tested));
}
