//! pass layer.
