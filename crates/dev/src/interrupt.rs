//! Ctrl-C and the polite kill: whatever the main thread is doing, one thread stops everything and ends the program.

use std::process::exit;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::Result;
use nix::sys::signal::Signal;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

static UNDER_WAY: AtomicBool = AtomicBool::new(false);

/// Calls `stop` when SIGINT, SIGTERM or SIGHUP arrives, then exits with the code it returns.
pub fn on_signal(stop: impl FnOnce(Signal) -> u8 + Send + 'static) -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            UNDER_WAY.store(true, Ordering::SeqCst);
            exit(stop(Signal::try_from(signal).unwrap_or(Signal::SIGTERM)).into());
        }
    });
    Ok(())
}

/// The exit code of a program that a signal ended, as shells count.
pub fn exit_code(signal: Signal) -> u8 {
    128_u8.saturating_add(u8::try_from(signal as i32).unwrap_or_default())
}

/// Waits for the end of the program where a signal is ending it: what failed meanwhile failed because of that.
pub fn yield_to_it() {
    while UNDER_WAY.load(Ordering::SeqCst) {
        thread::park();
    }
}
