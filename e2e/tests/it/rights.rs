//! Who may do what: every operation of every service, asked by everybody.

use std::collections::BTreeSet;
use std::time::Duration;

use auth::token::{LEEWAY_SECONDS, now_seconds};
use auth::{Claims, Role, SigningKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use boot::demo;
use ms_users::signing::{self, Seal};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::service::{Api, becomes, eventually};
use crate::shop::{CREATE_ORDER, Shop, printed, text};

/// What each caller gets: an answer (`ok`), nothing (`null`, or `none` of a list), or a refusal (its code, where
/// `401` stands for UNAUTHENTICATED, `403` for FORBIDDEN and `404` for NOT_FOUND).
///
/// The owner is the USER whose order it is, and the account of a disabled USER was in order when its token was signed.
const MATRIX: &str = "
operation                 anonymous  owner     other     admin     expired  audience  none  disabled
inventory.product         ok         ok        ok        ok        ok       ok        ok    ok
inventory.products        ok         ok        ok        ok        ok       ok        ok    ok
inventory.hold            401        403       403       ok        401      401       401   401
inventory.holds           401        403       403       ok        401      401       401   401
inventory.movements       401        403       403       ok        401      401       401   401
inventory.productEdits    401        403       403       ok        401      401       401   401
inventory.createProduct   401        403       403       ok        401      401       401   401
inventory.updateProduct   401        403       403       ok        401      401       401   401
inventory.deleteProduct   401        403       403       ok        401      401       401   401
inventory.adjustStock     401        403       403       ok        401      401       401   401
inventory.importProducts  401        403       403       ok        401      401       401   401
orders.quote              ok         ok        ok        ok        ok       ok        ok    ok
orders.order              401        ok        null      ok        401      401       401   401
orders.orders             401        ok        none      ok        401      401       401   401
orders.stuckOrders        401        403       403       ok        401      401       401   401
orders.createOrder        401        ok        ok        ok        401      401       401   401
orders.cancelOrder        401        ok        404       ok        401      401       401   401
orders.refundOrder        401        403       403       CONFLICT  401      401       401   401
users.me                  401        ok        ok        ok        401      401       401   401
users.user                401        403       403       ok        401      401       401   401
users.users               401        403       403       ok        401      401       401   401
users.accountChanges      401        403       403       ok        401      401       401   401
users.register            ok         ok        ok        ok        ok       ok        ok    ok
users.login               ok         ok        ok        ok        ok       ok        ok    ok
users.refresh             ok         ok        ok        ok        ok       ok        ok    ok
users.logout              ok         ok        ok        ok        ok       ok        ok    ok
users.changePassword      401        INVALID   INVALID   INVALID   401      401       401   401
users.setRole             401        403       403       ok        401      401       401   401
users.disableUser         401        403       403       ok        401      401       401   401
users.enableUser          401        403       403       ok        401      401       401   401
";

/// A request for an operation. What it names is there: an order of the owner, a product, an account.
async fn request(shop: &Shop, owner: &Api, operation: &str) -> (String, Value) {
    let order = async || text(&owner.ask(CREATE_ORDER, json!({"input": {"items": items()}})).await["id"]);
    let product = async || shop.unannounced_product("1.00", 1).await;
    let new = || json!({"sku": Uuid::now_v7().to_string(), "name": "Thing", "price": "1.00"});
    let account = async || {
        let email = format!("{}@example.com", Uuid::now_v7());
        let register = "mutation($email: String!) { register(email: $email, password: \"correct horse\") {
          refreshToken user { id email }
        } }";
        shop.users.asked_by("").ask(register, json!({"email": email})).await
    };
    let (document, variables) = match operation {
        "inventory.product" => ("query($id: ID!) { product(id: $id) { id } }", json!({"id": product().await})),
        "inventory.products" => ("{ products(first: 1) { nodes { id } } }", json!({})),
        "inventory.hold" => {
            let id = order().await;
            eventually("it is held", async || shop.order(&id).await["status"] == "CONFIRMED").await;
            ("query($id: ID!) { hold(orderId: $id) { status } }", json!({"id": id}))
        }
        "inventory.holds" => ("{ holds(first: 1) { nodes { status } } }", json!({})),
        "inventory.movements" => ("{ movements(first: 1) { nodes { actor } } }", json!({})),
        "inventory.productEdits" => ("{ productEdits(first: 1) { nodes { actor } } }", json!({})),
        "inventory.createProduct" => {
            ("mutation($new: ProductInput!) { createProduct(input: $new) { id } }", json!({"new": new()}))
        }
        "inventory.updateProduct" => (
            "mutation($id: ID!) { updateProduct(id: $id, input: {expectedVersion: 1, price: \"0.01\"}) { id } }",
            json!({"id": product().await}),
        ),
        "inventory.deleteProduct" => {
            ("mutation($id: ID!) { deleteProduct(id: $id) { id } }", json!({"id": product().await}))
        }
        "inventory.adjustStock" => (
            "mutation($id: ID!) { adjustStock(input: {productId: $id, delta: 1}) { id } }",
            json!({"id": product().await}),
        ),
        "inventory.importProducts" => {
            ("mutation($new: [ProductInput!]!) { importProducts(inputs: $new) { id } }", json!({"new": [new()]}))
        }
        "orders.quote" => {
            ("query($items: [ItemInput!]!) { quote(items: $items) { total } }", json!({"items": items()}))
        }
        "orders.order" => ("query($id: ID!) { order(id: $id) { id } }", json!({"id": order().await})),
        "orders.orders" => {
            order().await;
            ("{ orders(first: 1) { nodes { id } } }", json!({}))
        }
        "orders.stuckOrders" => {
            order().await;
            ("{ stuckOrders(olderThanSeconds: 0) { id } }", json!({}))
        }
        "orders.createOrder" => (CREATE_ORDER, json!({"input": {"items": items()}})),
        "orders.cancelOrder" => {
            ("mutation($id: ID!) { cancelOrder(id: $id, reason: \"test\") { id } }", json!({"id": order().await}))
        }
        "orders.refundOrder" => {
            ("mutation($id: ID!) { refundOrder(id: $id, reason: \"test\") { id } }", json!({"id": order().await}))
        }
        "users.me" => ("{ me { id } }", json!({})),
        "users.user" => ("query($id: ID!) { user(id: $id) { id } }", json!({"id": account().await["user"]["id"]})),
        "users.users" => ("{ users(first: 1) { nodes { id } } }", json!({})),
        "users.accountChanges" => ("{ accountChanges(first: 1) { nodes { change } } }", json!({})),
        "users.register" => (
            "mutation($email: String!) { register(email: $email, password: \"correct horse\") { user { id } } }",
            json!({"email": format!("{}@example.com", Uuid::now_v7())}),
        ),
        "users.login" => (
            "mutation($email: String!) { login(email: $email, password: \"correct horse\") { user { id } } }",
            json!({"email": account().await["user"]["email"]}),
        ),
        "users.refresh" => (
            "mutation($token: String!) { refresh(refreshToken: $token) { user { id } } }",
            json!({"token": account().await["refreshToken"]}),
        ),
        "users.logout" => (
            "mutation($token: String!) { logout(refreshToken: $token) }",
            json!({"token": account().await["refreshToken"]}),
        ),
        // The new password is looked at before the old one is.
        "users.changePassword" => {
            ("mutation { changePassword(currentPassword: \"x\", newPassword: \"x\") { user { id } } }", json!({}))
        }
        "users.setRole" => (
            "mutation($id: ID!) { setRole(userId: $id, role: ADMIN) { id } }",
            json!({"id": account().await["user"]["id"]}),
        ),
        "users.disableUser" => {
            ("mutation($id: ID!) { disableUser(userId: $id) { id } }", json!({"id": account().await["user"]["id"]}))
        }
        "users.enableUser" => {
            ("mutation($id: ID!) { enableUser(userId: $id) { id } }", json!({"id": account().await["user"]["id"]}))
        }
        other => panic!("nobody knows how to ask for {other}"),
    };
    (document.to_owned(), variables)
}

