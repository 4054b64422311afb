//! What every device does.
