use std::{any::Any, sync::Arc, time::Duration};

use async_graphql::{
    Executor, ObjectType, Request, Schema, SchemaBuilder, ServerError, SubscriptionType, ValidationMode,
    parser::types::OperationType,
};
use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, Method, Response, StatusCode, header, request::Parts},
    routing::get,
};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::time::{Instant, timeout_at};
use trace::Trace;

use crate::{
    Limits, Refusal,
    completion::{self, FieldTypes},
    cost, document,
    documents::{Documents, Recall},
    errors, playground, price, request,
    response::{self, Accept, Denied, Media},
    throttle::Throttle,
    validator::{self, Validator},
};

type HttpRequest = axum::http::Request<Body>;
type HttpResponse = Response<Body>;

/// Serves a schema at `/graphql`, and the playground's files below `/playground/`.
///
/// It takes the builder, not the schema, because two of the [`Limits`] are set there, and would otherwise be forgotten.
///
/// # Panics
///
/// Panics where the roots are not named `Query`, `Mutation` and `Subscription`: the SDL has no `schema { … }` block,
/// so under other names it could not be composed with another service's.
pub fn router<Q, M, S>(schema: SchemaBuilder<Q, M, S>, limits: Limits) -> Router
where
    Q: ObjectType + 'static,
    M: ObjectType + 'static,
    S: SubscriptionType + 'static,
{
    assert_eq!(Q::type_name(), "Query", "the root of queries has another name");
    assert!(M::is_empty() || M::type_name() == "Mutation", "the root of mutations has another name");
    assert!(S::is_empty() || S::type_name() == "Subscription", "the root of subscriptions has another name");

    let schema = limits.apply(schema).validation_mode(ValidationMode::Fast).finish();
    let validator = validator::beside(&schema, &limits);
    let types = FieldTypes::of(&schema.sdl());
    let documents = Documents::new(limits.max_remembered_bytes);
    let throttle = Throttle::new(limits.cost_per_second);
    let edge = Arc::new(Edge { schema, validator, documents, types, throttle, limits });
    let methods = get(on_get::<Schema<Q, M, S>, Validator<Q, M, S>>)
        .post(on_post::<Schema<Q, M, S>, Validator<Q, M, S>>)
        .fallback(on_other_method);
    Router::new().route("/graphql", methods).merge(playground::router()).with_state(edge)
}

struct Edge<E, V> {
    schema: E,
    validator: V,
    documents: Documents,
    types: FieldTypes,
    throttle: Option<Throttle>,
    limits: Limits,
}

async fn on_post<E: Executor, V: Executor>(State(edge): State<Arc<Edge<E, V>>>, request: HttpRequest) -> HttpResponse {
    let (head, body) = request.into_parts();
    answer(edge, head, async |head: &Parts, limits: &Limits| {
        request::check_content_type(&head.headers)?;
        let body = read_body(&head.headers, body, limits.max_body_bytes).await?;
        request::from_body(&body)
    })
    .await
}

async fn on_get<E: Executor, V: Executor>(State(edge): State<Arc<Edge<E, V>>>, request: HttpRequest) -> HttpResponse {
    let (head, _) = request.into_parts();
    if !request::has_query(&head.uri) && Accept::of(&head.headers).prefers_html() {
        return playground::page();
    }
    answer(edge, head, async |head: &Parts, _limits: &Limits| request::from_query_string(&head.uri)).await
}

async fn on_other_method(headers: HeaderMap) -> HttpResponse {
    let media = Media::negotiate(&Accept::of(&headers)).unwrap_or(Media::FALLBACK);
    Denied::method_not_allowed("send a query by GET or POST, a mutation by POST").write(media)
}

/// Reads and executes a request in the time there is, and turns whatever becomes of it into a response.
///
/// It is executed in a task of its own: a client that hangs up ends the reading and the writing, and not what is executed in
/// between, which would then stop in the middle of a statement.
async fn answer<E: Executor, V: Executor>(
    edge: Arc<Edge<E, V>>,
    head: Parts,
    read: impl AsyncFnOnce(&Parts, &Limits) -> Result<Request, Denied>,
) -> HttpResponse {
    let Some(media) = Media::negotiate(&Accept::of(&head.headers)) else {
        let message = "answers are application/graphql-response+json or application/json";
        return Denied::new(StatusCode::NOT_ACCEPTABLE, Refusal::invalid(message)).write(Media::FALLBACK);
    };
    let parent = head.headers.get(Trace::HEADER).and_then(|header| Trace::parse(header.to_str().ok()?));
    let trace = parent.unwrap_or_else(Trace::start);
    let deadline = Instant::now() + edge.limits.request_timeout;
    let request = match timeout_at(deadline, read(&head, &edge.limits)).await {
        Ok(Ok(request)) => request,
        Ok(Err(denied)) => return denied.write(media),
        Err(_elapsed) => return timed_out(&edge.limits, trace, media),
    };
    let limits = edge.limits.clone();
    let executing = async move { timeout_at(deadline, execute(&edge, head, trace, request)).await };
    match tokio::spawn(executing).await {
        Ok(Ok(Ok(mut executed))) => {
            errors::settle(&mut executed.errors, trace);
            response::write_executed(executed, media)
        }
        Ok(Ok(Err(denied))) => denied.write(media),
        Ok(Err(_elapsed)) => timed_out(&limits, trace, media),
        Err(ended) => {
            let panic = ended.try_into_panic().ok();
            tracing::error!(trace.id = %trace, error = panic.as_deref().map_or("?", panic_message), "a request panicked");
            let error = errors::internal("internal error", trace);
            response::write_errors(StatusCode::INTERNAL_SERVER_ERROR, &[error], media)
        }
    }
}

