use auth::Role;
use dev::testing::Vhost;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::world::{CREATE, World, token};

const CANCEL: &str = "mutation($id: ID!, $key: String) {
  cancelOrder(id: $id, reason: \"changed my mind\", idempotencyKey: $key) { id status }
}";

#[tokio::test]
async fn an_idempotency_key_is_its_users_own() {
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    world.sell(&[(1, "10.00")]).await;
    let instance = world.start(&vhost, &[]).await;
    let [ann, bob] = [1, 2].map(|n| token(Uuid::from_u128(n), Role::User));
    let input = json!({"input": {"items": [{"productId": "1", "quantity": 1}], "idempotencyKey": "same"}});
    let place =
        async |token: &str| instance.send_as(token, CREATE, input.clone()).await["data"]["createOrder"]["id"].clone();
    let (anns, bobs) = (place(&ann).await, place(&bob).await);
    assert!(anns.is_string() && bobs.is_string());
    assert_ne!(anns, bobs, "bob's key does not lead to ann's order");
    assert_eq!((place(&ann).await, place(&bob).await), (anns.clone(), bobs.clone()));

    let cancel =
        async |token: &str, id: &Value| instance.send_as(token, CANCEL, json!({"id": id, "key": "same"})).await;
    for (token, id) in [(&ann, &anns), (&bob, &bobs), (&ann, &anns)] {
        assert_eq!(cancel(token, id).await["data"]["cancelOrder"]["status"], "CANCELLED");
    }
    assert_eq!(cancel(&ann, &bobs).await["errors"][0]["extensions"]["code"], "NOT_FOUND");
}

#[tokio::test]
async fn a_user_lists_and_counts_their_own_orders_page_by_page() {
    let (world, vhost) = (World::new().await, Vhost::create().unwrap());
    world.sell(&[(1, "10.00")]).await;
    let instance = world.start(&vhost, &[]).await;
    let users = [1, 2].map(Uuid::from_u128);
    let [ann, bob] = users.map(|id| token(id, Role::User));
    let admin = token(Uuid::from_u128(3), Role::Admin);
    let mut placed = Vec::new();
    for token in [&ann, &bob, &ann, &ann] {
        let input = json!({"input": {"items": [{"productId": "1", "quantity": 1}]}});
        placed.push(instance.send_as(token, CREATE, input).await["data"]["createOrder"]["id"].clone());
    }
    instance.send_as(&ann, CANCEL, json!({"id": placed[2]})).await;
    let list = async |token: &str, variables: Value| {
        let query = "query($first: Int, $after: String, $status: OrderStatus, $user: UUID) {
          orders(first: $first, after: $after, status: $status, userId: $user) {
            totalCount nodes { id userId } pageInfo { endCursor }
          }
        }";
        let orders = instance.send_as(token, query, variables).await["data"]["orders"].clone();
        let ids: Vec<Value> = orders["nodes"].as_array().unwrap().iter().map(|order| order["id"].clone()).collect();
        (ids, orders["totalCount"].clone(), orders["pageInfo"]["endCursor"].clone())
    };
    let of = |numbers: &[usize]| numbers.iter().map(|&n| placed[n].clone()).collect::<Vec<_>>();
    let (first, count, cursor) = list(&ann, json!({"first": 2})).await;
    assert_eq!((first, count), (of(&[3, 2]), json!(3)));
    assert_eq!(list(&ann, json!({"first": 2, "after": cursor})).await.0, of(&[0]));
    assert_eq!(list(&ann, json!({"status": "PENDING"})).await.0, of(&[3, 0]));
    assert_eq!(list(&bob, json!({})).await.0, of(&[1]));
    let anns = json!({"user": users[0]});
    let refused = instance.send_as(&bob, "query($user: UUID) { orders(userId: $user) { totalCount } }", anns).await;
    assert_eq!(refused["errors"][0]["extensions"]["code"], "FORBIDDEN");
    assert_eq!(list(&admin, json!({})).await.0, of(&[3, 2, 1, 0]));
    assert_eq!(list(&admin, json!({"user": users[1]})).await.0, of(&[1]));
}
