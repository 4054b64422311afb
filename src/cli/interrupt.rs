//! Ctrl-C during a measurement: stop, report what was measured, exit with 130.

use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// Exit code after Ctrl-C, as shells give it: 128 and the signal's number.
pub const INTERRUPTED: u8 = 130;

static STOP: AtomicBool = AtomicBool::new(false);

/// From now on the first Ctrl-C only makes [`stopped`] true, and a second one ends the process at once.
pub fn watch() -> Result<()> {
    static WATCHING: Once = Once::new();
    let mut done = Ok(());
    WATCHING.call_once(|| {
        done = ctrlc::set_handler(|| {
            if STOP.swap(true, Ordering::Relaxed) {
                std::process::exit(i32::from(INTERRUPTED));
            }
        });
    });
    done.map_err(|e| Error::BadInput(format!("Ctrl-C cannot be watched: {e}")))
}

/// Waits so long, or until Ctrl-C is pressed; whether it was.
pub fn sleep(time: Duration) -> bool {
    let start = Instant::now();
    while !stopped() {
        let left = time.saturating_sub(start.elapsed());
        if left.is_zero() {
            break;
        }
        std::thread::sleep(left.min(Duration::from_millis(50)));
    }
    stopped()
}

/// Whether Ctrl-C was pressed.
pub fn stopped() -> bool {
    STOP.load(Ordering::Relaxed)
}
