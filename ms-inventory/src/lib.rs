//! ms-inventory
