use events::{InvalidOrderId, OrderId};
use uuid::Uuid;

/// Crockford's base 32: no letter that looks like a digit, and texts sort as their numbers do.
const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// 26 digits of 5 bits hold the 128 bits of a UUID.
const LENGTH: u32 = 26;

/// The public id of a new order: `ORD-` and a UUIDv7 in Crockford's base 32. Ids sort by age.
///
/// # Errors
/// Never: 30 letters and digits make an [`OrderId`].
pub fn new_id(uuid: Uuid) -> Result<OrderId, InvalidOrderId> {
    let digit = |at: u32| char::from(DIGITS[(uuid.as_u128() >> (5 * at)) as usize % DIGITS.len()]);
    let digits: String = (0..LENGTH).rev().map(digit).collect();
    OrderId::try_from(format!("ORD-{digits}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(number: u128) -> String {
        new_id(Uuid::from_u128(number)).unwrap().into_string()
    }

    #[test]
    fn an_id_is_short_and_legible() {
        assert_eq!(id(0), "ORD-00000000000000000000000000");
        assert_eq!(id(u128::MAX), "ORD-7ZZZZZZZZZZZZZZZZZZZZZZZZZ");
        // The example of the ULID specification's reference implementation.
        assert_eq!(id(0x0156_3e3a_b5d3_d676_4c61_efb9_9302_bd5b), "ORD-01ARZ3NDEKTSV4RRFFQ69G5FAV");
    }

    proptest! {
        #[test]
        fn ids_sort_as_their_uuids_do(a: u128, b: u128) {
            prop_assert_eq!(id(a).cmp(&id(b)), a.cmp(&b));
        }
    }
}