fn timed_out(limits: &Limits, trace: Trace, media: Media) -> HttpResponse {
    let seconds = limits.request_timeout.as_secs_f32();
    tracing::warn!(trace.id = %trace, timeout_seconds = seconds, "a request timed out");
    let error = errors::internal(format!("timed out after {seconds} s"), trace);
    response::write_errors(StatusCode::GATEWAY_TIMEOUT, &[error], media)
}

async fn execute<E: Executor, V: Executor>(
    edge: &Edge<E, V>,
    head: Parts,
    trace: Trace,
    mut request: Request,
) -> Result<async_graphql::Response, Denied> {
    let recall = edge.documents.recall(&mut request);
    if recall == Recall::New
        && let Err(error) = admit(&mut request, &edge.limits)
    {
        return Ok(async_graphql::Response::from_errors(vec![error]));
    }
    if head.method != Method::POST && !is_query(&mut request) {
        return Err(Denied::method_not_allowed("only a query can be sent by GET: send a mutation by POST"));
    }
    if recall != Recall::Valid {
        let errors = validator::validate(&edge.validator, &mut request).await;
        if !errors.is_empty() {
            return Ok(async_graphql::Response::from_errors(errors));
        }
        edge.documents.remember(&mut request);
    }
    if let (Some(throttle), Some(payer)) = (&edge.throttle, head.extensions.get())
        && let Err(refusal) = throttle.charge(*payer, charged(&mut request))
    {
        return Ok(async_graphql::Response::from_errors(vec![errors::refused(&refusal)]));
    }
    let operation_name = request.operation_name.clone();
    // It is parsed: the schema does not look at the text again.
    let query = std::mem::take(&mut request.query);
    let mut executed = edge.schema.execute(request.data(head).data(trace)).await;
    if executed.is_err() {
        completion::complete(&mut executed, &query, operation_name.as_deref(), &edge.types);
    }
    Ok(executed)
}

/// Parses the document and decides whether it may be executed.
fn admit(request: &mut Request, limits: &Limits) -> Result<(), ServerError> {
    document::scan(&request.query, limits.max_tokens).map_err(|refusal| errors::refused(&refusal))?;
    let document = request.parsed_query().map_err(errors::unparsable)?;
    cost::check(document, limits).map_err(|refusal| errors::refused(&refusal))
}

/// What the request costs.
fn charged(request: &mut Request) -> u32 {
    let (operation_name, variables) = (request.operation_name.take(), std::mem::take(&mut request.variables));
    let price =
        request.parsed_query().map_or(1, |document| price::price(document, operation_name.as_deref(), &variables));
    (request.operation_name, request.variables) = (operation_name, variables);
    price
}

/// Whether nothing but a query would be executed. Where it is not clear what would be, nothing is.
fn is_query(request: &mut Request) -> bool {
    let operation_name = request.operation_name.clone();
    let document = request.parsed_query().ok();
    let operation = document.and_then(|document| cost::operation(document, operation_name.as_deref()));
    operation.is_none_or(|operation| operation.ty == OperationType::Query)
}

async fn read_body(headers: &HeaderMap, mut body: Body, max_bytes: usize) -> Result<Bytes, Denied> {
    let too_large = || {
        let message = format!("the body is larger than {max_bytes} bytes");
        Denied::new(StatusCode::PAYLOAD_TOO_LARGE, Refusal::too_complex(message).with("max", max_bytes as u64))
    };
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > max_bytes as u64) {
        // Who waits to be told to go on sends nothing if told otherwise.
        if !headers.contains_key(header::EXPECT) {
            read_away(body).await;
        }
        return Err(too_large());
    }
    match Limited::new(&mut body, max_bytes).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            read_away(body).await;
            Err(too_large())
        }
        Err(_) => Err(Denied::new(StatusCode::BAD_REQUEST, Refusal::invalid("the body breaks off"))),
    }
}

/// Reads what the client is still sending, and forgets it. A connection that is closed with something unread is reset,
/// and many a client then sees the reset and not the answer.
async fn read_away(mut body: Body) {
    const MAX_BYTES: usize = 64 * 1024 * 1024;
    const PATIENCE: Duration = Duration::from_secs(5);
    let reading = async {
        let mut bytes = 0;
        while let Some(Ok(frame)) = body.frame().await {
            bytes += frame.data_ref().map_or(0, Bytes::len);
            if bytes > MAX_BYTES {
                break;
            }
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.ok();
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("?")
}
