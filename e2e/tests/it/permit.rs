use std::sync::{Condvar, Mutex, PoisonError};

/// How many sets of services there are now.
static RUNNING: Mutex<usize> = Mutex::new(0);
static ENDED: Condvar = Condvar::new();

/// The permit of a set of services to run. As many run at the same time as the machine has cores, and one more: each has three
/// processes and a test that drives them, and all of them share a broker that would be left without a processor.
#[derive(Debug)]
pub(crate) struct Permit(());

impl Permit {
    /// Waits for one, and blocks its thread meanwhile.
    pub(crate) fn acquire() -> Self {
        let most = 1 + std::thread::available_parallelism().map_or(1, usize::from);
        let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        let mut running = ENDED.wait_while(running, |running| *running >= most).unwrap_or_else(PoisonError::into_inner);
        *running += 1;
        Self(())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        *RUNNING.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        ENDED.notify_one();
    }
}
