//! The schema under test.

use std::time::Duration;

use async_graphql::{
    Context, EmptySubscription, InputObject, Object, Result, Schema, SchemaBuilder, SimpleObject,
    connection::Connection,
};
use axum::http::request::Parts;
use graphql::{
    Id, Ready, Refusal,
    page::{Cursor, Page, PageSize},
};

pub(crate) struct Query;
pub(crate) struct Mutation;

pub(crate) fn build() -> SchemaBuilder<Query, Mutation, EmptySubscription> {
    Schema::build(Query, Mutation, EmptySubscription).enable_federation()
}

/// An object that leads to itself.
#[derive(Clone, SimpleObject)]
#[graphql(complex)]
pub(crate) struct Item {
    number: i32,
}

#[async_graphql::ComplexObject]
impl Item {
    async fn same(&self) -> Item {
        self.clone()
    }
}

/// An object that may be null in every way.
pub(crate) struct Node;

#[Object]
impl Node {
    async fn number(&self) -> i32 {
        1
    }

    async fn may(&self) -> Option<Node> {
        Some(Node)
    }

    async fn must(&self) -> Node {
        Node
    }

    async fn may_list(&self) -> Vec<Option<Node>> {
        vec![Some(Node), Some(Node)]
    }

    async fn must_list(&self) -> Vec<Node> {
        vec![Node, Node]
    }

    async fn may_break(&self) -> Result<Option<i32>> {
        Err(Refusal::conflict("broken").into())
    }

    async fn must_break(&self) -> Result<i32> {
        Err(Refusal::conflict("broken").into())
    }
}

#[derive(InputObject)]
pub(crate) struct Naming {
    name: String,
    tags: Vec<String>,
}

#[Object]
impl Query {
    async fn may(&self) -> Option<Node> {
        Some(Node)
    }

    async fn must(&self) -> Node {
        Node
    }

    /// The same as `must`, resolved in place.
    async fn ready(&self) -> Ready<Node> {
        Ready(Node)
    }

    async fn item(&self) -> Item {
        Item { number: 1 }
    }

    #[graphql(complexity = "size.max(0) as usize * (1 + child_complexity)")]
    async fn items(&self, size: i32) -> Vec<Item> {
        (0..size).map(|number| Item { number }).collect()
    }

    /// The numbers from 1 to 50.
    #[graphql(complexity = "PageSize::default().cost(first, last, child_complexity)")]
    async fn numbers(
        &self,
        first: Option<i32>,
        after: Option<String>,
        last: Option<i32>,
        before: Option<String>,
    ) -> Result<Connection<Cursor<i32>, i32>> {
        let page = Page::<i32>::parse(first, after, last, before, PageSize::default())?;
        let (after, before) = (page.after.unwrap_or(0), page.before.unwrap_or(51));
        let mut rows: Vec<i32> = (after + 1..before).collect();
        if page.backward {
            rows.reverse();
        }
        rows.truncate(usize::try_from(page.fetch()).unwrap());
        Ok(page.connection(rows, |row| *row, |row| row))
    }

    async fn id(&self, id: Id) -> Id {
        id
    }

    async fn int(&self, int: i32) -> i32 {
        int
    }

    #[graphql(complexity = "1")]
    async fn positive(&self, #[graphql(validator(minimum = 1))] int: i32) -> i32 {
        int
    }

    async fn text(&self, text: String) -> Result<usize> {
        assert!(!text.contains('\0'), "NUL got through the door");
        graphql::text("text", &text, 10)?;
        Ok(text.chars().count())
    }

    async fn named(&self, input: Naming) -> bool {
        assert!(!input.name.contains('\0') && !input.tags.iter().any(|tag| tag.contains('\0')), "NUL got through");
        true
    }

    async fn header(&self, context: &Context<'_>, name: String) -> Result<Option<String>> {
        let value = context.data::<Parts>()?.headers.get(name);
        Ok(value.map(|value| value.to_str().map(Into::into)).transpose()?)
    }

    async fn trace_id(&self, context: &Context<'_>) -> Result<String> {
        Ok(context.data::<trace::Trace>()?.to_string())
    }

    async fn conflict(&self) -> Result<i32> {
        Err(Refusal::conflict("the stock has changed").with("current", 7).into())
    }

    async fn missing(&self) -> Result<Option<i32>> {
        Err(Refusal::not_found("there is no such thing"))?
    }

    async fn fault(&self) -> Result<Option<i32>> {
        Err(anyhow::anyhow!("secret: the password is hunter2").context("reading the table"))?
    }

    async fn worded_fault(&self) -> Result<Option<i32>> {
        Err(async_graphql::Error::new("secret: the table is named t"))
    }

    async fn parse_fault(&self) -> Result<Option<i32>> {
        Ok(Some("secret".parse()?))
    }

    async fn panic(&self) -> usize {
        let nothing: [i32; 0] = [];
        nothing.iter().position(|number| *number == 1).expect("secret: an invariant")
    }

    async fn sleep(&self, millis: u32) -> u32 {
        tokio::time::sleep(Duration::from_millis(millis.into())).await;
        millis
    }
}

#[Object]
impl Mutation {
    async fn change(&self) -> bool {
        true
    }

    async fn refuse(&self) -> Result<Option<bool>> {
        Err(Refusal::conflict("refused").into())
    }
}
