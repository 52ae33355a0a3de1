use std::thread;

use anyhow::Result;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// Runs `start` on one processor. The processes it starts stay there, with all their threads, and see a machine that has
/// no other.
pub(super) fn held_to_one_core<T: Send>(start: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let this_thread = Pid::from_raw(0);
    let allowed = sched_getaffinity(this_thread)?;
    let mut one = CpuSet::new();
    for processor in 0..CpuSet::count() {
        if allowed.is_set(processor)? {
            one.set(processor)?;
            break;
        }
    }
    let run = || {
        sched_setaffinity(this_thread, &one)?;
        start()
    };
    thread::scope(|scope| scope.spawn(run).join()).map_err(|_| anyhow::anyhow!("starting panicked"))?
}