/// One of the first product.
fn items() -> Value {
    json!([{"productId": "1", "quantity": 1}])
}

/// What came of a request, as the matrix says it.
fn cell(response: &Value) -> String {
    if let Some(code) = response["errors"][0]["extensions"]["code"].as_str() {
        assert_eq!(response["errors"].as_array().map(Vec::len), Some(1), "{response}");
        return match code {
            "UNAUTHENTICATED" => "401",
            "FORBIDDEN" => "403",
            "NOT_FOUND" => "404",
            other => other,
        }
        .to_owned();
    }
    let field = response["data"].as_object().unwrap_or_else(|| panic!("{response}")).values().next().unwrap();
    let is_empty = |list: &Value| list.as_array().is_some_and(Vec::is_empty);
    if field.is_null() {
        "null".to_owned()
    } else if is_empty(field) || is_empty(&field["nodes"]) {
        "none".to_owned()
    } else {
        "ok".to_owned()
    }
}

/// Everybody who may ask, by the columns of the matrix, each with their token.
async fn callers(shop: &Shop) -> Vec<(&'static str, String)> {
    let owner = shop.register("owner@example.com").await;
    let other = shop.register("other@example.com").await;
    let admin = shop.login(demo::ADMIN_EMAIL, demo::ADMIN_PASSWORD).await;
    let disabled = shop.register("disabled@example.com").await;
    shop.disable("disabled@example.com").await;
    // Not until its tokens count no more.
    for (service, probe) in [
        (&shop.inventory, "{ holds { nodes { status } } }"),
        (&shop.orders, "{ orders { nodes { id } } }"),
        (&shop.users, "{ me { id } }"),
    ] {
        let asked = service.asked_by(&disabled);
        becomes("401".to_owned(), async || cell(&asked.send(probe, &json!({})).await.unwrap())).await;
    }
    // A key that all trust, of which we have the private half.
    let key = SigningKey::generate().unwrap();
    let seal = Seal::of(&demo::KEY_ENCRYPTION_SECRET.into()).unwrap();
    let mut conn = shop.users_pool().await.acquire().await.unwrap();
    signing::add(&mut conn, &seal, &key, Duration::from_secs(3_600)).await.unwrap();
    let now = now_seconds();
    let claims = Claims {
        iss: "ms-users".into(),
        aud: "order-inventory".into(),
        sub: Uuid::from_u128(7),
        role: Role::Admin,
        iat: now,
        exp: now + 900,
    };
    let good = shop.orders.asked_by(&key.sign(&claims).unwrap());
    let probe = async || cell(&good.send("{ orders { nodes { id } } }", &json!({})).await.unwrap()) == "none";
    eventually("the key is trusted, so that it is not the key for which the others are refused", probe).await;
    let past = now - LEEWAY_SECONDS - 1;
    let expired = key.sign(&Claims { iat: past - 900, exp: past, ..claims.clone() }).unwrap();
    let audience = key.sign(&Claims { aud: "somebody else".into(), ..claims.clone() }).unwrap();
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let header = json!({"alg": "none", "typ": "at+jwt", "kid": key.kid()});
    let none = format!("{}.{}.", encode(&header), encode(&serde_json::to_value(&claims).unwrap()));
    vec![
        ("anonymous", String::new()),
        ("owner", owner),
        ("other", other),
        ("admin", admin),
        ("expired", expired),
        ("audience", audience),
        ("none", none),
        ("disabled", disabled),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_may_do_what_the_matrix_says_and_nothing_else() {
    let shop = Shop::open_with_accounts(&[("LOGINS_PER_MINUTE", "100000")]).await;
    shop.product("1.00", 1_000_000).await;
    let callers = callers(&shop).await;
    let mut lines =
        MATRIX.lines().filter(|line| !line.is_empty()).map(|line| line.split_whitespace().collect::<Vec<_>>());
    assert_eq!(lines.next().unwrap()[1..], callers.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    let rows: Vec<Vec<&str>> = lines.collect();

    let operations: BTreeSet<String> = rows.iter().map(|row| row[0].to_owned()).collect();
    let services = [("inventory", &shop.inventory), ("orders", &shop.orders), ("users", &shop.users)];
    let mut served = BTreeSet::new();
    for (name, service) in services {
        let roots = service.ask("{ __schema { types { name fields { name } } } }", json!({})).await;
        let roots = roots["types"].as_array().unwrap().iter();
        let roots = roots.filter(|ty| ["Query", "Mutation", "Subscription"].contains(&ty["name"].as_str().unwrap()));
        let fields = roots.flat_map(|root| root["fields"].as_array().unwrap());
        served.extend(fields.map(|field| format!("{name}.{}", text(&field["name"]))));
    }
    assert_eq!(operations, served, "each operation has a row");

    let owner = shop.orders.asked_by(&callers[1].1);
    let mut wrong = Vec::new();
    for row in &rows {
        let (service, _) = row[0].split_once('.').unwrap();
        let (_, service) = services.into_iter().find(|(name, _)| *name == service).unwrap();
        for ((caller, token), expected) in callers.iter().zip(&row[1..]) {
            let (document, variables) = request(&shop, &owner, row[0]).await;
            let response = service.asked_by(token).send(&document, &variables).await.unwrap();
            if cell(&response) != *expected {
                wrong.push(format!("{} by {caller}: {expected} expected: {response}", row[0]));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn whoever_does_something_is_written_down_by_their_account() {
    let shop = Shop::open_with_accounts(&[]).await;
    let me = async |service: &Api| text(&service.ask("{ me { id } }", json!({})).await["id"]);
    let (admin, customer) = (me(&shop.users).await, shop.register("ann@example.com").await);
    let ann = me(&shop.users.asked_by(&customer)).await;
    let product = shop.product("5.00", 10).await;
    let update = "mutation($id: ID!) { updateProduct(id: $id, input: {expectedVersion: 1, price: \"4.00\"}) { id } }";
    shop.inventory.ask(update, json!({"id": product})).await;
    let adjust = "mutation($id: ID!) { adjustStock(input: {productId: $id, delta: 7}) { id } }";
    shop.inventory.ask(adjust, json!({"id": product})).await;

    let history = "query($id: ID!) { productEdits(productId: $id) { nodes { change price actor } } }";
    let edits = shop.inventory.ask(history, json!({"id": product})).await;
    assert_eq!(
        edits["nodes"],
        json!([
            {"change": "EDITED", "price": "4.00", "actor": admin},
            {"change": "CREATED", "price": "5.00", "actor": admin},
        ])
    );
    let ledger = "query($id: ID!) { movements(productId: $id) { nodes { quantity actor } } }";
    let movements = shop.inventory.ask(ledger, json!({"id": product})).await;
    let booked = json!([{"quantity": 7, "actor": admin}, {"quantity": 10, "actor": admin}]);
    assert_eq!(movements["nodes"], booked);

    let orders = shop.orders.asked_by(&customer);
    let input = json!({"input": {"items": [{"productId": product, "quantity": 1}]}});
    let id = text(&orders.ask(CREATE_ORDER, input).await["id"]);
    shop.order_once(&id, "CONFIRMED").await;
    let cancel = "mutation($id: ID!) { cancelOrder(id: $id, reason: \"out of stock\") { id } }";
    shop.orders.ask(cancel, json!({"id": id})).await;
    let timeline = "query($id: ID!) { order(id: $id) { userId timeline { cause actorId } } }";
    assert_eq!(
        orders.ask(timeline, json!({"id": id})).await,
        json!({"userId": ann, "timeline": [
            {"cause": "createOrder", "actorId": ann},
            {"cause": "StockReserved", "actorId": null},
            {"cause": "cancelOrder", "actorId": admin},
        ]})
    );
}

#[tokio::test]
async fn the_services_go_on_while_ms_users_is_down() {
    let mut shop = Shop::open_with_accounts(&[]).await;
    let product = shop.product("5.00", 10).await;
    shop.users.kill9();
    let order = shop.place(&product, 1).await;
    shop.order_once(&text(&order["id"]), "CONFIRMED").await;
    shop.users.start().await;
    shop.register("ann@example.com").await;
}

#[tokio::test]
async fn whoever_asks_for_too_much_waits_while_others_are_answered() {
    let shop = Shop::open_with_accounts(&[("RATE_LIMIT_COST_PER_SECOND", "200")]).await;
    let (ann, bob) = (shop.register("ann@example.com").await, shop.register("bob@example.com").await);
    let [ann, bob] = [&ann, &bob].map(|token| shop.orders.asked_by(token));
    // It costs 401, of the 2 000 there are at once.
    let page = "{ orders(first: 100) { nodes { id status total } } }";
    let ask = async |caller: &Api| caller.send(page, &json!({})).await.unwrap();
    let mut answered = 0;
    let refused = loop {
        let answer = ask(&ann).await;
        if cell(&answer) != "none" {
            break answer;
        }
        answered += 1;
    };
    assert!(answered >= 4, "{answered}");
    assert_eq!(cell(&refused), "RATE_LIMITED");
    let seconds = refused["errors"][0]["extensions"]["retryAfterSeconds"].as_u64().unwrap();
    assert!((1..=3).contains(&seconds), "{refused}");
    assert_eq!(cell(&ask(&bob).await), "none", "bob pays for himself");
    becomes("none".to_owned(), async || cell(&ask(&ann).await)).await;
}

#[tokio::test]
async fn keys_are_rotated_from_the_command_line_and_nobody_notices() {
    let shop = Shop::open_with_accounts(&[]).await;
    let command = |arguments: &[&str]| {
        let output = shop.run("ms-users", &[&["keys"], arguments].concat());
        assert!(output.status.success(), "{}", printed(&output));
        printed(&output)
    };
    assert_eq!(command(&["list"]).lines().filter(|line| line.ends_with("signs")).count(), 1);
    let rotated = command(&["rotate"]);
    let kid = rotated.split(' ').next().unwrap();
    assert!(rotated.ends_with("signs in a minute\n"), "{rotated}");
    assert!(command(&["list"]).lines().any(|line| line.starts_with(kid) && line.contains("signs from")));
    let me = async || shop.users.ask("{ me { role } }", json!({})).await;
    assert_eq!(me().await["role"], "ADMIN");

    let stolen = command(&["rotate", "--at-once"]);
    let only: Vec<String> = command(&["list"]).lines().map(|line| line.split(' ').next().unwrap().to_owned()).collect();
    assert_eq!(only, [stolen.split(' ').next().unwrap()]);
    let ended = async || cell(&shop.orders.send("{ orders { nodes { id } } }", &json!({})).await.unwrap());
    becomes("401".to_owned(), ended).await;
    let other = [("KEY_ENCRYPTION_SECRET", "another secret of ours")];
    let mut wrong = shop.command("ms-users", &["keys", "rotate"]);
    let wrong = wrong.envs(other).output().unwrap();
    assert!(!wrong.status.success() && printed(&wrong).contains("KEY_ENCRYPTION_SECRET"), "{}", printed(&wrong));
}

#[tokio::test]
async fn the_demo_accounts_are_those_that_are_printed() {
    let printed = dev::accounts::ACCOUNTS.map(|account| (account.role, account.email, account.password));
    assert_eq!(
        printed,
        [("ADMIN", demo::ADMIN_EMAIL, demo::ADMIN_PASSWORD), ("USER", demo::USER_EMAIL, demo::USER_PASSWORD)]
    );
}
