//! The header `authorization: Bearer <token>` ([RFC 6750]).
//!
//! [RFC 6750]: https://www.rfc-editor.org/rfc/rfc6750#section-2.1

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use boot::client::ClientAddress;
use graphql::Payer;

use crate::caller::Identity;
use crate::token::{Refused, Verifier};

/// Has each request tell who asks and is charged for it: its extensions have an [`Identity`] and a [`Payer`].
pub fn identified(routes: Router, verifier: Verifier) -> Router {
    routes.layer(middleware::from_fn_with_state(verifier, identify))
}

async fn identify(State(verifier): State<Verifier>, mut request: Request, next: Next) -> Response {
    let identity = match token(request.headers()) {
        None => Identity::Anonymous,
        Some(Err(refused)) => Identity::Refused(refused),
        Some(Ok(token)) => verifier.verify(token).await.map_or_else(Identity::Refused, Identity::Known),
    };
    if let Identity::Refused(refused) = &identity {
        metrics::counter!("tokens_refused_total", "reason" => refused.label()).increment(1);
    }
    let payer = match (&identity, request.extensions().get::<ClientAddress>()) {
        (Identity::Known(caller), _) => Some(Payer::Account(caller.user_id.as_u128())),
        (Identity::Anonymous | Identity::Refused(_), address) => {
            address.map(|address| Payer::Network(address.network()))
        }
    };
    if let Some(payer) = payer {
        request.extensions_mut().insert(payer);
    }
    request.extensions_mut().insert(identity);
    next.run(request).await
}

/// The token of a request, which may bring one.
fn token(headers: &HeaderMap) -> Option<Result<&str, Refused>> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next()?;
    if values.next().is_some() {
        return Some(Err(Refused::Invalid));
    }
    let token = value.to_str().ok().and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    Some(token.ok_or(Refused::Invalid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_what_follows_the_word_bearer() {
        let of = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::AUTHORIZATION, value.parse().unwrap());
            }
            token(&headers).map(|token| token.map(str::to_owned))
        };
        assert_eq!(of(&[]), None);
        assert_eq!(of(&["Bearer a.b.c"]), Some(Ok("a.b.c".to_owned())));
        assert_eq!(of(&["bearer  a.b.c "]), Some(Ok("a.b.c".to_owned())));
        for wrong in [&["Basic a.b.c"][..], &["a.b.c"], &["Bearer"], &["Bearer a", "Bearer b"], &[""]] {
            assert_eq!(of(wrong), Some(Err(Refused::Invalid)), "{wrong:?}");
        }
    }
}
