//! ms-orders
